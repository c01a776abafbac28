"""What a file format promises: how its files are known, and how their rows are read.

One file a format. `format: csv` opens `penstock/parts/readers/csv.py`; `format: acme.kv` opens the user's own
module `acme/kv.py`. A format of your own is a `RowReader`: it turns one file into rows, and everything else
is done for it, as for the built-in ones: names, `rename`, `columns`, types, missing values, bad rows,
`on_bad_row`, looks of `init`, compression, buckets, and the count of what came in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa

from penstock.contracts.part import Part


@dataclass(frozen=True, slots=True)
class Row:
    """A row that was read."""

    line: int
    """Where it begins in the file, from 1: a line, or its number where the format has no lines."""
    values: Mapping[str, Any]
    """By column: text, numbers, truth values, bytes, dates, moments, and lists or mappings of these. None is
    a missing value, and so is a column that the row lacks.
    """


@dataclass(frozen=True)
class Reject:
    """A row that cannot be read."""

    line: int
    """From 1; a table format counts rows."""
    reason: str
    row: str
    """The raw text, or the row as JSON."""
    column: str | None = None


class TableFile(ABC):
    """One file, as a `RowReader` gets it: on this machine or in a bucket, packed or not."""

    path: str
    """What it is called in messages and in the quarantine."""
    is_sample: bool = False
    """Whether some rows are read for a look: checks over the whole file may then wait."""
    most_bytes: int = 64 << 20
    """What may be held of it in memory at once."""

    @abstractmethod
    def say(self, text: str, *, warn: bool = False) -> None:
        """Tell the user something of this file, once: `text` goes on behind its path, as in "has two sheets
        with rows".
        """

    @abstractmethod
    def open(self) -> AbstractContextManager[BinaryIO]:
        """Its bytes from the beginning, unpacked where it is gzip or Zstandard.

        Raises:
            SourceError: it cannot be read.
        """

    @abstractmethod
    def lines(self) -> Iterator[tuple[int, str]]:
        """Its lines with their numbers from 1, without line ends, decoded by the recipe's `encoding`.

        A line that is not text in that encoding is put aside, and is not given. A reader that calls this
        names `encoding` in its `words`.

        Raises:
            SourceError: it cannot be read, or a line is too long to be one.
        """

    @abstractmethod
    def local(self) -> AbstractContextManager[Path]:
        """A path on this machine's disk, unpacked: for libraries that open a path themselves.

        What lies in a bucket or is packed is copied to scratch, and removed behind the block.
        """


class Reader(Part):
    """The format of a table's files: `format: csv` beside `path`, or `auto`, by a file's first bytes and its
    ending.

    Laws (penstock.testing.laws.readers): every row of a file is given or put aside, and twice the same; what
    is packed is read as what is not; a damaged file gives rejects or a sentence.
    """

    shelf: ClassVar[str] = "penstock.parts.readers"

    endings: ClassVar[tuple[str, ...]] = ()
    """Of files that are of this format, with a dot and in lower case: `(".csv",)`. For built-in formats:
    files with such an ending are read so without `format`.
    """
    magic: ClassVar[tuple[bytes, ...]] = ()
    """First bytes that only files of this format have; they are believed before an ending is."""
    words: ClassVar[tuple[str, ...]] = ()
    """The words beside `format` in the recipe that it understands, other than those for all formats
    (`columns`, `rename`, `types`, `na`, `trim_end`, `on_bad_row`). Any other is refused. Options of its own
    are its fields.
    """

    @classmethod
    def resembles(cls, start: bytes) -> bool:
        """Whether a file whose ending says nothing looks like this format, by its first 4,096 bytes."""
        return False


class RowReader(Reader):
    """A format that gives one row after another.

    Example:
        >>> class Words(RowReader):
        ...     words = ("encoding",)
        ...     def read(self, file):
        ...         for number, text in file.lines():
        ...             left, found, right = text.partition("=")
        ...             yield Row(number, {left: right}) if found else Reject(number, "no `=`", text)
    """

    typed: ClassVar[bool] = False
    """Whether the format itself tells a text from a number. If not, the texts of its rows are like cells of
    CSV: the type of a column follows from all of them, and an empty one is missing.
    """

    @abstractmethod
    def read(self, file: TableFile) -> Iterator[Row | Reject | pa.RecordBatch]:
        """The rows of a file, in order, streamed; whole batches of Arrow where that is easier.

        It is called twice for a file, or more often, and must give the same each time. A row that cannot be
        read is given as a `Reject`, so that it is counted and kept.

        Raises:
            SourceError: the file as a whole cannot be read. Whatever else is raised is told as one.
        """

    def declared_rows(self, file: TableFile) -> int | None:
        """How many rows the file says it has, in a header or index; None where it says nothing. Rows and
        rejects must add up to it, or the file is refused as damaged.
        """
        return None
