"""Classical forecasts: ridge regression over the window, exponential smoothing, the seasonal naive.

- Ridge: one matrix from the window to the horizon, in closed form (`grams`); what the window is taken
  relative to, the strength, and whether variables share the matrix are chosen on the validation split.
- Exponential smoothing without a trend (Holt 1957, Winters 1960), with an additive season where a window
  holds two of them; its rates are chosen on the validation split. Each window is smoothed by itself.
- The seasonal naive: the last season, for ever.

All of them read the window that the model reads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_ID
from penstock.contracts.metric import Forecasting
from penstock.contracts.summary import lowest, sample_keys
from penstock.encode.encoding import Encoding
from penstock.evaluate.forecast import Naive, series_of
from penstock.evaluate.grams import LEVELS, STRENGTHS, Grams, level_of
from penstock.evaluate.readable import BATCH, read

if TYPE_CHECKING:
    from penstock.encode.series.sampled_dataset import SampledDataset
    from penstock.prepare.dataset import Dataset

RIDGE = "ridge regression over the window"
SMOOTHING = "exponential smoothing"
SEASONAL = "the seasonal naive forecast"
_A_SECOND = 4e9
"""Multiplications of a second, one thread."""
_AT_ONCE = 2_048
_RATES = ((0.1, 0.3, 0.6, 0.9), (0.0, 0.1, 0.3))
"""Of the level and of the season."""


@dataclass
class Ridge:
    """A fitted ridge regression."""

    source: Naive
    """Reads the windows."""
    std: np.ndarray
    """Each variable's deviation `[V]`."""
    level: str
    weights: list[np.ndarray]
    """`[W + 1, H]` for each variable, or one for all."""
    rows: int
    """Windows that it learnt from."""
    validated: float | None = None
    """Mean squared error on the validation split, standardised."""

    def answers(self, columns: Mapping[str, pa.Array]) -> dict[str, np.ndarray]:
        """Forecast `values [rows, H, V]` in the user's units."""
        pieces = [self._forecast(known) for known in _windows(self.source, columns)]
        return {"values": np.concatenate(pieces)} if pieces else {}

    def _forecast(self, known: np.ndarray) -> np.ndarray:
        scaled = known / self.std
        steps = []
        for v in range(scaled.shape[2]):
            x = scaled[:, :, v]
            base = level_of(x, self.level)
            weights = self.weights[v if len(self.weights) > 1 else 0]
            steps.append((x - base) @ weights[:-1] + weights[-1] + base)
        return np.asarray(np.stack(steps, axis=2) * self.std)


def fit_ridge(
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    target: str,
    source: Naive,
    *,
    seconds: float,
) -> Ridge | str:
    """Fit on as many windows as `seconds` are likely to allow; returns why not where nothing is."""
    spec = series_of(encoding.targets[target].spec(encoding.fitted[target]))
    if spec is None:
        return "its values are no series"
    std = np.maximum(np.array(spec.facts["std"], np.float64), 1e-12)
    sums = {}
    for split in ("train", "validation"):
        for known, after in _read(
            encoding, dataset, split, target, source, seconds / 2, len(std)
        ):
            if split not in sums:
                sums[split] = Grams(known.shape[1], after.shape[1], len(std))
            sums[split].add(known / std, after / std)
    train, validation = sums.get("train"), sums.get("validation")
    if train is None or not train.together("last").rows:
        return "no training window has all that came after it"
    best: Ridge | None = None
    for level, is_apart in itertools.product(LEVELS, (False, True)):
        if is_apart and (len(std) < 2 or not train.is_apart):
            continue
        learnt = train.sums[level] if is_apart else [train.together(level)]
        if min(each.rows for each in learnt) == 0:
            continue
        for strength in STRENGTHS:
            weights = [each.solved(strength) for each in learnt]
            error = _error(validation, level, weights)
            if best is None or (
                error is not None and error < (best.validated or math.inf)
            ):
                rows = train.together(level).rows // len(std)
                best = Ridge(source, std, level, weights, rows, error)
    return best if best is not None else "no variable has windows to learn from"


def _error(
    validation: Grams | None, level: str, weights: list[np.ndarray]
) -> float | None:
    """Return the mean squared error on the validation split; None without rows."""
    if validation is None:
        return None
    if len(weights) == 1:
        whole = validation.together(level)
        total, count = whole.error(weights[0]), whole.rows
    else:
        sums = validation.sums[level]
        total = sum(s.error(w) for s, w in zip(sums, weights, strict=True))
        count = sum(s.rows for s in sums)
    return total / (count * validation.horizon) if count else None


def _read(
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    split: str,
    target: str,
    source: Naive,
    seconds: float,
    variables: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return windows `[n, W, V]` and what came after `[n, H, V]`, in the user's units: of all samples, or of
    as many by the hash of their ids as the time is likely to allow.
    """
    alone = Encoding(
        {source.source: encoding.inputs[source.source]},
        {target: encoding.targets[target]},
        {name: encoding.fitted[name] for name in (source.source, target)},
    )
    total = int(dataset.counts.get(split, 0))
    share = 1.0
    columns = [ROW_ID, *alone.columns(targets=True)]
    size = alone.rows_at_once(BATCH)
    for batch in dataset.batches(split, columns=columns, rows=size) if total else ():
        table = pa.Table.from_batches([batch])
        keys = sample_keys(table.column(ROW_ID).combine_chunks())
        table = table.filter(pa.array(lowest(keys, share)))
        rows = read(alone, table)
        if not len(rows.table):
            continue
        known = source.known(rows.columns)
        after = np.asarray(rows.truth[target], np.float64)
        steps = known.shape[1]
        work = len(LEVELS) * variables * steps * (steps + after.shape[1])
        # Known with the first batch; it is the same for all.
        most = seconds * _A_SECOND / max(work, 1) / max(total, 1)
        if most < share:
            share = most
            some = lowest(sample_keys(rows.table.column(ROW_ID).combine_chunks()), share)
            known, after = known[some], after[some]
        yield known, after


@dataclass
class Smoothing:
    """Exponential smoothing of each window by itself."""

    source: Naive
    season: int
    """1: without one."""
    level_rate: float = 0.3
    season_rate: float = 0.0

    def answers(self, columns: Mapping[str, pa.Array]) -> dict[str, np.ndarray]:
        """Forecast `values [rows, H, V]` in the user's units."""
        pieces = [self._forecast(known) for known in _windows(self.source, columns)]
        return {"values": np.concatenate(pieces)} if pieces else {}

    def _forecast(self, known: np.ndarray) -> np.ndarray:
        steps = known.shape[1]
        first = min(self.season, steps)
        level = known[:, :first].mean(axis=1)
        seasons = known[:, :first] - level[:, None]
        if self.season == 1:
            seasons = np.zeros_like(seasons)
        for t in range(first, steps):
            now = seasons[:, t % first]
            before = level
            level = self.level_rate * (known[:, t] - now) + (1 - self.level_rate) * before
            if self.season_rate:
                seasons[:, t % first] = (
                    self.season_rate * (known[:, t] - before)
                    + (1 - self.season_rate) * now
                )
        ahead = (steps + np.arange(self.source.horizon)) % first
        return np.asarray(level[:, None] + seasons[:, ahead])


def fit_smoothing(
    source: Naive,
    columns: Mapping[str, pa.Array],
    truth: np.ndarray,
    scale: Forecasting | None,
    *,
    season: int,
) -> Smoothing:
    """Choose the rates on rows of the validation split; the middle ones without such rows."""
    feature = source.encoding.inputs[source.source]
    spec = series_of(feature.spec(source.encoding.fitted[source.source]))
    window = 0 if spec is None else int(spec.facts["window"])
    season = season if 1 < 2 * season <= window else 1
    std = np.ones(1) if scale is None else np.array(scale.std)
    best, least = Smoothing(source, season), math.inf
    for level_rate, season_rate in itertools.product(*_RATES):
        if (season == 1 and season_rate) or not len(truth):
            continue
        tried = Smoothing(source, season, level_rate, season_rate)
        error = (tried.answers(columns)["values"] - truth) / np.maximum(std, 1e-12)
        mean = float(np.nanmean(error**2)) if np.isfinite(error).any() else math.inf
        if mean < least:
            best, least = tried, mean
    return best


def _windows(source: Naive, columns: Mapping[str, pa.Array]) -> Iterator[np.ndarray]:
    column = columns[source.source]
    for start in range(0, len(column), _AT_ONCE):
        yield source.known({source.source: column.slice(start, _AT_ONCE)})
