"""A `.json` file: a list of objects, an object that holds one, or JSON lines.

Which of them it is, its brackets tell (`jsonlist.survey`). Each element is read as a line of JSON lines is;
what is bad is a reject by its number, with its line in the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from penstock.contracts.reading import Reject
from penstock.core.errors import SourceError
from penstock.core.near import did_you_mean
from penstock.formats.jsonlines import JsonLines
from penstock.formats.jsonlist import ListPlace, ListStream, Survey, survey
from penstock.formats.reader import Context, Input
from penstock.formats.texts import TextStream

_SHOWN = 8
"""Keys of an object, in a message."""


class JsonTable(JsonLines):
    """Reads one file of JSON, whatever its rows stand in."""

    def __init__(self, input: Input, context: Context, records: str | None) -> None:
        """
        Args:
            records: which list of the file's object has the rows, by its key.
        """
        super().__init__(input, context)
        self._records = records
        self._is_list = False
        self._offset: int | None = None
        """Of the list, where an object holds it."""

    def scan(self) -> None:
        context = self.context
        most = None if context.limit is None else context.limit_bytes
        self._encoding = self._chosen_encoding(most)
        outline = survey(self.input.url, self._encoding, most_bytes=most)
        self._is_list = outline.first == b"["
        if self._is_list and self._records is not None:
            raise SourceError(
                f"source.format: records is {self._records!r}, but {self.input.path} is a list itself. Leave"
                " `records` out."
            )
        place = None if self._is_list else self._place(outline)
        if place is not None:
            self._is_list, self._offset = True, place.offset
        self._observe()

    def _place(self, outline: Survey) -> ListPlace | None:
        """The list of an object that has the rows; None where the file is JSON lines.

        Raises:
            SourceError: there are several, or not the one that is named.
        """
        if self._records is not None:
            named = [place for place in outline.lists if place.key == self._records]
            if named:
                return named[0]
            keys = [place.key for place in outline.lists]
            raise SourceError(
                f"source.format: {self.input.path} holds no list of objects called {self._records!r}."
                f"{did_you_mean(self._records, keys)}{_listed(keys)}"
            )
        if not outline.is_one or not outline.lists or self._is_record(outline):
            return None
        if len(outline.lists) > 1:
            raise SourceError(
                f"{self.input.path} is an object that holds several lists of objects."
                f"{_listed([place.key for place in outline.lists])} Say which one has the rows, for example:"
                f" `format: {{type: json, records: {outline.lists[0].key}}}`."
            )
        key = outline.lists[0].key
        self.say(f"is one object; its rows are the elements of {key!r}.")
        return outline.lists[0]

    def _is_record(self, outline: Survey) -> bool:
        """Whether one object is a row as those are that something was learnt from: it has their fields."""
        known = self.input.known or frozenset()
        keys = {key.lower() for key in (*outline.others, *(p.key for p in outline.lists))}
        return any(name in keys or name.split(".")[0] in keys for name in known)

    def _blocks(self) -> Iterator[tuple[list[int], list[dict[str, Any]], list[Reject]]]:
        if not self._is_list:
            yield from super()._blocks()
            return
        context, given, size = self.context, 0, 0
        with TextStream(self.input.url, self._encoding) as text:
            elements = ListStream(self.input.path, text, self._offset)
            for some in elements.blocks(context.block_bytes // 2):
                start = 0
                for part in self._portions(some.texts):
                    first = some.first + start
                    lines, objects, rejects = self._parse(part, first)
                    placed = [
                        _placed(reject, some.lines[reject.line - some.first])
                        for reject in rejects
                    ]
                    start += len(part)
                    given += len(objects)
                    size += sum(map(len, part))
                    yield lines, objects, placed
                    if context.limit is not None and (
                        given >= context.limit or size >= context.limit_bytes
                    ):
                        return


def _placed(reject: Reject, line: int) -> Reject:
    return replace(reject, reason=f"{reject.reason} (line {line:,} of the file)")


def _listed(keys: list[str]) -> str:
    if not keys:
        return " It holds none."
    more = " …" if len(keys) > _SHOWN else ""
    return f" It holds {', '.join(map(repr, keys[:_SHOWN]))}{more}."
