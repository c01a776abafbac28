"""Fixed width: columns that have the same places in every line. The work is
`penstock.formats.fixed_width`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from penstock.contracts.reading import Reject, Row, RowReader, TableFile
from penstock.formats.fixed_width import read


class FixedWidth(RowReader):
    """Lines whose columns are aligned by blanks, or cut at given widths."""

    endings: ClassVar[tuple[str, ...]] = (".fwf",)
    words: ClassVar[tuple[str, ...]] = ("encoding",)

    widths: tuple[Annotated[int, Field(gt=0, le=1 << 20)], ...] = ()
    """Characters of each column; found by the places that are blank in all lines unless given."""
    names: tuple[str, ...] = ()
    """The columns' names, in place of a header's."""
    header: bool | None = None
    """Whether the first line has the columns' names; by its looks unless given."""

    def read(self, file: TableFile) -> Iterator[Row | Reject]:
        yield from read(file, self.widths, self.names, self.header)
