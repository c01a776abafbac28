"""Whether the pages of a Parquet file follow one another as its footer says.

Each column chunk is a chain of pages: a header that says how many bytes and values follow, then those bytes.
Arrow walks the chain as it finds it; a header out of place can send it round for ever, and nothing can call
it back. So the chain is walked here first. Only headers are read, some tens of bytes a page.

The headers are structs of Thrift's compact protocol (the Parquet format, `PageHeader`): a varint is 7 bits a
byte, a field is its distance from the last one and its type in one byte. What this file refuses to know: what
is in the pages.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, BinaryIO

_HEADER_BYTES = 4096
"""What is read of a header at first; statistics can make it longer."""
_LONGEST_HEADER = 1 << 24
_DEEPEST = 16
_SLACK_BYTES = 100
"""By how much a chunk of an early writer may be longer than its footer says (PARQUET-816), as Arrow
allows.
"""
_PAGE_TYPES = frozenset((0, 1, 2, 3))
"""Data, index, dictionary, data of the second version."""
# Fields of a page's header: its type, and how many bytes it has as it lies.
_TYPE, _SIZE = 1, 3
_DATA = (5, 8)
"""The fields with the header of a data page, of either version; its first field is how many values it has."""


class Chain(ValueError):
    """The pages of a column chunk are not what the footer says."""


def check_pages(
    file: BinaryIO,
    metadata: Any,
    *,
    rows: int | None = None,
    groups: Collection[int] | None = None,
) -> None:
    """Walk all pages of a Parquet file, or of its first row groups.

    Args:
        file: the file, to be read anywhere.
        metadata: what `pyarrow.parquet` read of its footer.
        rows: walk the row groups that have the first so many rows; None: all.
        groups: walk these row groups; None: all.

    Raises:
        Chain: a page does not lie where it should, is of no known type, or has values too many or too few.
    """
    size_bytes = file.seek(0, 2)
    before = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if rows is not None and before >= rows:
            return
        before += group.num_rows
        if groups is not None and number not in groups:
            continue
        for index in range(group.num_columns):
            column = group.column(index)
            _check_chunk(
                file,
                column,
                size_bytes,
                f"row group {number}, column {column.path_in_schema!r}",
            )


def _check_chunk(file: BinaryIO, column: Any, size_bytes: int, where: str) -> None:
    offsets = (column.dictionary_page_offset, column.data_page_offset)
    # A chunk without a dictionary has no offset for one.
    at = min(offset for offset in offsets if offset)
    stated = at + column.total_compressed_size
    if not 0 < at <= stated <= size_bytes:
        raise Chain(
            f"{where} should lie at bytes {at} to {stated}, and the file has {size_bytes}"
        )
    end = min(stated + _SLACK_BYTES, size_bytes)
    values = 0
    # The footer's number of values ends the walk, as it does Arrow's.
    while values < column.num_values and at < end:
        header, length = _header(file, at, end, where)
        kind, size = header.get(_TYPE), header.get(_SIZE)
        is_type = isinstance(kind, int) and kind in _PAGE_TYPES
        if (
            not is_type
            or not isinstance(size, int)
            or size < 0
            or at + length + size > end
        ):
            raise Chain(f"{where}: what stands at byte {at} is no page of this column")
        values += _values(header, at, where)
        at += length + size
    if values != column.num_values:
        raise Chain(
            f"{where} has {values} values in its pages, and {column.num_values} by the footer"
        )


def _values(header: dict[int, Any], at: int, where: str) -> int:
    data = next((header[field] for field in _DATA if field in header), None)
    if data is None:
        # A dictionary or an index has no values of rows.
        return 0
    count = data.get(1) if isinstance(data, dict) else None
    if not isinstance(count, int) or count < 0:
        raise Chain(f"{where}: the page at byte {at} does not say how many values it has")
    return count


def _header(file: BinaryIO, at: int, end: int, where: str) -> tuple[dict[int, Any], int]:
    """The header at `at`, and its length in bytes."""
    wanted = _HEADER_BYTES
    while True:
        file.seek(at)
        data = file.read(min(wanted, end - at))
        try:
            return _struct(data, 0, 0)
        except IndexError:  # it is longer than what was read
            # Less than was asked for: the chunk ends here, so a longer read gives no
            # more.
            if len(data) < wanted or wanted >= _LONGEST_HEADER:
                raise Chain(
                    f"{where}: the page header at byte {at} does not end"
                ) from None
            wanted *= 8
        except ValueError:
            raise Chain(f"{where}: what stands at byte {at} is no page header") from None


# -- Thrift's compact protocol -------------------------------------------------------------------------------


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    fields: dict[int, Any] = {}
    last = 0
    while True:
        head = data[at]
        at += 1
        # A zero ends the struct.
        if not head:
            return fields, at
        # The upper four bits say how far this field's number is from the last one's;
        # with 0 the number follows.
        if head >> 4:
            last += head >> 4
        else:
            number, at = _varint(data, at)
            last = _signed(number)
        fields[last], at = _value(data, at, head & 15, depth)


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # true and false stand in the type itself
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        number, at = _varint(data, at)
        return _signed(number), at
    # A double, which no field that is asked for has.
    if kind == 7:
        return None, _within(data, at + 8)
    if kind == 8:
        length, at = _varint(data, at)
        return None, _within(data, at + length)  # no text of a header is needed here
    if kind in (9, 10):
        return _list(data, at, depth)
    if kind == 12:
        return _struct(data, at, depth + 1)
    raise ValueError(f"a field of type {kind}")


def _list(data: bytes, at: int, depth: int) -> tuple[None, int]:
    head = data[at]
    at += 1
    count = head >> 4
    # The number of fifteen elements or more follows by itself.
    if count == 15:
        count, at = _varint(data, at)
    # In a list each truth value takes a byte.
    kind = 3 if head & 15 in (1, 2) else head & 15
    for _ in range(count):
        _, at = _value(data, at, kind, depth + 1)
    return None, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _signed(number: int) -> int:
    # Zigzag: 0, -1, 1, -2 stand as 0, 1, 2, 3.
    return (number >> 1) ^ -(number & 1)


def _within(data: bytes, at: int) -> int:
    """`at`, or IndexError where that was not read."""
    if at > len(data):
        raise IndexError(at)
    return at


__all__ = ["Chain", "check_pages"]
