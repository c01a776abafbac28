"""Windows: samples cut out of steps that are stored once.

Numbers in, numbers out, but for `WindowShards` at the end.

Steps come sorted: series after series, each in the order of time, in unbroken runs (`segment`). A sample is
an anchor `a`, the first step that is not known: it reads the steps `[a - back, a + ahead)`, all of one
segment. It belongs to the split that holds all of `[a, a + ahead)`; what it looks back on may lie in an
earlier split (the past of a test window is no secret), never in a later one. A sample that straddles splits
belongs to none, and is counted.

    steps     …  t t t t t t t t v v v v v v e e e e …        t train, v validation, e test; back 3, ahead 2
    of train       [- - -|+ +]
    of validation            [- - -|+ +]                      looks back into train
    of none              [- - -|+ +]                          forecasts a step of train and one of validation
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.contracts.features import Feature, reach_of
from penstock.core.errors import UserError
from penstock.encode.encoding import WEIGHT

if TYPE_CHECKING:
    from penstock.shards.shards import Shards


@dataclass(frozen=True)
class Reach:
    """Which steps a sample reads."""

    back: int
    """Steps before the anchor."""
    ahead: int
    """Steps from the anchor on."""

    @property
    def steps(self) -> int:
        """How many steps a sample reads."""
        return self.back + self.ahead

    @classmethod
    def of(cls, inputs: Iterable[Feature], targets: Iterable[Feature]) -> Reach:
        """What all these features read together."""
        spans = [
            *(reach_of(f, target=False) for f in inputs),
            *(reach_of(f, target=True) for f in targets),
        ]
        # Never negative: a feature of the future alone looks back on nothing.
        return cls(
            max(0, *(-start for start, _ in spans)), max(0, *(stop for _, stop in spans))
        )


class Anchors:
    """The samples among steps that stream by.

    Args:
        reach: the steps that a sample reads.
        strides: for each split, every how many steps a sample begins; counted in each segment from its first
            sample of that split.
    """

    def __init__(self, reach: Reach, strides: Sequence[int] = (1, 1, 1)) -> None:
        self.reach = reach
        self.straddling = 0
        """Samples that belong to no split."""
        # By rank: train, validation, test.
        self._strides = np.array(strides, np.int64)
        # The last steps seen, as far back as a sample yet to come may read.
        self._segment, self._rank = np.empty(0, np.int64), np.empty(0, np.int8)
        self._end = 0
        self._first: dict[tuple[int, int], int] = {}

    @property
    def steps(self) -> int:
        """Steps that went by."""
        return self._end

    def update(
        self, segment: np.ndarray, rank: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Take in the next steps; the anchors of the samples that they complete, and the split of each.

        Args:
            segment: which unbroken run each step belongs to, int64 `[n]`, never falling.
            rank: 0 train, 1 validation, 2 test, int8 `[n]`.
        """
        # `base` is the number of the first kept step over all steps; places below count
        # from it.
        known = len(self._segment)
        base = self._end - known
        segment, rank = (
            np.concatenate([self._segment, segment]),
            np.concatenate([self._rank, rank]),
        )
        self._end = base + len(segment)
        last = np.arange(
            known, len(segment)
        )  # each new step, as the last one of a sample
        first = last + 1 - self.reach.steps
        last, first = last[first >= 0], first[first >= 0]
        unbroken = segment[first] == segment[last]
        last, first = last[unbroken], first[unbroken]
        # One past the last known step where nothing lies ahead, hence `minimum` below.
        anchor = last + 1 - self.reach.ahead
        split = rank[np.minimum(anchor, last)]
        # Changes of split so far, `[n]`: equal at two steps if and only if none lies
        # between them.
        changes = np.concatenate([[0], np.cumsum(rank[1:] != rank[:-1])])
        whole = changes[last] == changes[np.minimum(anchor, last)]
        # Looking back, a sample may see earlier splits and its own, never a later one.
        for before_later in (0, 1):
            later = np.concatenate([[0], np.cumsum(rank > before_later)])
            whole &= (split != before_later) | (later[anchor] == later[first])
        self.straddling += int((~whole).sum())
        last, anchor, split = last[whole], anchor[whole], split[whole]
        # With strides of 1, every sample counts and nothing has to be remembered.
        if (self._strides > 1).any():
            taken = self._stride(segment[last], split, anchor + base)
            anchor, split = anchor[taken], split[taken]
        # A sample that the next step completes begins at most so many steps back.
        tail = min(self.reach.steps - 1, len(segment))
        self._segment, self._rank = (
            segment[len(segment) - tail :],
            rank[len(rank) - tail :],
        )
        return anchor + base, split

    def _stride(
        self, segment: np.ndarray, split: np.ndarray, anchor: np.ndarray
    ) -> np.ndarray:
        """Which of the samples begin at a stride."""
        if not len(anchor):
            return np.zeros(0, bool)
        # One key for each segment and split.
        keys, places, group = np.unique(
            segment * 3 + split, return_index=True, return_inverse=True
        )
        # The first sample of a segment's split may have come with an earlier chunk.
        firsts = np.array(
            [
                self._first.get((int(k) // 3, int(k) % 3), int(anchor[i]))
                for k, i in zip(keys, places, strict=True)
            ]
        )
        # Segments never fall, so only the last one may go on.
        end = int(segment[-1])
        self._first = {k: v for k, v in self._first.items() if k[0] == end}
        self._first |= {
            (end, int(k) % 3): int(f)
            for k, f in zip(keys, firsts, strict=True)
            if int(k) // 3 == end
        }
        taken: np.ndarray = (anchor - firsts[group]) % self._strides[split] == 0
        return taken


def usual_distance(distances: np.ndarray) -> float | None:
    """The commonest distance above 0 (of several the smallest); None if there is none."""
    distances = distances[distances > 0]
    if not len(distances):
        return None
    # `unique` sorts, and `argmax` takes the first of equal counts: the smallest
    # distance.
    values, counts = np.unique(distances, return_counts=True)
    return float(values[np.argmax(counts)])


def broken(distances: np.ndarray, usual: float | None) -> np.ndarray:
    """Where a distance is not about the usual one: below half of it, or above one and a half (months are of
    one length here).
    """
    if usual is None:
        return np.zeros(len(distances), bool)
    return (distances < 0.5 * usual) | (distances > 1.5 * usual)


# Distances are in microseconds.
_SECOND = 1_000_000
_SEASONS = (  # at least so many microseconds apart → steps in a season
    (80 * 86_400 * _SECOND, 4),
    (27 * 86_400 * _SECOND, 12),
    (6 * 86_400 * _SECOND, 52),
    (86_400 * _SECOND * 9 // 10, 7),
)


def season_of(distance_us: float | None) -> int:
    """Steps after which a series of this distance usually repeats itself: a year of quarters or months or
    weeks, a week of days, a day of shorter steps down to a minute, an hour of still shorter ones down to a
    second. 1 where nothing is known.
    """
    # Beyond 100 days there is no season within a year.
    if not distance_us or distance_us > 100 * 86_400 * _SECOND:
        return 1
    for least, season in _SEASONS:
        if distance_us >= least:
            return season
    # Steps of a minute or more have a season of a day, shorter ones of an hour.
    span = 86_400 if distance_us >= 60 * _SECOND else 3_600
    return max(round(span * _SECOND / distance_us), 1) if distance_us >= _SECOND else 1


class Lagged:
    """The mean absolute change over `lag` steps of each variable, within segments, over training steps that
    stream by.
    """

    def __init__(self, lag: int, variables: int) -> None:
        self.lag = lag
        self._sum, self._count = np.zeros(variables), np.zeros(variables, np.int64)
        self._values, self._segment = np.empty((0, variables)), np.empty(0, np.int64)

    def update(self, values: np.ndarray, segment: np.ndarray) -> None:
        """Take in steps `[n, V]`, not a number where missing or where the step is not of the training
        split.
        """
        values, segment = (
            # With the tail of the steps before, so that a lag reaches across chunks.
            np.concatenate([self._values, values]),
            np.concatenate([self._segment, segment]),
        )
        change = np.abs(values[self.lag :] - values[: -self.lag])
        # No change is measured from one segment into another.
        change[segment[self.lag :] != segment[: -self.lag]] = np.nan
        # Steps that are missing or of other splits are NaN, and count in neither sum.
        self._sum += np.nansum(change, axis=0)
        self._count += np.isfinite(change).sum(axis=0)
        tail = min(self.lag, len(segment))
        self._values, self._segment = (
            values[len(values) - tail :],
            segment[len(segment) - tail :],
        )

    def result(self) -> list[float | None]:
        """By variable; None where no two steps so far apart were there."""
        return [
            float(s / c) if c else None
            for s, c in zip(self._sum, self._count, strict=True)
        ]


class WindowShards:
    """Samples as `Shards` has rows: `rows`, `names`, `gather`.

    Steps are gathered from the memory map, window by window.

    Args:
        anchors: int64 `anchor` for each sample of the split.
        steps: the arrays of features that read many steps, a row a step.
        singles: `row_id`, weight and the arrays of plain features, a row a step.
        layout: what `manifest["windows"]` says: `back`, `ahead`, `series` {feature: {`block`, `start`,
            `stop`}}, `before` (plain inputs).
    """

    def __init__(
        self, anchors: Shards, steps: Shards, singles: Shards, layout: Mapping[str, Any]
    ) -> None:
        self._anchors, self._steps, self._singles = anchors, steps, singles
        # Offsets of a sample's steps from its anchor, `[back + ahead]`.
        self._span = np.arange(-int(layout["back"]), int(layout["ahead"]))
        self._series: dict[str, dict[str, Any]] = dict(layout["series"])
        self._before = tuple(layout["before"])
        self.rows = anchors.rows
        self._blocks: dict[str, list[str]] = {}
        for name in steps.names:
            block, _, array = name.rpartition(".")
            self._blocks.setdefault(block, []).append(array)

    @property
    def names(self) -> list[str]:
        """The arrays that a sample has."""
        return [
            *self._singles.names,
            *(
                f"{feature}.{array}"
                for feature, place in self._series.items()
                for array in self._blocks.get(place["block"], ())
            ),
        ]

    @property
    def rows_by_shard(self) -> list[int]:
        """Samples of each shard of anchors."""
        return self._anchors.rows_by_shard

    def column(self, name: str) -> np.ndarray:
        """One dense array of a plain feature, for all samples."""
        # Anchors count steps over the whole feed.
        anchors = np.concatenate(
            [self._anchors.views(i)["anchor"] for i in range(len(self.rows_by_shard))]
            or [np.empty(0, np.int64)]
        )
        if name not in self._singles.names:
            raise UserError(
                f"{name.rpartition('.')[0]!r} has several values per sample. Rows can only be"
                " drawn by a feature with one"
            )
        whole = np.concatenate(
            [
                self._singles.views(i)[name]
                for i in range(len(self._singles.rows_by_shard))
            ]
        )
        column: np.ndarray = whole[
            anchors - 1 if name.rpartition(".")[0] in self._before else anchors
        ]
        return column

    def ragged(self) -> list[str]:
        """The ragged arrays of plain features."""
        return self._singles.ragged()

    def lengths(self, slots: np.ndarray, name: str) -> np.ndarray:
        """How many values a ragged array has in each sample of `slots`, int64 `[k]`."""
        anchors = self._anchors.gather(slots)["anchor"]
        return self._singles.lengths(
            anchors - 1 if name.rpartition(".")[0] in self._before else anchors, name
        )

    def gather(self, slots: np.ndarray, *, ragged: bool = False) -> dict[str, Any]:
        """The samples in `slots` (int64 `[k]`, in any order, repeats allowed), as arrays `[k, …]`; ragged
        arrays of plain features as `Ragged`, if asked for.
        """
        if not self.rows and not len(slots):
            return {}
        anchors = self._anchors.gather(slots)["anchor"]
        # what a sample is called, what it weighs, plain targets: at the anchor
        arrays = self._singles.gather(anchors, ragged=ragged)
        # A plain input is known one step before.
        if any(name.rpartition(".")[0] in self._before for name in arrays):
            earlier = self._singles.gather(anchors - 1, ragged=ragged)
            arrays |= {
                name: values
                for name, values in earlier.items()
                if name != WEIGHT and name.rpartition(".")[0] in self._before
            }
        # `[k · (back + ahead)]` rows of steps, windows one after another; overlaps are
        # read twice.
        steps = self._steps.gather((anchors[:, None] + self._span).reshape(-1))
        for feature, place in self._series.items():
            for array in self._blocks[place["block"]]:
                values = steps[f"{place['block']}.{array}"]
                # The feature's own part of each window, as a view.
                arrays[f"{feature}.{array}"] = values.reshape(
                    len(anchors), len(self._span), *values.shape[1:]
                )[:, place["start"] : place["stop"]]
        return arrays
