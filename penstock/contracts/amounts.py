"""Amounts of bytes and of time as recipes spell them: `4GiB`, `500 MB`, `10min`, or a plain number."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_MOST = 2.0**63
"""More bytes than any machine has: what counts them holds 64 bits."""


def parse_bytes(value: Any) -> Any:
    """`4GiB`, `500 MB` or a number, as bytes."""
    # To Python, `true` is a whole number.
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(
            f"expected an amount of memory such as 4GiB or 500MB; found {value!r}"
        )
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", value)
        if not match or match[2].upper() not in _UNITS:
            raise ValueError(
                f"expected an amount of memory such as 4GiB or 500MB; found {value!r}"
            )
        # As a double, which a number of any length fits.
        amount = float(match[1]) * _UNITS[match[2].upper()]
        if amount >= _MOST:
            raise ValueError(
                f"expected an amount of memory such as 4GiB or 500MB; found {amount:.0e} bytes"
            )
        return int(amount)
    # Infinity and NaN go on to pydantic, which refuses them as whole numbers.
    if _MOST <= value < float("inf"):
        raise ValueError(
            "expected an amount of memory such as 4GiB or 500MB; found more bytes than any machine has"
        )
    return value


_DURATION = re.compile(
    r"\s*(\d+(?:\.\d+)?)\s*(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?|w|weeks?)\s*"
)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_LONGEST = 3_650 * 86_400
"""Ten years, in seconds: what is longer is a slip."""


def parse_seconds(value: Any) -> Any:
    """`90s`, `10min`, `2 hours`, `7d`, or a number, as seconds."""
    wanted = "expected a time such as 90s, 10min or 2h"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{wanted}; found {value!r}")
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if not match:
            raise ValueError(f"{wanted}; found {value!r}")
        # As a double, which a number of any length fits.
        value = float(match[1]) * _SECONDS[match[2][0]]
    # Infinity and NaN go on to pydantic, which refuses them.
    if _LONGEST < value < float("inf"):
        raise ValueError(f"{wanted}; found more than ten years")
    return value


Seconds = Annotated[
    float,
    BeforeValidator(parse_seconds),
    Field(gt=0, allow_inf_nan=False),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}
    ),
]
Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    Field(gt=0),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "string"}]}
    ),
]
