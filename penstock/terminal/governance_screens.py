"""The screens of the audit log, and of rows that are forgotten."""

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


def forget_screen(facts: Mapping[str, Any]) -> str:
    """What would be forgotten, or was."""
    done, lines = facts["done"], []
    for version in facts["versions"]:
        rows = ", ".join(
            f"{count:,} {split}" for split, count in version["rows"].items() if count
        )
        if version["quarantined"]:
            rows += f"{', ' if rows else ''}{version['quarantined']:,} in quarantine"
        lines += [
            f"{version['dataset']}  {'destroyed' if done else 'would be destroyed'}",
            f"  without the rows   {version['child']}",
            f"  rows               {rows}",
        ]
        heads = {
            "feeds_destroyed": "feeds",
            "bundles_destroyed": "bundles with values of the rows",
            "reports_destroyed": "reports with values of the rows",
        }
        for word, head in heads.items():
            if version[word]:
                lines.append(f"  destroyed as well  {head}: {', '.join(version[word])}")
        left = [
            bundle
            for bundle in version["bundles_that_saw_them"]
            if bundle not in version["bundles_destroyed"]
        ]
        if left:
            whose = "its" if len(left) == 1 else "their"
            lines.append(
                f"  to be withdrawn    {', '.join(left)}: {whose} weights learnt from the rows"
            )
        if version["runs_that_saw_them"]:
            lines.append(
                f"  runs that saw them {', '.join(version['runs_that_saw_them'])}"
            )
    if not facts["versions"]:
        lines.append("No dataset of the store has such rows.")
    for each in facts["not_matched"]:
        may = ". Rows of the same person may be in it" if each["hidden"] else ""
        lines.append(
            f"! {each['dataset']} was not matched: {each['why'].rstrip('.')}{may}"
        )
    if "report" in facts:
        by = facts["signature"]["by"]
        lines.append(f"report  {facts['report']}.md and .json, signed by {by}")
    for outcome in facts.get("retrained", ()):
        lines.append(
            f"retrained from step 0  {outcome.get('run')}, {outcome.get('bundle')}"
        )
    return "\n".join(lines)
