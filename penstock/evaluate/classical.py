"""A quick classical model beside the deep one, so that a user sees whether deep learning pays.

Words and sets have their own (`linear`).

Histogram gradient boosting (Ke et al. 2017, LightGBM; scikit-learn's version) on the very columns the model's
features accepted: numbers as they are, categories as codes, timestamps as seconds and their calendar parts,
vectors spread out; missing values natively. At most 200,000 training rows, chosen by the hash of the row id;
fewer where there are many columns or classes, or texts are long. It is untuned: a floor, not a rival at its
best.

It runs on one thread. Its OpenMP threads spin while they wait: with two on a busy 2-core machine one fit took
57 times as long as with one, and on a quiet one two would save a second or so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.core.errors import MissingPackage
from penstock.core.events import Events
from penstock.core.identity import derive_seed
from penstock.core.optional import require
from penstock.encode.encoding import Encoding
from penstock.evaluate.answers import Judged
from penstock.evaluate.classical_answers import Classical
from penstock.evaluate.forecast import naive_forecast
from penstock.evaluate.linear import is_worded, linear_model
from penstock.evaluate.training import split_rows

if TYPE_CHECKING:
    from penstock.encode.series.sampled_dataset import SampledDataset
    from penstock.prepare.dataset import Dataset

ROWS = 200_000
CELLS = 40_000_000
"""Rows times columns: 320 MB of doubles."""
CLASSES = 100
CATEGORIES = 254
WIDEST = 512
"""A longer vector is left out: boosting over raw pixels is neither quick nor good."""


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
    try:
        ensemble = require(
            "sklearn.ensemble", extra="train", why="comparing with gradient boosting"
        )
        threads = require(
            "threadpoolctl", extra="train", why="comparing with gradient boosting"
        )
    # The comparison is optional: without its packages the report says why it is absent.
    except MissingPackage as error:
        events.say(f"no classical comparison: {error}")
        return Classical(said=str(error))
    # Boosting reads no words and answers no sets.
    if is_worded(encoding, judged):
        with threads.threadpool_limits(1):
            return linear_model(encoding, dataset, judged, rows=ROWS, seed=seed)
    with threads.threadpool_limits(1):
        return _boosting(ensemble, encoding, dataset, judged, seed=seed)


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
    widths = {name: _width(column) for name, column in judged.columns.items()}
    width = sum(w for w in widths.values() if w)
    notes: list[str] = []
    if left_out := [name for name, width_of in widths.items() if width_of is None]:
        them = "them" if len(left_out) > 1 else "it"
        notes.append(
            f"left out {', '.join(left_out)}: gradient boosting does not read {them}"
        )
    if not width:
        return Classical(
            said="; ".join([*notes, "no input that gradient boosting can read"])
        )
    # Fewer rows where they are wide, but enough to learn from.
    limit = min(ROWS, max(CELLS // width, 1_000))
    columns, truth, weight = split_rows(encoding, dataset, "train", limit=limit)
    matrix = _Matrix([name for name in widths if widths[name]])
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
    result.said, result.seconds = "; ".join(notes), time.perf_counter() - started
    return result


def _seasonal(encoding: Encoding, judged: Judged) -> Classical:
    """Make the seasonal naive forecast of each target that has one."""
    forecasts = {
        name: naive_forecast(encoding, name, seasonal=True) for name in judged.kinds
    }
    without = [name for name, forecast in forecasts.items() if forecast is None]
    said = (
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
        "the seasonal naive forecast", answers, judged.sample_rows, said=said
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


def _width(column: pa.Array) -> int | None:
    """Return how many matrix columns a column becomes; None if it cannot be read."""
    kind = column.type
    if pa.types.is_temporal(kind):
        return 5 if pa.types.is_timestamp(kind) or pa.types.is_date(kind) else None
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
    ):
        return 1
    if (
        pa.types.is_fixed_size_list(kind)
        or pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
    ):
        if not (
            pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
        ):
            return None
        lengths = pc.drop_null(pc.list_value_length(column))
        longest = pc.max(lengths).as_py() if len(lengths) else 0
        return longest if longest and longest <= WIDEST else None
    return None


class _Matrix:
    """Converts canonical columns to doubles `[N, D]`, with the codes of categories
    learnt from the training rows.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.codes: dict[str, pa.Array] = {}
        self.lengths: dict[str, int] = {}
        self.categorical: list[bool] = []

    def fit(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        for name in self.names:
            column = columns[name]
            width = _width(column) or 0
            if _is_text(column):
                counts = pc.value_counts(column.drop_null())
                values, how_many = (
                    counts.field("values"),
                    np.asarray(counts.field("counts")),
                )
                self.codes[name] = values.take(
                    pa.array(np.argsort(-how_many, kind="stable")[:CATEGORIES])
                )
            elif pa.types.is_nested(column.type):
                self.lengths[name] = width
            self.categorical += [_is_text(column)] * (
                width if name not in self.codes else 1
            )
        return self.transform(columns)

    def transform(self, columns: Mapping[str, pa.Array]) -> np.ndarray:
        return np.concatenate(
            [self._block(name, columns[name]) for name in self.names], axis=1
        )

    def _block(self, name: str, column: pa.Array) -> np.ndarray:
        if name in self.codes:
            # All other values share one code.
            code = np.asarray(
                pc.fill_null(pc.index_in(column, value_set=self.codes[name]), CATEGORIES),
                np.float64,
            )
            return np.where(np.asarray(column.is_null()), np.nan, code)[:, None]
        if name in self.lengths:
            # Longer vectors are cut to what the training rows had.
            width = self.lengths[name]
            # Boosting reads NaN as missing, so shorter vectors need no filling.
            block = np.full((len(column), width), np.nan)
            for i, row in enumerate(column.to_pylist()):
                if row is not None:
                    block[i, : min(len(row), width)] = np.array(row[:width], np.float64)
            return block
        if pa.types.is_temporal(column.type):
            moment = pc.cast(
                column, pa.timestamp("us", tz=getattr(column.type, "tz", None))
            )
            # Microseconds become seconds.
            seconds = pc.divide(pc.cast(pc.cast(moment, pa.int64()), pa.float64()), 1e6)
            parts: list[Any] = [
                seconds,
                pc.month(moment),
                pc.day(moment),
                pc.day_of_week(moment),
                pc.hour(moment),
            ]
            return np.stack([_doubles(p) for p in parts], axis=1)
        return _doubles(column)[:, None]


def _is_text(column: pa.Array) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _doubles(column: pa.Array) -> np.ndarray:
    number = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    return np.asarray(
        pc.fill_null(pc.cast(number, pa.float64()), float("nan")), np.float64
    )
