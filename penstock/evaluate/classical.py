"""A quick classical model beside the deep one, so that a user sees whether deep learning pays.

Histogram gradient boosting (Ke et al. 2017, LightGBM; scikit-learn's version) on the very columns the model's
features accepted: numbers as they are, categories as codes, timestamps as seconds and their calendar parts,
vectors spread out, members of sets and items of sequences counted, texts as components of their TF-IDF
weights; missing values natively. At most 200,000 training rows, chosen by the hash of the row id; fewer where
there are many columns or classes, or texts are long. It is untuned: a floor, not a rival at its best.

Where there are words (texts, sets, sequences) a linear model is fitted, too (`linear`), and the one that is
better on the validation split is the rival.

It runs on one thread. Its OpenMP threads spin while they wait: with two on a busy 2-core machine one fit took
57 times as long as with one, and on a quiet one two would save a second or so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.contracts.metric import Kind
from penstock.core.errors import MissingPackage
from penstock.core.events import Events
from penstock.core.identity import derive_seed
from penstock.core.optional import require
from penstock.encode.encoding import Encoding
from penstock.evaluate.answers import Judged
from penstock.evaluate.classical_answers import Classical
from penstock.evaluate.forecast import naive_forecast
from penstock.evaluate.linear import is_worded, linear_model
from penstock.evaluate.matrix import Matrix, width_of
from penstock.evaluate.training import split_rows
from penstock.metrics import measure

if TYPE_CHECKING:
    from penstock.encode.series.sampled_dataset import SampledDataset
    from penstock.prepare.dataset import Dataset

ROWS = 200_000
CELLS = 40_000_000
"""Rows times columns: 320 MB of doubles."""
CLASSES = 100
VALIDATED = 20_000
"""Rows of the validation split that choose between two models."""


def classical_model(
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    judged: Judged,
    *,
    seed: int,
    events: Events,
) -> Classical:
    """Fit on the training split and answer the judged sample, one model a target; where all targets are
    series, the seasonal naive.
    """
    # Boosting does not read windows; a forecast's rival is the last season.
    if judged.kinds and all(kind == "series" for kind in judged.kinds.values()):
        return _seasonal(encoding, judged)
    if not dataset.counts.get("train"):
        return Classical(note="there are no training rows for it to learn from")
    try:
        ensemble = require(
            "sklearn.ensemble", extra="train", why="comparing with gradient boosting"
        )
        threads = require(
            "threadpoolctl", extra="train", why="comparing with gradient boosting"
        )
    # The comparison is optional: without its packages the report says why it is absent.
    except MissingPackage as error:
        events.say(f"There is no classical comparison: {error}")
        return Classical(note=str(error))
    with threads.threadpool_limits(1):
        if not is_worded(encoding, judged):
            return _boosting(ensemble, encoding, dataset, judged, seed=seed)
        # Boosting answers no sets and no steps, and adds nothing where there are texts alone.
        if not _suits_boosting(encoding, judged):
            return linear_model(encoding, dataset, judged, rows=ROWS, seed=seed)
        return _better(ensemble, encoding, dataset, judged, seed=seed)


def _suits_boosting(encoding: Encoding, judged: Judged) -> bool:
    is_table = any(encoding.inputs[name].type != "text" for name in judged.columns)
    kinds = judged.kinds.values()
    return is_table and all(kind in ("binary", "category", "number") for kind in kinds)


def _better(
    ensemble: Any,
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    judged: Judged,
    *,
    seed: int,
) -> Classical:
    """Fit boosting and the linear model, and return the one that answers more targets better on the
    validation split; without such rows, boosting.
    """
    columns, truth, weight = split_rows(encoding, dataset, "validation", limit=VALIDATED)
    rows = judged.sample_rows
    # One fit answers both: the judged rows, and behind them those of the validation split.
    joint = {
        name: pa.concat_arrays([column, columns[name].cast(column.type)])
        if name in columns
        else column
        for name, column in judged.columns.items()
    }
    both = replace(judged, columns=joint)
    boosted = _boosting(ensemble, encoding, dataset, both, seed=seed)
    linear = linear_model(encoding, dataset, both, rows=ROWS, seed=seed)
    wins = sum(
        _loss(kind, truth[name], linear.answers.get(name), rows, weight)
        < _loss(kind, truth[name], boosted.answers.get(name), rows, weight)
        for name, kind in judged.kinds.items()
    )
    chosen = linear if 2 * wins > len(judged.kinds) else boosted
    chosen.seconds = boosted.seconds + linear.seconds
    chosen.answers = {
        target: {name: values[:rows] for name, values in answers.items()}
        for target, answers in chosen.answers.items()
    }
    return chosen


def _loss(
    kind: Kind,
    truth: np.ndarray,
    answers: Mapping[str, np.ndarray] | None,
    rows: int,
    weight: np.ndarray | None,
) -> float:
    """Return how bad answers are behind the first `rows`; infinite where there are none."""
    if answers is None or not len(truth):
        return math.inf
    name = "mse" if kind == "number" else "log_loss"
    behind = {answer: values[rows:] for answer, values in answers.items()}
    value = measure([name], truth, behind, weight)[name]
    return math.inf if value is None else float(value)


def _boosting(
    ensemble: Any,
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    judged: Judged,
    *,
    seed: int,
) -> Classical:
    """Fit gradient boosting on the columns that it can read: one model for each target
    that is a class or a number.
    """
    started = time.perf_counter()
    # None where boosting cannot read the column.
    widths = {
        name: width_of(encoding, name, column) for name, column in judged.columns.items()
    }
    width = sum(w for w in widths.values() if w)
    notes: list[str] = []
    if left_out := [name for name, each in widths.items() if each is None]:
        notes.append(f"{', '.join(left_out)} left out, which it cannot read")
    if not width:
        return Classical(
            note="; ".join([*notes, "no input that gradient boosting can read"])
        )
    # Fewer rows where they are wide, but enough to learn from.
    limit = min(ROWS, max(CELLS // width, 1_000))
    columns, truth, weight = split_rows(encoding, dataset, "train", limit=limit)
    chance = derive_seed(seed, "classical") % 2**32
    matrix = Matrix(encoding, [name for name in widths if widths[name]], seed=chance)
    x = matrix.fit(columns)
    x_judged = matrix.transform(judged.columns)
    result = Classical(rows=len(x))
    for target, kind in judged.kinds.items():
        # scikit-learn takes seeds of 32 bits.
        chance = derive_seed(seed, "classical", target) % 2**32
        # A model for each target, since boosting answers one at a time.
        if kind == "number":
            model = ensemble.HistGradientBoostingRegressor(
                max_iter=200,
                categorical_features=matrix.categorical,
                # Early stopping sets rows aside, which small data cannot spare.
                early_stopping=len(x) >= 2_000,
                max_leaf_nodes=_leaves(len(x)),
                random_state=chance,
            )
            model.fit(x, truth[target], sample_weight=weight)
            result.answers[target] = {"value": model.predict(x_judged).astype(np.float64)}
        elif kind in ("binary", "category"):
            count = (
                2
                if kind == "binary"
                else judged.answers[target]["probabilities"].shape[1]
            )
            y = truth[target].astype(np.int64)
            answer, why_not = _classes(
                ensemble, x, y, weight, x_judged, count, matrix.categorical, chance
            )
            if answer is None:
                notes.append(f"{target}: {why_not}")
            elif kind == "binary":
                result.answers[target] = {"probability": answer[:, 1]}
            else:
                result.answers[target] = {"probabilities": answer}
        else:
            notes.append(f"{target}: gradient boosting does not answer a {kind}")
    result.note, result.seconds = "; ".join(notes), time.perf_counter() - started
    return result


def _seasonal(encoding: Encoding, judged: Judged) -> Classical:
    """Make the seasonal naive forecast of each target that has one."""
    forecasts = {
        name: naive_forecast(encoding, name, seasonal=True) for name in judged.kinds
    }
    without = [name for name, forecast in forecasts.items() if forecast is None]
    note = (
        f"{', '.join(without)}: no input holds a whole season of its variables"
        if without
        else ""
    )
    answers = {
        name: forecast.answers(judged.sample_rows, judged.columns)
        for name, forecast in forecasts.items()
        if forecast is not None
    }
    return Classical(
        "the seasonal naive forecast", answers, judged.sample_rows, note=note
    )


def _classes(
    ensemble: Any,
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    x_judged: np.ndarray,
    count: int,
    categorical: list[bool],
    seed: int,
) -> tuple[np.ndarray | None, str]:
    """Fit a classifier; returns probabilities `[N, count]`, or None and the reason.

    Boosting grows a tree a class a round, so many classes get fewer rows and rounds.
    """
    if count > CLASSES:
        return None, f"{count:,} classes are too many for a quick model"
    if count > 10:
        most = max(ROWS * 10 // count, 5_000)
        x, y, weight = x[:most], y[:most], None if weight is None else weight[:most]
    # Counted after the cut: rare classes may be gone.
    classes, rows = np.unique(y, return_counts=True)
    if len(classes) < 2:
        return None, "the training sample has one class only"
    # Early stopping splits by class, so each class must have rows to split.
    stop = len(y) >= 5_000 and int(rows.min()) >= 20
    model = ensemble.HistGradientBoostingClassifier(
        max_iter=200 if count <= 10 else 50,
        categorical_features=categorical,
        early_stopping=stop,
        max_leaf_nodes=_leaves(len(y)),
        random_state=seed,
    )
    model.fit(x, y, sample_weight=weight)
    # A class that the training sample lacks has the probability 0.
    probabilities = np.zeros((len(x_judged), count))
    probabilities[:, model.classes_] = model.predict_proba(x_judged)
    return probabilities, ""


def _leaves(rows: int) -> int:
    """Return the most leaves of a tree: few for small data, which have no rows to stop
    early on.
    """
    return 31 if rows >= 2_000 else 8
