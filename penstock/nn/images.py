"""Layers over pictures `[B, C, H, W]`: what the encoders of images share.

A program takes pixels as they are stored, uint8; scaling by the training split's mean and deviation is its
first layer. Memory stays channels-last throughout (what convolutions on CPUs and tensor cores want): the
loader's arrays lie so already.

BatchNorm is the default where these networks were born with it. It is even over accumulated pieces only in
the mean; with fewer than some 16 rows a piece, take `norm: group` (Wu and He 2018), which looks at one row
alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from penstock.contracts.learn import Encoded
from penstock.contracts.tensors import TensorSpec

Norm = Literal["batch", "group"]


def norm(kind: Norm, width: int) -> nn.Module:
    """A norm of `width` channels."""
    if kind == "batch":
        return nn.BatchNorm2d(width)
    # The most groups, up to 16, that divide the channels.
    return nn.GroupNorm(next(n for n in (16, 8, 4, 2, 1) if width % n == 0), width)


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias (a norm follows) that keeps the size, but for its stride; He's
    initialisation.
    """
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class Standardised(nn.Module):
    """uint8 `[B, C, H, W]` → numbers of mean 0 and deviation 1 over the training split; 0 everywhere where a
    picture is missing.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: TensorSpec) -> None:
        super().__init__()
        channels = int(spec.shape[0] or 1)
        # Without facts, the middle of what a byte holds.
        mean = spec.facts.get("mean") or [127.5] * channels
        std = spec.facts.get("std") or [64.0] * channels
        # Facts of this data: weights of another run must not bring theirs along.
        self.register_buffer(
            "mean",
            torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1),
            persistent=False,
        )
        self.register_buffer(
            "scale",
            torch.tensor(
                # A channel that never changes has no deviation to divide by.
                [1 / s if s > 0 else 1.0 for s in std],
                dtype=torch.float32,
            ).view(-1, 1, 1),
            persistent=False,
        )

    def forward(self, pixels: Tensor, missing: Tensor | None) -> Tensor:
        values = (pixels.float() - self.mean) * self.scale
        # 0 after scaling is the mean picture; zeros as pixels would be a black one.
        if missing is not None:
            values = values * (1 - missing).view(-1, 1, 1, 1)
        return values


class Pictures(nn.Module):
    """Pixels → `Encoded`: `layers` make a map `[B, C', H', W']`, its places are the tokens, their mean is
    `pooled`.

    Args:
        name: the feature.
        spec: its arrays.
        layers: `[B, C, H, W] → [B, outputs, H', W']`.
        outputs: C'.
        width: W of the tokens; C' unless given.
    """

    def __init__(
        self,
        name: str,
        spec: Mapping[str, TensorSpec],
        layers: nn.Module,
        outputs: int,
        width: int | None,
    ) -> None:
        super().__init__()
        self.name, self.width, self.pooled_width = name, width or outputs, outputs
        self.standardised = Standardised(spec["pixels"])
        self.layers = layers
        self.to_tokens = (
            nn.Linear(outputs, width) if width not in (None, outputs) else nn.Identity()
        )
        self.absent = Absent(outputs) if "missing" in spec else None

    def forward(self, batch: Mapping[str, Tensor]) -> Encoded:
        missing = batch[f"{self.name}.missing"] if self.absent is not None else None
        # As the convolutions want it; no copy is made where the pixels lie so already.
        values = self.standardised(batch[f"{self.name}.pixels"], missing).contiguous(
            memory_format=torch.channels_last
        )
        places = self.layers(values).flatten(2).transpose(1, 2)  # [B, H'·W', C']
        # In float32 under autocast, too: it is a sum over all places.
        pooled = places.mean(dim=1, dtype=torch.float32)
        if self.absent is not None and missing is not None:
            places, pooled = self.absent(places, missing), self.absent(pooled, missing)
        return all_there(self.to_tokens(places), pooled)


class Absent(nn.Module):
    """A learnt vector `[W]` in place of what was made of a missing picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(
            torch.empty(width).uniform_(-(width**-0.5), width**-0.5)
        )

    def forward(self, encoded: Tensor, missing: Tensor) -> Tensor:
        # 0 or 1, stored as a float.
        gone = (missing > 0.5).view(-1, *[1] * (encoded.dim() - 1))
        return torch.where(gone, self.vector.to(encoded.dtype), encoded)


def all_there(tokens: Tensor, pooled: Tensor) -> Encoded:
    """Tokens that are all there."""
    return Encoded(
        tokens,
        torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device),
        pooled,
    )


class PreActivation(nn.Module):
    """x + convolutions of norm(x) (He et al. 2016, "Identity Mappings in Deep Residual Networks")."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, kind: Norm, dropout: float
    ) -> None:
        super().__init__()
        self.before, self.between = norm(kind, inputs), norm(kind, outputs)
        self.one, self.two = conv(inputs, outputs, stride=stride), conv(outputs, outputs)
        self.dropout = nn.Dropout(dropout)
        self.across = (
            conv(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None
        )

    # Norm and activation come first, so that `x` itself runs through unchanged.
    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.before(x))
        # Where the size changes the shortcut starts from the activated map, as in the
        # paper.
        shortcut = x if self.across is None else self.across(y)
        out: Tensor = shortcut + self.two(
            self.dropout(torch.relu(self.between(self.one(y))))
        )
        return out


def stem_stride(side: int) -> int:
    """How much the first layers make a picture smaller, so that the dear ones never see more than some 50
    pixels a side.
    """
    return 1 if side <= 48 else 2 if side <= 96 else 4


def halvings(side: int) -> int:
    """How often the rest must halve what the stem leaves, to come to 7 to 12 pixels a side."""
    # Rounded up, as strided convolutions with padding do.
    left, halved = -(-side // stem_stride(side)), 0
    while left > 12:
        left, halved = -(-left // 2), halved + 1
    return halved


def stem(channels: int, width: int, side: int) -> nn.Sequential:
    """The first layers: one 3 × 3 for small pictures, a wider one with a stride and pooling for larger
    ones.
    """
    stride = stem_stride(side)
    if stride == 1:
        return nn.Sequential(conv(channels, width))
    if stride == 2:
        return nn.Sequential(conv(channels, width, 5, 2))
    return nn.Sequential(conv(channels, width, 7, 2), nn.MaxPool2d(3, 2, padding=1))


def widths(first: int, levels: int, most: int) -> Sequence[int]:
    """The channels of each level: doubled with each halving, up to `most`."""
    return [min(first * 2**level, most) for level in range(levels)]
