"""What the CSV files of one source say together, before one of them is read: headers and delimiters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from penstock.formats.csv_head import CsvFile
from penstock.formats.headers import Look, decide, look


def settle_together(readers: Sequence[CsvFile]) -> None:
    """Decide for several files of one source which have a header, and how their cells are delimited.

    Raises:
        SourceError: a file has another beginning than the others, and cannot be mapped by name.
    """
    # What a file begins with is read for each in turn, and not held: there may be a hundred thousand of them.
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    looks, widths = [], []
    for reader in readers:
        beginning, width = _looked(reader, reader.peek(), None, known)
        looks.append(beginning)
        widths.append(width)
    delimiters = [reader.delimiter for reader in readers]
    common = Counter(delimiters).most_common(1)[0][0]
    wanted = {
        width
        for width, delimiter in zip(widths, delimiters, strict=True)
        if delimiter == common
    }
    # A file that looks otherwise by itself is cut once more, by the delimiter that most
    # files have.
    for i, reader in enumerate(readers):
        if delimiters[i] != common and not reader.input.reading.delimiter:
            beginning, width = _looked(reader, reader.peek(), common, known)
            # Only if its first line is then as wide as theirs.
            if width in wanted:
                looks[i], delimiters[i] = beginning, common
    for reader, header, delimiter in zip(readers, decide(looks), delimiters, strict=True):
        reader.settled(header=header, delimiter=delimiter)


def _looked(
    reader: CsvFile,
    start: bytes,
    delimiter: bytes | None,
    cells: dict[tuple[str, ...], tuple[str, ...]],
) -> tuple[Look, int]:
    """A file's look, and how many cells its first line has, cut by `delimiter` (None: by its own).

    Args:
        cells: first lines that were seen, so that files that begin alike share one.
    """
    records = reader.cut(start, delimiter or reader.delimiter)
    beginning = look(reader.input.path, records)
    return replace(
        beginning, cells=cells.setdefault(beginning.cells, beginning.cells)
    ), len(records[0].cells)
