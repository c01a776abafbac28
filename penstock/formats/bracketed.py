"""Lists that stand in a text, as JSON and Python write them: `["a", "b"]`, `['a', 'b']`, `[1, 2.5]`.

Nothing is evaluated: a list of texts and numbers is read, and anything else is none.
"""

from __future__ import annotations

import json
import re

_ITEM = re.compile(
    r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^\s'",\[\](){}][^'",\[\](){}]*?))\s*(?=,|$)"""
)
_ENDS = {"[": "]", "(": ")", "{": "}"}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def items(text: str) -> list[str] | None:
    """The items of a list in brackets, as texts; None where the text is no flat list.

    Numbers are as they are written; `null` and `None` are left out.
    """
    text = text.strip()
    if len(text) < 2 or _ENDS.get(text[0]) != text[-1]:
        return None
    if text[0] == "[":
        try:
            listed = json.loads(text, parse_float=str, parse_int=str)
        except (ValueError, RecursionError):
            pass
        else:
            flat = all(item is None or isinstance(item, (str, bool)) for item in listed)
            return [_spelt(item) for item in listed if item is not None] if flat else None
    return _python(text[1:-1])


def _spelt(item: str | bool) -> str:
    return item if isinstance(item, str) else str(item).lower()


def _python(inner: str) -> list[str] | None:
    """Items between commas, each in single or double quotes or without."""
    texts: list[str] = []
    place = 0
    while place < len(inner) and inner[place:].strip():
        item = _ITEM.match(inner, place)
        if item is None:
            return None
        single, double, bare = item.groups()
        quoted = single if single is not None else double
        if quoted is not None:
            texts.append(_ESCAPED.sub(r"\1", quoted))
        elif bare != "None":
            texts.append(bare)
        place = item.end()
        if place < len(inner):
            if inner[place] != ",":
                return None
            place += 1
    return texts
