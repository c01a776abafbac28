"""Naive forecasts that a model must beat: the last value repeated, and the last season
repeated.

Both read the very window that the model reads, so they are there where an input holds the target's variables
by name (or where both have only one).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.contracts.features import collated
from penstock.contracts.tensors import TensorSpec
from penstock.encode.encoding import Encoding


@dataclass
class Naive:
    """A naive forecast of one target, used as `Trivial` is."""

    encoding: Encoding
    source: str
    """The input whose window it reads."""
    places: list[int]
    """Which of the input's variables the target's are."""
    horizon: int
    season: int
    """1: the last value is repeated."""

    @property
    def text(self) -> str:
        """Describe the forecast in words."""
        return (
            "the naive repeat (the last value, for ever)"
            if self.season == 1
            else f"the seasonal naive forecast (the last {self.season} steps, for ever)"
        )

    def answers(
        self, truth: np.ndarray, columns: Mapping[str, pa.Array]
    ) -> dict[str, np.ndarray]:
        """Forecast `values [rows, H, V]` in the user's units.

        Args:
            truth: is not looked at.
            columns: the rows' canonical columns by feature.
        """
        known = self.known(columns)
        # The last season's steps, over and over until the horizon is full.
        steps = known.shape[1] - self.season + np.arange(self.horizon) % self.season
        return {"values": known[:, steps]}

    def known(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        """Return the windows of the target's variables in the user's units, float64 `[rows, W, V]`."""
        feature, fitted = (
            self.encoding.inputs[self.source],
            self.encoding.fitted[self.source],
        )
        facts = feature.spec(fitted)["values"].facts
        batch = collated(feature, feature.encode(columns[self.source], fitted), fitted)
        # What stands behind the window lies in the future.
        values = batch["values"][:, : int(facts["window"]), self.places]
        # Back from deviations to the user's units.
        known: np.ndarray = (
            values.astype(np.float64) * np.array(facts["std"])[self.places]
            + np.array(facts["mean"])[self.places]
        )
        return known


def naive_forecast(
    encoding: Encoding, target: str, *, seasonal: bool = False
) -> Naive | None:
    """Make the naive forecast of a target; None if it is no series, no input holds its
    variables, or (seasonal) no window holds a whole season.
    """
    wanted = series_of(encoding.targets[target].spec(encoding.fitted[target]))
    if wanted is None:
        return None
    names = list(wanted.facts["variables"])
    for name, feature in encoding.inputs.items():
        spec = series_of(feature.spec(encoding.fitted[name]))
        # An input without a window knows no past to repeat.
        if spec is None or not spec.facts["window"]:
            continue
        known = list(spec.facts["variables"])
        places = (
            [0]
            if len(names) == len(known) == 1
            else [known.index(n) for n in names if n in known]
        )
        season = int(wanted.facts["season"]) if seasonal else 1
        if len(places) == len(names) and (
            not seasonal or 1 < season <= spec.facts["window"]
        ):
            return Naive(encoding, name, places, int(wanted.shape[0] or 0), season)
    return None


def series_of(spec: Mapping[str, TensorSpec]) -> TensorSpec | None:
    """Return the array `values` of a series; None if it is no series."""
    values: Any = spec.get("values")
    return values if values is not None and values.axes == ("time", "variable") else None
