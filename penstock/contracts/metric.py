"""What a metric promises: a statistic of each row, added up in bounded memory, and a number that follows.

    rows ──statistic──▶ one number a row ──added up──▶ totals ──value──▶ the metric

Training (one rank's batches), evaluation (a split that does not fit in memory) and a stream (for ever) add up
the same way, and pieces merge, so none of them needs all rows at once. A confidence interval needs no code of
its own either: resampling rows changes their weights, and so the totals.

Most metrics are a file with `kinds`, `better` and `statistic`. One whose totals are no means of single rows
(a ranking, counts by class) names a `Statistic` of its own in `sums`; `penstock.metrics` has some to share.

Shapes: N rows, K classes, H steps, V variables, R resamplings (1: the rows themselves).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from pydantic import Field

from penstock.contracts.part import Part
from penstock.core.errors import RecipeError

Kind = Literal["binary", "category", "number", "set", "sequence", "series", "text"]
ANSWER: dict[Kind, str] = {
    "binary": "probability",
    "category": "probabilities",
    "number": "value",
    "set": "probabilities",
    "sequence": "probabilities",
    "series": "values",
    "text": "text",
}
"""By kind of target, the answer that is measured."""

T = TypeVar("T")


@dataclass(frozen=True)
class Forecasting:
    """What errors of a forecast are in units of."""

    std: tuple[float, ...]
    """Each variable's deviation in the training split."""
    naive: tuple[float | None, ...] = ()
    """Each variable's mean absolute change over one season in the training split: the seasonal naive
    forecast's error.
    """
    levels: tuple[float, ...] = ()
    """The quantiles that are answered."""
    block: int = 1
    """How many neighbouring rows a resampling draws together."""

    @classmethod
    def of(cls, facts: Mapping[str, Any], *, block: int = 1) -> Forecasting | None:
        """From a target's facts, or None if it is no series."""
        # Only a series' target has both.
        if "variables" not in facts or "std" not in facts:
            return None
        return cls(
            tuple(facts["std"]),
            tuple(facts.get("naive") or ()),
            tuple(facts.get("quantiles") or ()),
            block,
        )


Scale = float | Forecasting | None
"""What errors are in units of: of a number its deviation in the training split, of a series each variable's
and more; None: the truth's own.
"""
Threshold = float | Sequence[float] | np.ndarray
"""The least probability that is answered: one, or one a label `[K]`."""


@dataclass
class Rows:
    """N rows of one target, made ready for every metric; of a sequence, N steps of all rows.

    Rows of weight 0 are not among them, nor rows of a series of which nothing was observed.
    """

    kind: Kind
    truth: np.ndarray
    """int64 `[N]` class; float64 `[N]` number; of a set uint8 `[N, K]`; of a series float64 `[N, H, V]`, not
    a number where nothing was observed; of texts object `[N]`.
    """
    answer: np.ndarray
    """`[N]` probability of the positive class, `[N, K]` probabilities, float64 `[N]` numbers, float64
    `[N, H, V]` values of a series, or object `[N]` texts.
    """
    weight: np.ndarray
    """float64 `[N]`, above 0."""
    predicted: np.ndarray
    """int64 `[N]` class answered (K: none was, for a step beyond what the model read); of a set bool `[N,
    K]`; empty for numbers, series and texts.
    """
    classes: int
    """K; 2 for binary, 0 for what has no classes."""
    broken: int = 0
    """Rows whose answer or truth is not finite. With any, nothing is measured."""
    owner: np.ndarray | None = None
    """Of a sequence: which row each step belongs to, int64 `[N]`, ascending; of a series, which block of rows
    each belongs to.
    """
    owners: int = 0
    """Of a sequence: how many rows there are, those without a step included."""
    scale: Scale = None
    quantiles: np.ndarray | None = None
    """Of a series whose model answers some: `[N, H, V, Q]`, by `scale.levels`."""
    _shared: dict[str, Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def resampled(self) -> int:
        """How many rows a resampling draws: the steps of a row go together."""
        return len(self) if self.owner is None else self.owners

    def spread(self, by_row: np.ndarray) -> np.ndarray:
        """What is known of each row `[…, rows]`, for each of the N."""
        return by_row if self.owner is None else by_row[..., self.owner]

    def correct(self) -> np.ndarray:
        """Whether each row is answered right (of a set: wholly), float64 `[N]`."""
        right = self.truth == self.predicted
        # Of a set, one wrong label makes the row wrong.
        return np.asarray(right.all(axis=1) if self.kind == "set" else right, np.float64)

    def shared(self, name: str, make: Callable[[Rows], T]) -> T:
        """What several metrics want to know of these rows, computed for the first that asks.

        Args:
            name: the same for all who share it.
            make: computes it from these rows.
        """
        # Kept with the rows, so it goes when they do.
        if name not in self._shared:
            self._shared[name] = make(self)
        value: T = self._shared[name]
        return value


Totals = Mapping[str, np.ndarray]
"""What was added up, by name: `[R]`, or `[R, …]` where a name stands for several. R is 1 for the rows
themselves. Not a number where something is undefined.
"""


class Accumulator(ABC):
    """What has been added up so far, in memory that does not grow with rows.

    Laws (penstock.testing.laws.metrics): merging is associative and commutative; halves merged equal the
    whole.
    """

    @abstractmethod
    def update(self, rows: Rows) -> None:
        """Take in rows. They may be kept, and must not be changed."""

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Take in all that `other` has seen; `other` is used up."""

    @abstractmethod
    def totals(self) -> Totals:
        """What came together, with R = 1. Asking changes nothing."""

    def state(self) -> dict[str, Any]:
        """What it has seen, for `restore` of another one, perhaps in another process: numbers, texts, arrays,
        lists, mappings, `Rows` and exact sums (`metrics.exact.Cells`).

        All attributes but what it was made with (`Statistic`, `Metric`), unless you define it.
        """
        own = vars(self).items()
        return {n: v for n, v in own if not isinstance(v, (Statistic, Metric))}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Become what `state` described; it is empty before.

        Raises:
            ValueError: it describes another kind of accumulator.
        """
        if state.keys() != Accumulator.state(self).keys():
            raise ValueError(f"the state of {type(self).__name__} has {sorted(state)}")
        vars(self).update(state)


class Statistic(ABC):
    """What rows are added up to: best a frozen dataclass, so that metrics which name equal ones share one
    computation.
    """

    by_class: ClassVar[bool] = False
    """True: a resampling costs a pass over the rows for each class, so fewer rows are resampled where there
    are many.
    """

    def together(self, other: Statistic) -> Statistic | None:
        """One that serves the metrics of both, with the totals of both; None where there is nothing to
        share.
        """
        return self if self == other else None

    @abstractmethod
    def accumulator(self) -> Accumulator:
        """An empty one."""

    @abstractmethod
    def resampler(self, rows: Rows) -> Callable[[np.ndarray], Totals]:
        """A function from weights `[R, N]` to the totals that these rows have with them, prepared once.

        It holds on to no more of the rows than it needs.
        """


class Metric(Part):
    """What is measured of the answers to a target.

    `acme.hit_rate` in `evaluate.metrics` is one of your own.

    Laws (penstock.testing.laws.metrics): halves merged equal the whole; the order of rows is nothing; a
    weight of two is a row twice; right answers are no worse than wrong ones.
    """

    shelf: ClassVar[str] = "penstock.parts.metrics"
    kinds: ClassVar[tuple[Kind, ...]] = ()
    """The kinds of target that it judges."""
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    """Which way it gets better."""
    bounds: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    """The least and the greatest value it can have; intervals end there."""
    scalar: ClassVar[bool] = True
    """False for what is a list (per class) or a matrix; such have no interval and cannot be watched."""
    reported: ClassVar[tuple[Kind, ...] | None] = None
    """The kinds whose reports have it without being asked: all of `kinds` unless given. One of your own is
    reported where a recipe names it.
    """
    place: ClassVar[int] = 1000
    """Where it stands in a report: low numbers first, equal ones by name."""
    undefined: ClassVar[str] = "no rows"
    """When it has no value, in words, for the page of metrics."""
    phrase: ClassVar[str] = ""
    """What it says, for a reader who does not know it: one line, which continues `roc_auc: …`."""

    name: str | None = Field(None, pattern=r"^[A-Za-z_]\w*$")
    """What reports and `early_stop.metric` call it; its type unless given."""

    @property
    def title(self) -> str:
        """What reports and `early_stop.metric` call it."""
        return self.name or self.type

    def statistic(self, rows: Rows) -> np.ndarray | dict[str, np.ndarray]:
        """One finite number a row `[N]`, which is averaged by weight (`mean` among the totals), or several by
        name; not a number where a row has none.

        Whoever names another `sums` need not have this.
        """
        raise RecipeError(
            f"the metric {self.type!r} has no `statistic` and no `sums`. Define one of"
            " them"
        )

    def sums(self, kind: Kind) -> Statistic | None:
        """What its rows are added up to; None: the means of `statistic`."""
        return None

    def value(self, totals: Totals) -> np.ndarray:
        """The metric `[R]` from its totals; not a number where it is undefined."""
        return totals["mean"]

    def result(self, totals: Totals) -> Any:
        """What a report says (JSON): one number, or None where it is undefined. R is 1."""
        return number(self.value(totals)[0])


def number(value: float) -> float | None:
    """A float for JSON, which has no NaN: None says the same."""
    return float(value) if math.isfinite(value) else None
