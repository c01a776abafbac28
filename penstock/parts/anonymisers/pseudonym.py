"""A keyed pseudonym: equal values get equal names, and only who has the key can tell whose.

The construction is HMAC's, with two keys derived for inner and outer hash (NMAC: Bellare, Canetti and
Krawczyk 1996, "Keying Hash Functions for Message Authentication"): `sha256(outer ‖ hex(sha256(inner ‖
value)))`, each key as 64 hexadecimal digits, which fill one block of SHA-256. Both engines have SHA-256 of
texts, and neither has HMAC.

With the same key the same person has the same pseudonym in every version and every table. Who changes the key
cuts that link.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from penstock.contracts.privacy import Anonymiser, key_of, refuse_type

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Pseudonym(Anonymiser):
    """Puts a keyed hash in the place of a text, a whole number or a date."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"key_env": "PENSTOCK_LAWS_KEY"},
        {"key_env": "PENSTOCK_LAWS_KEY", "digits": 16, "scope": "visits"},
    )

    key_env: str = Field("PENSTOCK_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds the key, of at least 16 characters. The key is written nowhere."""
    digits: int = Field(32, ge=16, le=64)
    """Hexadecimal digits of a pseudonym: 32 are 128 bits."""
    scope: str = ""
    """Pseudonyms of different scopes cannot be linked with each other; columns to be joined share one."""

    def key_name(self) -> str | None:
        return self.key_env

    def protect(self, value: ir.Value, row_id: ir.StringValue) -> ir.Value:
        import ibis

        kind = value.type()
        if not (kind.is_string() or kind.is_integer() or kind.is_date()):
            raise refuse_type("pseudonym", value, "texts, whole numbers and dates")
        inner, outer = (
            ibis.literal(key_of(self.key_env, f"pseudonym {half} {self.scope}"))
            for half in ("inner", "outer")
        )
        once = (inner + value.cast("string")).hexdigest("sha256")
        return (outer + once).hexdigest("sha256").substr(0, self.digits)
