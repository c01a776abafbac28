"""Wrong labels put into real data: how many of the flagged are wrong, against cleanlab's whole path; and the
memory that a million rows take.

    PENSTOCK_REAL_DATA=FOLDER python -m benchmarks label_errors

FOLDER has adult/adult.data (UCI) and goemotions/train.tsv. Of the rows with one label a fifth gets another,
drawn evenly. Precision at recall 0.5: of the first rows of the ranked list that hold half of the wrong ones,
those that are wrong. cleanlab gets the same out-of-fold probabilities.
"""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import penstock
from benchmarks.harness import folder_in, size
from penstock.labels import Options, find_label_errors
from penstock.labels.search import RANKS, Rank
from penstock.prepare.dataset import Dataset

ALL = {"train": 1, "validation": 0, "test": 0}
WRONG = "was_right"
"""The column with the label before it was changed."""
ADULT = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex"
    " capital-gain capital-loss hours-per-week native-country income"
).split()


def adult(folder: Path) -> tuple[list[str], list[list[str]]]:
    """Columns and rows; the last column is the label."""
    with (folder / "adult" / "adult.data").open(encoding="utf-8") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file) if line]
    return ADULT, lines


def goemotions(folder: Path) -> tuple[list[str], list[list[str]]]:
    """The same of the comments that have one label."""
    with (folder / "goemotions" / "train.tsv").open(encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t") for line in file]
    return ["text", "label"], [line[:2] for line in lines if "," not in line[1]]


def planted(name: str, folder: Path, scratch: Path) -> Dataset:
    """The dataset with a fifth of its labels changed."""
    columns, rows = {"adult": adult, "goemotions": goemotions}[name](folder)
    chance = np.random.default_rng(14)
    labels = np.array([row[-1] for row in rows])
    classes, place = np.unique(labels, return_inverse=True)
    moved = (place + chance.integers(1, len(classes), len(rows))) % len(classes)
    given = classes[np.where(chance.random(len(rows)) < 0.2, moved, place)]
    table = {n: [row[i] for row in rows] for i, n in enumerate(columns[:-1])}
    # By the number of the row, so that equal rows stay different ones.
    table |= {"number": [str(i) for i in range(len(rows))], WRONG: labels, "label": given}
    whole = ["age", "fnlwgt", "education-num", *columns[10:13]]
    arrays = {
        n: pa.array(list(map(int, v))) if n in whole else pa.array(v, pa.string())
        for n, v in table.items()
    }
    pq.write_table(pa.table(arrays), scratch / f"{name}.parquet")
    return _prepared(name, scratch)


def _prepared(name: str, scratch: Path) -> Dataset:
    source = {"type": "files", "path": str(scratch / f"{name}.parquet")}
    recipe = {"name": name, "source": source, "key": "number", "split": ALL}
    return penstock.prepare(
        recipe | {"resources": {"memory": "1GB"}}, store=scratch / "store", quiet=True
    )


def measure(name: str, folder: Path, scratch: Path) -> dict[str, Any]:
    """Precision and recall of ours and cleanlab's, on the same probabilities."""
    dataset = planted(name, folder, scratch)
    figures: dict[str, Any] = {}
    kinds = {field.name: field.type for field in dataset.schema}
    others = {"row_id", "number", WRONG, "label"}
    inputs = tuple(n for n in kinds if n not in others)
    right = dataset.table("train", columns=[WRONG, "label"])
    ids = right["row_id"].to_pylist()
    wrong = right[WRONG].to_numpy() != right["label"].to_numpy()
    by_id = dict(zip(ids, wrong, strict=True))

    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        return dataset.batches("train", columns=columns)

    for rank in RANKS:
        place = scratch / f"{name}-{rank}"
        place.mkdir()
        started = time.perf_counter()
        errors = find_label_errors(read, kinds, _options(inputs, rank, len(ids)), place)
        seconds = time.perf_counter() - started
        order = [by_id[each] for each in errors.ranked["row_id"].to_pylist()]
        half = int(np.searchsorted(np.cumsum(order), wrong.sum() / 2)) + 1
        reaches = half <= len(order)
        at_half = float(np.mean(order[:half])) if reaches else None
        figures[f"precision at recall 0.5, by {rank}"] = at_half
    figures |= {"rows": len(ids), "wrong": int(wrong.sum()), "seconds": round(seconds, 1)}
    figures["suspects"] = errors.suspects
    figures["precision"] = float(np.mean(order))
    figures["recall"] = float(np.sum(order) / wrong.sum())
    figures["estimated share"] = errors.to_dict()["estimated_share"]
    return figures | _cleanlab(place / "answers.arrow", wrong)


def _options(inputs: tuple[str, ...], rank: Rank, rows: int) -> Options:
    return Options("label", inputs, rank=rank, listed=rows)


def _cleanlab(answers: Path, wrong: np.ndarray) -> dict[str, Any]:
    """What cleanlab's whole path flags, of the same probabilities in the same order."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from cleanlab.filter import find_label_issues
    except ImportError:
        return {"cleanlab": "not installed"}
    with pa.OSFile(str(answers)) as file, pa.ipc.open_stream(file) as stream:
        pieces = [
            {
                name: np.asarray(batch.column(name).flatten())
                for name in ("given", "shares")
            }
            for batch in stream
        ]
    given = np.concatenate([piece["given"] for piece in pieces])
    shares = np.concatenate([piece["shares"] for piece in pieces]).astype(np.float64)
    shares = shares.reshape(len(given), -1)
    shares /= shares.sum(axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flagged = find_label_issues(given, shares, n_jobs=1)
    return {
        "cleanlab suspects": int(flagged.sum()),
        "cleanlab precision": float(wrong[flagged].mean()),
        "cleanlab recall": float(wrong[flagged].sum() / wrong.sum()),
    }


def million(scratch: Path, rows: int) -> dict[str, Any]:
    """Seconds and the most memory of `penstock labels` over many rows of numbers, categories and words."""
    chance = np.random.default_rng(1)
    true = chance.integers(0, 5, rows)
    moved = (true + chance.integers(1, 5, rows)) % 5
    given = np.where(chance.random(rows) < 0.2, moved, true)
    columns: dict[str, Any] = {"number": np.arange(rows)}
    for i in range(8):
        columns[f"x{i}"] = true * (i % 3) * 0.5 + chance.normal(size=rows)
    words = np.array([f"w{i}" for i in range(500)])
    for i in range(3):
        columns[f"c{i}"] = words[(chance.integers(0, 40, rows) + true * i * 10) % 500]
    drawn = [words[(chance.integers(0, 400, rows) + true * 20) % 500] for _ in range(6)]
    columns["text"] = [" ".join(some) for some in zip(*drawn, strict=True)]
    columns["label"] = np.array(["a", "b", "c", "d", "e"])[given]
    pq.write_table(pa.table(columns), scratch / "many.parquet", row_group_size=100_000)
    del columns, drawn
    reference = _prepared("many", scratch).reference
    command = [sys.executable, "-m", "penstock", "labels", reference, "--target", "label"]
    command += ["--store", str(scratch / "store"), "--json", "--top", "10"]
    command += ["-o", str(scratch / "suspects.parquet")]
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    facts = json.loads(done.stdout)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "rows": facts["rows"],
        "suspects": facts["suspects"],
        "estimated share": facts["estimated_share"],
        "seconds": round(time.perf_counter() - started, 1),
        "cpu seconds": round(used.ru_utime + used.ru_stime, 1),
        "most MiB": used.ru_maxrss // 1024,
    }


def bench() -> None:
    """Print the figures of each data set, then those of many rows.

    Raises:
        Cannot: it was not said where the data is.
    """
    folder = folder_in("PENSTOCK_REAL_DATA", "adult/ and goemotions/")
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("adult", "goemotions"):
            figures = measure(name, folder, Path(scratch))
            print(json.dumps({"name": f"label_errors {name}", **figures}), flush=True)
        figures = million(Path(scratch), size("ROWS", 1_000_000))
        print(json.dumps({"name": "label_errors many rows", **figures}), flush=True)
