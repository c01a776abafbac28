"""Pictures as tokens: patches that attend to one another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from penstock.contracts.learn import Encoded
from penstock.contracts.tensors import TensorSpec
from penstock.nn.attention import Block, with_class_token
from penstock.nn.images import Absent, Standardised, all_there, conv, stem_stride


class Patches(nn.Module):
    """Pixels → `Encoded`; tokens `[B, patches, width]`, `pooled` is the class token.

    Args:
        name: the feature.
        spec: its arrays.
        patch: side of a patch; what is left over at the right and below is padded.
        inner: W within.
        depth: blocks.
        heads: of attention; divides `inner`.
        dropout: in training.
        width: W of the tokens that are told; `inner` unless given.
    """

    def __init__(
        self,
        name: str,
        spec: Mapping[str, TensorSpec],
        patch: int,
        inner: int,
        depth: int,
        heads: int,
        dropout: float,
        width: int | None,
    ) -> None:
        super().__init__()
        self.name, self.width, self.pooled_width = name, width or inner, inner
        # `[C, H, W]`: pictures of one size only.
        channels, height, across = (int(n or 0) for n in spec["pixels"].shape)
        self.standardised = Standardised(spec["pixels"])
        # So much is missing at the right and below to a whole number of patches.
        self.beyond = (-across % patch, -height % patch)
        # The largest step that divides the patch, so that early layers and cut make one
        # patch.
        stride = next(
            n
            for n in (4, 2, 1)
            if n <= stem_stride(max(height, across)) and patch % n == 0
        )
        # A few convolutions before the cut train more steadily than one large step.
        self.early = nn.Sequential(
            conv(channels, inner // 2, 2 * stride + 1, stride),
            nn.GroupNorm(1, inner // 2),
            nn.GELU(),
        )
        self.cut = nn.Conv2d(inner // 2, inner, patch // stride, patch // stride)
        # One place for each patch of the padded picture.
        count = -(-height // patch) * -(-across // patch)
        self.places = nn.Parameter(torch.randn(count, inner) * 0.02)
        self.token = nn.Parameter(torch.randn(inner) * 0.02)
        self.blocks = nn.ModuleList(
            Block(inner, heads, 2 * inner, dropout=dropout, attention_dropout=dropout)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(inner)
        self.to_tokens = (
            nn.Linear(inner, width) if width not in (None, inner) else nn.Identity()
        )
        self.absent = Absent(inner) if "missing" in spec else None

    def forward(self, batch: Mapping[str, Tensor]) -> Encoded:
        missing = batch[f"{self.name}.missing"] if self.absent is not None else None
        values = self.standardised(batch[f"{self.name}.pixels"], missing)
        values = self.early(
            # `pad` counts from the last axis: left, right, above, below.
            nn.functional.pad(values, (0, self.beyond[0], 0, self.beyond[1]))
        )
        x = self.cut(values).flatten(2).transpose(1, 2) + self.places
        x, there = with_class_token(
            self.token, x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        )
        for block in self.blocks:
            x = block(x, there)
        x = self.norm(x)
        # The class token, too: nothing of a missing picture's pixels remains.
        if self.absent is not None and missing is not None:
            x = self.absent(x, missing)
        return all_there(self.to_tokens(x[:, 1:]), x[:, 0])
