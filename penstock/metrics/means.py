"""The mean of a metric's statistic over rows: how most metrics are added up, and how
all of them share it.

Sums are exact (`exact.Cells`), so the order of rows and how they were cut changes no digit. A row of which a
metric says nothing (not a number) has no weight in that metric's mean.

Metrics of the user's own come through here, so their errors are told here, with the line that made them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np

from penstock.contracts.metric import Accumulator, Kind, Metric, Rows, Statistic, Totals
from penstock.core.errors import PenstockError, RecipeError
from penstock.metrics.exact import Cells

_LARGEST = float(np.finfo(np.float64).max) / 4
"""What is beyond a double is counted as this, so that sums stay finite."""
_WEIGHT = 0
"""The cell of all rows' weight. Column i has its sum in cell 2i + 1, and in 2i + 2 the weight of the rows it
lacks.
"""


@dataclass(frozen=True)
class Means(Statistic):
    """The weighted means of the statistics of some metrics, in one table."""

    metrics: tuple[Metric, ...]

    def together(self, other: Statistic) -> Statistic | None:
        return (
            Means((*self.metrics, *other.metrics)) if isinstance(other, Means) else None
        )

    def accumulator(self) -> Accumulator:
        return _Sums(self)

    def columns(self, rows: Rows) -> dict[str, np.ndarray]:
        """Compute each statistic of the rows by `<title>/<name>`, float64 `[N]`."""
        return {
            f"{metric.title}/{name}": values
            for metric in self.metrics
            for name, values in columns_of(metric, rows).items()
        }

    def resampler(self, rows: Rows) -> Callable[[np.ndarray], Totals]:
        columns = self.columns(rows)
        names = list(columns)
        table = np.stack(list(columns.values()), axis=1)
        del columns  # the table has them
        missing = np.isnan(table)
        # Only columns that lack some rows need divisors of their own.
        lacking = [i for i in range(table.shape[1]) if missing[:, i].any()]
        # As floats, since they are multiplied with weights.
        absent = missing[:, lacking].astype(np.float64)
        if lacking:
            table = np.where(missing, 0.0, table)

        def totals(weights: np.ndarray) -> Totals:
            below = np.repeat(weights.sum(axis=1)[:, None], len(names), axis=1)
            if lacking:
                below[:, lacking] -= weights @ absent
            return dict(zip(names, divide(weights @ table, below).T, strict=True))

        return totals


class _Sums(Accumulator):
    """Exact sums of every column of some `Means`."""

    def __init__(self, means: Means) -> None:
        self.means = means
        self.cells = Cells()
        self.names: tuple[str, ...] = ()

    def update(self, rows: Rows) -> None:
        if not len(rows):
            return
        columns = self.means.columns(rows)
        if self.names and self.names != tuple(columns):
            raise RecipeError(
                f"a metric must name the same statistics of all rows: first {', '.join(self.names)}, then"
                f" {', '.join(columns)}"
            )
        self.names = tuple(columns)
        self.cells.add(_WEIGHT, rows.weight)
        for i, values in enumerate(columns.values()):
            missing = np.isnan(values)
            if missing.any():
                self.cells.add(2 * i + 2, rows.weight[missing])
                values = np.where(missing, 0.0, values)
            # A product beyond a double is infinite, and exact sums take finite doubles
            # only.
            with np.errstate(over="ignore"):
                weighted = rows.weight * values
            self.cells.add(2 * i + 1, np.clip(weighted, -_LARGEST, _LARGEST))

    def merge(self, other: Self) -> None:
        self.cells.merge(other.cells)
        self.names = self.names or other.names

    def totals(self) -> Totals:
        whole = self.cells.fraction(_WEIGHT)
        return {
            name: np.array(
                [
                    ratio(
                        self.cells.fraction(2 * i + 1),
                        whole - self.cells.fraction(2 * i + 2),
                    )
                ]
            )
            for i, name in enumerate(self.names)
        }


def grouped(
    metrics: Sequence[Metric], kind: Kind
) -> list[tuple[Statistic, list[Metric]]]:
    """Group metrics by the statistic that they follow from, so that each is added up
    once.
    """
    groups: list[tuple[Statistic, list[Metric]]] = []
    for metric in metrics:
        own = metric.sums(kind) or Means((metric,))
        for i, (statistic, members) in enumerate(groups):
            if (both := statistic.together(own)) is not None:
                groups[i] = both, [*members, metric]
                break
        else:
            # No group adds up alike.
            groups.append((own, [metric]))
    return groups


def totals_of(metric: Metric, statistic: Statistic, totals: Totals) -> Totals:
    """Pick those of a statistic's totals that belong to the metric."""
    if not isinstance(statistic, Means):
        return totals
    beginning = f"{metric.title}/"
    return {
        name.removeprefix(beginning): values
        for name, values in totals.items()
        if name.startswith(beginning)
    }


def columns_of(metric: Metric, rows: Rows) -> dict[str, np.ndarray]:
    """Compute a metric's statistics of each row, by name, float64 `[N]`.

    Raises:
        RecipeError: its code fails, or says something else than one number a row.
    """
    with blaming(metric, f"on {len(rows):,} rows of a {rows.kind}"):
        statistics = metric.statistic(rows)
        named: Mapping[str, np.ndarray] = (
            statistics if isinstance(statistics, Mapping) else {"mean": statistics}
        )
        columns = {name: np.asarray(values, np.float64) for name, values in named.items()}
    for name, values in columns.items():
        if values.shape != (len(rows),):
            raise RecipeError(
                f"the metric {metric.title!r} must give one number for each of {len(rows)}"
                f" rows: its `statistic` gave an array {list(values.shape)} ({name!r})"
            )
    return columns


@contextmanager
def blaming(metric: Metric, where: str) -> Iterator[None]:
    """Context in which an error in a metric of the user's own becomes a RecipeError
    with its line.

    Raises:
        RecipeError: the metric failed. What comes with Penstock fails as it is, for it is a defect of ours.
    """
    try:
        yield
    except PenstockError:
        raise
    except Exception as error:
        # A dotted type is a module of the user's; Penstock's own types have no dot.
        if "." not in metric.type:
            raise
        # The innermost frame has the line that failed.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise RecipeError(
            f"the metric {metric.title!r} failed {where}: {type(error).__name__}: {error}\n"
            f"{frame.filename}:{frame.lineno}, in {frame.name}:\n    {frame.line}"
        ) from error


def ratio(above: Fraction, below: Fraction) -> float:
    """Divide exactly and round once; NaN without a divisor."""
    return float(above / below) if below else float("nan")


def divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Divide arrays; NaN where the divisor is not above 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(below > 0, above / below, np.nan)
