"""Free text with its personal data replaced by their kind: `write to [email] or call [phone]`.

What has a shape is found by its shape (RE2 and Java's expressions, so that both engines agree): e-mail
addresses, web addresses, IP addresses, bank accounts (IBAN), payment cards, social security numbers and
telephone numbers. Names of persons have no shape: list those that must not be seen under `words`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from penstock.contracts.privacy import Anonymiser, refuse_type

if TYPE_CHECKING:
    import ibis.expr.types as ir

Kind = Literal["email", "url", "iban", "card", "ssn", "ip", "phone"]

_PATTERNS: dict[str, str] = {
    "email": r"[A-Za-z0-9._%+'-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}",
    "url": r"(?:https?://|www\.)[^\s<>\"']+",
    "iban": r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
    # 13 to 19 digits, in groups or in one.
    "card": r"\b[0-9](?:[ -]?[0-9]){12,18}\b",
    "ssn": r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",
    "ip": r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b|\b(?:[0-9A-Fa-f]{1,4}:){3,7}[0-9A-Fa-f]{1,4}\b",
    # With a country's code, with brackets, or in groups; a bare number is a number.
    "phone": r"\+[0-9][0-9 ()./-]{6,20}[0-9]"
    r"|\(0?[0-9]{1,5}\)[ ]?[0-9][0-9 ./-]{3,14}[0-9]"
    r"|\b0?[0-9]{2,5}[ /.-][0-9]{3,4}[ .-]?[0-9]{3,5}\b",
}
"""In the order in which they are replaced: the longer shape before one that it holds."""


class RedactText(Anonymiser):
    """Replaces personal data in texts by its kind in square brackets."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {},
        {"kinds": ["email"], "words": ["Secret"]},
    )

    kinds: tuple[Kind, ...] = Field(
        ("email", "url", "iban", "card", "ssn", "ip", "phone"), min_length=1
    )
    """What is looked for."""
    words: tuple[Annotated[str, Field(min_length=2)], ...] = ()
    """Words of your own that are replaced by `[word]`, such as names, in capitals or not."""

    def protect(self, value: ir.Value, row_id: ir.StringValue) -> ir.Value:
        if not value.type().is_string():
            raise refuse_type("redact_text", value, "texts")
        text: Any = value
        for kind, pattern in _PATTERNS.items():
            if kind in self.kinds:
                text = text.re_replace(pattern, f"[{kind}]")
        # The longest first: `Anna Maria` before `Anna`.
        for word in sorted(self.words, key=len, reverse=True):
            text = text.re_replace(_pattern(word), "[word]")
        return text


def _pattern(word: str) -> str:
    """An expression for the word in capitals or not, alone among letters."""
    # Java folds the case of ASCII alone.
    forms = dict.fromkeys((word, word.lower(), word.upper(), word.title()))
    before, after = (r"\b" if _is_plain(edge) else "" for edge in (word[0], word[-1]))
    return f"(?i){before}(?:{'|'.join(map(re.escape, forms))}){after}"


def _is_plain(character: str) -> bool:
    # RE2 sees an edge of a word beside ASCII letters alone, so that `Émile` would not be seen to begin.
    return character.isascii() and character.isalnum()
