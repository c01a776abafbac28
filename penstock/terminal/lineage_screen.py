"""The screen of a lineage: what something was made of, and what was made of it, as two trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.core.wording import counted
from penstock.terminal.figures import size
from penstock.terminal.layout import paragraph, screen_width

_WIDTH = 120
_MARKED = ("bundle", "run", "dataset")
"""Kinds whose references say what they are (`run-…`), or show it (`NAME@ID`)."""


def lineage_screen(lineage: Mapping[str, Any]) -> str:
    """Both trees, a line or more a node, within the terminal's width (120 at most).

    Args:
        lineage: `Lineage.to_dict()`.
    """
    width = screen_width(_WIDTH)
    lines = paragraph(_text(lineage), width, rest="  ")
    for title, word, nothing in (
        ("Made of", "made_of", "nothing else: rows come from here."),
        ("Led to", "led_to", "nothing yet."),
    ):
        nodes = lineage[word]
        lines += ["", title if nodes else f"{title}: {nothing}"]
        lines += _tree(nodes, word, width, "")
    return "\n".join(lines)


def _tree(
    nodes: Sequence[Mapping[str, Any]], word: str, width: int, indent: str
) -> list[str]:
    lines: list[str] = []
    for i, node in enumerate(nodes):
        is_last = i == len(nodes) - 1
        below = indent + ("   " if is_last else "│  ")
        # A text of several lines goes on below itself, left of what is next.
        rest = below + ("│  " if node[word] else "   ")
        first = indent + ("└─ " if is_last else "├─ ")
        lines += paragraph(_text(node), width, first=first, rest=rest)
        lines += _tree(node[word], word, width, below)
    return lines


def _text(node: Mapping[str, Any]) -> str:
    name = str(node["reference"])
    if node["kind"] not in _MARKED:
        name = f"{node['kind']} {name}"
    facts = _facts(node)
    return f"{name} ({', '.join(facts)})" if facts else name


def _facts(facts: Mapping[str, Any]) -> list[str]:
    if facts.get("missing"):
        return ["no longer in the store"]
    words = []
    if "files" in facts:
        role = "" if facts["role"] == "rows" else f"{facts['role']}: "
        words.append(
            f"{role}{counted(facts['files'], 'file')}, {size(facts['size_bytes'])}"
        )
    if "rows" in facts:
        words.append(counted(facts["rows"], "row"))
    if facts.get("status") not in (None, "done"):
        words.append(str(facts["status"]))
    if facts.get("tags"):
        words.append(f"tagged {' '.join(facts['tags'])}")
    return words
