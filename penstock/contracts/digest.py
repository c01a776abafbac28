"""md5 as Ibis expressions: ids, digests and shares that come out the same on every engine.

Hash functions of engines differ and change between versions; md5 in hexadecimal, compared as text, does not. The text
of a value is the engine's own cast to text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ibis.expr.types as ir


def md5(text: ir.StringValue) -> ir.StringValue:
    """32 hexadecimal digits."""
    return text.hexdigest("md5")


def key_text(table: ir.Table, columns: Sequence[str]) -> ir.StringValue:
    """The texts of `columns` joined with `|` (a bar or backslash within a text is escaped where there are several)."""
    texts = [table[name].cast("string") for name in columns]
    if len(texts) == 1:
        return texts[0]
    escaped = [text.replace("\\", "\\\\").replace("|", "\\|") for text in texts]
    joined = escaped[0]
    for text in escaped[1:]:
        joined = joined + "|" + text
    return joined


def row_digest(table: ir.Table, columns: Sequence[str]) -> ir.StringValue:
    """A digest of a row's values: equal for two rows if and only if the texts of all values are (null equals null).

    Each text that may hold anything is led by its length, so that no two rows can be cut into the same string.
    """
    import ibis

    texts: list[Any] = []
    for name in columns:
        column = table[name]
        text = column.cast("string")
        if not (column.type().is_numeric() or column.type().is_temporal() or column.type().is_boolean()):
            text = text.length().cast("string") + ":" + text
        texts.append(text.fill_null("~"))
    return md5(ibis.literal(";").join(texts))  # one concatenation: a chain of + would copy the growing text for each column


def below(digest: ir.StringValue, share: float) -> ir.BooleanValue:
    """True for a `share` of all digests: those that are smallest as text."""
    import ibis

    limit = round(share * 2**64)
    return digest < ibis.literal(f"{limit:016x}" if limit < 2**64 else "g")  # "g" sorts after every hexadecimal digit
