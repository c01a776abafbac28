"""What a look at a source gives: some of its rows, and what is known of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from penstock.contracts.snapshot import PLACE, SourceFile

SAMPLE_FILE_BYTES = 512 << 20
"""Of files that a look reads whole, so that its counts are exact; of larger sources it reads pieces."""

FEW_FILE_BYTES = 64 << 20
"""The same, of a look that must be quick."""


@dataclass(frozen=True)
class Unread:
    """Rows that could not be read for one reason, and the first of them."""

    rows: int
    """How many; where not all of the source was read, of those that were."""
    file: str
    """The path of the first one's file."""
    line: int
    """From 1; a table format counts rows."""
    row: str
    """As it stands in the file."""


@dataclass(frozen=True)
class Sample:
    """Rows drawn over a whole source, in the source's order."""

    table: pa.Table = field(repr=False)
    """The source's own columns, then `ROW_FILE` (an index into `files`) and `ROW_NUMBER` (the row's place
    among those of its file that can be read; where only pieces of a file were read, among these).
    """
    rows: int | None = None
    """Of the whole source, those that can be read; None where they were not counted."""
    complete: bool = False
    """Whether `table` has all of them."""
    head: pa.Table | None = field(default=None, repr=False)
    """The first rows of the source, one behind another, with the columns of `table`: what neighbours have in
    common is to be seen here, since those of a sample are none.
    """
    files: tuple[SourceFile, ...] = ()
    """The snapshot's: path and split of each."""
    unread: Mapping[str, Unread] = field(default_factory=dict)
    """By reason: rows that could not be read."""
    duplicates: int | None = None
    """How many rows of the whole source equal an earlier one in every column; None where not counted."""
    cut: bool = False
    """Whether `table` has fewer rows than were asked for since they are wide."""
    reading: Mapping[str, Any] = field(default_factory=dict)
    """What was found out of how the files are to be read, in the words of the recipe's `source`, where it is
    not what is taken without a word.
    """

    @property
    def unread_rows(self) -> int:
        """How many rows could not be read, for whatever reason."""
        return sum(some.rows for some in self.unread.values())

    def plain(self) -> pa.Table:
        """The rows with the source's own columns alone."""
        there = [name for name in PLACE if name in self.table.column_names]
        return self.table.drop_columns(there) if there else self.table
