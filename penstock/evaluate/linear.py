"""The quick classical model for inputs of words and targets that are sets: TF-IDF and a
linear model (Joachims 1998).

Texts become TF-IDF weights of single words and pairs (Salton and Buckley 1988), lists of words or labels
likewise of their members, sequences of their runs of up to four items; numbers are standardised, categories
one-hot. On them a logistic regression by stochastic gradients (one against the rest for classes and for each
label of a set), or a ridge regression for numbers. A set's thresholds are decided on the validation split, as
the deep model's are.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.features import DecidingFeature
from penstock.contracts.metric import Kind
from penstock.core.identity import derive_seed
from penstock.core.optional import require
from penstock.evaluate import tagger
from penstock.evaluate.answers import Judged
from penstock.evaluate.classical_answers import Classical
from penstock.evaluate.training import split_rows

if TYPE_CHECKING:
    from penstock.encode.encoding import Encoding
    from penstock.encode.series.sampled_dataset import SampledDataset
    from penstock.prepare.dataset import Dataset

TERMS = 200_000
"""Words and pairs that are told apart: the commonest."""
CATEGORIES = 1_000
MOST_CLASSES = 300
NAME = "TF-IDF and a linear model"
_LONGEST_RUN = 4
"""Items of a sequence that are a term together."""


def is_worded(encoding: Encoding, judged: Judged) -> bool:
    """Whether the linear model suits: an input has words, or a target is a set or a label for each step."""
    return any(kind in ("set", "sequence") for kind in judged.kinds.values()) or any(
        _is_wordy(encoding, name, column) for name, column in judged.columns.items()
    )


def _is_wordy(encoding: Encoding, name: str, column: pa.Array) -> bool:
    return encoding.inputs[name].type == "text" or _is_words(column.type)


def _is_words(kind: pa.DataType) -> bool:
    return bool(
        (pa.types.is_list(kind) or pa.types.is_large_list(kind))
        and pa.types.is_string(kind.value_type)
    )


def linear_model(
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    judged: Judged,
    *,
    rows: int,
    seed: int,
) -> Classical:
    """Fit on at most `rows` training rows and answer the judged sample, one model a target.

    Raises:
        MissingPackage: scikit-learn or scipy is not installed.
    """
    started = time.perf_counter()
    result = Classical(model=_name(encoding, judged))
    linear = require(
        "sklearn.linear_model", extra="train", why="comparing with a linear model"
    )
    matrix = _Sparse(encoding)
    left_out = [n for n, column in judged.columns.items() if not matrix.reads(n, column)]
    notes = [f"{', '.join(left_out)} left out, which it cannot read"] if left_out else []
    if len(left_out) == len(judged.columns):
        result.note = "; ".join([*notes, "no input that it can read"])
        return result
    columns, truth, weight = split_rows(encoding, dataset, "train", limit=rows)
    x = matrix.fit({name: columns[name] for name in columns if name not in left_out})
    x_judged = matrix.transform(judged.columns)
    result.rows = x.shape[0]
    for target, kind in judged.kinds.items():
        # scikit-learn takes seeds of 32 bits.
        chance = derive_seed(seed, "classical", target) % 2**32
        classes = _classes_of(judged, target, kind, truth[target])
        if classes > MOST_CLASSES:
            notes.append(f"{target}: {classes:,} classes are too many for a quick model")
        elif kind == "number":
            # `lsqr` works on the sparse matrix as it is.
            model = linear.Ridge(alpha=1.0, solver="lsqr", random_state=chance)
            model.fit(x, truth[target].astype(np.float64), sample_weight=weight)
            result.answers[target] = {
                "value": np.asarray(model.predict(x_judged), np.float64)
            }
        elif kind == "set":
            labels = truth[target].T
            models = [_fitted(linear, x, label, weight, chance) for label in labels]
            result.answers[target] = {"probabilities": _answered(models, x_judged)}
            edges = _decided(encoding, dataset, target, matrix, models, rows)
            names = judged.classes[target]
            result.thresholds[target] = np.array([edges.get(n, 0.5) for n in names])
        elif kind in ("binary", "category"):
            y = truth[target].astype(np.int64)
            if len(np.unique(y)) < 2:
                notes.append(f"{target}: the training sample has one class only")
            else:
                result.answers[target] = _classes(
                    linear, x, y, weight, x_judged, kind, classes, chance
                )
        elif kind == "sequence":
            answer = _tagged(encoding, judged, columns, truth, target, chance)
            if answer is None:
                notes.append(f"{target}: its steps have no items that this model reads")
            else:
                result.answers[target] = {"probabilities": answer}
        else:
            notes.append(f"{target}: it cannot answer a {kind}")
    result.note, result.seconds = "; ".join(notes), time.perf_counter() - started
    return result


def _name(encoding: Encoding, judged: Judged) -> str:
    """Return what the model is called, by what it reads and answers here."""
    if all(kind == "sequence" for kind in judged.kinds.values()):
        return tagger.NAME
    types = {encoding.inputs[name].type for name in judged.columns}
    if "text" in types:
        return NAME
    return "n-grams and a linear model" if "sequence" in types else "a linear model"


def _tagged(
    encoding: Encoding,
    judged: Judged,
    columns: Mapping[str, pa.Array],
    truth: Mapping[str, np.ndarray],
    target: str,
    chance: int,
) -> np.ndarray | None:
    """Answer a target with a label for each step of an input; None where these are no words."""
    over = encoding.targets[target].labels_steps_of()
    if over is None or over not in columns or not _is_words(columns[over].type):
        return None
    _, steps, classes = judged.answers[target]["probabilities"].shape
    shape = (len(judged.columns[over]), steps, classes)
    return tagger.tag(
        columns[over], truth[target], judged.columns[over], shape=shape, seed=chance
    )


def _classes_of(judged: Judged, target: str, kind: Kind, truth: np.ndarray) -> int:
    """Return how many classes or labels a target has; 0 for other kinds."""
    if kind == "set":
        return int(truth.shape[1])
    if kind == "category":
        return int(judged.answers[target]["probabilities"].shape[1])
    return 2 if kind == "binary" else 0


def _classes(
    linear: Any,
    x: Any,
    y: np.ndarray,
    weight: np.ndarray | None,
    x_judged: Any,
    kind: Kind,
    count: int,
    chance: int,
) -> dict[str, np.ndarray]:
    """Answer a target of classes with a logistic regression for each class against the
    rest, or one for two classes.
    """
    # Of two classes one model answers for both.
    against_rest = range(count) if count > 2 else (1,)
    shares = _answered(
        [_fitted(linear, x, y == k, weight, chance) for k in against_rest], x_judged
    )
    if kind == "binary":
        return {"probability": shares[:, 0]}
    shares = shares if count > 2 else np.concatenate([1 - shares, shares], axis=1)
    return {
        # Models against the rest know nothing of each other, so their probabilities
        # need not sum to 1.
        "probabilities": shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    }


def _fitted(
    linear: Any, x: Any, y: np.ndarray, weight: np.ndarray | None, chance: int
) -> Any:
    """Fit a logistic regression of yes or no; returns a constant where all rows have
    one answer.
    """
    y = y.astype(np.int64)
    if y.min() == y.max():
        return float(y[0])
    # The `alpha` of a logistic regression with C = 4, since SGD averages the loss over
    # rows.
    model = linear.SGDClassifier(
        loss="log_loss",
        alpha=1 / (4 * len(y)),
        max_iter=20,
        tol=1e-3,
        random_state=chance,
    )
    with warnings.catch_warnings():
        # Twenty passes are enough for a floor, though scikit-learn warns that more
        # would help.
        warnings.simplefilter("ignore")
        return model.fit(x, y, sample_weight=weight)


def _answered(models: list[Any], x: Any) -> np.ndarray:
    """Return each model's probability of yes, `[N, models]`."""
    return np.stack(
        [
            np.full(x.shape[0], model)
            if isinstance(model, float)
            else model.predict_proba(x)[:, 1]
            for model in models
        ],
        axis=1,
    )


def _decided(
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    target: str,
    matrix: _Sparse,
    models: list[Any],
    rows: int,
) -> Mapping[str, float]:
    """Decide a set's thresholds by label on the validation split, as the feature does;
    empty without such rows.
    """
    feature = encoding.targets[target]
    if not isinstance(feature, DecidingFeature):
        return {}
    columns, truth, weight = split_rows(encoding, dataset, "validation", limit=rows)
    if not len(truth[target]):
        return {}
    decided = feature.decide(
        {"probabilities": _answered(models, matrix.transform(columns))},
        truth[target],
        weight,
        encoding.fitted[target],
    )
    thresholds: Mapping[str, float] = decided.get("thresholds", {})
    return thresholds


class _Sparse:
    """Converts canonical columns to a sparse matrix `[N, D]`, as learnt from the
    training rows.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._learnt: dict[str, Any] = {}

    def reads(self, name: str, column: pa.Array) -> bool:
        kind = column.type
        flat = (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_string(kind)
            or pa.types.is_timestamp(kind)
        )
        return bool(flat or _is_words(kind))

    def fit(self, columns: Mapping[str, pa.Array]) -> Any:
        text = require(
            "sklearn.feature_extraction.text",
            extra="train",
            why="comparing with a linear model",
        )
        for name, column in columns.items():
            if _is_words(column.type):
                is_ordered = self._encoding.inputs[name].type == "sequence"
                # The members are the terms; nothing is taken apart. Of a sequence, its runs as well.
                self._learnt[name] = text.TfidfVectorizer(
                    analyzer=_runs if is_ordered else _themselves, max_features=TERMS
                )
            elif _is_wordy(self._encoding, name, column):
                self._learnt[name] = text.TfidfVectorizer(
                    ngram_range=(1, 2),
                    # Among many rows, a term that occurs in one tells nothing and costs
                    # a column.
                    min_df=2 if len(column) > 1_000 else 1,
                    max_features=TERMS,
                    sublinear_tf=True,
                    # Punctuation marks are terms of their own.
                    token_pattern=r"(?u)\b\w+\b|[^\w\s]",
                )
            elif pa.types.is_string(column.type):
                counts = pc.value_counts(column.drop_null())
                # The stable order keeps ties as they came, so that one sample gives one
                # model.
                order = np.argsort(-np.asarray(counts.field("counts")), kind="stable")[
                    :CATEGORIES
                ]
                self._learnt[name] = counts.field("values").take(pa.array(order))
            else:
                values = _doubles(column)
                there = values[np.isfinite(values)]
                self._learnt[name] = (
                    # A constant column is divided by 1.
                    (float(there.mean()), float(there.std()) or 1.0)
                    if len(there)
                    else (0.0, 1.0)
                )
            if hasattr(self._learnt[name], "fit"):
                try:
                    self._learnt[name].fit(_words(column))
                except ValueError:  # no word at all is left
                    self._learnt[name] = None
        return self.transform(columns)

    def transform(self, columns: Mapping[str, pa.Array]) -> Any:
        sparse = require(
            "scipy.sparse", extra="train", why="comparing with a linear model"
        )
        blocks = []
        for name, fitted in self._learnt.items():
            column = columns[name]
            if fitted is None:
                continue
            if isinstance(fitted, tuple):
                values = (_doubles(column) - fitted[0]) / fitted[1]
                gone = ~np.isfinite(values)
                blocks.append(
                    sparse.csr_matrix(
                        # One outlier must not rule the gradients. A missing value is
                        # the mean, with a flag beside it.
                        np.stack(
                            [np.clip(np.where(gone, 0, values), -5, 5), gone], axis=1
                        )
                    )
                )
            elif isinstance(fitted, pa.Array):
                code = np.asarray(
                    pc.fill_null(pc.index_in(column, value_set=fitted), -1), np.int64
                )
                # An unseen or missing category is a row of zeros.
                rows = np.flatnonzero(code >= 0)
                blocks.append(
                    sparse.csr_matrix(
                        (np.ones(len(rows)), (rows, code[rows])),
                        shape=(len(column), max(len(fitted), 1)),
                    )
                )
            else:
                blocks.append(fitted.transform(_words(column)))
        return (
            sparse.hstack(blocks, format="csr")
            if blocks
            # A model cannot be fitted on no column, but on one of zeros.
            else sparse.csr_matrix((len(next(iter(columns.values()))), 1))
        )


def _runs(words: list[str]) -> list[str]:
    """Return the runs of one to four items of a sequence."""
    return [
        " ".join(words[i : i + n])
        for n in range(1, _LONGEST_RUN + 1)
        for i in range(len(words) - n + 1)
    ]


def _themselves(words: list[str]) -> list[str]:
    return words


def _words(column: pa.Array) -> list[Any]:
    empty: Any = [] if pa.types.is_nested(column.type) else ""
    return [
        (
            empty
            if value is None
            else [word for word in value if word is not None]
            if isinstance(value, list)
            else value
        )
        for value in column.to_pylist()
    ]


def _doubles(column: pa.Array) -> np.ndarray:
    if pa.types.is_timestamp(column.type):
        column = pc.cast(column, pa.int64())
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return np.asarray(
        pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan")), np.float64
    )
