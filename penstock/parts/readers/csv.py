"""CSV: one row a line, cells between delimiters, some of them quoted. The work is
`penstock.formats.delimited`'s.
"""

from __future__ import annotations

from typing import ClassVar

from penstock.formats.delimited import Delimited
from penstock.formats.options import CSV_WORDS
from penstock.formats.reader import Context, FileReader, Input, ScannedReader


class Csv(ScannedReader):
    """Cells separated by a comma, or by what the first lines are separated by: a tab, `;` or `|`."""

    endings: ClassVar[tuple[str, ...]] = (".csv",)
    words: ClassVar[tuple[str, ...]] = CSV_WORDS

    def open(self, input: Input, context: Context) -> FileReader:
        return Delimited(input, context)
