"""The screens of `penstock profile` and `penstock diff`: short, the worst first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.core.visible import visible
from penstock.core.wording import counted
from penstock.terminal.layout import bars, paragraph, table

_MARKS = {"error": "✗", "warning": "!", "note": "·"}
_FINDINGS = 20
_COLUMNS = 40
_BARS = 12
_SHOWN = 24
_RECURS = 0.02
"""The share of rows that the commonest texts have, above which they are shown."""


def profile_screen(facts: Mapping[str, Any], *, width: int) -> str:
    """A profile: what is wrong, the worst first, and a line a column.

    Args:
        facts: `Profile.to_dict()`.
        width: columns of the terminal.
    """
    columns, findings = facts["columns"], facts["findings"]
    lines = [*paragraph(visible(_head(facts)), width), ""]
    for finding in findings[:_FINDINGS]:
        lines += _finding(finding, width)
    if not findings:
        lines.append("Nothing to mind was found.")
    if len(findings) > _FINDINGS:
        lines.append(f"and {len(findings) - _FINDINGS:,} more; --html or --json has all")
    head = ("column", "type", "as", "missing", "distinct", "values", "")
    rows = [_column(column) for column in columns[:_COLUMNS]]
    lines += ["", table(head, rows, width=width, right=(3, 4))]
    if len(columns) > _COLUMNS:
        lines.append(f"and {counted(len(columns) - _COLUMNS, 'column')} more")
    return "\n".join(lines)


def _head(facts: Mapping[str, Any]) -> str:
    splits = ", ".join(f"{split} {rows:,}" for split, rows in facts["splits"].items())
    rejected = facts["rejected"]
    parts = [
        f"{facts['source']}: {counted(facts['rows'], 'row')}, {counted(len(facts['columns']), 'column')}",
        splits,
        f"{rejected:,} could not be read" if rejected else "",
        f"target {facts['target']}" if facts["target"] else "",
    ]
    return "; ".join(part for part in parts if part)


def _finding(finding: Mapping[str, Any], width: int) -> list[str]:
    column = f"{finding['column']}: " if finding["column"] else ""
    mark = _MARKS[finding["severity"]]
    lines = paragraph(
        visible(f"{column}{finding['sentence']}"), width, first=f"{mark} ", rest="  "
    )
    if finding["recipe"]:
        lines += paragraph(
            visible(finding["recipe"]), width, first="    → ", rest="      "
        )
    return lines


def _column(column: Mapping[str, Any]) -> tuple[str, ...]:
    gone, rows = column["missing"], column["rows"]
    distinct = column.get("distinct")
    about = "" if column.get("distinct_exact", True) else "≈"
    return (
        visible(column["name"]),
        column["type"],
        column["feature"] or "–",
        f"{gone / rows:.1%}" if gone else "",
        "" if distinct is None else f"{about}{distinct:,}",
        _values(column),
        _curve(column),
    )


def _values(column: Mapping[str, Any]) -> str:
    if column["private"]:
        return "(personal)"
    if column["measured_as"] == "number" and column.get("min") is not None:
        return f"{_number(column['min'])} to {_number(column['max'])}"
    # Of texts that hardly recur their lengths say more.
    common = sum(rows for _, rows in column.get("top") or ())
    if common > _RECURS * (column["rows"] - column["missing"]):
        text, rows = column["top"][0]
        return visible(f"{text[:_SHOWN]} ({rows / max(column['rows'], 1):.0%})")
    if "length" in column:
        return f"{column['length']['min']} to {column['length']['max']} characters"
    if column.get("sizes"):
        return str(column["sizes"][0][0])
    if "items" in column:
        return f"{column['items']['min']} to {column['items']['max']} items"
    return ""


def _number(value: float) -> str:
    """Whole ones with commas, others with six digits."""
    is_whole = value == int(value) and abs(value) < 1e12
    return f"{value:,.0f}" if is_whole else f"{value:.6g}"


def _curve(column: Mapping[str, Any]) -> str:
    histogram = column.get("histogram")
    if not histogram or not any(histogram["rows"]):
        return ""
    return bars(histogram["rows"], width=_BARS, height=1)[0]


def diff_screen(facts: Mapping[str, Any], *, width: int) -> str:
    """Two profiles held against each other, what drifted most first.

    Args:
        facts: of `inspect.profile.compare`.
        width: columns of the terminal.
    """
    before, after = facts["rows"]
    lines = paragraph(
        visible(f"{facts['a']} ({before:,} rows) → {facts['b']} ({after:,} rows)"), width
    )
    for word, names in facts["columns"].items():
        if names:
            texts = (
                [f"{name} ({a} → {b})" for name, (a, b) in names.items()]
                if isinstance(names, Mapping)
                else names
            )
            lines += paragraph(
                visible(f"columns {word}: {', '.join(texts)}"), width, rest="  "
            )
    if "keyed" in facts:
        keyed = facts["keyed"]
        lines.append(
            f"rows by {', '.join(keyed['key'])}: {keyed['added']:,} added, {keyed['removed']:,} removed,"
            f" {keyed['changed']:,} changed, {keyed['same']:,} the same"
        )
    if facts["changed"]:
        rows = [_moved(each) for each in facts["changed"][:_COLUMNS]]
        lines += [
            "",
            table(("column", "drift", "what moved"), rows, width=width, right=(1,)),
        ]
    for word, mark in (("new", "+"), ("gone", "−")):
        for sentence in facts["findings"][word][:_FINDINGS]:
            lines += paragraph(visible(sentence), width, first=f"{mark} ", rest="  ")
    if len(lines) == 1:
        lines.append("No difference was found.")
    return "\n".join(lines)


def _moved(each: Mapping[str, Any]) -> tuple[str, str, str]:
    parts = []
    for word, value in each.items():
        if word in ("column", "drift"):
            continue
        if word == "new_values":
            parts.append(f"new: {', '.join(value[:3])}")
        else:
            parts.append(f"{word} {_figure(value[0])} → {_figure(value[1])}")
    drift = "" if each["drift"] is None else f"{each['drift']:.2f}"
    return visible(each["column"]), drift, visible("; ".join(parts))


def _figure(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else "–"
