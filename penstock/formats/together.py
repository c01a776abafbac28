"""What the CSV files of one source say together, before one of them is read: headers and delimiters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from penstock.formats.delimited import Delimited
from penstock.formats.headers import Look, decide, look


def settle_together(readers: Sequence[Delimited]) -> None:
    """Decide for several files of one source which have a header, and how their cells are delimited.

    Raises:
        SourceError: a file has another beginning than the others, and cannot be mapped by name.
    """
    starts = [reader.peek() for reader in readers]
    common = Counter(reader.delimiter for reader in readers).most_common(1)[0][0]
    widths = {
        len(records[0].cells)
        for reader, start in zip(readers, starts, strict=True)
        if reader.delimiter == common and (records := reader.cut(start, common))
    }
    looks: list[Look] = []
    delimiters: list[bytes] = []
    for reader, start in zip(readers, starts, strict=True):
        delimiter = reader.delimiter
        as_common = reader.cut(start, common)
        if delimiter != common and not reader.input.reading.delimiter and len(as_common[0].cells) in widths:
            delimiter = common
        delimiters.append(delimiter)
        looks.append(look(reader.input.path, reader.cut(start, delimiter)))
    for reader, header, delimiter in zip(readers, decide(looks), delimiters, strict=True):
        reader.settled(header=header, delimiter=delimiter)
