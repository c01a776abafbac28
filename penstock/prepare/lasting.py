"""Types whose values come back from Parquet as they went in."""

from __future__ import annotations

from typing import Any


def lasting(kind: Any) -> bool:
    """Whether values of a type come back from Parquet in that type, on every engine."""
    if kind.is_array():
        return lasting(kind.value_type)
    if kind.is_timestamp():
        # Microseconds: other units come back as another type on one of the engines.
        return kind.scale in (None, 6)
    return bool(
        kind.is_integer()
        or kind.is_floating()
        or kind.is_boolean()
        or kind.is_string()
        or kind.is_binary()
        or kind.is_date()
        or kind.is_null()
    )
