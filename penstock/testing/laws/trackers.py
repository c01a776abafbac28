"""The laws of trackers: `check(Tracker.load("tensorboard"))`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from penstock.contracts.learn import Tracker
from penstock.core.events import Event
from penstock.testing.laws import _learning as _

Law = Callable[[Tracker], None]


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def any_event(tracker: Tracker) -> None:
    """Any event is taken, also those it does not show: words, nothing, numbers that are not finite, no
    step.
    """
    with tempfile.TemporaryDirectory() as folder:
        sink = tracker.sink(Path(folder))
        for event in (
            Event("said", 1.0, {"text": "hello"}),
            Event(
                "progress",
                2.0,
                {"stage": "train", "done": 1, "total": None, "unit": "steps"},
            ),
            Event(
                "measured",
                3.0,
                {
                    "step": 1,
                    "epoch": 1,
                    "loss": 0.5,
                    "grad_norm": None,
                    "is_best": True,
                    "word": "x",
                    "validation.y/z.f1": 0.1,
                },
            ),
            Event("measured", 4.0, {"step": 2, "loss": float("nan"), "lr": float("inf")}),
            Event("measured", 5.0, {"loss": 0.1}),
            Event("of a room's own", 6.0),
        ):
            sink(event)


def at_once(tracker: Tracker) -> None:
    """What is told lies in the run's folder when the call returns, and changes no more: a run is sealed soon
    after.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sink = tracker.sink(folder)
        sink(Event("measured", 1.0, {"step": 1, "loss": 0.5}))
        before = _contents(folder)
        del sink
        assert _contents(folder) == before, (
            "at_once: files of the run changed after the last event was taken"
        )


def declared(tracker: Tracker) -> None:
    """Declared → loaded → declared is the identity."""
    _.declared_again("declared", tracker)


def light(tracker: Tracker) -> None:
    """The head of its file imports no torch."""
    _.light_head("light", tracker)


LAWS: tuple[Law, ...] = (any_event, at_once, declared, light)


def check(tracker: Tracker) -> None:
    """Judge one tracker by every law.

    Raises:
        AssertionError: it breaks a law.
    """
    for law in LAWS:
        law(tracker)
