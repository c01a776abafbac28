"""Writes an evaluation as Markdown, in words and tables. Pure: data in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.core.visible import prose
from penstock.core.wording import counted, duration
from penstock.evaluate.compare import figure, tiny
from penstock.evaluate.sentences import (
    classical_name,
    explanations,
    left_out,
    rows_of,
    story,
)

_LONGEST_MATRIX = 12


def report_markdown(result: Mapping[str, Any]) -> str:
    """Return the whole report as Markdown: sentences first, then tables, then what each metric means."""
    split = result["split"]
    tale = story(result)
    text = ["# Evaluation", ""]
    text += [f"- {prose(line)}" for line in tale.lead]
    for title, lines in (
        ("What to beware of", [*tale.beware, *_overlap(result)]),
        ("What to try next", tale.next),
    ):
        if lines:
            text += ["", f"## {title}", "", *(f"- {prose(line)}" for line in lines)]
    for target, metrics in result["metrics"][split].items():
        text += ["", f"## {prose(target)}", ""]
        text += [f"{counted(result['rows'], 'row')} of {rows_of(split)}.", ""]
        text += _markdown(_metric_rows(result, target, metrics))
        for line in left_out(metrics):
            text += ["", prose(line)]
        text += _rivals(result, target)
        text += _matrix(result, target, metrics)
    slices = result["slices"]
    for title, some in (
        ("Slices asked for", [s for s in slices if s["declared"]]),
        ("The worst slices found", [s for s in slices if not s["declared"]]),
    ):
        if some:
            text += ["", f"## {title}", "", *_markdown(_slice_rows(some))]
    if result.get("sampled_rows"):
        text += [
            "",
            (
                "Intervals, slices and the classical model use a uniform sample of"
                f" {result['sampled_rows']:,} rows."
            ),
        ]
    if phrases := explanations(result):
        text += ["", "## What the metrics mean", ""]
        text += [f"- {prose(name)}: {prose(phrase)}." for name, phrase in phrases]
    return "\n".join(text) + "\n"


def _overlap(result: Mapping[str, Any]) -> list[str]:
    """Say how many rows of the test split are also in train, where a dataset came with both."""
    overlap = result.get("overlap") or {}
    rows = overlap.get("test")
    if not rows:
        return []
    are = "is" if rows == 1 else "are"
    return [
        f"{counted(rows, 'row')} of the given test split {are} also in train; the split was left as given."
    ]


def _rivals(result: Mapping[str, Any], target: str) -> list[str]:
    """Say what the trivial and the classical answer are."""
    text: list[str] = []
    if result["trivial"].get(target):
        text += ["", f"Trivial: {prose(result['trivial'][target])}."]
    classical = result.get("classical") or {}
    tried = (classical.get("tried") or {}).get(target)
    if tried:
        text += _tried(classical, tried)
    elif _of_classical(result).get(target):
        rows, seconds = counted(classical["rows"], "training row"), classical["seconds"]
        name = _capital(classical_name(result, target))
        text.append(f"{name}: {rows}, {duration(seconds)}, untuned.")
    # What the classical models left out stands beside their figures.
    if classical.get("said"):
        text += ["", f"Classical models: {prose(classical['said'])}."]
    return text


def _tried(classical: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """List the classical models of a target: what each learnt from, and its figures."""
    metric = tried[0]["metric"]
    total, budget = classical["of_rows"], classical["budget_seconds"]
    chosen = any(one["validation"] is not None for one in tried)
    how = (
        "the best on the validation split is the one above"
        if chosen
        else "there is no validation split to choose by, so the first is the one above"
    )
    # A figure that has no value on these rows has no column.
    columns = [
        (side, title)
        for side, title in (("validation", f"{metric}, validation"), ("judged", metric))
        if any(one[side] is not None for one in tried)
    ]
    rows = [
        ["classical model", "training rows", "time", *(title for _, title in columns)]
    ]
    for one in tried:
        learnt = f"{one['rows']:,} of {total:,}" if one["rows"] else "–"
        figures = [_figure(one[side], metric) for side, _ in columns]
        rows.append([one["model"], learnt, duration(one["seconds"]), *figures])
    several = f" Of {counted(len(tried), 'model')} {how}." if len(tried) > 1 else ""
    return [
        "",
        f"Classical models are untuned, and have {duration(budget)} of a core altogether"
        f" (`evaluate.baseline_budget`).{several}",
        "",
        *_markdown(rows),
    ]


def _metric_rows(
    result: Mapping[str, Any], target: str, metrics: Mapping[str, Any]
) -> list[list[str]]:
    intervals, baseline = (
        (result.get(w) or {}).get(target) or {} for w in ("intervals", "baseline")
    )
    classical = _of_classical(result).get(target) or {}
    head = [
        "metric",
        "model",
        *([f"{result['confidence']:.0%} interval"] if intervals else []),
        *(["trivial"] if baseline else []),
        *([classical_name(result, target)] if classical else []),
    ]
    rows = [head]
    for name, value in metrics.items():
        # Lists and matrices have no place in a table of single figures.
        if value is None or isinstance(value, (list, Mapping)):
            continue
        low_high = intervals.get(name)
        row = [name, _figure(value, name)]
        if intervals:
            row.append(
                " – ".join(_figure(end, name) for end in low_high) if low_high else "–"
            )
        rows.append(
            [
                *row,
                *([_figure(baseline.get(name), name)] if baseline else []),
                *([_figure(classical.get(name), name)] if classical else []),
            ]
        )
    return rows


def _slice_rows(slices: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    # With one target its name would repeat in every line.
    several = len({s["target"] for s in slices}) > 1
    return [
        [*(["target"] if several else []), "slice", "rows", "metric", "here", "whole"]
    ] + [
        [
            *([s["target"]] if several else []),
            f"{s['column']} = {s['value']}",
            f"{s['rows']:,}",
            s["metric"],
            _figure(s["value_of_metric"], s["metric"]),
            _figure(s["whole"], s["metric"]),
        ]
        for s in slices
    ]


def _matrix(
    result: Mapping[str, Any], target: str, metrics: Mapping[str, Any]
) -> list[str]:
    matrix = metrics.get("confusion_matrix")
    # A wider matrix does not fit on a page; the JSON report has it.
    if not matrix or len(matrix) > _LONGEST_MATRIX:
        return []
    names = result["classes"].get(target) or [str(i) for i in range(len(matrix))]
    return [
        "",
        "Rows by true class (down) and answered class (across):",
        "",
        *_markdown(
            [
                ["", *names],
                *(
                    [n, *(_figure(v) for v in row)]
                    for n, row in zip(names, matrix, strict=True)
                ),
            ]
        ),
    ]


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(prose(str(c)).replace("|", "\\|") for c in cells) + " |"

    return [line(rows[0]), "|" + "---|" * len(rows[0]), *map(line, rows[1:])]


def _of_classical(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return by target the classical model's metrics; earlier reports have them among
    its facts.
    """
    classical = result.get("classical") or {}
    metrics: Mapping[str, Any] = classical.get("metrics", classical)
    return metrics


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _figure(value: Any, metric: str = "") -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return tiny(metric, value) or figure(value)
