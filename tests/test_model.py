"""The model: assembled from specs, told plainly what is wrong, exported whole."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penstock.contracts.data import Feature
from penstock.contracts.foreign import no_foreign_code
from penstock.contracts.learn import Combiner, Encoder
from penstock.contracts.tensors import FeatureSpecs
from penstock.core.errors import RecipeError
from penstock.model import (
    Network,
    Program,
    build_network,
    decoders_of,
    encoders_of,
    fake_batch,
    parameter_count,
    target_specs,
)
from penstock.recipe.schema import Model, OwnModel, Recipe, Train
from penstock.testing.laws._learning import inputs, targets

torch.set_num_threads(1)


class FakeEncoding:
    """What a model needs of an encoding: features by name, and specs."""

    def __init__(self, recipe: Recipe, **types: str) -> None:
        standard = {
            name: arrays for group in inputs().values() for name, arrays in group.items()
        }
        self.inputs: dict[str, Feature] = dict(recipe.inputs)
        self.targets: dict[str, Feature] = dict(recipe.targets)
        self._inputs = {name: standard[name] for name in recipe.inputs}
        self._targets = {
            name: targets()[feature.type] for name, feature in recipe.targets.items()
        }

    def specs(self, side: str) -> FeatureSpecs:
        return self._inputs if side == "inputs" else self._targets


ALL = {
    "age": "number",
    "fare.paid": "number",
    "type": "number",
    "smokes": "binary",
    "drinks": "binary",
    "job": "category",
    "town": "category",
    "since": "timestamp",
    "until": "timestamp",
    "signal": {"type": "vector", "length": 6},
}
TARGETS = {"price": "number", "left": "binary", "kind": "category"}


def recipe(
    *,
    columns: dict[str, Any] = ALL,
    answers: dict[str, Any] = TARGETS,
    model: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
) -> Recipe:
    """A recipe of the sections that a model reads; the others are left out, so that no other shelf is needed
    here.
    """
    model = model or {}
    return Recipe.model_construct(
        name="r",
        inputs={n: Feature.load(f) for n, f in columns.items()},
        targets={n: Feature.load(f) for n, f in answers.items()},
        model=(OwnModel if "type" in model else Model).model_validate(model),
        train=Train.model_validate(train or {}),
    )


def made(**words: Any) -> tuple[Recipe, FakeEncoding, torch.nn.Module]:
    declared = recipe(**words)
    encoding = FakeEncoding(declared)
    return declared, encoding, build_network(declared, encoding, seed=3)


def batch_of(encoding: FakeEncoding, rows: int = 8) -> dict[str, torch.Tensor]:
    return fake_batch({**encoding.specs("inputs"), **encoding.specs("targets")}, rows)


# -- assembly ------------------------------------------------------------------------------------------------


def test_equal_encoders_with_equal_specs_are_one_module() -> None:
    _, encoding, network = made()
    assert isinstance(network, Network)
    assert list(network.encoders) == [
        ":piecewise",
        ":linear",
        ":embedding",
        ":linear#2",
        ":linear#3",
    ]
    raw = network(batch_of(encoding))
    assert {name: tuple(value.shape) for name, value in raw.items()} == {
        "price": (8,),
        "left": (8,),
        "kind": (8, 4),
    }


def test_an_encoder_is_chosen_by_name_then_type_then_feature() -> None:
    declared = recipe(
        model={
            "encoders": {"<number>": "periodic", "age": {"type": "linear", "width": 5}}
        }
    )
    chosen = encoders_of(declared, FakeEncoding(declared))
    assert {
        name: encoder.type
        for name, (encoder, _) in chosen.items()
        if name in ("age", "fare.paid", "job")
    } == {"age": "linear", "fare.paid": "periodic", "job": "embedding"}
    assert (
        chosen["age"][1] == ("model", "encoders", "age")
        and chosen["fare.paid"][1] == ("model", "encoders", "<number>")
        and chosen["job"][1] == ("inputs", "job")
    )


def test_features_and_targets_may_have_any_name() -> None:
    """Dots, and words that a ModuleDict has itself."""
    _, encoding, network = made(
        columns={"type": "number", "fare.paid": "number"},
        answers={"keys": "number", "a.b": "binary"},
    )
    assert set(network(batch_of(encoding))) == {"keys", "a.b"}


@pytest.mark.parametrize("combiner", Combiner.types())
def test_gradients_reach_every_parameter_of_the_whole(combiner: str) -> None:
    declared, encoding, network = made(model={"combiner": combiner})
    batch = batch_of(encoding, 64)
    specs = target_specs(declared, encoding)
    (phase,) = declared.train.objective.phases(decoders_of(declared, encoding), specs)
    phase.loss(network, {**batch, "weight": torch.ones(64)}).mean().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in network.parameters())
    assert parameter_count(network) == sum(p.numel() for p in network.parameters()) > 1000


def test_it_learns() -> None:
    declared, encoding, network = made(
        columns={"age": "number", "job": "category"}, answers={"left": "binary"}
    )
    batch = batch_of(encoding, 256)
    batch["left.label"] = ((batch["age.value"] > 0) ^ (batch["job.index"] > 3)).float()
    batch["age.missing"].zero_()
    (phase,) = declared.train.objective.phases(
        decoders_of(declared, encoding), target_specs(declared, encoding)
    )
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        loss = phase.loss(network, batch).mean()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.2


# -- seeds ---------------------------------------------------------------------------------------------------


def test_a_seed_decides_everything_and_the_callers_chance_is_left_alone() -> None:
    declared = recipe()
    encoding = FakeEncoding(declared)
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    one = build_network(declared, encoding, seed=5).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(12)
    two = build_network(declared, encoding, seed=5).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = build_network(declared, encoding, seed=6).state_dict()
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_one_more_input_shifts_nobody_elses_numbers() -> None:
    small = made(columns={"age": "number", "job": "category"})[2].state_dict()
    large = made(columns={"age": "number", "signal": ALL["signal"], "job": "category"})[
        2
    ].state_dict()
    kept = [name for name in small if name.startswith(("encoders.", "decoders."))]
    assert len(kept) >= 9 and all(torch.equal(small[name], large[name]) for name in kept)


# -- mistakes ------------------------------------------------------------------------------------------------


def problems(**words: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        made(**words)
    return [str(p) for p in caught.value.problems]


def test_all_mistakes_are_told_at_once_with_their_paths() -> None:
    found = problems(
        model={
            "encoders": {"age": "embedding", "<category>": "piecewise"},
            "decoders": {"price": "binary"},
        }
    )
    assert [text.partition(":")[0] for text in found] == [
        "model.decoders.price",
        "model.encoders.age",
        "model.encoders.<category>",
        "model.encoders.<category>",
    ]
    assert "binary answers a target with two classes; this one has value []" in found[0]
    assert "(the input 'town')" in found[-1]


def test_widths_that_do_not_fit_are_a_sentence() -> None:
    (found,) = problems(
        columns={"age": "number"},
        model={
            "encoders": {"age": {"type": "piecewise", "width": 24}},
            "combiner": {"type": "attention", "width": 32},
        },
    )
    assert (
        found
        == "model.encoders.age: gives tokens of width 24; the combiner 'attention' needs 32. Set one of the"
        " two to the other's."
    )


def test_nothing_to_learn_from_is_a_sentence() -> None:
    assert problems(columns={}, answers={}) == [
        "inputs: needs at least one feature, to train a model",
        "targets: needs at least one feature, to train a model",
    ]


# -- class weights -------------------------------------------------------------------------------------------


def weights_of(asked: dict[str, Any]) -> FeatureSpecs:
    declared = recipe(train={"class_weights": asked})
    return target_specs(declared, FakeEncoding(declared))


def test_balanced_weights_make_the_average_row_weigh_one() -> None:
    facts = weights_of({"left": "balanced", "kind": "balanced"})
    assert facts["left"]["label"].facts["weights"] == pytest.approx([100 / 140, 100 / 60])
    found = np.array(facts["kind"]["index"].facts["weights"])
    assert found == pytest.approx(100 / (4 * np.array([40, 30, 20, 10]))) and (
        found * [40, 30, 20, 10]
    ).sum() == pytest.approx(100)


def test_weights_by_class_reach_the_loss() -> None:
    declared = recipe(train={"class_weights": {"left": {"yes": 5.0}}})
    encoding = FakeEncoding(declared)
    batch = batch_of(encoding)
    raw = torch.zeros(8)
    plain = decoders_of(declared, encoding)["left"].loss(
        raw, {"label": batch["left.label"]}, encoding.specs("targets")["left"]
    )
    heavy = decoders_of(declared, encoding)["left"].loss(
        raw, {"label": batch["left.label"]}, target_specs(declared, encoding)["left"]
    )
    torch.testing.assert_close(heavy / plain, 1 + 4 * batch["left.label"])
    assert "weights" not in encoding.specs("targets")["left"]["label"].facts, (
        "the encoding's own specs stay as they are"
    )


def test_weights_for_what_is_not_there_are_sentences() -> None:
    with pytest.raises(RecipeError) as caught:
        weights_of({"price": "balanced", "left": {"yess": 2.0, "no": -1.0}})
    assert [str(p) for p in caught.value.problems] == [
        "train.class_weights.price: has no classes to weight: only binary and category targets have",
        "train.class_weights.left.yess: is not a class of 'left'. Did you mean 'yes'? Known: no, yes.",
        "train.class_weights.left.no: must not be negative; found -1",
    ]


# -- somebody else's code ------------------------------------------------------------------------------------

ACME = '''
from penstock.contracts.learn import Encoder

class Tcn(Encoder):
    """A stranger's encoder of a vector."""
    channels: int = 4
    def reads(self, spec):
        return None if "value" in spec and len(spec["value"].shape) == 1 else "tcn reads a vector of steps"
    def build(self, features, width):
        from acme.layers import Tcn
        (name,) = features
        return Tcn(name, width or self.channels)
'''
LAYERS = """
import torch
from torch import nn
from penstock.contracts.learn import Encoded

class Tcn(nn.Module):
    def __init__(self, name, width):
        super().__init__()
        self.name, self.width, self.pooled_width = name, width, width
        self.convolve = nn.Conv1d(1, width, 3, padding=1)
        self.gone = nn.Parameter(torch.randn(width))
    def forward(self, batch):
        x = self.convolve(batch[f"{self.name}.value"].unsqueeze(1)).transpose(1, 2)
        x = torch.where(batch[f"{self.name}.missing"].view(-1, 1, 1) > 0.5, self.gone, x)
        return Encoded(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), x.mean(1))
"""
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, specs, targets, hidden=4, answer="left"):
        super().__init__()
        self.layer = nn.Sequential(nn.LazyLinear(hidden), nn.BatchNorm1d(hidden), nn.LazyLinear(1))
        self.answer = answer
        self.inputs = [f"{n}.{a}" for n, arrays in specs.items() for a in arrays]
    def forward(self, batch):
        return {self.answer: self.layer(torch.stack([batch[n] for n in self.inputs], 1)).squeeze(-1)}

class Column(Net):
    def forward(self, batch):
        return {k: v.unsqueeze(-1) for k, v in super().forward(batch).items()}

class Cheat(Net):
    def forward(self, batch):
        return {"left": batch["left.label"]}

class Bare(nn.Module):
    def forward(self, batch):
        return torch.zeros(3)

class Touchy(nn.Module):
    def __init__(self):
        raise ValueError("no weights file")
"""


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "__init__.py").touch()
    (tmp_path / "acme" / "tcn.py").write_text(ACME)
    (tmp_path / "acme" / "layers.py").write_text(LAYERS)
    (tmp_path / "acme" / "net.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] == "acme"]:
        del sys.modules[name]


@pytest.mark.usefixtures("acme")
def test_a_strangers_encoder_enters_by_the_same_door_and_keeps_the_laws() -> None:
    from penstock.testing.laws import encoders as laws

    laws.check(Encoder.load("acme.tcn"), {"signal": inputs()["vector"]["signal"]})
    _, encoding, network = made(
        model={"encoders": {"signal": {"type": "acme.tcn", "channels": 6}}}
    )
    assert isinstance(network, Network) and ":acme%2Etcn:signal" in network.encoders
    assert network(batch_of(encoding))["left"].shape == (8,)


def own(**model: Any) -> dict[str, Any]:
    return {
        "columns": {"age": "number", "fare.paid": "number"},
        "answers": {"left": "binary"},
        "model": model,
    }


@pytest.mark.usefixtures("acme")
def test_a_module_of_the_users_is_the_model() -> None:
    _, encoding, network = made(**own(type="acme.net:Net", arguments={"hidden": 5}))
    assert network.training
    raw = network(batch_of(encoding))
    raw["left"].sum().backward()
    again = made(**own(type="acme.net:Net", arguments={"hidden": 5}))[2].state_dict()
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), again.values(), strict=True)
        if a.is_floating_point() and a.ndim > 1
    )


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"type": "acme.nett:Net"}, "model.type: cannot import 'acme.nett'"),
        (
            {"type": "acme.net:Nett"},
            "model.type: 'acme.net' has no torch.nn.Module called 'Nett'. Did you mean 'Net'?",
        ),
        (
            {"type": "acme.net:Net", "arguments": {"hiden": 5}},
            (
                "model.arguments: acme.net:Net takes (specs, targets, hidden=4, answer='left'); got an"
                " unexpected keyword argument 'hiden'"
            ),
        ),
        (
            {"type": "acme.net:Touchy"},
            "model: acme.net:Touchy could not be made: ValueError: no weights file",
        ),
        (
            {"type": "acme.net:Bare"},
            (
                "model: acme.net:Bare must return a dict of one tensor a target ('left': [B]); it returned a"
                " Tensor"
            ),
        ),
        (
            {"type": "acme.net:Net", "arguments": {"answer": "right"}},
            (
                "model: acme.net:Net must return a dict of one tensor a target ('left': [B]); it returned a"
                " dict with 'right'"
            ),
        ),
        (
            {"type": "acme.net:Column"},
            (
                "model: acme.net:Column must return float tensors of shape 'left': [B] with B rows; for B = 3"
                " it returned 'left': [3, 1] of float32"
            ),
        ),
        (
            {"type": "acme.net:Cheat"},
            "model: acme.net:Cheat failed on a small batch: KeyError: 'left.label'",
        ),
    ],
)
def test_a_module_that_does_not_do_is_a_sentence(
    model: dict[str, Any], said: str
) -> None:
    (found,) = problems(**own(**model))
    assert found.startswith(said)


@pytest.mark.usefixtures("acme")
def test_a_strangers_module_is_not_run_where_foreign_code_is_refused() -> None:
    declared = recipe(**own(type="acme.net:Net"))
    with no_foreign_code(), pytest.raises(RecipeError, match="--trust"):
        build_network(declared, FakeEncoding(declared), seed=0)
    assert "acme.net" not in sys.modules


# -- program and export --------------------------------------------------------------------------------------


def program(**words: Any) -> tuple[FakeEncoding, Program]:
    declared, encoding, network = made(**words)
    return encoding, Program(network, decoders_of(declared, encoding), encoding)


def test_a_program_takes_arrays_in_order_and_answers_in_order() -> None:
    encoding, exported = program()
    assert exported.input_names[:3] == ["age.value", "age.missing", "fare.paid.value"]
    assert exported.output_names == [
        "price.value",
        "left.probability",
        "kind.probabilities",
    ]
    assert not exported.training
    batch = fake_batch(encoding.specs("inputs"), 9, seed=4)
    value, probability, probabilities = exported(*batch.values())
    assert value.shape == probability.shape == (9,) and probabilities.shape == (9, 4)
    raw = exported.network(batch)
    torch.testing.assert_close(value, raw["price"] * 12 + 30)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(9))


def test_fake_batches_hold_to_their_specs() -> None:
    specs = {**inputs()["number"], **inputs()["category"], **targets()}
    batch = fake_batch(specs, 50)
    assert (
        batch["town.index"].max() == 2
        and batch["category.index"].max() == 3
        and set(batch["binary.label"].tolist()) == {0.0, 1.0}
    )
    assert (
        set(batch["age.missing"].tolist()) == {0.0, 1.0}
        and batch["binary.label"].dtype == torch.float32
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(batch.values(), fake_batch(specs, 50).values(), strict=True)
    )


def agrees_as_onnx(encoding: FakeEncoding, module: Program) -> None:
    """Exported with an open batch axis, onnxruntime answers one row and many as torch does."""
    import onnxruntime

    exported = torch.onnx.export(
        module,
        module.example(),
        input_names=module.input_names,
        output_names=module.output_names,
        dynamic_shapes=module.dynamic_shapes(),
        dynamo=True,
        verbose=False,
    )
    assert exported is not None
    target = io.BytesIO()
    exported.save(target)
    session = onnxruntime.InferenceSession(
        target.getvalue(), providers=["CPUExecutionProvider"]
    )
    assert [i.name for i in session.get_inputs()] == module.input_names
    for rows in (1, 2, 7, 300):
        batch = fake_batch(encoding.specs("inputs"), rows, seed=rows)
        found = session.run(
            module.output_names, {name: array.numpy() for name, array in batch.items()}
        )
        for one, other in zip(found, module(*batch.values()), strict=True):
            np.testing.assert_allclose(one, other.detach().numpy(), atol=1e-5, rtol=1e-5)


def test_the_default_model_is_the_same_as_onnx() -> None:
    agrees_as_onnx(*program())


NUMBERS: tuple[Any, ...] = (
    {"type": "piecewise", "activation": "relu"},
    "periodic",
    {"type": "periodic", "lite": True},
    "linear",
)


def combinations() -> Iterator[Any]:
    """Each combiner with each encoder of numbers. In the slow ring each combiner has one of them, and each of
    them a combiner; the rest is in the long ring.
    """
    for place, combiner in enumerate(Combiner.types()):
        for number, words in enumerate(NUMBERS):
            is_its_own = number == place % len(NUMBERS)
            marks = [pytest.mark.slow, *([] if is_its_own else [pytest.mark.long])]
            yield pytest.param(combiner, words, marks=marks, id=f"{combiner}-{words}")


@pytest.mark.parametrize(("combiner", "numbers"), list(combinations()))
def test_every_combination_is_the_same_as_onnx(combiner: str, numbers: Any) -> None:
    agrees_as_onnx(
        *program(model={"combiner": combiner, "encoders": {"<number>": numbers}})
    )


@pytest.mark.slow
@pytest.mark.usefixtures("acme")
def test_a_module_of_the_users_is_the_same_as_onnx() -> None:
    agrees_as_onnx(*program(**own(type="acme.net:Net")))


def test_nothing_in_a_step_stops_the_compiler() -> None:
    """torch.compile sees one graph, without breaks (traced only: no C++ compiler is needed)."""
    for combiner in Combiner.types():
        _, encoding, network = made(model={"combiner": combiner})
        assert torch._dynamo.explain(network)(batch_of(encoding)).graph_break_count == 0
