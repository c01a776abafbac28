"""Confidence intervals by resampling rows (Efron 1979), all resamplings at once.

Each resampling gives every row a Poisson(1) count (Hanley and MacGibbon 2006), which for more than a few
dozen rows is the multinomial bootstrap without its bookkeeping. Every measure is then a matrix product of
counts `[R, N]` with per-row statistics `[N]`. Rankings are sorted once: a resampling changes weights, never
the order.

A resampling repeats some rows and lacks others, which shifts a few measures as a whole (a calibration error
grows, a mean over classes loses the rare ones); so an interval is moved until its median is the value
measured, and never beyond the values that the measure can have (Efron 1981, the bias-corrected percentile, in
its simplest form).

Beyond `ROWS` rows (or a bound on work for many classes) a sample of the rows is resampled and the spread
shrunk by √(sample / rows): the m-out-of-n bootstrap, whose spread falls as 1/√m (Bickel, Götze and van Zwet
1997).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from penstock.core.identity import derive_seed
from penstock.metrics.exact import precision_area, roc_area, ties
from penstock.metrics.forecast import Forecasting
from penstock.metrics.measure import class_scores, measure
from penstock.metrics.names import METRICS, chosen, kind_of
from penstock.metrics.rows import BINS, ROW_MEANS, Rows, Scale, Threshold, prepare
from penstock.metrics.texts import COUNTS, bleu

ROWS = 200_000
_CHUNK = 1 << 22
_WORK = 600_000_000
_POISSON = np.repeat(
    np.arange(9),
    np.round(
        65536 * np.diff(np.concatenate([[0], np.cumsum(np.exp(-1) / np.cumprod([1, *range(1, 8)])), [1]]))
    ).astype(int),
)
"""The counts 0–8 as often among 2^16 as Poisson(1) has them: a draw is one look-up."""


def resampled(
    names: Sequence[str],
    truth: np.ndarray,
    answers: Mapping[str, np.ndarray],
    weight: np.ndarray | None = None,
    *,
    resamples: int,
    seed: int,
    threshold: Threshold = 0.5,
    scale: Scale = None,
) -> dict[str, np.ndarray]:
    """Each scalar measure over `resamples` resamplings `[R]`; not a number where one is undefined.

    Two models judged on the same rows with one seed meet the same resamplings, so their difference is a
    paired one.
    """
    names = [n for n in chosen(names, kind_of(answers, truth)) if METRICS[n].scalar]
    rows = prepare(truth, answers, weight, threshold=threshold, scale=scale)
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    if rows.broken or not len(rows.truth) or not resamples:
        return {name: np.full(resamples, np.nan) for name in names}
    judges = _judges(rows, set(names), scale)
    for counts in _counts(rows.resampled, resamples, seed):
        weights = rows.spread(counts) * rows.weight
        for judge in judges:
            for name, values in judge(weights).items():
                if name in found:
                    found[name].append(values)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def intervals(
    names: Sequence[str],
    truth: np.ndarray,
    answers: Mapping[str, np.ndarray],
    weight: np.ndarray | None = None,
    resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
    *,
    threshold: Threshold = 0.5,
    scale: Scale = None,
    whole: Mapping[str, Any] | None = None,
    population: int | None = None,
) -> dict[str, list[float] | None]:
    """A percentile interval `[low, high]` of each scalar measure; None where it is undefined.

    Args:
        names: metrics; those that are lists are left out.
        truth, answers, weight: as for `measure`.
        resamples: how many resamplings; with 0 every interval is None.
        confidence: the share of resamplings that lie inside.
        seed: equal seeds and rows give equal intervals.
        whole, population: where the rows given are a sample of more: the measures over all of them, and how
            many they are.
    """
    kind = kind_of(answers, truth)
    names = [n for n in chosen(names, kind) if METRICS[n].scalar]
    population = len(truth) if population is None else population
    width = (
        int(np.prod(answers["probabilities"].shape[1:]))
        if "probabilities" in answers
        and (kind in ("set", "sequence") or {"roc_auc", "average_precision"} & set(names))
        else 1
    )
    most = max(min(ROWS, _WORK // max(resamples * width, 1)), 1_000)
    if len(truth) > most:
        if whole is None:
            whole = measure(names, truth, answers, weight, threshold=threshold, scale=scale)
        pick = np.sort(
            np.random.default_rng(derive_seed(seed, "interval rows")).choice(len(truth), most, replace=False)
        )
        truth, answers = truth[pick], {name: values[pick] for name, values in answers.items()}
        weight = None if weight is None else weight[pick]
    draws = resampled(
        names, truth, answers, weight, resamples=resamples, seed=seed, threshold=threshold, scale=scale
    )
    at = measure(names, truth, answers, weight, threshold=threshold, scale=scale)
    shrink = min((len(truth) / population) ** 0.5, 1.0) if population else 1.0
    found: dict[str, list[float] | None] = {}
    for name in names:
        interval = percentiles(draws[name], confidence)
        centre = (whole or {}).get(name)
        centre = at[name] if centre is None else centre
        if interval is None or centre is None:
            found[name] = None
            continue
        middle = float(np.nanmedian(draws[name]))
        least, most_of_it = METRICS[name].bounds
        found[name] = [
            float(np.clip(centre + (edge - middle) * shrink, least, most_of_it)) for edge in interval
        ]
    return found


def percentiles(draws: np.ndarray, confidence: float) -> list[float] | None:
    """The interval that holds `confidence` of the draws; None if fewer than half of them are defined."""
    defined = draws[np.isfinite(draws)]
    if len(defined) < max(len(draws) / 2, 1):
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return [float(low), float(high)]


def _counts(rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Counts `[r, N]` as float64, a few resamplings at a time."""
    chance = np.random.default_rng(derive_seed(seed, "bootstrap"))
    table = _POISSON.astype(np.float64)
    step = max(1, _CHUNK // rows)
    for start in range(0, resamples, step):
        draws = chance.integers(0, len(table), (min(step, resamples - start), rows), dtype=np.uint16)
        yield table[draws]


def _judges(rows: Rows, names: set[str], scale: Scale) -> list[Any]:
    """Functions from weights `[r, N]` to measures `[r]`, each prepared once."""
    judges: list[Any] = []
    if rows.kind == "number":
        return [_numbers(rows, None if isinstance(scale, Forecasting) else scale)]
    statistics = [n for n in ROW_MEANS if n in names]
    if statistics:
        table = np.stack([rows.statistic(n) for n in statistics], axis=1)
        judges.append(
            lambda w: dict(zip(statistics, _divide(w @ table, w.sum(axis=1)[:, None]).T, strict=True))
        )
    if "bleu" in names:
        counts = np.stack([rows.statistic(n) for n in COUNTS], axis=1)
        judges.append(
            lambda w: {
                "bleu": np.array([np.nan if (found := bleu(sums)) is None else found for sums in w @ counts])
            }
        )
    if "ece" in names:
        bins, gap = rows.calibration()
        spread = np.zeros((len(bins), BINS))
        spread[np.arange(len(bins)), bins] = gap
        judges.append(lambda w: {"ece": _divide(np.abs(w @ spread).sum(axis=1), w.sum(axis=1))})
    if names & {"precision", "recall"} or any(n.startswith("f1") for n in names):
        judges.append(_by_class(rows))
    if names & {"roc_auc", "average_precision"}:
        judges.append(_ranking(rows, names))
    return judges


def _numbers(rows: Rows, scale: float | None) -> Any:
    centred = rows.truth - np.average(rows.truth, weights=rows.weight)
    relative, defined = rows.relative_error()
    with np.errstate(over="ignore"):
        error = rows.error()
        table = np.stack(
            [error**2, np.abs(error), centred, centred**2, np.where(defined, relative, 0), defined], axis=1
        )

    def judge(w: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(over="ignore", invalid="ignore"):
            squared, absolute, first, second, share, there = (w @ table).T
            total = w.sum(axis=1)
            mse = _divide(squared, total)
            variance = _divide(second, total) - _divide(first, total) ** 2
            variance = np.where(variance > 0, variance, 0)
            return {
                "mse": mse,
                "rmse": np.sqrt(mse),
                "mae": _divide(absolute, total),
                "mape": _divide(share, there),
                "r2": 1 - _divide(mse, variance),
                "mse_standardised": _divide(mse, variance if scale is None else np.full_like(mse, scale**2)),
            }

    return judge


def _by_class(rows: Rows) -> Any:
    hits = rows.hits()

    def judge(w: np.ndarray) -> dict[str, np.ndarray]:
        return class_scores(
            *(
                np.stack([np.bincount(label, weights=one[row], minlength=rows.classes) for one in w])
                for row, label in hits
            )
        )

    return judge


def _ranking(rows: Rows, names: set[str]) -> Any:
    curves = []
    for score, positive in rows.ranked():
        order = np.argsort(score, kind="stable")
        curves.append((order, ties(score[order]), positive[order]))

    def judge(w: np.ndarray) -> dict[str, np.ndarray]:
        areas: dict[str, list[np.ndarray]] = {"roc_auc": [], "average_precision": []}
        for order, starts, positive in curves:
            sorted_weights = w[:, order]
            of_positive = sorted_weights * positive
            of_negative = sorted_weights - of_positive
            if len(starts) < len(order):
                of_positive, of_negative = (
                    np.add.reduceat(of_positive, starts, axis=1),
                    np.add.reduceat(of_negative, starts, axis=1),
                )
            if "roc_auc" in names:
                areas["roc_auc"].append(roc_area(of_positive, of_negative))
            if "average_precision" in names:
                areas["average_precision"].append(precision_area(of_positive, of_negative))
        return {name: _mean_defined(values) for name, values in areas.items() if values}

    return judge


def _mean_defined(values: list[np.ndarray]) -> np.ndarray:
    table = np.stack(values)
    there = ~np.isnan(table)
    return _divide(np.where(there, table, 0).sum(axis=0), there.sum(axis=0))


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)
