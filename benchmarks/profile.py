"""Profiling all rows of Adult resampled with noise, beside preparing the same file and beside ydata-profiling
and Evidently; and a table of thousands of columns under a ceiling.

Every measurement is a process of its own, whose imports are done before the clock starts: wall and CPU
seconds of the work, and the peak of RssAnon + RssShmem of the process tree. Runs take turns; medians are
told.

    BENCH_ROWS=2000000 python -m benchmarks profile        # rows beside preparing
    BENCH_PEER_ROWS=200000 …                               # rows beside the others; 0 leaves them out
    BENCH_YDATA=PYTHON BENCH_EVIDENTLY=PYTHON …            # interpreters that have them, pandas and pyarrow
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.harness import say, scratch, size, skip
from benchmarks.prepare import adult_like
from benchmarks.prepare import measured as prepared

_ROUNDS = 3
_WIDE = (400, 5_000)
"""Rows and columns."""
_LIMIT_SECONDS = 1_800
Took = dict[str, Any]
"""`seconds`, `cpu_seconds`, `peak_bytes`."""


def profiled(source: Path, target: str | None) -> Took:
    """Profile a file in a fresh process, with its page."""
    page = source.with_suffix(".html")
    return _ours(["-m", "benchmarks.profile", str(source), str(page), target or ""])


def _ours(words: list[str]) -> Took:
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=_LIMIT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"profiling failed:\n{done.stderr[-3000:]}")
    found: Took = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(source: str, page: str, target: str) -> Took:
    import penstock
    import penstock.api
    from penstock.core.memory import MemoryWatch

    with MemoryWatch(every_seconds=0.02) as watch:
        start, cpu = time.perf_counter(), time.process_time()
        penstock.profile(source, target=target or None, html=page)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": watch.peak_bytes}


def _turns(ours: Callable[[], Took], other: Callable[[], Took]) -> tuple[Took, Took]:
    """The medians of both, run in turns, the first of a turn changing each time."""
    pairs: list[tuple[Took, Took]] = []
    for turn in range(_ROUNDS):
        if turn % 2:
            theirs = other()
            pairs.append((ours(), theirs))
        else:
            pairs.append((ours(), other()))
    words = ("seconds", "cpu_seconds", "peak_bytes")
    mine, theirs = (
        {word: median(pair[side][word] for pair in pairs) for word in words}
        for side in (0, 1)
    )
    mine["ratio"] = median(b["seconds"] / a["seconds"] for a, b in pairs)
    mine["cpu_ratio"] = median(b["cpu_seconds"] / a["cpu_seconds"] for a, b in pairs)
    return mine, theirs


def bench() -> None:
    """Print the figures."""
    with scratch("profile") as folder:
        _beside_preparing(folder, size("ROWS", 2_000_000))
        _wide(folder)
        rows = size("PEER_ROWS", 200_000)
        if rows:
            source = folder / "peers.parquet"
            adult_like(source, rows)
            for name, code in (("ydata-profiling", _YDATA), ("evidently", _EVIDENTLY)):
                _beside(name, code, source, rows)


def _beside_preparing(folder: Path, rows: int) -> None:
    source = folder / "adult.parquet"
    adult_like(source, rows)
    mine, other = _turns(
        lambda: profiled(source, "income"),
        lambda: Took(prepared(source, rows)["prepare"]),
    )
    times = 1 / mine["ratio"]
    say(
        name=f"profile: {rows:,} rows beside preparing them",
        other="penstock prepare",
        value=mine["seconds"],
        unit="s",
        ratio=times,
        goal="≤ 1.5 × the time of preparing, ≤ 1 GiB",
        holds=times <= 1.5 and mine["peak_bytes"] <= 2**30,
        cpu_seconds=round(mine["cpu_seconds"], 2),
        cpu_times=round(1 / mine["cpu_ratio"], 3),
        peak_mib=round(mine["peak_bytes"] / 2**20),
        preparing={k: round(v, 2) for k, v in other.items()},
    )


def _wide(folder: Path) -> None:
    rows, columns = _WIDE
    source = folder / "wide.csv"
    table = np.random.default_rng(0).normal(size=_WIDE)
    head = ",".join(f"c{i}" for i in range(columns))
    np.savetxt(source, table, "%.6g", ",", header=head, comments="")
    took = profiled(source, None)
    say(
        name=f"profile: {rows:,} rows of {columns:,} columns",
        value=took["seconds"],
        unit="s",
        goal="≤ 1 GiB",
        holds=took["peak_bytes"] <= 2**30,
        cpu_seconds=round(took["cpu_seconds"], 2),
        peak_mib=round(took["peak_bytes"] / 2**20),
    )


def _beside(name: str, code: str, source: Path, rows: int) -> None:
    word = name.partition("-")[0].upper()
    python = os.environ.get(f"BENCH_{word}", "")
    if not Path(python).is_file():
        skip(f"profile: beside {name}", f"BENCH_{word} names no interpreter that has it")
        return

    def other() -> Took:
        done = subprocess.run(
            [python, "-c", code, str(source)],
            capture_output=True,
            text=True,
            cwd=source.parent,
            timeout=_LIMIT_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
        found: Took = json.loads(done.stdout.splitlines()[-1])
        return found

    try:
        mine, theirs = _turns(lambda: profiled(source, "income"), other)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        skip(f"profile: beside {name}", error)
        return
    say(
        name=f"profile: {rows:,} rows beside {name}",
        other=name,
        value=mine["seconds"],
        unit="s",
        ratio=mine["ratio"],
        goal="≥ 5",
        holds=mine["ratio"] >= 5,
        cpu_seconds=round(mine["cpu_seconds"], 2),
        cpu_ratio=round(mine["cpu_ratio"], 2),
        peak_mib=round(mine["peak_bytes"] / 2**20),
        theirs={k: round(v, 2) for k, v in theirs.items()},
    )


_TIMED = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
import pandas as pd
{imports}
start, cpu = time.perf_counter(), time.process_time()
frame = pd.read_parquet(sys.argv[1])
{work}
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print()
print(json.dumps({{"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}}))
"""
_YDATA = _TIMED.format(
    imports="from ydata_profiling import ProfileReport",
    work='ProfileReport(frame, progress_bar=False).to_file("ydata.html")',
)
_EVIDENTLY = _TIMED.format(
    imports="from evidently import Report\nfrom evidently.presets import DataSummaryPreset",
    work='Report([DataSummaryPreset()]).run(frame, None).save_html("evidently.html")',
)


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])), flush=True)
