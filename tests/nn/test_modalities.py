"""Modality dropout and gated fusion: what the combiners' laws cannot say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.learn import Combiner
from penstock.nn.modalities import ModalityDropout
from penstock.testing.laws import combiners as laws
from penstock.testing.laws._learning import encoded

torch.set_num_threads(1)


@settings(deadline=None, max_examples=40)
@given(
    parts=st.integers(1, 5),
    share=st.floats(0, 0.99),
    rows=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_a_row_never_loses_all(parts: int, share: float, rows: int, seed: int) -> None:
    torch.manual_seed(seed)
    given = [encoded(rows, 3, 4, seed=i) for i in range(parts)]
    found = ModalityDropout(share).train()(given)
    kept = torch.stack([part.mask.any(1) for part in found], 1)
    assert bool(kept.any(1).all())
    for i, (was, now) in enumerate(zip(given, found, strict=True)):
        assert torch.equal(now.pooled, was.pooled * kept[:, i : i + 1])
        assert torch.equal(now.mask, was.mask & kept[:, i : i + 1])
    if parts == 1 or share == 0:
        assert bool(kept.all())


def test_each_is_lost_as_often_as_asked_and_none_more_than_another() -> None:
    torch.manual_seed(0)
    given = [encoded(20_000, 1, 2, seed=i) for i in range(3)]
    kept = ModalityDropout(0.3).train().keep_mask(given)
    assert kept is not None
    lost = 1 - kept.float().mean(0)
    assert torch.allclose(lost, torch.full((3,), 0.3 - 0.3**3 / 3), atol=0.015)


def test_nothing_is_lost_when_answering() -> None:
    given = [encoded(5, 3, 4, seed=i) for i in range(2)]
    assert all(
        a.pooled is b.pooled
        for a, b in zip(ModalityDropout(0.9).eval()(given), given, strict=True)
    )


@pytest.mark.parametrize("type", ["mlp", "gated", "attention"])
def test_combiners_take_it(type: str) -> None:
    """With all other chance off, only modality dropout is left, and it changes what comes out in training
    alone.
    """
    off = {
        name: 0.0 for name in Combiner.find(type).model_fields if name.endswith("dropout")
    }
    combiner = Combiner.load({"type": type, **off, "modality_dropout": 0.5})
    module, parts = laws._module(combiner), laws._parts(combiner)
    assert not torch.equal(module(parts).pooled, module(parts).pooled)
    module.eval()
    assert torch.equal(module(parts).pooled, module(parts).pooled)
    laws.check(combiner)


def test_a_lost_part_says_nothing_through_the_gates() -> None:
    combiner = Combiner.load({"type": "gated", "dropout": 0.0, "modality_dropout": 0.6})
    module, parts = laws._module(combiner).train(), laws._parts(combiner)
    other = [parts[0], parts[1]._replace(pooled=parts[1].pooled.flip(0))]
    torch.manual_seed(1)
    kept = module.drop.keep_mask(parts)  # type: ignore[operator, union-attr]
    torch.manual_seed(1)
    one = module(parts)
    torch.manual_seed(1)
    two = module(other)
    gone = ~kept[:, 1]
    assert (
        bool(gone.any())
        and torch.equal(one.pooled[gone], two.pooled[gone])
        and not torch.equal(one.pooled, two.pooled)
    )
    assert torch.equal(one.mask, kept)
