"""Nothing is lost, or taken for something else, in silence: what a container says it has is what comes of it,
as rows or as rejects with a reason, and what is damaged is told."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.core.errors import SourceError
from penstock.parts.sources.files import Files
from tests.safety import specimens
from tests.safety.reading import LINES, Read, read, texts_of

FAR = 2**62


def read_column(array: pa.Array, format: str, folder: Path) -> Read:
    """A file of `id` and the column `c`, read."""
    whole = pa.table({"id": pa.array(range(len(array))), "c": array})
    path = folder / f"a.{format}"
    if format == "parquet":
        pq.write_table(whole, path)
    else:
        with pa.ipc.new_file(str(path), whole.schema) as writer:
            writer.write_table(whole)
    return read(Files(path=str(path)), folder)


def bits(kind: pa.DataType, values: list[int]) -> pa.Array:
    return pa.array(values, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        "large",
        "view",
        "dictionary",
        "list",
        "struct",
        "list of structs",
        "map",
        "list of lists",
        "list of two",
        "list of two, missing",
        "struct of lists of two",
    ],
)
def test_a_text_that_is_not_utf8_costs_its_row_alone(
    kind: str, format: str, tmp_path: Path
) -> None:
    array = texts_of(kind)
    if format == "parquet" and kind == "dictionary":
        array = array.dictionary_decode()  # pyarrow writes no such dictionary
    result = read_column(array, format, tmp_path)
    assert [row["id"] for row in result.rows] == [0, 2, 3]
    (reject,) = result.rejects
    assert (
        reject["file"] == f"a.{format}"
        and reject["line"] == 2
        and reject["column"].startswith("c")
    )
    assert "not UTF-8" in reject["reason"] and json.loads(reject["row"])["id"] == 1


def test_a_column_whose_name_is_not_utf8_is_told(tmp_path: Path) -> None:
    data = specimens.arrow().replace(b"money", b"mon\xffy")
    (tmp_path / "a.arrow").write_bytes(data)
    with pytest.raises(SourceError, match="cannot be read as Arrow"):
        read(Files(path=str(tmp_path / "a.arrow")), tmp_path)


def test_rejects_are_put_aside_once_where_rows_are_given_twice(tmp_path: Path) -> None:
    """A column that proves too narrow in a later file makes the second pass begin again."""
    texts = pa.array(LINES).view(pa.string())
    pq.write_table(
        pa.table({"c": texts, "n": pa.array([1.5, 2.5, 3.5, 4.5])}),
        tmp_path / "a.parquet",
    )
    pq.write_table(
        pa.table({"c": ["x"], "n": pa.array([2**60 + 1])}), tmp_path / "b.parquet"
    )
    result = read(Files(path=str(tmp_path)), tmp_path)
    assert len(result.rows) == 4 and len(result.rejects) == 1


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_moments_beyond_the_calendar_cost_their_rows(
    unit: str, zone: str | None, format: str, tmp_path: Path
) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6}[unit]
    last = 253_402_300_800 * per_second - 1
    first = -62_135_596_800 * per_second
    kind = pa.timestamp(unit, zone)
    if format == "parquet" and unit == "s":
        pytest.skip("Parquet has no moments in seconds")
    result = read_column(
        bits(kind, [0, last, last + 1, first, first - 1, FAR, -FAR]), format, tmp_path
    )
    assert [row["id"] for row in result.rows] == [0, 1, 3]
    assert {r["line"] for r in result.rejects} == {3, 5, 6, 7} and all(
        "years 1 to 9999" in r["reason"] for r in result.rejects
    )


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.date32(), [0, 2_932_896, 2_932_897, -719_163]),
        (pa.date64(), [0, 86_400_000, 86_400_000 * 2_932_897, -86_400_000 * 800_000]),
        (pa.time64("us"), [0, 86_399_999_999, 86_400_000_000, -1]),
        (pa.time32("ms"), [0, 86_399_999, 86_400_000, -1]),
    ],
)
def test_dates_and_times_beyond_cost_their_rows(
    kind: pa.DataType, values: list[int], format: str, tmp_path: Path
) -> None:
    result = read_column(bits(kind, values), format, tmp_path)
    assert [row["id"] for row in result.rows] == [0, 1] and len(result.rejects) == 2


def test_moments_within_lists_structs_and_dictionaries(tmp_path: Path) -> None:
    moments = bits(pa.timestamp("ms"), [0, FAR, 1, 2])
    for number, array in enumerate(
        (
            pa.ListArray.from_arrays([0, 1, 2, 3, 4], moments),
            pa.StructArray.from_arrays([moments], names=["t"]),
            pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3], pa.int8()), moments),
            pa.MapArray.from_arrays(
                [0, 1, 2, 3, 4], pa.array(["a", "b", "c", "d"]), moments
            ),
        )
    ):
        (tmp_path / str(number)).mkdir()
        result = read_column(array, "arrow", tmp_path / str(number))
        assert [row["id"] for row in result.rows] == [0, 2, 3] and len(
            result.rejects
        ) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.csv",
            "t,k\n2024-01-01T00:00:00Z,1\n9999-12-31T23:59:59-05:00,2\n0001-01-01T00:00:00+05:00,3\n",
        ),
        (
            "a.jsonl",
            '{"t":"2024-01-01T00:00:00Z","k":1}\n{"t":"9999-12-31T23:59:59-05:00","k":2}\n{"t":"0001-01-01T00:00:00+05:00","k":3}\n',
        ),
    ],
)
@pytest.mark.parametrize("types", [{}, {"t": "timestamp"}])
def test_zoned_ends_of_time_in_text(
    name: str, text: str, types: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    result = read(Files(path=str(tmp_path / name), types=types), tmp_path)
    assert (
        [row["k"] for row in result.rows] == [1]
        and [r["line"] for r in result.rejects] == [3, 4]
    ) or [r["line"] for r in result.rejects] == [2, 3]
    assert all(r["column"] == "t" for r in result.rejects)


def test_what_is_rare_among_arrows_types_is_read_or_refused_in_a_sentence(
    tmp_path: Path,
) -> None:
    texts, numbers = pa.array(["a", "b"]), pa.array([1, 2])
    union = pa.UnionArray.from_dense(
        pa.array([0, 1, 0, 1], pa.int8()),
        pa.array([0, 0, 1, 1], pa.int32()),
        [numbers, texts],
    )
    deep: pa.Array = pa.array([1, 2, 3, 4])
    for _ in range(40):
        deep = pa.ListArray.from_arrays([0, 1, 2, 3, 4], deep)
    arrays = {
        "union": union,
        "sparse union": pa.UnionArray.from_sparse(
            pa.array([0, 1, 0, 1], pa.int8()),
            [pa.array([1, 2, 3, 4]), pa.array(list("abcd"))],
        ),
        "list of unions": pa.ListArray.from_arrays([0, 1, 2, 3, 4], union),
        "struct of unions": pa.StructArray.from_arrays([union], names=["u"]),
        "run-end encoded": pa.RunEndEncodedArray.from_arrays(
            pa.array([2, 4], pa.int32()), texts
        ),
        "list view": pa.array([[1], None, [], [2, 3]], pa.list_view(pa.int64())),
        "null": pa.nulls(4),
        "deep": deep,
        "durations": bits(pa.duration("s"), [0, FAR, -FAR, 5]),
        "wide decimals": pa.array([10**75, -1, None, 7], pa.decimal256(76, 0)),
        "uint64": pa.array([2**64 - 1, 0, None, 1], pa.uint64()),
        "intervals": pa.array([pa.MonthDayNano([2**31 - 1, -(2**31), 2**63 - 1])] * 4),
        "json": pa.ExtensionArray.from_storage(
            pa.json_(), pa.array(["{}", None, "1", "2"])
        ),
        "no bytes": pa.array([b"", b"", None, b""], pa.binary(0)),
    }
    for number, (name, array) in enumerate(arrays.items()):
        (tmp_path / str(number)).mkdir()
        result = read_column(array, "arrow", tmp_path / str(number))
        assert len(result.rows) == 4, name


def test_integers_of_thousands_of_digits(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"n\n5\n{'9' * 5000}\n")
    result = read(Files(path=str(tmp_path / "a.csv"), types={"n": "integer"}), tmp_path)
    assert result.rows == [{"n": 5}] and "integer" in result.rejects[0]["reason"]


def test_lists_of_a_size_that_are_missing_change_no_other_column(tmp_path: Path) -> None:
    two = pa.FixedSizeListArray.from_arrays(
        pa.array([1, 2, 3, 4], pa.duration("s")), 2, mask=pa.array([False, True])
    )
    columns = {
        "two": two,
        "d": pa.array([1, None], pa.duration("ms")),
        "t": pa.array([0, 1], pa.timestamp("us", "Asia/Tokyo")),
        "large": pa.array(["a", None], pa.large_string()),
        "word": pa.array(["x", "y"]).dictionary_encode(),
        "half": pa.array([0.5, None], pa.float16()),
        "null": pa.nulls(2),
        "date": pa.array([0, 86_400_000], pa.date64()),
        "ARROW:schema": [1, 2],
        "money": pa.array([1, 2], pa.decimal256(60, 2)),
        "deep": pa.StructArray.from_arrays([two], names=["in"]),
    }
    for name, words in (("with.parquet", columns), ("arrow.arrow", columns)):
        (tmp_path / name).mkdir()
        whole = pa.table(words)
        if name.endswith("arrow"):
            with pa.ipc.new_file(
                str(tmp_path / name / "a.arrow"), whole.schema
            ) as writer:
                writer.write_table(whole)
        else:
            pq.write_table(whole, tmp_path / name / "a.parquet")
    rows = [
        read(Files(path=str(tmp_path / name)), tmp_path).rows
        for name in ("with.parquet", "arrow.arrow")
    ]
    assert (
        rows[0] == rows[1]
        and rows[0][0]["two"] == [1.0, 2.0]
        and rows[0][1]["two"] is None
    )


def test_codes_that_lead_out_of_a_dictionary_are_refused_before_they_are_weighed(
    tmp_path: Path,
) -> None:
    """Batches are cut by their weight, for which Arrow looks the codes up."""
    words = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 0] * 50, pa.int32()), pa.array(["one", "two"])
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, pa.schema([("w", words.type)])) as writer:
        writer.write_batch(pa.record_batch([words], names=["w"]))
    codes = struct.pack("<6i", *[0, 1, 0] * 2)
    for far in (2, 7, 2**30, -1, -(2**31)):
        damaged = sink.getvalue().replace(
            codes, struct.pack("<6i", 0, far, 0, 0, far, 0), 1
        )
        assert damaged != sink.getvalue()
        (tmp_path / "a.arrows").write_bytes(damaged)
        with pytest.raises(SourceError, match="cannot be read as Arrow"):
            read(Files(path=str(tmp_path / "a.arrows"), format="arrow"), tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        pa.decimal128(12, 2050),
        pa.decimal128(12, -500),
        pa.list_(pa.decimal256(12, 2050)),
        pa.dictionary(pa.int8(), pa.decimal128(5, 100)),
    ],
)
def test_decimals_of_impossible_places_are_told(
    kind: pa.DataType, tmp_path: Path
) -> None:
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), pa.schema([("d", kind)])) as writer:
        writer.write_batch(pa.record_batch([pa.nulls(3, kind)], names=["d"]))
    with pytest.raises(SourceError, match="its column 'd' has decimals with"):
        read(Files(path=str(tmp_path / "a.arrow")), tmp_path)


def test_a_zone_whose_name_is_no_text_is_told(tmp_path: Path) -> None:
    with pa.ipc.new_file(
        str(tmp_path / "a.arrow"), pa.schema([("t", pa.timestamp("us", "Asia/Tokyo"))])
    ) as writer:
        writer.write_batch(
            pa.record_batch(
                [pa.array([0], pa.timestamp("us", "Asia/Tokyo"))], names=["t"]
            )
        )
    data = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(data.replace(b"Asia/Tokyo", b"Asia\xd5Tokyo"))
    with pytest.raises(SourceError, match="cannot be read as Arrow"):
        read(Files(path=str(tmp_path / "a.arrow")), tmp_path)
