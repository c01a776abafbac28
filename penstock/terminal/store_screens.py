"""The screens of what is in a store: lists, and one artefact."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from penstock.core.sound import sound
from penstock.core.wording import age, counted, duration, short
from penstock.prepare.tags import Tag
from penstock.terminal.figures import number
from penstock.terminal.layout import bars, paragraph, screen_width, table
from penstock.terminal.report_screen import report_screen

_REFERENCES = ("reference", "run", "dataset", "bundle")
_HEADS = {"reference": "", "created": "made", "in": "rows"}
_UNBROKEN = 1_000_000
_CURVE = 60
"""Columns of a training curve at most."""


def list_screen(
    shelf: str, rows: Sequence[Mapping[str, Any]], store: str, *, now: datetime
) -> str:
    """The artefacts of a shelf as a table, and below it those that cannot be read.

    Args:
        now: the moment from which ages count, with the reader's zone.
    """
    width = screen_width(140)
    problems = [
        line
        for row in rows
        if "problem" in row
        for line in paragraph(
            f"{row['reference']} cannot be read: {row['problem']}",
            # In a file a problem is a line, however long.
            screen_width(_UNBROKEN),
            first="! ",
            rest="  ",
        )
    ]
    whole = [row for row in rows if "problem" not in row]
    if not whole:
        none = f"No {shelf} in {store}" + (" that can be read." if problems else ".")
        return "\n".join([none, *problems])
    words = _words(whole)
    known = {
        word: [str(row[word]) for row in whole if row.get(word)] for word in _REFERENCES
    }
    cells = [[_cell(word, row.get(word), known, now) for word in words] for row in whole]
    head = [_HEADS.get(word, word) for word in words]
    right = [i for i, word in enumerate(words) if word == "rows"]
    title = f"{shelf} in {store}"
    return "\n".join(
        [table(head, cells, width=width, right=right, title=title), *problems]
    )


def tags_screen(tags: Sequence[Tag], store: str) -> str:
    """Tags and the versions that they stand for."""
    if not tags:
        return f"No tags in {store}. `penstock tag NAME@ID TAG` sets one."
    cells = [[each.reference, each.dataset] for each in tags]
    title = f"tags in {store}"
    return table(["", "stands for"], cells, width=screen_width(140), title=title)


def _words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of a list: what any row has that fits a cell; when it was made comes last."""
    words = [
        word
        for word in dict.fromkeys(word for row in rows for word in row)
        if any(not isinstance(row.get(word), Mapping) for row in rows if word in row)
    ]
    # A dataset's reference begins with its name.
    if all(str(row["reference"]).startswith(f"{row.get('name')}@") for row in rows):
        words = [word for word in words if word != "name"]
    return [word for word in words if word not in ("created", "shelf")] + ["created"]


def _cell(
    word: str, value: Any, known: Mapping[str, Sequence[str]], now: datetime
) -> str:
    if value is None:
        return "–"
    if word == "created":
        return age(str(value), now)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return short(str(value), known[word]) if word in _REFERENCES else number(value)


def show_screen(
    facts: Mapping[str, Any], *, explain: bool = False, now: datetime | None = None
) -> str:
    """One artefact: a run with its curve and its result, a bundle with its card, a report; others as JSON.

    Args:
        explain: end a report with what each metric means.
        now: the moment from which ages count; without it moments are given as they are.

    Raises:
        StoreError: what the artefact says of itself is not what it could say: it was changed.
    """
    # Its files may have the right checksums and say anything.
    with sound(str(facts.get("reference", "the artefact"))):
        return _shown(facts, explain=explain, now=now)


def _shown(facts: Mapping[str, Any], *, explain: bool, now: datetime | None) -> str:
    if "card" in facts:
        return f"{facts['reference']}\n{facts['path']}\n\n{facts['card']}"
    if "curve" in facts:
        created = str(facts.get("created", ""))
        moment = created if now is None else age(created, now)
        return _run_screen({**facts, "created": moment}, explain=explain)
    if "report" in facts and isinstance(facts["report"], Mapping):
        report = report_screen(facts["report"], explain=explain)
        return f"{facts['reference']}\n{facts['path']}\n\n{report}"
    # `default=str`: paths and times have no JSON form.
    return json.dumps(facts, indent=2, ensure_ascii=False, default=str)


def _run_screen(facts: Mapping[str, Any], *, explain: bool) -> str:
    width = screen_width()
    lines = [
        (word, facts[key])
        for word, key in (
            ("run", "reference"),
            ("recipe", "name"),
            ("status", "status"),
            ("made", "created"),
            ("dataset", "dataset"),
            ("bundle", "bundle"),
            ("folder", "path"),
            ("error", "error"),
        )
        if facts.get(key)
    ]
    summary = facts.get("summary") or {}
    if "epochs" in summary:
        took = duration(float(summary.get("seconds") or 0))
        lines.append(
            (
                "trained",
                f"{counted(summary['epochs'], 'epoch')} in {took}; the best is epoch"
                f" {summary.get('best_epoch')}",
            )
        )
    indent = " " * 9
    head = [
        line
        for word, value in lines
        for line in paragraph(str(value), width, first=f"{word:9}", rest=indent)
    ]
    parts = ["\n".join(head), _curve_screen(facts["curve"], width)]
    if isinstance(facts.get("report"), Mapping):
        parts.append(report_screen(facts["report"], explain=explain))
    return "\n\n".join(part for part in parts if part)


def _curve_screen(curve: Sequence[Mapping[str, Any]], width: int) -> str:
    """The loss by epoch: on the validation split where there is one, else on the training split."""
    is_validated = any(each.get("validation_loss") is not None for each in curve)
    word = "validation_loss" if is_validated else "train_loss"
    points = [
        (int(each["epoch"]), float(each[word]))
        for each in curve
        if isinstance(each.get(word), (int, float))
    ]
    # One epoch is no curve.
    if len(points) < 2:
        return ""
    losses = [loss for _, loss in points]
    labels = (number(max(losses)), number(min(losses)))
    margin = max(map(len, labels)) + 1
    lines = bars(losses, width=min(_CURVE, width - margin), height=6)
    split = "validation" if is_validated else "training"
    best = min(points, key=lambda point: point[1])
    return "\n".join(
        [
            *paragraph(
                f"Loss on the {split} split, epochs {points[0][0]} to {points[-1][0]}; lowest at epoch"
                f" {best[0]}",
                width,
            ),
            *(
                f"{ {0: labels[0], len(lines) - 1: labels[1]}.get(i, ''):>{margin - 1}} {line}"
                for i, line in enumerate(lines)
            ),
        ]
    )
