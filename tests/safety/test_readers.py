"""Nothing is lost, or taken for something else, in silence: what a container says it has is what comes of it,
as rows or as rejects with a reason, and what is damaged is told.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from penstock.bundle.bundle import Bundle
from penstock.contracts.data import Source
from penstock.core.errors import BundleError, PenstockError, SourceError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.formats.pages import Chain, check_pages
from penstock.formats.pictures import BadPicture, decode
from penstock.parts.sources.files import Files
from penstock.parts.sources.folder import Folder
from penstock.prepare.prepare import prepare
from penstock.recipe.schema import load_recipe
from tests.safety import specimens
from tests.safety.mutate import mutate

FAR = 2**62
LINES = [b"ok", b"\xff\xfe", None, b"go"]


@dataclass
class Read:
    rows: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    said: list[str]


def read(source: Source, folder: Path) -> Read:
    said: list[str] = []
    events = Events(lambda event: said.append(str(event.fields.get("text", ""))))
    made = source.extract(
        source.snapshot(folder), folder / "scratch", memory_bytes=256 << 20, events=events
    )
    rows = [
        row
        for path in made.parquet
        for row in pq.read_table(path, columns=made.schema.names).to_pylist()
    ]
    rejects = [row for path in made.rejects for row in pq.read_table(path).to_pylist()]
    assert (len(rows), len(rejects)) == (made.rows, made.rejected)
    return Read(rows, rejects, said)


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


# -- text that is not UTF-8 ----------------------------------------------------------------------------------


def _texts(kind: str) -> pa.Array:
    plain = pa.array(LINES).view(pa.string())
    one_each = [0, 1, 2, 3, 4]
    if kind == "large":
        return pa.array(LINES, pa.large_binary()).view(pa.large_string())
    if kind == "view":
        return pa.array(LINES, pa.binary_view()).view(pa.string_view())
    if kind == "dictionary":
        return pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 3], pa.int8()), plain)
    if kind == "list":
        return pa.ListArray.from_arrays(one_each, plain)
    if kind == "struct":
        return pa.StructArray.from_arrays([plain], names=["in"])
    # a size in the type; with one missing, Parquet is read without the sizes
    if kind.startswith("list of two"):
        twice = pa.array([text for text in LINES for _ in range(2)]).view(pa.string())
        return pa.FixedSizeListArray.from_arrays(
            twice, 2, mask=pa.array([False, False, "missing" in kind, False])
        )
    if kind == "list of lists":
        return pa.ListArray.from_arrays(
            one_each, pa.ListArray.from_arrays(one_each, plain)
        )
    if kind == "struct of lists of two":
        return pa.StructArray.from_arrays([_texts("list of two, missing")], names=["in"])
    if kind == "list of structs":
        return pa.ListArray.from_arrays(
            one_each, pa.StructArray.from_arrays([plain], names=["in"])
        )
    if kind == "map":
        keys = pa.array([b"ok", b"\xff", b"x", b"go"]).view(pa.string())
        return pa.MapArray.from_arrays(one_each, keys, pa.array([1, 2, 3, 4]))
    return plain


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
    array = _texts(kind)
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


# -- moments, and other values that nothing can hold ---------------------------------------------------------


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


# -- pictures ------------------------------------------------------------------------------------------------


def _turned(pixels: np.ndarray, side: int) -> np.ndarray:
    """What EXIF's orientation `side` means, by its definition."""
    turns = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels, 1),
    }
    return turns[side]


@pytest.mark.parametrize("side", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_picture_is_turned_exactly_once(format: str, side: int) -> None:
    down, across = np.mgrid[0:48, 0:64]
    pixels = np.stack([down * 4, across * 3, np.full((48, 64), 60)], -1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = side
    how: dict[str, Any] = (
        {"tiffinfo": {274: side}} if format == "TIFF" else {"exif": exif.tobytes()}
    )
    how |= {"lossless": True} if format == "WEBP" else {}
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format, **how)
    expected = _turned(pixels, side)
    again = np.asarray(
        ImageOps.exif_transpose(Image.open(io.BytesIO(out.getvalue()))).convert("RGB")
    )
    seen = decode(out.getvalue(), *expected.shape[:2], 3)
    assert np.array_equal(seen, again)
    assert np.abs(seen.astype(int) - expected).max() <= (12 if format == "JPEG" else 0)


def _resummed(data: bytes, place: int) -> bytes:
    """A PNG with one byte of its pixels changed and the CRC of that chunk put right: only Adler's sum
    tells.
    """
    start = data.index(b"IDAT")
    size = int.from_bytes(data[start - 4 : start], "big")
    changed = bytearray(data)
    changed[start + 4 + place] ^= 0x01
    crc = zlib.crc32(changed[start : start + 4 + size])
    changed[start + 4 + size : start + 8 + size] = crc.to_bytes(4, "big")
    return bytes(changed)


def test_a_png_with_a_wrong_sum_is_no_picture() -> None:
    whole = specimens.picture("PNG")
    assert decode(whole, 40, 40, 3).shape == (40, 40, 3)
    for place in range(8, len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        with pytest.raises(BadPicture):
            decode(bytes(changed), 40, 40, 3)
    for place in (200, 900, 2000):
        with pytest.raises(BadPicture, match=r"unpacked|damaged|cannot be read"):
            decode(_resummed(whole, place), 40, 40, 3)


@pytest.mark.parametrize(
    "name",
    [
        "jpeg",
        "jpeg_progressive",
        "tiff",
        "tiff_bare",
        "gif",
        "webp",
        "webp_lossless",
        "bmp",
        "ppm",
        "jpeg2000",
        "avif",
        "png",
    ],
)
def test_half_a_picture_is_no_picture(name: str) -> None:
    """Cut anywhere, it is refused, or it is the whole picture: never grey, never noise."""
    whole = specimens.SPECIMENS[name].make(0)
    pixels = decode(whole, 40, 40, 3)
    for end in range(0, len(whole), max(1, len(whole) // 150)):
        try:
            seen = decode(whole[:end], 40, 40, 3)
        except BadPicture:
            continue
        assert np.array_equal(seen, pixels), end


def test_a_jpeg_that_libjpeg_complains_of_is_no_picture() -> None:
    codec = pytest.importorskip("simplejpeg")
    whole = specimens.picture("JPEG", quality=95)
    hole = whole.index(b"\xff\xda") + 40
    complaints = 0
    for size in range(1, 300, 7):
        torn = whole[:hole] + whole[hole + size :]
        try:
            codec.decode_jpeg(torn)
        except ValueError:
            complaints += 1
            for side in (40, 20, 5):
                with pytest.raises(BadPicture, match=r"damaged|truncated"):
                    decode(torn, side, side, 3)
    assert complaints > 10


# -- encodings, and other words ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoding",
    [
        "zlib",
        "idna",
        "rot13",
        "hex",
        "base64",
        "bz2",
        "punycode",
        "undefined",
        "unicode_escape",
        "uu",
        "nothing",
        "utf-8\0",
        "",
    ],
)
@pytest.mark.parametrize("source", [Files, Folder])
def test_what_is_no_encoding_of_text_is_refused(
    source: type[Source], encoding: str
) -> None:
    with pytest.raises(ValueError, match="no encoding"):
        source(path="a.csv", encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "U16"])
def test_two_bytes_a_letter_need_their_mark(encoding: str, tmp_path: Path) -> None:
    """Else the machine's own order would be taken."""
    wide = encoding.replace("U16", "utf-16")
    (tmp_path / "t").mkdir()
    for folder, name in ((tmp_path, "a.csv"), (tmp_path / "t", "a.txt")):
        (folder / name).write_bytes("a,b\n1,ä\n".encode(f"{wide}-le"))
    with pytest.raises(
        SourceError, match=f"byte-order mark of {wide}: set `encoding` to {wide}-le or"
    ):
        read(Files(path=str(tmp_path / "a.csv"), encoding=encoding), tmp_path)
    result = read(
        Folder(path=str(tmp_path / "t"), encoding=encoding, content="text"), tmp_path
    )
    assert not result.rows and "byte-order mark" in result.rejects[0]["reason"]
    (tmp_path / "a.csv").write_bytes("a,b\n1,ä\n".encode(wide))
    assert read(
        Files(path=str(tmp_path / "a.csv"), encoding=encoding), tmp_path
    ).rows == [{"a": 1, "b": "ä"}]


@pytest.mark.parametrize("word", ["delimiter", "quote", "escape", "comment"])
@pytest.mark.parametrize("value", ["\0", "\n", "\r", ""])
def test_marks_of_csv_that_no_file_can_have(word: str, value: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"expected one ASCII character|must be what a line begins with|must not be empty",
    ):
        Files(path="a.csv", **{word: value})


def test_integers_of_thousands_of_digits(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"n\n5\n{'9' * 5000}\n")
    result = read(Files(path=str(tmp_path / "a.csv"), types={"n": "integer"}), tmp_path)
    assert result.rows == [{"n": 5}] and "integer" in result.rejects[0]["reason"]


# -- containers that say how much they have ------------------------------------------------------------------


def test_an_arrow_stream_that_was_cut_between_batches_is_told(tmp_path: Path) -> None:
    data = specimens.arrow(stream=True)
    (tmp_path / "a.arrow").write_bytes(data[:-8])
    with pytest.raises(SourceError, match="without the mark that closes"):
        read(Files(path=str(tmp_path / "a.arrow")), tmp_path)


def test_a_parquet_whose_parts_do_not_add_up_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason is for which a reader gives fewer rows than its file says."""
    from penstock.formats.columnar import Columnar

    (tmp_path / "a.parquet").write_bytes(specimens.parquet())
    whole = Columnar._raw_batches
    monkeypatch.setattr(
        Columnar, "_raw_batches", lambda self: (batch.slice(1) for batch in whole(self))
    )
    with pytest.raises(
        PenstockError, match="has 60 rows by its own word, and 58 could be read"
    ):
        read(Files(path=str(tmp_path / "a.parquet")), tmp_path)


def test_golden_rows_that_are_damaged_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = specimens.arrow()
    bundle = Bundle.__new__(Bundle)
    monkeypatch.setattr(Bundle, "reference", "bundle:b")
    monkeypatch.setattr(Bundle, "_member", lambda self, name: tmp_path / name)
    for seed in range(40):
        (tmp_path / "golden.arrow").write_bytes(mutate(data, seed))
        with pytest.raises(BundleError, match="bundle:b: its golden rows cannot be read"):
            bundle.golden()


# -- archives ------------------------------------------------------------------------------------------------


def _zip(members: int, *, hide: str = "") -> bytearray:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(members):
            archive.writestr(f"d/{i:02}{hide}.txt", f"text number {i}")
    return bytearray(out.getvalue())


def test_a_zip_whose_directory_lost_members_is_told(tmp_path: Path) -> None:
    """40 members, and a directory that swallows some: a longer comment here, a shorter directory there."""
    whole = _zip(40)
    start = whole.index(b"PK\x01\x02")
    end = whole.rindex(b"PK\x05\x06")
    entry = whole.index(b"PK\x01\x02", start + 4) - start
    swallowed = bytearray(whole)
    # the first entry's comment is the next three entries
    struct.pack_into("<H", swallowed, start + 32, 3 * entry)
    shorter = bytearray(whole)
    struct.pack_into("<L", shorter, end + 12, 37 * entry)
    struct.pack_into("<L", shorter, end + 16, start + 3 * entry)
    fewer = bytearray(whole)
    struct.pack_into("<HH", fewer, end + 8, 37, 37)
    for damaged in (swallowed, shorter, fewer):
        (tmp_path / "a.zip").write_bytes(damaged)
        with pytest.raises(SourceError, match=r"its directory has (37|40) members"):
            read(Folder(path=str(tmp_path / "a.zip")), tmp_path)


def test_a_zip_without_members_is_no_damaged_one(tmp_path: Path) -> None:
    """And one whose directory was emptied is told, though its members are there."""
    (tmp_path / "a.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(SourceError, match="it has no files"):
        read(Folder(path=str(tmp_path / "a.zip")), tmp_path)
    whole = _zip(3)
    members = whole[: whole.index(b"PK\x01\x02")]
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, len(members), 0)
    (tmp_path / "a.zip").write_bytes(members + end)
    with pytest.raises(SourceError, match="it has no files"):
        read(Folder(path=str(tmp_path / "a.zip")), tmp_path)


def test_a_zip_of_64_bits_is_counted_too(tmp_path: Path) -> None:
    whole = _zip(40)
    start, end = whole.index(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")

    def with_count(count: int) -> bytes:
        record = struct.pack(
            "<4sQ2H2L4Q",
            b"PK\x06\x06",
            44,
            45,
            45,
            0,
            0,
            count,
            count,
            end - start,
            start,
        )
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
        last = struct.pack(
            "<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0
        )
        return bytes(whole[:end]) + record + locator + last

    (tmp_path / "a.zip").write_bytes(with_count(40))
    assert len(read(Folder(path=str(tmp_path / "a.zip")), tmp_path).rows) == 40
    (tmp_path / "a.zip").write_bytes(with_count(41))
    with pytest.raises(SourceError, match="has 40 members, and its end record says 41"):
        read(Folder(path=str(tmp_path / "a.zip")), tmp_path)


def test_a_name_in_a_zips_directory_that_is_not_its_members(tmp_path: Path) -> None:
    """A name that became hidden, or another folder's, would have been left out without a word."""
    whole = _zip(5)
    start = whole.index(b"PK\x01\x02")
    for other in (b".", b"\0", b"x"):
        damaged = bytearray(whole)
        place = whole.index(b"d/03.txt", start) + 2
        damaged[place : place + 1] = other
        (tmp_path / "a.zip").write_bytes(damaged)
        with pytest.raises(SourceError, match="its directory says"):
            read(Folder(path=str(tmp_path / "a.zip"), pattern="d/0*.txt"), tmp_path)
    damaged = bytearray(whole)
    damaged[whole.index(b"d/03.txt", start) + 3] = ord("7")
    (tmp_path / "a.zip").write_bytes(damaged)
    result = read(Folder(path=str(tmp_path / "a.zip"), pattern="d/0*.txt"), tmp_path)
    assert len(result.rows) == 4 and len(result.rejects) == 1


def test_an_empty_name_in_a_zip_is_a_reject(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("x.txt"), "one")
        archive.writestr(zipfile.ZipInfo(""), "two")
    result = read(Folder(path=str(tmp_path / "a.zip")), tmp_path)
    assert len(result.rows) == 1 and "no name" in result.rejects[0]["reason"]


def _tar(members: int = 12) -> bytearray:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for i in range(members):
            data = (f"text {i} " * 200).encode()
            info = tarfile.TarInfo(f"{i:02}.txt")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return bytearray(out.getvalue())


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("member", [3, 11])
@pytest.mark.parametrize("packing", ["", ".gz"])
def test_empty_blocks_within_a_tar_do_not_end_it(
    packing: str, member: int, blocks: int, tmp_path: Path
) -> None:
    data = _tar()
    place = data.index(f"{member:02}.txt".encode())
    data[place : place + 512 * blocks] = bytes(512 * blocks)
    whole = bytes(data) if not packing else gzip.compress(data)
    (tmp_path / f"a.tar{packing}").write_bytes(whole)
    with pytest.raises(SourceError, match="empty block"):
        read(Folder(path=str(tmp_path / f"a.tar{packing}")), tmp_path)


@pytest.mark.parametrize("place", [-1, -4, -8, 30])
def test_a_wrong_sum_or_length_of_gzip_is_told(place: int, tmp_path: Path) -> None:
    for name, data in (
        ("a.csv.gz", specimens.csv()),
        ("a.jsonl.gz", specimens.jsonl()),
        ("a.tar.gz", bytes(_tar()) + b"rubbish after it"),
    ):
        packed = bytearray(gzip.compress(data, mtime=0))
        packed[place] ^= 0x40
        (tmp_path / name).write_bytes(packed)
        source: Source = (
            Folder(path=str(tmp_path / name))
            if "tar" in name
            else Files(path=str(tmp_path / name))
        )
        with pytest.raises(SourceError, match=r"damaged|cannot be unpacked"):
            read(source, tmp_path)


def test_what_is_called_gz_and_is_not_is_told(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(specimens.csv()))
    packed[1] ^= 0xFF
    (tmp_path / "a.csv.gz").write_bytes(packed)
    with pytest.raises(SourceError, match="as if it were packed"):
        read(Files(path=str(tmp_path / "a.csv.gz")), tmp_path)


# -- what is read is what was hashed -------------------------------------------------------------------------


def _other(data: bytes) -> bytes:
    """As many bytes, other content, still a file of its format."""
    return data.replace(b"Bergen", b"Agerbn").replace(b"text 1 ", b"text 9 ")


def _change(path: Path) -> None:
    """In place, at the same size, with the same time of its content."""
    before = path.stat()
    data = _other(path.read_bytes())
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (
        path.stat().st_size == before.st_size
        and path.stat().st_mtime_ns == before.st_mtime_ns
    )


CHANGED = ["a.csv", "a.jsonl", "a.parquet", "a.arrow", "a.tar", "texts", "load"]


def _lake(kind: str, folder: Path) -> tuple[Source, Path]:
    """A source, and the file of it that will change."""
    if kind == "texts":
        (folder / "texts").mkdir()
        (folder / "texts" / "a.txt").write_bytes(b"text 1 ")
        return Folder(path=str(folder / "texts")), folder / "texts" / "a.txt"
    if kind == "load":
        (folder / "files").mkdir()
        (folder / "files" / "a.txt").write_bytes(b"text 1 ")
        (folder / "a.csv").write_text("n,f\n1,a.txt\n")
        return (
            Files.model_validate(
                {
                    "path": str(folder / "a.csv"),
                    "load": {"f": {"root": str(folder / "files"), "text": True}},
                }
            ),
            folder / "files" / "a.txt",
        )
    path = folder / kind
    if kind == "a.tar":
        path.write_bytes(_tar())
        return Folder(path=str(path)), path
    plain = io.BytesIO()
    pq.write_table(
        specimens.table().drop_columns(["in"]),
        plain,
        compression="none",
        use_dictionary=False,
    )
    makers = {
        "a.csv": specimens.csv,
        "a.jsonl": specimens.jsonl,
        "a.parquet": plain.getvalue,
        "a.arrow": specimens.arrow,
    }
    path.write_bytes(makers[kind]())
    return Files(path=str(path)), path


@pytest.mark.parametrize("kind", CHANGED)
def test_a_source_that_changes_after_it_was_hashed_is_refused(
    kind: str, tmp_path: Path
) -> None:
    source, path = _lake(kind, tmp_path)
    snapshot = source.snapshot(tmp_path)
    _change(path)
    with pytest.raises(SourceError, match="has changed while it was being prepared"):
        source.extract(
            snapshot, tmp_path / "scratch", memory_bytes=256 << 20, events=Events()
        )


@pytest.mark.parametrize("kind", ["a.csv", "a.jsonl", "a.parquet", "a.arrow"])
def test_a_source_that_changes_while_it_is_read_is_refused(
    kind: str, tmp_path: Path
) -> None:
    source, path = _lake(kind, tmp_path)
    snapshot = source.snapshot(tmp_path)
    changed: list[bool] = []

    def between_the_passes(event: Any) -> None:
        if event.name == "progress" and not changed:
            changed.append(True)
            _change(path)

    with pytest.raises(SourceError, match="has changed while it was being prepared"):
        source.extract(
            snapshot,
            tmp_path / "scratch",
            memory_bytes=256 << 20,
            events=Events(between_the_passes),
        )
    assert changed


@pytest.mark.parametrize("kind", CHANGED)
def test_the_memo_of_hashes_sees_a_change_at_the_same_size_and_time(
    kind: str, tmp_path: Path
) -> None:
    source, path = _lake(kind, tmp_path)
    memo = tmp_path / "memo.json"
    first = source.snapshot(tmp_path, memo)
    assert source.snapshot(tmp_path, memo) == first
    _change(path)
    second = source.snapshot(tmp_path, memo)
    assert second.to_dict() != first.to_dict()
    source.extract(second, tmp_path / "scratch", memory_bytes=256 << 20, events=Events())


def test_a_file_that_is_only_touched_is_no_other_file(tmp_path: Path) -> None:
    source, path = _lake("a.csv", tmp_path)
    snapshot = source.snapshot(tmp_path)
    os.utime(path, ns=(1, 1))
    assert (
        source.extract(
            snapshot, tmp_path / "scratch", memory_bytes=256 << 20, events=Events()
        ).rows
        == specimens.ROWS
    )


def test_a_far_source_that_changes_is_refused() -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/lost/a.csv", specimens.csv())
    source = Files(path="memory://lost/a.csv")
    snapshot = source.snapshot(Path("/"))
    memory.pipe_file("/lost/a.csv", _other(specimens.csv()))
    try:
        with (
            tempfile.TemporaryDirectory() as scratch,
            pytest.raises(SourceError, match="has changed"),
        ):
            source.extract(
                snapshot, Path(scratch), memory_bytes=256 << 20, events=Events()
            )
    finally:
        memory.rm("/lost", recursive=True)


def test_a_dataset_is_not_made_of_what_was_not_hashed(tmp_path: Path) -> None:
    """A joined source changes while the main one is read: neither enters the cache under the old hash."""
    (tmp_path / "a.csv").write_text("k,v\n" + "".join(f"{i},{i}\n" for i in range(40)))
    (tmp_path / "b.csv").write_text(
        "k,w\n" + "".join(f"{i},{i + 100}\n" for i in range(40))
    )
    recipe = {
        "name": "lost",
        "source": {"type": "files", "path": "a.csv"},
        "join": [{"source": {"type": "files", "path": "b.csv"}, "on": ["k"]}],
        "split": {"train": 1, "validation": 0, "test": 0},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    changed: list[bool] = []

    def once(event: Any) -> None:
        if (
            event.name == "progress"
            and event.fields.get("stage") == "extract"
            and not changed
        ):
            changed.append(True)
            before = (tmp_path / "b.csv").stat()
            data = (tmp_path / "b.csv").read_bytes().replace(b",100\n", b",999\n")
            with open(tmp_path / "b.csv", "r+b") as file:
                file.write(data)
            os.utime(tmp_path / "b.csv", ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(
        SourceError, match=r"b\.csv has changed while it was being prepared"
    ):
        prepare(
            load_recipe(tmp_path / "recipe.yaml"), Store(tmp_path / "store"), Events(once)
        )
    assert changed
    again = prepare(
        load_recipe(tmp_path / "recipe.yaml"), Store(tmp_path / "store"), Events()
    )
    assert 999 in [
        row["w"] for batch in again.batches("train") for row in batch.to_pylist()
    ]


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


# -- Parquet in a bucket -------------------------------------------------------------------------------------


@pytest.fixture
def bucket() -> Any:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    yield memory
    memory.rm("/pages", recursive=True)


@pytest.mark.parametrize("kind", ["plain", "list", "list of two, missing", "struct"])
def test_far_texts_that_are_not_utf8_cost_their_rows(
    kind: str, bucket: Any, tmp_path: Path
) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"id": range(4), "c": _texts(kind)}), out)
    bucket.pipe_file("/pages/a.parquet", out.getvalue())
    result = read(Files(path="memory://pages/a.parquet"), tmp_path)
    assert [row["id"] for row in result.rows] == [0, 2, 3] and [
        r["line"] for r in result.rejects
    ] == [2]
    assert not list((tmp_path / "scratch").glob("copy-*"))


@pytest.mark.parametrize("shift", [-1, 1, 37])
def test_far_pages_that_were_moved_are_refused_before_arrow_walks_them(
    shift: int, bucket: Any, tmp_path: Path
) -> None:
    out = io.BytesIO()
    pq.write_table(
        pa.table({f"c{i}": [f"value {j}" for j in range(50)] for i in range(8)}), out
    )
    data = out.getvalue()
    middle = len(data) // 3
    bucket.pipe_file(
        "/pages/a.parquet",
        data[: middle + min(shift, 0)] + b"\0" * max(shift, 0) + data[middle:],
    )
    source = Files(path="memory://pages/a.parquet")
    with pytest.raises(
        SourceError, match=r"a\.parquet cannot be read as Parquet.*row group 0, column"
    ):
        read(source, tmp_path)
    with pytest.raises(SourceError, match="row group 0, column"):
        source.sample(source.snapshot(tmp_path), 10)
    assert not list(tmp_path.rglob("copy-*"))


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"compression": "zstd", "data_page_version": "2.0"},
        {"use_dictionary": False, "compression": "none"},
        {"data_page_size": 64, "row_group_size": 100},
        {"write_page_index": True, "write_page_checksum": True},
        {"use_dictionary": ["s"], "column_encoding": {"i": "DELTA_BINARY_PACKED"}},
    ],
)
def test_the_pages_of_every_whole_parquet_file_follow_one_another(tmp_path, words):
    rows = 1000
    table = pa.table(
        {
            "i": range(rows),
            "s": [f"text {i % 17}" * (i % 5) for i in range(rows)],
            "l": [[i] * (i % 4) if i % 7 else None for i in range(rows)],
            "n": pa.nulls(rows, pa.float64()),
            "r": [{"a": i, "b": None} for i in range(rows)],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", **words)
    with open(tmp_path / "a.parquet", "rb") as file:
        check_pages(file, pq.read_metadata(tmp_path / "a.parquet"))


@pytest.mark.parametrize("shift", [-1, 1, 2, 37])
def test_pages_that_were_moved_are_refused_before_arrow_walks_them(tmp_path, shift):
    """A byte more or less in the middle: every page behind it is out of place, and Arrow (25) may never come
    back.
    """
    pq.write_table(
        pa.table({f"c{i}": [f"value {j}" for j in range(50)] for i in range(8)}),
        tmp_path / "a.parquet",
    )
    data = (tmp_path / "a.parquet").read_bytes()
    middle = len(data) // 3
    moved = data[: middle + min(shift, 0)] + b"\0" * max(shift, 0) + data[middle:]
    (tmp_path / "b.parquet").write_bytes(moved)
    with (
        open(tmp_path / "b.parquet", "rb") as file,
        pytest.raises(Chain, match="row group 0, column"),
    ):
        check_pages(file, pq.read_metadata(tmp_path / "b.parquet"))
