"""How nouns show themselves in a notebook: a small table of facts, everything in it escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.core.redact import redacted
from penstock.core.visible import visible

_LONGEST = 2_000
"""Characters of a cell: a noun is shown, not printed whole."""


def facts_page(
    title: str, facts: Mapping[str, Any], *, sentences: Sequence[str] = ()
) -> str:
    """Return HTML with a title, sentences, and a row for each fact that there is.

    Args:
        facts: values by word; None is left out, a number gets its thousands grouped.
    """
    rows = "".join(
        f"<tr><th style='text-align:left'>{_safe(word)}</th>"
        f"<td style='text-align:left'>{_safe(_text(value))}</td></tr>"
        for word, value in facts.items()
        if value is not None
    )
    paragraphs = "".join(f"<p>{_safe(sentence)}</p>" for sentence in sentences)
    return f"<div><b>{_safe(title)}</b>{paragraphs}<table>{rows}</table></div>"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{word} {_text(each)}" for word, each in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if is_count else str(value)


def _safe(text: str) -> str:
    # Names and values come from data: nothing of them is taken for a tag.
    return html.escape(visible(redacted(text[:_LONGEST])))
