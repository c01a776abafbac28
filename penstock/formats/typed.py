"""The narrowest type that holds all of a column, and exact ways from one type to another.

The types a source gives: boolean, int64, float64, timestamp in microseconds (with UTC where the text has an
offset), string, binary, and lists of these. A text column is narrowed by *all* its values: `true`/`false` in
any case; integers whose text is exactly that of an int64 (no leading zeros: `01234` is a code); numbers (no
leading zeros, no `+`; a column with an integer that float64 cannot hold stays text, since ids must stay
exact); ISO 8601 timestamps; else text.

From type to type: int → float → text; what cannot be changed without loss raises `Widen`, and the extract
begins again with that column as text.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.formats.respelt import Respelling

NAIVE = pa.timestamp("us")
ZONED = pa.timestamp("us", "UTC")
FORCED = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": NAIVE,
}

# What `pc.is_in` compares a whole column with, in lower case.
_WORDS = pa.array(["true", "false"])
# Integers of fewer digits are below 2**53, which float64 holds exactly.
_INTEGER = r"^-?\d{15,}$"
# The only texts that may become a float that is not finite: `1e999` would lose its
# value to infinity.
_NOT_FINITE = r"(?i)^-?(nan|inf|infinity)$"


class Widen(Exception):
    """A column cannot be of the type chosen without losing something; it must be text.

    Never leaves this room.
    """

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


class TextTypes:
    """What a column of text could be, by all values observed so far.

    Flags only ever fall, so threads may share one.
    """

    def __init__(self) -> None:
        self.has_values = False
        self.boolean = self.integer = self.number = self.naive = self.zoned = True
        self.inexact = False
        """An integer was seen that float64 cannot hold."""
        self.respelt: TextTypes | None = None
        """What they could be as the words of the recipe say that they are written; None: it says nothing."""
        self.misfits = self.fits = False
        """Whether a text was seen that is not written so, and one that is."""
        self.are_numbers = self.is_named = False
        """Whether the words speak of numbers, and whether they name the column."""

    def observe_as(self, array: pa.Array, respelling: Respelling) -> None:
        """Narrow by a string array as it stands, and as the recipe says that it is written."""
        self.observe(array)
        if self.respelt is None or (self.misfits and self.fits):
            return
        plain, fits = respelling.read(array)
        there = array.is_valid().to_numpy(zero_copy_only=False)
        self.misfits = self.misfits or not fits.all()
        self.fits = self.fits or bool((fits & there).any())
        if not self.misfits:
            self.respelt.observe(plain)

    def observe(self, array: pa.Array) -> None:
        """Narrow by a string array; nulls say nothing."""
        # Once all flags have fallen the column is text for good, and only `has_values` may
        # still change.
        if not (self.boolean or self.integer or self.number or self.naive or self.zoned):
            self.has_values = self.has_values or array.null_count < len(array)
            return
        values = array.drop_null() if array.null_count else array
        if not len(values):
            return
        self.has_values = True
        # One value of six letters or more spares the comparison of a whole column.
        if self.boolean:
            first = values[0].as_py()
            self.boolean = (
                len(first) < 6 and pc.all(pc.is_in(pc.utf8_lower(values), _WORDS)).as_py()
            )
        if self.integer or self.number:
            self._observe_numbers(values)
        for flag, kind in (("naive", NAIVE), ("zoned", ZONED)):
            if getattr(self, flag):
                setattr(self, flag, _casts(values, kind))

    def _observe_numbers(self, values: pa.Array) -> None:
        if self.integer:
            whole = _cast(values, pa.int64())
            # Back to text and compared: `007` and `+7` are codes, and a number would
            # lose their zeros and signs.
            if whole is not None and whole.cast(pa.string()).equals(values):
                if not self.inexact:
                    numbers = whole.to_numpy(zero_copy_only=False)
                    # Up to 2**53 every integer is a float64, so only the larger ones
                    # are tried.
                    large = numbers[(numbers > 2**53) | (numbers < -(2**53))]
                    self.inexact = any(int(float(n)) != int(n) for n in large)
                return
            # A column that is no integer may still be numbers, of which some are
            # written with a point.
            self.integer = False
        self.number = self.number and self._numbers(values)

    def _numbers(self, values: pa.Array) -> bool:
        floats = _cast(values, pa.float64())
        if floats is None:
            return False
        first, second, third = (_byte(values, i) for i in range(3))
        minus = first == ord("-")
        # Where a minus stands first, the digits begin one byte later.
        lead, after = np.where(minus, second, first), np.where(minus, third, second)
        # A leading `+`, or a zero before another digit, is a sign of a code.
        if (first == ord("+")).any() or (
            (lead == ord("0")) & (after >= ord("0")) & (after <= ord("9"))
        ).any():
            return False
        # What overflows float64 becomes infinity, and so do words: only the words are
        # meant.
        odd = ~np.isfinite(floats.to_numpy(zero_copy_only=False))
        if (
            odd.any()
            and not pc.all(
                pc.match_substring_regex(values.filter(pa.array(odd)), _NOT_FINITE)
            ).as_py()
        ):
            return False
        # An integer of up to 15 bytes is below 2**53, so only longer texts are looked
        # at.
        long = values.filter(pc.greater(pc.binary_length(values), 15))
        if len(long):
            for text in long.filter(pc.match_substring_regex(long, _INTEGER)).to_pylist():
                # Beyond int64, or none that float64 has: it may be an id, which must
                # stay exact.
                if not -(2**63) <= int(text) < 2**63 or int(float(text)) != int(text):
                    self.inexact = True
                    break
        return True

    def narrow(self, other: TextTypes) -> None:
        """Narrow by what was observed elsewhere."""
        self.has_values = self.has_values or other.has_values
        self.inexact = self.inexact or other.inexact
        for flag in ("boolean", "integer", "number", "naive", "zoned"):
            setattr(self, flag, getattr(self, flag) and getattr(other, flag))

    def is_respelt(self) -> bool:
        """Whether the column is what the recipe's words make of its texts."""
        if self.respelt is None or self.misfits:
            return False
        kind = self.respelt.result()
        return not (pa.types.is_null(kind) or pa.types.is_string(kind))

    def result(self) -> pa.DataType:
        """The narrowest type; text where nothing was seen."""
        if self.respelt is not None and self.is_respelt():
            return self.respelt.result()
        if not self.has_values:
            return pa.null()
        if self.boolean:
            return pa.bool_()
        if self.integer:
            return pa.int64()
        if self.number and not self.inexact:
            return pa.float64()
        return NAIVE if self.naive else ZONED if self.zoned else pa.string()


def _casts(values: pa.Array, kind: pa.DataType) -> bool:
    # The shape of a date first: most texts are none, and Arrow is slow to fail.
    head = values[0].as_py()
    return len(head) >= 10 and head[4] == "-" and _cast(values, kind) is not None


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Cast to `kind`, or return None where a value cannot be.

    A few are tried first: Arrow is slow to fail, since it words an error for every value.
    """
    try:
        values[:32].cast(kind)
        return values.cast(kind)
    except pa.ArrowInvalid:
        return None


def _byte(values: pa.Array, index: int) -> np.ndarray:
    """The byte at `index` of each text; 0 where it is shorter."""
    if not len(values) or values.nbytes == 0:
        return np.zeros(len(values), np.uint8)
    _, offsets, data = values.buffers()
    # Arrow may leave the buffer out where all texts are empty.
    if data is None or data.size == 0:
        return np.zeros(len(values), np.uint8)
    # A slice shares its parent's buffers and begins at `offset`.
    begin = np.frombuffer(offsets, np.int32)[
        values.offset : values.offset + len(values) + 1
    ]
    raw = np.frombuffer(data, np.uint8)
    # Places behind a text's end are masked below; the minimum keeps them within the
    # buffer until then.
    places = begin[:-1] + index
    return np.where(places < begin[1:], raw[np.minimum(places, len(raw) - 1)], 0).astype(
        np.uint8
    )


def canonical(kind: pa.DataType) -> pa.DataType:
    """The type in which a column that is stored as `kind` is read."""
    t = pa.types
    if t.is_dictionary(kind):
        return canonical(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return canonical(kind.storage_type)
    if t.is_run_end_encoded(kind):
        return canonical(kind.value_type)
    if t.is_null(kind) or t.is_boolean(kind):
        return kind
    if t.is_integer(kind):
        return pa.int64()
    if t.is_decimal(kind):
        # 18 digits fit in int64 whatever they are; of more, text is the exact form.
        return (
            (pa.int64() if kind.precision <= 18 else pa.string())
            if kind.scale == 0
            else pa.float64()
        )
    if t.is_floating(kind) or t.is_duration(kind):
        return pa.float64()
    if t.is_timestamp(kind):
        return ZONED if kind.tz else NAIVE
    if t.is_date(kind):
        return NAIVE
    if (
        t.is_binary(kind)
        or t.is_large_binary(kind)
        or t.is_fixed_size_binary(kind)
        or t.is_binary_view(kind)
    ):
        return pa.binary()
    if _is_list(kind):
        return pa.list_(canonical(kind.value_type))
    return pa.string()  # text; times of day, maps and intervals as text


def _is_list(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(
        t.is_list(kind)
        or t.is_large_list(kind)
        or t.is_fixed_size_list(kind)
        or t.is_list_view(kind)
        or t.is_large_list_view(kind)
    )


def unite(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The narrowest type that holds both; None where there is none (binary and anything else)."""
    if a.equals(b) or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    # Integers that float64 cannot hold are told apart by `inexact`.
    if {a, b} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_binary(a) or pa.types.is_binary(b):
        return None
    if pa.types.is_list(a) and pa.types.is_list(b):
        inner = unite(a.value_type, b.value_type)
        return None if inner is None else pa.list_(inner)
    return pa.string()


def settle(kind: pa.DataType) -> pa.DataType:
    """`kind`, with text in the place of null."""
    if pa.types.is_null(kind):
        return pa.string()
    return pa.list_(settle(kind.value_type)) if pa.types.is_list(kind) else kind


def unpacked(array: pa.Array) -> pa.Array:
    """Values in the layout that most of Arrow computes with: what stands for another type as that type, runs
    as single values, views of lists as lists, durations as seconds.
    """
    t = pa.types
    if isinstance(array.type, pa.BaseExtensionType):
        return unpacked(array.storage)
    if t.is_run_end_encoded(array.type):
        return unpacked(pc.run_end_decode(array))
    if t.is_list_view(array.type) or t.is_large_list_view(array.type):
        return rebuild(
            *pieces(array)
        )  # a cast of a slice of such a view gives other lists (pyarrow 25)
    return convert(array, pa.float64(), "") if t.is_duration(array.type) else array


def convert(array: pa.Array, kind: pa.DataType, column: str) -> pa.Array:
    """`array` as `kind`, exactly.

    Raises:
        Widen: something would be lost.
    """
    if array.type.equals(kind):
        return array
    t = pa.types
    if isinstance(array.type, pa.BaseExtensionType):
        return convert(array.storage, kind, column)
    if t.is_dictionary(array.type):
        return convert(array.dictionary_decode(), kind, column)
    if t.is_run_end_encoded(array.type):
        return convert(pc.run_end_decode(array), kind, column)
    if t.is_string(kind):
        return to_text(array)
    try:
        if t.is_list(kind) and _is_list(array.type):
            sizes, values = pieces(array)
            return rebuild(sizes, convert(values, kind.value_type, column))
        # Durations become seconds; beyond 2**53 units the last ones are rounded.
        if t.is_duration(array.type):
            per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[array.type.unit]
            return pc.divide(
                array.cast(pa.int64()).cast(pa.float64(), safe=False), float(per_second)
            )
        if t.is_decimal(array.type) and t.is_floating(kind):
            return doubles(array)
        return array.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise Widen(column) from None


def doubles(decimals: pa.Array) -> pa.Array:
    """Decimals as the doubles nearest to them.

    Arrow's own cast multiplies by a power of ten, and 7.10 becomes 7.1000000000000005; text is read as every
    other number is.
    """
    return decimals.cast(pa.string()).cast(pa.float64())


def pieces(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    """A list array as lengths (null where the list is) and all elements."""
    sizes = pc.list_value_length(array).cast(pa.int32())
    # Without a length for missing lists, since `flatten` leaves their elements out.
    if pa.types.is_fixed_size_list(array.type) and array.null_count:
        sizes = pc.if_else(array.is_valid(), sizes, pa.scalar(None, pa.int32()))
    return sizes, array.flatten()


def rebuild(sizes: pa.Array, values: pa.Array) -> pa.Array:
    """Make a list array of what `pieces` returned."""
    # A missing list has no elements, so it takes none of `values`.
    counts = pc.fill_null(sizes, 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    return pa.ListArray.from_arrays(
        offsets, values, mask=sizes.is_null() if sizes.null_count else None
    )


def to_text(array: pa.Array) -> pa.Array:
    """Any array as text: numbers as JSON has them, timestamps and times of day as ISO 8601, nested values as
    JSON.
    """
    t = pa.types
    if t.is_time(array.type):
        # alike whatever the unit
        return pc.replace_substring_regex(
            pc.replace_substring_regex(array.cast(pa.string()), r"(\.\d*?)0+$", r"\1"),
            r"\.$",
            "",
        )
    if t.is_decimal(array.type) and array.type.scale != 0:
        array = doubles(
            array
        )  # as every source gives it: 7.00 is the number 7, and spelt like it
    # Arrow writes these as they should be, far faster than value by value.
    whole = t.is_integer(array.type) or t.is_decimal(array.type)
    if (
        whole
        or t.is_large_string(array.type)
        or t.is_string_view(array.type)
        or t.is_null(array.type)
    ):
        return array.cast(pa.string())
    if t.is_string(array.type):
        return array
    return pa.array([text_of(v) for v in array.to_pylist()], pa.string())


def with_comma(value: Any) -> str | None:
    """A value as text whose reader expects a decimal comma: 7.125 is "7,125", texts stay what they are."""
    text = text_of(value)
    if text is None or isinstance(value, bool):
        return text
    return text.replace(".", ",") if isinstance(value, (float, Decimal)) else text


def text_of(value: Any) -> str | None:
    """A value as text, and None where it is missing. A float that is NaN is missing
    everywhere, while the text "NaN" is a word.
    """
    return (
        None
        if value is None or (isinstance(value, (float, Decimal)) and value != value)
        else word(value)
    )


def word(value: Any) -> str:
    """A value as text, the same wherever it is met."""
    if isinstance(value, str):
        return value
    if isinstance(value, (date, time)):  # a moment is a date as well
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))  # 1.0 is the same number as 1, and so the same text
    if isinstance(value, float) and math.isinf(value):
        return str(value)  # "inf", as Arrow has it
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return (
        value.hex()
        if isinstance(value, bytes)
        else value.isoformat()
        if hasattr(value, "isoformat")
        else str(value)
    )


# -- types the recipe forces ---------------------------------------------------------------------------------

_SAY = {
    "integer": "an integer that fits in 64 bits",
    "number": "a number",
    "boolean": "true or false",
    "timestamp": "an ISO 8601 timestamp",
}
_TRUE, _FALSE = (
    {"true", "t", "yes", "y", "1", "1.0"},
    {"false", "f", "no", "n", "0", "0.0"},
)


def force(array: pa.Array, type: str) -> tuple[pa.Array, dict[int, str]]:
    """A text array as the type a recipe forces, and the rows whose value is not of it, with reasons.

    More is understood than is guessed: `+5`, `007` and `5.0` are integers if told so; `yes` and `1` are
    booleans; a timestamp with an offset becomes UTC without one.
    """
    if type == "text":
        return array, {}
    # Each distinct text is read once, however often it comes.
    coded = array.dictionary_encode()
    forced: list[Any] = []
    wrong: dict[int, str] = {}
    for i, text in enumerate(coded.dictionary.to_pylist()):
        value = _forced(text.strip(), type)
        forced.append(value)
        if value is None:
            wrong[i] = f"expected {_SAY[type]}; found {text[:80]!r}"
    values = pa.array(forced, FORCED[type]).take(coded.indices)
    if not wrong:
        return values, {}
    # -1 stands for a missing value, which is never wrong.
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)
    return values, {
        int(row): wrong[int(codes[row])]
        for row in np.flatnonzero(np.isin(codes, list(wrong)))
    }


def _forced(text: str, type: str) -> Any:
    if type == "integer":
        # A fraction of zeros is still an integer, if told so: `5.0` is 5.
        if not re.fullmatch(r"[-+]?\d+(\.0*)?", text, re.ASCII):
            return None
        whole = text.split(".")[0]
        if len(whole.lstrip("+-0")) > 19:  # Python refuses to read thousands of digits
            return None
        number = int(whole)
        return number if -(2**63) <= number < 2**63 else None
    if type == "number":
        return (
            float(text)
            if re.fullmatch(
                r"[-+]?((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|nan|inf|infinity)",
                text,
                re.IGNORECASE | re.ASCII,
            )
            else None
        )
    if type == "boolean":
        return (
            True if text.lower() in _TRUE else False if text.lower() in _FALSE else None
        )
    try:
        moment = datetime.fromisoformat(text)
        # Without a zone in the end: the type that a recipe forces has none.
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):  # in UTC it may lie outside the years 1 to 9999
        return None
