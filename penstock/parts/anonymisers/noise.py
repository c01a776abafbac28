"""Numbers moved by a chance that only the key's owner can repeat.

The noise of a row is uniform over ± `amount`, from the first 48 bits of a keyed SHA-256 of the row's id, so
that every engine and every version moves a row alike, and nobody without the key can move it back. It hides a
single value among its neighbours; it is not differential privacy, and makes no such promise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from penstock.contracts.privacy import Anonymiser, key_of, refuse_type

if TYPE_CHECKING:
    import ibis.expr.types as ir

_DIGITS = 12
"""Hexadecimal digits: 48 bits, which a double holds exactly."""


class Noise(Anonymiser):
    """Adds uniform noise of at most `amount` to a number; requests are left as they are."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"amount": 5, "key_env": "PENSTOCK_LAWS_KEY"},
    )
    at_serving: ClassVar[str] = "skip"

    amount: float = Field(gt=0)
    """The most that a value is moved by, up or down, in the column's own unit."""
    key_env: str = Field("PENSTOCK_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds the key, of at least 16 characters. The key is written nowhere."""
    scope: str = ""
    """Columns of one scope are moved alike in a row, relative to their amounts."""

    def key_name(self) -> str | None:
        return self.key_env

    def protect(self, value: ir.Value, row_id: ir.StringValue) -> ir.Value:
        import ibis

        kind = value.type()
        if not (kind.is_integer() or kind.is_floating()):
            raise refuse_type("noise", value, "numbers")
        key = ibis.literal(key_of(self.key_env, f"noise {self.scope}"))
        digest = (key + row_id).hexdigest("sha256")
        share = ibis.literal(0.0)
        for place in range(_DIGITS):
            # Neither engine reads hexadecimal numbers as the other does; both find a character in a text.
            digit = ibis.literal("0123456789abcdef").find(digest.substr(place, 1))
            # Powers of two: every term and every sum is exact.
            share = share + digit.cast("float64") * 16.0 ** -(place + 1)
        moved = value.cast("float64") + (share * 2.0 - 1.0) * self.amount
        return (moved.round() if kind.is_integer() else moved).cast(kind)
