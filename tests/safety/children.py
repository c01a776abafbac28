"""Child processes of tests: Python that says a line when it is ready, and waiting for what must come."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

SECONDS = 30.0
"""Whatever takes longer hangs."""
_LOOK_SECONDS = 0.01


@contextlib.contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has printed one line, and waits for its input to end; killed at the end of the
    body.
    """
    words = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip()
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], object], *, seconds: float = SECONDS) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(_LOOK_SECONDS)


def say(process: subprocess.Popen[str], line: str) -> str:
    """What a child that reads lines and answers each with one answers to `line`."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()
