"""A small vision transformer (Dosovitskiy et al. 2021): patches as tokens, a learnt place for each, attention
among them.

Design: a convolutional stem for patches (Xiao et al. 2021, "Early Convolutions"), since a plain cut learns
slowly from few pictures; pre-norm blocks of `nn.attention`; the class token is `pooled`, the patches are the
tokens. It wants more pictures than a residual network does, and repays them where other features are to
attend to its patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from penstock.contracts.learn import Encoder
from penstock.contracts.part import mistakes
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.core.errors import Problem
from penstock.parts.encoders._pictures import not_pictures

if TYPE_CHECKING:
    from torch import nn


class Vit(Encoder):
    """Pictures as patches that attend to one another.

    Reads `pixels` uint8 `[B, C, H, W]` and, if there, `missing [B]`.
    """

    width: int = Field(128, ge=8)
    """Of a token, within; what the combiner asks for is made of it by a linear map."""
    depth: int = Field(4, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    patch: int | None = Field(None, ge=1)
    """A patch's side in pixels; what gives about 8 × 8 patches unless told otherwise."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """In feed-forward layers and attention, in training."""

    @model_validator(mode="after")
    def _divides(self) -> Vit:
        if self.width % self.heads:
            raise mistakes(
                Problem(
                    ("heads",), f"must divide the width {self.width}; found {self.heads}"
                )
            )
        return self

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        why = not_pictures("vit", spec)
        if (
            why is None
            and self.patch is not None
            and self.patch > min(int(n or 0) for n in spec["pixels"].shape[1:])
        ):
            return (
                f"vit's patches of {self.patch} pixels are larger than the pictures,"
                f" {list(spec['pixels'].shape)}"
            )
        return why

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from penstock.nn.patches import Patches

        ((name, spec),) = features.items()
        _, height, across = (int(n or 0) for n in spec["pixels"].shape)
        # About 8 patches along the longer side.
        patch = self.patch or max(1, min(height, across, round(max(height, across) / 8)))
        return Patches(
            name, spec, patch, self.width, self.depth, self.heads, self.dropout, width
        )
