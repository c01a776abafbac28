"""Exchanges of gradients: their laws, and what each promises of itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.learn import GradientCompressor, World
from penstock.testing.laws import gradients as laws
from penstock.train.communicator import Communicator

DECLARED = [
    "fp16",
    "bf16",
    "topk",
    "powersgd",
    {"type": "topk", "share": 1.0},
    {"type": "topk", "share": 0.3, "warm_up": 20},
    {"type": "powersgd", "rank": 4, "warm_up": 0},
    {"type": "powersgd", "rank": 50},
]


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("declared", DECLARED, ids=str)
def test_laws(declared, law):
    law(GradientCompressor.load(declared))


def test_every_type_on_the_shelf_is_judged():
    assert {d if isinstance(d, str) else d["type"] for d in DECLARED} == set(
        GradientCompressor.types()
    )


@settings(deadline=None, max_examples=30)
@given(st.floats(-20, 20), st.integers(0, 5))
def test_fp16_keeps_what_is_small_and_what_is_large(power, seed):
    values = torch.randn(50, generator=torch.Generator().manual_seed(seed)) * 10**power
    ranks = laws._Ranks(GradientCompressor.load("fp16"), 2)
    given_ = [[torch.zeros(shape) for shape in laws.SHAPES] for _ in range(2)]
    for rank in given_:
        rank[1].copy_(values[:40])
    found = ranks.step(given_)[0][1]
    torch.testing.assert_close(
        found, 2 * values[:40], rtol=2e-3, atol=2e-7 * float(values.abs().max())
    )


def test_a_product_of_low_rank_is_sent_as_it_is():
    chance = torch.Generator().manual_seed(0)
    ranks = laws._Ranks(
        GradientCompressor.load({"type": "powersgd", "rank": 3, "warm_up": 0}), 2
    )
    matrix = torch.randn(24, 3, generator=chance) @ torch.randn(3, 40, generator=chance)
    given_ = [[torch.zeros(shape) for shape in laws.SHAPES] for _ in range(2)]
    given_[0][0].copy_(0.3 * matrix)
    given_[1][0].copy_(0.7 * matrix)
    torch.testing.assert_close(ranks.step(given_)[0][0], matrix, rtol=1e-4, atol=1e-4)
    assert (
        max(
            float(error.abs().max())
            for one in ranks.at_work
            for error in one.errors.values()
        )
        < 1e-4
    )


def test_the_warm_up_teaches_the_directions_of_the_first_product():
    chance = torch.Generator().manual_seed(1)
    left, right = (
        torch.linalg.qr(torch.randn(n, 24, generator=chance)).Q for n in (24, 40)
    )
    # every direction a little weaker than the one before
    matrix = left @ torch.diag(0.8 ** torch.arange(24)) @ right.T
    best = float(torch.linalg.svdvals(matrix)[2:].square().sum().sqrt())

    def off(warm_up: int) -> float:
        ranks = laws._Ranks(
            GradientCompressor.load({"type": "powersgd", "rank": 2, "warm_up": warm_up}),
            2,
        )
        for _ in range(warm_up + 1):
            given_ = [[torch.zeros(shape) for shape in laws.SHAPES] for _ in range(2)]
            for rank in given_:
                rank[0].copy_(matrix / 2)
            found = ranks.step(given_)[0][0]
        return float((found - matrix).norm())

    assert off(20) < 1.02 * best < off(0)


def test_the_largest_go_first_and_the_rest_later():
    ranks = laws._Ranks(GradientCompressor.load({"type": "topk", "share": 0.001}), 2)
    given_ = [[torch.zeros(shape) for shape in laws.SHAPES] for _ in range(2)]
    given_[0][0].view(-1)[:3] = torch.tensor([1.0, 3.0, -2.0])
    nothing = [[torch.zeros(shape) for shape in laws.SHAPES] for _ in range(2)]
    assert ranks.step(given_)[1][0].view(-1)[:3].tolist() == [
        0.0,
        3.0,
        -2.0,
    ]  # two of 1,433
    assert ranks.step(nothing)[1][0].view(-1)[:3].tolist() == [1.0, 0.0, 0.0]


def test_the_share_falls_by_equal_factors():
    topk = GradientCompressor.load({"type": "topk", "share": 0.01, "warm_up": 2})
    assert [topk.share_at(step) for step in range(4)] == pytest.approx(
        [1.0, 0.1, 0.01, 0.01]
    )


def test_alone_nothing_is_sent():
    peers = Communicator(World())
    tensor = torch.ones(3)
    peers.add(tensor)
    peers.most(tensor)
    assert tensor.tolist() == [1, 1, 1]
    assert peers.all(tensor).shape == (1, 3)
    assert peers.given({"a": tensor})[0]["a"] is tensor
    assert peers.sent_bytes == 0
