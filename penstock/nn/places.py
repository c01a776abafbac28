"""Token ids `[B, T]` of aligned sequences → `Encoded`: what stands at a place matters, and not only that it
is there.

Convolutions see a letter with its neighbours, wherever they stand; a linear map that has weights of its own
for each place then keeps what is where, and a maximum over time beside it keeps what may be anywhere. So a
pair of letters at one place decides (splice sites, codes with fields), and so does a motif that moves. A
small alphabet is one-hot: its letters begin equally far from one another.

With both strands a sequence is read a second time as its reverse complement, by the same weights, and the
larger of both answers counts (Shrikumar, Greenside and Kundaje 2017, "Reverse-complement parameter sharing
improves deep learning models for genomics").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penstock.contracts.learn import Encoded
from penstock.nn.recurrent import reversal, turned
from penstock.nn.sequences import max_there

SMALL = 64
"""Alphabets of so many tokens are one-hot; those of larger ones are learnt vectors of this width."""
_FLAT = 8_192
"""The most inputs of the map by places: with more steps each place has fewer channels."""
_LEAST, _MOST = 4, 32


class PlacesEncoder(nn.Module):
    """`tokens [B, T]`, `mask [B, T]` → tokens `[B, T, width]`, pooled `[B, width]`.

    Args:
        name: the feature.
        cardinality: V of the tokens; 0 is padding, 1 unknown.
        length: L, the places that are told apart; what stands behind them is seen by the maximum alone.
        width: of tokens and of what is pooled.
        channels: of the convolution.
        kernel: its width, in steps; odd.
        dropout: of what goes into the map by places, in training.
        forget: in training, the chance that a token is taken for unknown.
        from_end: places are also counted from each row's own end.
        complement: for each token id the id of its complement, to read both strands.
    """

    def __init__(
        self,
        name: str,
        cardinality: int,
        length: int,
        width: int,
        *,
        channels: int,
        kernel: int,
        dropout: float,
        forget: float,
        from_end: bool,
        complement: Sequence[int] | None,
    ) -> None:
        super().__init__()
        self.name, self.length = name, length
        self.forget, self.from_end = forget, from_end
        self.width = self.pooled_width = width
        self.vectors = _vectors(cardinality)
        size = self.vectors.embedding_dim
        self.conv = nn.Conv1d(size, channels, kernel, padding=kernel // 2)
        narrow = max(_LEAST, min(_MOST, channels, _FLAT // length))
        self.narrow = nn.Conv1d(channels, narrow, 1)
        sides = 2 if from_end else 1
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(sides * length * narrow + channels, width)
        self.step = nn.Linear(channels, width)
        self.place = nn.Embedding(length, width)
        nn.init.normal_(self.place.weight, std=1 / math.sqrt(width))
        self.complement: Tensor | None
        self.register_buffer(
            "complement", None if complement is None else torch.tensor(list(complement))
        )

    def forward(self, batch: Mapping[str, Tensor]) -> Encoded:
        ids, mask = batch[f"{self.name}.tokens"], batch[f"{self.name}.mask"].bool()
        if self.training and self.forget > 0:
            lost = (torch.rand(ids.shape, device=ids.device) < self.forget) & (ids > 0)
            ids = torch.where(lost, 1, ids)
        steps = self._steps(ids, mask)
        pooled = self._pooled(steps, mask)
        if self.complement is not None:
            other = turned(self.complement[ids].unsqueeze(-1), reversal(mask)).squeeze(-1)
            pooled = torch.maximum(pooled, self._pooled(self._steps(other, mask), mask))
        # Who attends to steps sees their places, too.
        at = torch.arange(ids.shape[1], device=ids.device).clamp(max=self.length - 1)
        return Encoded(self.step(steps) + self.place(at), mask, pooled)

    def _steps(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Each step with its neighbours, `[B, T, C]`; zero where there is none."""
        there = mask.unsqueeze(-1).to(self.conv.weight.dtype)
        x = self.vectors(ids) * there
        steps = F.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return steps * there

    def _pooled(self, steps: Tensor, mask: Tensor) -> Tensor:
        narrow = F.relu(self.narrow(steps.transpose(1, 2))).transpose(1, 2)
        # A bias makes something of padding, which must not matter.
        narrow = narrow * mask.unsqueeze(-1).to(narrow.dtype)
        parts = [self._by_place(narrow), max_there(steps, mask)]
        if self.from_end:
            parts.insert(1, self._by_place(turned(narrow, reversal(mask))))
        pooled: Tensor = self.out(self.dropout(torch.cat(parts, 1)))
        return pooled

    def _by_place(self, x: Tensor) -> Tensor:
        """`[B, T, N] → [B, L · N]`, whatever T is."""
        return F.pad(x, (0, 0, 0, self.length))[:, : self.length].flatten(1)


def _vectors(cardinality: int) -> nn.Embedding:
    """One-hot letters, which stay as they are, or learnt vectors of a large vocabulary; padding is zero."""
    table = nn.Embedding(cardinality, min(cardinality, SMALL), padding_idx=0)
    if cardinality > SMALL:
        nn.init.normal_(table.weight, std=1 / math.sqrt(SMALL))
    else:
        nn.init.eye_(table.weight)
        table.weight.requires_grad_(False)
    with torch.no_grad():
        table.weight[0].zero_()
    return table
