"""The screens that end a command, as text. Plain data in, text out; every number shown is in the data."""

from __future__ import annotations

import io
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from penstock.encode.feed import Feed
    from penstock.pipeline.demo import Shown
    from penstock.pipeline.outcome import Outcome


SLICES = 8
"""Slices asked for that are shown, a target; the report's file has all of them."""
FOUND = 5
"""Worst slices that are shown, a target."""


def _width(most: int) -> int:
    """Columns to write in: the terminal's, up to `most`; in a file or a pipe `most`."""
    # Into a pipe the width is fixed, so that logs of two machines compare.
    return (
        max(40, min(shutil.get_terminal_size((most, 24)).columns, most))
        if sys.stdout.isatty()
        else most
    )


def _render(*things: Any, width: int = 110) -> str:
    """Tables and text as one text without colour, so that it reads the same in a log."""
    out = io.StringIO()
    console = Console(
        file=out, width=_width(width), highlight=False, no_color=True, soft_wrap=False
    )
    for thing in things:
        # Text as it is: brackets in a column's name are no markup.
        console.print(thing, markup=False) if isinstance(thing, str) else console.print(
            thing
        )
    # rich fills lines with spaces, which a log need not keep.
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _table(title: str, *columns: str, right: Sequence[int] = ()) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title_style="bold",
    )
    for i, column in enumerate(columns):
        table.add_column(
            column, justify="right" if i in right else "left", overflow="fold"
        )
    return table


def number(value: Any) -> str:
    """A figure as a reader wants it: four digits, thousands grouped, nothing for nothing."""
    if value is None:
        return "–"
    # bool first, since it is an int in Python.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    # A fraction adds nothing to a large figure; a small one keeps four places.
    return (
        f"{value:,.0f}"
        if abs(value) >= 10_000
        else f"{value:.4g}"
        if abs(value) >= 1
        else f"{value:.4f}"
    )


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


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
    line = f"rows     {counts.get('in', 0):,} in = " + " + ".join(
        f"{n:,} {word}" for word, n in rest
    )
    return textwrap.fill(
        line, _width(160), subsequent_indent=" " * 9, break_on_hyphens=False
    )


def feed_screen(feed: Feed) -> str:
    """The rows and samples of a feed by split, its dataset, its id and its folder."""
    lines = [
        "rows     "
        + ", ".join(f"{count:,} {split}" for split, count in feed.rows.items())
        + f"; {feed.quarantined:,} could not be encoded"
    ]
    if feed.samples is not None:
        lines.append(
            "samples  "
            + ", ".join(f"{count:,} {split}" for split, count in feed.samples.items())
        )
    return "\n".join(
        [
            *lines,
            f"dataset  {feed.dataset}",
            f"feed     {feed.id}",
            f"         {feed.path}",
        ]
    )


def facts_screen(facts: Mapping[str, Any]) -> str:
    """Facts, one a line: the word, then its value."""
    flat = dict(_flat(facts))
    width = max((len(word) for word in flat), default=0)
    return "\n".join(f"{word:{width}}  {value}" for word, value in flat.items())


def _flat(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts of facts as lines of their own: `validation pay`, with its figures beside it."""
    lines = []
    for word, value in facts.items():
        word = word.replace("_", " ")
        if not isinstance(value, Mapping):
            lines.append((word, number(value)))
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


def report_screen(report: Mapping[str, Any]) -> str:
    """Metrics with their intervals beside the baselines; the slices; the verdict."""
    parts: list[Any] = [*_metric_tables(report), *_slice_tables(report)]
    overlap = (report.get("overlap") or {}).get("test")
    if overlap:
        parts.append(
            f"{overlap:,} rows of the given test split are also in train; the test split was left as given.\n"
        )
    parts += [f"Note: {note}\n" for note in report.get("notes") or []]
    if report.get("verdict"):
        parts.append(str(report["verdict"]))
    return _render(*parts)


def _metric_tables(report: Mapping[str, Any]) -> Iterator[Table]:
    """One table a target."""
    classical = report.get("classical") or {}
    by_target = classical.get(
        "metrics", classical
    )  # earlier reports had them among the facts
    # The report's first split is shown, and named in the title.
    split = next(iter(report.get("metrics", {})), "test")
    for target, metrics in report.get("metrics", {}).get(split, {}).items():
        intervals = report.get("intervals", {}).get(target) or {}
        classical_metrics = by_target.get(target) or {}
        trivial_metrics = report.get("baseline", {}).get(target) or {}
        table = _table(
            f"{target} on the {split} split ({report.get('rows', 0):,} rows)",
            "metric",
            "model",
            "interval",
            classical.get("model", "classical"),
            "trivial",
            right=(1, 2, 3, 4),
        )
        for metric, value in metrics.items():
            if isinstance(
                value, (list, Mapping)
            ):  # a curve or a matrix, which the report's file shows
                continue
            low_high = intervals.get(metric)
            # Half an interval is not shown.
            interval = ""
            if low_high and None not in low_high:
                interval = f"{number(low_high[0])} – {number(low_high[1])}"
            table.add_row(
                metric,
                number(value),
                interval,
                number(classical_metrics.get(metric)),
                number(trivial_metrics.get(metric)),
            )
        yield table


def _slice_tables(report: Mapping[str, Any]) -> Iterator[Table | str]:
    """The slices that the recipe declares, and the worst of those that were found; the first few a target."""
    slices = report.get("slices") or []
    declared = [one for one in slices if one.get("declared")]
    worst = [one for one in slices if not one.get("declared")]
    # With one target its name before each slice would only be noise.
    is_of_several = len({one.get("target") for one in slices}) > 1
    for title, most, rows in (
        ("by slice", SLICES, declared),
        ("the worst slices found", FOUND, worst),
    ):
        if not rows:
            continue
        shown = _first_of_each_target(rows, most)
        table = _table(title, "slice", "rows", "metric", "here", "whole", right=(1, 3, 4))
        for one in shown:
            label = f"{one['target']}: " if is_of_several else ""
            table.add_row(
                f"{label}{one['column']} = {one['value']}",
                number(one["rows"]),
                one["metric"],
                number(one["value_of_metric"]),
                number(one["whole"]),
            )
        yield table
        if len(rows) > len(shown):
            yield f" and {len(rows) - len(shown)} more in the report\n"
    # Said only where rows were judged: an empty report has found nothing either way.
    if report.get("rows") and not worst:
        yield "No slice was found on which it is worse than on the rest beyond chance.\n"


def _first_of_each_target(
    slices: Sequence[Mapping[str, Any]], most: int
) -> list[Mapping[str, Any]]:
    shown: list[Mapping[str, Any]] = []
    counts: dict[Any, int] = {}
    for one in slices:
        counts[one.get("target")] = counts.get(one.get("target"), 0) + 1
        if counts[one.get("target")] <= most:
            shown.append(one)
    return shown


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
        lines.append("nothing was run: nothing it depends on has changed.")
    seconds = sum(outcome.seconds.values())
    lines.append(f"{seconds:.1f} s, peak memory {size(outcome.peak_memory_bytes)}")
    if outcome.bundle is not None:
        # A bundle lies two folders below its store: `bundles/<id>`.
        where = store or str(outcome.bundle.path.parent.parent)
        lines.append(
            f"next     penstock serve {outcome.bundle.reference} --store {where}"
        )
    return "\n".join([*parts, "", *lines])


def plan_screen(plan: Mapping[str, Any]) -> str:
    """The stages of a plan as a table: done or to run, why, and what is expected."""
    table = _table(f"plan of {plan['name']}", "stage", "", "why", "expects", right=())
    for stage in plan["stages"]:
        table.add_row(
            stage["stage"],
            "done" if stage["done"] else "run",
            stage["why"],
            _expected(stage["expects"]),
        )
    return _render(table, *plan.get("notes", []))


def _expected(expects: Mapping[str, Any]) -> str:
    parts = []
    for word, value in expects.items():
        # `about` lists which of the others are estimates.
        if word == "about":
            continue
        name, text = word.removesuffix("_bytes"), f"{value:,}"
        if "bytes" in word:
            text = size(value)
        elif word == "most_seconds":
            name, text = "time", f"{value:,.0f} s at most"
        parts.append(
            f"{name} {'about ' if word in expects.get('about', ()) else ''}{text}"
        )
    return ", ".join(parts)


def list_screen(shelf: str, rows: Sequence[Mapping[str, Any]], store: str) -> str:
    """The artefacts of a shelf as a table, and below it those that cannot be read."""
    problems = [
        f"! {row['reference']} cannot be read: {row['problem']}"
        for row in rows
        if "problem" in row
    ]
    rows = [row for row in rows if "problem" not in row]
    if not rows:
        return "\n".join(
            [
                f"no {shelf} in {store}" + (" that can be read" if problems else ""),
                *problems,
            ]
        )
    # The first row has the columns; one that holds only mappings does not fit a table.
    words = [w for w in rows[0] if any(not isinstance(r.get(w), Mapping) for r in rows)]
    table = _table(f"{shelf} in {store}", *words)
    table.columns[0].no_wrap = True  # a reference is there to be copied
    for row in rows:
        table.add_row(*(number(row.get(word)) for word in words))
    return "\n".join([_render(table, width=140), *problems])


def show_screen(facts: Mapping[str, Any]) -> str:
    """One artefact: its card if it has one, otherwise its facts as JSON."""
    if "card" in facts:
        return f"{facts['reference']}\n{facts['path']}\n\n{facts['card']}"
    # `default=str`: paths and times have no JSON form.
    return json.dumps(facts, indent=2, ensure_ascii=False, default=str)


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
