"""The laws of metrics: `check(Metric.load("acme.hit_rate"))` judges one over every kind of target it is for.

Rows are drawn from chance with a fixed seed; give `specimens` for a metric that needs others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.contracts.metric import ANSWER, Forecasting, Kind, Metric, Scale
from penstock.metrics import Measures, intervals, measure, resampled
from penstock.metrics.bootstrap import resampling_counts
from penstock.metrics.means import grouped
from penstock.metrics.rows import prepare
from penstock.train.plain import pack, unpack

MOST_BYTES = 96 * 2**20
"""What a metric may hold on to, however many rows there are."""
_BATCHES = 64
_LONGEST_PHRASE = 100
_CLASSES = 3
_WORDS = "the cat sat on a mat and looked at us".split()


@dataclass(frozen=True)
class Specimen:
    """Rows of one kind of target, answered."""

    kind: Kind
    truth: np.ndarray
    answers: Mapping[str, np.ndarray]
    weight: np.ndarray | None = None
    scale: Scale = None

    def take(self, rows: np.ndarray, weight: np.ndarray | None = None) -> Specimen:
        """Some of the rows `[n]`, in this order, with weights of their own or those they have."""
        own = None if self.weight is None else self.weight[rows]
        answers = {name: values[rows] for name, values in self.answers.items()}
        return Specimen(
            self.kind,
            self.truth[rows],
            answers,
            own if weight is None else weight,
            self.scale,
        )

    def __len__(self) -> int:
        return len(self.truth)


Law = Callable[[Metric, Specimen], None]


def specimen(kind: Kind, rows: int = 60, *, seed: int = 0) -> Specimen:
    """Rows of this kind of target, some answered better than others; every class and some ties are there."""
    chance = np.random.default_rng(seed)
    truth: np.ndarray
    answer: np.ndarray
    if kind == "series":
        truth = chance.normal(size=(rows, 3, 2))
        answer = truth + chance.normal(size=truth.shape) / 3
        return Specimen(
            kind, truth, {"values": answer}, scale=Forecasting((1.0, 2.0), (0.5, 1.0))
        )
    if kind == "text":
        texts = [" ".join(chance.choice(_WORDS, 4 + i % 4)) for i in range(2 * rows)]
        answer = np.array(
            [*texts[: rows // 2], *texts[rows : 2 * rows - rows // 2]], object
        )
        return Specimen(kind, np.array(texts[:rows], object), {"text": answer})
    if kind == "number":
        truth = chance.normal(size=rows) * 3 + 10
        return Specimen(
            kind, truth, {"value": truth + chance.normal(size=rows)}, scale=3.0
        )
    if kind == "binary":
        truth = np.arange(rows) % 2
        share = np.round(0.3 * truth + 0.7 * chance.random(rows), 2)
        return Specimen(kind, truth, {"probability": share})
    if kind == "set":
        truth = ((np.arange(rows)[:, None] + np.arange(_CLASSES)) % 3 == 0).astype(
            np.uint8
        )
        return Specimen(
            kind, truth, {"probabilities": 0.3 * truth + 0.7 * chance.random(truth.shape)}
        )
    shape = (rows,) if kind == "category" else (rows, 4)
    truth = np.arange(math.prod(shape)).reshape(shape) % _CLASSES
    shares = (
        chance.dirichlet(np.ones(_CLASSES), shape) * 0.7 + 0.3 * np.eye(_CLASSES)[truth]
    )
    return Specimen(kind, truth, {"probabilities": shares})


def perfect(given: Specimen) -> Specimen:
    """The same rows, answered right and without a doubt."""
    truth = given.truth
    right: dict[Kind, Callable[[], np.ndarray]] = {
        "binary": lambda: truth.astype(np.float64),
        "category": lambda: np.eye(_CLASSES)[truth],
        "sequence": lambda: np.eye(_CLASSES)[truth],
        "set": lambda: truth.astype(np.float64),
        "number": lambda: truth,
        "series": lambda: truth,
        "text": lambda: truth,
    }
    return Specimen(
        given.kind,
        truth,
        {ANSWER[given.kind]: right[given.kind]()},
        given.weight,
        given.scale,
    )


def _value(metric: Metric, given: Specimen) -> Any:
    return measure([metric], given.truth, given.answers, given.weight, scale=given.scale)[
        metric.title
    ]


def declares(metric: Metric, given: Specimen) -> None:
    """Declared → loaded → declared is the identity; it judges some kind of target; its bounds are in
    order.
    """
    again = Metric.load(json.loads(json.dumps(metric.to_dict())))
    assert again == metric, (
        f"declares: loaded from its own declaration it is {again!r}; expected {metric!r}"
    )
    assert set(metric.kinds) <= set(ANSWER) and metric.kinds, (
        f"declares: `kinds` must be some of {', '.join(ANSWER)}; found {metric.kinds}"
    )
    assert metric.better in ("higher", "lower"), (
        "declares: `better` must be 'higher' or 'lower'"
    )
    assert metric.bounds[0] < metric.bounds[1], (
        f"declares: bounds {metric.bounds} are in no order"
    )


def explains(metric: Metric, given: Specimen) -> None:
    """Its phrase is a line that continues `name: …`; only a metric of one's own may go without."""
    is_own = "." in metric.type
    assert is_own or metric.phrase, f"{metric.type} has no phrase"
    is_line = "\n" not in metric.phrase and len(metric.phrase) <= _LONGEST_PHRASE
    assert is_line and not metric.phrase.endswith("."), (
        f"expected a phrase of one line, up to {_LONGEST_PHRASE} characters and without a full stop; found"
        f" {metric.phrase!r}"
    )


def halves_merged_equal_the_whole(metric: Metric, given: Specimen) -> None:
    """Rows in any order, cut anywhere and merged in any order, give the same to the last bit."""
    chance = np.random.default_rng(1)
    weighted = given.take(np.arange(len(given)), chance.random(len(given)) + 0.1)
    for rows in (given, weighted):
        whole = _value(metric, rows)
        for pieces in ([len(rows) // 2], [1, len(rows) // 3]):
            parts = [
                _seen(metric, rows.take(piece))
                for piece in np.split(chance.permutation(len(rows)), pieces)
            ]
            first, *others = reversed(parts)
            for other in others:
                first.merge(other)
            assert first.result()[metric.title] == whole, (
                f"halves_merged_equal_the_whole: {first.result()[metric.title]} in {len(parts)} pieces, and"
                f" {whole} at once"
            )


def goes_between_processes(metric: Metric, given: Specimen) -> None:
    """What one process has seen arrives in another by `state` and `restore`, to the last bit."""
    half = np.arange(len(given) // 2)
    ours, theirs = given.take(half), given.take(np.arange(len(half), len(given)))
    here = Measures([metric], scale=given.scale)
    # The one that has seen nothing learns from the state what is judged.
    for part in (theirs, ours):
        sent = pack(_seen(metric, part).state())
        arrived = here.empty()
        arrived.restore(unpack(sent))
        here.merge(arrived)
    whole, value = _value(metric, given), here.result()[metric.title]
    assert value == whole, (
        f"goes_between_processes: {value} of what arrived, and {whole} at once"
    )


def _seen(metric: Metric, given: Specimen) -> Measures:
    measures = Measures([metric], scale=given.scale)
    measures.update(given.truth, given.answers, given.weight)
    return measures


def weights_count_rows(metric: Metric, given: Specimen) -> None:
    """A weight of two is a row twice, and a row of weight 0 is not there."""
    if not metric.scalar:
        return
    weight = np.random.default_rng(2).integers(0, 3, len(given))
    every = np.arange(len(given))
    weighted = _value(metric, given.take(every, weight.astype(np.float64)))
    wanted = _value(metric, given.take(np.repeat(every, weight)))
    assert _alike(weighted, wanted), (
        f"weights_count_rows: {weighted} by weight, {wanted} by rows given again"
    )


def within_its_bounds(metric: Metric, given: Specimen) -> None:
    """A value is a finite number within `bounds`, and so is its interval."""
    if not metric.scalar:
        return
    low, high = metric.bounds
    value = _value(metric, given)
    assert isinstance(value, float) and low <= value <= high, (
        f"within_its_bounds: {value} does not lie between {low} and {high}"
    )
    interval = intervals(
        [metric], given.truth, given.answers, resamples=30, scale=given.scale
    )[metric.title]
    assert interval is not None and low <= interval[0] <= interval[1] <= high, (
        f"within_its_bounds: the interval is {interval}"
    )


def right_answers_are_best(metric: Metric, given: Specimen) -> None:
    """Right answers are no worse than the specimen's, and those no worse than answers to other rows."""
    if not metric.scalar:
        return
    sign = 1.0 if metric.better == "higher" else -1.0
    best, value = _value(metric, perfect(given)), _value(metric, given)
    assert best is None or sign * best >= sign * value, (
        f"right_answers_are_best: right answers get {best}, others {value}, and {metric.better} is better"
    )


def resampling_is_weighing(metric: Metric, given: Specimen) -> None:
    """A resampling has the value that the rows have with its counts as weights."""
    if not metric.scalar:
        return
    draws = resampled(
        [metric], given.truth, given.answers, resamples=4, seed=3, scale=given.scale
    )
    (drawn,) = resampling_counts(len(given), 4, 3)  # so few rows come in one piece
    for counts, drawn_value in zip(drawn, draws[metric.title], strict=True):
        wanted = _value(metric, given.take(np.arange(len(given)), counts))
        assert _alike(float(drawn_value), wanted), (
            f"resampling_is_weighing: {drawn_value} when resampled, {wanted} when measured with those weights"
        )


def asks_twice(metric: Metric, given: Specimen) -> None:
    """Asking changes nothing, and rows are left as they were."""
    before = (
        given.truth.copy(),
        {name: values.copy() for name, values in given.answers.items()},
    )
    sums = _seen(metric, given)
    assert sums.result() == sums.result(), "asks_twice: asked twice, it answers twice"
    same = [np.array_equal(given.truth, before[0])]
    same += [
        np.array_equal(values, before[1][name]) for name, values in given.answers.items()
    ]
    assert all(same), "asks_twice: it changed the rows"


def bounded(metric: Metric, given: Specimen) -> None:
    """What is held stops growing, and is no more than `MOST_BYTES`, however many rows come."""
    rows = 16 if given.kind == "text" else 1 << 17
    more = specimen(given.kind, rows)
    ready = prepare(more.truth, more.answers, None, threshold=0.5, scale=more.scale)
    ((statistic, _members),) = grouped([metric], given.kind)
    sums = statistic.accumulator()
    before = -rows
    for _batch in range(_BATCHES):
        sums.update(ready)
        size = _bytes(vars(sums))
        assert size <= MOST_BYTES, (
            f"bounded: it holds {size:,} bytes, more than {MOST_BYTES:,}"
        )
        if size - before < rows / 8:
            return
        before = size
    raise AssertionError(
        f"bounded: after {_BATCHES} batches of {rows:,} rows it still grows"
    )


def _bytes(value: Any) -> int:
    """The bytes of all arrays, texts and numbers within a value."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, (str, bytes, int, float)):
        return value.__sizeof__()
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return sum(map(_bytes, value))
    return _bytes(vars(value)) if hasattr(value, "__dict__") else 0


def _alike(one: float | None, other: float | None) -> bool:
    if one is None or other is None or math.isnan(one):
        return other is None and (one is None or math.isnan(one))
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9)


LAWS: tuple[Law, ...] = (
    declares,
    explains,
    halves_merged_equal_the_whole,
    goes_between_processes,
    weights_count_rows,
    within_its_bounds,
    right_answers_are_best,
    resampling_is_weighing,
    asks_twice,
    bounded,
)


def check(metric: Metric, specimens: Sequence[Specimen] = ()) -> None:
    """Judge a metric by every law.

    Args:
        specimens: the rows it is judged over; some of each kind of target that it is for unless given.

    Raises:
        AssertionError: names the law and the difference.
    """
    for given in specimens or [specimen(kind) for kind in metric.kinds]:
        for law in LAWS:
            law(metric, given)
