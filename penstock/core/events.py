"""What happens, as records: one stream of events that the console, a run's diary and trackers all listen to.

Rooms `emit`; they never print. A sink is any callable that takes an `Event`. Credentials are blanked here,
before any sink hears of them.
"""

from __future__ import annotations

import errno
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.core.redact import redacted, redacted_data

Sink = Callable[["Event"], None]


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    name: str
    """`stage_started`, `stage_ended`, `stage_skipped`, `progress`, `said`, `warned`, `measured`, or a room's
    own word.
    """
    time: float
    """Seconds since 1970."""
    fields: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """As one line of JSON."""
        fields = {"time": round(self.time, 3), "event": self.name, **self.fields}
        return json.dumps(
            # What JSON lacks becomes text only here, so it is redacted here as well.
            fields,
            default=lambda value: redacted(str(value)),
            ensure_ascii=False,
        )


class Events:
    """Hands each event to every sink, in order."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = list(sinks)

    def attach(self, sink: Sink) -> None:
        """Send every later event to `sink` as well."""
        self._sinks.append(sink)

    def detach(self, sink: Sink) -> None:
        """Send no more events to `sink`. Raises ValueError where it is not attached."""
        self._sinks.remove(sink)

    def emit(self, name: str, /, **fields: Any) -> None:
        """Send an event with the time of now to every sink, in the order in which they came.

        Credentials in `fields` are blanked first. What a sink raises is raised here.
        """
        # Once for all sinks, before any of them can write it down.
        event = Event(name, time.time(), redacted_data(fields))
        for sink in self._sinks:
            sink(event)

    def say(self, text: str, **fields: Any) -> None:
        """A choice made for the user, or a fact they should know."""
        self.emit("said", text=text, **fields)

    def warn(self, text: str, **fields: Any) -> None:
        """Something the user should look at; nothing is lost."""
        self.emit("warned", text=text, **fields)

    def progress(
        self, stage: str, done: float, total: float | None, unit: str, **fields: Any
    ) -> None:
        """`done` of `total` `unit` of `stage`; a sink may thin these out."""
        self.emit("progress", stage=stage, done=done, total=total, unit=unit, **fields)

    @contextmanager
    def stage(self, name: str, **fields: Any) -> Iterator[None]:
        """Brackets a stage with `stage_started` and `stage_ended` (with `seconds` and `ok`)."""
        self.emit("stage_started", stage=name, **fields)
        start = time.perf_counter()
        ok = False
        try:
            yield
            ok = True
        finally:
            # Also after an error, or a console would show a stage that never ends.
            self.emit(
                "stage_ended",
                stage=name,
                seconds=round(time.perf_counter() - start, 3),
                ok=ok,
            )


class JsonLines:
    """A sink that appends each event to a file, one line of JSON, flushed at once (a diary survives a kill).

    On a full disk lines wait for the next event (the last 10,000 of them): what the diary tells of goes on.
    """

    def __init__(self, path: Path, *, skip: tuple[str, ...] = ("progress",)) -> None:
        self._path = path
        self._skip = skip
        self._waiting: deque[str] = deque(maxlen=10_000)

    def __call__(self, event: Event) -> None:
        # Progress comes many times a second, and tells nothing after the run.
        if event.name in self._skip:
            return
        self._waiting.append(event.line() + "\n")
        try:
            # Opened anew each time: no handle goes stale when the folder is renewed,
            # and none crosses a fork.
            with open(self._path, "a", encoding="utf-8") as file:
                file.write("".join(self._waiting))
        except OSError as error:
            # A full disk passes, perhaps; any other refusal is told at once.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        else:
            self._waiting.clear()
