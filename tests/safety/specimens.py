"""A small whole file of every format that Penstock reads, how it is read, and what may not be lost of it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import re
import shutil
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyarrow import orc

from penstock.contracts.data import Source
from penstock.core.errors import UserError
from penstock.core.events import Events
from penstock.formats.pictures import BadPicture, decode
from penstock.formats.table import read_sound
from penstock.parts.sources.files import Files
from penstock.parts.sources.folder import Folder

ROWS = 60
MEMBERS = 12
SIDE = 40
_LEFT = re.compile(r"left out of [^:]+: (.*)")


class Refused(Exception):
    """A file was refused in a sentence."""


@dataclass(frozen=True)
class Specimen:
    """A file of a format."""

    make: Callable[[int], bytes]
    """A whole file; another one for another number."""
    read: Callable[[bytes, Path], str]
    """Reads a damaged one in a folder; what was lost in silence, or nothing. Raises `Refused`."""


@dataclass(frozen=True)
class Read:
    """What a source gave."""

    rows: int
    rejected: int
    left_out: int
    """Members that are said to be no rows."""
    joined: bool
    """Whether a tar was said to be several, joined: what an end mark in the midst of one looks like."""

    @property
    def accounted(self) -> int:
        return self.rows + self.rejected + self.left_out


def read_source(source: Source, folder: Path) -> Read:
    """Everything that a source has.

    Raises:
        Refused: in a sentence that is the user's to act on.
    """
    lines: list[str] = []
    events = Events(lambda event: lines.append(str(event.fields.get("text", ""))))
    scratch = folder / "scratch"
    try:
        made = source.extract(
            source.snapshot(folder), scratch, memory_bytes=256 << 20, events=events
        )
    except UserError as error:
        raise Refused(error.message) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    left = sum(_left_out(line) for line in lines)
    return Read(
        made.rows, made.rejected, left, any("joined end to end" in line for line in lines)
    )


def _left_out(line: str) -> int:
    match = _LEFT.match(line)
    if match is None:
        return 0
    counted = [part for part in match[1].split("; ") if "rows all the same" not in part]
    return sum(int(part.split(" ", 1)[0].replace(",", "")) for part in counted)


# -- tables --------------------------------------------------------------------------------------------------


def _records(variant: int) -> list[dict[str, object]]:
    return [
        {
            "id": i + 1000 * variant,
            "x": i / 7,
            "name": f"näme {i % 9}",
            "city": ["Oslo", "Bergen", None][i % 3],
            "t": datetime(2024, 1, 1 + i % 28, 5, tzinfo=UTC),
            "list": [float(i), 2.5] if i % 4 else None,
        }
        for i in range(ROWS)
    ]


def csv(variant: int = 0) -> bytes:
    lines = ["id,x,name,city,t"]
    for r in _records(variant):
        lines.append(
            f"{r['id']},{r['x']:.4f},{r['name']},{r['city'] or ''},{r['t']:%Y-%m-%dT%H:%M:%SZ}"
        )
    return ("\n".join(lines) + "\n").encode()


def jsonl(variant: int = 0) -> bytes:
    import json

    return "".join(
        json.dumps({**r, "t": str(r["t"])}, ensure_ascii=False) + "\n"
        for r in _records(variant)
    ).encode()


def table(variant: int = 0) -> pa.Table:
    """Columns of many types, some nested, in the order that a recipe never cares about."""
    records = _records(variant)
    money = [Decimal(i) / 100 for i in range(ROWS)]
    return pa.table(
        {
            "id": pa.array([r["id"] for r in records], pa.int32()),
            "x": pa.array([r["x"] for r in records], pa.float64()),
            "name": pa.array([r["name"] for r in records], pa.string()),
            "city": pa.array([r["city"] for r in records]).dictionary_encode(),
            "t": pa.array([r["t"] for r in records], pa.timestamp("us", "UTC")),
            "list": pa.array([r["list"] for r in records], pa.list_(pa.float32())),
            "in": pa.array([{"a": i, "b": f"b{i}"} for i in range(ROWS)]),
            "money": pa.array(money, pa.decimal128(12, 2)),
            "flag": pa.array([i % 3 == 0 for i in range(ROWS)]),
            "raw": pa.array([bytes([i]) * (i % 5) for i in range(ROWS)], pa.binary()),
        }
    )


def parquet(variant: int = 0) -> bytes:
    out = io.BytesIO()
    pq.write_table(
        table(variant), out, row_group_size=ROWS // 2, write_page_checksum=True
    )
    return out.getvalue()


def parquet_bare(variant: int = 0) -> bytes:
    """Without check sums of pages, packed, as most writers leave it."""
    out = io.BytesIO()
    pq.write_table(table(variant), out, row_group_size=ROWS // 2, compression="zstd")
    return out.getvalue()


def orc_file(variant: int = 0) -> bytes:
    out = io.BytesIO()
    orc.write_table(table(variant).drop_columns(["city"]), out)
    return out.getvalue()


def arrow(
    variant: int = 0, *, stream: bool = False, compression: str | None = None
) -> bytes:
    out = io.BytesIO()
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    whole = table(variant)
    with make(
        out, whole.schema, options=pa.ipc.IpcWriteOptions(compression=compression)
    ) as writer:
        writer.write_table(whole, max_chunksize=ROWS // 3)
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)  # type: ignore[no-any-return]


def json_list(variant: int = 0) -> bytes:
    return b"[\n" + jsonl(variant).strip().replace(b"\n", b",\n") + b"\n]\n"


def _arrays(variant: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(variant)
    return {
        "x": chance.normal(size=(ROWS, 3)),
        "y": np.arange(ROWS) + variant,
        "name": np.array([f"näme {i % 9}" for i in range(ROWS)]),
        "t": np.arange(ROWS).astype("datetime64[D]"),
    }


def npy(variant: int = 0) -> bytes:
    out = io.BytesIO()
    names = list(_arrays(variant))[1:]
    columns = [_arrays(variant)[name] for name in names]
    np.save(out, np.rec.fromarrays(columns, names=names), allow_pickle=False)
    return out.getvalue()


def npz(variant: int = 0, *, packed: bool = True) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(out, **_arrays(variant))
    return out.getvalue()


def sqlite(variant: int = 0) -> bytes:
    with closing(sqlite3.connect(":memory:")) as base:
        base.execute("CREATE TABLE a (id INTEGER PRIMARY KEY, x REAL, name TEXT, t DATE)")
        base.executemany(
            "INSERT INTO a VALUES (?, ?, ?, ?)",
            [
                (r["id"], r["x"], f"{r['name']} {'long' * 50}", f"{r['t']:%Y-%m-%d}")
                for r in _records(variant)
            ],
        )
        base.commit()
        return base.serialize()


def xlsx(variant: int = 0) -> bytes:
    book = openpyxl.Workbook()
    book.active.append(["id", "x", "name", "city", "t"])
    for r in _records(variant):
        cells = [r["id"], r["x"], r["name"], r["city"], r["t"].replace(tzinfo=None)]
        book.active.append(cells)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def fixed_width(variant: int = 0) -> bytes:
    lines = ["id    x       name     city"]
    for r in _records(variant):
        lines.append(f"{r['id']:<6}{r['x']:<8.4f}{r['name']:<9}{r['city'] or 'Rome':<7}")
    return ("\n".join(lines) + "\n").encode()


def _table_file(
    name: str, make: Callable[[int], bytes], count: Callable[[bytes], set[int] | None]
) -> Specimen:
    def read(damaged: bytes, folder: Path) -> str:
        path = folder / name
        path.write_bytes(damaged)
        result = read_source(Files(path=str(path)), folder)
        expected = count(damaged)
        if expected is not None and result.accounted not in expected:
            return f"{result} where there are {sorted(expected)}"
        return ""

    return Specimen(make, read)


def _csv_rows(text: bytes) -> set[int] | None:
    """The records of a CSV without quotes; unknown with them, and where lines end with CR."""
    if b'"' in text:
        return None
    rows = sum(
        bool(line.strip(b" \t\r\x0b\x0c"))
        for line in text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    )
    return {rows, rows - 1}


def _json_rows(text: bytes) -> set[int]:
    return {
        sum(
            bool(line.strip()) for line in text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        )
    }


def _json_elements(text: bytes) -> set[int] | None:
    """The elements of a list that is still JSON; unknown where it is none."""
    import json

    try:
        whole = json.loads(text)
    except ValueError:
        return None
    return {len(whole)} if isinstance(whole, list) else None


def _unpacked(
    count: Callable[[bytes], set[int] | None], unpack: Callable[[bytes], bytes]
) -> Callable[[bytes], set[int] | None]:
    def counted(damaged: bytes) -> set[int] | None:
        try:
            text = unpack(damaged)
        except Exception as error:  # noqa: BLE001 - whatever the reference says: it cannot be unpacked
            return {-1} if not isinstance(error, MemoryError) else None
        return count(text)

    return counted


def _as_made(damaged: bytes) -> set[int]:
    return {ROWS}


# -- archives ------------------------------------------------------------------------------------------------


def _members(variant: int) -> list[tuple[str, bytes]]:
    chance = random.Random(variant)
    return [
        (
            f"{'ab'[i % 2]}/{variant}-{i}.txt",
            f"{chance.getrandbits(600 * i + 8):x}".encode(),
        )
        for i in range(MEMBERS)
    ]


def zipped(variant: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, (name, data) in enumerate(_members(variant)):
            method = zipfile.ZIP_DEFLATED if i % 2 else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), data, method)
    return out.getvalue()


def tarred(variant: int = 0, *, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for i, (name, data) in enumerate(_members(variant)):
            info = tarfile.TarInfo(name if i % 3 else f"{'ä' * 40}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _tables(variant: int) -> dict[str, bytes]:
    """A table in two members, and a text that is none."""
    head, *rows = csv(variant).splitlines(keepends=True)
    half = ROWS // 2
    parts = {"train/a.csv": rows[:half], "test/b.csv": rows[half:]}
    return {"README": b"notes"} | {n: head + b"".join(r) for n, r in parts.items()}


def zipped_tables(variant: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _tables(variant).items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


def tarred_tables(variant: int = 0) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in _tables(variant).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _with_notes(damaged: bytes) -> set[int]:
    """The rows of both tables, and the member that is none."""
    return {ROWS + 1}


def _archive_file(name: str, make: Callable[[int], bytes]) -> Specimen:
    def read(damaged: bytes, folder: Path) -> str:
        path = folder / name
        path.write_bytes(damaged)
        result = read_source(Folder(path=str(path)), folder)
        return (
            ""
            if result.accounted == MEMBERS or result.joined
            else f"{result} of {MEMBERS} members"
        )

    return Specimen(make, read)


def _read_texts(damaged: bytes, folder: Path) -> str:
    root = folder / "texts"
    root.mkdir(exist_ok=True)
    (root / "a.txt").write_bytes(damaged)
    (root / "b.txt").write_bytes(b"whole")
    result = read_source(Folder(path=str(root)), folder)
    return "" if result.accounted == 2 else f"{result} of 2 files"


def _read_golden(damaged: bytes, folder: Path) -> str:
    """As a bundle reads its golden rows."""
    path = folder / "golden.arrow"
    path.write_bytes(damaged)
    try:
        whole = read_sound(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Refused(str(error)) from None
    whole.take(list(range(len(whole))))
    return ""


# -- pictures ------------------------------------------------------------------------------------------------


def pixels(variant: int = 0) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3], smooth with some noise, so that every format has something to pack."""
    down, across = np.mgrid[0:SIDE, 0:SIDE]
    smooth = np.stack([down * 5, across * 5, np.full((SIDE, SIDE), 60 + variant)], -1)
    noise = np.random.default_rng(variant).integers(0, 20, (SIDE, SIDE, 3))
    return (smooth + noise).astype(np.uint8)


def picture(format: str, variant: int = 0, **options: object) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(pixels(variant))
    if format == "GIF":
        image = image.quantize(64)
    image.save(out, format, **options)
    return out.getvalue()


def _picture_file(format: str, *, summed: bool = False, **options: object) -> Specimen:
    """
    Args:
        summed: the format has check sums over all of its pixels, so that damage gives no other picture.
    """

    def make(variant: int) -> bytes:
        return picture(format, variant, **options)

    def read(damaged: bytes, folder: Path) -> str:
        try:
            seen = decode(damaged, SIDE, SIDE, 3)
        except BadPicture as error:
            raise Refused(str(error)) from None
        whole = make(0)
        same = any(np.array_equal(seen, decode(make(v), SIDE, SIDE, 3)) for v in (0, 1))
        if same or not (summed or whole.startswith(damaged)):
            return ""
        return f"other pixels: {np.abs(seen.astype(int) - pixels()).mean():.1f} away"

    return Specimen(make, read)


SPECIMENS: dict[str, Specimen] = {
    "csv": _table_file("a.csv", csv, _csv_rows),
    "csv.gz": _table_file(
        "a.csv.gz",
        lambda v: gzip.compress(csv(v), mtime=0),
        _unpacked(_csv_rows, gzip.decompress),
    ),
    "csv.zst": _table_file("a.csv.zst", lambda v: zstd(csv(v)), lambda data: None),
    "json": _table_file("a.json", json_list, _json_elements),
    "jsonl": _table_file("a.jsonl", jsonl, _json_rows),
    "jsonl.gz": _table_file(
        "a.jsonl.gz",
        lambda v: gzip.compress(jsonl(v), mtime=0),
        _unpacked(_json_rows, gzip.decompress),
    ),
    "jsonl.zst": _table_file("a.jsonl.zst", lambda v: zstd(jsonl(v)), lambda data: None),
    "parquet": _table_file("a.parquet", parquet, _as_made),
    "parquet_bare": _table_file("a.parquet", parquet_bare, _as_made),
    "arrow": _table_file("a.arrow", arrow, _as_made),
    "arrow_stream": _table_file("a.arrows", lambda v: arrow(v, stream=True), _as_made),
    "arrow_packed": _table_file(
        "a.feather", lambda v: arrow(v, compression="lz4"), _as_made
    ),
    "golden": Specimen(arrow, _read_golden),
    "fixed_width": _table_file("a.fwf", fixed_width, _csv_rows),
    "npy": _table_file("a.npy", npy, _as_made),
    "npz": _table_file("a.npz", npz, _as_made),
    "npz_bare": _table_file("a.npz", lambda v: npz(v, packed=False), _as_made),
    "orc": _table_file("a.orc", orc_file, _as_made),
    "sqlite": _table_file("a.sqlite", sqlite, _as_made),
    "xlsx": _table_file("a.xlsx", xlsx, _as_made),
    "zip": _archive_file("a.zip", zipped),
    "zip_tables": _table_file("a.zip", zipped_tables, _with_notes),
    "tar_tables": _table_file("a.tar", tarred_tables, lambda data: None),
    "tar.gz_tables": _table_file(
        "a.tar.gz",
        lambda v: gzip.compress(tarred_tables(v), mtime=0),
        lambda data: _with_notes(data) | {ROWS + 2},
    ),
    "tar": _archive_file("a.tar", tarred),
    "tar_gnu": _archive_file("a.tar", lambda v: tarred(v, form=tarfile.GNU_FORMAT)),
    "tar.gz": _archive_file("a.tar.gz", lambda v: gzip.compress(tarred(v), mtime=0)),
    "tar.zst": _archive_file("a.tar.zst", lambda v: zstd(tarred(v))),
    "tar.bz2": _archive_file("a.tar.bz2", lambda v: bz2.compress(tarred(v))),
    "tar.xz": _archive_file("a.tar.xz", lambda v: lzma.compress(tarred(v))),
    "texts": Specimen(lambda v: f"some text, ä {v}\n".encode() * 20, _read_texts),
    "png": _picture_file("PNG", summed=True),
    "jpeg": _picture_file("JPEG"),
    "jpeg_progressive": _picture_file("JPEG", progressive=True),
    "tiff": _picture_file("TIFF", compression="tiff_adobe_deflate"),
    "tiff_bare": _picture_file("TIFF"),
    "gif": _picture_file("GIF"),
    "webp": _picture_file("WEBP"),
    "webp_lossless": _picture_file("WEBP", lossless=True),
    "bmp": _picture_file("BMP"),
    "ppm": _picture_file("PPM"),
    "jpeg2000": _picture_file("JPEG2000"),
    "avif": _picture_file("AVIF"),
}
