"""The screen of an evaluation: sentences first, then the figures in tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.core.wording import counted
from penstock.evaluate.compare import tiny
from penstock.evaluate.sentences import (
    classical_name,
    explanations,
    left_out,
    rows_of,
    story,
)
from penstock.terminal.figures import number
from penstock.terminal.layout import paragraph, screen_width, table

SLICES = 8
"""Slices asked for that are shown, a target; the report's file has all of them."""
FOUND = 5
"""Worst slices that are shown, a target."""


def report_screen(report: Mapping[str, Any], *, explain: bool = False) -> str:
    """How good the model is, in sentences; its metrics beside the baselines; the slices.

    Args:
        explain: end with what each metric means.
    """
    width = screen_width()
    # Reports of an early version, and those of tests, name no split.
    split = report.get("split") or next(iter(report.get("metrics") or {}), "test")
    whole = {"classes": {}, "rows": 0, **report, "split": split}
    tale = story(whole)
    parts = ["\n".join(line for text in tale.lead for line in paragraph(text, width))]
    for title, texts in (
        ("What to beware of", [*tale.beware, *_overlap(report)]),
        ("What to try next", tale.next),
    ):
        if texts:
            parts.append("\n".join([title, *_listed(texts, width)]))
    parts += _metric_tables(whole, width)
    parts += _slice_tables(whole, width)
    if explain:
        phrases = [f"{name}: {phrase}." for name, phrase in explanations(whole)]
        parts.append("\n".join(["What the metrics mean", *_listed(phrases, width)]))
    return "\n\n".join(part for part in parts if part)


def _listed(texts: Sequence[str], width: int) -> list[str]:
    return [
        line for text in texts for line in paragraph(text, width, first="- ", rest="  ")
    ]


def _overlap(report: Mapping[str, Any]) -> list[str]:
    overlap = (report.get("overlap") or {}).get("test")
    if not overlap:
        return []
    are = "is" if overlap == 1 else "are"
    return [
        f"{counted(overlap, 'row')} of the given test split {are} also in train; the split was left as given."
    ]


def _metric_tables(report: Mapping[str, Any], width: int) -> Iterator[str]:
    """One table a target."""
    classical = report.get("classical") or {}
    by_target = classical.get(
        "metrics", classical
    )  # earlier reports had them among the facts
    split = report["split"]
    for target, metrics in (report.get("metrics") or {}).get(split, {}).items():
        intervals = (report.get("intervals") or {}).get(target) or {}
        rivals = (by_target.get(target) or {}, (report.get("baseline") or {}).get(target))
        shown = [bool(intervals), *map(bool, rivals)]
        rows = [
            _kept(
                [
                    metric,
                    _figure(metric, value),
                    _interval(metric, intervals.get(metric)),
                    *(_figure(metric, (rival or {}).get(metric)) for rival in rivals),
                ],
                shown,
            )
            for metric, value in metrics.items()
            # A curve or a matrix is for the report's file; what has no value is told below.
            if value is not None and not isinstance(value, (list, Mapping))
        ]
        head = [
            "metric",
            "model",
            "interval",
            classical_name(report, target),
            "trivial",
        ]
        title = f"{target} on {rows_of(split)} ({counted(report['rows'], 'row')})"
        lines = [
            table(_kept(head, shown), rows, width=width, right=(1, 2, 3, 4), title=title),
            *(line for text in left_out(metrics) for line in paragraph(text, width)),
        ]
        yield "\n".join(lines)


def _kept(cells: list[str], shown: Sequence[bool]) -> list[str]:
    """The first two cells, and those of the columns that have anything to show."""
    return [
        *cells[:2],
        *(cell for cell, is_shown in zip(cells[2:], shown, strict=True) if is_shown),
    ]


def _figure(metric: str, value: Any) -> str:
    return tiny(metric, value) or number(value)


def _interval(metric: str, low_high: Sequence[float | None] | None) -> str:
    # Half an interval is not shown.
    if not low_high or None in low_high:
        return ""
    # One word, so that it is never broken over two lines.
    return f"{_figure(metric, low_high[0])}–{_figure(metric, low_high[1])}"


def _slice_tables(report: Mapping[str, Any], width: int) -> Iterator[str]:
    """The slices that the recipe declares, and the worst of those that were found; the first few a target."""
    slices = report.get("slices") or []
    declared = [one for one in slices if one.get("declared")]
    worst = [one for one in slices if not one.get("declared")]
    # With one target its name before each slice would only be noise.
    is_of_several = len({one.get("target") for one in slices}) > 1
    for title, most, some in (
        ("By slice", SLICES, declared),
        ("The worst slices found", FOUND, worst),
    ):
        if not some:
            continue
        shown = _first_of_each_target(some, most)
        rows = [
            [
                (f"{one['target']}: " if is_of_several else "")
                + f"{one['column']} = {one['value']}",
                number(one["rows"]),
                one["metric"],
                _figure(one["metric"], one["value_of_metric"]),
                _figure(one["metric"], one["whole"]),
            ]
            for one in shown
        ]
        head = ["slice", "rows", "metric", "here", "whole"]
        text = table(head, rows, width=width, right=(1, 3, 4), title=title)
        rest = len(some) - len(shown)
        yield text + (f"\nand {rest} more in the report" if rest else "")
    # Said only where rows were judged: an empty report has found nothing either way.
    if report.get("rows") and not worst:
        yield "\n".join(
            paragraph(
                "No subgroup was found where the model is significantly worse.", width
            )
        )


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
