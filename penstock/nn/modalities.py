"""Several modalities of one row (a picture, a text, facts): leaving one out in training, and gated fusion.

A modality is what one encoder says. Leaving whole ones out in training keeps a model from leaning on the
easiest of them (Neverova, Wolf, Taylor and Nebout 2016, "ModDrop"), and lets it answer where one says little.
A row never loses all. Nothing is scaled up in return, unlike in dropout of single numbers: a row with all its
modalities is among those that training sees, so that answering is no new case.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from penstock.contracts.learn import Encoded


class ModalityDropout(nn.Module):
    """In training, each row loses each part with the chance `share`, but never all: parts → parts.

    What is lost is masked among the tokens and zero in `pooled`. In eval mode, or with one part only, nothing
    happens.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def keep_mask(self, parts: Sequence[Encoded]) -> Tensor | None:
        """Which parts each row keeps, bool `[B, parts]`; None if all keep everything."""
        if not self.training or self.share <= 0 or len(parts) < 2:
            return None
        rows, device = parts[0].pooled.shape[0], parts[0].pooled.device
        # A number for each row and part, so that rows of one batch lose different
        # parts.
        chance = torch.rand(rows, len(parts), device=device)
        # The luckiest part always stays: that it is the luckiest says nothing of which one it is.
        return (chance >= self.share) | (chance == chance.amax(1, keepdim=True))

    def forward(self, parts: Sequence[Encoded]) -> list[Encoded]:
        keep = self.keep_mask(parts)
        if keep is None:
            return list(parts)
        return [
            Encoded(
                part.tokens,
                part.mask & keep[:, i : i + 1],
                part.pooled * keep[:, i : i + 1].to(part.pooled.dtype),
            )
            for i, part in enumerate(parts)
        ]


class Gated(nn.Module):
    """The gated multimodal unit (Arevalo, Solorio, Montes-y-Gómez and González 2017, equations 1 to 3, for
    any number of parts).

    h_i = tanh(W_i x_i); z_i = σ(V_i [x_1 … x_n]); h = Σ z_i h_i. The gates of all parts are one product. Each
    pooled vector is normalised first: encoders speak in unlike loudness, and a gate would learn that before
    anything else.

    Args:
        widths: of each part's pooled vector.
        width: W of what comes out.
        layers: after the sum, `[B, W] → [B, W]`.
        modality_dropout: see `ModalityDropout`.
    """

    def __init__(
        self,
        widths: Sequence[int],
        width: int,
        layers: nn.Module,
        *,
        modality_dropout: float,
    ) -> None:
        super().__init__()
        self.width, self.layers = width, layers
        self.drop = ModalityDropout(modality_dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in widths)
        self.values = nn.ModuleList(nn.Linear(size, width) for size in widths)
        self.gates = nn.Linear(sum(widths), width * len(widths))

    def forward(self, parts: list[Encoded]) -> Encoded:
        inputs = [norm(part.pooled) for norm, part in zip(self.norms, parts, strict=True)]
        keep = self.drop.keep_mask(parts)
        if keep is not None:
            # After the norms, which would turn a zero vector into their bias.
            inputs = [x * keep[:, i : i + 1].to(x.dtype) for i, x in enumerate(inputs)]
        # [B, parts, W]
        values = torch.stack(
            [torch.tanh(value(x)) for value, x in zip(self.values, inputs, strict=True)],
            dim=1,
        )
        gates = torch.sigmoid(self.gates(torch.cat(inputs, dim=1))).view(
            -1, len(parts), self.width
        )
        # `[B, parts, W]`: each part's say in each component.
        tokens = values * gates
        mask = (
            torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
            if keep is None
            else keep
        )
        # The maps have biases, so a part that is lost must be set to zero here as well.
        if keep is not None:
            tokens = tokens * keep.unsqueeze(-1).to(tokens.dtype)
        return Encoded(tokens, mask, self.layers(tokens.sum(1)))
