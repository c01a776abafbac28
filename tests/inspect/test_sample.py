"""A sample is drawn over the whole source, and what is known of the rest is true."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from penstock import api
from penstock.contracts.data import ROW_FILE, ROW_NUMBER
from penstock.formats.draw import Draw, keys_of
from penstock.inspect import Sample, look
from penstock.recipe.schema import load_recipe

CLASSES = 23
ROWS = 46_000


def rows_of(i: int) -> dict[str, Any]:
    """Row `i` of a table that is sorted by day and by class."""
    return {
        "day": i // 500,
        "half": int(i >= ROWS // 2),
        "unit": ["kg", "t"][int(i >= ROWS * 0.9)],
        "x": i * 7 % 1_009,
        "kind": f"c{i * CLASSES // ROWS:02d}",
    }


TABLE = [rows_of(i) for i in range(ROWS)]


def drawn(base: Path, path: str, rows: int = 2_000, **words: Any) -> Sample:
    file_bytes = words.pop("file_bytes", 512 << 20)
    source = load_recipe({"source": {"type": "files", "path": path, **words}}).source
    return source.sample(source.preview(base), rows, file_bytes=file_bytes)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    ending = path.name.removesuffix(".gz").rsplit(".")[-1]
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=1_000)
        return
    if ending == "arrow":
        with pa.ipc.new_file(path, pa.Table.from_pylist(rows).schema) as file:
            file.write_table(pa.Table.from_pylist(rows), max_chunksize=1_000)
        return
    if ending == "csv":
        lines = [",".join(rows[0]), *(",".join(map(str, r.values())) for r in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data, 1) if path.name.endswith(".gz") else data)


NAMES = ("t.csv", "t.jsonl", "t.parquet", "t.arrow", "t.csv.gz")


@pytest.mark.parametrize("name", NAMES)
def test_all_of_a_sorted_file_is_seen(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, TABLE)
    sample = drawn(tmp_path, name)
    assert sample.table.num_rows == 2_000 and sample.rows == ROWS
    assert not sample.complete and sample.duplicates == 0 and not sample.unread
    assert len(set(sample.table["kind"].to_pylist())) == CLASSES
    findings = look(sample, target="kind")
    assert len(findings.classes) == CLASSES
    assert not [f for f in findings.columns if f.role == "constant"]
    # In the source's order, each row with the number that it has there.
    numbers = sample.table[ROW_NUMBER].to_pylist()
    assert numbers == sorted(numbers)
    assert sample.plain().to_pylist() == [TABLE[number] for number in numbers]
    assert sample.head is not None
    assert sample.head[ROW_NUMBER].to_pylist() == list(range(sample.head.num_rows))
    # The same source, the same sample.
    assert drawn(tmp_path, name).table.equals(sample.table)


@pytest.mark.parametrize("name", NAMES)
def test_of_a_large_file_pieces_are_seen(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, TABLE)
    size = os.path.getsize(tmp_path / name)
    sample = drawn(tmp_path, name, file_bytes=size // 2)
    assert not sample.complete and sample.duplicates is None
    assert sample.table.num_rows == 2_000 or name == "t.arrow"
    kinds = sample.table["kind"].to_pylist()
    # How long a packed file is, is guessed.
    missed = 8 if name.endswith(".gz") else 3
    assert len(set(kinds)) >= CLASSES - missed, sorted(set(kinds))
    days = sample.table["day"].to_pylist()
    assert days == sorted(days) and days[-1] > 80
    rows = [json.dumps(row) for row in TABLE]
    assert {json.dumps(row) for row in sample.plain().to_pylist()} <= set(rows)
    # What Parquet and Arrow say themselves needs no reading.
    assert sample.rows in ((ROWS,) if name in ("t.parquet", "t.arrow") else (None, ROWS))


def test_quoted_line_ends_mislead_no_piece(tmp_path: Path) -> None:
    text = ['"a, ""b""\n1,2,3\n"', '"\n"', "plain", '"x\n\n,"']
    with open(tmp_path / "q.csv", "w") as file:
        file.write("n,t,kind\n")
        for i in range(60_000):
            file.write(f"{i},{text[i % 4]},c{i // 6_000}\n")
    sample = drawn(tmp_path, "q.csv", file_bytes=1 << 20)
    assert sample.table.num_rows == 2_000 and not sample.unread
    assert len(set(sample.table["kind"].to_pylist())) == 10
    for row in sample.plain().to_pylist()[::97]:
        assert row["kind"] == f"c{row['n'] // 6_000}"
    numbers = sample.table["n"].to_pylist()
    assert len(set(numbers)) == len(numbers)


def test_many_files_are_seen_from_first_to_last(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    for part in range(40):
        some = TABLE[part * 1_000 : part * 1_000 + 1_000]
        write(tmp_path / "lake" / f"{part:02d}.csv", some)
    sample = drawn(tmp_path, "lake", 1_000)
    assert sample.rows == 40_000 and len(sample.files) == 40
    assert len(set(sample.table[ROW_FILE].to_pylist())) == 40
    for row in sample.table.to_pylist()[::50]:
        assert sample.files[row[ROW_FILE]].path == f"{row['day'] // 2:02d}.csv"
    # Few bytes: some of the files, and their places are still those of the snapshot.
    few = drawn(tmp_path, "lake", 1_000, file_bytes=4 << 20 >> 1)
    assert few.rows is None and few.files == sample.files
    for row in few.table.to_pylist()[::50]:
        assert few.files[row[ROW_FILE]].path == f"{row['day'] // 2:02d}.csv"


def test_a_small_source_is_all_there(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", TABLE[:300] + TABLE[:40])
    sample = drawn(tmp_path, "t.csv")
    assert sample.complete and sample.rows == 340 and sample.duplicates == 40
    assert sample.plain().to_pylist() == TABLE[:300] + TABLE[:40]


def test_a_sample_of_wide_rows_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.parts.sources import files

    monkeypatch.setattr(files, "SAMPLE_BYTES", 1 << 20)
    rows = [{"n": i, "t": f"{i} " * 500} for i in range(4_000)]
    write(tmp_path / "t.jsonl", rows)
    sample = drawn(tmp_path, "t.jsonl")
    assert sample.cut and sample.rows == 4_000 and not sample.complete
    assert 200 < sample.table.num_rows < 700 and sample.table.nbytes <= 1.2 * (1 << 20)
    assert max(sample.table["n"].to_pylist()) > 3_900


def test_init_says_what_it_could_not_read_and_what_comes_twice(tmp_path: Path) -> None:
    lines = ["a,b,y", *(f"{i},{i % 7},{i % 2}" for i in range(2_000))]
    lines[1_500:1_500] = ["1,2", "3,4,5,6", "7,8"] + ["5,5,1"] * 10
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    recipe = api.init(str(tmp_path / "t.csv"), target="y", rows=500)
    head = recipe.split("split:")[0]
    assert "a look at 500 rows, drawn from all 2,010" in head
    assert "3 rows could not be read: 2 × expected 3 cells, found 2 (t.csv, line" in head
    assert "1 × expected 3 cells, found 4" in head and "quarantine" in head
    assert "10 of 2,010 rows equal an earlier one" in head and "not removed" in head
    # What it advises is a recipe's word.
    advised = load_recipe({**yaml.safe_load(recipe), "clean": ["deduplicate"]})
    assert [cleaner.type for cleaner in advised.clean] == ["deduplicate"]


def test_folders_small_and_large_are_all_seen(tmp_path: Path) -> None:
    sizes = {"a": 900, "b": 3, "c": 60, "d": 1}
    for label, count in sizes.items():
        (tmp_path / "p" / label).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "p" / label / f"{i:04d}.txt").write_text(f"{label} {i}")
    (tmp_path / "p" / "a" / "bad.txt").write_bytes(b"\xff")
    source = load_recipe({"source": {"type": "folder", "path": "p"}}).source
    snapshot = source.preview(tmp_path)
    sample = source.sample(snapshot, 100)
    labels = sample.table["label"].to_pylist()
    assert set(labels) == set(sizes) and 85 <= labels.count("a") <= 95
    paths = sample.table["path"].to_pylist()
    assert paths == [sample.files[i].path for i in sample.table[ROW_FILE].to_pylist()]
    numbers = [int(p[2:6]) for p in paths if p.startswith("a/") and p[2:5] != "bad"]
    assert min(numbers) < 30 and max(numbers) > 870
    gaps = {b - a for a, b in pairwise(numbers)}
    assert len(gaps) > 5  # no file is taken for its place in a rhythm
    whole = source.sample(snapshot, 10_000)
    assert whole.complete and whole.rows == 964 and whole.unread_rows == 1


def test_a_draw_is_the_same_however_rows_come_in_batches() -> None:
    numbers = pa.array(np.arange(50_000))
    whole = pa.RecordBatch.from_arrays(
        [numbers, pa.array(np.zeros(50_000, np.int32)), numbers],
        names=["n", ROW_FILE, ROW_NUMBER],
    )
    keys = keys_of(1, np.arange(50_000))
    assert len(np.unique(keys)) == 50_000
    # Evenly spread: no decile of the keys has more or fewer than chance has.
    counts = np.histogram(keys / 2.0**64, 10, (0, 1))[0]
    assert counts.min() > 4_700 and counts.max() < 5_300
    drawn_rows = []
    for size in (50_000, 977, 64):
        draw = Draw(100, 1 << 20)
        taken = [
            draw.take(whole.slice(start, size), path="t")
            for start in range(0, 50_000, size)
        ]
        assert draw.rows == 50_000 and draw.duplicates == 0
        # Of many batches only what may be among the lowest is kept.
        assert size == 50_000 or sum(b.num_rows for b in taken) < 2_500
        table = pa.Table.from_batches(taken)
        keep = draw._is_drawn(table.combine_chunks().to_batches()[0])
        draw._tighten()
        keep = draw._is_drawn(table.combine_chunks().to_batches()[0])
        drawn_rows.append(table.filter(pa.array(keep))["n"].to_pylist())
    assert len(drawn_rows[0]) == 100
    assert drawn_rows[0] == drawn_rows[1] == drawn_rows[2]


_CHILD = """
import resource, sys
from pathlib import Path
from penstock.recipe.schema import load_recipe
source = load_recipe({"source": {"type": "files", "path": sys.argv[1]}}).source
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sample = source.sample(source.preview(Path.cwd()), 20_000)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(sample.table.num_rows, sample.rows, sample.duplicates, (after - before) // 1024)
"""


@pytest.mark.slow
def test_a_hundred_megabytes_are_counted_within_bounds(tmp_path: Path) -> None:
    with open(tmp_path / "t.csv", "w") as file:
        file.write("n,a,b,t\n")
        for i in range(1_600_000):
            file.write(f"{i},{i % 1000 / 7:.6f},{i * 31 % 10_007},{'abcdefgh' * 4}\n")
    made = subprocess.run(
        [sys.executable, "-c", _CHILD, str(tmp_path / "t.csv")],
        capture_output=True,
        text=True,
        check=True,
    )
    rows, whole, twice, mib = map(int, made.stdout.split())
    assert (rows, whole, twice) == (20_000, 1_600_000, 0)
    assert mib < 512
