"""The watch over memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time

import pytest

from penstock.core.errors import UserError
from penstock.core.memory import Ceiling, _after_giving_back, held_bytes


def test_what_comes_near_the_ceiling_is_stopped_where_it_is_with_a_sentence() -> None:
    # what allocators keep for later must not be given back meanwhile
    limit = _after_giving_back() + 64 * 2**20

    def work() -> None:
        with Ceiling(limit, stage="prepare", advice="Lower it.", every_seconds=0.01):
            held = bytearray(96 * 2**20)
            for _ in range(500):  # stopped here, though nothing is asked
                time.sleep(0.01)
            del held

    with pytest.raises(UserError, match=r"(?s)prepare used .* MiB .*limit of .*Lower it"):
        work()


def test_outside_the_main_thread_it_is_asked() -> None:
    limit = _after_giving_back() + 64 * 2**20
    told: list[str] = []

    def work() -> None:
        try:
            with Ceiling(
                limit, stage="encode", advice="Lower it.", every_seconds=0.01
            ) as ceiling:
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
    assert told and told[0].startswith("encode used")


def test_below_the_ceiling_nothing_happens() -> None:
    with Ceiling(
        held_bytes() + 2**30, stage="prepare", advice="", every_seconds=0.01
    ) as ceiling:
        time.sleep(0.05)
        ceiling.check()


_STEPS = """
import resource, sys
from penstock.core.memory import keep_freed
kept = sys.argv[1] == "keep" and keep_freed()
def step():
    blocks = [bytearray(8 * 2**20) for _ in range(3)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(word: str, **more: str) -> tuple[str, int]:
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_"))
    } | more
    done = subprocess.run(
        [sys.executable, "-c", _STEPS, word],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=env,
    )
    kept, faults = done.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="only glibc gives freed memory back in this way",
)
def test_what_a_step_frees_the_next_one_gets_without_asking_the_system() -> None:
    _, usual = _faults("not")
    kept, faults = _faults("keep")
    assert kept == "True" and faults < 100 < usual / 10, (faults, usual)
    assert _faults("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False", (
        "what the user has set stays"
    )
    assert (
        _faults("keep", GLIBC_TUNABLES="glibc.malloc.trim_threshold=131072")[0] == "False"
    )
