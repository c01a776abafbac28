"""Events of a training in other processes, told here.

Rank 0 appends its events to a file in the run's folder, which every launcher's processes share anyhow; the
process that started them follows the file and tells its own listeners. No sockets, no pickles.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.core.events import Events, JsonLines
from penstock.core.jsons import parsed

_WAIT_SECONDS = 0.2


def telling(path: Path) -> Events:
    """An `Events` that appends each event to the file `path`, for `following` to read."""
    # With progress, which a diary leaves out: the screen at the other end shows it.
    return Events(JsonLines(path, skip=()))


@contextmanager
def following(path: Path, events: Events) -> Iterator[None]:
    """While the body runs, emit to `events` what other processes append to the file `path`.

    Afterwards all of it has been emitted, and the file is deleted.

    Raises:
        Exception: what a listener raised, once the body has ended.
    """
    # Lines of an earlier launch must not be told again.
    path.unlink(missing_ok=True)
    path.touch()
    ended = threading.Event()
    failed: list[Exception] = []
    thread = threading.Thread(
        target=_follow, args=(path, events, ended, failed), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)
    if failed:
        raise failed[0]  # a listener's; training went on without it


def _follow(
    path: Path, events: Events, ended: threading.Event, failed: list[Exception]
) -> None:
    try:
        _tell_all(path, events, ended)
    except Exception as error:  # noqa: BLE001 - raised again where the training was started
        failed.append(error)


def _tell_all(path: Path, events: Events, ended: threading.Event) -> None:
    with open(path, "rb") as file:  # bytes: a read may end in the middle of a character
        rest = b""
        while True:
            # Asked before reading, so that all that was written before the end is read
            # once more.
            last = ended.wait(_WAIT_SECONDS)
            # What follows the last line break is a line that is still being written.
            *lines, rest = (rest + file.read()).split(b"\n")
            for line in lines:
                _tell_line(line, events)
            if last:
                return


def _tell_line(line: bytes, events: Events) -> None:
    """Tell one whole line.

    A line that is no event (its writer was killed in the middle of it) is reported, and ends nothing.
    """
    try:
        fields = parsed(line)
        name = fields.pop("event")
        # `emit` stamps the time of telling.
        fields.pop("time")
    except (ValueError, KeyError, AttributeError, TypeError):
        events.warn(
            f"A line of {len(line):,} bytes in the events of the training processes"
            " cannot be read and is left out"
        )
        return
    events.emit(name, **fields)
