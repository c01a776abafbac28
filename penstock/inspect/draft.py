"""Findings as a recipe: YAML that loads, with the reason for each choice beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.inspect.draft_layout import (
    left_of_series,
    series_inputs,
    series_target,
    split_lines,
    train_lines,
)
from penstock.inspect.findings import Findings
from penstock.inspect.raw_column import Finding
from penstock.inspect.series_steps import Forecast
from penstock.inspect.source_notes import looked_at
from penstock.inspect.wording import key, quoted
from penstock.recipe.identifiers import shelvable


def write_recipe(
    findings: Findings, *, source_declaration: Mapping[str, Any] | str, name: str
) -> str:
    """A commented recipe.

    Args:
        findings: of `look`.
        source_declaration: the recipe's `source`, as it is to be written.
        name: the recipe's name; characters that a name may not have become `-`.

    Returns:
        YAML that `load_recipe` reads without a mistake.
    """
    # A recipe's name may become the name of a folder.
    name = shelvable(name)
    sample = findings.sample
    look = looked_at(sample, findings.rows, findings.cut_from)
    lines = [
        (
            f"# Written by `penstock init` from a look at {look}. Each choice has its"
            " reason beside it: change what you know better."
        ),
        f"name: {key(name)}",
        f"source: {flow(source_declaration)}",
    ]
    lines += [f"# {note}" for note in findings.all_notes()]
    lines += ["", *split_lines(findings, source_declaration, flow)]
    forecast = findings.proposals.forecast
    lines += _features(findings) if forecast is None else _series(findings, forecast)
    lines += train_lines(findings, flow)
    if findings.expects and forecast is None:
        lines += [
            "",
            (
                "# The data contract: what the rows looked at keep to, numbers with a margin on either side."
                " Uncomment what must hold for every row; a row that breaks it is quarantined."
            ),
            "# expect:",
        ]
        lines += [
            f"#   {key(column)}: {promise}"
            for column, promise in findings.expects.items()
        ]
    return "\n".join(lines) + "\n"


def _features(findings: Findings) -> list[str]:
    """Inputs, what is left out, and the target: a row is a sample."""
    names = _Names()
    lines = [
        "",
        "inputs:"
        if findings.inputs
        else "inputs: {}  # LOOK: no column was left to learn from",
    ]
    lines += _aligned([(names.entry(f), f) for f in findings.inputs])
    lines += _left_out(findings.left_out)
    if findings.target is not None:
        target = findings.target
        lines += ["", "targets:"]
        lines += _aligned([(names.entry(target), target)])
    return lines


def _series(findings: Findings, forecast: Forecast) -> list[str]:
    """The same of rows that are steps."""
    lines = ["", "inputs:", *series_inputs(forecast, findings.columns, flow)]
    others = [
        Finding(f.column, None, f"a {f.type}, which the forecast does not read")
        for f in left_of_series(forecast, findings.columns)
    ]
    unknown = [f for f in findings.left_out if f.column not in forecast.known]
    lines += _left_out([*others, *unknown])
    return [*lines, "", "targets:", series_target(forecast, flow)]


def _left_out(columns: Sequence[Finding]) -> list[str]:
    if not columns:
        return []
    lines = ["", "# Left out:"]
    for f in columns:
        lines.append(f"#   {key(f.column)}: {'LOOK: ' if f.loud else ''}{f.why}")
        if f.hint:
            lines.append(f"#     could be used by  {f.hint}")
    return lines


class _Names:
    """Feature names: the column's own, unless it has characters that a feature's name may not have."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def entry(self, finding: Finding) -> str:
        # Characters that no feature's name may have.
        name = re.sub(r"[/<>]+", "_", finding.column) or "column"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        options = dict(finding.options)
        if name != finding.column:
            options["column"] = finding.column
        return f"{key(name)}: {flow({'type': finding.type, **options}) if options else finding.type}"


def _aligned(entries: Sequence[tuple[str, Finding]]) -> list[str]:
    # A long entry must not push every comment to the right.
    width = min(max((len(entry) for entry, _ in entries), default=0), 48)
    return [
        f"  {entry:{width}}  # {'LOOK: ' if finding.loud else ''}{finding.why}"
        for entry, finding in entries
    ]


def flow(value: Any) -> str:
    """Plain data as YAML on one line, read back as it is."""
    if isinstance(value, Mapping):
        return (
            "{" + ", ".join(f"{key(str(k))}: {flow(v)}" for k, v in value.items()) + "}"
        )
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        # YAML 1.1 takes 1e-05 for text, so it is written as text; a number's field
        # reads it.
        return repr(value) if "e" not in repr(value) else quoted(repr(value))
    if isinstance(value, int):
        return str(value)
    text = str(value)
    # A text that YAML would take for something else is quoted.
    return (
        text
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", text) and key(text) == text
        else quoted(text)
    )
