"""Ensembles: several networks that are trained, judged and exported as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penstock.core.errors import RecipeError
from penstock.core.identity import fingerprint
from penstock.model import Program, build_network, decoders_of, parameter_count
from penstock.model.ensemble import Ensemble
from penstock.nn.members import most_agreed
from penstock.order.members import OfMembers
from penstock.order.order import Order
from penstock.order.samplers import Once, Subset
from penstock.recipe.names import name_problems
from penstock.recipe.schema import Model, load_recipe
from tests.bundle.made import DECLARED, make, people
from tests.test_model import batch_of, made, recipe

torch.set_num_threads(1)
MLP = {"combiner": {"type": "mlp", "width": 16, "dropout": 0.0}}


def losses(declared: Any, encoding: Any, raw: Any, batch: Any) -> torch.Tensor:
    decoders = decoders_of(declared, encoding)
    specs = encoding.specs("targets")
    each = [
        decoder.loss(
            raw[name],
            {array: batch[f"{name}.{array}"] for array in specs[name]},
            specs[name],
        )
        for name, decoder in decoders.items()
    ]
    return torch.stack(each).sum(dim=0)


def test_separate_members_learn_as_each_would_alone() -> None:
    declared, encoding, network = made(model={**MLP, "ensemble": 3})
    assert isinstance(network, Ensemble)
    network.eval()  # nothing is dropped
    batch = batch_of(encoding, 12)
    shapes = {name: tuple(raw.shape) for name, raw in network(batch).items()}
    assert shapes == {"price": (12, 3), "left": (12, 3), "kind": (12, 3, 4)}
    # Rows for the members 0 and 2 alone.
    whose = torch.arange(12) % 2 * 2
    raw = network({**batch, "member": whose})
    assert tuple(raw["kind"].shape) == (12, 1, 4)
    together = losses(declared, encoding, raw, batch)
    together.mean().backward()
    alone = recipe(model=MLP)
    for number, member in enumerate(network.members):
        gradients = [p.grad.clone() for p in member.parameters()]
        member.zero_grad()
        mine = whose == number
        if not mine.any():
            assert all(not gradient.any() for gradient in gradients)
            continue
        own = {name: array[mine] for name, array in batch.items()}
        of_one = losses(alone, encoding, member(own), own)
        torch.testing.assert_close(together[mine], of_one)
        (of_one.mean() * 3 / 2).backward()  # of three members two have rows
        for one, parameter in zip(gradients, member.parameters(), strict=True):
            torch.testing.assert_close(one, parameter.grad)
    again = build_network(declared, encoding, seed=3)
    pairs = list(zip(network.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(one, other) for one, other in pairs)


def test_members_have_orders_of_their_own_whoever_reads_them() -> None:
    orders = [Once(Subset(10, 10), Order(10, seed)) for seed in (1, 2, 3)]
    drawn = OfMembers(orders).draw(0, np.arange(30))
    assert drawn.member is not None and drawn.member.tolist() == [0, 1, 2] * 10
    rows = [drawn.slots[drawn.member == member].tolist() for member in range(3)]
    assert all(sorted(own) == list(range(10)) for own in rows)
    assert rows[0] != rows[1] != rows[2]
    # Any part of the positions says the same of them, also backwards and beyond the end.
    some = np.array([17, 3, 31])
    part = OfMembers(orders).draw(0, some)
    assert part.slots.tolist() == drawn.slots[some % 30].tolist()
    holed = [Once(Subset(10, 10), order.order, np.array([4])) for order in orders]
    empty = OfMembers(holed).empty(0)
    assert empty is not None and drawn.slots[empty].tolist() == [4, 4, 4]


@pytest.mark.parametrize("combiner", ["mlp", "residual"])
def test_members_that_share_have_little_of_their_own(combiner: str) -> None:
    plain = made(model={"combiner": combiner})[2]
    shared: dict[str, Any] = {"members": 8, "share": True}
    declared, encoding, network = made(model={"combiner": combiner, "ensemble": shared})
    assert parameter_count(network) < 1.5 * parameter_count(plain)
    network.eval()
    batch = batch_of(encoding)
    raw = network(batch)
    assert tuple(raw["kind"].shape) == (8, 8, 4)
    assert not torch.equal(raw["left"][:, 0], raw["left"][:, 1])
    losses(declared, encoding, raw, batch).sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_what_is_judged_is_what_members_say_together() -> None:
    declared, encoding, network = made(model={**MLP, "ensemble": 3})
    network.eval()
    batch = batch_of(encoding)
    program = Program(network, decoders_of(declared, encoding), encoding)
    names = ["price", "left", "kind"]
    assert [name for name in program.output_names if name.endswith(".doubt")] == [
        f"{name}.doubt" for name in names
    ]
    with torch.no_grad():
        raw = network(batch)
        found = losses(declared, encoding, raw, batch)
        decoder = decoders_of(declared, encoding)["left"]
        chance = raw["left"].sigmoid().mean(dim=1)
        label = batch["left.label"]
        expected = torch.nn.functional.binary_cross_entropy(
            chance, label, reduction="none"
        )
        spec = encoding.specs("targets")["left"]
        torch.testing.assert_close(
            decoder.loss(raw["left"], {"label": label}, spec), expected
        )
        answers = decoder.answer(raw["left"], spec)
        torch.testing.assert_close(answers["probability"], chance)
        apart = (raw["left"].sigmoid() - chance.unsqueeze(1)).abs().mean(dim=1)
        torch.testing.assert_close(answers["doubt"], apart)
    # In training it is the members' mean, which the mixture is never worse than (Jensen).
    assert bool((found <= losses(declared, encoding, network(batch), batch) + 1e-6).all())


def test_of_told_texts_the_one_that_agrees_most_is_answered() -> None:
    end = 3
    texts = torch.tensor(
        [[[5, 6, 3], [5, 7, 3], [8, 3, 3]], [[5, 6, 3]] * 3, [[3, 3, 3]] * 3]
    )
    text, agreement = most_agreed(texts, end)
    assert text.tolist() == [[5, 6, 3], [5, 6, 3], [3, 3, 3]]
    # One of two words, with one of the two others.
    assert agreement.tolist() == [0.25, 1.0, 1.0]


def test_a_recipe_without_the_word_is_what_it_was(tmp_path: Any) -> None:
    assert Model().to_dict() == {"encoders": {}, "combiner": None, "decoders": {}}
    assert fingerprint(Model().to_dict()) != fingerprint(Model(ensemble=2).to_dict())
    assert Model(ensemble=4) == Model(ensemble={"members": 4})


def test_what_cannot_be_an_ensemble_is_a_sentence(tmp_path: Any) -> None:
    with pytest.raises(RecipeError, match="mlp or residual"):
        made(model={"combiner": "attention", "ensemble": {"members": 4, "share": True}})
    declared = {
        "name": "r",
        "source": {"type": "files", "path": str(tmp_path)},
        "inputs": {"a": "number"},
        "targets": {"y": "number", "y_doubt": "number"},
        "model": {"ensemble": 3},
    }
    [problem] = name_problems(load_recipe(declared))
    assert "answers in the column 'y_doubt'" in str(problem)
    with pytest.raises(RecipeError, match="makes several of Penstock's own networks"):
        load_recipe({**declared, "model": {"type": "acme.net:Net", "ensemble": 3}})


@pytest.mark.slow
@pytest.mark.parametrize("share", [False, True])
def test_a_bundle_answers_with_its_members_doubt(tmp_path: Path, share: bool) -> None:
    """Packing compares the exported program with torch, on many rows and on one."""
    ensemble = {"members": 2, "share": share}
    inputs = {name: DECLARED["inputs"][name] for name in ("age", "city")}
    words = {"inputs": inputs, "model": {**MLP, "ensemble": ensemble}}
    bundle, _, _ = make(tmp_path, {**DECLARED, **words})
    answers = bundle.predict(people(20))
    doubts = {
        name: answers[f"{name}_doubt"].to_numpy() for name in ("pay", "kind", "score")
    }
    assert all((doubt > 0).all() for doubt in doubts.values())
    assert doubts["pay"].max() <= 0.5 and doubts["kind"].max() <= 0.5
    # In the target's own units, which has a deviation of about 20.
    assert doubts["score"].mean() > 0.05
