"""Every combiner on the shelf, with every word its options may be, by every law."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from penstock.contracts.learn import Combiner
from penstock.testing.laws import combiners as laws
from penstock.testing.laws._learning import declarations

torch.set_num_threads(1)
DECLARED = [
    part for type in Combiner.types() for part in declarations(Combiner.find(type))
]


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("combiner", DECLARED, ids=lambda part: f"{part.type}-{part}")
def test_laws(combiner: Combiner, law: laws.Law) -> None:
    law(combiner)


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="must divide the width 64; found 7"):
        Combiner.find("attention")(heads=7)  # type: ignore[call-arg]


def test_dropout_is_for_training_alone() -> None:
    for combiner in DECLARED:
        module = laws._module(combiner)
        parts = laws._parts(combiner)
        assert not torch.equal(module(parts).pooled, module(parts).pooled), (
            f"{combiner.type} drops nothing in training"
        )
        module.eval()
        assert torch.equal(module(parts).pooled, module(parts).pooled)
