"""A version made of an older one and of new files, beside preparing all files anew: Adult resampled, in a
hundred files of which the last one is new.

Each is a process of its own with warm files, timed when an engine was opened once, so that imports of
packages do not count. The hashes of old files are remembered by the store, as they are for anyone who
prepares a second version. Both ways give one version: the ids and the counts are compared.

    BENCH_ROWS=2000000 python -m benchmarks child
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.harness import say
from benchmarks.prepare import adult_like, declaration

FILES = 100
_AT_MOST = 0.10


def in_files(source: Path, folder: Path, rows: int) -> list[Path]:
    """A Parquet file as so many of about equal length."""
    folder.mkdir()
    size = -(-rows // FILES)
    paths = []
    with pq.ParquetFile(source) as file:
        for number, batch in enumerate(file.iter_batches(size)):
            paths.append(folder / f"part-{number:04d}.parquet")
            with pq.ParquetWriter(paths[-1], file.schema_arrow) as writer:
                writer.write_batch(batch)
    return paths


def prepared(lake: Path, store: Path) -> dict[str, Any]:
    """Prepare in a fresh process: seconds, the version, and how many files were read."""
    recipe = declaration(lake, store, resources={"memory": "1GiB"})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.child", json.dumps(recipe)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"preparing {lake} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(declared: dict[str, Any]) -> dict[str, Any]:
    from penstock.contracts.data import Engine
    from penstock.core.events import Events
    from penstock.core.store import Store
    from penstock.prepare.prepare import prepare
    from penstock.recipe.schema import load_recipe

    recipe = load_recipe(declared)
    with tempfile.TemporaryDirectory(prefix="bench-child-") as scratch:
        engine = Engine.load("embedded")
        with engine.open(Path(scratch), memory_bytes=1 << 28, threads=1):
            pass
    start, cpu = time.perf_counter(), time.process_time()
    dataset = prepare(recipe, Store(recipe.store), Events())
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "dataset": dataset.reference,
        "counts": dataset.counts,
        "files_read": len(dataset.manifest["lineage"].get("files_read", ())),
    }


def bench() -> None:
    rows = int(os.environ.get("BENCH_ROWS", 2_000_000))
    rounds = int(os.environ.get("BENCH_ROUNDS", 3))
    with tempfile.TemporaryDirectory(prefix="bench-child-") as scratch:
        folder = Path(scratch)
        adult_like(folder / "adult.parquet", rows)
        *_, newest = in_files(folder / "adult.parquet", folder / "lake", rows)
        newest.rename(folder / "waiting")
        prepared(folder / "lake", folder / "parent")
        (folder / "waiting").rename(newest)
        anew: list[dict[str, Any]] = []
        child: list[dict[str, Any]] = []
        for _ in range(rounds):
            shutil.copytree(folder / "parent", folder / "store")
            theirs = prepared(folder / "lake", folder / "fresh")
            ours = prepared(folder / "lake", folder / "store")
            if ours["files_read"] != 1 or any(
                ours[word] != theirs[word] for word in ("dataset", "counts")
            ):
                raise RuntimeError(f"{ours} is not {theirs}, or read more than one file")
            anew.append(theirs)
            child.append(ours)
            shutil.rmtree(folder / "store")
            shutil.rmtree(folder / "fresh")
        fastest = [min(each["seconds"] for each in ways) for ways in (child, anew)]
        cpu = [min(each["cpu_seconds"] for each in ways) for ways in (child, anew)]
        share = fastest[0] / fastest[1]
        say(
            name="child: one new file of a hundred",
            other="preparing anew",
            value=fastest[0],
            unit="s",
            ratio=share,
            goal=f"{rows:,} rows: ≤ {_AT_MOST:.0%} of preparing anew",
            holds=share <= _AT_MOST,
            anew=round(fastest[1], 3),
            cpu_seconds=[round(each, 3) for each in cpu],
            rounds=rounds,
        )


if __name__ == "__main__":
    print(json.dumps(_measure(json.loads(sys.argv[1]))), flush=True)
