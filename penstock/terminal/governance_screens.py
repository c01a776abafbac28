"""The screens of the audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.core.wording import counted
from penstock.terminal.layout import screen_width, table

_OWN = frozenset(
    "log number time user host act reference before nonce hash earlier_entries".split()
)


def audit_screen(rows: Sequence[Mapping[str, Any]], reference: str | None) -> str:
    """The entries of an audit log, oldest first."""
    if not rows:
        return f"The audit log has nothing{f' of {reference}' if reference else ''}."
    head = ["", "when (UTC)", "who", "did", "to", "with"]
    cells = [
        [
            str(row["number"]),
            str(row.get("time", "?")).replace("T", " ").removesuffix("Z"),
            f"{row.get('user', '?')}@{row.get('host', '?')}",
            str(row.get("act", "?")),
            str(row.get("reference", "?")),
            ", ".join(
                _fact(word, value) for word, value in row.items() if word not in _OWN
            ),
        ]
        for row in rows
    ]
    return table(head, cells, width=screen_width(140), right=[0])


def _fact(word: str, value: Any) -> str:
    shown = f"{value:,}" if isinstance(value, int) else str(value)
    return f"{word} {shown}"


def check_screen(facts: Mapping[str, Any]) -> str:
    """Whether an audit log is whole."""
    lines = [f"! {problem}" for problem in facts["problems"]]
    if not lines:
        lines = [
            f"The audit log is whole: {counted(facts['entries'], 'entry', 'entries')}."
        ]
    if "earlier_entries" in facts:
        lines.append(
            f"It begins anew: this machine wrote {facts['earlier_entries']:,} entries of an earlier log of"
            " this store, which was made anew since, or whose log was taken away."
        )
    return "\n".join(lines)
