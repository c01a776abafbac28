"""TSV: CSV whose cells are separated by tabs, whatever its lines look like."""

from __future__ import annotations

from typing import ClassVar

from penstock.formats.delimited import Delimited
from penstock.formats.options import CSV_WORDS
from penstock.formats.reader import Context, FileReader, Input, ScannedReader


class Tsv(ScannedReader):
    """Cells separated by tabs, unless `delimiter` says otherwise."""

    endings: ClassVar[tuple[str, ...]] = (".tsv", ".tab")
    words: ClassVar[tuple[str, ...]] = CSV_WORDS

    def open(self, input: Input, context: Context) -> FileReader:
        return Delimited(input, context, tab=True)
