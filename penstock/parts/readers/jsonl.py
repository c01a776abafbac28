"""JSON lines: one object a line. The work is `penstock.formats.jsonlines`'."""

from __future__ import annotations

import codecs
from typing import ClassVar

from penstock.formats.jsonlines import JsonLines
from penstock.formats.reader import Context, FileReader, Input, ScannedReader


class Jsonl(ScannedReader):
    """One JSON object a line; nested fields become columns `a.b`."""

    endings: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")
    words: ClassVar[tuple[str, ...]] = ("encoding",)

    @classmethod
    def resembles(cls, start: bytes) -> bool:
        # Behind a mark of byte order and blank lines, if there are any.
        return start.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{"

    def open(self, input: Input, context: Context) -> FileReader:
        return JsonLines(input, context)
