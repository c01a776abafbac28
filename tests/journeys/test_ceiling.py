"""The ceiling: data several times `resources.memory`, prepared, trained on for an epoch, predicted and
evaluated, in processes that stay below it. Ten times in the long ring, thrice in the slow one.

Memory is RssAnon + RssShmem of the process tree, sampled from outside. The data is Parquet with one wide row
group and compressed CSV: mostly long texts that repeat, which are small on disk, and large wherever they are
held as rows.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from penstock.core.memory import held_bytes

MIB = 2**20
NUMBERS, TEXTS, LETTERS = 60, 8, 2400
ROW_BYTES = 8 * NUMBERS + (LETTERS + 4) * TEXTS + 8
"""Of a row in Arrow's memory."""


def made(rows: int, seed: int, *, texts: int, letters: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns: dict[str, pa.Array] = {
        f"x{i:02d}": pa.array(np.round(rng.normal(size=rows), 2)) for i in range(NUMBERS)
    }
    columns["y"] = pa.array(
        (np.asarray(columns["x00"]) + np.asarray(columns["x01"]) > 0).astype(np.int64)
    )
    for i in range(texts):
        words = pa.array([(f"{i}-{k} " * letters)[:letters] for k in range(20)])
        columns[f"text{i}"] = pa.DictionaryArray.from_arrays(
            pa.array(rng.integers(0, 20, rows).astype(np.int32)), words
        )
    return pa.table(columns)


def write_parquet(path: Path, rows: int, *, texts: int, letters: int) -> None:
    """One row group of all rows."""
    pq.write_table(
        made(rows, 1, texts=texts, letters=letters),
        path,
        row_group_size=rows,
        store_schema=False,
    )


def write_csv(
    path: Path, rows: int, *, texts: int, letters: int, piece: int = 20_000
) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for start in range(0, rows, piece):
            table = made(
                min(piece, rows - start), 100 + start, texts=texts, letters=letters
            )
            pc.write_csv(
                table.cast(
                    pa.schema(
                        [
                            (
                                n,
                                pa.string()
                                if n.startswith("text")
                                else table.schema.field(n).type,
                            )
                            for n in table.column_names
                        ]
                    )
                ),
                file,
                pc.WriteOptions(include_header=start == 0),
            )


def recipe(folder: Path, *, memory: str) -> Path:
    path = folder / "wide.json"
    path.write_text(
        json.dumps(
            {
                "name": "wide",
                "source": {"type": "files", "path": ["wide.parquet", "wide.csv.gz"]},
                "store": "store",
                "resources": {"memory": memory},
                "inputs": {
                    **{f"x{i:02d}": "number" for i in range(NUMBERS)},
                    "text0": "category",
                },
                "targets": {"y": "binary"},
                "model": {
                    "encoders": {f"x{i:02d}": "linear" for i in range(NUMBERS)},
                    "combiner": {"type": "mlp", "width": 16, "depth": 1},
                },
                "train": {"epochs": 1, "batch_size": 16_384},
                "launcher": {"type": "local", "processes": 1, "threads": 1},
            }
        )
    )
    return path


def peak_of(*arguments: str, folder: Path, timeout: float) -> tuple[int, str]:
    """The most memory that the command's process tree held, and what it printed."""
    with open(folder / "said.txt", "w+") as said:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        peak, end = 0, time.monotonic() + timeout
        try:
            while process.poll() is None and time.monotonic() < end:
                peak = max(peak, held_bytes(process.pid))
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        told = said.read()
    assert process.returncode == 0, told
    return peak, told


_PACK = """
import sys
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.pipeline.stages import Pipeline
from penstock.recipe.schema import load_recipe
recipe = load_recipe(sys.argv[1])
print(Pipeline(recipe, Store("store"), Events()).until("pack").bundle.reference)
"""


def journey(
    folder: Path, *, memory_mib: int, rows: int, texts: int, letters: int, timeout: float
) -> dict[str, float]:
    write_parquet(folder / "wide.parquet", rows // 2, texts=texts, letters=letters)
    write_csv(folder / "wide.csv.gz", rows // 2, texts=texts, letters=letters)
    path = recipe(folder, memory=f"{memory_mib}MiB")
    peaks = {}
    start = time.monotonic()
    told = ""
    for name, arguments in (
        ("prepare", ["-m", "penstock", "prepare", str(path)]),
        ("train", ["-m", "penstock", "train", str(path)]),
        ("pack", ["-c", _PACK, str(path)]),
    ):
        peak, told = peak_of(*arguments, folder=folder, timeout=timeout)
        peaks[name] = peak / MIB
        print(name, round(peak / MIB), "MiB after", round(time.monotonic() - start), "s")
    predict = [
        "-m",
        "penstock",
        "predict",
        told.split()[-1],
        "wide.parquet",
        "--store",
        "store",
        "-o",
        "answers.parquet",
    ]
    peaks["predict"] = peak_of(*predict, folder=folder, timeout=timeout)[0] / MIB
    print(
        "predict",
        round(peaks["predict"]),
        "MiB after",
        round(time.monotonic() - start),
        "s",
    )
    assert pq.read_metadata(folder / "answers.parquet").num_rows == rows // 2
    peaks["evaluate"] = (
        peak_of("-m", "penstock", "run", str(path), folder=folder, timeout=timeout)[0]
        / MIB
    )
    assert list((folder / "store" / "reports").glob("*/report.json"))
    print(
        "evaluate",
        round(peaks["evaluate"]),
        "MiB after",
        round(time.monotonic() - start),
        "s",
    )
    return peaks


@pytest.mark.slow
@pytest.mark.timeout(2_000)
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read from /proc"
)
@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.long)])
def test_times_the_ceiling_is_prepared_trained_on_predicted_and_evaluated(
    times: int, tmp_path: Path
) -> None:
    memory_mib = 1024
    rows = times * memory_mib * MIB // ROW_BYTES + 1
    peaks = journey(
        tmp_path,
        memory_mib=memory_mib,
        rows=rows,
        texts=TEXTS,
        letters=LETTERS,
        timeout=1_800,
    )
    assert max(peaks.values()) < memory_mib, peaks


def test_what_cannot_be_trained_within_the_ceiling_is_told_before_it_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from penstock.cli import main

    pq.write_table(
        made(400, 0, texts=0, letters=0).select(["x00", "x01", "y"]),
        tmp_path / "t.parquet",
    )
    (tmp_path / "r.json").write_text(
        json.dumps(
            {
                "name": "t",
                "source": {"type": "files", "path": "t.parquet"},
                "store": "store",
                "resources": {"memory": "1GiB"},
                "inputs": {"x00": "number", "x01": "number"},
                "targets": {"y": "binary"},
                "model": {"combiner": {"type": "mlp", "width": 16_384, "depth": 2}},
                "train": {"epochs": 1},
                "launcher": {"type": "local", "processes": 1, "threads": 1},
            }
        )
    )
    assert (
        main(["train", str(tmp_path / "r.json"), "--store", str(tmp_path / "store")]) == 2
    )
    told = capsys.readouterr().err
    assert "smallest limit that may work" in told and "Traceback" not in told
