"""Every metric on the shelf by the laws of metrics; and metrics that break one are told which."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from penstock.contracts.metric import Kind, Metric, Rows, Totals
from penstock.core.errors import RecipeError
from penstock.metrics import intervals, measure
from penstock.testing.laws import metrics as laws


@pytest.mark.parametrize("name", Metric.types())
def test_a_metric_by_the_laws(name: str) -> None:
    laws.check(Metric.load(name))


@pytest.mark.parametrize("options", [{"type": "ece", "bins": 3, "name": "ece_3"}])
def test_options_by_the_laws(options: dict[str, object]) -> None:
    laws.check(Metric.load(options))


class Backwards(Metric):
    """The absolute error, said to be better when it is higher."""

    kinds: ClassVar[tuple[Kind, ...]] = ("number",)

    def statistic(self, rows: Rows) -> np.ndarray:
        return np.abs(rows.answer - rows.truth)


class Narrow(Backwards):
    """The absolute error, said to be 1 at most."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 0.1)


class Position(Backwards):
    """It looks at where a row lies in its batch."""

    def statistic(self, rows: Rows) -> np.ndarray:
        return np.arange(len(rows), dtype=np.float64)


@pytest.mark.parametrize(
    ("metric", "law", "message"),
    [
        (Backwards(), laws.right_answers_are_best, "higher is better"),
        (Narrow(), laws.within_its_bounds, "does not lie between"),
        (Position(), laws.halves_merged_equal_the_whole, "pieces"),
        (Position(), laws.weights_count_rows, "by rows given again"),
    ],
)
def test_what_breaks_a_law_is_told(metric: Metric, law: laws.Law, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        law(metric, laws.specimen("number"))


class Several(Metric):
    """Of the rows answered positive, the share that is; from two statistics by name."""

    kinds: ClassVar[tuple[Kind, ...]] = ("binary",)

    def statistic(self, rows: Rows) -> dict[str, np.ndarray]:
        return {"answered": rows.predicted == 1, "right": rows.predicted * rows.truth}

    def value(self, totals: Totals) -> np.ndarray:
        return totals["right"] / totals["answered"]


def test_statistics_by_name_and_rows_that_have_none() -> None:
    given = laws.specimen("binary")
    assert measure([Several(name="p")], given.truth, given.answers)["p"] == pytest.approx(
        measure(["precision"], given.truth, given.answers)["precision"]
    )

    class Positives(Several):
        def statistic(self, rows: Rows) -> dict[str, np.ndarray]:
            return {"mean": np.where(rows.truth == 1, rows.predicted, np.nan)}

        def value(self, totals: Totals) -> np.ndarray:
            return totals["mean"]

    assert measure([Positives(name="p")], given.truth, given.answers)[
        "p"
    ] == pytest.approx(measure(["recall"], given.truth, given.answers)["recall"])
    none = np.zeros_like(given.truth)
    assert measure([Positives(name="p")], none, given.answers)["p"] is None
    nobody = {"probability": given.answers["probability"] * 0}
    assert measure([Several(name="p")], given.truth, nobody)["p"] is None


class Wide(Backwards):
    """It says two numbers a row."""

    def statistic(self, rows: Rows) -> np.ndarray:
        return np.ones((len(rows), 2))


class Silent(Metric):
    """It has no `statistic`."""

    kinds: ClassVar[tuple[Kind, ...]] = ("number",)


class Whole(Backwards):
    """It computes over all resamplings at once."""

    def value(self, totals: Totals) -> np.ndarray:
        return np.asarray(totals["mean"].mean())


def test_mistakes_of_an_author_are_told() -> None:
    given = laws.specimen("number")
    with pytest.raises(RecipeError, match=r"one number for each of 60 rows.*\[60, 2\]"):
        measure([Wide(name="wide")], given.truth, given.answers)
    with pytest.raises(RecipeError, match="has no `statistic`"):
        measure([Silent(name="silent")], given.truth, given.answers)
    with pytest.raises(RecipeError, match=r"one value for each of 200 resamplings.*\[\]"):
        intervals([Whole(name="whole")], given.truth, given.answers)
    binary = laws.specimen("binary")
    with pytest.raises(RecipeError, match="is for a number, but this target is a binary"):
        measure([Backwards(name="b")], binary.truth, binary.answers)
