"""Recurrent networks over padded sequences, in a form that torch trains quickly and ONNX expresses.

Training runs torch's own LSTM and GRU. For export they stand behind custom operators that translate into
ONNX's `LSTM` and `GRU`, since the exporter would otherwise unroll time, whose length is free. The backward
direction reads each row from its own last token, by gathering, so that padding is never read first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, library, nn

from penstock.nn.sequences import max_there


@library.custom_op("penstock::lstm", mutates_args=())
def _lstm(x: Tensor, w: Tensor, r: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """`x [B, T, D]`, torch's weights `w [4H, D]`, `r [4H, H]`, biases `b`, `c` `[4H]` → hidden states `[B, T,
    H]`.
    """
    zero = x.new_zeros(1, x.shape[0], r.shape[1])
    # Biases, one layer, no dropout, not training, one direction, batch first.
    return torch.lstm(x, (zero, zero), [w, r, b, c], True, 1, 0.0, False, False, True)[
        0
    ].clone()


# The shape alone, for tracing: `[B, T, H]`.
@_lstm.register_fake
def _(x: Tensor, w: Tensor, r: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], r.shape[1])


@library.custom_op("penstock::gru", mutates_args=())
def _gru(x: Tensor, w: Tensor, r: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """As `lstm`, with three gates."""
    zero = x.new_zeros(1, x.shape[0], r.shape[1])
    return torch.gru(x, zero, [w, r, b, c], True, 1, 0.0, False, False, True)[0].clone()


@_gru.register_fake
def _(x: Tensor, w: Tensor, r: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], r.shape[1])


def onnx_translations() -> dict[Any, Callable[..., Any]]:
    """How `torch.onnx.export` writes these operators (`custom_translation_table`).

    ONNX orders gates otherwise than torch: LSTM i o f c against i f g o; GRU z r h against r z n, with the
    reset after the product (`linear_before_reset`).
    """
    from onnxscript import opset18

    op: Any = opset18  # its annotations are narrower than what tracing passes

    def ordered(weight: Any, order: list[int], gates: int) -> Any:
        parts = op.Split(weight, axis=0, num_outputs=gates)
        # Gates lie one below the other in the first axis, `[gates · H, …]`.
        return op.Concat(*(parts[i] for i in order), axis=0)

    def first_axis(value: Any) -> Any:
        return op.Unsqueeze(value, op.Constant(value_ints=[0]))

    def recurrent(kind: str, order: list[int]) -> Callable[..., Any]:
        gates = len(order)

        def translate(x: Any, w: Any, r: Any, b: Any, c: Any) -> Any:
            weights = [first_axis(ordered(value, order, gates)) for value in (w, r)]
            # ONNX wants both biases in one: `[1, 2 · gates · H]`.
            bias = first_axis(
                op.Concat(ordered(b, order, gates), ordered(c, order, gates), axis=0)
            )
            # ONNX counts time first: `[T, B, D]`.
            time_first = op.Transpose(x, perm=[1, 0, 2])
            hidden = int(r.shape[1])
            if kind == "lstm":
                y, _h, _c = op.LSTM(time_first, *weights, bias, hidden_size=hidden)
            else:
                y, _h = op.GRU(
                    time_first, *weights, bias, hidden_size=hidden, linear_before_reset=1
                )
            # `[T, directions, B, H]` without the one direction, and batch first again.
            return op.Transpose(
                op.Squeeze(y, op.Constant(value_ints=[1])), perm=[1, 0, 2]
            )

        return translate

    # By the place of each ONNX gate among torch's.
    return {
        torch.ops.penstock.lstm.default: recurrent("lstm", [0, 3, 1, 2]),
        torch.ops.penstock.gru.default: recurrent("gru", [1, 0, 2]),
    }


class OneWay(nn.Module):
    """One layer in one direction: `[B, T, D] → [B, T, H]`."""

    def __init__(self, inputs: int, hidden: int, cell: Literal["lstm", "gru"]) -> None:
        super().__init__()
        self.cell = cell
        self.layer = (nn.LSTM if cell == "lstm" else nn.GRU)(
            inputs, hidden, batch_first=True
        )

    def forward(self, x: Tensor) -> Tensor:
        # Training and plain inference stay with torch's own kernels.
        if torch.compiler.is_exporting():
            layer = self.layer
            run = (
                torch.ops.penstock.lstm if self.cell == "lstm" else torch.ops.penstock.gru
            )
            out: Tensor = run(
                x,
                layer.weight_ih_l0,
                layer.weight_hh_l0,
                layer.bias_ih_l0,
                layer.bias_hh_l0,
            )
            return out
        states: Tensor = self.layer(x)[0]
        return states


class Recurrent(nn.Module):
    """LSTM (Hochreiter and Schmidhuber 1997) or GRU (Cho et al. 2014), both ways; `pooled` is the maximum
    over time.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        depth: int,
        *,
        cell: Literal["lstm", "gru"],
        dropout: float,
    ) -> None:
        super().__init__()
        self.width = self.pooled_width = 2 * hidden
        # Each further layer reads both directions of the one below.
        sizes = [inputs, *[2 * hidden] * (depth - 1)]
        self.ahead = nn.ModuleList(OneWay(size, hidden, cell) for size in sizes)
        self.back = nn.ModuleList(OneWay(size, hidden, cell) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        turn = reversal(mask)
        for ahead, back in zip(self.ahead, self.back, strict=True):
            x = self.dropout(
                # Turned there and back: the backward half begins at each row's last
                # token.
                torch.cat([ahead(x), turned(back(turned(x, turn)), turn)], dim=-1)
            )
        return x, max_there(x, mask)


def reversal(mask: Tensor) -> Tensor:
    """For each row the places `[B, T]` that turn what is there around and leave the padding: its own
    inverse.
    """
    place = torch.arange(mask.shape[1], device=mask.device).unsqueeze(0)
    length = mask.sum(1, keepdim=True)
    # Padding stays where it is, behind what is there.
    return torch.where(place < length, length - 1 - place, place)


def turned(x: Tensor, places: Tensor) -> Tensor:
    """`x [B, T, W]` with its tokens at `places [B, T]`."""
    return x.gather(1, places.unsqueeze(-1).expand(-1, -1, x.shape[2]))
