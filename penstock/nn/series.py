"""Series: each variable on its own, through layers that all variables share; its own level taken out and put
back.

Shapes: B batch, T steps, V variables, N = B·V, W width, H horizon, Q quantiles.

The way of a forecast. An encoder (`PerVariable`) takes each window's level and scale out of it (reversible
instance normalisation: Kim et al. 2022), turns `[N, T]` into `[N, W - 2]` and gives one token a variable, the
last two components of which are that level and scale. The combiner `variables` keeps these tokens apart. The
decoder `series` maps each token to the horizon and puts level and scale back (`VariableForecast`). So a
linear core and a linear head are exactly the linear models of Zeng et al. 2023 ("Are Transformers Effective
for Time Series Forecasting?"), which are hard to beat on few data.

Behind another combiner, which makes one vector of all tokens, the decoder forecasts from that vector
(`PooledForecast`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penstock.contracts.learn import Encoded
from penstock.contracts.tensors import TensorSpec
from penstock.nn.attention import Block
from penstock.nn.tokens import FeatureLinear, each_there, undecayed

EXTRA = 2
"""Components at a token's end: level and scale, in deviations of the training split."""
_LEAST = 1e-5
"""Added to a window's variance, so that a constant window has a scale."""
Normalise = Literal["window", "last", "none"]


def shape_of(
    features: Mapping[str, Mapping[str, TensorSpec]],
) -> tuple[str, TensorSpec, int]:
    """An encoder's one feature: its name, the spec of its `values`, and T."""
    name, arrays = next(iter(features.items()))
    return name, arrays["values"], int(arrays["values"].shape[0] or 0)


def hidden_width(own: int | None, asked: int | None, usual: int) -> int:
    """W - 2: what is left for the core of the encoder's own width, or of the one asked for, or the usual
    one.
    """
    whole = own or asked
    return max(whole - EXTRA, 1) if whole else usual


class PerVariable(nn.Module):
    """The encoder of a series: `values [B, T, V]`, `mask [B, T]` → one token a variable.

    Args:
        name: the feature's.
        spec: of its `values`.
        core: `[N, T] → [N, hidden]`.
        hidden: W - 2.
        normalise: what is taken out of a window: its mean and deviation, its last value, or nothing.
    """

    def __init__(
        self,
        name: str,
        spec: TensorSpec,
        core: nn.Module,
        hidden: int,
        *,
        normalise: Normalise,
    ) -> None:
        super().__init__()
        self.name, self.core, self.hidden, self.normalise = name, core, hidden, normalise
        # A length that is open counts as 0.
        steps, variables = (int(n or 0) for n in spec.shape)
        facts = spec.facts
        self.variables: list[str] = list(
            facts.get("variables") or map(str, range(variables))
        )
        self.mean: list[float] = list(facts.get("mean") or [0.0] * variables)
        self.std: list[float] = list(facts.get("std") or [1.0] * variables)
        self.past = bool(facts.get("window", steps))
        """Whether it looks back: what only looks ahead has no variable to forecast."""
        self.width = hidden + EXTRA
        self.pooled_width = self.width * variables
        # How much of a variable's movement is worth following: the one thing that variables do not share.
        self.gain = undecayed(torch.ones(variables))

    def forward(self, batch: Mapping[str, Tensor]) -> Encoded:
        values, there = (
            batch[f"{self.name}.values"],
            batch[f"{self.name}.mask"].unsqueeze(-1).float(),
        )
        # `[B, 1, V]` each.
        level, scale = self._taken(values, there)
        # Steps that are not there lie at the level itself, which is 0 after scaling.
        x = ((values - level) / scale * there * self.gain).transpose(1, 2)  # [B, V, T]
        # `[B · V, T]` through the core, which is the same for all variables.
        hidden = self.core(x.reshape(-1, x.shape[2])).reshape(-1, x.shape[1], self.hidden)
        return each_there(
            torch.cat([hidden, level.transpose(1, 2), scale.transpose(1, 2)], dim=-1)
        )

    def _taken(self, values: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Level and scale `[B, 1, V]`."""
        if self.normalise == "window":
            # 1 at least, for a window of which nothing is there.
            count = there.sum(dim=1, keepdim=True).clamp_min(1.0)
            level = (values * there).sum(dim=1, keepdim=True) / count
            # Over the steps that are there, as the level is.
            scale = (
                ((values - level) * there).square().sum(dim=1, keepdim=True) / count
                + _LEAST
            ).sqrt()
            return level, scale
        last = values[:, -1:]
        return (
            last if self.normalise == "last" else torch.zeros_like(last)
        ), torch.ones_like(last)


class Decomposition(nn.Module):
    """A window as its moving average and what is left: `[N, T] → [N, 2T]`, or through a linear map to `[N,
    hidden]`.

    Args:
        steps: T.
        kernel: steps of the moving average; at the ends the outermost value is repeated.
        hidden: None: no map, the two parts as they are.
    """

    average: Tensor

    def __init__(self, steps: int, kernel: int, hidden: int | None) -> None:
        super().__init__()
        # The moving average as a matrix: one product, the same in every runtime.
        # `[T, kernel]`: the steps that each average takes, the outermost repeated at
        # the ends.
        source = (
            torch.arange(steps)[:, None] + torch.arange(kernel)[None, :] - kernel // 2
        ).clamp(0, steps - 1)
        # Added, as a repeated step counts several times.
        weights = torch.zeros(steps, steps).scatter_add_(
            1, source, torch.full((steps, kernel), 1.0 / kernel)
        )
        # Transposed, so that `x @ average` weighs the steps of each row.
        self.register_buffer("average", weights.T.contiguous(), persistent=False)
        self.map = None if hidden is None else nn.Linear(2 * steps, hidden)

    def forward(self, x: Tensor) -> Tensor:
        # `[N, T]`.
        trend = x @ self.average
        parts = torch.cat([x - trend, trend], dim=1)
        out: Tensor = parts if self.map is None else self.map(parts)
        return out


class Straight(nn.Module):
    """A core beside a linear map of the window, `[N, T] → [N, hidden]`: it need only learn what is not
    linear.
    """

    def __init__(self, core: nn.Module, steps: int, hidden: int) -> None:
        super().__init__()
        self.core, self.straight = core, nn.Linear(steps, hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.straight(x) + self.core(x)
        return out


class Convolutions(nn.Module):
    """Causal convolutions with growing gaps (Bai, Kolter, Koltun 2018), read at the last step: `[N, T] → [N,
    channels]`.
    """

    def __init__(
        self, channels: int, kernel: int, levels: int, *, dropout: float
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.first = nn.Conv1d(1, channels, 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=2**level)
            for level in range(levels)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.unsqueeze(1))
        for level, layer in enumerate(self.layers):
            x = x + self.dropout(
                # Padded at the left only: no step sees a later one.
                F.gelu(layer(F.pad(x, ((self.kernel - 1) * 2**level, 0))))
            )
        return x[:, :, -1]


class Recurrence(nn.Module):
    """An LSTM (Hochreiter and Schmidhuber 1997) over pieces of `stride` steps, read at the end: `[N, T] → [N,
    hidden]`.
    """

    def __init__(self, stride: int, hidden: int, layers: int, *, dropout: float) -> None:
        super().__init__()
        self.stride = stride
        self.layers = nn.LSTM(
            stride,
            hidden,
            layers,
            batch_first=True,
            # torch drops between layers only, and warns where there is a single one.
            dropout=dropout if layers > 1 else 0.0,
        )

    def forward(self, x: Tensor) -> Tensor:
        # Filled up at the beginning, so that the last piece ends where the window does.
        short = -x.shape[1] % self.stride
        pieces = F.pad(x, (short, 0)).reshape(
            -1, (x.shape[1] + short) // self.stride, self.stride
        )
        out, _ = self.layers(pieces)
        last: Tensor = out[:, -1]
        return last


class Patches(nn.Module):
    """Overlapping pieces as tokens of a transformer (Nie et al. 2023, PatchTST): `[N, T] → [N, hidden]`."""

    index: Tensor
    mask: Tensor

    def __init__(
        self,
        steps: int,
        patch: int,
        stride: int,
        width: int,
        hidden: int,
        depth: int,
        heads: int,
        *,
        dropout: float,
    ) -> None:
        super().__init__()
        patch = min(patch, steps)
        # Rounded up, so that every step is in a piece.
        count = -(-(steps - patch) // stride) + 1
        # the last one ends at the window's end
        index = (steps - patch - torch.arange(count)[:, None] * stride).flip(
            0
        ) + torch.arange(patch)[None, :]
        # A first piece that reaches beyond the window's beginning repeats its first
        # step.
        self.register_buffer("index", index.clamp_min(0), persistent=False)
        self.embed = nn.Linear(patch, width)
        self.place = undecayed(torch.randn(count, width) * 0.02)
        self.blocks = nn.ModuleList(
            Block(width, heads, 2 * width, dropout=dropout, attention_dropout=dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(count * width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        # `[N, count, patch]`.
        tokens = self.embed(x[:, self.index]) + self.place
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=x.device)
        for block in self.blocks:
            tokens = block(tokens, mask)
        out: Tensor = self.out(self.norm(tokens).flatten(1))
        return out


class Apart(nn.Module):
    """The combiner's module: the tokens of all series that look back, one a variable; beside each, what the
    other inputs say.

    `width` is that of its tokens `[B, V, W]`; `pooled` is their mean. `variables`, `mean`, `std` say what
    each token is.
    """

    def __init__(
        self,
        encoders: Sequence[Any],
        series: Sequence[int],
        others: Sequence[int],
        context: nn.Module | None,
        context_width: int,
    ) -> None:
        super().__init__()
        self.series, self.others, self.context = list(series), list(others), context
        chosen = [encoders[i] for i in series]
        self.variables = [name for encoder in chosen for name in encoder.variables]
        self.mean = [value for encoder in chosen for value in encoder.mean]
        self.std = [value for encoder in chosen for value in encoder.std]
        # The first series decides W; the others are mapped to it.
        hidden = int(chosen[0].width) - EXTRA
        self.maps = nn.ModuleList(
            nn.Identity()
            if int(e.width) - EXTRA == hidden
            else nn.Linear(int(e.width) - EXTRA, hidden)
            for e in chosen
        )
        self.width = hidden + (context_width if context is not None else 0) + EXTRA
        self.heed = (
            undecayed(torch.ones(len(self.variables), context_width))
            if context is not None
            else None
        )

    def forward(self, parts: list[Encoded]) -> Encoded:
        tokens = [parts[i].tokens for i in self.series]
        pieces = [
            # `[B, V, hidden]`, without level and scale.
            torch.cat(
                [
                    layer(t[..., :-EXTRA])
                    for layer, t in zip(self.maps, tokens, strict=True)
                ],
                dim=1,
            )
        ]
        if self.context is not None:
            context = self.context(
                torch.cat([parts[i].pooled for i in self.others], dim=1)
            )
            # `[B, 1, C] · [V, C]`: each variable heeds each component by a factor of
            # its own.
            pieces.append(context.unsqueeze(1) * self.heed)
        # Back at the end of each token, where the decoder looks for them.
        pieces.append(torch.cat([t[..., -EXTRA:] for t in tokens], dim=1))
        joined = torch.cat(pieces, dim=-1)
        return Encoded(
            joined,
            torch.ones(joined.shape[:2], dtype=torch.bool, device=joined.device),
            joined.mean(dim=1),
        )


class VariableForecast(nn.Module):
    """Tokens of `Apart` → raw `[B, H, V]` (or `[B, H, V, Q]`), in deviations of the target.

    Args:
        width: W.
        horizon: H.
        quantiles: Q; 0 for none.
        places: which token is which variable of the target.
        shared: one map for all variables, or each its own.
        shift, stretch: from the inputs' standardisation to the target's, `[V]` each.
    """

    places: Tensor
    shift: Tensor
    stretch: Tensor

    def __init__(
        self,
        width: int,
        horizon: int,
        quantiles: int,
        places: Sequence[int],
        *,
        shared: bool,
        shift: Sequence[float],
        stretch: Sequence[float],
    ) -> None:
        super().__init__()
        self.horizon, self.quantiles = horizon, quantiles
        outputs = horizon * max(quantiles, 1)
        self.all = list(places) == list(range(len(places)))
        self.head = (
            nn.Linear(width - EXTRA, outputs)
            if shared
            else FeatureLinear(len(places), width - EXTRA, outputs)
        )
        self.register_buffer("places", torch.tensor(list(places)), persistent=False)
        self.register_buffer(
            "shift", torch.tensor(list(shift), dtype=torch.float32), persistent=False
        )
        self.register_buffer(
            "stretch", torch.tensor(list(stretch), dtype=torch.float32), persistent=False
        )

    def forward(
        self, encoded: Encoded, target: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        # The target's variables among the tokens, in the target's order.
        tokens = encoded.tokens.index_select(1, self.places)
        hidden, level, scale = (
            tokens[..., :-EXTRA],
            tokens[..., -EXTRA : -EXTRA + 1],
            tokens[..., -EXTRA + 1 :],
        )
        out: Tensor = self.head(hidden) * scale + level  # [B, V, H·Q]
        # `[B, V, H·Q]` from deviations of the input to those of the target.
        out = out * self.stretch[:, None] + self.shift[:, None]
        return _forecast(out.transpose(1, 2), self.horizon, self.quantiles)


class PooledForecast(nn.Module):
    """`pooled [B, W]` → raw `[B, H, V]` (or `[B, H, V, Q]`): a linear map, for combiners that keep no
    variables apart.
    """

    def __init__(self, width: int, horizon: int, variables: int, quantiles: int) -> None:
        super().__init__()
        self.horizon, self.variables, self.quantiles = horizon, variables, quantiles
        self.head = nn.Linear(width, horizon * max(quantiles, 1) * variables)

    def forward(
        self, encoded: Encoded, target: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        out: Tensor = self.head(encoded.pooled)
        return _forecast(
            # `[B, H·Q, V]`.
            out.reshape(-1, out.shape[1] // self.variables, self.variables),
            self.horizon,
            self.quantiles,
        )


def _forecast(out: Tensor, horizon: int, quantiles: int) -> Tensor:
    """`[B, H·Q, V]` → `[B, H, V]` or `[B, H, V, Q]`."""
    if not quantiles:
        return out
    # Quantiles vary slowest among the outputs: `[B, Q, H, V]` → `[B, H, V, Q]`.
    return out.reshape(-1, quantiles, horizon, out.shape[2]).permute(0, 2, 3, 1)


def levels_for(steps: int, kernel: int) -> int:
    """How many causal layers see a whole window."""
    # L layers see 1 + (kernel - 1) (2^L - 1) steps.
    return max(1, math.ceil(math.log2(max((steps - 1) / (kernel - 1) + 1, 2))))
