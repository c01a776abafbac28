"""Confidence intervals by resampling rows (Efron 1979), all resamplings at once.

Each resampling gives every row a Poisson(1) count (Hanley and MacGibbon 2006), which for more than a few
dozen rows is the multinomial bootstrap without its bookkeeping. Most metrics are then a matrix product of
counts `[R, N]` with per-row statistics `[N]`; the others' `Statistic` says what follows from weights.
Rankings are sorted once: a resampling changes weights, never the order.

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

from penstock.contracts.metric import Kind, Metric, Scale, Threshold, Totals
from penstock.core.errors import RecipeError
from penstock.core.identity import derive_seed
from penstock.metrics.means import Means, blaming, grouped, totals_of
from penstock.metrics.measure import measure
from penstock.metrics.names import Named, chosen, kind_of
from penstock.metrics.rows import prepare

ROWS = 200_000
_CHUNK = 1 << 22
_WORK = 600_000_000
_POISSON = np.repeat(
    np.arange(9),
    np.round(
        65536
        * np.diff(
            np.concatenate(
                [[0], np.cumsum(np.exp(-1) / np.cumprod([1, *range(1, 8)])), [1]]
            )
        )
    ).astype(int),
)
"""The counts 0–8 as often among 2^16 as Poisson(1) has them: a draw is one look-up."""


def resampled(
    names: Sequence[Named],
    truth: np.ndarray,
    answers: Mapping[str, np.ndarray],
    weight: np.ndarray | None = None,
    *,
    resamples: int,
    seed: int,
    threshold: Threshold = 0.5,
    scale: Scale = None,
) -> dict[str, np.ndarray]:
    """Compute each scalar measure over `resamples` resamplings `[R]`; NaN where it is
    undefined.

    Two models judged on the same rows with one seed meet the same resamplings, so their difference is a
    paired one.
    """
    kind = kind_of(answers, truth)
    metrics = _scalars(names, kind)
    rows = prepare(truth, answers, weight, threshold=threshold, scale=scale)
    draws: dict[str, list[np.ndarray]] = {metric.title: [] for metric in metrics}
    if rows.broken or not len(rows) or not resamples:
        return {title: np.full(resamples, np.nan) for title in draws}
    resamplers = []
    # Means first: what they compute on the way is free again before a ranking holds on to its orders.
    groups = sorted(
        grouped(metrics, kind), key=lambda group: not isinstance(group[0], Means)
    )
    for statistic, members in groups:
        with blaming(members[0], f"on {len(rows):,} rows of a {kind}"):
            resamplers.append((statistic, members, statistic.resampler(rows)))
    count, row_weight, owner = rows.resampled, rows.weight, rows.owner
    del rows  # what is not resampled need not be held while the counts are
    for counts in resampling_counts(count, resamples, seed):
        # The steps or windows of one owner are drawn together, and share its count.
        weights = (counts if owner is None else counts[..., owner]) * row_weight
        for statistic, members, resampler in resamplers:
            totals = resampler(weights)
            for metric in members:
                own = totals_of(metric, statistic, totals)
                draws[metric.title].append(_value(metric, own, len(weights)))
    return {title: np.concatenate(parts) for title, parts in draws.items()}


def _scalars(names: Sequence[Named], kind: Kind) -> list[Metric]:
    """Return those of the metrics `names` that are one number."""
    return [metric for metric in chosen(names, kind).values() if metric.scalar]


def _value(metric: Metric, totals: Totals, resamplings: int) -> np.ndarray:
    """Compute a metric of each resampling, `[R]`."""
    with (
        blaming(metric, f"on the totals of {resamplings} resamplings"),
        np.errstate(all="ignore"),
    ):
        values = np.asarray(metric.value(totals), np.float64)
    if values.shape != (resamplings,):
        raise RecipeError(
            f"the metric {metric.title!r} must have one value for each of {resamplings} resamplings: its"
            f" `value` gave an array {list(values.shape)}. Compute along the first axis only"
        )
    return values


def intervals(
    names: Sequence[Named],
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
    """Return a percentile interval `[low, high]` of each scalar measure; None where it
    is undefined.

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
    metrics = _scalars(names, kind)
    population = len(truth) if population is None else population
    most = _most_rows(metrics, kind, answers, resamples)
    if len(truth) > most:
        # The centre is measured on all rows, before a sample takes their place.
        if whole is None:
            whole = measure(
                metrics, truth, answers, weight, threshold=threshold, scale=scale
            )
        # A seed of its own, so that which rows are picked is independent of the counts.
        chance = np.random.default_rng(derive_seed(seed, "interval rows"))
        # The picked rows keep their order.
        pick = np.sort(chance.choice(len(truth), most, replace=False))
        truth, answers = (
            truth[pick],
            {name: values[pick] for name, values in answers.items()},
        )
        weight = None if weight is None else weight[pick]
    draws = resampled(
        metrics,
        truth,
        answers,
        weight,
        resamples=resamples,
        seed=seed,
        threshold=threshold,
        scale=scale,
    )
    # On the very rows that are resampled: the centre where nothing else is given.
    at = measure(metrics, truth, answers, weight, threshold=threshold, scale=scale)
    shrink = min((len(truth) / population) ** 0.5, 1.0) if population else 1.0
    bounds: dict[str, list[float] | None] = {}
    for metric in metrics:
        name = metric.title
        interval = percentiles(draws[name], confidence)
        centre = (whole or {}).get(name)
        centre = at[name] if centre is None else centre
        if interval is None or centre is None:
            bounds[name] = None
            continue
        # Moved until the draws' median is the value measured, as the head of this file
        # says.
        middle = float(np.nanmedian(draws[name]))
        bounds[name] = [
            float(np.clip(centre + (edge - middle) * shrink, *metric.bounds))
            for edge in interval
        ]
    return bounds


def _most_rows(
    metrics: Sequence[Metric],
    kind: Kind,
    answers: Mapping[str, np.ndarray],
    resamples: int,
) -> int:
    """Return how many rows may be resampled within a bounded amount of work."""
    is_wide = kind in ("set", "sequence") or any(
        s.by_class for s, _ in grouped(metrics, kind)
    )
    width = (
        int(np.prod(answers["probabilities"].shape[1:]))
        if is_wide and "probabilities" in answers
        else 1
    )
    # Never fewer than 1,000 rows, however much work they are.
    return max(min(ROWS, _WORK // max(resamples * width, 1)), 1_000)


def percentiles(draws: np.ndarray, confidence: float) -> list[float] | None:
    """Return the interval that holds the share `confidence` of the draws; None if fewer
    than half of them are defined.
    """
    defined = draws[np.isfinite(draws)]
    if len(defined) < max(len(draws) / 2, 1):
        return None
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return [float(low), float(high)]


def resampling_counts(rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield counts `[r, N]` as float64, a few resamplings at a time."""
    chance = np.random.default_rng(derive_seed(seed, "bootstrap"))
    table = _POISSON.astype(np.float64)
    # About 2^22 counts at once, 32 MiB of doubles.
    step = max(1, _CHUNK // rows)
    for start in range(0, resamples, step):
        # The table has 2^16 entries, so a draw of 16 bits is a place in it.
        draws = chance.integers(
            0, len(table), (min(step, resamples - start), rows), dtype=np.uint16
        )
        yield table[draws]
