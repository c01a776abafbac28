"""Attention: masks, and torch's own as the measure."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from penstock.nn.attention import Attention, Block, with_class_token
from penstock.nn.blocks import Residual, mlp

torch.set_num_threads(1)


def test_it_is_multi_head_attention() -> None:
    ours, theirs = (
        Attention(12, 3, dropout=0.0).eval(),
        nn.MultiheadAttention(12, 3, batch_first=True).eval(),
    )
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.joint.weight)
        theirs.in_proj_bias.copy_(ours.joint.bias)
        theirs.out_proj.load_state_dict(ours.out.state_dict())
        x, mask = torch.randn(4, 6, 12), torch.rand(4, 6) < 0.6
        mask[:, 0] = True
        wanted, _ = theirs(x, x, x, key_padding_mask=~mask, need_weights=False)
        torch.testing.assert_close(ours(x, mask), wanted, atol=1e-5, rtol=1e-5)


def test_what_is_masked_is_not_seen() -> None:
    block = Block(8, 2, 16, dropout=0.0, attention_dropout=0.0).eval()
    x, mask = torch.randn(2, 5, 8), torch.tensor([[True, True, True, False, False]] * 2)
    other = torch.where(mask.unsqueeze(-1), x, torch.full_like(x, 1e4))
    torch.testing.assert_close(
        block(x, mask)[:, :3], block(other, mask)[:, :3], atol=1e-5, rtol=0
    )


def test_a_row_with_nothing_there_gives_numbers() -> None:
    tokens, mask = with_class_token(
        torch.zeros(8), torch.randn(2, 3, 8), torch.zeros(2, 3, dtype=torch.bool)
    )
    assert torch.isfinite(
        Block(8, 2, 16, dropout=0.0, attention_dropout=0.0)(tokens, mask)
    ).all()


@pytest.mark.parametrize("norm", [False, True])
def test_an_mlp_has_its_depth(norm: bool) -> None:
    layers = mlp(5, 7, 3, dropout=0.1, activate="silu", norm=norm)
    assert [
        (m.in_features, m.out_features) for m in layers if isinstance(m, nn.Linear)
    ] == [
        (5, 7),
        (7, 7),
        (7, 7),
    ]
    assert sum(isinstance(m, nn.LayerNorm) for m in layers) == (3 if norm else 0)


def test_a_residual_block_adds() -> None:
    block = Residual(4, 8, dropout=0.0, residual_dropout=0.0, activate="relu")
    last = block.inner[4]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    x = torch.randn(3, 4)
    torch.testing.assert_close(block(x), x)
