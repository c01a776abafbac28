"""A plain convolutional network over pictures (after Simonyan and Zisserman 2015): quick to train, a good
first answer.

Design: a level for each halving down to 7 to 12 pixels a side, and one more, each `depth` times convolution,
norm, ReLU, with max-pooling between levels. Above 48 pixels a stem makes smaller first, as `resnet`'s does.
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


class Cnn(Encoder):
    """Pictures through convolutions. Reads `pixels` uint8 `[B, C, H, W]` and, if there, `missing [B]`."""

    width: int = Field(32, ge=4)
    """Channels of the first level; each further level has twice as many."""
    depth: int = Field(2, ge=1)
    """Convolutions a level."""
    most: int = Field(256, ge=4)
    """The most channels of any level."""
    norm: Literal["batch", "group"] = "batch"
    """`group` where a batch, or a piece of it, has few rows."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Of whole channels after each level, in training (Tompson et al. 2015)."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        return not_pictures("cnn", spec)

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from torch import nn

        from penstock.nn.images import (
            Pictures,
            conv,
            halvings,
            norm,
            stem,
            stem_stride,
            widths,
        )

        ((name, spec),) = features.items()
        channels, height, across = (int(n or 0) for n in spec["pixels"].shape)
        side = max(height, across)
        levels = widths(self.width, halvings(side) + 1, self.most)
        layers: list[nn.Module] = []
        last = channels
        if stem_stride(side) > 1:
            layers += [
                *stem(channels, levels[0], side),
                norm(self.norm, levels[0]),
                nn.ReLU(),
            ]
            last = levels[0]
        for level, wide in enumerate(levels):
            if level:
                # `ceil_mode` keeps the last row and column of an odd size.
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            for _ in range(self.depth):
                layers += [conv(last, wide), norm(self.norm, wide), nn.ReLU()]
                last = wide
            layers.append(nn.Dropout2d(self.dropout))
        return Pictures(name, spec, nn.Sequential(*layers), last, width)
