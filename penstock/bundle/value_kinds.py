"""Converts Python values to Arrow arrays, by the kind of each value.

The kind of a value follows from the value and the declared type of its column alone, never from its
neighbours; values of one kind go into one array. What is brought to the declared type is only what loses
nothing (39.0 in a column of whole numbers is 39); whether 39.5 or "abc" is acceptable there is the feature's
to say.
"""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.formats.typed import text_of

_NUMBERS = {"int", "float", "huge", "decimal", "null"}
_WORDS = {"str", "bool", *_NUMBERS}
"""The kinds of what is taken as text where texts stand beside it in a list, as in a file of JSON lines."""
_ROWS = {"odd", "null"}
"""The kinds of the parts of a list of lists: a list is odd where one value is expected."""
ODD = "odd"
"""The kind of a value that no column of the declared type could hold."""
_ARROW = {
    "bool": pa.bool_(),
    "str": pa.string(),
    "bytes": pa.binary(),
    "date": pa.date32(),
    "datetime": pa.timestamp("us"),
    "instant": pa.timestamp("us", "UTC"),
    "time": pa.time64("us"),
}
"""By kind, the type of the values that need no more than a type."""
_LIST_OF = "list of "
"""Before a kind of `_ARROW`: the kind of a list of such values."""
_DIGITS = 20
"""More than a whole number of 64 bits has."""
_NONE_OF_PANDAS = ("NAType", "NaTType")


def as_python(values: list[Any]) -> list[Any]:
    """Replace numpy's scalars by Python's own, and the missing values of pandas and
    decimals by None.
    """
    # By types, not by values: a column of a million plain values costs one pass of
    # `type`.
    types = set(map(type, values))
    if not any(
        kind.__name__ in _NONE_OF_PANDAS
        or issubclass(kind, (np.generic, decimal.Decimal))
        for kind in types
    ):
        return values
    return [_as_python(value) for value in values]


def _as_python(value: Any) -> Any:
    if isinstance(value, (np.datetime64, np.timedelta64)):
        # numpy gives nanoseconds as a whole number, but microseconds as a moment.
        return value.astype(f"{value.dtype.name.partition('[')[0]}[us]").item()
    if isinstance(value, np.generic):
        return value.item()
    is_none = type(value).__name__ in _NONE_OF_PANDAS
    # By the type's name: pandas need not be installed to know its missing values.
    return (
        None
        if is_none or (isinstance(value, decimal.Decimal) and value.is_nan())
        else value
    )


def array_of_one_kind(values: list[Any], declared: pa.DataType) -> pa.Array | None:
    """Convert all values to one array, if each would be taken so alone; None if they
    are of several kinds.

    pyarrow would read `[0.5, False]` as two numbers; so what goes together is decided by Python types first.
    The usual cases are decided by the types alone; only what is left over looks at each value.
    """
    # A null goes with any kind.
    types = set(map(type, values)) - {type(None)}
    if not types:
        return pa.nulls(len(values), declared)
    if types == {str}:
        try:
            return pa.array(values, pa.string())
        # Half of a surrogate pair is no text; only its own row is refused.
        except UnicodeEncodeError:
            return None
    # bool before int: Python counts it as one, but a column of truth values is no
    # column of numbers.
    if types == {bool}:
        return pa.array(values, pa.bool_())
    try:
        # Not in a column of floats, where a whole number beyond int64 is still a
        # double.
        if types == {int} and not pa.types.is_floating(declared):
            return _fitting(pa.array(values, pa.int64()), declared)
        if types == {float} and not pa.types.is_integer(declared):
            return _fitting(pa.array(values, pa.float64()), declared)
        if types <= {int, float} and pa.types.is_floating(declared):
            doubles = pa.array(
                [None if v is None else float(v) for v in values], pa.float64()
            )
            # Unsafe casts only round: a double is brought to the precision that
            # training had.
            return doubles.cast(declared, safe=False)
    # A whole number beyond int64 or any double: each value is looked at by itself.
    except OverflowError:
        return None
    if (
        # Lists of plain numbers are the bulk of series and vectors, and need no look at
        # each value.
        types == {list}
        and pa.types.is_nested(declared)
        and (kind := _kind_of_lists(values)) is not None
    ):
        return array_of_kind(values, kind, declared)
    kinds = {kind_of(value, declared) for value in values} - {"null"}
    return (
        array_of_kind(values, kinds.pop(), declared)
        if len(kinds) == 1 and ODD not in kinds
        else None
    )


def _kind_of_lists(values: list[Any]) -> str | None:
    """Return `numbers` or `matrix` if the types alone tell; None where each value must
    be looked at.
    """
    numbers = {int, float, type(None)}
    # The items' types alone decide; texts, arrays or truth values among them need a
    # closer look.
    inner = {type(v) for value in values if value is not None for v in value}
    if inner <= numbers:
        return "numbers"
    if inner <= {list, type(None)}:
        rows = [
            row
            for value in values
            if value is not None
            for row in value
            if row is not None
        ]
        if {type(v) for row in rows for v in row} <= numbers:
            return "matrix"
    return None


def array_of_kind(values: list[Any], kind: str, declared: pa.DataType) -> pa.Array:
    """Convert values of one kind, nulls among them, to an array whose type follows from
    the kind and the declared type alone.
    """
    if kind == "null":
        return pa.nulls(len(values), declared)
    if kind == "int":
        return pa.array(
            # NaN in a column of whole numbers is a missing value.
            [None if v is None or v != v else int(v) for v in values],
            pa.int64(),
        )
    if kind == "float":
        return _fitting(pa.array(_doubles(values), pa.float64()), declared)
    if kind == "numbers":
        rows = [None if value is None else _doubles(value) for value in values]
        return pa.array(rows, pa.list_(pa.float64()))
    if kind == "matrix":
        matrices = [
            None if value is None else _rows_of_doubles(value) for value in values
        ]
        return pa.array(matrices, pa.list_(pa.list_(pa.float64())))
    if kind == "duration":  # seconds, as in files
        return pa.array(
            [None if v is None else v.total_seconds() for v in values], pa.float64()
        )
    if kind == "texts":
        words = [None if value is None else [_word(v) for v in value] for value in values]
        return pa.array(words, pa.list_(pa.string()))
    if kind.startswith(_LIST_OF):
        return pa.array(values, pa.list_(_ARROW[kind.removeprefix(_LIST_OF)]))
    if kind in ("huge", "decimal"):
        # Where no number is declared, it becomes the text that a file would have.
        if (
            pa.types.is_floating(declared)
            or pa.types.is_integer(declared)
            or pa.types.is_decimal(declared)
        ):
            return pa.array(_doubles(values), pa.float64())
        return pa.array([None if v is None else _spelt(v) for v in values], pa.string())
    return pa.array(
        [v.item() if isinstance(v, np.generic) else v for v in values], _ARROW[kind]
    )


def _doubles(values: Any) -> list[float | None]:
    return [None if value is None else as_double(value) for value in values]


def _rows_of_doubles(matrix: Any) -> list[list[float | None] | None]:
    return [None if row is None else _doubles(row) for row in matrix]


def _fitting(array: pa.Array, declared: pa.DataType) -> pa.Array:
    """Cast doubles to the declared float type; other declared types leave them as they
    are.
    """
    # A double in a column of texts or truth values is the feature's to refuse.
    both = pa.types.is_floating(declared) and pa.types.is_floating(array.type)
    return array.cast(declared, safe=False) if both else array


def kind_of(value: Any, declared: pa.DataType) -> str:
    """Return the kind of a value in a column of the type `declared`; values of one kind
    go into one array.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if pa.types.is_floating(declared):
            return "float"
        # int64 is Arrow's widest whole number.
        return "int" if -(2**63) <= value < 2**63 else "huge"
    if isinstance(value, float):
        # In a column of floats NaN stays, for the feature to judge.
        if value != value and not (
            pa.types.is_floating(declared) or pa.types.is_null(declared)
        ):
            return "null"  # NaN, as frames write what is missing
        if pa.types.is_integer(declared):
            # Beyond 2**53 neighbouring whole numbers share a double, so it no longer
            # says which one is meant.
            return "int" if abs(value) < 2**53 and value.is_integer() else "float"
        return "float"
    if isinstance(value, str):
        return "str" if value.isascii() or _is_text(value) else ODD
    if isinstance(value, bytes):
        return "bytes"
    if isinstance(value, decimal.Decimal):
        return _kind_of_decimal(value, declared)
    if isinstance(value, datetime.datetime):
        return "datetime" if value.tzinfo is None else "instant"
    if isinstance(value, datetime.date):
        return "date"
    if isinstance(value, datetime.time):
        return "time" if value.tzinfo is None else ODD
    if isinstance(value, datetime.timedelta):
        return "duration"
    if isinstance(value, (list, tuple, np.ndarray)) and pa.types.is_nested(declared):
        return _kind_of_list(value)
    return ODD


def _kind_of_decimal(value: decimal.Decimal, declared: pa.DataType) -> str:
    """Return the kind of a decimal; a whole one in a column of whole numbers is a whole
    number, exactly.
    """
    # A decimal may be 1E+1000000, whose digits must not be written out.
    is_near = value.is_finite() and value.adjusted() < _DIGITS
    if (
        not pa.types.is_integer(declared)
        or not is_near
        or value != value.to_integral_value()
    ):
        return "decimal"
    return "int" if -(2**63) <= value < 2**63 else "huge"


def _kind_of_list(values: Any) -> str:
    # Within lists no type is declared, so each item is taken for what it is alone.
    inner = {kind_of(value, pa.null()) for value in values}
    if inner <= _NUMBERS:
        return "numbers"
    of_one = inner - {"null"}
    if len(of_one) == 1 and of_one <= _ARROW.keys():
        return _LIST_OF + of_one.pop()
    if "str" in inner and inner <= _WORDS:
        return "texts"
    is_matrix = all(
        value is None or isinstance(value, (list, tuple, np.ndarray)) for value in values
    )
    if is_matrix and inner <= _ROWS:
        deep = {kind_of(v, pa.null()) for row in values if row is not None for v in row}
        return "matrix" if deep <= _NUMBERS else ODD
    return ODD


def _is_text(value: str) -> bool:
    """Whether a text has no half of a surrogate pair, which no encoding can say."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _word(value: Any) -> str | None:
    return _spelt(value) if isinstance(value, decimal.Decimal) else text_of(value)


def _spelt(value: Any) -> str | None:
    """Write a number as text, as a file would: a whole one in full, another as the
    double that it is read as.
    """
    is_whole = not isinstance(value, decimal.Decimal) or value.as_tuple().exponent == 0
    return str(value) if is_whole else text_of(float(value))


def as_double(value: Any) -> float:
    """Convert a number to a double; a whole number beyond any double becomes infinite,
    and a signalling NaN becomes NaN.
    """
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    except ValueError:
        return float("nan")


def carried(values: list[Any] | pa.Array) -> pa.Array:
    """Convert a column that is only carried along; to text if one column cannot hold
    its values.
    """
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    try:
        return pa.array(values)
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowNotImplementedError,
        OverflowError,
    ):
        return pa.array([None if v is None else str(v) for v in values])
    # Half of a surrogate pair is written as Python would escape it.
    except UnicodeEncodeError:
        return pa.array(
            [
                None if v is None else str(v).encode("utf-8", "backslashreplace").decode()
                for v in values
            ]
        )


def expected(declared: pa.DataType) -> str:
    """Name what a column of this type takes, for an error message."""
    if (
        pa.types.is_integer(declared)
        or pa.types.is_floating(declared)
        or pa.types.is_decimal(declared)
    ):
        return "a number"
    if pa.types.is_nested(declared):
        return "a list"
    if pa.types.is_binary(declared) or pa.types.is_large_binary(declared):
        return "bytes, or base64 text"
    if pa.types.is_temporal(declared):
        return "a date or time"
    return (
        "true or false"
        if pa.types.is_boolean(declared)
        else "one text, number or truth value"
    )


def shown(value: Any) -> str:
    """Show a value in an error message, on one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
