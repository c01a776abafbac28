"""Attention over tokens `[B, T, W]` with a mask `[B, T]` (True: there).

Pre-norm blocks (Vaswani et al. 2017; Xiong et al. 2020), torch's fused attention, and the gated ReLU of
Shazeer 2020 as in FT-transformer (Gorishniy et al. 2021). A token that is not there is never attended to, so
padding changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention: `[B, T, W], [B, T] → [B, T, W]`. `heads` divides W."""

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.joint = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        # Three of `[B, heads, T, W / heads]`, out of one product.
        query, key, value = (
            self.joint(x)
            .view(batch, tokens, 3, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        attended = F.scaled_dot_product_attention(
            query,
            key,
            # `[B, 1, 1, T]`: the same keys are there for every head and every query.
            value,
            attn_mask=mask[:, None, None, :],
            # The function knows no eval mode of its own.
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out(attended.transpose(1, 2).reshape(batch, tokens, width))
        return out


class GatedFeedForward(nn.Module):
    """ReGLU: `[…, W] → […, W]` through `hidden`."""

    def __init__(self, width: int, hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.wide = nn.Linear(width, 2 * hidden)
        self.narrow = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        # `[…, hidden]` each.
        value, gate = self.wide(x).chunk(2, dim=-1)
        out: Tensor = self.narrow(self.dropout(value * F.relu(gate)))
        return out


class Block(nn.Module):
    """Attention, then feed-forward, each added to what came in: `[B, T, W], [B, T] → [B, T, W]`."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        dropout: float,
        attention_dropout: float,
        residual_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.before_attention, self.before_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout=attention_dropout)
        self.feed = GatedFeedForward(width, hidden, dropout=dropout)
        self.residual_dropout = nn.Dropout(residual_dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.residual_dropout(self.attention(self.before_attention(x), mask))
        out: Tensor = x + self.residual_dropout(self.feed(self.before_feed(x)))
        return out


def with_class_token(
    token: Tensor, tokens: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Put a learnt token `[W]`, always there, before the others: `[B, 1 + T, W]` and `[B, 1 + T]`."""
    first = token.expand(tokens.shape[0], 1, -1)
    # The class token is always there: attention over a row without any token would be
    # NaN.
    return torch.cat([first, tokens], dim=1), torch.cat(
        [mask.new_ones((mask.shape[0], 1)), mask], dim=1
    )
