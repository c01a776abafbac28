"""The laws of objectives, over the whole shelf."""

import pytest

from penstock.contracts.learn import Decoder, Objective
from penstock.core.errors import RecipeError
from penstock.testing.laws import objectives as laws
from penstock.testing.laws._learning import targets


@pytest.mark.parametrize("type", Objective.types())
@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
def test_laws(type, law):
    law(Objective.load(type))


def test_the_laws_see_a_loss_that_forgets_the_weights(monkeypatch):
    objective = Objective.load("supervised")
    real = type(objective).phases

    def forgetful(self, decoders, specs):
        from dataclasses import replace

        return [
            replace(
                p,
                loss=lambda m, b, p=p: p.loss(
                    m, {k: v for k, v in b.items() if k != "weight"}
                ),
            )
            for p in real(self, decoders, specs)
        ]

    monkeypatch.setattr(type(objective), "phases", forgetful)
    with pytest.raises(AssertionError, match="weights: supervised"):
        laws.check(objective)


def test_a_weight_for_no_target_is_refused():
    specs = targets()
    with pytest.raises(RecipeError, match="Did you mean 'binary'"):
        Objective.load({"type": "supervised", "weights": {"binry": 2.0}}).phases(
            {name: Decoder.load(name) for name in specs}, specs
        )
