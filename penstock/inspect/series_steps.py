"""Whether rows are the steps of series, and how they are forecast: `samples`, windows and horizons.

    steps_of(…)      which columns tell time and series: distances are regular within each
    proposed(…)      window and horizon from the distance, the season and the length of the series

A table with a date is a forecast where its steps are regular and the target's past says something of its
future. Lengths are bounded so that every split has samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from penstock.encode.series.windows import broken, season_of, usual_distance
from penstock.inspect.alike import is_plain, next_to, ranks
from penstock.inspect.moments_of import Moments
from penstock.inspect.raw_column import Finding, Look
from penstock.inspect.wording import key

LEAST_STEPS = 40
"""Steps of a series; in fewer, a window and a horizon leave no samples in a split."""
_UNIQUE = 0.999
_REGULAR = 0.9
_LOOSE = 0.6
_KNOWN = 0.3
"""The least correlation of the target with its own past."""
_MOST_TRIED = 8
_MOST_INPUTS = 64
_DAY = 86_400e6
_SPANS = (
    # At least so far apart, in microseconds → steps forecast, steps looked back on, what they are.
    (300 * _DAY, 3, 10, "year"),
    (80 * _DAY, 4, 12, "quarter"),
    (27 * _DAY, 12, 36, "month"),
    (6 * _DAY, 4, 26, "week"),
    (0.9 * _DAY, 7, 28, "day"),
)


@dataclass(frozen=True)
class Steps:
    """Rows as steps: which columns order them and tell series apart."""

    time: Moments | None
    """None: rows follow one another as they stand."""
    entity: tuple[str, ...]
    group: np.ndarray
    """The series of each row `[N]`."""
    order: np.ndarray
    """Rows by series, then time `[N]`."""
    distance: float
    """How far apart steps usually are: microseconds, or counts."""
    gaps: float
    """The share of the steps that are not so far from the one before."""
    twins: int
    """Steps at the time of the one before."""
    business: bool = False
    """Days without weekends."""
    by_rows: bool = False
    """Whether a recipe takes the steps as the rows stand: the time tells no row from those of other files."""

    drawn: bool = False
    """Whether the rows were drawn here and there, so that few of them are neighbours."""

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each series."""
        return np.unique(self.group, return_counts=True)[1]


def steps_of(
    moments: Sequence[Moments], columns: Sequence[tuple[Look, Finding]]
) -> Steps | None:
    """The first column of moments whose distances are regular in every series.

    Args:
        moments: of the rows that are looked at, all of which stand one behind another in the source.
        columns: all but the target, with what was proposed for each.
    """
    for time in moments:
        if time.missing > 0.01:
            continue
        for names, group in _entities(time, columns):
            steps = _regular(time, names, group)
            if steps is not None:
                return steps
    return None


def _entities(
    time: Moments, columns: Sequence[tuple[Look, Finding]]
) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """Columns that together with the time name a row: none, one, or two."""
    rows = len(time.values)
    nothing = np.zeros(rows, np.int64)
    if _names_rows(nothing, time.values):
        return [((), nothing)]
    likely = [
        look
        for look, finding in columns
        if look.name != time.column
        and is_plain(look)
        and look.filled == look.rows
        and 2 <= look.distinct <= rows / LEAST_STEPS
        and (
            finding.type in ("category", "binary")
            or finding.role in ("code", "identifier", "leak")
            or (look.whole and look.distinct <= 5_000)
        )
        and not (look.numeric_share == 1 and not look.whole)
    ]
    # The fewest different values first: a store, before a store and its item.
    likely.sort(key=lambda look: look.distinct)
    entities: list[tuple[tuple[str, ...], np.ndarray]] = [
        ((look.name,), look.codes)
        for look in likely[-_MOST_TRIED:]
        if _names_rows(look.codes, time.values)
    ]
    if entities:
        return entities[:1]
    for one, other in combinations(likely[-_MOST_TRIED:], 2):
        group = one.codes * np.int64(other.distinct) + other.codes
        if _names_rows(group, time.values):
            return [((one.name, other.name), group)]
    # Two rows at one time now and then, as where clocks are set back.
    if _names_rows(nothing, time.values, least=0.98):
        return [((), nothing)]
    return []


def _names_rows(group: np.ndarray, time: np.ndarray, least: float = _UNIQUE) -> bool:
    order = np.lexsort((time, group))
    same = (np.diff(group[order]) == 0) & (np.diff(time[order]) == 0)
    return bool(same.sum() <= (1 - least) * len(time))


def _regular(time: Moments, names: tuple[str, ...], group: np.ndarray) -> Steps | None:
    there = np.isfinite(time.values)
    order = np.lexsort((time.values, group))
    order = order[there[order]]
    mine, at = group[order], time.values[order]
    inside = np.diff(mine) == 0
    distances = np.diff(at)[inside]
    usual = usual_distance(distances)
    lengths = np.unique(mine, return_counts=True)[1]
    if usual is None or np.median(lengths) < LEAST_STEPS:
        return None
    twins = int((distances == 0).sum())
    odd = float(broken(distances, usual).mean())
    business = time.timed and abs(usual - _DAY) < 1 and _no_weekends(at)
    whole = np.abs(distances / usual - np.round(distances / usual)) < 0.05
    # Missing steps leave distances of two, three, … usual ones.
    loose = 1 - odd >= _LOOSE and float(whole.mean()) >= 0.95
    if odd > 1 - _REGULAR and not loose:
        return None
    return Steps(time, names, group, order, usual, odd, twins, business)


def _no_weekends(microseconds: np.ndarray) -> bool:
    # 1 January 1970 was a Thursday.
    weekday = (np.floor(microseconds / _DAY).astype(np.int64) + 3) % 7
    return len(weekday) >= 10 and float(np.mean(weekday >= 5)) < 0.02


def of_files(moments: Sequence[Moments], files: np.ndarray) -> Steps | None:
    """A series in each of several files, whose steps rise with the rows: they follow one another as they
    stand, since no column tells one series from another.

    Args:
        moments: of rows that stand one behind another.
        files: which file each of them is in `[n]`; not all files need be there.
    """
    for time in moments:
        if time.missing > 0.01:
            continue
        inside = np.diff(files) == 0
        if inside.any() and np.all(np.diff(time.values)[inside] > 0):
            steps = _regular(time, (), files)
            if steps is not None:
                return replace(steps, gaps=0.0, twins=0, by_rows=True)
    return None


def of_drawn(
    moments: Sequence[Moments], columns: Sequence[tuple[Look, Finding]], total: int
) -> Steps | None:
    """Series that share one calendar, told from rows that were drawn here and there: there are as many rows
    as series and moments together give.

    Args:
        moments: of the drawn rows.
        columns: all but the target, with what was proposed for each.
        total: rows of the whole source.
    """
    for time in moments:
        calendar = np.unique(time.values[np.isfinite(time.values)])
        usual = usual_distance(np.diff(calendar))
        if time.missing > 0.01 or usual is None or len(calendar) < LEAST_STEPS:
            continue
        business = time.timed and abs(usual - _DAY) < 1 and _no_weekends(calendar)
        odd = float(broken(np.diff(calendar), usual).mean())
        if odd > 1 - _REGULAR and not business:
            continue
        for names, group in _entities(time, columns):
            series = len(np.unique(group))
            if names and 0.8 <= total / (series * len(calendar)) <= 1.05:
                order = np.lexsort((time.values, group))
                return Steps(
                    time, names, group, order, usual, odd, 0, business, drawn=True
                )
    return None


def holds(steps: Steps, looks: Mapping[str, Look], time: Moments | None) -> bool:
    """Whether time and names tell one row from another among other rows, too.

    Args:
        looks: by column: those rows.
        time: their moments.
    """
    if steps.time is None or time is None:
        return True
    group = np.zeros(len(time.values), np.int64)
    for name in steps.entity:
        group = group * np.int64(looks[name].distinct + 1) + looks[name].codes
    return _names_rows(group, time.values, least=0.98)


def in_row_order(rows: int) -> Steps:
    """Rows as the steps of one series in the order in which they stand."""
    places = np.arange(rows)
    return Steps(None, (), np.zeros(rows, np.int64), places, 1.0, 0.0, 0)


def forecastable(steps: Steps, target: Look) -> float:
    """How much the target's own past says of it: the largest correlation with a step before, or a season."""
    values = _in_order(steps, target)
    lags = {1} if steps.drawn else {1, season(steps, target)}
    return max(next_to(values, ordered=True, lag=lag) for lag in lags)


def _in_order(steps: Steps, look: Look) -> np.ndarray:
    """A column's values series by series, gaps between two."""
    values = ranks(look.numbers)[steps.order]
    group = steps.group[steps.order]
    apart = np.diff(group) != 0
    if steps.drawn and steps.time is not None:
        at = steps.time.values[steps.order]
        apart |= broken(np.diff(at), steps.distance)
    ends = np.flatnonzero(apart) + 1
    # A few gaps keep the end of one series from the beginning of the next.
    return np.insert(values, np.repeat(ends, 3), np.nan)


def season(steps: Steps, target: Look) -> int:
    """Steps after which the target repeats itself: by the calendar, else where it is most like itself."""
    timed = steps.time is not None and steps.time.timed
    by_calendar = season_of(steps.distance) if timed else 1
    if steps.business:
        by_calendar = 5
    if by_calendar > 1:
        return by_calendar
    values = _in_order(steps, target)
    most = int(min(400, np.median(steps.lengths) // 4))
    if most < 4:
        return 1
    likeness = np.array(
        [next_to(values, ordered=True, lag=lag) for lag in range(1, most + 1)]
    )
    # A peak, not the slope down from one step to the next.
    inner = np.flatnonzero(
        (likeness[1:-1] > likeness[:-2]) & (likeness[1:-1] >= likeness[2:])
    )
    peaks = [i + 1 for i in inner.tolist() if likeness[i + 1] >= _KNOWN]
    if not peaks:
        return 1
    best = max(likeness[i] for i in peaks)
    # Of a season and its multiples the shortest.
    return next(i for i in peaks if likeness[i] >= 0.9 * best) + 1


@dataclass(frozen=True)
class Forecast:
    """Words of a recipe that forecasts."""

    samples: dict[str, object]
    split: dict[str, object]
    columns: tuple[str, ...]
    """Numbers that are looked back on; the target first."""
    target: str
    window: int
    horizon: int
    known: tuple[str, ...]
    """Plain inputs beside: the moment, and the names of the series."""
    distance_words: str
    why_split: str
    why_samples: str
    why_window: str
    why_horizon: str


def proposed(
    steps: Steps,
    target: Look,
    columns: Sequence[tuple[Look, Finding]],
    *,
    whole: float = 1.0,
) -> Forecast | None:
    """How to forecast the target; None where the series are too short.

    Args:
        whole: how many times as many steps a series of the whole source has.
    """
    lengths = steps.lengths * whole
    length = float(np.median(lengths))
    ahead, back, words = _spans(steps, target)
    if words == "day" and steps.business:
        ahead, back = 5, 20
    share = 0.1 if length >= 20 * ahead else 0.15
    # Half of a split's steps at most, so that the other half begins a sample each.
    horizon = int(max(1, min(ahead, share * length / 2)))
    training = (1 - 2 * share) * length
    shortest = float(np.min(lengths)) * (1 - 2 * share)
    window = int(max(2, min(back, training / 3, max(shortest - horizon, 2))))
    if training < window + horizon + 5 or length * share < horizon + 1:
        return None
    gap, why_gap = _on_gap(steps, window + horizon)
    numbers = [
        look.name
        for look, finding in columns
        if finding.type == "number"
        and look.name not in steps.entity
        and finding.role != "code"
        and (steps.time is None or look.name != steps.time.column)
    ][: _MOST_INPUTS - 1]
    time = None if steps.time is None or steps.by_rows else steps.time.column
    samples: dict[str, object] = {} if time is None else {"time": time}
    if steps.entity:
        samples["entity"] = list(steps.entity)
    if gap != "split":
        samples["on_gap"] = gap
    split: dict[str, object] = (
        {"by": "order"} if time is None else {"by": "time", "on": time}
    )
    if share != 0.1:
        split |= {"train": 0.7, "validation": 0.15, "test": 0.15}
    series = f"{len(lengths):,} series" if steps.entity else "one series"
    known = [] if steps.time is None or not steps.time.timed else [steps.time.column]
    names = ", ".join(map(key, steps.entity))
    return Forecast(
        samples,
        split,
        (target.name, *numbers),
        target.name,
        window,
        horizon,
        (*known, *steps.entity),
        words,
        "the earliest rows teach and the latest examine, as a forecast meets them",
        f"each row is a step, {_apart(steps, words)}; {series}"
        + (" in each file" if steps.by_rows else "")
        + (f" by {names}" if names else "")
        + (f"; {why_gap}" if why_gap else ""),
        f"{window} steps back",
        f"{horizon} steps ahead",
    )


def _spans(steps: Steps, target: Look) -> tuple[int, int, str]:
    """Steps to forecast, steps to look back on, and what a step is."""
    if steps.time is not None and steps.time.timed:
        for least, ahead, back, words in _SPANS:
            if steps.distance >= least:
                return ahead, back, words
        day = max(round(_DAY / steps.distance), 2)
        if day <= 96:
            word = "hour" if day == 24 else f"{1440 / day:.3g} minutes"
            return day, min(3 * day if day > 24 else 96, 288), word
        minutes = 60e6 / steps.distance
        hour = max(round(60 * minutes), 12)
        seconds = 60 / minutes
        word = (
            f"{seconds / 60:.3g} minutes" if seconds >= 60 else f"{seconds:.3g} seconds"
        )
        return min(hour, 96), min(3 * hour, 288), word
    repeats = season(steps, target)
    if repeats > 1:
        return (
            min(repeats, 96),
            min(3 * repeats, 288),
            "row" if steps.time is None else "step",
        )
    return 12, 48, "row" if steps.time is None else "step"


def _apart(steps: Steps, words: str) -> str:
    if steps.time is None:
        return "in the order of the file"
    if steps.business:
        return "a business day after the one before"
    one = {"hour": "an hour"}.get(words, words if words[0].isdigit() else f"a {words}")
    return f"{one} after the one before"


def _on_gap(steps: Steps, span: int) -> tuple[str, str]:
    """What is done at a gap: samples reach across where cutting would cost too many of them."""
    if steps.business:
        return "ignore", "weekends and holidays are no gaps"
    if steps.drawn:
        return "split", ""
    if steps.twins:
        return (
            "ignore",
            f"{steps.twins:,} steps are at the time of the one before, and are taken as they come",
        )
    if not steps.gaps or steps.time is None:
        return "split", ""
    order = steps.order
    at, group = steps.time.values[order], steps.group[order]
    ends = np.diff(group) != 0
    cut = ends | broken(np.diff(at), steps.distance)
    whole, parts = _samples(ends, span), _samples(cut, span)
    gaps = f"{steps.gaps:.1%} of the steps are not so far from the one before"
    if parts >= 0.7 * whole:
        return "split", f"{gaps}, and no sample reaches across"
    return (
        "ignore",
        f"{gaps}: samples reach across, since cutting there would leave {parts:,} of {whole:,}",
    )


def _samples(cuts: np.ndarray, span: int) -> int:
    """Windows of `span` steps that no cut goes through."""
    edges = np.flatnonzero(np.concatenate([[True], cuts, [True]]))
    lengths = np.diff(edges)
    return int(np.maximum(lengths - span + 1, 0).sum())
