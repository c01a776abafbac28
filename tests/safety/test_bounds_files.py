"""Bounds of files: many keys, many columns and long rows cost what was read, or end in a sentence that says
where and why.
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.contracts.data import Extract
from penstock.core.errors import SourceError
from penstock.core.events import Event, Events
from penstock.formats import cells, fields
from penstock.formats.extract import extract
from penstock.formats.groups import pieces_of
from penstock.formats.options import Reading
from penstock.formats.reader import Input
from penstock.parts.sources.files import Files
from tests.safety.test_bounds_data import penstock


def read(
    path: Path, *, limit: int | None = None, limit_bytes: int = 1 << 20, **words: object
) -> Extract:
    inputs = [Input(path.name, str(path), Reading.model_validate(words))]
    return extract(
        inputs,
        path.parent / "scratch",
        memory_bytes=256 << 20,
        events=Events(),
        limit=limit,
        limit_bytes=limit_bytes,
    )


def rows_of(made: Extract) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in made.parquet])


def reasons(made: Extract) -> list[str]:
    return [
        reason
        for path in made.rejects
        for reason in pq.read_table(path)["reason"].to_pylist()
    ]


def json_lines(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


# -- JSON lines ----------------------------------------------------------------------------------------------


def test_rows_with_few_of_many_keys_cost_the_values_that_are_there(tmp_path, monkeypatch):
    looked_at = 0
    by_key = fields.by_key

    def counted(objects):
        nonlocal looked_at
        for key, places, values in by_key(objects):
            looked_at += len(values)
            yield key, places, values

    monkeypatch.setattr(fields, "by_key", counted)
    rows = [{f"k{(7 * i + j) % 1_500}": i + j for j in range(5)} for i in range(1_500)]
    made = read(json_lines(tmp_path / "keys.jsonl", rows))
    table = rows_of(made)
    assert (table.num_rows, len(made.schema)) == (
        1_500,
        1_500,
    ) and looked_at <= 4 * 2 * 5 * 1_500
    for i in (0, 1, 777, 1_499):
        assert {
            name: value
            for name, value in table.slice(i, 1).to_pylist()[0].items()
            if value is not None and not name.startswith("_")
        } == rows[i]


def test_sparse_and_dense_objects_become_the_same_columns(tmp_path, monkeypatch):
    rows: list[object] = [
        {"a": 1, "o": {"x": "t", "deep": {"n": 1.5}}, "l": [{"p": 1}, {"q": "w"}, None]},
        {"o": None, "l": []},
        {"o": {"x": None}},
        *({f"only{i}": i, "l": [{"p": i, "o": {"z": i}}]} for i in range(30)),
        {"l": [None]},
    ]
    path = json_lines(tmp_path / "rows.jsonl", rows)
    found = []
    for sparse in (4, 10**9, 0):
        monkeypatch.setattr(fields, "_SPARSE", sparse)
        found.append(rows_of(read(path)))
    assert found[0].equals(found[1]) and found[0].equals(found[2])
    assert found[0]["l.p"].to_pylist()[:4] == [[1, None, None], [], None, [0]] and found[
        0
    ]["l.q"].to_pylist()[3] == [None]
    assert found[0]["l.o.z"].to_pylist()[-2:] == [[29], [None]]


@pytest.mark.parametrize(
    ("nested", "where", "way"),
    [
        (False, "the rows themselves have", "jq -c '{entries: to_entries}'"),
        (True, "the object 'by.user' alone has", "jq -c '.by.user |= to_entries'"),
    ],
)
def test_data_used_as_keys_ends_in_a_sentence(tmp_path, monkeypatch, nested, where, way):
    monkeypatch.setattr(fields, "MOST_COLUMNS", 300)
    rows: list[object] = [
        {"by": {"user": {f"u{i}": i}}, "y": 1} if nested else {f"u{i}": i}
        for i in range(400)
    ]
    with pytest.raises(SourceError) as told:
        read(json_lines(tmp_path / "users.jsonl", rows))
    assert all(
        part in str(told.value)
        for part in ("users.jsonl", "line 400", where, way, "keys used as data")
    )


def test_a_line_of_too_many_values_or_too_deep_is_put_aside_with_its_size(tmp_path):
    path = tmp_path / "heavy.jsonl"
    deep = "[" * 5_000 + "]" * 5_000
    path.write_text(
        '{"a": ['
        + "[]," * 1_000_000
        + "[]]}\n"
        + f'{{"a": {deep}}}\n'
        + json.dumps({"t": ",[{" * 400_000})
        + "\n",
        "utf-8",
    )
    made = read(path)
    assert (made.rows, made.rejected) == (1, 2)
    assert (
        "3,000,0" in reasons(made)[0]
        and "resources.memory" in reasons(made)[0]
        and reasons(made)[1] == "nested too deep"
    )


def test_lists_whose_elements_have_their_own_fields_are_refused_by_the_line(tmp_path):
    path = json_lines(
        tmp_path / "lists.jsonl", [{"l": [{f"k{i}": 1} for i in range(4_000)]}]
    )
    with pytest.raises(
        SourceError,
        match=r"lists.jsonl, line 1: its lists of objects would be columns with 16,000,000 values",
    ):
        read(path)


def test_a_key_that_is_there_twice_among_very_many_is_found_at_once(tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_text(
        '{"a": 1}\n{' + ",".join(f'"k{i}":1' for i in range(60_000)) + ',"k59999":2}\n',
        "utf-8",
    )
    made = read(path)
    assert (made.rows, made.rejected) == (1, 1) and "'k59999' is there twice" in reasons(
        made
    )[0]


# -- CSV, Parquet, Arrow -------------------------------------------------------------------------------------


def test_a_header_longer_than_what_is_looked_at_is_a_header(tmp_path):
    names = [f"col{i}" for i in range(40_000)]
    path = tmp_path / "wide.csv"
    path.write_text(
        f"{';'.join(names)}\n{';'.join(['1'] * 40_000)}\n{';'.join(['x'] * 40_000)}\n",
        "utf-8",
    )
    made = read(path, columns=["col7", "col39999"])
    assert rows_of(made).select(["col7", "col39999"]).to_pylist() == [
        {"col7": "1", "col39999": "1"},
        {"col7": "x", "col39999": "x"},
    ]
    with pytest.raises(
        SourceError,
        match=r"wide.csv has 40,000 columns to be read, more than 30,000. Choose some with `source.columns`",
    ):
        read(path)


def test_columns_of_one_name_are_numbered_once_each(tmp_path):
    path = tmp_path / "same.csv"
    path.write_text(
        f"{','.join(['x'] * 30_001)}\n{','.join(map(str, range(30_001)))}\n", "utf-8"
    )
    made = read(path, columns=["x", "x_30001"])
    assert rows_of(made).select(["x", "x_30001"]).to_pylist() == [
        {"x": 0, "x_30001": 30_000}
    ]


def test_a_name_that_is_data_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"a column whose name has 5,000 characters"):
        read(json_lines(tmp_path / "names.jsonl", [{"a": 1, "n" * 5_000: 2}]))


@pytest.mark.parametrize("words", [{}, {"escape": "\\"}])
def test_a_long_quoted_cell_is_one_row(tmp_path, words):
    text = ("one line\n" + (r"\"" if words else '""') + "quoted, ") * 500_000  # 9 MB
    path = tmp_path / "long.csv"
    path.write_text(f'a,t\n1,short\n2,"{text}"\n3,short\n', "utf-8")
    made = read(path, **words)
    kept = rows_of(made)
    assert made.rejected == 0 and kept["a"].to_pylist() == [1, 2, 3]
    assert kept["t"][1].as_py() == ('one line\n"quoted, ' * 500_000).strip()


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path):
    path = tmp_path / "stray.csv"
    path.write_text(
        "a,t\n" + '0,"stray\n' + "".join(f"{i},word\n" for i in range(1, 50_000)), "utf-8"
    )
    made = read(path)
    assert (made.rows, made.rejected) == (49_999, 1) and "never closed" in reasons(made)[
        0
    ]


def test_pieces_of_a_batch_weigh_their_words_and_not_their_codes():
    words = pa.DictionaryArray.from_arrays(
        pa.array([0] * 64, pa.int32()), pa.array(["long " * 20_000])
    )
    found = list(pieces_of(pa.RecordBatch.from_arrays([words], names=["t"]), 1 << 20))
    assert (
        sum(piece.num_rows for piece in found) == 64
        and max(piece.num_rows for piece in found) <= 10
    )


def test_a_sample_is_bounded_in_bytes_and_init_says_so(tmp_path, monkeypatch):
    from penstock import api
    from penstock.parts.sources import files

    path = json_lines(
        tmp_path / "texts.jsonl",
        [{"a": i, "t": f"word{i} " * 2_000, "y": i % 2} for i in range(400)],
    )
    monkeypatch.setattr(files, "SAMPLE_BYTES", 1 << 20)
    written = api.init(str(path), target="y")
    rows = int(written.split("from a look at ")[1].split()[0])
    assert 40 < rows < 100 and f"{rows} rows (not 20,000, since they are wide)" in written
    monkeypatch.undo()
    assert "from a look at 400 rows. Each" in api.init(str(path), target="y")


def test_init_repeats_no_long_value(tmp_path):
    from penstock import api

    long = "lorem ipsum " * 100_000
    path = json_lines(
        tmp_path / "long.jsonl",
        [{"a": i, "t": long if i % 2 else "short", "y": i % 3} for i in range(60)],
    )
    assert len(api.init(str(path), target="y")) < 4_000


# -- in a child, below a ceiling -----------------------------------------------------------------------------


def long_rows(folder: Path, format: str) -> str:
    """Four rows, one of which has a text of 30 MB."""
    texts = [
        "lorem ipsum dolor " * (30 * 2**20 // 18) if i == 2 else f"short {i}"
        for i in range(4)
    ]
    table = pa.table({"a": [0, 1, 2, 3], "t": texts})
    path = folder / f"long.{format}"
    if format == "jsonl":
        json_lines(path, table.to_pylist())
    elif format == "csv":
        path.write_text(
            "a,t\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)), "utf-8"
        )
    elif format == "parquet":
        pq.write_table(table, path)
    else:
        with (
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)
    return path.name


@pytest.mark.slow
@pytest.mark.parametrize(
    "format", ["jsonl", "csv", "parquet", pytest.param("arrow", marks=pytest.mark.long)]
)
def test_a_row_of_thirty_megabytes_is_inspected_and_prepared(tmp_path, format):
    name = long_rows(tmp_path, format)
    made = penstock(tmp_path, "init", name, "-o", "init.yaml")
    assert made.returncode == 0 and (tmp_path / "init.yaml").stat().st_size < 4_000, (
        made.stdout[:2_000]
    )
    (tmp_path / "recipe.yaml").write_text(
        f"name: long\nsource: {{type: files, path: {name}}}\nresources: {{memory: 1GiB}}\n",
        "utf-8",
    )
    done = penstock(tmp_path, "prepare", "recipe.yaml")
    assert done.returncode == 0 and "4 rows in = " in done.stdout, done.stdout[:2_000]


@pytest.mark.slow
@pytest.mark.parametrize(
    "count", [4_000, pytest.param(20_000, marks=pytest.mark.long)], ids=str
)
def test_ten_thousand_keys_are_inspected_and_read_below_a_small_ceiling(tmp_path, count):
    rows: list[object] = [
        {**{f"k{(7 * i + 2_000 * j) % 10_000}": i + j for j in range(5)}, "y": i % 2}
        for i in range(count)
    ]
    json_lines(tmp_path / "keys.jsonl", rows)
    made = penstock(tmp_path, "init", "keys.jsonl", "--target", "y", "-o", "init.yaml")
    assert made.returncode == 0 and "since they are wide" in (
        tmp_path / "init.yaml"
    ).read_text("utf-8"), made.stdout[:2_000]
    table = extract(
        [Input("keys.jsonl", str(tmp_path / "keys.jsonl"))],
        tmp_path / "scratch",
        memory_bytes=1 << 30,
        events=Events(),
    )
    assert (table.rows, table.rejected, len(table.schema)) == (count, 0, 10_001)


@pytest.mark.slow
def test_two_hundred_thousand_keys_end_in_a_sentence(tmp_path):
    json_lines(tmp_path / "keys.jsonl", [{f"user-{i}": i} for i in range(200_000)])
    for words in (("init", "keys.jsonl"), ("prepare", "recipe.yaml")):
        (tmp_path / "recipe.yaml").write_text(
            "name: keys\nsource: {type: files, path: keys.jsonl}\nresources: {memory: 1GiB}\n",
            "utf-8",
        )
        done = penstock(tmp_path, *words)
        if words[0] == "prepare":
            assert done.returncode == 2 and "keys used as data" in done.stdout, (
                done.stdout[:2_000]
            )
        else:
            assert done.returncode in (0, 2) and "Traceback" not in done.stdout, (
                done.stdout[-2_000:]
            )


# -- bombs: few bytes that say they are many -----------------------------------------------------------------


def _zeros_after_a_header(folder: Path) -> Path:
    with pa.CompressedOutputStream(str(folder / "zeros.csv.gz"), "gzip") as file:
        file.write(b"a,b\n1,2\n")
        for _ in range(100):
            file.write(bytes(1 << 20))
    return folder / "zeros.csv.gz"


def _letters_without_an_end(folder: Path) -> Path:
    with pa.CompressedOutputStream(str(folder / "letters.csv.zst"), "zstd") as file:
        file.write(b"a,b\n1,2\n")
        for _ in range(200):
            file.write(b"x" * (1 << 20))
    return folder / "letters.csv.zst"


def _arrow_with_a_lying_length(folder: Path) -> Path:
    sink = pa.BufferOutputStream()
    table = pa.table({"a": pa.array([0] * 1_000, pa.int64())})
    with pa.ipc.new_file(
        sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    packed = data.index(b"\x28\xb5\x2f\xfd")
    assert data[packed - 8 : packed] == (8_000).to_bytes(8, "little")
    (folder / "lying.arrow").write_bytes(
        data[: packed - 8] + (1 << 40).to_bytes(8, "little") + data[packed:]
    )
    return folder / "lying.arrow"


def _zeros_in_arrow(folder: Path, *, dictionary: bool = False) -> Path:
    """A kilobyte or so that says gigabytes, and means them."""
    zeros = pa.array([0] * (16 << 20), pa.int64())
    column = pa.array(["x" * (128 << 20)]).dictionary_encode() if dictionary else zeros
    with pa.ipc.new_file(
        str(folder / "zeros.arrow"),
        pa.schema([("a", column.type)]),
        options=pa.ipc.IpcWriteOptions(compression="zstd"),
    ) as writer:
        writer.write_batch(pa.record_batch([column], names=["a"]))
    return folder / "zeros.arrow"


BOMBS = {
    "zeros": (_zeros_after_a_header, "contains many zero bytes"),
    "letters": (_letters_without_an_end, "longer than 64 MiB"),
    "arrow": (
        _arrow_with_a_lying_length,
        "has a batch of rows with 1,048,576 MiB unpacked",
    ),
    "zeros in arrow": (
        _zeros_in_arrow,
        "has a batch of rows with 128 MiB unpacked",
    ),
    "a dictionary in arrow": (
        lambda folder: _zeros_in_arrow(folder, dictionary=True),
        "has a batch of rows with 128 MiB unpacked",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_in_a_sentence_before_all_of_it_is_unpacked(tmp_path, name):
    make, sentence = BOMBS[name]
    with pytest.raises(SourceError, match=sentence):
        read(make(tmp_path))


@pytest.mark.parametrize("side", [20_000, 60_000])
def test_a_picture_that_says_it_is_huge_is_refused_by_its_header(side):
    import struct
    import zlib

    from penstock.contracts.data import Feature

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data))
            + kind
            + data
            + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    picture = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1_000)))
        + chunk(b"IEND", b"")
    )
    _, refused = Feature.load({"type": "image", "size": 32}).accept(
        [pa.array([picture], pa.binary())]
    )
    assert len(refused.reasons) == 1 and f"{side} × {side} pixels" in refused.reasons[0]


# -- many files ----------------------------------------------------------------------------------------------


def test_twice_as_many_files_cost_twice_as_many_calls(tmp_path, monkeypatch):
    """What a file costs, by calls of the system and by words of progress, does not grow with their number."""
    counts: dict[str, int] = {}

    def counted(name: str) -> None:
        plain = getattr(os, name)

        def call(*given, **words):
            counts[name] = counts.get(name, 0) + 1
            return plain(*given, **words)

        monkeypatch.setattr(os, name, call)

    for name in ("stat", "open", "fstat", "scandir", "access"):
        counted(name)

    def cost(files: int) -> dict[str, int]:
        folder = tmp_path / str(files)
        folder.mkdir()
        for i in range(files):
            (folder / f"{i:04}.csv").write_text(f"a,b\n{i},x\n")
        source, told = Files(path=str(folder)), []
        counts.clear()
        snapshot = source.snapshot(tmp_path)
        made = source.extract(
            snapshot,
            tmp_path / f"s{files}",
            memory_bytes=256 << 20,
            events=Events(told.append),
        )
        assert made.rows == files
        return {**counts, "told": len(told)}

    few, many = cost(100), cost(200)
    assert few["stat"] >= 100
    for name, calls in many.items():
        assert calls <= 2 * few.get(name, 0) + 40, name


def test_a_small_file_costs_no_thread_and_no_file_of_scratch(tmp_path, monkeypatch):
    """A source may have a hundred thousand of them."""
    begun = []
    start = threading.Thread.start
    monkeypatch.setattr(
        threading.Thread, "start", lambda self: (begun.append(self.name), start(self))[1]
    )
    inputs = []
    for i in range(300):
        path = tmp_path / f"part-{i:03}.csv"
        path.write_text(
            "a;b\n" + "".join(f"{5 * i + j};w{j}\n" for j in range(5)), "utf-8"
        )
        inputs.append(Input(path.name, str(path)))
    told, seen = [], []

    def hear(event: Event) -> None:
        if event.name == "progress":
            told.append(event.fields["done"])
            seen.append(len(list((tmp_path / "s").iterdir())))

    made = extract(inputs, tmp_path / "s", memory_bytes=256 << 20, events=Events(hear))
    assert (
        rows_of(made)["a"].to_pylist() == list(range(1_500))
        and not begun
        and max(seen) <= 3
    )
    # Two passes, each half of a file.
    assert told[-1] == 300 and len(told) <= 600


def test_cells_wait_in_one_file_or_in_their_own_and_come_back_the_same(tmp_path):
    schema = pa.schema([("t", pa.string())])
    spool = cells.Spool(tmp_path / "spool")
    kept = []
    for i in range(5):
        kept.append(cells.Cells(spool, tmp_path / f"own-{i}", schema))
        for j in range(i):
            kept[-1].write(pa.record_batch([pa.array([f"{i}.{j}", None])], schema=schema))
        kept[-1].end()
    for _ in range(2):
        for i, one in enumerate(kept):
            found = [text for batch in one.batches() for text in batch["t"].to_pylist()]
            assert found == [text for j in range(i) for text in (f"{i}.{j}", None)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "own-2",
        "own-3",
        "own-4",
        "spool",
    ]
    for one in kept:
        one.close()
    spool.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ten_thousand_files_are_read_below_a_small_ceiling(tmp_path):
    (tmp_path / "many").mkdir()
    for i in range(10_000):
        (tmp_path / "many" / f"{i}.csv").write_text(f"a,b\n{i},w\n", "utf-8")
    (tmp_path / "recipe.yaml").write_text(
        "name: many\nsource: {type: files, path: many}\nresources: {memory: 1GiB}\n",
        "utf-8",
    )
    done = penstock(tmp_path, "prepare", "recipe.yaml")
    assert done.returncode == 0 and "10,000 rows in = " in done.stdout, done.stdout[
        :2_000
    ]
