"""How much memory a process tree holds: anonymous and shared pages, not memory-mapped files (DESIGN: Memory)."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType


def held_bytes(pid: int | None = None) -> int:
    """RssAnon + RssShmem of `pid` (this process unless given) and all its descendants, in bytes; 0 where /proc is absent."""
    total = 0
    pending = [pid or os.getpid()]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if one in seen:
            continue
        seen.add(one)
        try:
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) * 1024
            for task in Path(f"/proc/{one}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it ended while we looked
    return total


class MemoryWatch:
    """Samples `held_bytes` in a thread; `peak_bytes` is the largest seen.

    >>> with MemoryWatch() as watch:
    ...     block = bytearray(50_000_000)
    >>> watch.peak_bytes >= 0
    True
    """

    def __init__(self, *, every_seconds: float = 0.1) -> None:
        self.peak_bytes = held_bytes()
        self._every = every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="penstock-memory", daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self.peak_bytes = max(self.peak_bytes, held_bytes())

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self.peak_bytes = max(self.peak_bytes, held_bytes())
