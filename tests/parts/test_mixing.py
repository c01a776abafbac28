"""Pictures mixed in training: shares, determinism, and what cannot be mixed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from penstock.contracts.learn import Decoder, Objective
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import RecipeError, UserError
from penstock.recipe.schema import load_recipe

SPECS = {
    "label": {
        "index": TensorSpec(
            "int64",
            role="target",
            cardinality=3,
            facts={"classes": ["a", "b", "c"], "counts": [1, 1, 1]},
        )
    }
}
ROWS = 8


class Seen(nn.Module):
    """Says nothing, and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.pixels: Any = None

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        self.pixels = batch["photo.pixels"]
        return {"label": self.logits.expand(ROWS, 3)}


def batch() -> dict[str, torch.Tensor]:
    return {
        "photo.pixels": (
            torch.arange(ROWS, dtype=torch.uint8)
            .mul(20)
            .view(-1, 1, 1, 1)
            .expand(ROWS, 3, 8, 8)
            .clone()
        ),
        "photo.missing": torch.zeros(ROWS),
        "label.index": torch.arange(ROWS) % 3,
        "weight": torch.arange(ROWS).float(),
        "row_id": torch.zeros(ROWS, 2, dtype=torch.int64),
    }


def losses(
    declared: dict[str, Any],
    rows: dict[str, torch.Tensor] | None = None,
    *,
    training: bool = True,
    seed: int = 3,
) -> tuple[torch.Tensor, Any]:
    (phase,) = Objective.load({"type": "supervised", **declared}).phases(
        {"label": Decoder.load("category")}, SPECS
    )
    model = Seen().train(training)
    torch.manual_seed(seed)
    return phase.loss(model, rows or batch()).detach(), model.pixels


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_losses_are_shared_as_the_pictures_are(mix: str) -> None:
    for seed in range(10):
        found, pixels = losses({"mix": mix, "alpha": 1.0}, seed=seed)
        one = batch()
        own = one["photo.pixels"].float()
        if mix == "mixup":
            torch.manual_seed(seed)
            share = float(torch.distributions.Beta(1.0, 1.0).sample())
            order = torch.randperm(ROWS)
            assert torch.allclose(pixels, share * own + (1 - share) * own[order])
        else:
            torch.manual_seed(seed)
            torch.distributions.Beta(1.0, 1.0).sample()
            order = torch.randperm(ROWS)
            moved = order != torch.arange(ROWS)
            shares = (pixels.float() == own).float().mean(dim=(1, 2, 3))[moved]
            share = float(shares[0])
            assert pixels.dtype == torch.uint8 and bool((shares == share).all())
            kept = (pixels.float() == own) | (pixels.float() == own[order])
            assert bool(kept.all())
        plain, _ = losses({})
        each = plain / one["weight"].clamp_min(1)
        each[0] = each[3]  # of weight 0: its class is that of row 3
        wanted = (
            share * each * one["weight"]
            + (1 - share) * each[order] * one["weight"][order]
        )
        assert torch.allclose(found, wanted, atol=1e-5)


def test_one_seed_one_mixture_and_none_in_judging() -> None:
    for mix in ("mixup", "cutmix"):
        (a, p), (b, q), (_, r) = (
            losses({"mix": mix}),
            losses({"mix": mix}),
            losses({"mix": mix}, seed=4),
        )
        assert (
            torch.equal(a, b)
            and torch.equal(p, q)
            and not torch.equal(p.float(), r.float())
        )
        judged, pixels = losses({"mix": mix}, training=False)
        assert torch.equal(judged, losses({})[0]) and torch.equal(
            pixels, batch()["photo.pixels"]
        )


def test_what_cannot_be_mixed_is_told() -> None:
    with pytest.raises(UserError, match="the inputs age, bio are none"):
        losses(
            {"mix": "mixup"},
            {
                **batch(),
                "age.value": torch.zeros(ROWS),
                "bio.tokens": torch.zeros(ROWS, 3),
            },
        )
    with pytest.raises(UserError, match="there is none"):
        losses(
            {"mix": "mixup"},
            {
                name: array
                for name, array in batch().items()
                if not name.startswith("photo.")
            },
        )
    with pytest.raises(RecipeError, match="expected one of mixup, cutmix"):
        load_recipe(
            {
                "source": {"type": "files", "path": "x"},
                "train": {"objective": {"mix": "mixupp"}},
            }
        )
