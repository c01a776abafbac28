"""TensorBoard: the numbers of a run as event files in its folder (`tensorboard --logdir store/runs`).

Only `measured` events with a `step` are shown, each number under its own name; the diary has the rest. The
package is imported when the first such event comes, since it takes a second.
"""

from __future__ import annotations

import errno
import importlib.util
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import field_validator

from penstock.contracts.learn import OWN_NAMES, Tracker
from penstock.contracts.part import mistakes
from penstock.core.errors import MissingPackage, Problem
from penstock.core.events import Event
from penstock.core.paths import below, reason, shown

_AXES = ("step", "epoch")


class Tensorboard(Tracker):
    """Event files for TensorBoard."""

    folder: str = "tensorboard"
    """Below the run's folder."""

    @field_validator("folder")
    @classmethod
    def _is_below(cls, folder: str) -> str:
        why = reason(folder)
        if why is None and folder.split("/")[0].casefold() in OWN_NAMES:
            why = "it is what the run itself keeps there"
        if why is not None:
            raise mistakes(
                Problem(
                    (),
                    f"must be a folder below the run's, such as 'tensorboard'; found {shown(folder)}: {why}",
                )
            )
        return folder

    def sink(self, folder: Path) -> Callable[[Event], None]:
        # Looked for without an import, which takes a second.
        if importlib.util.find_spec("tensorboard") is None:
            raise MissingPackage(
                "the tracker 'tensorboard' needs the package 'tensorboard', which is not installed. Install"
                " it with:  pip install 'penstock[train]', or leave the tracker out of the recipe with"
                " `trackers: []`."
            )
        return _Sink(
            below(folder, self.folder, where="the folder of the tracker 'tensorboard'")
        )


class _Sink:
    """Opens a writer for the first number; each event is on disk when the call returns, so a closed run's
    files change no more.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def __call__(self, event: Event) -> None:
        if event.name != "measured" or not isinstance(event.fields.get("step"), int):
            return
        numbers = {
            name: float(value)
            for name, value in event.fields.items()
            if name not in _AXES
            and isinstance(value, (int, float))
            # A bool is an int in Python.
            and not isinstance(value, bool)
        }
        try:
            if self._writer is None:
                self._writer = _open(self._folder)
            for name, value in numbers.items():
                if math.isfinite(value):
                    self._writer.add_scalar(
                        # TensorBoard groups names by their slashes.
                        name.replace(".", "/"),
                        value,
                        event.fields["step"],
                        walltime=event.time,
                    )
            self._writer.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # The disk is full, as the trainer reports; later numbers go to a new file.
            self._writer = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __del__(self) -> None:
        self.close()


def _open(folder: Path) -> Any:
    with warnings.catch_warnings():
        # TensorBoard imports what other packages deprecate.
        warnings.simplefilter("ignore")
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(folder))
