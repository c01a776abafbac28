"""Every decoder on the shelf by every law; their losses and answers against definitions; the supervised
objective.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from penstock.contracts.learn import Decoder, Objective
from penstock.core.errors import RecipeError
from penstock.testing.laws import decoders as laws
from penstock.testing.laws._learning import declarations, targets

torch.set_num_threads(1)
DECLARED = [
    part
    for type in ("number", "binary", "category")
    for part in declarations(Decoder.find(type))
]
SPECS = targets()


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("decoder", DECLARED, ids=lambda part: f"{part.type}-{part}")
def test_laws(decoder: Decoder, law: laws.Law) -> None:
    assert laws.readable(decoder) == {decoder.type: SPECS[decoder.type]}
    law(decoder, SPECS[decoder.type])


@pytest.mark.parametrize("type", ["binary", "category"])
def test_laws_hold_with_smoothing_and_weights(type: str) -> None:
    array = next(iter(SPECS[type]))
    spec = SPECS[type][array]
    weights = [0.5 + i for i in range(len(spec.facts["classes"]))]
    laws.check(
        Decoder.load({"type": type, "label_smoothing": 0.1}),
        {array: replace(spec, facts={**spec.facts, "weights": weights})},
    )


def test_a_number_is_answered_in_the_users_units() -> None:
    raw = torch.tensor([0.0, 1.0, -2.0])
    torch.testing.assert_close(
        Decoder.load("number").answer(raw, SPECS["number"])["value"],
        torch.tensor([30.0, 42.0, 6.0]),
    )


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("mse", [0.25, 9.0]), ("mae", [0.5, 3.0]), ("huber", [0.125, 2.5])],
)
def test_losses_of_numbers(word: str, wanted: list[float]) -> None:
    decoder = Decoder.load({"type": "number", "loss": word})
    found = decoder.loss(
        torch.tensor([0.5, -3.0]), {"value": torch.zeros(2)}, SPECS["number"]
    )
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_the_head_starts_from_the_splits_own_shares() -> None:
    raw = laws._module(Decoder.load("binary"), SPECS["binary"])
    torch.testing.assert_close(raw.linear.bias.detach().sigmoid(), torch.tensor([0.3]))  # type: ignore[union-attr, operator]
    many = laws._module(Decoder.load("category"), SPECS["category"])
    torch.testing.assert_close(
        many.linear.bias.detach().softmax(0), torch.tensor([0.4, 0.3, 0.2, 0.1])
    )  # type: ignore[union-attr, operator]


def test_binary_is_a_category_of_two() -> None:
    """Cross-entropy over (0, raw) is the same loss, weights and smoothing included."""
    raw, label = torch.randn(20), torch.randint(0, 2, (20,))
    facts = {"classes": ["no", "yes"], "counts": [7, 3], "weights": [0.7, 1.9]}
    two, many = (
        replace(SPECS["binary"]["label"], facts=facts),
        replace(SPECS["category"]["index"], facts=facts),
    )
    for smoothing in (0.0, 0.2):
        one = Decoder.load({"type": "binary", "label_smoothing": smoothing}).loss(
            raw, {"label": label.float()}, {"label": two}
        )
        other = Decoder.load({"type": "category", "label_smoothing": smoothing}).loss(
            torch.stack([torch.zeros(20), raw], 1), {"index": label}, {"index": many}
        )
        torch.testing.assert_close(one, other)


def test_supervised_sums_weighted_losses() -> None:
    decoders = {"price": Decoder.load("number"), "kind": Decoder.load("category")}
    specs = {"price": SPECS["number"], "kind": SPECS["category"]}
    raw = {"price": torch.randn(6), "kind": torch.randn(6, 4)}
    batch = {
        "price.value": torch.randn(6),
        "kind.index": torch.randint(0, 4, (6,)),
        "weight": torch.tensor([1.0, 0, 2, 1, 1, 0.5]),
        "age.value": torch.randn(6),
    }
    (phase,) = Objective.load({"type": "supervised", "weights": {"kind": 3.0}}).phases(
        decoders, specs
    )
    wanted = batch["weight"] * (
        decoders["price"].loss(
            raw["price"], {"value": batch["price.value"]}, specs["price"]
        )
        + 3
        * decoders["kind"].loss(
            raw["kind"], {"index": batch["kind.index"]}, specs["kind"]
        )
    )
    torch.testing.assert_close(phase.loss(lambda batch: raw, batch), wanted)
    module = torch.nn.Linear(2, 2)
    assert (
        list(phase.parameters(module)) == list(module.parameters()) and phase.every == 1
    )


def test_a_weight_for_no_target_is_a_sentence() -> None:
    with pytest.raises(
        RecipeError,
        match=r"train.objective.weights.knid: is not a target. Did you mean 'kind'\?",
    ):
        Objective.load({"type": "supervised", "weights": {"knid": 3.0}}).phases(
            {"kind": Decoder.load("category")}, {"kind": SPECS["category"]}
        )
