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
        found: an Ibis type.

    Raises:
        RecipeError: Spark can hold no such value.
    """

    def __init__(self, found: Any) -> None:
        self.ddl: str
        """Spark's word for the carrier."""
        self.carrier: pa.DataType
        self.plain: pa.DataType
        """What it is where rows are written, and what DuckDB sees."""
        self.ddl, self.carrier, self.plain = _three(found)

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


def _three(found: Any) -> tuple[str, pa.DataType, pa.DataType]:
    if found.is_unsigned_integer():
        # Spark has signed numbers only, so each takes the next wider one; 64 bits need
        # 20 decimal digits.
        return _UNSIGNED[found.nbytes * 8]
    if found.is_signed_integer():
        ddl, arrow = _SIGNED[found.nbytes * 8]
        return ddl, arrow, arrow
    if found.is_floating():
        return (
            ("double", pa.float64(), pa.float64())
            if found.is_float64()
            else ("float", pa.float32(), pa.float32())
        )
    # Spark's decimals end at 38 digits, and a wider one falls through to the refusal.
    if found.is_decimal() and (found.precision or 38) <= 38:
        precision, scale = found.precision or 38, found.scale or 0
        return (
            f"decimal({precision},{scale})",
            pa.decimal128(precision, scale),
            pa.decimal128(precision, scale),
        )
    if found.is_timestamp():
        return _of_timestamp(found)
    if found.is_time():
        # Microseconds since midnight, as DuckDB counts them.
        return "bigint", pa.int64(), pa.time64("us")
    if found.is_nested():
        return _of_nested(found)
    for word, is_it, arrow in (
        ("string", found.is_string(), pa.string()),
        ("boolean", found.is_boolean(), pa.bool_()),
        ("binary", found.is_binary(), pa.binary()),
        ("date", found.is_date(), pa.date32()),
        # A column of nothing but nulls has no type; any carrier does.
        ("int", found.is_null(), pa.int32()),
    ):
        if is_it:
            return word, arrow, arrow
    raise RecipeError(
        f"Spark has no type for {found}. Cast it to text or to a number, or use"
        " engine: embedded"
    )


def _of_timestamp(found: Any) -> tuple[str, pa.DataType, pa.DataType]:
    """Spark counts microseconds; nanoseconds travel as whole numbers, so that none is rounded."""
    # With a zone, the moment is what counts, and Spark gives it in the session's zone,
    # UTC.
    if found.timezone is not None:
        return "timestamp", pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")
    if found.scale == 9:
        return "bigint", pa.int64(), pa.timestamp("ns")
    # Without a zone Spark's plain `timestamp` would shift the clock's reading; seconds
    # and milliseconds fit in microseconds.
    return (
        "timestamp_ntz",
        pa.timestamp("us"),
        pa.timestamp({0: "s", 3: "ms"}.get(found.scale, "us")),
    )


def _of_nested(found: Any) -> tuple[str, pa.DataType, pa.DataType]:
    if found.is_array():
        ddl, carrier, plain = _three(found.value_type)
        return f"array<{ddl}>", pa.list_(carrier), pa.list_(plain)
    if found.is_map():
        keys, values = _three(found.key_type), _three(found.value_type)
        return (
            f"map<{keys[0]},{values[0]}>",
            pa.map_(keys[1], values[1]),
            pa.map_(keys[2], values[2]),
        )
    parts = {name: _three(each) for name, each in found.items()}
    # A backtick in a name ends it unless it stands twice.
    words = ",".join(
        f"`{name.replace('`', '``')}`:{ddl}" for name, (ddl, _, _) in parts.items()
    )
    return (
        f"struct<{words}>",
        pa.struct([(n, p[1]) for n, p in parts.items()]),
        pa.struct([(n, p[2]) for n, p in parts.items()]),
    )
