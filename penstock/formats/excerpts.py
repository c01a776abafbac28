"""What of large files a look reads: which files, how much of each, and of a text file, which records.

    100 GB of CSV → its first bytes, and records from a thousand places → a small file in scratch

A piece from the middle of a text file begins somewhere in a record. Where its first whole record begins is
told by the line ends; whether one of them lies within a quoted cell, by which reading gives records of the
right number of cells.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from penstock.contracts.snapshot import SourceFile
from penstock.core.errors import SourceError
from penstock.formats.csv_head import PEEK_BYTES, SPACES, CsvFile
from penstock.formats.dialect import Careful, Dialect, head_records, plain_cut
from penstock.formats.draw import keys_of, seed_of
from penstock.formats.files import open_bytes
from penstock.formats.options import Reading
from penstock.formats.places import is_remote, plainly
from penstock.formats.reader import FileReader, Input
from penstock.formats.shelf import PACKED
from penstock.formats.texts import (
    TextStream,
    collapsed,
    encoding_of,
    is_packed,
)

_LEAST_BYTES = 64 << 10
"""What the opening of a file counts, however small it is."""
_PACKED_BY = 4
"""What is packed is so many times as long, about."""
_REMOTE_BY = 8
"""A byte that comes over a network counts as so many."""
_PIECES_SHARE = 8
"""Where not all is read, and so nothing is counted, this part of what could be read is enough."""
_ENOUGH_BYTES = 8 << 20
"""But so much is always read."""
_FILE_BYTES = 256 << 10
"""A file of which less than this could be read is left to others."""
_PIECE_BYTES = 64 << 10
_PIECES = 512
"""Places that are looked at in a file of which little is to be read: its pieces are shorter, and"""
_LEAST_PIECE_BYTES = 4 << 10
"""not shorter than this."""
_REMOTE_PIECE_BYTES = 1 << 20
_CHECKED_RECORDS = 20
_BY_BYTE = ("utf-8", "ascii", "iso8859", "cp125", "cp437", "cp85", "koi8", "mac-")
"""Encodings, as Python names them, in which a byte 10 is a line end and nothing else."""


@dataclass(frozen=True)
class Share:
    """What of a file is read."""

    place: int
    """Its place among all files."""
    most_bytes: int | None
    """None: all of it."""


def shares(files: Sequence[SourceFile], most_bytes: int) -> list[Share]:
    """Which files are read, and how much of each: all, where they are about `most_bytes` at most; else parts
    in proportion to their sizes, of files chosen by a hash of their paths where they are many.
    """
    costs = np.array([_cost(file) for file in files], np.float64)
    if costs.sum() <= most_bytes:
        return [Share(place, None) for place in range(len(files))]
    budget = max(most_bytes / _PIECES_SHARE, min(most_bytes, _ENOUGH_BYTES))
    most_files = max(1, int(budget // _FILE_BYTES))
    keys = [seed_of(file.path) for file in files]
    chosen = sorted(sorted(range(len(files)), key=keys.__getitem__)[:most_files])
    part = min(1.0, budget / float(costs[chosen].sum()))
    return [
        Share(place, None)
        if part == 1.0 or files[place].size_bytes <= _LEAST_BYTES
        else Share(place, max(_LEAST_BYTES, int(files[place].size_bytes * part)))
        for place in chosen
    ]


def _cost(file: SourceFile) -> int:
    cost = max(file.size_bytes, _LEAST_BYTES)
    if file.url.lower().endswith(PACKED):
        cost *= _PACKED_BY
    return cost * _REMOTE_BY if is_remote(file.url) else cost


def excerpt(file: FileReader, scratch: Path) -> Input | None:
    """A file of records from all over a text file, as long as its `most_bytes`; None where that is not
    fewer bytes than it has.

    Raises:
        SourceError: it cannot be read.
    """
    input = file.input
    size, most = input.size_bytes, input.most_bytes
    if size is None or most is None or size <= 2 * most:
        return None
    cutter = _Cutter.of(file)
    packed = is_packed(input.url)
    encoding = encoding_of(
        input.url, input.reading.encoding, lambda text: None, most_bytes=most
    )
    by_byte = codecs.lookup(encoding).name.startswith(_BY_BYTE)
    target = scratch / f"excerpt-{id(file):x}.txt"
    with open(target, "wb") as out:
        if packed or not by_byte:
            long = size * (_PACKED_BY if packed else 1)
            _by_stream(input.url, encoding, long, most, cutter, out)
        else:
            _by_place(input.url, size, most, cutter, out)
    reading = input.reading
    if packed or not by_byte:
        # What a stream gives is UTF-8, whatever the file is.
        words = {**reading.options(), "encoding": "utf-8"}
        reading = Reading.model_validate(words)
    return replace(
        input,
        url=str(target),
        reading=reading,
        size_bytes=None,
        stamp="",
        sha256="",
        most_bytes=None,
    )


def _starts(url: str, size: int, most: int, piece: int) -> Iterator[int]:
    """Where pieces begin: spread evenly behind the file's beginning, each somewhere in its part."""
    count = max(16, (most - _PIECE_BYTES) // piece)
    first = min(_PIECE_BYTES, size)
    part = (size - first) / count
    # Keys of the file's own name: its folder may be another tomorrow.
    where = keys_of(seed_of(url.rsplit("/", 1)[-1]), np.arange(count)) / 2.0**64
    for i, at in enumerate(where):
        yield first + int(part * i + max(part - piece, 0) * float(at))


def _piece(most: int) -> int:
    return min(_PIECE_BYTES, max(_LEAST_PIECE_BYTES, most // _PIECES))


def _by_place(url: str, size: int, most: int, cutter: _Cutter, out: BinaryIO) -> None:
    piece = _REMOTE_PIECE_BYTES if is_remote(url) else _piece(most)
    with open_bytes(url) as raw:
        with plainly(url):
            beginning = cutter.beginning(raw.read(PEEK_BYTES))
        out.write(beginning)
        has_more = beginning.count(b"\n") > _CHECKED_RECORDS
        # What may be read beyond the pieces, where records are longer than these.
        end, spare = 0, most
        for start in _starts(url, size, most, piece):
            if start < end:
                continue
            with plainly(url):
                raw.seek(start)
                window = raw.read(piece)
                while not (text := cutter.middle(window)) and len(window) <= spare:
                    spare -= len(window)
                    if not (more := raw.read(len(window))):
                        break
                    window += more
            end = start + len(window)
            out.write(text)
            has_more = has_more or bool(text)
    if not has_more:
        raise SourceError(
            f"{url} has few rows at its beginning, and none was found behind it. Is it damaged, or no text"
            " table? Say with `format` what it is, or fetch it again."
        )


def _by_stream(
    url: str, encoding: str, size: int, most: int, cutter: _Cutter, out: BinaryIO
) -> None:
    """As `_by_place`, of a file that can only be read through; how long it is, is guessed."""
    with TextStream(url, encoding) as text:
        out.write(cutter.beginning(text.read(PEEK_BYTES)))
        piece = _piece(most)
        step = max(piece, int(size / max(16, (most - _PIECE_BYTES) // piece)))
        passed, block, written = step // 2, b"", 0
        while more := text.read(1 << 20):
            block += more
            while len(block) >= passed + piece:
                out.write(cutter.middle(block[passed : passed + piece]))
                written += piece
                block, passed = block[passed + piece :], step - piece
                # Longer than was guessed: what follows is looked at in fewer places.
                if written > most:
                    step, written = step * 2, written // 2
            if len(block) < passed:
                block, passed = b"", passed - len(block)


@dataclass(frozen=True)
class _Cutter:
    """Cuts whole records out of bytes."""

    dialect: Dialect | None
    """None: each line is a record."""
    width: int = 0
    """Cells that most records have."""
    spaces: bool = False
    """Whether cells are separated by runs of blanks."""

    @classmethod
    def of(cls, file: FileReader) -> _Cutter:
        if not isinstance(file, CsvFile):
            return cls(None)
        start = file.peek()
        widths = [len(r.cells) for r in file.cut(start, file.delimiter) if not r.reason]
        commonest = max(set(widths), key=widths.count) if widths else 0
        spaces = file.input.reading.delimiter == SPACES
        return cls(file.dialect, commonest, spaces)

    def beginning(self, start: bytes) -> bytes:
        """Whole records of a file's first bytes, as many as a piece has; all bytes where no record ends in
        them.
        """
        if self.spaces:
            start = collapsed(start)
        # The names, and some rows that tell what they are.
        for some in (start[:_PIECE_BYTES], start):
            if (text := some[: self._end(some)]).count(b"\n") > _CHECKED_RECORDS:
                return text
        return start[: self._end(start)] or start

    def middle(self, window: bytes) -> bytes:
        """Whole records of bytes that begin anywhere; none where they look like no records."""
        if self.dialect is None:
            return window[window.find(b"\n") + 1 : window.rfind(b"\n") + 1]
        if self.spaces:
            window = collapsed(window)
        best, text = 0.5, b""
        quote = self.dialect.quote
        for inside in (False, True) if quote and quote in window else (False,):
            rest = window[_first_end(window, quote, inside) :]
            records = head_records(rest, self.dialect, final=False, most=_CHECKED_RECORDS)
            fit = sum(len(r.cells) == self.width for r in records if not r.reason)
            score = fit / max(len(records), 1)
            if records and (score > best or (not text and score == best)):
                best, text = score, rest
        return text[: self._end(text)]

    def _end(self, text: bytes) -> int:
        """Where the last whole record ends."""
        if self.dialect is None:
            return text.rfind(b"\n") + 1
        cut = plain_cut(text, self.dialect, final=False)
        if cut is not None:
            return cut
        careful = Careful(self.dialect)
        for _ in careful.records(text, 1, final=False):
            pass
        return careful.consumed


def _first_end(window: bytes, quote: bytes | None, inside: bool) -> int:
    """Where the first line ends that is no part of a quoted cell; the end of all where none does.

    Args:
        inside: the first byte is in one.
    """
    data = np.frombuffer(window, np.uint8)
    ends = np.flatnonzero(data == 10)
    quotes = np.flatnonzero(data == quote[0]) if quote else np.empty(0, np.int64)
    outside = ends[(np.searchsorted(quotes, ends) + inside) & 1 == 0]
    return int(outside[0]) + 1 if len(outside) else len(window)
