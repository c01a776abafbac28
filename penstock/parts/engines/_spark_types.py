"""What Spark holds in place of each type: a value travels through Spark in a carrier that keeps it whole.

Spark has no unsigned numbers, no time of day, and no nanoseconds. DuckDB has, and a dataset's schema is
DuckDB's, so such columns travel as a wider number and become what they were where rows are written or looked
at.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from penstock.core.errors import RecipeError

_UNSIGNED = {
    8: ("smallint", pa.int16(), pa.uint8()),
    16: ("int", pa.int32(), pa.uint16()),
    32: ("bigint", pa.int64(), pa.uint32()),
    64: ("decimal(20,0)", pa.decimal128(20, 0), pa.uint64()),
}
_SIGNED = {
    8: ("tinyint", pa.int8()),
    16: ("smallint", pa.int16()),
    32: ("int", pa.int32()),
    64: ("bigint", pa.int64()),
}


class Carried:
    """A type as DuckDB has it in Arrow, and as Spark has it.

    Args:
        kind: an Ibis type.

    Raises:
        RecipeError: Spark can hold no such value.
    """

    def __init__(self, kind: Any) -> None:
        self.ddl: str
        """Spark's word for the carrier."""
        self.carrier: pa.DataType
        self.plain: pa.DataType
        """What it is where rows are written, and what DuckDB sees."""
        self.ddl, self.carrier, self.plain = _three(kind)

    def into(self, values: pa.Array) -> pa.Array:
        """Cast plain values, or values of a near type, to the carrier."""
        # Unsafe first: an answer of DuckDB's may have a finer unit or a wider type than
        # the column, which the shadow decided.
        return values.cast(self.plain, safe=False).cast(self.carrier)

    def out(self, values: pa.Array | pa.ChunkedArray) -> Any:
        """Cast values of the carrier to the plain type."""
        return (
            values
            if values.type == self.plain
            # By way of the carrier, since Spark may hand back a near type, such as
            # another unit or zone.
            else values.cast(self.carrier).cast(self.plain)
        )


def _three(kind: Any) -> tuple[str, pa.DataType, pa.DataType]:
    if kind.is_unsigned_integer():
        # Spark has signed numbers only, so each takes the next wider one; 64 bits need
        # 20 decimal digits.
        return _UNSIGNED[kind.nbytes * 8]
    if kind.is_signed_integer():
        ddl, arrow = _SIGNED[kind.nbytes * 8]
        return ddl, arrow, arrow
    if kind.is_floating():
        return (
            ("double", pa.float64(), pa.float64())
            if kind.is_float64()
            else ("float", pa.float32(), pa.float32())
        )
    # Spark's decimals end at 38 digits, and a wider one falls through to the refusal.
    if kind.is_decimal() and (kind.precision or 38) <= 38:
        precision, scale = kind.precision or 38, kind.scale or 0
        return (
            f"decimal({precision},{scale})",
            pa.decimal128(precision, scale),
            pa.decimal128(precision, scale),
        )
    if kind.is_timestamp():
        return _of_timestamp(kind)
    if kind.is_time():
        # Microseconds since midnight, as DuckDB counts them.
        return "bigint", pa.int64(), pa.time64("us")
    if kind.is_nested():
        return _of_nested(kind)
    for word, is_it, arrow in (
        ("string", kind.is_string(), pa.string()),
        ("boolean", kind.is_boolean(), pa.bool_()),
        ("binary", kind.is_binary(), pa.binary()),
        ("date", kind.is_date(), pa.date32()),
        # A column of nothing but nulls has no type; any carrier does.
        ("int", kind.is_null(), pa.int32()),
    ):
        if is_it:
            return word, arrow, arrow
    raise RecipeError(
        f"Spark has no type for {kind}. Cast it to text or to a number, or use"
        " engine: embedded"
    )


def _of_timestamp(kind: Any) -> tuple[str, pa.DataType, pa.DataType]:
    """Spark counts microseconds; nanoseconds travel as whole numbers, so that none is rounded."""
    # With a zone, the moment is what counts, and Spark gives it in the session's zone,
    # UTC.
    if kind.timezone is not None:
        return "timestamp", pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")
    if kind.scale == 9:
        return "bigint", pa.int64(), pa.timestamp("ns")
    # Without a zone Spark's plain `timestamp` would shift the clock's reading; seconds
    # and milliseconds fit in microseconds.
    return (
        "timestamp_ntz",
        pa.timestamp("us"),
        pa.timestamp({0: "s", 3: "ms"}.get(kind.scale, "us")),
    )


def _of_nested(kind: Any) -> tuple[str, pa.DataType, pa.DataType]:
    if kind.is_array():
        ddl, carrier, plain = _three(kind.value_type)
        return f"array<{ddl}>", pa.list_(carrier), pa.list_(plain)
    if kind.is_map():
        keys, values = _three(kind.key_type), _three(kind.value_type)
        return (
            f"map<{keys[0]},{values[0]}>",
            pa.map_(keys[1], values[1]),
            pa.map_(keys[2], values[2]),
        )
    parts = {name: _three(each) for name, each in kind.items()}
    # A backtick in a name ends it unless it stands twice.
    words = ",".join(
        f"`{name.replace('`', '``')}`:{ddl}" for name, (ddl, _, _) in parts.items()
    )
    return (
        f"struct<{words}>",
        pa.struct([(n, p[1]) for n, p in parts.items()]),
        pa.struct([(n, p[2]) for n, p in parts.items()]),
    )
