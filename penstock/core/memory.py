"""How much memory a process tree holds: anonymous and shared pages, not memory-mapped files.

`Ceiling` stops a stage before the tree holds more than it may. Stages budget what they hold themselves; the
watch is for what they cannot bound: code of the user's, rows far wider than those that were measured. A
thread samples; the main thread is told by a signal, whose handler raises the sentence, so that a stage is
stopped where it is, also within a long query of DuckDB's. Where a stage does not run in the main thread,
`check` (asked with every progress) raises it.

`keep_freed` is about speed: what a training step frees, the next one asks for again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from functools import cache
from pathlib import Path
from types import FrameType, TracebackType

from penstock.core.errors import UserError

_NEAR = 0.97
"""Of the ceiling: there a stage is stopped, since memory is sampled and grows between two looks."""
_SIGNAL = getattr(signal, "SIGUSR2", None)


def held_bytes(pid: int | None = None) -> int:
    """RssAnon + RssShmem of `pid` (this process unless given) and all its descendants, in bytes; 0 where
    /proc is absent.
    """
    # File-backed pages are left out: the kernel drops them under pressure, so they
    # never fill memory.
    total = 0
    pending = [pid or os.getpid()]
    # A pid may be reused while the tree is walked.
    counted: set[int] = set()
    while pending:
        one = pending.pop()
        if one in counted:
            continue
        counted.add(one)
        try:
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    # /proc gives kB, which are KiB.
                    total += int(line.split()[1]) * 1024
            # Children hang on the thread that forked them, so every thread is asked.
            for task in Path(f"/proc/{one}/task").iterdir():
                pending += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it ended while we looked
    return total


_TRIM, _MMAP = -1, -3
"""What mallopt(3) calls M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
# 32 MiB is the most that glibc takes for M_MMAP_THRESHOLD on 64 bits.
_BLOCK_BYTES = 32 * 2**20


@cache
def keep_freed() -> bool:
    """Let glibc keep up to 64 MiB of freed memory, and blocks of up to 32 MiB within it, from now on; False
    where it is not glibc, or the environment says otherwise.

    These are the limits that glibc comes to by itself once a block of 32 MiB was freed (mallopt(3)). Until
    then a larger block goes back to the system when it is freed, and comes again as pages to be cleared: in
    each step of a small CNN 8,000 of them, a fifth of its time.
    """
    # What the user has set for malloc is not overruled.
    if any(
        word in os.environ
        for word in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    ) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - only glibc has it, and only its thresholds are meant
        return bool(library.mallopt(_MMAP, _BLOCK_BYTES)) and bool(
            library.mallopt(_TRIM, 2 * _BLOCK_BYTES)
        )
    except (AttributeError, OSError, TypeError):
        return False


class MemoryWatch:
    """Samples `held_bytes` in a thread; `peak_bytes` is the largest seen.

    >>> with MemoryWatch() as watch:
    ...     block = bytearray(50_000_000)
    >>> watch.peak_bytes >= 0
    True
    """

    def __init__(self, *, every_seconds: float = 0.1) -> None:
        # Sampled at both ends too: what lies between two samples may be missed, the
        # ends never.
        self.peak_bytes = held_bytes()
        self._every = every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="penstock-memory", daemon=True
        )

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self.peak_bytes = max(self.peak_bytes, held_bytes())

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.peak_bytes = max(self.peak_bytes, held_bytes())


class Ceiling:
    """Stops what runs within it before the process tree holds `limit_bytes`. Use as a context manager.

    Args:
        limit_bytes: of RssAnon + RssShmem of this process and its descendants.
        stage: what runs, for the sentence.
        advice: what to lower.

    Raises:
        UserError: within, once memory comes near the limit: the stage, what it held, the ceiling, and what to
            do.
    """

    def __init__(
        self, limit_bytes: int, *, stage: str, advice: str, every_seconds: float = 0.05
    ) -> None:
        self._limit, self._stage, self._advice, self._every = (
            limit_bytes,
            stage,
            advice,
            every_seconds,
        )
        # Bytes at the moment the limit was near; 0 while all is well.
        self._held = 0
        self._raised = False
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="penstock-ceiling", daemon=True
        )
        self._before: object = None
        # Python runs handlers in the main thread only; elsewhere `check` has to raise.
        self._signals = (
            _SIGNAL is not None and threading.current_thread() is threading.main_thread()
        )

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            used = held_bytes()
            # Trimming costs, so it is tried only when the first measure is near the
            # limit.
            if (
                used > self._limit * _NEAR
                and (used := _after_giving_back()) > self._limit * _NEAR
            ):
                self._held = used
                # Nobody can be told by a signal: `_held` stands, and the next `check`
                # raises.
                if self._raised or not self._signals:
                    return
                if not self._stop.is_set():  # again at the next look, until it was heard
                    signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)  # type: ignore[arg-type]

    def _told(self, number: int, frame: FrameType | None) -> None:
        self.check()

    def check(self) -> None:
        """Raise the error if memory came near the limit."""
        # Once only: the stage that unwinds must not be struck again.
        if self._held and not self._raised and not self._stop.is_set():
            self._raised = True
            raise UserError(
                f"{self._stage} used {self._held / 2**20:,.0f} MiB of memory and was"
                f" stopped before it passed the limit of {self._limit / 2**20:,.0f} MiB"
                f" (resources.memory). {self._advice}"
            )

    def __enter__(self) -> Ceiling:
        if self._signals:
            self._before = signal.signal(_SIGNAL, self._told)  # type: ignore[arg-type]
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The thread ends before the handler goes back: a late signal would meet the
        # default, which kills.
        self._stop.set()
        self._thread.join()
        if self._signals:
            signal.signal(_SIGNAL, self._before)  # type: ignore[arg-type]
        if kind is not None and issubclass(kind, MemoryError) and not self._held:
            self._held = (
                held_bytes() or self._limit
            )  # memory was refused before the watch could look
        # An error that memory caused is replaced by the sentence; a stop or a sentence
        # of ours stands.
        if (
            self._held
            and not self._raised
            and kind is not None
            and not issubclass(kind, (UserError, KeyboardInterrupt))
        ):
            self._stop.clear()
            self.check()  # it failed for want of memory before it could be told


def _after_giving_back() -> int:
    """Bytes still held once allocators have returned their unused memory to the system."""
    with contextlib.suppress(ImportError):
        import pyarrow as pa

        # Arrow and glibc keep freed pages, which still count as held.
        pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return held_bytes()
