"""The screen that ends `penstock init`: what was seen, what is proposed, what to look at, what to do next."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock.core.visible import visible
from penstock.core.wording import counted
from penstock.terminal.layout import paragraph

_HEAD = 12
"""Columns of the words at the left."""
_NAMED = 3
"""Columns left out that are named with their reasons; the recipe names all."""
_WARNINGS = 5


def init_screen(draft: Mapping[str, Any], *, width: int) -> str:
    """A few lines about a drafted recipe.

    Args:
        draft: `Draft.to_dict()`.
        width: columns of the terminal; no line is wider unless a single word is.
    """
    lines = [
        *_entry("looked at", [_looked_at(draft)], width),
        *_entry("predicts", [_predicts(draft)], width),
        *_entry("learns from", [_learns_from(draft["inputs"])], width),
        *_entry("left out", _left_out(draft["left_out"]), width),
        *_entry("split", [draft["split"]], width),
        *_entry("look at", _warnings(draft), width),
        *_entry("next", [_next(draft)], width),
    ]
    return "\n".join(lines)


def _entry(head: str, texts: Iterable[str], width: int) -> list[str]:
    """Each text as a paragraph, the first behind its head."""
    lines: list[str] = []
    for text in texts:
        mark = "" if lines else head
        first, rest = f"{mark:{_HEAD}}", " " * _HEAD
        lines += paragraph(visible(text), width, first=first, rest=rest)
    return lines


def _looked_at(draft: Mapping[str, Any]) -> str:
    rows, whole = draft["rows"], draft["rows_in_source"]
    if whole == rows:
        scope = f"all {counted(rows, 'row')}"
    else:
        scope = f"{rows:,} of {whole:,} rows" if whole else f"{counted(rows, 'row')}"
    facts = [f"{scope}, {counted(draft['columns'], 'column')}"]
    if how := draft["reading"]:
        # As JSON, which is how a recipe may have them: a tab would be a gap here.
        words = (
            f"{k}: {v if str(v).isalnum() and v is not None else json.dumps(v)}"
            for k, v in how.items()
        )
        facts.append("read with " + ", ".join(words))
    if draft["unread"]:
        facts.append(f"{counted(draft['unread'], 'row')} could not be read")
    if draft["duplicates"]:
        again = "repeats another" if draft["duplicates"] == 1 else "repeat another"
        facts.append(f"{counted(draft['duplicates'], 'row')} {again} (not removed)")
    return f"{draft['source']}: {'; '.join(facts)}"


def _predicts(draft: Mapping[str, Any]) -> str:
    target = draft["target"]
    if target is None:
        return "nothing yet: name a column with --target"
    return f"{target['column']} ({target['type']}): {target['why']}"


def _learns_from(inputs: Sequence[Mapping[str, Any]]) -> str:
    if not inputs:
        return "nothing: no column was left to learn from"
    kinds = Counter(entry["type"] for entry in inputs)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{counted(len(inputs), 'column')}: {listed}"


def _left_out(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    # What gives the target away comes first: whoever knows better wants to see it.
    ordered = sorted(entries, key=lambda entry: not entry["loud"])
    texts = [f"{entry['column']}: {entry['why']}" for entry in ordered[:_NAMED]]
    if (rest := len(ordered) - _NAMED) > 0:
        texts.append(f"and {counted(rest, 'column')} more; the recipe says why")
    return texts


def _warnings(draft: Mapping[str, Any]) -> list[str]:
    texts = [*draft["problems"], *draft["warnings"]]
    shown = [f"! {text}" for text in texts[:_WARNINGS]]
    if len(texts) > _WARNINGS:
        shown.append(f"and {len(texts) - _WARNINGS} more; see the recipe")
    return shown


def _next(draft: Mapping[str, Any]) -> str:
    recipe = draft["recipe"]
    if recipe is None:
        return "write it to a file with -o recipe.yaml"
    if draft["problems"] or draft["target"] is None or not draft["inputs"]:
        return f"change {recipe}, then: penstock check {recipe}"
    return f"penstock run {recipe}"
