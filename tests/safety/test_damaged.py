"""A picture, a text or a table that is damaged is told, and never read as if it were whole."""

from __future__ import annotations

import io
import zlib
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
from penstock.formats.pages import Chain, check_pages
from penstock.formats.pictures import BadPicture, decode
from penstock.parts.sources.files import Files
from penstock.parts.sources.folder import Folder
from tests.safety import specimens
from tests.safety.mutate import mutate
from tests.safety.reading import read, texts_of


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


def test_an_arrow_stream_that_was_cut_between_batches_is_told(tmp_path: Path) -> None:
    data = specimens.arrow(stream=True)
    (tmp_path / "a.arrow").write_bytes(data[:-8])
    with pytest.raises(SourceError, match="without the end-of-stream mark"):
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
        PenstockError, match="has 60 rows according to its metadata, but 58 could be read"
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
    pq.write_table(pa.table({"id": range(4), "c": texts_of(kind)}), out)
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
