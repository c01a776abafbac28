"""Token ids `[B, T]` with a mask `[B, T]` → `Encoded`: what the encoders of texts and sequences share.

Padding comes last and never matters: means and maxima are taken over what is there, convolutions see zeros
beyond it, and the backward half of a recurrent network starts at each row's own last token.

Embeddings start with deviation 1/√W and the padding row at zero: with larger ones a bag of words needs twice
the epochs to learn a text set. Hashed n-grams (the array `grams`, where a feature has it) are a bag of their
own that is added to the pooled vector: they know rare words by their pieces (Joulin et al. 2017; Weinberger
et al. 2009).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penstock.contracts.learn import Encoded
from penstock.nn.attention import Block, with_class_token

# Vocabularies of so many ids count as large.
_RARE = 1_000
_TABLE_RATE = 10.0
"""Of a large vocabulary a batch holds few words, and a rare word comes by a few times an epoch: its vector
moves at ten times the rate, or it stays about where it began. GoEmotions, two epochs with every default:
f1_macro 0.34 without, 0.40 with four times the rate, 0.41 with ten.
"""


def _faster(table: nn.Embedding) -> None:
    if table.num_embeddings >= _RARE:
        table.weight.lr_scale = _TABLE_RATE  # type: ignore[attr-defined]


class WordTable(nn.Module):
    """Token ids → vectors: `[B, T] → [B, T, W]`; id 0 is padding and stays zero.

    Args:
        cardinality: V.
        width: W.
        dropout: of whole components, in training.
        forget: in training, the chance that a token is taken for unknown (id 1), so that the unknown vector
            is learnt.
        array: which of the feature's arrays has the ids.
    """

    def __init__(
        self,
        cardinality: int,
        width: int,
        *,
        dropout: float,
        forget: float,
        array: str = "tokens",
    ) -> None:
        super().__init__()
        self.array = array
        self.table = nn.Embedding(cardinality, width, padding_idx=0)
        nn.init.normal_(self.table.weight, std=1 / math.sqrt(width))
        # `normal_` fills the padding row as well.
        with torch.no_grad():
            self.table.weight[0].zero_()
        _faster(self.table)
        self.dropout, self.forget = nn.Dropout(dropout), forget

    def forward(self, ids: Tensor) -> Tensor:
        if self.training and self.forget > 0:
            # Only what is there can be forgotten; 1 is the unknown token.
            ids = torch.where(
                (torch.rand(ids.shape, device=ids.device) < self.forget) & (ids > 0),
                1,
                ids,
            )
        out: Tensor = self.dropout(self.table(ids))
        return out


class NumberSteps(nn.Module):
    """Standardised numbers of a step → a vector: `[B, T, V] → [B, T, W]`, affine."""

    array = "values"

    def __init__(self, variables: int, width: int, *, dropout: float) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(variables, width), nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.linear(values))
        return out


class Grams(nn.Module):
    """A bag of hashed n-grams: `[B, G] → [B, W]`, their sum over the root of how many there are."""

    def __init__(self, buckets: int, width: int, *, dropout: float) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets, width, padding_idx=0)
        nn.init.normal_(self.table.weight, std=1 / math.sqrt(width))
        with torch.no_grad():
            self.table.weight[0].zero_()
        _faster(self.table)
        self.dropout = nn.Dropout(dropout)

    def forward(self, grams: Tensor) -> Tensor:
        # By the root: between a sum, which grows with the text, and a mean, in which a
        # single gram counts for little.
        count = (grams > 0).sum(1, keepdim=True).clamp(min=1).to(self.table.weight.dtype)
        out: Tensor = self.dropout(self.table(grams).sum(1) / count.sqrt())
        return out


class SequenceEncoder(nn.Module):
    """Table → body → `Encoded`, with the bag of grams beside it where the feature has one.

    Args:
        name: the feature.
        table: the feature's array named by its attribute `array` → vectors.
        body: a module with `forward(vectors [B, T, W'], mask [B, T]) → (tokens [B, T, U], pooled [B, P])`,
            attributes `width` (U) and `pooled_width` (P).
        width: W of tokens and, unless wider, of pooled.
        grams: the bag, or None; its width is that of `pooled`.
    """

    def __init__(
        self,
        name: str,
        table: nn.Module,
        body: nn.Module,
        width: int,
        *,
        grams: Grams | None,
    ) -> None:
        super().__init__()
        self.name, self.table, self.body, self.grams = name, table, body, grams
        self.width = width
        inner, pooled = int(body.width), int(body.pooled_width)  # type: ignore[arg-type]
        self.pooled_width = pooled
        self.project = nn.Identity() if inner == width else nn.Linear(inner, width)

    def forward(self, batch: Mapping[str, Tensor]) -> Encoded:
        mask = batch[f"{self.name}.mask"].bool()
        tokens, pooled = self.body(
            self.table(batch[f"{self.name}.{self.table.array}"]), mask
        )
        if self.grams is not None:
            pooled = pooled + self.grams(batch[f"{self.name}.grams"])
        return Encoded(self.project(tokens), mask, pooled)


def mean_there(x: Tensor, mask: Tensor) -> Tensor:
    """The mean over tokens that are there `[B, W]`; zero for an empty row."""
    # `[B, T, 1]`, for an average that padding does not enter.
    weight = mask.unsqueeze(-1).to(x.dtype)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def max_there(x: Tensor, mask: Tensor) -> Tensor:
    """The maximum over tokens that are there `[B, W]`; zero for an empty row."""
    # Lower than any activation, and still a float16.
    lowest = torch.full((), -1e4, dtype=x.dtype, device=x.device)
    largest = torch.where(mask.unsqueeze(-1), x, lowest).amax(1)
    # A row without tokens would answer with `lowest`.
    return torch.where(mask.any(1, keepdim=True), largest, torch.zeros_like(largest))


class Bag(nn.Module):
    """The mean of the vectors (Joulin et al. 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = self.pooled_width = width

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return x, mean_there(x, mask)


class TextCnn(nn.Module):
    """Convolutions of several widths, each pooled by its maximum over time (Kim 2014)."""

    def __init__(
        self,
        inputs: int,
        channels: int,
        kernels: Sequence[int],
        width: int,
        *,
        dropout: float,
    ) -> None:
        super().__init__()
        self.width, self.pooled_width = channels * len(kernels), width
        self.kernels = list(kernels)
        self.layers = nn.ModuleList(nn.Conv1d(inputs, channels, k) for k in kernels)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(channels * len(kernels), width)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        # `[B, W, T]` with zeros behind the text: what a bias has made of padding is
        # gone.
        x = (x * mask.unsqueeze(-1).to(x.dtype)).transpose(1, 2)
        features = [
            # T stays T for even widths, too: the larger half of the padding comes
            # after.
            F.relu(layer(F.pad(x, ((k - 1) // 2, k // 2))))
            for layer, k in zip(self.layers, self.kernels, strict=True)
        ]
        tokens = torch.cat(features, 1).transpose(1, 2)
        return tokens, self.out(self.dropout(max_there(tokens, mask)))


class Transformer(nn.Module):
    """Pre-norm blocks with sinusoidal places; `pooled` is what a class token became (Vaswani et al. 2017;
    Devlin et al. 2019).
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        *,
        dropout: float,
    ) -> None:
        super().__init__()
        self.width = self.pooled_width = width
        self.into = nn.Identity() if inputs == width else nn.Linear(inputs, width)
        self.token = nn.Parameter(
            torch.empty(width).uniform_(-(width**-0.5), width**-0.5)
        )
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                hidden,
                dropout=dropout,
                attention_dropout=dropout,
                residual_dropout=dropout,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.into(x)
        # Before the class token, which has no place.
        x = x + places(x.shape[1], self.width, x)
        x, there = with_class_token(self.token, x, mask)
        for block in self.blocks:
            x = block(x, there)
        x = self.norm(x)
        # Without the class token, to line up with the mask.
        return x[:, 1:], x[:, 0]


def places(length: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal places `[1, T, W]`, of any length (Vaswani et al. 2017, section 3.5), as small as embeddings
    are at the start.
    """
    step = torch.arange(length, device=like.device, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(
        # Rounded up; an odd width loses the last cosine below.
        torch.arange((width + 1) // 2, device=like.device, dtype=torch.float32)
        * (-math.log(10_000.0) * 2 / width)
    )
    angle = step * rate
    both = torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width]
    return (both / math.sqrt(width)).to(like.dtype).unsqueeze(0)
