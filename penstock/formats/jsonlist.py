"""A list in a JSON file, cut into its elements while it streams by: the list that is the whole file, or one
that an object holds (`{"data": [...]}`).

An element ends at a comma outside all objects, lists and texts. What is wrong within one concerns that
element alone; what is wrong with the structure (a bracket, quote or comma that is lost) could make one of two
rows, so it is refused, with its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from penstock.core.errors import SourceError
from penstock.formats.jsonmarks import CLOSING, COMMA, OPENING, Marks, Structure
from penstock.formats.texts import LONGEST_LINE, TextStream

_READ_BYTES = 1 << 20
# The end of what stands before a value of an object: its key.
_KEY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*\Z', re.DOTALL)
_KEY_BYTES = 4_096
"""How far a key is looked back for."""
_MOST_KEYS = 1_000
"""Of an object, that are remembered."""


@dataclass(frozen=True)
class ListPlace:
    """A list of objects that an object holds."""

    key: str
    offset: int
    """Of its bracket, in the file's text as UTF-8."""


@dataclass
class Survey:
    """What a JSON file is, by its brackets."""

    first: bytes = b""
    """Its first character that is no white space."""
    lists: list[ListPlace] = field(default_factory=list)
    """Where the file begins with an object: the lists of objects that this object holds."""
    others: list[str] = field(default_factory=list)
    """The keys of its other values that are lists or objects."""
    is_one: bool = False
    """Whether the file ends with its first value."""


class _Looking:
    """A survey under way."""

    def __init__(self) -> None:
        self.survey = Survey()
        self._structure = Structure()
        self._size = 0
        self._before = b""
        self._opened: ListPlace | None = None
        """A list whose first element has not been seen yet."""

    def look(self, block: bytes) -> int | None:
        """Look at the next block of the file; returns where the first value ends in it."""
        marks = self._structure.marks(block)
        ends = np.flatnonzero(marks.depths <= 0)
        count = int(ends[0]) if len(ends) else len(marks.depths)
        kinds = marks.kinds[:count]
        # Opened within the object itself: a value of one of its keys.
        inner = (marks.depths[:count] == 2) & np.isin(kinds, list(OPENING))
        if self._opened is not None and count:
            self._decide(self._opened, chr(kinds[0]))
        for i in map(int, np.flatnonzero(inner)):
            place = int(marks.places[i])
            key = self._key(block, place)
            if kinds[i] == ord("{"):
                self._note(self.survey.others, key)
            elif i + 1 < len(marks.kinds):
                self._decide(ListPlace(key, self._size + place), chr(marks.kinds[i + 1]))
            else:
                self._opened = ListPlace(key, self._size + place)
        self._size += len(block)
        self._before = (self._before + block)[-_KEY_BYTES:]
        return int(marks.places[count]) if len(ends) else None

    def _key(self, block: bytes, place: int) -> str:
        start = max(0, place - _KEY_BYTES)
        before = block[start:place]
        key = _KEY.search(before if start else self._before + before)
        return "" if key is None else key[1].decode("utf-8", "backslashreplace")

    def _decide(self, opened: ListPlace, following: str) -> None:
        self._opened = None
        if following == "{":
            self._note(self.survey.lists, opened)
        else:
            self._note(self.survey.others, opened.key)

    @staticmethod
    def _note(known: list[Any], value: Any) -> None:
        if len(known) < _MOST_KEYS:
            known.append(value)


def survey(url: str, encoding: str, *, most_bytes: int | None = None) -> Survey:
    """Look at a JSON file up to the end of its first value; of a list, at its first character only.

    Args:
        most_bytes: of a sample, look at about so many bytes only, and take the value for the only one.
    """
    looking, size = _Looking(), 0
    outline = looking.survey
    with TextStream(url, encoding) as text:
        while block := text.read(_READ_BYTES):
            outline.first = outline.first or block.lstrip()[:1]
            if outline.first not in (b"", b"{"):
                return outline
            end = looking.look(block)
            size += len(block)
            if end is not None:
                rest = block[end + 1 :]
                while rest and not rest.strip():
                    rest = text.read(_READ_BYTES)
                outline.is_one = not rest
                return outline
            if most_bytes is not None and size >= most_bytes:
                outline.is_one = bool(outline.lists)
                return outline
    return outline


@dataclass(frozen=True)
class Elements:
    """Some elements that follow each other."""

    first: int
    """The number of the first one, from 1."""
    texts: list[bytes]
    lines: list[int]
    """Where in the file each begins."""


class ListStream:
    """The elements of one list of a file."""

    def __init__(self, path: str, text: TextStream, offset: int | None) -> None:
        """
        Args:
            path: what the file is called in messages.
            offset: where the list's bracket is; None where the list is the whole file.
        """
        self._path = path
        self._text = text
        self._is_whole_file = offset is None
        self._number, self._line = 1, 1
        self._held: list[bytes] = []
        """Of the element that is not complete."""
        self._held_bytes = 0
        self._values = 0
        """Objects and lists that this element was seen to be: two of them want a comma."""
        self._rest = self._start(offset)

    def _start(self, offset: int | None) -> bytes:
        """Go to the list; returns what was read of it."""
        block = self._text.read(_READ_BYTES)
        if offset is None:
            while block and not block.strip():
                self._line += block.count(b"\n")
                block = self._text.read(_READ_BYTES)
            offset = len(block) - len(block.lstrip())
        while block and offset >= len(block):
            offset -= len(block)
            self._line += block.count(b"\n")
            block = self._text.read(_READ_BYTES)
        self._line += block.count(b"\n", 0, offset)
        return block[offset + 1 :]

    def blocks(self, size: int) -> Iterator[Elements]:
        """The elements, by blocks of about `size` bytes.

        Raises:
            SourceError: the list does not end, or its structure is damaged.
        """
        structure = Structure()
        block = self._rest or self._text.read(size)
        while block:
            marks = structure.marks(block)
            ends = np.flatnonzero(marks.depths < 0)
            count = int(ends[0]) if len(ends) else len(marks.depths)
            elements = self._cut(block, marks, count)
            if len(ends):
                self._close(block, int(marks.places[count]), elements)
            if elements.texts:
                yield elements
            if len(ends):
                return
            if self._held_bytes > LONGEST_LINE:
                raise self._damaged(
                    f"is longer than {LONGEST_LINE >> 20} MiB, the most that a row of text may have"
                )
            block = self._text.read(size)
        raise self._damaged("is where the file ends: it is cut short")

    def _cut(self, block: bytes, marks: Marks, count: int) -> Elements:
        """The elements that end within the first `count` marks of a block; the rest of it is held."""
        kinds, depths = marks.kinds[:count], marks.depths[:count]
        closed = np.cumsum((depths == 0) & np.isin(kinds, list(CLOSING)))
        commas = np.flatnonzero((depths == 0) & (kinds == COMMA))
        values = closed[commas] if len(closed) else closed
        elements = Elements(self._number, [], [])
        start = before = 0
        for place, total in zip(
            marks.places[commas].tolist(), values.tolist(), strict=True
        ):
            self._values += total - before
            self._end(block[start:place], elements)
            start, before = place + 1, total
        self._values += (int(closed[-1]) if len(closed) else 0) - before
        end = int(marks.places[count]) if count < len(marks.places) else len(block)
        self._held.append(block[start:end])
        self._held_bytes += end - start
        return elements

    def _end(self, piece: bytes, elements: Elements) -> None:
        """An element ends with a piece of a block."""
        text = b"".join([*self._held, piece]) if self._held else piece
        if self._values > 1:
            raise self._damaged("is two, between which a comma is missing")
        bare = text.lstrip()
        if not bare:
            raise self._damaged("is missing: nothing stands before its comma")
        line = self._line + text.count(b"\n", 0, len(text) - len(bare))
        elements.texts.append(bare.rstrip())
        elements.lines.append(line)
        self._line += text.count(b"\n")
        self._number += 1
        self._held, self._held_bytes, self._values = [], 0, 0

    def _close(self, block: bytes, place: int, elements: Elements) -> None:
        """The list ends at a place of a block: its last element does, and nothing may follow."""
        if block[place : place + 1] != b"]":
            raise self._damaged("ends with a brace that closes no object")
        # Behind a last comma, or in a list of nothing, there is no element.
        if b"".join(self._held).strip():
            self._end(b"", elements)
        rest = block[place + 1 :]
        while self._is_whole_file and rest:
            if rest.strip():
                raise SourceError(
                    f"{self._path}: its list ends on line {self._line:,}, after {self._number - 1:,}"
                    " elements, and more follows. A bracket there is damaged, or several lists were"
                    " joined; write the file again, or as JSON lines (one object a line)."
                )
            rest = self._text.read(_READ_BYTES)

    def _damaged(self, what: str) -> SourceError:
        return SourceError(
            f"{self._path}: its list cannot be cut into rows: the element"
            f" {self._number:,}, from line {self._line:,} on, {what}. A bracket, quote or"
            " comma there is lost or wrong. Correct it, or write the file again; nothing"
            " was saved."
        )
