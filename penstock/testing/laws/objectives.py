"""The laws of objectives: `check(Objective.load("supervised"))`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penstock.contracts.learn import Decoder, Encoded, Objective, Phase
from penstock.contracts.tensors import FeatureSpecs
from penstock.model import fake_batch, seeded
from penstock.testing.laws import _learning as _

ROWS = 12
Law = Callable[[Objective], None]


class _Model(nn.Module):
    """A model of a few linear maps: `[B, WIDTH]` under `x.value` → one raw tensor a target."""

    def __init__(self, decoders: Mapping[str, Decoder], specs: FeatureSpecs) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                name: decoder.build(specs[name], _.WIDTH)
                for name, decoder in decoders.items()
            }
        )

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = batch["x.value"]
        encoded = Encoded(x.unsqueeze(1), torch.ones(len(x), 1, dtype=torch.bool), x)
        return {name: head(encoded) for name, head in self.heads.items()}


def _made(objective: Objective) -> tuple[_Model, list[Phase], dict[str, Tensor]]:
    specs: FeatureSpecs = dict(_.targets())
    decoders = {name: Decoder.load(name) for name in specs}
    with seeded(0):
        model = _Model(decoders, specs)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        batch: dict[str, Tensor] = {
            **fake_batch(specs, ROWS),
            "x.value": torch.randn(ROWS, _.WIDTH),
        }
    batch["row_id"] = torch.arange(2 * ROWS).reshape(ROWS, 2)
    batch["weight"] = torch.ones(ROWS)
    return model, objective.phases(decoders, specs), batch


def _part(batch: Mapping[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: array[rows] for name, array in batch.items()}


def phases(objective: Objective) -> None:
    """There is a phase; names differ; the first runs in every step; each has parameters of the model's
    own.
    """
    model, declared, _batch = _made(objective)
    names = [phase.name for phase in declared]
    assert declared and len(set(names)) == len(names), (
        f"phases: needs at least one, with names that differ; found {names}"
    )
    assert declared[0].every == 1 and all(phase.every >= 1 for phase in declared), (
        "phases: the first runs in every step; `every` is at least 1"
    )
    own = {id(p) for p in model.parameters()}
    for phase in declared:
        moved = list(phase.parameters(model))
        assert moved and all(id(p) in own for p in moved), (
            f"phases: {phase.name} must move parameters of the model, and some"
        )


def rows(objective: Objective) -> None:
    """A loss a row, `[B]`, float32; a row's loss does not depend on the others, so that batches may be
    cut.
    """
    model, declared, batch = _made(objective)
    for phase in declared:
        whole = phase.loss(model, batch)
        assert list(whole.shape) == [ROWS] and whole.dtype == torch.float32, (
            f"rows: {phase.name} must give float32 [{ROWS}]; it gave {whole.dtype} {list(whole.shape)}"
        )
        halves = torch.cat(
            [
                phase.loss(model, _part(batch, slice(0, 5))),
                phase.loss(model, _part(batch, slice(5, None))),
            ]
        )
        assert torch.allclose(whole, halves, atol=_.TOLERANCE), (
            f"rows: the losses of {phase.name} change when the batch is cut"
        )


def weights(objective: Objective) -> None:
    """A row's loss is times its weight; of weight 0 it is 0."""
    model, declared, batch = _made(objective)
    weight = torch.arange(ROWS) % 4 * 0.5
    for phase in declared:
        plain, weighted = (
            phase.loss(model, batch),
            phase.loss(model, {**batch, "weight": weight}),
        )
        assert torch.allclose(weighted, plain * weight, atol=_.TOLERANCE), (
            f"weights: {phase.name} must multiply each row's loss with its weight"
        )


def gradients(objective: Objective) -> None:
    """Every parameter of a phase gets a finite gradient from its loss."""
    model, declared, batch = _made(objective)
    for phase in declared:
        model.zero_grad()
        phase.loss(model, batch).sum().backward()
        for parameter in phase.parameters(model):
            assert parameter.grad is not None and bool(
                torch.isfinite(parameter.grad).all()
            ), (
                f"gradients: a parameter of {phase.name} gets none, or one that is not finite"
            )


def learns(objective: Objective) -> None:
    """A few steps down its gradients lower the loss of the first phase."""
    model, declared, batch = _made(objective)
    before = float(declared[0].loss(model, batch).sum().detach())
    movers: dict[str, Any] = {
        phase.name: torch.optim.Adam(list(phase.parameters(model)), lr=0.05)
        for phase in declared
    }
    for step in range(30):
        for phase in declared:
            if step % phase.every == 0:
                movers[phase.name].zero_grad()
                phase.loss(model, batch).mean().backward()
                movers[phase.name].step()
    after = float(declared[0].loss(model, batch).sum().detach())
    assert after < before, (
        f"learns: thirty steps took the loss from {before:.3f} to {after:.3f}"
    )


def declared(objective: Objective) -> None:
    """Declared → loaded → declared is the identity."""
    _.declared_again("declared", objective)


def light(objective: Objective) -> None:
    """The head of its file imports no torch."""
    _.light_head("light", objective)


LAWS: tuple[Law, ...] = (phases, rows, weights, gradients, learns, declared, light)


def check(objective: Objective) -> None:
    """Judge one objective by every law.

    Raises:
        AssertionError: it breaks a law.
    """
    for law in LAWS:
        law(objective)
