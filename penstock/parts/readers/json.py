"""JSON: a list of objects, an object that holds one, or one object a line. The work is
`penstock.formats.jsontable`'s.
"""

from __future__ import annotations

import codecs
import re
from typing import ClassVar

from penstock.formats.jsontable import JsonTable
from penstock.formats.reader import Context, FileReader, Input, ScannedReader

_LIST = re.compile(rb"\s*\[\s*\{")


class Json(ScannedReader):
    """A list of objects, each a row; nested fields become columns `a.b`."""

    endings: ClassVar[tuple[str, ...]] = (".json",)
    words: ClassVar[tuple[str, ...]] = ("encoding",)

    records: str | None = None
    """Where the file is one object: the key of the list that has the rows. The only list of objects unless
    given.
    """

    @classmethod
    def resembles(cls, start: bytes) -> bool:
        return _LIST.match(start.removeprefix(codecs.BOM_UTF8)) is not None

    def open(self, input: Input, context: Context) -> FileReader:
        return JsonTable(input, context, self.records)
