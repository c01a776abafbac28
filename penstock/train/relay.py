"""Events of a training in other processes, told here.

Rank 0 appends its events to a file in the run's folder, which every launcher's processes share anyhow; the process that
started them follows the file and tells its own listeners. No sockets, no pickles.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.core.events import Events, JsonLines

_WAIT_SECONDS = 0.2


def telling(path: Path) -> Events:
    """Events that are written to `path` instead of being listened to here."""
    return Events(JsonLines(path, skip=()))


@contextmanager
def following(path: Path, events: Events) -> Iterator[None]:
    """Within this, what others tell `path` is told to `events`; at the end all of it has been, and the file is gone."""
    path.unlink(missing_ok=True)
    path.touch()
    ended = threading.Event()
    failed: list[Exception] = []
    thread = threading.Thread(target=_follow, args=(path, events, ended, failed), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)
    if failed:
        raise failed[0]  # a listener's; training went on without it


def _follow(path: Path, events: Events, ended: threading.Event, failed: list[Exception]) -> None:
    try:
        _tell_all(path, events, ended)
    except Exception as error:  # noqa: BLE001 - raised again where the training was started
        failed.append(error)


def _tell_all(path: Path, events: Events, ended: threading.Event) -> None:
    with open(path, encoding="utf-8") as file:
        rest = ""
        while True:
            last = ended.wait(_WAIT_SECONDS)
            rest += file.read()
            *lines, rest = rest.split("\n")
            for line in lines:
                fields = json.loads(line)
                fields.pop("time")
                events.emit(fields.pop("event"), **fields)
            if last:
                return
