"""Readers: the family's laws over the whole shelf, and what is done for a format that gives row after row."""

from __future__ import annotations

import gzip
import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import ClassVar

import fsspec
import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc
from pydantic import ValidationError

from penstock.contracts.reading import Reader, Reject, Row, RowReader, TableFile
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.formats import Input, Reading, extract
from penstock.formats.find_files import find
from penstock.formats.shelf import ending, endings, is_table, readers
from penstock.testing.laws import readers as laws

TABLE = pa.table(
    {
        "id": list(range(40)),
        "name": ["x", None] * 20,
        "at": [{"x": 1.5, "y": [1, 2]}] * 40,
        "raw": [b"1"] * 40,
    }
)


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(TABLE, sink)
    return sink.getvalue()


def _arrow() -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue()


def _npy() -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.array([(1, "x"), (2, "ä")] * 20, [("a", "i4"), ("b", "U3")]))
    return sink.getvalue()


def _npz() -> bytes:
    sink = io.BytesIO()
    np.savez_compressed(sink, x=np.eye(40), y=np.arange(40))
    return sink.getvalue()


def _sqlite() -> bytes:
    with closing(sqlite3.connect(":memory:")) as base:
        base.execute("CREATE TABLE a (id INTEGER, name TEXT, at TIMESTAMP)")
        rows = [(i, f"n{i}", "2024-01-01 10:00:00") for i in range(200)]
        base.executemany(
            "INSERT INTO a VALUES (?, ?, ?)", [*rows, (1, "x", "2024-13-01")]
        )
        base.commit()
        return base.serialize()


def _orc() -> bytes:
    sink = io.BytesIO()
    orc.write_table(TABLE, sink)
    return sink.getvalue()


def _xlsx() -> bytes:
    sink = io.BytesIO()
    book = openpyxl.Workbook()
    for row in [["a", "b"], *([i, f"n{i}"] for i in range(40))]:
        book.active.append(row)
    book.save(sink)
    return sink.getvalue()


CONTENTS = {
    "arrow": _arrow(),
    "csv": b"a,b\n1,x\n2\n3,'y\n" + b"4,z\n" * 40,
    "fixed_width": b"id  name\n"
    + b"1   x y\n22  z\n" * 20
    + b"333\n1234 x\n"
    + b"4   z\n" * 60,
    "json": b'[{"a": 1, "b": {"c": [1, 2]}},\nno,'
    + b'{"a": 2.5},\n' * 40
    + b'{"a": 3}]\n',
    "jsonl": b'{"a": 1, "b": {"c": [1, 2]}}\nno\n' + b'{"a": 2.5}\n' * 40,
    "npy": _npy(),
    "npz": _npz(),
    "orc": _orc(),
    "parquet": _parquet(),
    "sqlite": _sqlite(),
    "tsv": b"a\tb\n1\tx\n2\n" + b"4\tz\n" * 40,
    "xlsx": _xlsx(),
}


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", Reader.types())
def test_laws(name, law):
    law(Reader.load(name), CONTENTS[name])


@pytest.mark.parametrize("name", Reader.types())
def test_a_bucket_gives_the_same_rows(name, tmp_path):
    """Each format by its ending, of a file on this disk and of the same file in a bucket."""
    file = f"a{Reader.find(name).endings[0]}"
    (tmp_path / file).write_bytes(CONTENTS[name])
    fsspec.filesystem("memory").pipe(f"/formats/{file}", CONTENTS[name])
    made = [
        extract(
            [Input(file, url, Reading(), len(CONTENTS[name]))],
            tmp_path / scratch,
            memory_bytes=1 << 28,
            events=Events(),
        )
        for url, scratch in (
            (str(tmp_path / file), "here"),
            (f"memory://formats/{file}", "there"),
        )
    ]
    here, there = (pq.read_table(one.parquet).to_pylist() for one in made)
    assert here == there and made[0].rejected == made[1].rejected


def test_no_two_formats_have_one_ending():
    every = [each for reader in readers().values() for each in reader.endings]
    assert len(every) == len(set(every)) == len(endings())
    assert (ending("a/b.CSV.gz"), ending("b.tab"), ending("b.kv"), ending("gz")) == (
        "csv",
        "tsv",
        "",
        "",
    )
    own = (".kv", ".csv")
    names = ("b.KV.gz", "b.kv", "b.kv.txt", "kv", "b.odd", "c.csv.zst")
    assert [is_table(name, own) for name in names] == [
        True,
        True,
        False,
        False,
        False,
        True,
    ]
    assert not is_table("b.kv.gz")


def test_a_folder_in_a_bucket_gives_files_of_own_endings_too(tmp_path):
    bucket = fsspec.filesystem("memory")
    for name in ("a.kv.gz", "b.csv", "c.odd"):
        bucket.pipe(f"/own-endings/{name}", b"x")
    try:
        there = find("memory://own-endings", tmp_path, own=(".kv",))
        assert [file.url.rsplit("/", 1)[1] for file in there] == ["a.kv.gz", "b.csv"]
    finally:
        bucket.rm("/own-endings", recursive=True)


def test_a_built_in_format_is_one_word_and_a_mapping_says_the_same():
    assert (
        Reading.model_validate({"format": {"type": "csv"}}).to_dict()["format"] == "csv"
    )
    assert Reading().to_dict()["format"] == "auto"


class Rows(RowReader):
    """Gives what a test puts into it."""

    items: ClassVar[list[object]] = []
    typed: ClassVar[bool] = False
    declared: ClassVar[int | None] = None

    def read(self, file: TableFile) -> Iterator[Row | Reject | pa.RecordBatch]:
        for item in type(self).items:
            if isinstance(item, Exception):
                raise item
            yield item

    def declared_rows(self, file: TableFile) -> int | None:
        return type(self).declared


@pytest.fixture
def given(tmp_path, monkeypatch):
    def go(*items, typed=False, declared=None, limit=None, **words):
        monkeypatch.setattr(Rows, "items", list(items))
        monkeypatch.setattr(Rows, "typed", typed)
        monkeypatch.setattr(Rows, "declared", declared)
        file = tmp_path / "rows.any"
        file.write_bytes(b"anything")
        inputs = [
            Input(
                "rows.any",
                str(file),
                Reading.model_validate({"format": Rows(), **words}),
                8,
            )
        ]
        made = extract(
            inputs,
            tmp_path / "scratch",
            memory_bytes=1 << 28,
            events=Events(),
            limit=limit,
        )
        rejects = [
            row for path in made.rejects for row in pq.read_table(path).to_pylist()
        ]
        return pq.read_table(made.parquet).select(made.schema.names).to_pylist(), rejects

    return go


def test_texts_are_cells_unless_the_format_knows_types(given):
    rows = [Row(1, {"a": "7", "b": ""}), Row(2, {"a": "8", "c": True})]
    assert given(*rows)[0] == [
        {"a": 7, "b": None, "c": None},
        {"a": 8, "b": None, "c": True},
    ]
    assert given(*rows, typed=True)[0] == [
        {"a": "7", "b": "", "c": None},
        {"a": "8", "b": None, "c": True},
    ]


def test_values_of_several_types_are_text_and_nested_ones_are_columns(given):
    rows, _ = given(
        Row(1, {"a": 1, "b": {"c": 1}}),
        Row(2, {"a": "x", "b": {"c": 2}}),
        Row(3, {"a": [1]}),
    )
    assert rows == [{"a": "1", "b.c": 1}, {"a": "x", "b.c": 2}, {"a": "[1]", "b.c": None}]


def test_batches_and_rejects_keep_their_places(given):
    batch = pa.record_batch(
        {"a": [1, 2], "t": pa.array([b"x", b"\xff"]).view(pa.string())}
    )
    rows, rejects = given(batch, Reject(3, "torn", "???"), pa.record_batch({"a": [3]}))
    assert [row["a"] for row in rows] == [1, 3]
    assert sorted((bad["line"], bad["column"] or "") for bad in rejects) == [
        (2, "t"),
        (3, ""),
    ]


def test_words_for_all_formats_hold(given):
    items = [Row(1, {"A": "1kg", "b": "?"}), Row(2, {"A": "2kg", "b": "y"})]
    words = {
        "rename": {"A": "weight"},
        "trim_end": {"weight": "kg"},
        "na": "?",
        "columns": ["weight", "b"],
    }
    assert given(*items, **words)[0] == [
        {"weight": 1, "b": None},
        {"weight": 2, "b": "y"},
    ]
    forced = given(*items, types={"b": "integer"}, na="?")
    assert len(forced[0]) == 1 and forced[1][0]["column"] == "b"


def test_words_speak_of_columns_by_their_final_names(given):
    items = [Row(1, {" a ": "1m", "A": "2m"}), Row(2, {"A": "3m", "": "4m", " a ": "5m"})]
    rows, _ = given(*items, trim_end={"a": "m", "A_2": "m", "column_3": "m"})
    assert rows == [
        {"a": 1, "A_2": 2, "column_3": None},
        {"a": 5, "A_2": 3, "column_3": 4},
    ]


def test_json_lines_trim_columns_by_their_final_names(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{" a ": "1m"}\n')
    reading = Reading.model_validate({"trim_end": {"a": "m"}})
    made = extract(
        [Input("a.jsonl", str(file), reading, file.stat().st_size)],
        tmp_path / "scratch",
        memory_bytes=1 << 28,
        events=Events(),
    )
    assert pq.read_table(made.parquet)["a"].to_pylist() == ["1"]


def test_a_reject_may_be_made_of_anything(given):
    bad = [
        Reject(2, b"torn", b"a\xff"),  # type: ignore[arg-type]
        Reject("3", "torn", None),  # type: ignore[arg-type]
        Reject(4, "odd \udc80", "\ud800x", "c\udfff"),
        Reject(5, "torn", bytearray(b"\xc3\xa9")),  # type: ignore[arg-type]
    ]
    rows, rejects = given(Row(1, {"a": 1}), *bad)
    assert len(rows) == 1
    assert [(r["line"], r["reason"], r["row"], r["column"]) for r in rejects] == [
        (2, "torn", "a\\xff", None),
        (3, "torn", "", None),
        (4, "odd \\udc80", "\\ud800x", "c\\udfff"),
        (5, "torn", "é", None),
    ]
    with pytest.raises(SourceError, match=r"line 2: torn.*The row: 'a"):
        given(*bad, on_bad_row="fail")


def test_a_sample_ends_early(given):
    assert len(given(*(Row(i + 1, {"a": i}) for i in range(100)), limit=10)[0]) == 10


def test_rows_add_up_to_what_the_file_says(given):
    rows = [Row(1, {"a": 1}), Reject(2, "torn", "?")]
    assert len(given(*rows, declared=2)[0]) == 1
    with pytest.raises(
        SourceError, match="3 rows according to its metadata, but 2 could be read"
    ):
        given(*rows, declared=3)


@pytest.mark.parametrize(
    ("items", "text"),
    [
        (
            [Row(1, {"a": 1}), ValueError("odd")],
            r"ValueError: odd\).*return a row that it cannot read as a `Reject`",
        ),
        (
            [{"a": 1}],
            "`read` must give `Row`, `Reject` or `pyarrow.RecordBatch`, and gave dict",
        ),
        (
            [Row(1, {"a": b"x"}), pa.record_batch({"a": ["x"]})],
            "Bytes cannot be combined",
        ),
        ([], "only blank lines"),
        ([Reject(None, "torn", "?")], r"cannot be read by .*\(TypeError: "),  # type: ignore[arg-type]
        ([Reject(1 << 70, "torn", "?")], r"cannot be read by .*\(OverflowError: "),
    ],
)
def test_what_a_reader_does_wrong_is_one_sentence(given, items, text):
    with pytest.raises(SourceError, match=text):
        given(*items)


def test_a_row_under_fail_ends_the_run(given):
    with pytest.raises(SourceError, match=r"rows.any, line 4: torn.*on_bad_row"):
        given(Reject(4, "torn", "?"), on_bad_row="fail")


def test_words_of_other_formats_are_refused(given):
    with pytest.raises(
        SourceError,
        match=r"delimiter is for csv, tsv, but rows\.any is of another format",
    ):
        given(Row(1, {"a": 1}), delimiter=";")


class Paths(RowReader):
    """A row for the length of its file, by a path."""

    def read(self, file: TableFile) -> Iterator[Row]:
        with file.local() as path, file.open() as stream:
            yield Row(
                1,
                {
                    "size": path.stat().st_size,
                    "streamed": len(stream.read()),
                    "there": str(path),
                },
            )


@pytest.mark.parametrize("packed", [False, True])
def test_a_library_may_open_a_path(tmp_path, packed):
    file = tmp_path / f"a.any{'.gz' if packed else ''}"
    file.write_bytes(gzip.compress(b"12345") if packed else b"12345")
    inputs = [
        Input(
            "a.any",
            str(file),
            Reading.model_validate({"format": Paths()}),
            file.stat().st_size,
        )
    ]
    made = extract(inputs, tmp_path / "scratch", memory_bytes=1 << 28, events=Events())
    (row,) = pq.read_table(made.parquet).to_pylist()
    assert (row["size"], row["streamed"], row["there"] == str(file)) == (5, 5, not packed)
    assert not [
        path for path in (tmp_path / "scratch").iterdir() if path.name.startswith("copy-")
    ]


class ByEnding(RowReader):
    """Unpacks by a path's ending, as libraries do."""

    endings = (".any",)

    def read(self, file: TableFile) -> Iterator[Row]:
        with file.local() as path:
            unpack = gzip.open if path.suffix == ".gz" else open
            with unpack(path, "rb") as stream:
                yield Row(1, {"text": stream.read().decode(), "ending": path.suffix})


class Choosy(ByEnding):
    """Takes no file that is packed."""

    def read(self, file: TableFile) -> Iterator[Row]:
        if file.path.endswith(".gz"):
            raise SourceError(f"{file.path} is packed")
        yield from super().read(file)


def test_a_copy_has_the_ending_of_what_is_in_it():
    laws.packed_is_the_same(ByEnding(), b"text")


def test_a_reader_of_rows_may_not_refuse_what_is_packed():
    with pytest.raises(AssertionError, match=r"packed by gzip is refused: .*is packed"):
        laws.packed_is_the_same(Choosy(), b"text")


def test_a_wrong_format_is_told_of_auto():
    for wrong in ("csvv", 3, {"type": "csvv"}):
        with pytest.raises(ValidationError, match=r"csv.*`format: auto` takes"):
            Reading.model_validate({"format": wrong})
    for other in ("acme.nope", {"type": "csv", "nope": 1}):
        with pytest.raises(ValidationError) as refused:
            Reading.model_validate({"format": other})
        assert "`format: auto`" not in str(refused.value)


class Lines(RowReader):
    """A row a line."""

    words = ("encoding",)

    def read(self, file: TableFile) -> Iterator[Row]:
        for number, text in file.lines():
            yield Row(number, {"text": text})


def test_lines_are_decoded_and_what_is_no_text_is_put_aside(tmp_path):
    for words, content, texts, bad in [
        ({}, "\ufeffé\r\nb".encode(), ["é", "b"], []),
        ({}, b"a\n\xff\nb\n", ["a", "b"], [2]),
        ({"encoding": "latin-1"}, b"\xe9\n", ["é"], []),
        ({"encoding": "utf-16"}, "a\nb\n".encode("utf-16"), ["a", "b"], []),
    ]:
        file = tmp_path / "a.any"
        file.write_bytes(content)
        inputs = [
            Input(
                "a.any",
                str(file),
                Reading.model_validate({"format": Lines(), **words}),
                len(content),
            )
        ]
        made = extract(
            inputs, tmp_path / f"{len(content)}", memory_bytes=1 << 28, events=Events()
        )
        assert pq.read_table(made.parquet)["text"].to_pylist() == texts
        assert [
            row["line"]
            for path in made.rejects
            for row in pq.read_table(path).to_pylist()
        ] == bad


def test_a_look_at_nothing_but_bad_rows_ends_early(tmp_path):
    file = tmp_path / "a.any"
    file.write_bytes(b"\xff" * 99 + b"\n" + b"\xff\xff\n" * 5_000)
    inputs = [
        Input(
            "a.any",
            str(file),
            Reading.model_validate({"format": Lines()}),
            file.stat().st_size,
        )
    ]
    made = extract(
        inputs,
        tmp_path / "look",
        memory_bytes=1 << 28,
        events=Events(),
        limit=10,
        limit_bytes=1_000,
    )
    assert made.rows == 0 and 1 <= made.rejected < 1_000
    whole = extract(inputs, tmp_path / "whole", memory_bytes=1 << 28, events=Events())
    assert whole.rejected == 5_001
