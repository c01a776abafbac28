"""What `check --data` and `quarantine` show in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.core.visible import visible
from penstock.core.wording import counted
from penstock.terminal.layout import screen_width, table

_SHOWN = 60
"""Characters of a value that a table shows."""


def contract_screen(facts: Mapping[str, Any], *, width: int | None = None) -> str:
    """Show every rule with what breaks it, the broken ones first, and examples.

    Args:
        facts: of a `ContractReport`.
    """
    rules: Sequence[Mapping[str, Any]] = facts["rules"]
    head = f"{counted(facts['rows'], 'row')} judged at {facts['at']}"
    if not rules:
        return f"{head}. The recipe has no rule: neither `expect` nor `expect_table`."
    order = sorted(rules, key=lambda rule: -_weight(rule))
    cells = [
        [
            visible(rule["column"]) or "(table)",
            visible(rule["rule"]),
            rule["on_violation"],
            f"{rule['rows']:,}" if "rows" in rule else "",
            _state(rule),
        ]
        for rule in order
    ]
    lines = [
        table(
            ["column", "rule", "on violation", "rows", ""],
            cells,
            width=width or screen_width(100),
            right={3},
            title=head,
        )
    ]
    for rule in order:
        sentences = [*rule.get("examples", ())]
        sentences += [rule["found"]] if rule.get("broken") and "found" in rule else []
        if sentences:
            name = f"{visible(rule['column'])}: " if rule["column"] else ""
            lines += ["", f"{name}{visible(rule['rule'])}"]
            lines += [f"  {visible(text)}" for text in sentences]
    broken = sum(not rule["within"] for rule in rules)
    end = (
        "The contract holds: a preparation would go on."
        if not broken
        else f"The contract does not hold: {counted(broken, 'rule')} would stop a preparation."
    )
    return "\n".join([*lines, "", end])


def _weight(rule: Mapping[str, Any]) -> int:
    """What is worst comes first."""
    stops = 0 if rule["within"] else 1 << 62
    return int(stops + rule.get("rows", int(rule.get("broken", False))))


def _state(rule: Mapping[str, Any]) -> str:
    if not rule["within"]:
        return "stops the run"
    is_broken = rule.get("broken", False) or rule.get("rows", 0) > 0
    return "broken" if is_broken else "holds"


def quarantine_screen(
    rows: Sequence[Mapping[str, Any]], reference: str, *, width: int | None = None
) -> str:
    """Show rows of a quarantine, each with every rule that it breaks."""
    if not rows:
        return f"{reference} has no such row in quarantine."
    cells = [
        [
            visible(row["file"] or ""),
            "" if row["line"] is None else f"{row['line']:,}",
            ", ".join(
                visible(f"{rule['column'] or ''} {rule['rule']}".strip())
                for rule in row["rules"]
            ),
            visible((row["reason"] or "")[:_SHOWN]),
            visible((row["row"] or "")[:_SHOWN]),
        ]
        for row in rows
    ]
    head = ["file", "line", "breaks", "reason", "row"]
    width = width or screen_width(100)
    return table(head, cells, width=width, right={1}, title=reference)


def statistics_screen(facts: Mapping[str, Any], *, width: int | None = None) -> str:
    """Show the rows of a quarantine by rule, by column and by file."""
    head = f"{facts['dataset']}: {counted(facts['rows'], 'row')} in quarantine"
    if not facts["rows"]:
        return head
    width = width or screen_width(100)
    parts = [head]
    for word, names in (
        ("rules", ("stage", "column", "rule")),
        ("columns", ("column",)),
        ("files", ("file",)),
    ):
        cells = [
            [*(visible(str(entry[name])) for name in names), f"{entry['rows']:,}"]
            for entry in facts[word]
        ]
        parts.append(table([*names, "rows"], cells, width=width, right={len(names)}))
    return "\n\n".join(parts)
