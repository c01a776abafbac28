"""Columns compared with each other: do two say the same? (What gives the target away is in `leaks`.)"""

from __future__ import annotations

import numpy as np

from penstock.inspect.raw_column import Finding, Look
from penstock.metrics.one_column import ranks


def duplicates(columns: list[tuple[Look, Finding]]) -> dict[str, str]:
    """Columns that say exactly what another says (each value of one goes with one value of the other): left
    out → kept.

    Of a pair the number is kept (it has an order, the category has not), else the one that comes first.
    """
    alike: dict[bytes, list[tuple[Look, Finding]]] = {}
    for look, finding in columns:
        if (
            finding.type in ("number", "category", "binary")
            and look.distinct >= 2
            and look.rows >= 30
        ):
            alike.setdefault(_signature(look), []).append((look, finding))
    twins: dict[str, str] = {}
    for group in alike.values():
        # A number has an order, which a category lacks.
        first = next(
            (look.name for look, finding in group if finding.type == "number"),
            group[0][0].name,
        )
        twins |= {look.name: first for look, _ in group if look.name != first}
    return twins


def _signature(look: Look) -> bytes:
    """Equal for columns that say the same.

    Where values recur: which rows share a value, whatever it is. Where hardly any does, that says nothing, so
    numbers are compared by their order (up or down) and texts by what they are.
    """
    # Columns of this kind match no other, so their own name is the signature.
    if (
        look.distinct == 2 and min(look.present.values()) < 5
    ):  # two rare flags may agree by chance
        return look.name.encode() + b" alone"
    if look.distinct <= look.filled / 5:
        # Values are renumbered by where they first appear, so that equal divisions are
        # equal bytes.
        _, first, place = np.unique(look.codes, return_index=True, return_inverse=True)
        return b"shares" + bytes(
            np.argsort(np.argsort(first))[place].astype(np.int32).tobytes()
        )
    if look.numeric_share == 1:
        # Up or down: an order and its reverse are one, and which rows are missing
        # belongs to it.
        there = np.isfinite(look.numbers)
        up = ranks(look.numbers[there])
        order: bytes = min(up.tobytes(), (up.max() + up.min() - up).tobytes())
        return b"".join([b"order", there.tobytes(), order])
    return b"texts" + "\x00".join(
        "" if v is None else str(v) for v in look.trimmed.to_pylist()
    ).encode("utf-8", "surrogatepass")
