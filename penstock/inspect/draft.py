"""Findings as a recipe: YAML that loads, with the reason for each choice beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.inspect.findings import Findings
from penstock.inspect.raw_column import Finding
from penstock.inspect.wording import key, quoted, shown

STRATIFY_BELOW = 50_000
"""Rows of the sample; in more, chance alone keeps the classes' shares."""


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
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "unnamed"
    cut = (
        f" (not {findings.cut_from:,}, since they are wide)" if findings.cut_from else ""
    )
    lines = [
        (
            f"# Written by `penstock init` from a look at {findings.rows:,} rows{cut}. Each choice has its"
            " reason beside it: change what you know better."
        ),
        f"name: {key(name)}",
        f"source: {flow(source_declaration)}",
    ]
    lines += [f"# {note}" for note in findings.notes]
    lines += ["", *_split(findings, source_declaration)]
    names = _Names()
    lines += [
        "",
        "inputs:"
        if findings.inputs
        else "inputs: {}  # LOOK: no column was left to learn from",
    ]
    lines += _aligned([(names.entry(f), f) for f in findings.inputs])
    if findings.left_out:
        lines += ["", "# Left out:"]
        for f in findings.left_out:
            lines.append(f"#   {key(f.column)}: {'LOOK: ' if f.loud else ''}{f.why}")
            if f.hint:
                lines.append(f"#     could be used by  {f.hint}")
    if findings.target is not None:
        lines += [
            "",
            "targets:",
            *_aligned([(names.entry(findings.target), findings.target)]),
        ]
    if findings.expects:
        lines += [
            "",
            (
                "# The data contract: what the rows looked at keep to. Uncomment what must hold for every"
                " row; a row that breaks it is quarantined."
            ),
            "# expect:",
        ]
        lines += [
            f"#   {key(column)}: {promise}"
            for column, promise in findings.expects.items()
        ]
    return "\n".join(lines) + "\n"


def _split(findings: Findings, source: Mapping[str, Any] | str) -> list[str]:
    lines = []
    if isinstance(source, Mapping) and source.get("train"):
        given = [w for w in ("validation", "test") if source.get(w)]
        lines.append(
            "split: {by: files"
            + ("" if "validation" in given else ", validation: 0.1")
            + "}  # the files decide"
            + ("" if "validation" in given else "; validation is taken out of train")
        )
    else:
        target = findings.target
        # 0 where the target is a number.
        smallest = min(findings.classes.values(), default=0)
        # With fewer than ten rows, a class could miss a split whatever is done.
        if (
            target is not None
            and findings.classes
            and findings.rows < STRATIFY_BELOW
            and smallest >= 10
        ):
            lines.append(
                f"split: {{stratify: {key(target.column)}, train: 0.8, validation: 0.1, test: 0.1}}  # by a"
                " seeded hash of the row; each class keeps its share in every split"
            )
        else:
            lines.append(
                "split: {train: 0.8, validation: 0.1, test: 0.1}  # by a seeded hash of the row, so a row"
                " keeps its side when the data grows"
            )
    # The first moment only: one suggestion is read, a list is not.
    for f in findings.columns:
        if f.type == "timestamp":
            lines.append(
                "# If the model is to answer for the future, split by time instead:  split: {by: time, on:"
                f" {key(f.column)}}}"
            )
            break
    for f in findings.columns:
        if f.role == "code":
            lines.append(
                f"# If rows with one {shown(f.column)} belong together, keep them on one side:  split: {{on:"
                f" {key(f.column)}}}"
            )
            break
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
