"""What is named to be answered is read as the bundle's own data was: a file that is a row, a folder of them,
or tables.
"""

from __future__ import annotations

import json
import zipfile
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.contracts.learnt import Learnt
from penstock.core.events import Events
from penstock.pipeline.asked_source import asked_source
from tests.bundle import made

TEXTS = pa.schema(
    [("path", pa.string()), ("label", pa.string()), ("content", pa.string())]
)
BYTES = pa.schema([("path", pa.string()), ("content", pa.binary())])


def bundle_of(schema: pa.Schema, kind: str = "folder", **reading: Any) -> Any:
    return SimpleNamespace(
        source_type=kind, trusted=False, learnt=Learnt(schema, reading)
    )


def rows_of(asked: str, bundle: Any, tmp_path: Any) -> list[dict[str, Any]]:
    source = asked_source(asked, bundle)
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    extract = source.extract(
        source.snapshot(tmp_path), scratch, memory_bytes=1 << 28, events=Events()
    )
    assert not extract.rejected
    return [
        row
        for file in extract.parquet
        for row in pq.read_table(file, columns=extract.schema.names).to_pylist()
    ]


@pytest.fixture
def letters(tmp_path):
    folder = tmp_path / "letters"
    (folder / "good").mkdir(parents=True)
    (folder / "good" / "1.txt").write_text("a fine day", "utf-8")
    (folder / "2.txt").write_text("a bad day", "utf-8")
    (folder / "notes.csv").write_text("what,ever\n", "utf-8")
    return folder


def test_one_file_is_one_row(letters, tmp_path):
    (row,) = rows_of(str(letters / "2.txt"), bundle_of(TEXTS), tmp_path)
    assert (row["path"], row["content"]) == ("2.txt", "a bad day")


def test_a_glob_and_a_folder_are_as_many(letters, tmp_path):
    found = rows_of(f"{letters}/**/*.txt", bundle_of(TEXTS), tmp_path)
    assert {row["content"] for row in found} == {"a fine day", "a bad day"}
    # A table among the files is one of them, as it was in training.
    assert len(rows_of(str(letters), bundle_of(TEXTS), tmp_path)) == 3


def test_the_pattern_tells_what_it_can_and_the_rest_is_missing(letters, tmp_path):
    bundle = bundle_of(TEXTS, pattern="{label}/*.txt", content="text")
    (row,) = rows_of(str(letters), bundle, tmp_path)
    assert (row["label"], row["content"]) == ("good", "a fine day")
    (row,) = rows_of(str(letters / "2.txt"), bundle, tmp_path)
    assert (row["label"], row["content"]) == (None, "a bad day")


def test_content_is_what_it_was(letters, tmp_path):
    (row,) = rows_of(str(letters / "2.txt"), bundle_of(BYTES), tmp_path)
    assert row["content"] == b"a bad day"


def test_an_archive_is_read_as_its_files(letters, tmp_path):
    with zipfile.ZipFile(tmp_path / "letters.zip", "w") as archive:
        archive.write(letters / "2.txt", "2.txt")
    (row,) = rows_of(str(tmp_path / "letters.zip"), bundle_of(TEXTS), tmp_path)
    assert row["content"] == "a bad day"


def test_a_table_is_a_table_for_both(letters, tmp_path):
    pq.write_table(pa.table({"content": ["x", "y"]}), tmp_path / "new.parquet")
    for kind in ("folder", "files"):
        found = rows_of(str(tmp_path / "new.parquet"), bundle_of(TEXTS, kind), tmp_path)
        assert [row["content"] for row in found] == ["x", "y"]


def _write(path, values):
    """Write a column of numbers and texts in the format that the file's ending names."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"preis": values}), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"preis": value}) for value in values]
        path.write_text("\n".join(lines) + "\n", "utf-8")
    else:
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for cell in ("preis", *values):
            book.active.append([cell])
        book.save(path)


def test_a_number_of_a_file_is_the_number_of_a_request(tmp_path):
    spelt = pa.table(
        {"preis": ["1.234,50", "7,5", "2.000"] * 20, "y": [1.0, 2.0, 3.0] * 20}
    )
    declared = {
        "source": {"type": "files", "path": "preise.csv"},
        "inputs": {"preis": {"type": "number", "decimal": ",", "thousands": "."}},
        "targets": {"y": "number"},
        "model": {"combiner": {"type": "mlp", "width": 8, "depth": 1}},
    }
    bundle, _, _ = made.make(tmp_path, declared, spelt)
    feature = bundle.encoding.inputs["preis"]

    def read(values):
        return feature.accept([pa.array(values)])[0].to_pylist()

    numbers = [7.125, 7125.0, 2.5, 1e-7, -1.5e22]
    assert read(numbers) == numbers
    for ending in ("parquet", "jsonl", "xlsx"):
        _write(tmp_path / f"a.{ending}", numbers)
        rows = rows_of(str(tmp_path / f"a.{ending}"), bundle, tmp_path)
        assert read([row["preis"] for row in rows]) == numbers, ending
    # Beside texts as well, which mean what they meant.
    for ending in ("jsonl", "xlsx"):
        _write(tmp_path / f"b.{ending}", [*numbers, 12, "1.234,50"])
        rows = rows_of(str(tmp_path / f"b.{ending}"), bundle, tmp_path)
        assert read([row["preis"] for row in rows]) == [*numbers, 12.0, 1234.5], ending
