"""Quick classical models beside the deep one, so that a user sees whether deep learning pays.

Kind by kind what a specialist would set: gradient boosting (`boosting`) and a linear model (`linear`) for
tables, texts and sequences, nearest neighbours (`neighbours`) for pictures, ridge regression, exponential
smoothing and the seasonal naive for series (`forecasters`), a linear model of each step for labels of steps
(`tagger`). All of them learn from training rows drawn by the hash of their ids; the one that is best on the
validation split answers the judged rows, and the figures of all are told. They are untuned: a floor, not
rivals at their best.

Each model has its part of the recipe's `evaluate.baseline_budget`, and learns from as many rows as are
likely to fit it (`budget`); the first one always learns from some.

They run on one thread. Boosting's OpenMP threads spin while they wait: with two on a busy 2-core machine
one fit took 57 times as long as with one, and on a quiet one two would save a second or so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from penstock.contracts.metric import Kind
from penstock.core.errors import MissingPackage
from penstock.core.events import Events
from penstock.core.identity import derive_seed
from penstock.core.optional import require
from penstock.encode.encoding import Encoding
from penstock.evaluate import boosting, neighbours, tagger
from penstock.evaluate.answers import Judged
from penstock.evaluate.budget import fit_within
from penstock.evaluate.classical_answers import Classical, Tried
from penstock.evaluate.classical_series import forecast_series
from penstock.evaluate.compare import JUDGED_BY
from penstock.evaluate.items import items_of
from penstock.evaluate.linear import decided_thresholds, fit_linear, linear_name
from penstock.evaluate.matrix import dense_width
from penstock.evaluate.scoring import best_of, score
from penstock.evaluate.training import ReadRows, split_rows

if TYPE_CHECKING:
    from penstock.encode.series.sampled_dataset import SampledDataset
    from penstock.prepare.dataset import Dataset

ROWS = 200_000
CELLS = 40_000_000
"""Rows times columns: 320 MB of doubles."""
VALIDATED = 20_000
"""Rows of the validation split that choose between models."""
_ANSWERS = 20_000_000
"""Numbers of answers to them."""
_FEWEST = 100
READING = 0.25
"""The part of the budget that decoding pictures may take."""


class Answering(Protocol):
    """A fitted model."""

    def answers(self, rows: ReadRows) -> dict[str, np.ndarray]:
        """Answer rows, by answer."""


@dataclass
class _Way:
    """A way to answer a target."""

    name: str
    fit: Callable[[ReadRows], Any]
    """Training rows → a fitted model, or why there is none."""
    cost: int
    """About how many cells a row fills, times how often they are gone through."""
    rows: int = ROWS
    """The most that it may learn from."""


@dataclass
class _Job:
    """What all targets share."""

    encoding: Encoding
    judged: Judged
    train: ReadRows
    validation: ReadRows
    seed: int
    ends: float
    """When the budget is used up, by the clock."""

    @property
    def asked(self) -> ReadRows:
        """The rows that are judged."""
        return ReadRows(self.judged.columns, self.judged.pictures)

    def classes(self, target: str, kind: Kind) -> int:
        """Return how many classes or labels a target has; 0 for a number."""
        if kind in ("category", "set"):
            return int(self.judged.answers[target]["probabilities"].shape[1])
        return 2 if kind == "binary" else 0

    def validating(self, target: str) -> ReadRows:
        """Return the rows of the validation split that choose: fewer where a row's answer is large."""
        shape = self.judged.truth[target].shape[1:]
        answers = self.judged.answers[target]
        each = max(int(np.prod(values.shape[1:])) for values in answers.values())
        return self.validation.first(max(_ANSWERS // max(each, *shape, 1), _FEWEST))

    def chance(self, target: str) -> int:
        """Return the seed of a target's models; scikit-learn takes 32 bits."""
        return derive_seed(self.seed, "classical", target) % 2**32


def classical_model(
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    judged: Judged,
    *,
    seed: int,
    seconds: float,
    events: Events,
) -> Classical:
    """Fit on the training split and answer the judged sample, for each target by the model that is best on
    the validation split.

    Args:
        seed: of all chance.
        seconds: the budget of all models together.
    """
    started = time.process_time()
    result = Classical(total=int(dataset.counts.get("train", 0)), budget=seconds)
    if not result.total:
        result.note = "there are no training rows for it to learn from"
        return result
    series = [name for name, kind in judged.kinds.items() if kind == "series"]
    others = [name for name in judged.kinds if name not in series]
    notes: list[str] = []
    try:
        threads = require("threadpoolctl", extra="train", why=_WHY)
        require("sklearn.ensemble", extra="train", why=_WHY)
    # The comparison is optional: without its packages the report says why it is absent.
    except MissingPackage as error:
        events.say(f"There is no classical comparison: {error}")
        notes.append(str(error))
    else:
        with threads.threadpool_limits(1):
            part = seconds / (2 if others else 1)
            notes = forecast_series(
                result, encoding, dataset, judged, series, seconds=part
            )
            if others:
                notes += _others(result, encoding, dataset, judged, others, seed)
    result.note = "; ".join(notes)
    result.seconds = time.process_time() - started
    names = set(result.models.values())
    if names:
        result.model = names.pop() if len(names) == 1 else "the classical model"
    return result


_WHY = "comparing with gradient boosting"


def _others(
    result: Classical,
    encoding: Encoding,
    dataset: Dataset | SampledDataset,
    judged: Judged,
    targets: list[str],
    seed: int,
) -> list[str]:
    """Answer the targets that are no series; returns what is to be noted."""
    spent = sum(each.seconds for tried in result.tried.values() for each in tried)
    ends = time.process_time() + result.budget - spent
    alone = Encoding(
        encoding.inputs,
        {name: encoding.targets[name] for name in targets},
        encoding.fitted,
        weight=encoding.weight,
    )
    limits = {"train": ROWS, "validation": VALIDATED}
    read = {
        split: split_rows(
            alone, dataset, split, limit=limit, seconds=READING * result.budget
        )
        for split, limit in limits.items()
    }
    train = read["train"].shuffled(derive_seed(seed, "classical"))
    job = _Job(encoding, judged, train, read["validation"], seed, ends)
    notes: list[str] = []
    if not len(train):
        return ["no training row can be read"]
    for place, target in enumerate(targets):
        kind = judged.kinds[target]
        ways, unread = _ways(job, target, kind)
        note = _answer(result, job, target, ways, of=len(targets) - place)
        if note:
            notes.append(f"{target}: {note}")
        elif unread and f"{unread} left out" not in " ".join(notes):
            notes.append(f"{unread} left out, which it cannot read")
    return notes


def _ways(job: _Job, target: str, kind: Kind) -> tuple[list[_Way], str]:
    """Return the ways to answer a target, the one that is preferred first; and the inputs that none reads."""
    encoding, train, classes = job.encoding, job.train, job.classes(target, kind)
    chance = job.chance(target)
    if kind == "sequence":
        return [_Way(tagger.NAME, lambda rows: _tagger(job, rows, target), 100)], ""
    if kind == "text":
        return [], ""
    widths = {name: dense_width(encoding, name, train) for name in train.columns}
    names = [name for name, width in widths.items() if width]
    width = sum(widths.values())
    if not names:
        return [], ""
    linear = _Way(
        linear_name(encoding, names),
        lambda rows: fit_linear(
            encoding, names, rows, target, kind, classes=classes, seed=chance
        ),
        4 * width * max(classes, 1),
    )
    boosted = _Way(
        boosting.NAME,
        lambda rows: boosting.fit_boosting(
            encoding, names, rows, target, kind, classes=classes, seed=chance
        ),
        width * max(classes if classes > 2 else 1, 1),
        max(CELLS // width, 1_000),
    )
    pictures = [name for name in names if name in train.pictures]
    ways = [] if kind == "set" or not _suits_boosting(job, names) else [boosted]
    ways.append(linear)
    if pictures and classes <= neighbours.CLASSES:
        ways.append(
            _Way(
                neighbours.NAME,
                lambda rows: neighbours.fit_neighbours(
                    pictures, rows, target, kind, classes=classes
                ),
                width,
                neighbours.ROWS,
            )
        )
    return ways, ", ".join(name for name in widths if name not in names)


def _suits_boosting(job: _Job, names: list[str]) -> bool:
    """Whether any input is more than prose or a picture, to which boosting adds nothing."""
    return any(
        name not in job.train.pictures
        and (
            job.encoding.inputs[name].type != "text"
            or items_of(job.encoding, name, job.train.columns[name]) is not None
        )
        for name in names
    )


def _tagger(job: _Job, rows: ReadRows, target: str) -> tagger.Tagger | str:
    """Fit a model for a label at each step of an input."""
    over = job.encoding.targets[target].labels_steps_of()
    column = None if over is None else rows.columns.get(over)
    items = (
        None if column is None or over is None else items_of(job.encoding, over, column)
    )
    if items is None or over is None:
        return "its steps have no items that this model reads"
    classes = int(job.judged.answers[target]["probabilities"].shape[2])
    return tagger.fit_tagger(
        job.encoding,
        over,
        items,
        rows.truth[target],
        classes=classes,
        seed=job.chance(target),
    )


def _answer(
    result: Classical, job: _Job, target: str, ways: list[_Way], *, of: int
) -> str:
    """Answer a target by the best of several ways; returns why not where none can.

    Args:
        of: the targets that are still to be answered, this one included.
    """
    kind = job.judged.kinds[target]
    if not ways:
        return (
            "no input that a classical model can read"
            if kind != "text"
            else (f"no classical model answers a {kind}")
        )
    share = max(job.ends - time.process_time(), 0) / of
    models: list[tuple[Tried, Answering]] = []
    problems = []
    ends = time.process_time() + share
    for place, way in enumerate(ways):
        started = time.process_time()
        left = max(ends - started, 0) / (len(ways) - place)
        if not left and models:
            problems.append(f"{way.name} left out, since the time was used up")
            continue
        model, rows = fit_within(
            way.fit, job.train.first(way.rows), seconds=left, cost=way.cost
        )
        if isinstance(model, str):
            problems.append(f"{way.name}: {model}")
            continue
        tried = Tried(way.name, rows, metric=JUDGED_BY[kind][0])
        some = job.validating(target)
        validated = model.answers(some) if len(some) else None
        score(tried, job.judged, target, some, validated)
        tried.seconds = time.process_time() - started
        models.append((tried, model))
    if not models:
        return "; ".join(dict.fromkeys(problems))
    _choose(result, job, target, models)
    return "; ".join(p for p in problems if "time was used up" in p)


def _choose(
    result: Classical, job: _Job, target: str, models: list[tuple[Tried, Answering]]
) -> None:
    """Answer the judged rows by all models, and keep the answers of the best one."""
    chosen = best_of([tried for tried, _ in models])
    for place, (tried, model) in enumerate(models):
        answers = model.answers(job.asked)
        score(tried, job.judged, target, None, answers)
        if place != chosen:
            continue
        result.answers[target] = answers
        if job.judged.kinds[target] == "set":
            thresholds = decided_thresholds(
                job.encoding,
                target,
                job.validating(target),
                model.answers(job.validating(target)) if len(job.validation) else {},
                [str(name) for name in job.judged.classes[target]],
            )
            if thresholds is not None:
                result.thresholds[target] = thresholds
    result.take(target, [tried for tried, _ in models], chosen)
