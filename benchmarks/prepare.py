"""Preparing: file → dataset → encoded arrays, on Adult resampled with noise; within a ceiling; beside
Ludwig's preprocessing.

Ludwig goes from the file to encoded arrays in one step, so ours are timed apart and together. Every
measurement is a process of its own, so that memory is that of the work alone: wall and CPU seconds (with
children), and the peak of RssAnon + RssShmem of the process tree.

    BENCH_ROWS=2000000 python -m benchmarks prepare        # rows of the timed case
    BENCH_MORE_ROWS=10000000 …                             # rows of the case under 2 GiB; 0 leaves it out
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Cannot, say

NAMES = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
)
NUMBERS = {
    "age": 2.0,
    "fnlwgt": 5000.0,
    "education-num": 0.0,
    "capital-gain": 50.0,
    "capital-loss": 20.0,
    "hours-per-week": 3.0,
}
"""By column: the deviation of the noise added to what was resampled."""
_ADULT = Path(__file__).parents[2] / "shared" / "data" / "adult" / "adult.data"
_PIECE = 250_000


def adult_like(path: Path, rows: int, *, seed: int = 7, row_group: int = 1 << 20) -> None:
    """Write `rows` rows of Adult resampled with noise to `path`, as Parquet: numbers jittered, 2 % of the
    words drawn anew, 1 % missing.
    """
    columns, rng = _originals(), np.random.default_rng(seed)
    schema = pa.schema(
        [
            (
                name,
                pa.float64()
                if name == "fnlwgt"
                else pa.int64()
                if name in NUMBERS
                else pa.string(),
            )
            for name in NAMES
        ]
    )
    held: list[pa.RecordBatch] = []
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _PIECE):
            held.append(_piece(columns, schema, min(_PIECE, rows - start), rng))
            if sum(map(len, held)) >= row_group or start + _PIECE >= rows:
                writer.write_table(
                    pa.Table.from_batches(held, schema), row_group_size=row_group
                )
                held = []


def _piece(
    columns: dict[str, np.ndarray], schema: pa.Schema, rows: int, rng: np.random.Generator
) -> pa.RecordBatch:
    drawn = rng.integers(0, len(columns["age"]), rows)
    made = []
    for field in schema:
        values = columns[field.name]
        missing = None if field.name == "income" else rng.random(rows) < 0.01
        if field.name in NUMBERS:
            found = values[drawn] + rng.normal(0, NUMBERS[field.name], rows) * (
                values[drawn] != 0
            )
            found = (
                np.clip(found, 17, 90) if field.name == "age" else np.maximum(found, 0)
            )
            made.append(
                pa.array(
                    found
                    if pa.types.is_floating(field.type)
                    else np.rint(found).astype(np.int64),
                    mask=missing,
                )
            )
            continue
        codes = (
            np.where(rng.random(rows) < 0.02, rng.integers(0, len(values), rows), drawn)
            if field.name != "income"
            else drawn
        )
        made.append(
            pa.DictionaryArray.from_arrays(
                pa.array(
                    np.searchsorted(words := np.unique(values), values[codes]).astype(
                        np.int32
                    ),
                    mask=missing,
                ),
                pa.array(words),
            ).dictionary_decode()
        )
    return pa.RecordBatch.from_arrays(made, schema=schema)


def _originals() -> dict[str, np.ndarray]:
    """Adult's columns, or some like them where the file is absent."""
    if _ADULT.is_file():
        lines = [
            [cell.strip() for cell in line.split(",")]
            for line in _ADULT.read_text().splitlines()
        ]
        table = list(
            zip(
                *(
                    cells
                    for cells in lines
                    if len(cells) == len(NAMES) and "?" not in cells
                ),
                strict=True,
            )
        )
        return {
            name: np.array(values, np.float64 if name in NUMBERS else str)
            for name, values in zip(NAMES, table, strict=True)
        }
    rng = np.random.default_rng(0)
    words = {
        name: np.array([f"{name} {i}" for i in range(n)])
        for name, n in (
            ("workclass", 8),
            ("education", 16),
            ("marital-status", 7),
            ("occupation", 14),
            ("relationship", 6),
            ("race", 5),
            ("sex", 2),
            ("native-country", 41),
        )
    }
    made: dict[str, np.ndarray] = {
        name: rng.choice(found, 30_000) for name, found in words.items()
    }
    made |= {
        "age": rng.integers(17, 90, 30_000),
        "fnlwgt": rng.lognormal(12, 0.5, 30_000),
        "education-num": rng.integers(1, 17, 30_000),
        "hours-per-week": rng.integers(1, 99, 30_000),
    }
    made |= {
        name: rng.choice([0, 0, 0, 0, 0, 0, 0, 0, 0, 3000], 30_000)
        for name in ("capital-gain", "capital-loss")
    }
    made["income"] = np.where(
        rng.random(30_000) < 1 / (1 + np.exp(3 - made["age"] / 20)), ">50K", "<=50K"
    )
    return {
        name: made[name].astype(np.float64) if name in NUMBERS else made[name]
        for name in NAMES
    }


def declaration(source: Path, store: Path, **more: Any) -> dict[str, Any]:
    """The recipe of recipes/adult.yaml over `source`."""
    return {
        "name": "adult-like",
        "seed": 7,
        "source": {"type": "files", "path": str(source)},
        "store": str(store),
        "expect": {
            "age": {"type": "integer", "min": 16, "max": 100},
            "income": {"allowed": ["<=50K", ">50K"], "on_violation": "fail"},
        },
        "inputs": {
            name: "number" if name in NUMBERS else "category"
            for name in NAMES
            if name != "income"
        },
        "targets": {"income": {"type": "binary", "positive": ">50K"}},
        **more,
    }


# -- one measurement, in a process of its own ----------------------------------------------------------------


def measured(
    source: Path, rows: int, *, memory: str = "1GiB", **more: Any
) -> dict[str, Any]:
    """Prepare and encode `source` in a fresh process and a fresh store: seconds, CPU seconds and peak bytes,
    apart and together.
    """
    with tempfile.TemporaryDirectory(
        prefix="bench-prepare-", dir=source.parent
    ) as folder:
        recipe = declaration(
            source, Path(folder) / "store", resources={"memory": memory}, **more
        )
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.prepare", json.dumps(recipe)],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[1],
            timeout=3600,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"preparing {rows:,} rows failed:\n{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def _measure(declared: dict[str, Any]) -> dict[str, Any]:
    from penstock.core.events import Events
    from penstock.core.memory import MemoryWatch
    from penstock.core.store import Store
    from penstock.encode.feed import write_feed
    from penstock.prepare.prepare import prepare
    from penstock.recipe.schema import load_recipe

    recipe = load_recipe(declared)
    store = Store(recipe.store)
    found: dict[str, Any] = {}
    made: dict[str, Any] = {}

    def timed(name: str, work: Any) -> None:
        with MemoryWatch(every_seconds=0.02) as watch:
            start, cpu = time.perf_counter(), _cpu()
            made[name] = work()
            found[name] = {
                "seconds": round(time.perf_counter() - start, 3),
                "cpu_seconds": round(_cpu() - cpu, 3),
            }
        found[name]["peak_bytes"] = watch.peak_bytes

    timed("prepare", lambda: prepare(recipe, store, Events()))
    timed("encode", lambda: write_feed(recipe, made["prepare"], store, Events()))
    together = [found["prepare"], found["encode"]]
    found["together"] = {
        word: sum(stage[word] for stage in together)
        for word in ("seconds", "cpu_seconds")
    } | {"peak_bytes": max(stage["peak_bytes"] for stage in together)}
    found["dataset"], found["feed"], found["rows"] = (
        made["prepare"].reference,
        made["encode"].id,
        made["encode"].rows,
    )
    return found


def _cpu() -> float:
    return sum(
        use.ru_utime + use.ru_stime
        for use in map(
            resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
    )


def bench() -> None:
    rows, more = (
        int(os.environ.get("BENCH_ROWS", 2_000_000)),
        int(os.environ.get("BENCH_MORE_ROWS", 10_000_000)),
    )
    with tempfile.TemporaryDirectory(prefix="bench-prepare-") as folder:
        source = Path(folder) / "adult.parquet"
        adult_like(source, rows)
        found = measured(source, rows)
        for name in ("prepare", "encode", "together"):
            stage = found[name]
            fits = stage["seconds"] <= 10 and stage["peak_bytes"] <= 2**30
            goal = f"{rows:,} rows: ≤ 10 s, ≤ 1 GiB" if name == "together" else None
            say(
                name=f"prepare: {name}",
                value=stage["seconds"],
                unit="s",
                goal=goal,
                holds=fits if goal else None,
                cpu_seconds=stage["cpu_seconds"],
                peak_mib=round(stage["peak_bytes"] / 2**20),
            )
        if more:
            adult_like(source, more)
            stage = measured(source, more, memory="2GiB")["together"]
            say(
                name="prepare: more rows",
                value=stage["seconds"],
                unit="s",
                goal=f"{more:,} rows within 2 GiB",
                holds=stage["peak_bytes"] <= 2**31,
                cpu_seconds=stage["cpu_seconds"],
                peak_mib=round(stage["peak_bytes"] / 2**20),
            )
        adult_like(source, rows)
        beside_ludwig(source, found["together"])


def beside_ludwig(source: Path, ours: dict[str, Any]) -> None:
    """Ludwig's preprocessing of the same file, from the file to encoded arrays, in the interpreter named by
    BENCH_LUDWIG.

    Raises:
        Cannot: there is none.
    """
    python = os.environ.get("BENCH_LUDWIG") or str(
        Path(__file__).parent.parent / ".venv-peers" / "ludwig" / "bin" / "python"
    )
    if not Path(python).exists():
        raise Cannot(
            "Ludwig clashes with our packages: make its environment with `make peers`, or name the"
            " interpreter of one with BENCH_LUDWIG"
        )
    features = {
        "input_features": [
            {"name": name, "type": "number" if name in NUMBERS else "category"}
            for name in NAMES
            if name != "income"
        ],
        "output_features": [
            {
                "name": "income",
                "type": "binary",
                "preprocessing": {"fallback_true_label": ">50K"},
            }
        ],
    }
    with tempfile.TemporaryDirectory(prefix="bench-ludwig-", dir=source.parent) as folder:
        done = subprocess.run(
            [python, "-c", _LUDWIG, json.dumps(features), str(source)],
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=3600,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent / "peers")},
        )
    if done.returncode:
        raise Cannot(
            "Ludwig did not preprocess the file:"
            f" {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'it said nothing'}"
        )
    theirs = json.loads(done.stdout.splitlines()[-1])
    ratio = theirs["seconds"] / ours["seconds"]
    say(
        name="prepare: beside Ludwig",
        other="ludwig",
        value=theirs["seconds"],
        unit="s",
        ratio=ratio,
        goal="≥ 10 ×",
        holds=ratio >= 10,
        cpu_seconds=theirs["cpu_seconds"],
        peak_mib=round(theirs["peak_kib"] / 2**10),
    )


_LUDWIG = """
import json, logging, resource, sys, time
from shared_rows import without_box_operators
without_box_operators()
from ludwig.api import LudwigModel
model = LudwigModel(json.loads(sys.argv[1]), logging_level=logging.ERROR)
start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
model.preprocess(dataset=sys.argv[2], skip_save_processed_input=True)
use = resource.getrusage(resource.RUSAGE_SELF)
cpu = use.ru_utime + use.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps({"seconds": time.perf_counter() - start, "cpu_seconds": cpu, "peak_kib": use.ru_maxrss}))
"""


if __name__ == "__main__":
    print(json.dumps(_measure(json.loads(sys.argv[1]))), flush=True)
