"""A residual network over pictures: pre-activation blocks (He, Zhang, Ren and Sun 2016), as wide and deep as
it is told.

Design: shaped by the picture's size. Up to 48 pixels the CIFAR form (a 3 × 3 stem, full resolution first);
above it the stem makes smaller by 2 or 4; then one level of blocks for each halving, down to 7 to 12 pixels a
side. What comes out is the last map: its places are the tokens, their mean is `pooled`. Given up: bottleneck
blocks, which pay beyond the sizes that a first model needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.parts.encoders._pictures import not_pictures

if TYPE_CHECKING:
    from torch import nn


class ResNet(Encoder):
    """Pictures through residual blocks. Reads `pixels` uint8 `[B, C, H, W]` and, if there, `missing [B]`."""

    width: int = Field(48, ge=4)
    """Channels of the first level; each further level has twice as many."""
    depth: int = Field(2, ge=1)
    """Blocks a level."""
    most: int = Field(512, ge=4)
    """The most channels of any level."""
    norm: Literal["batch", "group"] = "batch"
    """`group` where a batch, or a piece of it, has few rows."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Within each block, in training."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        return not_pictures("resnet", spec)

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from torch import nn

        from penstock.nn.images import (
            Pictures,
            PreActivation,
            halvings,
            norm,
            stem,
            widths,
        )

        ((name, spec),) = features.items()
        channels, height, across = (int(n or 0) for n in spec["pixels"].shape)
        side = max(height, across)
        levels = widths(self.width, halvings(side) + 1, self.most)
        layers: list[nn.Module] = [*stem(channels, levels[0], side)]
        last = levels[0]
        for level, wide in enumerate(levels):
            for block in range(self.depth):
                layers.append(
                    PreActivation(
                        last,
                        wide,
                        # The first block of each level but the first halves the
                        # picture.
                        2 if level and not block else 1,
                        self.norm,
                        self.dropout,
                    )
                )
                last = wide
        # Pre-activation blocks end without a norm, so one follows the last.
        layers += [norm(self.norm, last), nn.ReLU()]
        return Pictures(name, spec, nn.Sequential(*layers), last, width)
