"""How figures are taken: interleaved pairs, medians, bootstrap bounds of the ratio; one JSON line a figure.

Machines are noisy and get slower and faster in waves, so ours and the other's run alternate, and the ratio is
taken within each pair. Where the two live in processes of their own (`benchmarks.peers`), each process times
its own work, threads and children counted, and says how many rows it was: ratios are then of seconds a row.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np


class Cannot(Exception):
    """This machine cannot run the benchmark; the message says why."""


@dataclass(frozen=True)
class Pairs:
    """Seconds of interleaved runs."""

    ours: np.ndarray
    other: np.ndarray

    @property
    def ratio(self) -> float:
        """Median over pairs of other ÷ ours: above 1, ours is faster."""
        return float(np.median(self.other / self.ours))

    def bounds(
        self, *, confidence: float = 0.95, resamples: int = 2000
    ) -> tuple[float, float]:
        """Bootstrap bounds of the median ratio."""
        ratios = self.other / self.ours
        rng = np.random.default_rng(0)
        medians = np.median(rng.choice(ratios, (resamples, len(ratios))), axis=1)
        edge = (1 - confidence) / 2
        return float(np.quantile(medians, edge)), float(np.quantile(medians, 1 - edge))


@dataclass(frozen=True)
class Took:
    """One run, as measured within the process that did it."""

    seconds: float
    cpu_seconds: float
    """Of all its threads and children."""
    rows: int
    whole_cpu_seconds: float = 0.0
    """Likewise, with what is around the part that was timed: start, saving, end."""


@dataclass(frozen=True)
class Compared:
    """Interleaved runs of ours and the other's, in seconds a row."""

    wall: Pairs
    cpu: Pairs
    rows: int
    other_rows: int
    """Rows of one run."""

    def reaches(self, least: float, *, by_bound: bool = False) -> bool:
        """Whether the ratio is at least so much, by CPU and by wall: both medians, or both lower bounds."""
        return all(
            (pairs.bounds()[0] if by_bound else pairs.ratio) >= least
            for pairs in (self.cpu, self.wall)
        )


def interleave(
    ours: Callable[[], object],
    other: Callable[[], object],
    *,
    pairs: int = 10,
    cpu: bool = False,
) -> Pairs:
    """Run both, alternately, `pairs` times; the first of a pair changes each time.

    Args:
        cpu: take the process's CPU seconds instead of the wall's.
    """
    clock = time.process_time if cpu else time.perf_counter

    def timed(run: Callable[[], object]) -> float:
        gc.collect()
        start = clock()
        run()
        return clock() - start

    ours(), other()  # warm
    found = [
        (timed(a), timed(b)) if i % 2 else tuple(reversed((timed(b), timed(a))))
        for i, (a, b) in enumerate([(ours, other)] * pairs)
    ]
    return Pairs(np.array([a for a, _ in found]), np.array([b for _, b in found]))


def compare(
    ours: Callable[[int], Took],
    other: Callable[[int], Took],
    *,
    pairs: int = 10,
    least: int = 10,
    limit_seconds: float = 240.0,
) -> Compared:
    """Run both, alternately; the first of a pair changes each time.

    Each is given the number of the round, to shuffle by.

    Args:
        pairs: how many; the same number for everything of one kind.
        least: after so many, `limit_seconds` may end it early.
    """
    first = ours(0), other(0)  # warm
    found: list[tuple[Took, Took]] = []
    end = time.monotonic() + limit_seconds
    while len(found) < pairs and (len(found) < least or time.monotonic() < end):
        turn = len(found) + 1
        if turn % 2:
            mine = ours(turn)
            found.append((mine, other(turn)))
        else:
            theirs = other(turn)
            found.append((ours(turn), theirs))

    def each(word: str) -> Pairs:
        return Pairs(
            *(
                np.array([getattr(pair[side], word) / pair[side].rows for pair in found])
                for side in (0, 1)
            )
        )

    return Compared(each("seconds"), each("cpu_seconds"), first[0].rows, first[1].rows)


def say(
    *,
    name: str,
    value: float,
    unit: str,
    ours: str = "penstock",
    other: str | None = None,
    ratio: float | None = None,
    goal: str | None = None,
    holds: bool | None = None,
    **more: object,
) -> None:
    """Print one figure as a JSON line."""
    line = {
        "name": name,
        "ours": ours,
        "other": other,
        "value": round(value, 6),
        "unit": unit,
        "ratio": None if ratio is None else round(ratio, 3),
        "goal": goal,
        "holds": holds,
        **more,
    }
    print(json.dumps(line), flush=True)


def say_compared(
    found: Compared,
    *,
    name: str,
    other: str,
    unit: str = "rows",
    per_row: float = 1.0,
    least: float | None = None,
    by_bound: bool = False,
    **more: object,
) -> None:
    """Print a comparison as a JSON line: `value` is what ours does in a second of CPU, `ratio` that of CPU a
    row.

    Args:
        unit: what is counted, `per_row` of them a row.
        least: the goal for the ratio, by CPU and by wall; None: only stated.
        by_bound: the lower bounds must reach it, not the medians.
    """

    def each(pairs: Pairs, side: str) -> float:
        return round(per_row / float(np.median(getattr(pairs, side))), 1)

    say(
        name=name,
        other=other,
        value=each(found.cpu, "ours"),
        unit=f"{unit}/CPU-s",
        ratio=found.cpu.ratio,
        goal=None
        if least is None
        else f"{'lower bound ' if by_bound else ''}≥ {least:g}",
        holds=None if least is None else found.reaches(least, by_bound=by_bound),
        bounds=_rounded(found.cpu.bounds()),
        wall_ratio=round(found.wall.ratio, 3),
        wall_bounds=_rounded(found.wall.bounds()),
        a_second={"ours": each(found.wall, "ours"), "other": each(found.wall, "other")},
        a_cpu_second={"ours": each(found.cpu, "ours"), "other": each(found.cpu, "other")},
        pairs=len(found.cpu.ours),
        rows=found.rows,
        other_rows=found.other_rows,
        **more,
    )


def folder_in(variable: str, lacks: str) -> Path:
    """The folder that an environment variable names.

    Args:
        lacks: what is said where it names none, behind its name.

    Raises:
        Cannot: it names none.
    """
    folder = os.environ.get(variable)
    if not folder:
        raise Cannot(f"{variable} names no folder with {lacks}")
    return Path(folder)


def skip(name: str, reason: object) -> None:
    """Print that a figure could not be taken here, and why."""
    print(json.dumps({"name": name, "skipped": str(reason)}), flush=True)


def size(word: str, default: int) -> int:
    """A size that an environment variable may change: `BENCH_<WORD>`."""
    return int(os.environ.get(f"BENCH_{word}", default))


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A folder for a benchmark: below `BENCH_FOLDER`, where it stays and its data are found again, or a
    temporary one.
    """
    kept = os.environ.get("BENCH_FOLDER")
    if kept:
        folder = Path(kept).resolve() / name
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as temporary:
        yield Path(temporary)


def _rounded(bounds: tuple[float, float]) -> list[float]:
    return [round(bound, 3) for bound in bounds]
