"""Columns → tokens: one token a feature, all features of a group at once.

Shapes: B batch, F features, D components of a feature, K bins, W width. Nothing here loops over features but
to stack their arrays, so 300 columns cost one kernel, not 300.

A missing value is not a number that happens to be the mean: where the array `missing` is 1, the token is a
learnt vector of that feature, and the value's own token plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from penstock.contracts.learn import Encoded
from penstock.nn.stacks import stack_of


def undecayed(values: Tensor) -> nn.Parameter:
    """A parameter that weight decay leaves alone (biases `[F, W]` look like matrices, so they say so
    themselves).
    """
    parameter = nn.Parameter(values)
    parameter.no_decay = True  # type: ignore[attr-defined]
    return parameter


class FeatureLinear(nn.Module):
    """An affine map of its own for each feature: `[B, F, D] → [B, F, W]`, initialised as `nn.Linear` is.

    Args:
        features: F.
        inputs: D.
        width: W.
    """

    def __init__(self, features: int, inputs: int, width: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(
            torch.empty(features, inputs, width).uniform_(-bound, bound)
        )
        self.bias = undecayed(torch.empty(features, width).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        # F products `[B, D] @ [D, W]` as one.
        return torch.bmm(x.transpose(0, 1), self.weight).transpose(0, 1) + self.bias


class PiecewiseLinear(nn.Module):
    """Numbers → their places in bins: `[B, F] → [B, F, K]`, each component in 0–1 (Gorishniy et al. 2022,
    section 3.1).

    Component k is 0 below bin k, 1 above it, and the share of the bin passed within it. The paper lets the
    outermost bins run on; here they stop, so that a value far outside the training split is answered like the
    nearest one seen, not by a number of any size. Features have different numbers of bins; those a feature
    lacks are 0 always.

    Args:
        edges: for each feature its bins' edges, ascending and distinct; fewer than two leave it no bin.
    """

    left: Tensor
    slope: Tensor

    def __init__(self, edges: Sequence[Sequence[float]]) -> None:
        super().__init__()
        # At least one component, so that later layers have a width.
        self.bins = max(1, *(len(e) - 1 for e in edges))
        left = torch.zeros(len(edges), self.bins)
        slope = torch.zeros(len(edges), self.bins)
        for f, ascending in enumerate(edges):
            # In float64: edges that lie close differ in their last digits.
            points = torch.tensor(ascending, dtype=torch.float64)
            wide = points.diff()
            # Bins that a feature lacks keep the slope 0, and so are 0 for any value.
            left[f, : len(wide)] = points[:-1].float()
            slope[f, : len(wide)] = (1 / wide).float()
        # Facts of the data, not weights: a run that starts from another run's weights must keep its own.
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("slope", slope, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return ((x.unsqueeze(-1) - self.left) * self.slope).clamp(0.0, 1.0)


class StraightAndBent(nn.Module):
    """A linear map of the number plus a linear map of its bins, which starts at zero: `[B, F] → [B, F, W]`.

    So a feature begins as a straight line and bends where the data say so (Gorishniy et al. 2024, "TabM",
    piecewise-linear embeddings version B).
    """

    def __init__(self, bins: PiecewiseLinear, width: int) -> None:
        super().__init__()
        self.bins = bins
        features, count = bins.left.shape
        self.straight = FeatureLinear(features, 1, width)
        # At 0, so that training begins with the straight line.
        self.bent = nn.Parameter(torch.zeros(features, count, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.straight(x.unsqueeze(-1)) + torch.bmm(
            self.bins(x).transpose(0, 1), self.bent
        ).transpose(0, 1)
        return out


class Periodic(nn.Module):
    """Numbers → sines and cosines of learnt frequencies: `[B, F] → [B, F, 2K]` (Gorishniy et al. 2022,
    section 3.2).

    Args:
        features: F.
        frequencies: K.
        scale: deviation of the initial frequencies, cut off at three deviations.
    """

    def __init__(self, features: int, frequencies: int, *, scale: float) -> None:
        super().__init__()
        # Decay would pull every frequency towards a constant.
        self.frequency = undecayed(torch.empty(features, frequencies))
        nn.init.trunc_normal_(self.frequency, 0.0, scale, a=-3 * scale, b=3 * scale)

    def forward(self, x: Tensor) -> Tensor:
        angle = 2 * math.pi * self.frequency * x.unsqueeze(-1)
        return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)


class Tokens(nn.Module):
    """One token a feature out of arrays of numbers: the base that encoders fill with `layers`.

    Args:
        names: the features, in order; equal arrays all.
        arrays: which arrays of a feature hold its values, in order: each `[B]` or `[B, D]`.
        layers: `[B, F, D] → [B, F, W]`, or `[B, F] → [B, F, W]` where `scalar`.
        width: W.
        missing: whether the features have an array `missing` `[B]`, 1 where the value is missing.
        scalar: one array `[B]` a feature, handed on as `[B, F]`.
    """

    def __init__(
        self,
        names: Sequence[str],
        arrays: Sequence[str],
        layers: nn.Module,
        width: int,
        *,
        missing: bool,
        scalar: bool,
    ) -> None:
        super().__init__()
        self.names, self.arrays, self.scalar = list(names), list(arrays), scalar
        self.width, self.pooled_width = width, width * len(names)
        self.layers = layers
        self.missing = (
            undecayed(torch.randn(len(names), width) / math.sqrt(width))
            if missing
            else None
        )

    def forward(self, batch: Mapping[str, Tensor]) -> Encoded:
        if self.scalar:
            values = stack_of(batch, self.names, self.arrays[0])
        else:
            parts = [stack_of(batch, self.names, array) for array in self.arrays]
            values = torch.cat(
                # `[B, F, D]`, also of arrays without an axis of their own.
                [p.unsqueeze(-1) if p.dim() == 2 else p.flatten(2) for p in parts],
                dim=-1,
            )
        tokens = self.layers(values)
        if self.missing is not None:
            # 0 or 1, stored as a float.
            gone = stack_of(batch, self.names, "missing").unsqueeze(-1) > 0.5
            tokens = torch.where(gone, self.missing, tokens)
        return each_there(tokens)


class Lookup(nn.Module):
    """One token a feature out of whole numbers: one table for all features, one lookup.

    Args:
        names: the features, in order; each has the array `index` `[B]`.
        cardinalities: for each how many values it has.
        width: W.
        unseen: for each the index that stands for values never seen in training, or None.
        forget: in training, the chance that a value is taken for unseen, so that the unseen vector is learnt.
    """

    offset: Tensor
    unseen: Tensor

    def __init__(
        self,
        names: Sequence[str],
        cardinalities: Sequence[int],
        width: int,
        *,
        unseen: Sequence[int | None],
        forget: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.names = list(names)
        self.width, self.pooled_width = width, width * len(names)
        self.forget = forget if any(u is not None for u in unseen) else 0.0
        # One table for all: each feature's rows begin at its offset.
        self.table = nn.Embedding(sum(cardinalities), width)
        nn.init.normal_(self.table.weight, std=1 / math.sqrt(width))
        self.dropout = nn.Dropout(dropout)
        ends = torch.tensor(cardinalities, dtype=torch.int64).cumsum(0)
        # `[F]`: how many values the features before it have.
        self.register_buffer(
            "offset",
            ends - torch.tensor(cardinalities, dtype=torch.int64),
            persistent=False,
        )
        self.register_buffer(
            "unseen",
            # -1 where a feature has no index for what it has not seen.
            torch.tensor([-1 if u is None else u for u in unseen], dtype=torch.int64),
            persistent=False,
        )

    def forward(self, batch: Mapping[str, Tensor]) -> Encoded:
        index = stack_of(batch, self.names, "index")
        if self.training and self.forget > 0:
            # A missing value (0) stays missing: that it is missing is known, and learnt by itself.
            chosen = (
                (torch.rand(index.shape, device=index.device) < self.forget)
                & (self.unseen >= 0)
                & (index > 0)
            )
            index = torch.where(chosen, self.unseen, index)
        return each_there(self.dropout(self.table(index + self.offset)))


def each_there(tokens: Tensor) -> Encoded:
    """Tokens `[B, T, W]` that are all there, pooled by laying them side by side `[B, T·W]`."""
    return Encoded(
        tokens,
        torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device),
        tokens.flatten(1),
    )
