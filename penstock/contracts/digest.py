"""md5 as Ibis expressions: ids, digests and shares that come out the same on every engine.

Hash functions of engines differ and change between versions; md5 in hexadecimal, compared as text, does not.
The text of a value is the engine's own cast to text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from penstock.contracts.data import EngineSession

_DIGESTED = 512
"""Columns whose texts are joined at once."""


def md5(text: ir.StringValue) -> ir.StringValue:
    """32 hexadecimal digits."""
    return text.hexdigest("md5")


def key_text(
    table: ir.Table | Mapping[str, ir.Value], columns: Sequence[str]
) -> ir.StringValue:
    """The texts of `columns` joined with `|` (a bar or backslash within a text is escaped where there are
    several).
    """
    texts = [table[name].cast("string") for name in columns]
    # A single text needs no separator, so nothing in it is escaped.
    if len(texts) == 1:
        return texts[0]
    # With escapes, no two different rows join to the same text.
    escaped = [text.replace("\\", "\\\\").replace("|", "\\|") for text in texts]
    joined = escaped[0]
    for text in escaped[1:]:
        joined = joined + "|" + text
    return joined


def row_digest(table: ir.Table, columns: Sequence[str]) -> ir.StringValue:
    """A digest of a row's values: equal for two rows if and only if the texts of all values are (null equals
    null).

    Each text that may hold anything is led by its length, so that no two rows can be cut into the same
    string.
    """
    import ibis

    texts: list[Any] = []
    for name in columns:
        column = table[name]
        text = column.cast("string")
        # Numbers, moments and truth values cannot hold the separator.
        if not (
            column.type().is_numeric()
            or column.type().is_temporal()
            or column.type().is_boolean()
        ):
            text = text.length().cast("string") + ":" + text
        # A null is a lone `~`, which no text is: texts begin with their length.
        texts.append(text.fill_null("~"))
    # one concatenation: a chain of + would copy the growing text for each column
    return md5(ibis.literal(";").join(texts))


def row_digests(
    session: EngineSession, table: ir.Table, columns: Sequence[str], keys: Sequence[str]
) -> ir.Table:
    """`keys`, and `__p_digest`: equal for two rows if and only if the texts of all values of `columns` are.

    Computed once, on disk.

    The digest of many columns is that of the digests of a few at a time: the texts of all of them at once
    would be held for thousands of rows.

    Args:
        keys: columns of `table` by which a row is known; no two rows have the same.
    """
    parts = [
        columns[start : start + _DIGESTED]
        for start in range(0, len(columns) or 1, _DIGESTED)
    ]
    whole = session.keep(table.select(*keys, __p_digest=row_digest(table, parts[0])))
    # The digests of a row are chained in the order of its columns.
    for part in parts[1:]:
        named = {f"__p_of{i}": table[key] for i, key in enumerate(keys)}
        more = session.keep(table.select(**named, __p_more=row_digest(table, part)))
        paired = whole.inner_join(
            more, [whole[key] == more[f"__p_of{i}"] for i, key in enumerate(keys)]
        )
        whole = session.keep(
            paired.select(
                *keys, __p_digest=md5(paired["__p_digest"] + paired["__p_more"])
            )
        )
    return whole


def below(digest: ir.StringValue, share: float) -> ir.BooleanValue:
    """True for a `share` of all digests: those that are smallest as text."""
    import ibis

    # Digests compare as text from their first digits on, of which 16 are 64 bits.
    limit = round(share * 2**64)
    # "g" sorts after every hexadecimal digit
    return digest < ibis.literal(f"{limit:016x}" if limit < 2**64 else "g")
