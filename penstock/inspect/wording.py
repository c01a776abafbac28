"""Values, names and SQL as the comments and the YAML of a drafted recipe show them."""

from __future__ import annotations

import re
from typing import Any


def figure(value: float) -> str:
    """A number as people write it: whole ones with commas, others with four digits."""
    return (
        f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"
    )


_PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*([ .][A-Za-z0-9_-]+)*")
# Words that YAML reads as something else than text.
_RESERVED = frozenset(
    {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"}
)


def key(text: str) -> str:
    """A text as a YAML scalar that is read back as that very text, quoted where it must be."""
    return (
        text
        if _PLAIN_WORD.fullmatch(text) and text.lower() not in _RESERVED
        else quoted(text)
    )


def quoted(text: str) -> str:
    """A text in YAML's double quotes, whatever it holds."""
    out = []
    for char in text:
        code = ord(char)
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable() and code != 0xFEFF:
            out.append(char)
        else:
            out.append(
                f"\\x{code:02x}"
                if code < 0x100
                else f"\\u{code:04x}"
                if code < 0x10000
                else f"\\U{code:08x}"
            )
    return '"' + "".join(out) + '"'


_PERSONAL = (
    (re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+"), "…@…"),
    (re.compile(r"(?<!\w)\+[1-9][\d ()./-]{6,}\d"), "+…"),
)
"""Addresses of mail and telephone numbers, wherever they stand in a text, and what is shown instead."""

_LOOKED_AT = 300


def shown(value: Any) -> str:
    """A value as a comment shows it: one line, not too long, without what reaches a person."""
    text = value if isinstance(value, str) else str(value)
    # Masking costs the square of a long word, and an address has at most 254 characters (RFC 5321).
    text = text[:_LOOKED_AT]
    for pattern, instead in _PERSONAL:
        text = pattern.sub(instead, text)
    return (
        quoted(text if len(text) <= 32 else f"{text[:29]}…")
        if isinstance(value, str)
        else quoted(text)[1:-1]
    )


def sql(name: str) -> str:
    """A column's name in SQL."""
    return (
        name
        if re.fullmatch(r"[a-z_][a-z0-9_]*", name)
        else '"' + name.replace('"', '""') + '"'
    )


def derive_hint(*pairs: str) -> str:
    """Names and SQL in turn, as the `derive` of a recipe."""
    return (
        "derive: {"
        + ", ".join(
            f"{key(name)}: {_quoted_sql(text)}"
            for name, text in zip(pairs[::2], pairs[1::2], strict=True)
        )
        + "}"
    )


def _quoted_sql(text: str) -> str:
    """SQL in single quotes where it has double ones, for the reader's sake."""
    return (
        "'" + text.replace("'", "''") + "'"
        if '"' in text and text.isprintable()
        else quoted(text)
    )
