"""Texts whose characters are covered, all but a few at an end.

Equal lengths would tell values apart, so the cover has always the same length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from penstock.contracts.privacy import Anonymiser, refuse_type

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Mask(Anonymiser):
    """Covers a text: `DE89 3704 0044 0532 0130 00` becomes `***3000` with `keep_last: 4`.

    A text that is not longer than twice what would be left is covered as a whole.
    """

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"keep_last": 4},
        {"keep_first": 1, "cover": "#"},
    )

    keep_first: int = Field(0, ge=0, le=8)
    """Characters left at the beginning."""
    keep_last: int = Field(0, ge=0, le=8)
    """Characters left at the end."""
    cover: str = Field("***", min_length=1, max_length=16)
    """What stands for the others."""

    def protect(self, value: ir.Value, row_id: ir.StringValue) -> ir.Value:
        import ibis

        kind = value.type()
        if not (kind.is_string() or kind.is_integer()):
            raise refuse_type("mask", value, "texts and whole numbers")
        text = value.cast("string")
        cover = ibis.literal(self.cover)
        whole = text.notnull().ifelse(cover, ibis.null("string"))
        left = self.keep_first + self.keep_last
        if not left:
            return whole
        first = text.substr(0, self.keep_first) if self.keep_first else None
        last = text.right(self.keep_last) if self.keep_last else None
        masked = cover if first is None else first + cover
        masked = masked if last is None else masked + last
        # Of a short text too much would be left.
        return (text.length() > 2 * left).ifelse(masked, whole)
