"""What a profile says: the findings of `look`, and what was counted over all rows, as records.

Every sentence that `init` writes into a recipe (why a column is left out, what wants a look) is a record
here, word for word; beside them stand those that only all rows can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.inspect.draft import flow
from penstock.inspect.findings import Findings
from penstock.inspect.profile.column_remarks import column_remarks
from penstock.inspect.profile.measure import Measures
from penstock.inspect.profile.pairs import correlated
from penstock.inspect.profile.records import Remark, worst_first
from penstock.inspect.profile.table_remarks import (
    balance,
    equal_rows,
    first_rows,
    split_drift,
)
from penstock.inspect.raw_column import Finding, Look
from penstock.inspect.source_notes import duplicate_note
from penstock.inspect.wording import key

_LOOK = "LOOK: "
_ROLES = {
    "leak": ("error", "leak"),
    "personal": ("error", "personal"),
    "constant": ("warning", "constant"),
    "duplicate": ("warning", "same"),
    "name": ("warning", "path"),
    "identifier": ("note", "identifier"),
}
"""By role of a column that is left out: how bad that is, and its kind."""
_PAIRS = 20


def remarks(
    findings: Findings,
    measures: Measures,
    columns: Sequence[Mapping[str, Any]],
    looks: Mapping[str, Look],
    rows: Mapping[str, Any] | None,
) -> list[Remark]:
    """All of them, the worst first.

    Args:
        findings: of `look`, over the sample.
        measures: of all rows.
        columns: `measures.columns()`.
        rows: `measures.equal_rows()`.
        looks: each column of the sample.
    """
    judged = {f.column: f for f in findings.columns}
    if findings.target is not None:
        judged[findings.target.column] = findings.target
    records = [
        *_of_rows(findings),
        *equal_rows(rows, counted=findings.sample.duplicates is not None),
        *balance(findings),
        *first_rows(findings),
    ]
    for facts in columns:
        name = facts["name"]
        finding = judged.get(name)
        if finding is not None:
            records += _of_look(finding, findings)
        records += column_remarks(facts, finding, measures, looks[name])
        records += split_drift(facts)
    records += _pairs(findings, looks)
    return worst_first(records)


def _of_rows(findings: Findings) -> Iterator[Remark]:
    """What `init` writes about the source and its rows as a whole."""
    equal = duplicate_note(findings.sample)
    for note in findings.all_notes():
        severity = "warning" if note.startswith(_LOOK) else "note"
        sentence = note.removeprefix(_LOOK)
        if note == equal:
            evidence = {"rows": findings.sample.duplicates}
            yield Remark(
                severity, "duplicates", "", sentence, evidence, "clean: [deduplicate]"
            )
        else:
            yield Remark(severity, "source", "", sentence)


def _of_look(finding: Finding, findings: Findings) -> Iterator[Remark]:
    """What `init` says of one column, where there is anything to mind."""
    name = finding.column
    if finding.type is None:
        severity, kind = _ROLES.get(finding.role, ("note", "left out"))
        if kind == "constant" and finding.why.startswith("missing in every row"):
            kind = "empty"
        recipe = f"leave {key(name)} out of `inputs`"
        yield Remark(severity, kind, name, finding.why, {}, finding.hint or recipe)
        return
    is_target = findings.target is not None and findings.target.column == name
    section = "targets" if is_target else "inputs"
    entry = {"type": finding.type, **finding.options} if finding.options else finding.type
    if finding.loud:
        recipe = f"{section}: {{{key(name)}: {flow(entry)}}}"
        yield Remark("warning", "look", name, finding.why, {}, recipe)


def _pairs(findings: Findings, looks: Mapping[str, Look]) -> Iterator[Remark]:
    chosen = [(looks[f.column], f) for f in findings.inputs]
    for pair in correlated(chosen)[:_PAIRS]:
        a, b = pair["a"], pair["b"]
        yield Remark(
            "note",
            "correlated",
            b,
            f"goes with {key(a)}: {pair['measure']} {pair['value']:.2f} in the rows looked at",
            pair,
            f"one of {key(a)} and {key(b)} may be left out of `inputs`",
        )
