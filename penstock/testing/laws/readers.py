"""The laws of readers.

`check_reader(Reader.load("acme.kv"), content)` judges a format by all of them, on the bytes of one whole file
of it that has some rows. They are bad as well as good ones, if the format knows bad ones.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from penstock.contracts.data import ROW_FILE, ROW_NUMBER
from penstock.contracts.reading import Reader, RowReader
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.formats import Input, Reading, extract

Law = Callable[[Reader, bytes], None]

_MEMORY_BYTES = 1 << 28
_CUTS = 16
"""So many places at which the file is cut, or a byte of it changed."""


@dataclass(frozen=True)
class _Table:
    """What came of one reading."""

    columns: dict[str, str]
    rows: list[str]
    rejects: list[dict[str, object]]


def _read(
    reader: Reader, content: bytes, *, ending: str = "", limit: int | None = None
) -> _Table:
    """A file of these bytes, read in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = (
            Path(folder) / f"table{reader.endings[0] if reader.endings else ''}{ending}"
        )
        path.write_bytes(content)
        reading = Reading.model_validate({"format": reader})
        file = Input(path.name, str(path), reading, len(content))
        extracted = extract(
            [file],
            Path(folder) / "scratch",
            memory_bytes=_MEMORY_BYTES,
            events=Events(),
            limit=limit,
        )
        table = pq.read_table(extracted.parquet)
        assert table[ROW_FILE].to_pylist() == [0] * extracted.rows
        assert table[ROW_NUMBER].to_pylist() == list(range(extracted.rows)), (
            "rows are not numbered 0, 1, 2, …"
        )
        # without their file's name, which is another where it is packed
        rejects = [
            row
            for path in extracted.rejects
            for row in pq.read_table(path).drop_columns(["file"]).to_pylist()
        ]
        assert len(rejects) == extracted.rejected
        rows = [
            json.dumps(row, default=str)
            for row in table.select(extracted.schema.names).to_pylist()
        ]
        return _Table(
            {field.name: str(field.type) for field in extracted.schema}, rows, rejects
        )


def declared_is_loaded(reader: Reader, content: bytes) -> None:
    """Declared → loaded → declared is the identity, and equal declarations are equal readers."""
    again = Reader.load(reader.to_dict())
    assert again == reader, f"loading what {reader!r} declares gives {again!r}"


def names_are_plain(reader: Reader, content: bytes) -> None:
    """Endings are in lower case and begin with a dot; first bytes and words are not empty."""
    for ending in reader.endings:
        assert ending.startswith(".") and ending == ending.lower(), (
            f"{ending!r} is no ending, such as '.kv'"
        )
    assert all(reader.magic), "every file begins with no bytes at all"
    unknown = set(reader.words) - set(Reading.field_names())
    assert not unknown, (
        f"the recipe has no words {sorted(unknown)}; a reader's own options are its fields"
    )


def rows_have_places(reader: Reader, content: bytes) -> None:
    """There are rows, and each reject has its line, reason and text."""
    table = _read(reader, content)
    assert table.rows, "the file has no rows; give the laws one that has some"
    for reject in table.rejects:
        assert isinstance(reject["line"], int) and reject["line"] >= 1, (
            f"a reject without a line: {reject}"
        )
        assert reject["reason"] and reject["row"] is not None, (
            f"a reject without reason or text: {reject}"
        )


def reading_is_repeatable(reader: Reader, content: bytes) -> None:
    """A file gives the same rows and rejects whenever it is read."""
    assert _read(reader, content) == _read(reader, content), (
        "the same file gives other rows"
    )


def packed_is_the_same(reader: Reader, content: bytes) -> None:
    """A file packed by gzip is read as it is without. Formats that are packed within, and read by place, may
    refuse it in a sentence; one that gives row after row may not.
    """
    try:
        packed = _read(reader, gzip.compress(content, mtime=0), ending=".gz")
    except SourceError as error:
        if reader.magic and not isinstance(reader, RowReader):
            return  # known by its first bytes, and packed within
        raise AssertionError(f"the file packed by gzip is refused: {error}") from error
    assert packed == _read(reader, content), "the file packed by gzip gives other rows"


def a_look_is_the_beginning(reader: Reader, content: bytes) -> None:
    """A look at some rows has columns of the whole, and rows from its beginning."""
    whole, look = _read(reader, content), _read(reader, content, limit=1)
    assert set(look.columns) <= set(whole.columns), (
        f"a look has columns {set(look.columns)}"
    )
    assert 0 < len(look.rows) + len(look.rejects) <= len(whole.rows) + len(whole.rejects)


def damage_is_told(reader: Reader, content: bytes) -> None:
    """A file that is cut short, or has a byte changed, gives rows and rejects, or one sentence."""
    for step in range(1, _CUTS):
        place = len(content) * step // _CUTS
        changed = content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
        for damaged in (content[:place], changed):
            with contextlib.suppress(SourceError):
                _read(reader, damaged)


LAWS: tuple[Law, ...] = (
    declared_is_loaded,
    names_are_plain,
    rows_have_places,
    reading_is_repeatable,
    packed_is_the_same,
    a_look_is_the_beginning,
    damage_is_told,
)


def check_reader(reader: Reader, content: bytes) -> None:
    """Judge a reader by every law.

    Args:
        reader: the format, with its options.
        content: the bytes of a whole file of it.

    Raises:
        AssertionError: naming the law and the difference.
    """
    for law in LAWS:
        try:
            law(reader, content)
        except AssertionError as error:
            raise AssertionError(
                f"{type(reader).__name__} breaks the law {law.__name__!r}: {error}"
            ) from error
