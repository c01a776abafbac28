"""How text files are to be read, found out from the files: for `init`, which writes it into the recipe.

What a recipe leaves unsaid is decided anew at each reading, with caution; what is found here is said once, in
words that whoever reads the recipe can change. So it may go further than `auto` does.

    encoding    UTF-8 unless bytes prove otherwise; UTF-16 by its mark or its zeros; else cp1252, where the
                euro sign is 0x80, and Latin-1 only where a byte is nothing in cp1252
    delimiter   by which the first lines have equally many cells; `spaces` where runs of blanks do that; a
                tab, which none has, where the lines are sentences
    header      also where names are long, or years
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.contracts.reading import Reader
from penstock.formats.csv_head import PEEK_BYTES, SPACES
from penstock.formats.dialect import (
    Dialect,
    Record,
    cells_of,
    head_records,
    is_like_a_value,
    seems_header,
    sniff_delimiter,
    widths_of,
)
from penstock.formats.places import plainly
from penstock.formats.reader import Input
from penstock.formats.shelf import readers
from penstock.formats.texts import (
    UNKNOWN_IN_CP1252,
    TextStream,
    collapsed,
    format_of,
    opened,
)

_MOST_FILES = 256
_MOST_BYTES = 256 << 20
"""Of all files together, that are looked at for their encoding."""
_FAULTS = 0.1
"""A text in UTF-8 has at most so many faults for each letter that is none of ASCII."""
_AGREE = 0.95
"""The share of lines that must have one number of cells, for blanks to be what is between cells."""
_FEW_LINES = 20
"""Lines of which it is said that they are sentences; fewer may be anything."""
_YEAR = re.compile(r"(1[89]|2[01])\d\d")


def proposed_reading(inputs: Sequence[Input], given: frozenset[str]) -> dict[str, Any]:
    """The words to say of these files beside those that are given; none where nothing needs to be said.

    Args:
        given: words that the user has said already.

    Raises:
        SourceError: a file cannot be read.
    """
    # Some of many, from all over them.
    step = max(1, len(inputs) // _MOST_FILES)
    texts = [file for file in inputs[::step] if "encoding" in _words(file)]
    words: dict[str, Any] = {}
    if not texts:
        return words
    encoding = texts[0].reading.encoding
    if "encoding" not in given:
        encodings = {
            guess_encoding(file.url, _MOST_BYTES // len(texts)) for file in texts
        }
        # Plain ASCII is each of them.
        encodings.discard("ascii")
        if len(encodings) > 1:
            encoding = "auto"
        elif encodings:
            encoding = encodings.pop()
        if encoding != "utf-8":
            words["encoding"] = encoding
    tables = [file for file in texts if "delimiter" in _words(file)]
    if not tables:
        return words
    starts = [_start(file, encoding) for file in tables[:16]]
    starts = [start for start in starts if start.strip()]
    dialect = _dialect(tables[0])
    if "delimiter" not in given and starts:
        delimiter = _delimiter(starts, dialect)
        usual = "\t" if _reader(tables[0]).type == "tsv" else ","
        if delimiter is not None and delimiter != usual:
            words["delimiter"] = delimiter
        elif delimiter is None and all(_is_prose(start, dialect) for start in starts):
            # A tab is in none of the lines, so that each is one cell.
            words["delimiter"] = "\t"
            if "quote" not in given:
                words["quote"] = None
    if not given & {"header", "names"} and starts and _has_header(starts, dialect, words):
        words["header"] = True
    return words


def _reader(file: Input) -> Reader:
    declared = file.reading.format
    return readers()[format_of(file.url)] if declared == "auto" else declared


def _words(file: Input) -> tuple[str, ...]:
    return _reader(file).words


def _dialect(file: Input) -> Dialect:
    reading = file.reading

    def byte(value: str | None) -> bytes | None:
        return value.encode() if value else None

    return Dialect(
        (reading.delimiter or ",").encode()[:1],
        byte(reading.quote),
        byte(reading.escape),
        byte(reading.comment),
        reading.strip,
    )


def _start(file: Input, encoding: str) -> bytes:
    """The file's first whole lines in UTF-8, without those that are skipped."""
    if encoding == "auto":
        encoding = guess_encoding(file.url, PEEK_BYTES)
        encoding = "utf-8" if encoding == "ascii" else encoding
    with TextStream(file.url, encoding) as text:
        start = text.read(PEEK_BYTES)
        if text.read(1):
            start = start[: start.rfind(b"\n") + 1]
    return b"\n".join(start.split(b"\n")[file.reading.skip_rows :])


# -- encoding ------------------------------------------------------------------------------------------------


def guess_encoding(url: str, most_bytes: int) -> str:
    """What a file's bytes are most likely text in: `ascii` where all are; `utf-8`, also with a few faults;
    `utf-16` and its kin; `cp1252`; `latin-1`.
    """
    with opened(url) as stream, plainly(url):
        chunk = stream.read(1 << 20)
        if chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if wide := _by_zeros(chunk[:4096]):
            return wide
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        letters = faults = read = 0
        present = np.zeros(256, bool)
        while chunk and read < most_bytes:
            read += len(chunk)
            if not chunk.isascii():
                text = decoder.decode(chunk)
                faults += text.count("\ufffd")
                letters += len(text) - len(text.encode("ascii", "ignore"))
                present |= np.bincount(np.frombuffer(chunk, np.uint8), minlength=256) > 0
            chunk = stream.read(1 << 20)
    if not letters:
        return "ascii"
    # Of bytes that are another encoding's, few are letters of UTF-8 by chance.
    if faults <= _FAULTS * (letters - faults):
        return "utf-8"
    odd = any(present[byte] for byte in UNKNOWN_IN_CP1252)
    return "latin-1" if odd else "cp1252"


def _by_zeros(start: bytes) -> str:
    """UTF-16 without its mark, by the zeros of its ASCII letters, all on one side."""
    low, high = start[0::2].count(0), start[1::2].count(0)
    # A few on the other side may be text of another alphabet; many are no text.
    if max(low, high) * 4 < len(start) or min(low, high) * 20 > max(low, high):
        return ""
    return "utf-16-le" if high > low else "utf-16-be"


# -- cells ---------------------------------------------------------------------------------------------------


def _delimiter(starts: Sequence[bytes], dialect: Dialect) -> str | None:
    """What most files have between their cells; None where they have one column."""
    votes = Counter(_of_one(start, dialect) for start in starts)
    return votes.most_common(1)[0][0]


def _of_one(start: bytes, dialect: Dialect) -> str | None:
    delimiter = sniff_delimiter(start, dialect, final=True)
    if delimiter is None:
        return SPACES if _by_blanks(start, dialect) else None
    return delimiter.decode()


def _is_prose(start: bytes, dialect: Dialect) -> bool:
    """Whether the lines are sentences: words with commas in some of them, and no tab at all.

    Rows of a table that are torn have more cells than others; sentences have any number of commas, mostly
    none, with a blank behind each.
    """
    lines = [line for line in start.split(b"\n") if line.strip()]
    if len(lines) < _FEW_LINES or b"\t" in start or dialect.delimiter != b",":
        return False
    commas = start.count(b",")
    sentences = sum(b"," not in line and line.count(b" ") > 1 for line in lines)
    return 0 < commas <= start.count(b", ") * 1.1 and sentences >= len(lines) / 2


def _by_blanks(start: bytes, dialect: Dialect) -> bool:
    """Whether blanks are clearly what is between cells: nearly all lines have one number of cells, and these
    are numbers for the most part, or stand in columns.
    """
    tabbed = Dialect(b"\t", dialect.quote, dialect.escape, dialect.comment, True)
    records = head_records(collapsed(start), tabbed, final=True)
    widths = Counter(widths_of(records))
    if not widths:
        return False
    width, times = widths.most_common(1)[0]
    if width < 2 or times < _AGREE * len(records) or times < 3:
        return False
    rows = [cells_of(r) for r in records[1:] if len(r.cells) == width]
    cells = [cell for row in rows for cell in row]
    numbers = sum(map(is_like_a_value, cells))
    lines = start.split(b"\n")[: len(records)]
    in_columns = sum(b"  " in line.strip() for line in lines) >= len(lines) / 2
    return numbers >= len(cells) / 2 or (in_columns and width >= 3)


# -- header --------------------------------------------------------------------------------------------------


def _has_header(starts: Sequence[bytes], dialect: Dialect, words: dict[str, Any]) -> bool:
    """Whether the first line of each file has names, though `header: auto` would not take them for any."""
    delimiter = words.get("delimiter")
    if delimiter is None:
        sniffed = sniff_delimiter(starts[0], dialect, final=True)
        delimiter = (sniffed or dialect.delimiter).decode()
    byte = b"\t" if delimiter == SPACES else delimiter.encode()
    fit = Dialect(byte, dialect.quote, dialect.escape, dialect.comment, dialect.strip)
    heads = [
        head_records(collapsed(start) if delimiter == SPACES else start, fit, final=True)
        for start in starts
    ]
    if any(not head or head[0].reason for head in heads):
        return False
    # The same first line in all files: names, unless they are values.
    if len({tuple(cells_of(head[0])) for head in heads}) > 1:
        return False
    return all(seems_header(head) == "no" and is_clear_header(head) for head in heads)


def is_clear_header(records: Sequence[Record]) -> bool:
    """Whether the first record has names, some of which are years, or longer than names mostly are: in all
    columns they differ from what is below, and in most in kind.
    """
    names = cells_of(records[0])
    below = [cells_of(r) for r in records[1:] if not r.reason]
    columns = [[row[i] for row in below if i < len(row)] for i in range(len(names))]
    full = [name for name in names if name]
    if len(below) < 2 or len(set(full)) < len(full):
        return False
    worded = [name for name in full if not is_like_a_value(name)]
    years = [name for name in full if _YEAR.fullmatch(name)]
    if not worded or len(worded) + len(years) < len(full):
        return False
    # A name that comes again in its column is a value.
    if any(name and name in column for name, column in zip(names, columns, strict=True)):
        return False
    # Years among years are values.
    for name, column in zip(names, columns, strict=True):
        if (
            _YEAR.fullmatch(name)
            and sum(bool(_YEAR.fullmatch(value)) for value in column) > len(column) / 2
        ):
            return False
    typed = [
        column
        for column in columns
        if column and sum(map(is_like_a_value, column)) > len(column) / 2
    ]
    return 2 * len(typed) >= len(columns)
