"""The screens that end a command, as text. Plain data in, text out; every number shown is in the data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock.core.wording import counted, duration
from penstock.terminal.figures import number, size
from penstock.terminal.layout import paragraph, screen_width, table
from penstock.terminal.report_screen import report_screen

if TYPE_CHECKING:
    from penstock.encode.feed import Feed
    from penstock.pipeline.demo import Shown
    from penstock.pipeline.outcome import Outcome


def rows_screen(counts: Mapping[str, int]) -> str:
    """Where every row of the source went, as a sum."""
    rest = [
        (word, counts.get(word, 0))
        for word in (
            "train",
            "validation",
            "test",
            "quarantined",
            "duplicates",
            "filtered",
        )
    ]
    # The sum is written out: a reader sees that no row was lost.
    line = f"{counts.get('in', 0):,} in = " + " + ".join(
        f"{n:,} {word}" for word, n in rest
    )
    return _line("rows", line, most=160)


def _line(word: str, text: str, *, most: int = 110) -> str:
    """A word and what stands beside it, broken between words and indented below."""
    lines = paragraph(text, screen_width(most), first=f"{word:9}", rest=" " * 9)
    return "\n".join(lines)


def feed_screen(feed: Feed) -> str:
    """The rows and samples of a feed by split, its dataset, its id and its folder."""
    lines = [
        _line("rows", f"{_splits(feed.rows)}; {feed.quarantined:,} could not be encoded")
    ]
    if feed.samples is not None:
        lines.append(_line("samples", _splits(feed.samples)))
    return "\n".join(
        [
            *lines,
            f"dataset  {feed.dataset}",
            f"feed     {feed.id}",
            f"         {feed.path}",
        ]
    )


def _splits(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {split}" for split, count in counts.items())


def facts_screen(facts: Mapping[str, Any]) -> str:
    """Facts, one a line: the word, then its value."""
    flat = dict(_flat(facts))
    width = max((len(word) for word in flat), default=0)
    return "\n".join(
        line
        for word, value in flat.items()
        for line in paragraph(
            value, screen_width(), first=f"{word:{width}}  ", rest=" " * (width + 2)
        )
    )


def _flat(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts of facts as lines of their own: `validation pay`, with its figures beside it."""
    lines = []
    for word, value in facts.items():
        word = word.replace("_", " ")
        if not isinstance(value, Mapping):
            is_time = word == "seconds" and isinstance(value, (int, float))
            text = duration(value) if is_time else number(value)
            lines.append(("time" if is_time else word, text))
            continue
        lines += [
            (f"{word} {inner}", text)
            for inner, text in _flat(
                # Inner mappings become lines of their own; plain figures stay on one.
                {k: v for k, v in value.items() if isinstance(v, Mapping)}
            )
        ]
        # Lists (curves, matrices) are for the file, not for a line.
        plain = {k: v for k, v in value.items() if not isinstance(v, (list, Mapping))}
        if plain:
            lines.append((word, ", ".join(f"{k} {number(v)}" for k, v in plain.items())))
    return lines


def outcome_screen(outcome: Outcome, *, store: str | None) -> str:
    """The short report that ends `penstock run`."""
    parts: list[str] = []
    if outcome.dataset is not None:
        parts.append(rows_screen(outcome.rows()))
    if outcome.report:
        parts.append("\n" + report_screen(outcome.report))
    lines = []
    artefacts = {"dataset": outcome.dataset, "run": outcome.run, "bundle": outcome.bundle}
    for word, artefact in artefacts.items():
        if artefact is not None:
            # Runs have an id where the others have a reference.
            reference = getattr(artefact, "reference", None) or artefact.id
            lines.append(f"{word:8} {reference}\n         {artefact.path}")
    if outcome.report and outcome.report.get("path"):
        lines.append(f"report   {outcome.report['path']}")
    # `all` of nothing is true, so an outcome without stages is excluded.
    if all(outcome.skipped.values()) and outcome.skipped:
        lines.append("Nothing was run: nothing that it depends on has changed.")
    seconds = sum(outcome.seconds.values())
    memory = size(outcome.peak_memory_bytes)
    lines.append(f"time     {duration(seconds)}, peak memory {memory}")
    if outcome.bundle is not None:
        # A bundle lies two folders below its store: `bundles/<id>`.
        where = store or str(outcome.bundle.path.parent.parent)
        lines.append(
            f"next     penstock serve {outcome.bundle.reference} --store {where}"
        )
    return "\n".join([*parts, "", *lines])


def plan_screen(plan: Mapping[str, Any]) -> str:
    """The stages of a plan as a table: done or to run, why, and what is expected."""
    rows = [
        [
            stage["stage"],
            "done" if stage["done"] else "run",
            stage["why"],
            _expected(stage["expects"]),
        ]
        for stage in plan["stages"]
    ]
    width = screen_width()
    text = table(
        ["stage", "", "why", "expects"],
        rows,
        width=width,
        title=f"Plan of {plan['name']}",
    )
    notes = [line for note in plan.get("notes", []) for line in paragraph(note, width)]
    return "\n".join([text, *([""] if notes else []), *notes])


_COUNTED = {"files": "file", "rows": "row", "parameters": "parameter", "steps": "step"}


def _expected(expects: Mapping[str, Any]) -> str:
    parts = []
    for word, value in expects.items():
        # `about` lists which of the others are estimates; the least time is told with the most.
        if word in ("about", "least_seconds"):
            continue
        about = "about " if word in expects.get("about", ()) else ""
        if word in _COUNTED:
            parts.append(about + counted(value, _COUNTED[word]))
        elif word == "most_seconds":
            parts.append(_time(expects.get("least_seconds", value), value))
        elif "bytes" in word:
            name = word.removesuffix("_bytes").replace("bytes", "").strip()
            parts.append(f"{name + ' ' if name else ''}{about}{size(value)}")
        else:
            parts.append(f"{word.replace('_', ' ')} {about}{value:,}")
    return ", ".join(parts)


def _time(least: float, most: float) -> str:
    if duration(least) == duration(most):
        return f"time about {duration(most)}"
    return f"time {duration(least)} to {duration(most)}"


def demo_screen(shown: Shown) -> str:
    """The served answer that ends `penstock demo`."""
    return "\n".join(
        [
            f"asked    POST {shown.url}/predict  {json.dumps(shown.question, ensure_ascii=False)[:160]}…",
            f"answered {json.dumps(shown.answer, ensure_ascii=False)}",
            f"truth    {shown.truth}",
            "",
            f"Everything is under {shown.folder}: the lake, recipe.yaml, the store. Try:",
            f"  penstock run {shown.folder}/recipe.yaml        (nothing has changed: nothing is run)",
            "  penstock init YOUR.csv --target COLUMN -o recipe.yaml && penstock run recipe.yaml",
        ]
    )
