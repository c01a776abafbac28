"""Figures as a screen shows them."""

from __future__ import annotations

from typing import Any


def number(value: Any) -> str:
    """A figure as a reader wants it: four digits, thousands grouped, nothing for nothing."""
    if value is None:
        return "–"
    # bool first, since it is an int in Python.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    # A fraction adds nothing to a large figure; a small one keeps four places.
    if size >= 10_000:
        return f"{value:,.0f}"
    if size >= 1:
        return f"{value:.4g}"
    # Four zeros would hide what a rate or a small unit says; a remainder of rounding is 0.
    return f"{value:.1e}" if 1e-15 < size < 5e-4 else f"{value:.4f}"


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
