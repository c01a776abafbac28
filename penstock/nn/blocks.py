"""Blocks of dense layers over one vector a row, `[B, W] → [B, W]`.

LayerNorm, never BatchNorm: a row's answer must not depend on its neighbours, on how a batch is cut into
pieces for accumulation, or on how many processes share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

Activation = Literal["relu", "gelu", "silu"]
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def activation(name: Activation) -> nn.Module:
    """The activation of this name."""
    return _ACTIVATIONS[name]()


def mlp(
    inputs: int,
    width: int,
    depth: int,
    *,
    dropout: float,
    activate: Activation,
    norm: bool,
) -> nn.Sequential:
    """`depth` times linear, (norm,) activation, dropout: `[B, inputs] → [B, width]`."""
    layers: list[nn.Module] = []
    for level in range(depth):
        layers.append(nn.Linear(inputs if level == 0 else width, width))
        if norm:
            layers.append(nn.LayerNorm(width))
        layers += [activation(activate), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """x + a small MLP of norm(x) (Gorishniy et al. 2021, ResNet for tables, with LayerNorm): `[B, W] → [B,
    W]`.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        dropout: float,
        residual_dropout: float,
        activate: Activation,
    ) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            activation(activate),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(residual_dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.inner(x)
        return out
