"""Checkpoints on their way to a bucket, in a thread of their own: neither training nor the writing of the
next one waits.

The bucket is made to hold what the run's folder holds: whole checkpoints go up, their manifests last, and
those that were dropped here go there, too. Whatever fails, the bucket, this machine's disk or our own code,
is tried again after waits that double, up to a minute; training goes on meanwhile, and both the trouble and
its end are reported. What never reached the bucket is reported at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from penstock.core.errors import LeaseLost, StoreError
from penstock.core.listeners import as_here
from penstock.core.store import MANIFEST, Store

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_LAST_SECONDS = 10.0
"""How long the end of training waits for a push that is on its way; the run's own closing sends what is
missing.
"""
_OWN_FILES = ("recipe.yaml", "run.json", "world.json")


class CheckpointUploader:
    """Keeps a bucket's copy of a run's checkpoints.

    Args:
        store: a remote one.
        run: the run's name in it, `runs/run-…`.
        may_write: called before anything is sent; raises `LeaseLost` where the run is in other hands.
    """

    def __init__(
        self, store: Store, run: str, *, may_write: Callable[[], None] = lambda: None
    ) -> None:
        self._store, self._run, self._may_write = store, run, may_write
        self.lost: LeaseLost | None = None
        """Why nothing is sent any more: another process has taken the run over."""
        self._folder = store.at(f"{run}/checkpoints")
        self._sent: set[str] = set()
        self._has_own = False
        self._texts: list[tuple[bool, str]] = []
        # The first wakes the thread; the second ends it, and cuts short a wait between
        # tries.
        self._asked, self._over = threading.Event(), threading.Event()
        # A daemon: a push that hangs must not keep the process from ending.
        self._thread = threading.Thread(
            target=as_here(self._go), name="penstock-push", daemon=True
        )
        self._thread.start()

    def push(self) -> None:
        """Ask the thread to send what is new; returns at once."""
        self._asked.set()

    def heard(self) -> list[tuple[bool, str]]:
        """The messages since the last call, as (is it a warning, text)."""
        texts, self._texts = self._texts, []
        return texts

    def close(self) -> None:
        """End the thread, waiting at most `_LAST_SECONDS` for what is on its way."""
        # In this order: once it is awake the thread looks whether it is over.
        self._over.set()
        self._asked.set()
        self._thread.join(_LAST_SECONDS)
        missing = self._missing()
        if missing and self.lost is None:
            names = ", ".join(missing)
            self._texts.append(
                (
                    True,
                    (
                        f"these checkpoints are on this machine only, and not in the bucket: {names}. They"
                        " are sent when the run is closed, or resumed here"
                    ),
                )
            )

    def _missing(self) -> list[str]:
        """Whole checkpoints that are here and have not reached the bucket, oldest first."""
        return sorted(
            {manifest.parent.name for manifest in self._folder.glob(f"step-*/{MANIFEST}")}
            - self._sent
        )

    def _go(self) -> None:
        failed = 0
        while True:
            self._asked.wait()
            # Before sending, so that what is asked for meanwhile wakes the thread
            # again.
            self._asked.clear()
            # Read before sending, so that all is sent once more after the wish to end.
            over = self._over.is_set()
            try:
                self._may_write()
                self._send()
            except LeaseLost as error:
                # Not tried again: the run is another process's to write.
                self.lost = error
                return
            except Exception as error:  # noqa: BLE001
                # Reported and tried again: a thread that ends says nothing to anybody.
                failed += 1
                # Reported once, and not again at each try.
                if failed == 1:
                    self._texts.append(
                        (
                            True,
                            (
                                "checkpoints do not reach the bucket, and are kept here until they do;"
                                f" training goes on: {_reason(error)}"
                            ),
                        )
                    )
                # The run's own closing sends what is missing.
                if over:
                    return
                # Not `sleep`, which `close` could not cut short.
                self._over.wait(min(_FIRST_WAIT * 2 ** (failed - 1), _LONGEST_WAIT))
                # What failed is tried again without anybody's push.
                self._asked.set()
                continue
            if failed:
                self._texts.append(
                    (
                        False,
                        f"the bucket takes checkpoints again, after {failed} refusals",
                    )
                )
                failed = 0
            if over:
                return

    def _send(self) -> None:
        if (
            not self._has_own
        ):  # so that another machine finds a run, whatever becomes of this one
            for name in _OWN_FILES:
                path = self._store.at(f"{self._run}/{name}")
                if path.is_file():
                    self._store.write_text(
                        f"{self._run}/{name}", text=path.read_text("utf-8")
                    )
            self._has_own = True
        for name in reversed(self._missing()):  # the newest first
            try:
                self._store.push(f"{self._run}/checkpoints/{name}")
            except FileNotFoundError:
                continue  # dropped meanwhile
            self._sent.add(name)
        # After the pushes: the bucket never loses its last whole checkpoint before it
        # has the next.
        for name in sorted(
            self._sent - {path.name for path in self._folder.glob("step-*")}
        ):
            self._store.forget(f"{self._run}/checkpoints/{name}")
            self._sent.discard(name)


def _reason(error: Exception) -> str:
    return (
        str(error)
        if isinstance(error, (StoreError, OSError))
        else f"{type(error).__name__}: {error}"
    )


__all__ = ["CheckpointUploader"]
