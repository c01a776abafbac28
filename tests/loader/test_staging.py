"""The ring of staging buffers, with a link whose copies end only when they are waited for; and the real one
where there is a GPU.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from penstock.loader.staging import Staging


class Late:
    """A copy that reads its buffer as late as it may: a buffer that is filled too soon spoils it."""

    def __init__(self, held: Any, there: Any) -> None:
        self.held, self.there, self.done = held, there, False
        self.lock = threading.Lock()

    def end(self) -> None:
        with self.lock:
            if not self.done:
                self.there.copy_(self.held[: len(self.there)])
                self.done = True

    def query(self) -> bool:
        return self.done


class Slow:
    def __init__(self) -> None:
        self.rooms: list[int] = []
        self.users: list[str] = []

    def room(self, size: int) -> Any:
        self.rooms.append(size)
        return torch.full((size,), 7, dtype=torch.uint8)

    def copy(self, held: Any, size: int) -> tuple[Any, Any]:
        there = torch.zeros(size, dtype=torch.uint8)
        return there, Late(held, there)

    def finish(self, event: Any) -> None:
        event.end()

    def hand_over(self, there: Any, event: Any) -> None:
        event.end()
        self.users.append(threading.current_thread().name)


def batches(seed: int, rows: int = 5) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, 3)).astype(np.float32)
    return [
        {
            "x.value": matrix[:, 1],
            "row_id": rng.integers(-9, 9, (rows, 2)),
            "p.pixels": rng.integers(0, 255, (rows, 4, 6, 3))
            .astype(np.uint8)
            .transpose(0, 3, 1, 2),
        },
        {
            "m.mask": rng.integers(0, 2, (rows, 7)).astype(bool),
            "some": rng.normal(size=(rows, 4, 6))[:, ::2],
            "none": np.empty((0, 3), np.float32),
            "weight": np.ones(rows, np.float32),
        },
    ]


def same(found: Any, wanted: Any) -> None:
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert list(ours) == list(theirs)
        for name, values in theirs.items():
            tensor = ours[name].cpu()
            assert tensor.dtype == torch.from_numpy(
                np.ascontiguousarray(values)
            ).dtype and np.array_equal(tensor.numpy(), values), name


def test_what_is_sent_arrives_whatever_its_layout() -> None:
    staging = Staging("cpu", link=Slow())
    wanted = batches(0)
    found = staging.receive(staging.send(wanted))
    same(found, wanted)
    assert (
        found[0]["p.pixels"].stride() == torch.from_numpy(wanted[0]["p.pixels"]).stride()
    ), "a picture is not transposed in memory"


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_buffer_is_filled_again_only_when_its_copy_has_ended(slots: int) -> None:
    link = Slow()
    staging = Staging("cpu", slots=slots, link=link)
    wanted = [batches(seed) for seed in range(12)]
    sent = [staging.send(one) for one in wanted]
    for one, arrived in zip(wanted, sent, strict=True):
        same(staging.receive(arrived), one)
    assert len(link.rooms) == slots, "the ring's buffers are used again"
    big = batches(99, rows=20_000)
    same(staging.receive(staging.send(big)), big)
    assert len(link.rooms) == slots + 1 and link.rooms[-1] > 2**20


def test_several_threads_send() -> None:
    staging = Staging("cpu", slots=2, link=Slow())
    found: dict[int, Any] = {}

    def work(first: int) -> None:
        for seed in range(first, first + 20):
            found[seed] = staging.send(batches(seed))

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    for seed, sent in found.items():
        same(staging.receive(sent), batches(seed))


def test_a_failed_copy_gives_its_buffer_back() -> None:
    class Broken(Slow):
        def copy(self, held: Any, size: int) -> tuple[Any, Any]:
            raise RuntimeError("out of memory")

    staging = Staging("cpu", slots=1, link=Broken())
    for _ in range(3):
        with pytest.raises(RuntimeError, match="out of memory"):
            staging.send(batches(0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_device() -> None:
    staging = Staging("cuda", slots=2)
    wanted = [batches(seed, rows=3_000) for seed in range(20)]
    for one, sent in [(one, staging.send(one)) for one in wanted]:
        found = staging.receive(sent)
        assert all(tensor.is_cuda for arrays in found for tensor in arrays.values())
        same(found, one)
