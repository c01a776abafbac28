"""The laws of gradient compressors: `check(GradientCompressor.load({"type": "powersgd", "rank": 4}))`.

Ranks are threads here, so that no process is started.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from penstock.contracts.learn import Exchanging, GradientCompressor
from penstock.testing.laws import _learning as _

Law = Callable[[GradientCompressor], None]
SHAPES = ((24, 40), (40,), (16, 3, 3, 3), (1,))
STEPS = 130
"""Beyond the warm-up of every built-in."""


class _Room:
    """Where threads that stand for ranks meet."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sums: list[Tensor] = [torch.empty(0)] * size
        self.barrier = threading.Barrier(size, timeout=20)


class _Wire:
    def __init__(self, room: _Room, rank: int) -> None:
        self.room, self.rank, self.size = room, rank, room.size
        self.sent_bytes = 0.0

    def _all(self, tensor: Tensor) -> list[Tensor]:
        self.room.sums[self.rank] = tensor.clone()
        self.room.barrier.wait()
        tensors = list(self.room.sums)
        self.room.barrier.wait()
        return tensors

    def add(self, tensor: Tensor) -> None:
        self.sent_bytes += 2 * (self.size - 1) / self.size * tensor.nbytes
        tensor.copy_(torch.stack(self._all(tensor)).sum(0))

    def most(self, tensor: Tensor) -> None:
        self.sent_bytes += tensor.nbytes
        tensor.copy_(torch.stack(self._all(tensor)).amax(0))

    def all(self, tensor: Tensor) -> Tensor:
        self.sent_bytes += (self.size - 1) * tensor.nbytes
        return torch.stack(self._all(tensor))


class _Ranks:
    """An exchange at work on several ranks."""

    def __init__(self, exchange: GradientCompressor, size: int) -> None:
        room = _Room(size)
        self.wires = [_Wire(room, rank) for rank in range(size)]
        self.tensors = [[torch.zeros(shape) for shape in SHAPES] for _rank in range(size)]
        self.at_work: list[Exchanging] = [
            exchange.open(tensors, wire)
            for tensors, wire in zip(self.tensors, self.wires, strict=True)
        ]

    def step(self, given: list[list[Tensor]]) -> list[list[Tensor]]:
        for tensors, values in zip(self.tensors, given, strict=True):
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        with ThreadPoolExecutor(len(given)) as pool:
            for done in [pool.submit(one.sum) for one in self.at_work]:
                done.result()
        return [[tensor.clone() for tensor in tensors] for tensors in self.tensors]

    def waiting(self) -> float:
        """The sum of all that is not said yet."""
        return sum(
            float(error.double().sum())
            for one in self.at_work
            for error in one.errors.values()
        )


def _given(step: int, size: int, *, silent: int | None = None) -> list[list[Tensor]]:
    chance = torch.Generator().manual_seed(step)
    return [
        [
            torch.randn(shape, generator=chance) * (0.0 if rank == silent else 0.01)
            for shape in SHAPES
        ]
        for rank in range(size)
    ]


def alike(exchange: GradientCompressor) -> None:
    """Every rank gets the same bytes, and a sum of the right size: what was given or is still to be said."""
    ranks = _Ranks(exchange, 3)
    for step in range(STEPS):
        sums = ranks.step(_given(step, 3))
        for theirs in sums[1:]:
            assert all(
                torch.equal(one, other)
                for one, other in zip(sums[0], theirs, strict=True)
            ), f"alike: ranks differ after step {step}"
            assert all(bool(torch.isfinite(tensor).all()) for tensor in theirs), (
                f"alike: step {step} is not finite"
            )


def kept(exchange: GradientCompressor) -> None:
    """What was said and what ranks keep are together what was given; what is rounded away without being kept
    is less than a hundredth.
    """
    ranks = _Ranks(exchange, 2)
    given = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES]
    totals = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES]
    for step in range(STEPS):
        rows = _given(step, 2)
        for total, one, other in zip(given, *rows, strict=True):
            total += one.double() + other.double()
        for total, tensor in zip(totals, ranks.step(rows)[0], strict=True):
            total += tensor.double()
    left = sum(float(total.sum()) for total in given) - sum(
        float(total.sum()) for total in totals
    )
    size = sum(float(total.abs().sum()) for total in given)
    keeps = any(one.errors for one in ranks.at_work)
    assert abs(left - ranks.waiting()) <= (1e-4 if keeps else 1e-2) * size, (
        f"kept: {left:g} was given and not said, and ranks keep {ranks.waiting():g}"
    )
    if not keeps:
        for total, tensor in zip(given, totals, strict=True):
            _.same(
                "kept",
                "the sum of all",
                tensor,
                total,
                tolerance=0.02 * float(total.abs().max()) + 1e-3,
            )


def silence(exchange: GradientCompressor) -> None:
    """A rank with nothing to say adds nothing, and keeps nothing."""
    ranks = _Ranks(exchange, 2)
    for step in range(STEPS):
        ranks.step(_given(step, 2, silent=1))
    for name, error in ranks.at_work[1].errors.items():
        assert not bool(error.any()), (
            f"silence: a rank whose gradients are zero keeps something under {name!r}"
        )


def remembered(exchange: GradientCompressor) -> None:
    """What another takes up of its memory goes on the same, to the bit."""
    one = _Ranks(exchange, 2)
    for step in range(STEPS):
        one.step(_given(step, 2))
    other = _Ranks(exchange, 2)
    for mine, theirs in zip(other.at_work, one.at_work, strict=True):
        for part in ("errors", "shared"):
            for name, tensor in getattr(mine, part).items():
                tensor.copy_(getattr(theirs, part)[name])
    for step in range(STEPS, STEPS + 3):
        first, second = one.step(_given(step, 2)), other.step(_given(step, 2))
        assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True)), (
            f"remembered: step {step} differs once memory has been taken up"
        )


def let_go(exchange: GradientCompressor) -> None:
    """What it lets go of is what it kept, and then it keeps nothing."""
    ranks = _Ranks(exchange, 2)
    for step in range(STEPS):
        ranks.step(_given(step, 2))
    waiting = ranks.waiting()
    for tensors in ranks.tensors:
        for tensor in tensors:
            tensor.zero_()
    for one in ranks.at_work:
        one.let_go()
    released = sum(
        float(tensor.double().sum()) for tensors in ranks.tensors for tensor in tensors
    )
    assert abs(released - waiting) < 1e-4, (
        f"let_go: it kept {waiting:g} and let go of {released:g}"
    )
    assert ranks.waiting() == 0, "let_go: something is kept still"


def fewer(exchange: GradientCompressor) -> None:
    """Beyond its warm-up it sends fewer bytes than float32 would take."""
    ranks = _Ranks(exchange, 2)
    for step in range(STEPS):
        ranks.step(_given(step, 2))
    before = ranks.wires[0].sent_bytes
    ranks.step(_given(STEPS, 2))
    sent, plain = (
        ranks.wires[0].sent_bytes - before,
        4 * sum(torch.Size(shape).numel() for shape in SHAPES),
    )
    assert sent < plain or _whole(exchange), (
        f"fewer: {sent:g} bytes are sent where float32 takes {plain}"
    )


def _whole(exchange: Any) -> bool:
    """It was asked to send everything."""
    return getattr(exchange, "share", 0) == 1 or getattr(exchange, "rank", 0) >= 16


def declared(exchange: GradientCompressor) -> None:
    """Declared → loaded → declared is the identity."""
    _.declared_again("declared", exchange)


def light(exchange: GradientCompressor) -> None:
    """The head of its file imports no torch."""
    _.light_head("light", exchange)


LAWS: tuple[Law, ...] = (alike, kept, silence, remembered, let_go, fewer, declared, light)


def check(exchange: GradientCompressor) -> None:
    """Judge one exchange by every law.

    Raises:
        AssertionError: it breaks a law.
    """
    for law in LAWS:
        law(exchange)
