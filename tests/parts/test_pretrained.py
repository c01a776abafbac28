"""Encoders from a folder in the Hugging Face layout: tiny models of chance made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
import transformers

from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.model import fake_batch
from penstock.recipe.schema import Train
from penstock.testing.laws import encoders as laws
from penstock.train.optim import build_optimiser, decay_groups

torch.set_num_threads(1)
WORDS: FeatureSpecs = {
    "bio": {
        "tokens": TensorSpec(
            "int64", (None,), "index", ("time",), 40, {"first": 2, "length": 16}
        ),
        "mask": TensorSpec("bool", (None,), "mask", ("time",)),
    }
}
PICTURE: FeatureSpecs = {
    "photo": {
        "pixels": TensorSpec("uint8", (3, 16, 16), "pixels"),
        "missing": TensorSpec("float32", role="mask"),
    }
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=38,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=20,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": {"[PAD]": 0, "[UNK]": 5}, "unk_token": "[UNK]"}})
    )
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=16,
        patch_size=8,
    )
    transformers.ViTModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2]})
    )
    return folder


def part(path: Path, **options: Any) -> Encoder:
    return Encoder.load({"type": "pretrained", "path": str(path), **options})


# Positions and token types that a small batch never meets have no gradient; weights out of a file are the
# same from any seed.
_LAWS = [law for law in laws.LAWS if law is not laws.gradients]


@pytest.mark.parametrize("law", _LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_laws(law: laws.Law, pooling: str, bert: Path, vit: Path) -> None:
    law(part(bert, pooling=pooling), WORDS)
    law(part(vit, pooling=pooling), PICTURE)


def test_gradients_reach_every_layer(bert: Path, vit: Path) -> None:
    for folder, features in ((bert, WORDS), (vit, PICTURE)):
        module = part(folder).build(features, 8)
        out = module(fake_batch(features, 8))
        (out.pooled.sum() + out.tokens.square().sum()).backward()
        assert [name for name, p in module.named_parameters() if p.grad is None] == []


def test_it_says_what_transformers_says(bert: Path, vit: Path) -> None:
    module = part(bert, pooling="first").build(WORDS, None).eval()
    tokens, mask = (
        torch.tensor([[4, 9, 1, 0], [7, 7, 3, 39]]),
        torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool(),
    )
    with torch.no_grad():
        found = module({"bio.tokens": tokens, "bio.mask": mask})
        wanted = transformers.BertModel.from_pretrained(bert)(
            input_ids=torch.tensor([[2, 7, 5, 0], [5, 5, 1, 37]]),
            attention_mask=mask.long(),
        ).last_hidden_state
        torch.testing.assert_close(
            found.tokens * mask.unsqueeze(-1),
            wanted * mask.unsqueeze(-1),
            atol=1e-5,
            rtol=1e-5,
        )
        torch.testing.assert_close(found.pooled, wanted[:, 0], atol=1e-5, rtol=1e-5)

        pixels = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
        seen = (
            part(vit)
            .build(PICTURE, None)
            .eval()({"photo.pixels": pixels, "photo.missing": torch.zeros(2)})
        )
        scaled = (
            pixels.float() / 255 - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
        ) / 0.2
        torch.testing.assert_close(
            seen.tokens,
            transformers.ViTModel.from_pretrained(vit)(
                pixel_values=scaled
            ).last_hidden_state,
            atol=1e-5,
            rtol=1e-5,
        )


def test_lower_layers_learn_more_slowly(bert: Path) -> None:
    module = part(bert, layer_decay=0.5).build(WORDS, 8)
    scales = {name: getattr(p, "lr_scale", 1.0) for name, p in module.named_parameters()}
    assert {scale for name, scale in scales.items() if ".embeddings." in name} == {0.125}
    assert [{s for n, s in scales.items() if f".layer.{i}." in n} for i in range(3)] == [
        {0.25},
        {0.5},
        {1.0},
    ]
    assert scales["to_tokens.weight"] == 1.0
    groups = decay_groups(module, module.parameters(), 0.1)
    assert sum(len(group["params"]) for group in groups) == len(scales)
    assert {(group["lr_scale"], group["weight_decay"]) for group in groups} >= {
        (1.0, 0.1),
        (1.0, 0.0),
        (0.25, 0.1),
        (0.125, 0.0),
    }
    assert (
        build_optimiser(Train(), module, list(module.parameters())).param_groups[0][
            "lr_scale"
        ]
        == 1.0
    )


def test_frozen_it_neither_moves_nor_drops(bert: Path) -> None:
    module = part(bert, freeze=True).build(WORDS, 8).train()
    batch = fake_batch(WORDS, 4)
    assert {name for name, p in module.named_parameters() if p.requires_grad} == {
        "to_tokens.weight",
        "to_tokens.bias",
    }
    assert torch.equal(module(batch).pooled, module(batch).pooled)
    moving = part(bert).build(WORDS, 8).train()
    assert not torch.equal(moving(batch).pooled, moving(batch).pooled)


def test_what_does_not_fit_is_told(bert: Path, vit: Path, tmp_path: Path) -> None:
    def why(path: Path, spec: dict[str, TensorSpec]) -> str:
        return part(path).reads(spec) or ""

    tokens = WORDS["bio"]["tokens"]
    big = TensorSpec(
        "int64", (None,), "index", ("time",), 999, {"first": 2, "length": 16}
    )
    long = TensorSpec(
        "int64", (None,), "index", ("time",), 40, {"first": 2, "length": 300}
    )
    assert "997 different tokens, and the model" in why(
        bert, {**WORDS["bio"], "tokens": big}
    )
    assert "takes 20 at most" in why(bert, {**WORDS["bio"], "tokens": long})
    assert "takes [3, 16, 16]" in why(
        vit, {"pixels": TensorSpec("uint8", (3, 32, 32), "pixels")}
    )
    assert "not a model of texts" in why(
        vit, {"tokens": tokens, "mask": WORDS["bio"]["mask"]}
    )
    assert "there is no folder" in why(tmp_path / "none", WORDS["bio"])
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    assert "is a pickle and is never loaded" in why(tmp_path, WORDS["bio"])
    assert "no use for `grams`" in why(bert, {**WORDS["bio"], "grams": tokens})


def test_paths_are_relative_to_the_recipe(bert: Path) -> None:
    near = Encoder.load({"type": "pretrained", "path": bert.name})
    assert near.reads(WORDS["bio"]) and near.at(bert.parent).reads(WORDS["bio"]) is None


@pytest.mark.parametrize("kind", ["text", "picture"])
def test_it_exports(kind: str, bert: Path, vit: Path, tmp_path: Path) -> None:
    import numpy as np
    import onnxruntime

    folder, features = {"text": (bert, WORDS), "picture": (vit, PICTURE)}[kind]
    module = part(folder).build(features, 8).eval()
    batch = fake_batch(features, 3)
    names = list(batch)

    class Program(torch.nn.Module):
        input_names, output_names = names, ["pooled"]

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *arrays: torch.Tensor) -> torch.Tensor:
            pooled: torch.Tensor = self.module(
                dict(zip(names, arrays, strict=True))
            ).pooled
            return pooled

        def example(self) -> tuple[torch.Tensor, ...]:
            return tuple(batch.values())

        def dynamic_shapes(self) -> Any:
            auto = torch.export.Dim.DYNAMIC
            return (
                tuple({0: auto, 1: auto} if kind == "text" else {0: auto} for _ in names),
            )

    from penstock.bundle.export import write_onnx

    write_onnx(Program().eval(), tmp_path / "main.onnx")
    other = fake_batch(features, 5, seed=1, length=9)
    session = onnxruntime.InferenceSession(str(tmp_path / "main.onnx"))
    (found,) = session.run(None, {name: array.numpy() for name, array in other.items()})
    with torch.no_grad():
        np.testing.assert_allclose(found, module(other).pooled.numpy(), atol=1e-4)
