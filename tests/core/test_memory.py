"""The watch over memory."""

from __future__ import annotations

import threading
import time

import pytest

from penstock.core.errors import UserError
from penstock.core.memory import Ceiling, held_bytes


def test_what_comes_near_the_ceiling_is_stopped_where_it_is_with_a_sentence() -> None:
    limit = held_bytes() + 64 * 2**20
    def work() -> None:
        with Ceiling(limit, stage="prepare", advice="Lower it.", every_seconds=0.01):
            held = bytearray(96 * 2**20)
            for _ in range(500):  # stopped here, though nothing is asked
                time.sleep(0.01)
            del held

    with pytest.raises(UserError, match=r"(?s)prepare held .* MiB .*ceiling of .*Lower it"):
        work()


def test_outside_the_main_thread_it_is_asked() -> None:
    limit = held_bytes() + 64 * 2**20
    told: list[str] = []

    def work() -> None:
        try:
            with Ceiling(limit, stage="encode", advice="Lower it.", every_seconds=0.01) as ceiling:
                held = bytearray(96 * 2**20)
                for _ in range(500):
                    ceiling.check()
                    time.sleep(0.01)
                del held
        except UserError as error:
            told.append(error.message)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told and told[0].startswith("encode held")


def test_below_the_ceiling_nothing_happens() -> None:
    with Ceiling(held_bytes() + 2**30, stage="prepare", advice="", every_seconds=0.01) as ceiling:
        time.sleep(0.05)
        ceiling.check()
