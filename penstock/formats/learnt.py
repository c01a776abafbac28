"""Values read as the data was that something was learnt from, each by itself.

    learnt int64     "7", "7.0", 7.0 → 7      "07", "7.5", "A7" stay texts, beside the others
    learnt text      "1e5" → "1e5"            1.0 (a number of JSON or Parquet) → "1"

A file alone would say otherwise: two rows of `True` and `False` are truth values, a third of `Unknown` makes
all three texts. So a type that was learnt is never widened or narrowed by what comes later. What is not of it
is no mistake of the reader: it is kept as text, and the feature takes or refuses it, row by row.

The rules for text are those by which `typed.TextTypes` took a column for what it is; a type the recipe had
forced understands what `typed.force` does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from penstock.formats.respelt import Respelling
from penstock.formats.typed import (
    NAIVE,
    ZONED,
    TextTypes,
    Widen,
    canonical,
    convert,
    force,
    to_text,
    unpacked,
)

MISFIT = "__p_as_"
"""Before a column's name: the column of the values that are not of its type, as text."""
KEPT = "__p_kept_"
"""Before a column's name: that column as it is carried along, where some of its values are not of its type:
as text.
"""

# No zero before another digit: such a text is a code.
_NUMBER = re.compile(
    r"-?(?!0[0-9])([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", re.ASCII
)
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_NOT_FINITE = re.compile(r"-?(nan|inf|infinity)", re.IGNORECASE)
_TRUTH = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
# Up to here float64 holds every integer.
_EXACT = 2**53


def learnt_type(kind: pa.DataType) -> pa.DataType | None:
    """The type in which a column of a learnt type is read; None: as it comes (bytes, lists)."""
    own = canonical(kind)
    t = pa.types
    plain = (
        t.is_boolean(own)
        or t.is_integer(own)
        or t.is_floating(own)
        or t.is_timestamp(own)
        or t.is_string(own)
    )
    return own if plain else None


def fit(
    array: pa.Array,
    kind: pa.DataType,
    *,
    forced: str | None = None,
    na: Sequence[str] = (),
    respelling: Respelling | None = None,
    comma: bool = False,
) -> tuple[pa.Array, pa.Array | None]:
    """The values that are of `kind`, null where not; and the others as text, null where they are: None if
    there are none.

    Args:
        kind: what `learnt_type` gave.
        forced: the type that the recipe forced, whose spellings are more.
        na: texts that stand for a missing value.
        respelling: how the recipe says that its texts are written.
        comma: whether what becomes text is to be read with a decimal comma.
    """
    array = _plain(array)
    own = array.type
    t = pa.types
    if t.is_string(own) and na:
        array = pc.if_else(
            pc.is_in(array, pa.array(na, pa.string())),
            pa.scalar(None, pa.string()),
            array,
        )
    if own.equals(kind):
        return array, None
    if t.is_string(own) and respelling is not None:
        array = respelling.plain(array)
    if t.is_null(own):
        return pa.nulls(len(array), kind), None
    if t.is_string(kind):
        has_marks = t.is_floating(own) or t.is_decimal(own)
        if comma and has_marks:
            # `7.125` would be seven thousand where dots stand between thousands.
            array = pc.replace_substring(to_text(array), ".", ",")
        return to_text(array), None
    # Values with a type of their own are changed exactly, all of them, or judged as
    # texts.
    if not t.is_string(own):
        exact = _exactly(array, kind)
        if exact is not None:
            return exact, None
        array = to_text(array)
    return _fit_text(array, kind, forced)


def _plain(array: pa.Array) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    array = unpacked(array)
    t = pa.types
    if t.is_dictionary(array.type):
        array = array.dictionary_decode()
    if t.is_large_string(array.type) or t.is_string_view(array.type):
        return array.cast(pa.string())
    return array


def _exactly(array: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """All values in another type of the same sort, or None: some would change, or the sorts have nothing in
    common.
    """
    t = pa.types
    here, number = array.type, t.is_integer(kind) or t.is_floating(kind)
    numeric = t.is_integer(here) or t.is_floating(here) or t.is_decimal(here)
    try:
        if t.is_boolean(here) and number:
            return array.cast(pa.int8()).cast(kind)
        if numeric and number:
            return convert(array, kind, "")
        if (t.is_timestamp(here) or t.is_date(here)) and t.is_timestamp(kind):
            return _moments(array, kind)
    except (Widen, pa.ArrowInvalid):
        return None
    return None


def _moments(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Timestamps changed to another type of timestamp; one without a zone is in UTC."""
    zone = getattr(array.type, "tz", None)
    # As microseconds since 1970 in UTC, where a zone makes no difference.
    micros = array.cast(pa.timestamp("us", zone) if zone else NAIVE).cast(pa.int64())
    return micros.cast(ZONED if kind.tz else NAIVE)


def _fit_text(
    array: pa.Array, kind: pa.DataType, forced: str | None
) -> tuple[pa.Array, pa.Array | None]:
    if forced is not None:
        values, wrong = force(array, forced)
        rows = pa.array([row in wrong for row in range(len(array))], pa.bool_())
        return values.cast(kind), pc.if_else(
            rows, array, pa.scalar(None, pa.string())
        ) if wrong else None
    text = pc.utf8_trim_whitespace(array)
    # Nearly every column ends here.
    quick = _all_at_once(text, kind)
    if quick is not None:
        return quick, None
    # Each distinct text is judged once, however often it comes.
    coded = text.dictionary_encode()
    words = coded.dictionary.to_pylist()
    values = [_value(word, kind) for word in words]
    fits = pa.array([value is not None for value in values], pa.bool_())
    good = pa.array(
        [None if value is _MISSING else value for value in values], kind
    ).take(coded.indices)
    # A missing value is no misfit, hence True.
    others = pc.if_else(
        pc.fill_null(fits.take(coded.indices), True), pa.scalar(None, pa.string()), array
    )
    return good, others if others.null_count < len(others) else None


def _all_at_once(text: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Convert a whole column of plain values, fast; None where some need a closer look."""
    t = pa.types
    types = TextTypes()
    types.boolean = t.is_boolean(kind)  # what it cannot be need not be looked for
    types.integer = types.number = t.is_integer(kind) or t.is_floating(kind)
    types.naive, types.zoned = kind.equals(NAIVE), kind.equals(ZONED)
    types.observe(text)
    narrow = types.result()
    if t.is_null(narrow):
        return pa.nulls(len(text), kind)
    # Whole numbers are in place in a column of numbers, unless float64 cannot hold one.
    if narrow.equals(kind) or (
        t.is_integer(narrow) and t.is_floating(kind) and not types.inexact
    ):
        return pc.utf8_lower(text).cast(kind) if t.is_boolean(kind) else text.cast(kind)
    return None


class _Missing:
    """A text that says that there is no value (`nan` in a column of whole numbers)."""


_MISSING = _Missing()


def _value(text: str, kind: pa.DataType) -> object:
    """One text as a value of `kind`; None: it is none."""
    t = pa.types
    if t.is_boolean(kind):
        return _TRUTH.get(text.lower())
    if t.is_integer(kind) or t.is_floating(kind):
        return _number(text, whole=t.is_integer(kind))
    if len(text) < 10 or text[4] != "-":
        return None
    # without a zone it is in UTC, as `_moments` has it
    for written in (kind, ZONED if kind.equals(NAIVE) else NAIVE):
        try:
            return _moments(pa.array([text], pa.string()).cast(written), kind)[0].as_py()
        except pa.ArrowInvalid:
            continue
    return None


def _number(text: str, *, whole: bool) -> object:
    if _NOT_FINITE.fullmatch(text):
        is_nan = "nan" in text.lower()
        return _MISSING if is_nan and whole else None if whole else float(text)
    if not _NUMBER.fullmatch(text):
        return None
    if _WHOLE.fullmatch(text):
        # 64 bits have at most 19 digits and a sign; `int` of thousands of digits is
        # slow, or refused.
        if len(text) > 20:
            return None
        exact = int(text)
        if whole:
            return exact if -(2**63) <= exact < 2**63 else None
        # Only an integer that float64 holds: it may be an id.
        return float(text) if int(float(text)) == exact else None
    number = float(text)
    if not whole:
        return number
    # `7.0` and `1e3` are whole numbers, as far as float64 is sure of them.
    return int(number) if abs(number) < _EXACT and number.is_integer() else None


def as_text(good: pa.Array, misfit: pa.Array) -> pa.Array:
    """A column as text: its values, and those that are not of its type."""
    return pc.coalesce(misfit, to_text(_plain(good)))
