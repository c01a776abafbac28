"""The classical answers to targets that are series: the best of the forecasters on the validation split."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.contracts.metric import Forecasting
from penstock.encode.encoding import Encoding
from penstock.evaluate import forecasters
from penstock.evaluate.answers import Judged
from penstock.evaluate.classical_answers import Classical, Tried
from penstock.evaluate.compare import JUDGED_BY
from penstock.evaluate.forecast import Naive, naive_forecast
from penstock.evaluate.scoring import best_of, score
from penstock.evaluate.training import ReadRows, split_rows

if TYPE_CHECKING:
    from penstock.encode.series.sampled_dataset import SampledDataset
    from penstock.prepare.dataset import Dataset

VALIDATED = 2_000
"""Windows of the validation split that choose between forecasts."""

Answer = Callable[[Mapping[str, pa.Array]], dict[str, np.ndarray]]


def forecast_series(
    result: Classical,
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    judged: Judged,
    targets: list[str],
    *,
    seconds: float,
) -> list[str]:
    """Answer targets that are series; returns what is to be noted.

    Args:
        seconds: the budget of all of them.
    """
    notes = []
    for target in targets:
        naive = naive_forecast(encoding, target)
        if naive is None:
            notes.append(f"{target}: no input holds its variables")
            continue
        part = seconds / len(targets)
        _answer(result, encoding, dataset, judged, target, naive, part)
    return notes


def _answer(
    result: Classical,
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    judged: Judged,
    target: str,
    naive: Naive,
    seconds: float,
) -> None:
    alone = Encoding(
        {naive.source: encoding.inputs[naive.source]},
        {target: encoding.targets[target]},
        {name: encoding.fitted[name] for name in (naive.source, target)},
    )
    validation = split_rows(alone, dataset, "validation", limit=VALIDATED)
    models: list[tuple[Tried, Answer]] = []

    def add(name: str, rows: int, started: float, answer: Answer) -> None:
        tried = Tried(name, rows, metric=JUDGED_BY["series"][0])
        if len(validation):
            score(tried, judged, target, validation, answer(validation.columns))
        tried.seconds = time.process_time() - started
        models.append((tried, answer))

    started = time.process_time()
    ridge = forecasters.fit_ridge(encoding, dataset, target, naive, seconds=seconds)
    if not isinstance(ridge, str):
        add(forecasters.RIDGE, ridge.rows, started, ridge.answers)
    seasonal = naive_forecast(encoding, target, seasonal=True)
    if seasonal is not None:
        started = time.process_time()
        add(forecasters.SEASONAL, 0, started, lambda columns: _of(seasonal, columns))
    started = time.process_time()
    smoothing = _smoothing(validation, judged, target, naive, seasonal)
    add(forecasters.SMOOTHING, 0, started, smoothing.answers)
    chosen = best_of([tried for tried, _ in models])
    for place, (tried, answer) in enumerate(models):
        answers = answer(judged.columns)
        score(tried, judged, target, None, answers)
        if place == chosen:
            result.answers[target] = answers
    result.take(target, [tried for tried, _ in models], chosen)


def _of(seasonal: Naive, columns: Mapping[str, pa.Array]) -> dict[str, np.ndarray]:
    # A naive forecast does not look at the truth.
    return seasonal.answers(np.empty(0), columns)


def _smoothing(
    validation: ReadRows,
    judged: Judged,
    target: str,
    naive: Naive,
    seasonal: Naive | None,
) -> forecasters.Smoothing:
    scale: Any = judged.scales.get(target)
    return forecasters.fit_smoothing(
        naive,
        validation.columns,
        np.asarray(validation.truth.get(target, ()), np.float64),
        scale if isinstance(scale, Forecasting) else None,
        season=1 if seasonal is None else seasonal.season,
    )
