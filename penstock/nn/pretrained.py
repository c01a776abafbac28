"""A model of the package `transformers` as an encoder: token ids or pixels in, `Encoded` out.

The package's own modules compute; this file speaks our arrays to them. Layers learn more slowly the nearer
they are to the input where asked to (Howard and Ruder 2018, "discriminative fine-tuning"): each parameter
carries its share of the rate as `lr_scale`, which the optimiser's groups honour.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from penstock.contracts.learn import Encoded
from penstock.nn.images import Absent
from penstock.nn.sequences import mean_there

Pooling = Literal["mean", "first"]
# Where the layers of `transformers`' models keep their number.
_LEVEL = re.compile(r"(?:^|\.)(?:layers?|blocks?|h|stages)\.(\d+)\.")
_FIRST = re.compile(r"(?:^|\.)(?:\w*embed\w*|wte|wpe|embeddings)\.")


def slow_down(model: nn.Module, decay: float) -> None:
    """Give each parameter its share of the rate: 1 in the last layer and what follows it, `decay` times less
    a layer downwards.
    """
    levels = [
        int(block[1])
        for name, _ in model.named_parameters()
        if (block := _LEVEL.search(name))
    ]
    # Layers count from 0.
    count = max(levels, default=-1) + 1
    for name, parameter in model.named_parameters():
        level = _LEVEL.search(name)
        # Embeddings lie below all layers; norms and what follows above them all.
        below = (
            count - 1 - int(level[1]) if level else count if _FIRST.search(name) else 0
        )
        parameter.lr_scale = decay**below  # type: ignore[attr-defined]


class Pretrained(nn.Module):
    """What both kinds share.

    Args:
        name: the feature.
        model: of `transformers`, without a head.
        hidden: H, of its hidden states.
        width: W of the tokens; H unless given.
        frozen: its weights never move, and it stays in eval mode.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        hidden: int,
        width: int | None,
        pooling: Pooling,
        *,
        frozen: bool,
        decay: float,
    ) -> None:
        super().__init__()
        self.name, self.pooling, self.frozen = name, pooling, frozen
        if getattr(model, "pooler", None) is not None:
            model.pooler = None  # what is pooled is our own choice, and an idle layer would never learn
        self.model = model
        slow_down(model, decay)
        self.width, self.pooled_width = width or hidden, hidden
        self.to_tokens = (
            nn.Linear(hidden, width) if width not in (None, hidden) else nn.Identity()
        )
        if frozen:
            model.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        return states[:, 0] if self.pooling == "first" else mean_there(states, mask)


class PretrainedText(Pretrained):
    """Token ids `[B, T]` as the feature has them: 0 padding, 1 unknown, the tokenizer's own from `first`
    on.
    """

    def __init__(self, *arguments: Any, first: int, unknown: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.first, self.unknown = first, unknown

    def forward(self, batch: Mapping[str, Tensor]) -> Encoded:
        tokens, mask = batch[f"{self.name}.tokens"], batch[f"{self.name}.mask"].bool()
        # The package's ids begin at 0; ours have padding and unknown before them.
        ids = torch.where(tokens >= self.first, tokens - self.first, self.unknown)
        # Somebody must be attended to, also in a row without any token.
        attended = mask | (
            torch.arange(mask.shape[1], device=mask.device) == 0
        ).unsqueeze(0)
        states = self.model(
            input_ids=ids, attention_mask=attended.long()
        ).last_hidden_state
        return Encoded(
            self.to_tokens(states),
            mask,
            # The first place is attended to even in an empty row; a mean counts real
            # tokens alone.
            self.pooled(states, attended if self.pooling == "first" else mask),
        )


class PretrainedPicture(Pretrained):
    """Pixels uint8 `[B, C, H, W]`, scaled as the model's own preprocessor says."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *arguments: Any,
        mean: Sequence[float],
        std: Sequence[float],
        missing: bool,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        # Not in checkpoints: the model's own preprocessor says them.
        self.register_buffer(
            "mean",
            torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1),
            persistent=False,
        )
        self.register_buffer(
            "std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False
        )
        self.absent = Absent(self.pooled_width) if missing else None

    def forward(self, batch: Mapping[str, Tensor]) -> Encoded:
        states = self.model(
            pixel_values=(batch[f"{self.name}.pixels"].float() / 255 - self.mean)
            / self.std
        ).last_hidden_state
        if states.dim() == 4:  # a convolutional model's map
            # `[B, H'·W', C]`: places as tokens.
            states = states.flatten(2).transpose(1, 2)
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        pooled = self.pooled(states, mask)
        if self.absent is not None:
            missing = batch[f"{self.name}.missing"]
            states, pooled = self.absent(states, missing), self.absent(pooled, missing)
        return Encoded(self.to_tokens(states), mask, pooled)
