"""Encoders of pictures by every law; their sizes, their export, and that they learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.core.errors import RecipeError
from penstock.model import fake_batch
from penstock.recipe.schema import load_recipe
from penstock.testing.laws import encoders as laws
from penstock.testing.laws._learning import built, declarations

torch.set_num_threads(1)
TYPES = ("cnn", "resnet", "vit")


def pictures(
    channels: int, height: int, width: int, *, missing: bool = True
) -> FeatureSpecs:
    facts = {"mean": [120.0] * channels, "std": [60.0] * channels}
    spec = {
        "pixels": TensorSpec(
            "uint8",
            (channels, height, width),
            "pixels",
            ("channel", "height", "width"),
            facts=facts,
        )
    }
    return {
        "photo": {
            **spec,
            **({"missing": TensorSpec("float32", role="mask")} if missing else {}),
        }
    }


SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"width": 8},
    "resnet": {"width": 8, "depth": 1},
    "vit": {"width": 16, "depth": 1, "heads": 2},
}
DECLARED = [
    Encoder.load({**part.to_dict(), **SMALL[type]})
    for type in TYPES
    for part in declarations(Encoder.find(type))
]


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("encoder", DECLARED, ids=lambda part: f"{part.type}-{part}")
def test_laws(encoder: Encoder, law: laws.Law) -> None:
    for features in (pictures(3, 9, 13), pictures(1, 16, 16, missing=False)):
        law(encoder, features)
    assert "image" in laws.readable(encoder)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("side", [1, 3, 28, 32, 64, 96, 128, 224])
def test_pictures_of_any_size(type: str, side: int) -> None:
    features = pictures(3, side, side)
    module = Encoder.load({"type": type, **SMALL[type]}).build(features, 8).eval()
    with torch.no_grad():
        out = module(fake_batch(features, 2))
    assert (
        out.tokens.shape == (2, out.mask.shape[1], 8)
        and out.mask.all()
        and out.tokens.shape[1] <= 144
    )
    assert bool(torch.isfinite(out.pooled).all())


@pytest.mark.parametrize("type", TYPES)
def test_bytes_and_numbers_are_the_same_picture(type: str) -> None:
    """Mixed pictures are no whole numbers; a program takes bytes. In any layout of memory."""
    features = pictures(3, 12, 12)
    module = Encoder.load({"type": type, **SMALL[type]}).build(features, None).eval()
    batch = fake_batch(features, 4)
    with torch.no_grad():
        wanted = module(batch).pooled
        for other in (
            batch["photo.pixels"].float(),
            batch["photo.pixels"].contiguous(memory_format=torch.channels_last),
        ):
            assert torch.allclose(
                module({**batch, "photo.pixels": other}).pooled, wanted, atol=1e-5
            )


def test_pixels_are_standardised_by_what_was_learnt() -> None:
    from penstock.nn.images import Standardised

    layer = Standardised(
        TensorSpec(
            "uint8", (2, 1, 2), "pixels", facts={"mean": [100.0, 7.0], "std": [50.0, 0.0]}
        )
    )
    found = layer(torch.tensor([[[[100, 200]], [[7, 7]]]], dtype=torch.uint8), None)
    assert found.tolist() == [[[[0.0, 2.0]], [[0.0, 0.0]]]]
    assert not layer.state_dict(), "facts travel with the encoding, not with the weights"


@pytest.mark.parametrize(
    "declared",
    [
        {"type": "cnn", "norm": "group"},
        {"type": "resnet", "norm": "group"},
        {"type": "vit"},
    ],
)
def test_with_group_norm_rows_do_not_depend_on_their_neighbours_in_training_either(
    declared: dict[str, Any],
) -> None:
    features = pictures(3, 8, 8)
    module = (
        Encoder.load({**declared, **SMALL[declared["type"]], "dropout": 0})
        .build(features, None)
        .train()
    )
    batch = fake_batch(features, 6)
    with torch.no_grad():
        assert torch.allclose(
            module({k: v[:1] for k, v in batch.items()}).pooled,
            module(batch).pooled[:1],
            atol=1e-5,
        )


@pytest.mark.parametrize("type", TYPES)
def test_what_is_exported_answers_alike(type: str, tmp_path) -> None:
    """ONNX with a free batch axis; bytes in."""
    import onnxruntime

    from penstock.bundle import export
    from penstock.testing.laws._learning import targets

    features = pictures(3, 12, 12)

    class Program(nn.Module):
        input_names, output_names = (
            ["photo.pixels", "photo.missing"],
            ["pooled", "tokens"],
        )

        def __init__(self) -> None:
            super().__init__()
            self.encoder = (
                Encoder.load({"type": type, **SMALL[type]}).build(features, 8).eval()
            )

        def forward(self, *arrays: torch.Tensor) -> tuple[torch.Tensor, ...]:
            out = self.encoder(dict(zip(self.input_names, arrays, strict=True)))
            return out.pooled, out.tokens

        def example(self) -> tuple[torch.Tensor, ...]:
            return tuple(fake_batch(features, 3).values())

        def dynamic_shapes(self) -> Any:
            return (tuple({0: torch.export.Dim.DYNAMIC} for _ in self.input_names),)

    assert targets()
    program = Program()
    export.write_onnx(program, tmp_path / "main.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "main.onnx"))
    for rows in (1, 5):
        batch = fake_batch(features, rows, seed=rows)
        found = session.run(None, {name: array.numpy() for name, array in batch.items()})
        with torch.no_grad():
            for one, other in zip(found, program(*batch.values()), strict=True):
                assert np.abs(one - other.numpy()).max() < 1e-4


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("lowered", [False, True], ids=["fp32", "bf16"])
def test_it_learns(type: str, lowered: bool) -> None:
    """Where a bright spot is, left or right, in a few steps."""
    features = pictures(1, 8, 8, missing=False)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 60, (128, 1, 8, 8), np.uint8)
    side = rng.integers(0, 2, 128)
    rows[
        np.arange(128), 0, rng.integers(0, 8, 128), side * 4 + rng.integers(0, 4, 128)
    ] = 255

    def make() -> nn.Module:
        return Encoder.load({"type": type, **SMALL[type], "dropout": 0}).build(
            features, None
        )

    module, head = built(make), built(lambda: nn.LazyLinear(2))
    pixels, wanted = torch.from_numpy(rows), torch.from_numpy(side)
    head(module({"photo.pixels": pixels[:2]}).tokens.flatten(1))
    optimiser = torch.optim.AdamW([*module.parameters(), *head.parameters()], lr=3e-3)
    losses = []
    for _ in range(40):
        with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            loss = nn.functional.cross_entropy(
                head(module({"photo.pixels": pixels}).tokens.flatten(1)).float(), wanted
            )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.35 < math.log(2) - 0.1, losses[::8]


def test_mistakes_are_told() -> None:
    def recipe(encoder: dict[str, Any]) -> Any:
        return load_recipe(
            {
                "source": {"type": "files", "path": "x"},
                "inputs": {"photo": "image"},
                "targets": {"y": "category"},
                "model": {"encoders": {"photo": encoder}},
            }
        )

    with pytest.raises(RecipeError, match="must divide the width 128"):
        recipe({"type": "vit", "heads": 5})
    with pytest.raises(RecipeError, match="Did you mean 'depth'"):
        recipe({"type": "resnet", "dept": 3})
    assert "patches of 9 pixels are larger than the pictures" in str(
        Encoder.load({"type": "vit", "patch": 9}).reads(pictures(3, 8, 8)["photo"])
    )
    assert "encodes pictures of one size; this feature has value []" in str(
        Encoder.load("cnn").reads({"value": TensorSpec("float32")})
    )
