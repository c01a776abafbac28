"""A process's pulse: one small memory-mapped file, written by a process of a training and read by whoever
started it.

    beats   counted up by a thread, while the interpreter lives at all
    moves   counted up whenever something is done: a step, a batch judged, a file written
    step    the step it is in, from 0; -1 before the first

Writing costs a fraction of a microsecond and no system call, and reading needs nothing of the writer: a
process that was stopped, hangs in native code or waits for a peer for ever is seen all the same, and the
numbers tell these apart.

What is refused here: any judgement (the launcher's), and any knowledge of what a step is.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

HEARTBEAT = "PENSTOCK_PULSE"
"""The variable that names the file; without it nobody looks, and nothing is written."""
# Seconds between two beats; a launcher judges by many of them.
BEAT_SECONDS = 0.5
# Little-endian, without padding: beats at byte 0, moves at 8, step at 16.
_FORM = struct.Struct("<QQq")


@dataclass(frozen=True)
class Reading:
    """What was read of a pulse."""

    beats: int = 0
    moves: int = 0
    step: int = -1


class Heartbeat:
    """The writing end; with no path every call does nothing."""

    def __init__(self, path: str | None) -> None:
        self._map: mmap.mmap | None = None
        self._beats = self._moves = 0
        self._step = -1
        if path:
            # Not created here: `prepare` has laid it out, and the launcher owns it.
            handle = os.open(path, os.O_RDWR)
            try:
                self._map = mmap.mmap(handle, _FORM.size)
            finally:
                # The map stays valid without the descriptor.
                os.close(handle)

    @classmethod
    def here(cls) -> Heartbeat:
        """The heartbeat of this process, in the file that its launcher names in
        `PENSTOCK_PULSE`.
        """
        return cls(os.environ.get(HEARTBEAT))

    def start(self) -> Heartbeat:
        """Begin to beat, in a thread."""
        if self._map is not None:
            threading.Thread(
                target=self._tick, name="penstock-pulse", daemon=True
            ).start()
        return self

    def _tick(self) -> None:
        # Never set: `wait` is a sleep that needs no global state.
        pause = threading.Event()
        while self._map is not None:
            self._beats += 1
            _put(self._map, 0, self._beats)
            pause.wait(BEAT_SECONDS)

    def progress(self, step: int | None = None) -> None:
        """Count one more thing done; `step`, from 0, is the step that the process is in
        now.
        """
        if self._map is None:
            return
        self._moves += 1
        if step is not None:
            self._step = step
            # The step before the count: whoever sees the count move also sees the step.
            struct.pack_into("<q", self._map, 16, step)
        _put(self._map, 8, self._moves)


def _put(memory: mmap.mmap, place: int, value: int) -> None:
    struct.pack_into("<Q", memory, place, value)


def prepare(path: Path) -> None:
    """An empty pulse for a process to write."""
    path.write_bytes(_FORM.pack(0, 0, -1))


def read(path: Path) -> Reading:
    """Read a heartbeat file; one that is missing or too short reads as never begun."""
    try:
        return Reading(*_FORM.unpack(path.read_bytes()[: _FORM.size]))
    # Gone or half-written counts as silence, which is the launcher's to judge.
    except (OSError, struct.error):
        return Reading()
