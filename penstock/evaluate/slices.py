"""Finds where the model is weak: metrics by the values of declared columns, and the
worst slices of all columns.

The search (after Slice Finder: Chung et al. 2019, arXiv:1807.06068) goes over single columns (categories by
value, numbers by quartile, timestamps by quartile, missing values apart) and over pairs of the eight most
telling columns. A slice is reported if it has at least 50 rows and 1 % of them, is worse than the rest by
Welch's test at 1 % after Bonferroni's correction for all slices looked at, and, for a pair, is clearly worse
than each of its halves. Of slices that are mostly the same rows one is told.

What is averaged a row: whether it was answered right; for a rare positive class (under 10 %) its log loss,
since accuracy is then blind; for numbers the absolute error; for sets the label ranking average precision;
for sequences the share of steps answered right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.summary import interpolated
from penstock.evaluate.answers import Judged
from penstock.metrics import better, known, measure
from penstock.metrics.rows import prepare

LEAST_ROWS = 50
LEAST_SHARE = 0.01
SIGNIFICANCE = 0.01
WORST = 5
"""Of single columns, and of pairs."""
ALIKE = 0.5
"""Two slices that share this much of their rows (Jaccard) are told as one."""
NAMED = 8
"""Values of a declared column that are shown by name."""
_VALUES = 60
"""Of one column: the commonest are looked at."""
PRIMARY = {
    "binary": "roc_auc",
    "category": "accuracy",
    "number": "mae",
    "set": "label_ranking_average_precision",
    "sequence": "accuracy",
    "series": "mae_standardised",
    "text": "rouge_l",
}


@dataclass
class Groups:
    """A column cut into groups."""

    column: str
    code: np.ndarray
    """int64 `[N]`; -1 belongs to none."""
    labels: list[str]


def declared_slices(
    judged: Judged, target: str, columns: Iterable[str]
) -> list[dict[str, Any]]:
    """Measure each value of each declared column: the eight commonest and all others
    together; numbers with more values by quartile.
    """
    kind = judged.kinds[target]
    slices: list[dict[str, Any]] = []
    metric = PRIMARY[kind]
    metrics = [metric for metric in judged.metrics_of(target) if metric.scalar]
    truth, answers = judged.truth[target], judged.answers[target]

    def scores(mask: np.ndarray) -> dict[str, Any]:
        return measure(
            metrics,
            truth[mask],
            {k: v[mask] for k, v in answers.items()},
            None if judged.weight is None else judged.weight[mask],
            threshold=judged.thresholds[target],
            scale=judged.scales.get(target),
        )

    whole = scores(np.ones(len(truth), bool))[metric]
    for column in columns:
        groups = cut(column, judged.extra[column], most=NAMED, quartiles_above=NAMED)
        if groups is None:
            continue
        # Rows of values that are not shown by name form a group, so that the slices
        # cover all rows.
        if (groups.code < 0).any():
            groups = Groups(
                column,
                np.where(groups.code < 0, len(groups.labels), groups.code),
                [*groups.labels, "all others"],
            )
        for i, label in enumerate(groups.labels):
            mask = groups.code == i
            values = scores(mask)
            slices.append(
                {
                    "target": target,
                    "column": column,
                    "value": label,
                    "rows": int(mask.sum()),
                    "metric": metric,
                    "value_of_metric": values[metric],
                    "whole": whole,
                    "declared": True,
                    "metrics": values,
                }
            )
    return slices


def worst_slices(judged: Judged, target: str) -> list[dict[str, Any]]:
    """Find the slices on which the model is worse than on the rest beyond chance, worst
    first.
    """
    if judged.kinds[target] == "series":
        # Neighbouring windows overlap: tests that take rows for independent would find slices that are none.
        return []
    metric, value = _row_statistic(judged, target)
    sign = 1.0 if better(metric) == "higher" else -1.0
    weight = np.ones(len(value)) if judged.weight is None else judged.weight
    least = max(LEAST_ROWS, math.ceil(LEAST_SHARE * len(value)))
    # A slice and the rest of the rows must both be large enough for a test.
    if len(value) < 2 * least or weight.sum() <= 0:
        return []
    whole = float((value * weight).sum() / weight.sum())
    # Where an input has a raw column's name, the values that the model reads are looked
    # at.
    columns = {
        **judged.columns,
        **{c: a for c, a in judged.extra.items() if c not in judged.columns},
    }
    cuts = [
        g
        for g in (cut(name, column) for name, column in columns.items())
        if g is not None
    ]
    singles = [_tests(g, value, weight, sign, least) for g in cuts]
    # Pairs of columns with many groups would leave most pairs too few rows.
    telling = sorted(
        (t for t in singles if len(t.groups.labels) <= 16),
        key=lambda t: -float(np.nanmax(t.gap, initial=-np.inf)),
    )[:8]
    pairs = [_pair(a, b, value, weight, sign, least) for a, b in combinations(telling, 2)]
    # Bonferroni counts every group that had rows enough for a test, significant or not.
    tested = sum(int(np.isfinite(t.gap).sum()) for t in [*singles, *pairs])
    slices = []
    masks: list[np.ndarray] = []
    # Singles first: of two slices of nearly the same rows, the simpler explains more.
    for tests in (singles, pairs):
        for test, i in _most_telling(tests, tested, masks):
            slices.append(
                {
                    "target": target,
                    "column": test.groups.column,
                    "value": test.groups.labels[i],
                    "rows": int(test.rows[i]),
                    "metric": metric,
                    "value_of_metric": float(test.mean[i]),
                    "whole": whole,
                    "declared": False,
                    "chance": min(float(test.chance[i]) * tested, 1.0),
                }
            )
    return sorted(slices, key=lambda s: -sign * (whole - s["value_of_metric"]))


def _pair(
    a: Tests, b: Tests, value: np.ndarray, weight: np.ndarray, sign: float, least: int
) -> Tests:
    """Test the groups of two columns together; only those clearly worse than each of
    their halves keep a gap.
    """
    x, y = a.groups, b.groups
    # One code for each pair of groups; a row outside of either belongs to no pair.
    code = np.where((x.code >= 0) & (y.code >= 0), x.code * len(y.labels) + y.code, -1)
    labels = [f"{i} × {j}" for i in x.labels for j in y.labels]
    both = _tests(
        Groups(f"{x.column} × {y.column}", code, labels), value, weight, sign, least
    )
    # A half with too few rows has no gap, and so sets no bar.
    halves = np.fmax(
        np.repeat(np.nan_to_num(a.gap), len(y.labels)),
        np.tile(np.nan_to_num(b.gap), len(x.labels)),
    )
    # A pair that is not a fifth worse than each of its halves is explained by the half
    # alone.
    both.gap = np.where(both.gap > 1.2 * halves, both.gap, np.nan)
    return both


def _most_telling(
    tests: list[Tests], tested: int, masks: list[np.ndarray]
) -> list[tuple[Tests, int]]:
    """Pick at most WORST significant groups, largest gap first; none that has mostly
    the rows of an earlier one. Their rows are added to `masks`.
    """
    candidates = sorted(
        (
            (-float(test.gap[i]), n, int(i))
            for n, test in enumerate(tests)
            for i in np.flatnonzero(test.gap > 0)
            if test.chance[i] * tested < SIGNIFICANCE
        )
    )
    taken: list[tuple[Tests, int]] = []
    for _, n, i in candidates:
        mask = tests[n].groups.code == i
        if len(taken) == WORST:
            break
        # Jaccard's similarity below ALIKE, written without a division.
        if all((mask & other).sum() < ALIKE * (mask | other).sum() for other in masks):
            masks.append(mask)
            taken.append((tests[n], i))
    return taken


def _row_statistic(judged: Judged, target: str) -> tuple[str, np.ndarray]:
    rows = prepare(
        judged.truth[target],
        judged.answers[target],
        None,
        threshold=judged.thresholds[target],
    )
    if rows.kind == "number":
        return "mae", np.abs(rows.answer - rows.truth)
    # The mean over a row's steps; a row without any counts as the mean of all steps.
    if rows.owner is not None:
        steps = np.bincount(rows.owner, minlength=rows.owners)
        right = np.bincount(rows.owner, weights=rows.correct(), minlength=rows.owners)
        return "accuracy", np.where(
            steps > 0,
            right / np.maximum(steps, 1),
            rows.correct().mean() if len(rows) else 0.0,
        )
    name = PRIMARY[rows.kind]
    if rows.kind == "binary":
        # Where nearly all rows are of one class, accuracy hardly moves.
        is_rare = min(rows.truth.mean(), 1 - rows.truth.mean()) < 0.1
        name = "log_loss" if is_rare else "accuracy"
    return name, np.asarray(known()[name].statistic(rows))


@dataclass
class Tests:
    """Test results of each group `[G]` of a column."""

    groups: Groups
    gap: np.ndarray
    """How far below the whole; NaN where there are too few rows."""
    mean: np.ndarray
    rows: np.ndarray
    chance: np.ndarray
    """Of such a gap to the rest, if there were none (one-sided Welch)."""


def _tests(
    groups: Groups, value: np.ndarray, weight: np.ndarray, sign: float, least: int
) -> Tests:
    inside = groups.code >= 0
    code, size = groups.code[inside], len(groups.labels)
    rows = np.bincount(code, minlength=size).astype(np.float64)
    total, first, second = (
        np.bincount(code, weights=x[inside], minlength=size)
        for x in (weight, weight * value, weight * value**2)
    )
    all_total, all_first, all_second = (
        weight.sum(),
        (weight * value).sum(),
        (weight * value**2).sum(),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, rest_mean = first / total, (all_first - first) / (all_total - total)
        # The squared standard error of each mean.
        spread = np.maximum(second / total - mean**2, 0) / np.maximum(rows - 1, 1)
        rest_spread = np.maximum(
            (all_second - second) / (all_total - total) - rest_mean**2, 0
        ) / np.maximum(len(value) - rows - 1, 1)
        # A floor under the spread: a slice that is all right or all wrong is not infinitely certain.
        score = (
            sign
            * (rest_mean - mean)
            / np.sqrt(
                spread
                + rest_spread
                + (all_second / all_total - (all_first / all_total) ** 2)
                / np.maximum(rows, 1) ** 2
                # A statistic that is the same everywhere then scores 0 instead of NaN.
                + 1e-300
            )
        )
        gap = sign * (all_first / all_total - mean)
    enough = (rows >= least) & (len(value) - rows >= least)
    # The normal tail stands in for Student's t, since both sides have LEAST_ROWS rows.
    chance = np.array(
        [0.5 * math.erfc(s / math.sqrt(2)) if math.isfinite(s) else 1.0 for s in score]
    )
    return Tests(groups, np.where(enough, gap, np.nan), mean, rows, chance)


def cut(
    name: str, column: pa.Array, *, most: int = _VALUES, quartiles_above: int = 8
) -> Groups | None:
    """Cut a column into groups; None for lists and bytes, and for a column with one
    value only.
    """
    kind = column.type
    if pa.types.is_temporal(kind) and (
        pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    ):
        moments = pc.cast(column, pa.timestamp("us", tz=getattr(kind, "tz", None)))
        values = np.asarray(
            pc.fill_null(
                pc.cast(pc.cast(moments, pa.int64()), pa.float64()), float("nan")
            )
        )
        return _quartiles(
            name,
            values,
            lambda v: str(np.datetime64(int(v), "us").astype("datetime64[m]")),
        )
    if pa.types.is_decimal(kind):
        column = pc.cast(column, pa.float64())
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        values = np.asarray(
            # Quartiles need no more digits than a double has; a safe cast refuses large
            # integers.
            pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan"))
        )
        if len(np.unique(values[np.isfinite(values)])) > quartiles_above:
            return _quartiles(name, values, lambda v: f"{v:.4g}")
        # Few different numbers are told by value.
        column = pc.cast(column, pa.string())
    elif pa.types.is_boolean(kind):
        column = pc.cast(column, pa.string())
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    # Equally common values go by name, so that groups do not depend on the order of
    # rows.
    counts = sorted(
        ((e["counts"], e["values"]) for e in pc.value_counts(column).to_pylist()),
        key=lambda e: (-e[0], e[1] or ""),
    )[:most]
    if len(counts) < 2:
        return None
    labels = [value for _, value in counts]
    codes = np.full(len(column), -1, np.int64)
    index = pc.fill_null(
        pc.index_in(
            column, value_set=pa.array([v for v in labels if v is not None], column.type)
        ),
        -1,
    )
    # `index_in` leaves null out, so its places are mapped back to those among the
    # labels.
    position = np.array([i for i, v in enumerate(labels) if v is not None], np.int64)
    index = np.asarray(index, np.int64)
    codes[index >= 0] = position[index[index >= 0]]
    if None in labels:
        codes[np.asarray(column.is_null())] = labels.index(None)
    return Groups(name, codes, ["missing" if v is None else str(v)[:60] for v in labels])


def _quartiles(name: str, values: np.ndarray, shown: Any) -> Groups | None:
    there = np.isfinite(values)
    if not there.any():
        return None
    edges = np.unique(interpolated(values[there], np.array([0.25, 0.5, 0.75])))
    # An edge at the greatest value would leave the group above it empty.
    edges = edges[edges < values[there].max()]
    # A value on an edge belongs to the group below it; NaN becomes the last group.
    code = np.where(
        there, np.searchsorted(edges, values, side="left"), len(edges) + 1
    ).astype(np.int64)
    if not len(edges) and there.all():
        return None
    labels = (
        [
            f"up to {shown(edges[0])}",
            *(f"{shown(a)} to {shown(b)}" for a, b in pairwise(edges)),
            f"above {shown(edges[-1])}",
        ]
        if len(edges)
        else [f"{shown(values[there][0])}"]
    )
    return (
        Groups(name, code, [*labels, "missing"])
        if not there.all()
        else Groups(name, code, labels)
    )
