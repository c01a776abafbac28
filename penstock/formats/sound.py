"""Which rows of an Arrow array hold values that nobody downstream can hold: text that is not UTF-8, moments
and dates outside the years 1 to 9999, times outside a day. Such a row is put aside, and the others are not
concerned.

A file from elsewhere may also be broken as such: offsets that lead out of their buffers, indices without a
value. Arrow believes what it reads unless asked, and a wrong offset reads, or writes, memory that is not its
own. `validated` asks.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.formats.typed import pieces

DAY_SECONDS = 86_400
_SHOWN = 100
"""Elements of a list, at most."""
_FIRST_DAY = -719_162
"""0001-01-01, in days from 1970; `_LAST_DAY` is the day after 9999-12-31."""
_LAST_DAY = 2_932_897
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NOT_UTF8 = "holds a text that is not UTF-8"
_NO_YEAR = "holds a moment outside the years 1 to 9999 (in UTC)"
_NO_TIME = "holds a time of day outside 00:00 to 24:00"


def validated(array: pa.Array) -> bool:
    """Check that an array's structure is sound.

    Returns whether all its texts are UTF-8 as well; if not, `odd_rows` says which are.

    Raises:
        ArrowInvalid: it is not sound; nothing may be done with it.
    """
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        _structure(
            array
        )  # full validation also looks at values, and these are judged row by row
        return False
    return True


def _structure(array: pa.Array) -> None:
    if pa.types.is_dictionary(array.type):
        # Indices first: a wrong one would read beyond the words when they are looked
        # up.
        array.indices.validate(full=True)
        # An empty or all-missing array has no extent.
        extent = pc.min_max(array.indices).as_py()
        if extent["max"] is not None and not 0 <= extent["min"] <= extent["max"] < len(
            array.dictionary
        ):
            raise pa.ArrowInvalid("an index leads out of its dictionary")
        _structure(array.dictionary)
        return
    if isinstance(array.type, pa.BaseExtensionType):
        _structure(array.storage)
        return
    try:
        # The same buffers as bytes or bare integers: offsets are then checked, and
        # values are not.
        bare = array.view(_bare(array.type))
    # No such view of this type: its values are judged with its structure.
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, NotImplementedError):
        bare = array
    bare.validate(full=True)


def _bare(kind: pa.DataType) -> pa.DataType:
    """A type for the same buffers in which every value is allowed."""
    t = pa.types
    simple = {
        pa.string(): pa.binary(),
        pa.large_string(): pa.large_binary(),
        pa.string_view(): pa.binary_view(),
    }
    if kind in simple:
        return simple[kind]
    if t.is_date64(kind) or t.is_time64(kind):
        return pa.int64()
    if t.is_time32(kind):
        return pa.int32()
    if t.is_decimal(kind):
        return pa.binary(kind.bit_width // 8)
    if t.is_list(kind):
        return pa.list_(_bare_field(kind.value_field))
    if t.is_large_list(kind):
        return pa.large_list(_bare_field(kind.value_field))
    if t.is_fixed_size_list(kind):
        return pa.list_(_bare_field(kind.value_field), kind.list_size)
    if t.is_map(kind):
        return pa.map_(_bare_field(kind.key_field), _bare_field(kind.item_field))
    if t.is_struct(kind):
        return pa.struct([_bare_field(kind.field(i)) for i in range(kind.num_fields)])
    return kind


def _bare_field(field: pa.Field) -> pa.Field:
    return field.with_type(_bare(field.type))


# -- values --------------------------------------------------------------------------------------------------


def odd_rows(array: pa.Array, *, texts: bool = True) -> dict[int, str]:
    """The rows whose value, or a value within it, cannot be held, each with the reason.

    Args:
        texts: whether texts may be odd; they are UTF-8 if not.
    """
    reasons: dict[int, str] = {}
    # Nearly every column ends here: UTF-8 is known of it, and it holds no moments.
    if not texts and not _has_times(array.type):
        return reasons
    for mask, reason in _odd(array):
        for row in np.flatnonzero(mask):
            reasons.setdefault(int(row), reason)
    return reasons


def _has_times(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _has_times(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _has_times(kind.value_type)
    if pa.types.is_union(kind) or pa.types.is_temporal(kind):
        return True
    return any(_has_times(kind.field(i).type) for i in range(kind.num_fields))


def _odd(array: pa.Array) -> list[tuple[np.ndarray, str]]:
    """Masks over the rows of `array`, bool `[rows]`, where any is set, each with what it means."""
    t, kind = pa.types, array.type
    if not len(array):
        return []
    if isinstance(kind, pa.BaseExtensionType):
        return _odd(array.storage)
    # Each word of a dictionary is judged once, and its rows by their codes.
    if t.is_dictionary(kind):
        return [
            (_of_values(array, mask), reason) for mask, reason in _odd(array.dictionary)
        ]
    if t.is_run_end_encoded(kind):
        return _odd(pc.run_end_decode(array))
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return _texts(array)
    if t.is_timestamp(kind):
        return _outside(
            array, _PER_SECOND[kind.unit] * DAY_SECONDS, _FIRST_DAY, _LAST_DAY, _NO_YEAR
        )
    if t.is_date(kind):
        return _outside(
            array,
            1 if t.is_date32(kind) else DAY_SECONDS * 1000,
            _FIRST_DAY,
            _LAST_DAY,
            _NO_YEAR,
        )
    if t.is_time(kind):
        return _outside(array, _PER_SECOND[kind.unit] * DAY_SECONDS, 0, 1, _NO_TIME)
    # Flattened, so that a missing struct has missing fields.
    if t.is_struct(kind):
        return [pair for child in array.flatten() for pair in _odd(child)]
    # A map is a list of structs, and is judged as one.
    if t.is_map(kind):
        return _odd(array.cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))))
    if t.is_union(kind):
        return _one_by_one(array)
    if (
        t.is_list(kind)
        or t.is_large_list(kind)
        or t.is_fixed_size_list(kind)
        or t.is_list_view(kind)
        or t.is_large_list_view(kind)
    ):
        if not _may_be_odd(kind.value_type):
            return []
        sizes, values = pieces(array)
        return _of_elements(sizes, _odd(values))
    return []


def _may_be_odd(kind: pa.DataType) -> bool:
    t = pa.types
    return not (t.is_primitive(kind) and not t.is_temporal(kind)) and not t.is_null(kind)


def _of_values(array: pa.Array, mask: np.ndarray) -> np.ndarray:
    # -1 stands for a missing value, which is never odd.
    codes = pc.fill_null(array.indices.cast(pa.int64()), -1).to_numpy(
        zero_copy_only=False
    )
    return np.isin(codes, np.flatnonzero(mask))


def _of_elements(
    sizes: pa.Array, masks: list[tuple[np.ndarray, str]]
) -> list[tuple[np.ndarray, str]]:
    """Turn masks over elements into masks over the lists that have them."""
    if not masks:
        return []
    counts = pc.fill_null(sizes, 0).to_numpy(zero_copy_only=False)
    # For each element: the number of the list that has it.
    owners = np.repeat(np.arange(len(counts)), counts)
    row_masks = []
    for mask, reason in masks:
        rows = np.zeros(len(counts), bool)
        rows[owners[mask]] = True
        row_masks.append((rows, reason))
    return row_masks


def _texts(array: pa.Array) -> list[tuple[np.ndarray, str]]:
    # Arrow's own check is fast; only where it fails each text is looked at.
    try:
        array.validate(full=True)
        return []
    except pa.ArrowInvalid:
        pass
    mask = np.array([not _is_text(value) for value in raw(array)], bool)
    return [(mask, _NOT_UTF8)] if mask.any() else []


def raw(array: pa.Array) -> list[bytes | None]:
    """The bytes of each text, which may be no text."""
    simple = {
        pa.string(): pa.binary(),
        pa.large_string(): pa.large_binary(),
        pa.string_view(): pa.binary_view(),
    }
    return array.view(simple[array.type]).to_pylist()  # type: ignore[no-any-return]


def _is_text(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _one_by_one(array: pa.Array) -> list[tuple[np.ndarray, str]]:
    mask = np.zeros(len(array), bool)
    for row in range(len(array)):
        try:
            array[row].as_py()
        except (ValueError, OverflowError, pa.ArrowException):
            mask[row] = True
    return [(mask, "holds a value that cannot be read")] if mask.any() else []


def _outside(
    array: pa.Array, units: int, first: int, last: int, reason: str
) -> list[tuple[np.ndarray, str]]:
    """Values of `units` a day that are not within [first, last) days."""
    # 32 bits for date32 and time32, else 64: `view` reads the numbers where they lie.
    bits = array.type.bit_width
    numbers = array.view(pa.int32() if bits == 32 else pa.int64())
    # A limit may lie beyond 64 bits (nanoseconds end in 2262); then every number is
    # within it.
    least, most = max(first * units, -(2**63)), min(last * units - 1, 2**63 - 1)
    extent: dict[str, Any] = pc.min_max(numbers).as_py()
    # The extremes speak for all: nearly every batch ends here.
    if extent["min"] is None or (least <= extent["min"] and extent["max"] <= most):
        return []
    values = pc.fill_null(numbers, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return [(((values < least) | (values > most)) & np.asarray(array.is_valid()), reason)]


def without(batch: pa.RecordBatch, rows: Container[int]) -> Iterator[pa.RecordBatch]:
    """A batch without some rows: one batch, or, where Arrow cannot choose among values of a type, several."""
    left = [row for row in range(batch.num_rows) if row not in rows]
    if len(left) == batch.num_rows:
        yield batch
        return
    try:
        yield batch.take(pa.array(left, pa.int64()))
    except pa.ArrowNotImplementedError:
        for row in left:
            yield batch.slice(row, 1)


def shown(array: pa.Array, row: int) -> Any:
    """One value for a person to read, whatever it is."""
    t, kind, one = pa.types, array.type, array.slice(row, 1)
    # A time of day outside a day may become a wrong Python value.
    if not t.is_time(kind):
        try:
            return array[row].as_py()
        except (ValueError, OverflowError, pa.ArrowException):
            pass
    if not one.is_valid()[0].as_py():
        return None
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return (raw(one)[0] or b"").decode("utf-8", "backslashreplace")
    if t.is_dictionary(kind):
        return shown(array.dictionary, array.indices[row].as_py())
    if t.is_timestamp(kind) or t.is_date(kind) or t.is_time(kind):
        # As a number of units, which numpy words however far it lies.
        number = one.view(pa.int32() if kind.bit_width == 32 else pa.int64())[0].as_py()
        if t.is_time(kind):
            return f"{number:,} {kind.unit} from midnight"
        return str(
            np.datetime64(
                number,
                kind.unit if t.is_timestamp(kind) else "D" if t.is_date32(kind) else "ms",
            )
        )
    if t.is_struct(kind):
        return {
            field.name: shown(child, 0)
            for field, child in zip(kind, one.flatten(), strict=True)
        }
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        elements = one.flatten()
        return [shown(elements, i) for i in range(min(len(elements), _SHOWN))]
    return f"a value of {kind} that cannot be shown"
