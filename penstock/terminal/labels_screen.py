"""The screen of `penstock labels`: how many labels are wrong, between which classes, and the worst rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.core.visible import visible
from penstock.core.wording import counted
from penstock.terminal.layout import paragraph, table

_PAIRS = 10
_LETTERS = 400


def labels_screen(facts: Mapping[str, Any], *, width: int) -> str:
    """What a search for wrong labels says.

    Args:
        facts: `LabelReport.to_dict()`.
        width: columns of the terminal.
    """
    lines = paragraph(visible(_head(facts)), width)
    for warning in facts["warnings"]:
        lines += paragraph(visible(warning), width, first="! ", rest="  ")
    if facts["estimate"] == "none":
        if facts["output"]:
            lines.append(f"{counted(facts['suspects'], 'suspect')} in {facts['output']}")
        return "\n".join(lines)
    if pairs := facts["pairs"]:
        shares = [
            (
                visible(pair["given"]),
                visible(pair["suggested"]),
                f"{pair['rows']:,}",
                f"{pair['share']:.2%}",
            )
            for pair in pairs[:_PAIRS]
        ]
        head = ("labelled", "rather", "rows, about", "of all")
        lines += ["", table(head, shares, width=width, right=(2, 3))]
        if len(pairs) > _PAIRS:
            lines.append(f"and {counted(len(pairs) - _PAIRS, 'pair')} more")
    if facts["top"]:
        heads = ("row", "labelled", "rather", "confidence", "values")
        suspects = [_suspect(row) for row in facts["top"]]
        lines += ["", table(heads, suspects, width=width, right=(3,))]
    if more := facts["suspects"] - len(facts["top"]):
        lines.append(f"and {counted(more, 'suspect')} more; -o FILE writes all")
    if facts["output"]:
        lines.append(f"{counted(facts['suspects'], 'suspect')} in {facts['output']}")
    return "\n".join(lines)


def _head(facts: Mapping[str, Any]) -> str:
    unlabelled = facts["unlabelled"]
    gone = f" ({unlabelled:,} without a label)" if unlabelled else ""
    about = (
        f"bout {facts['estimated_wrong']:,} ({facts['estimated_share']:.1%}) are wrong"
    )
    estimate = {
        "about": f"A{about}.",
        "at_most": f"At most a{about}, and fewer where the inputs leave the class open: look at the first"
        " ones before you change any.",
        "none": "How many are wrong cannot be said.",
    }[facts["estimate"]]
    return (
        f"{facts['source']}, {facts['target']}: {counted(facts['rows'], 'row')} of"
        f" {', '.join(facts['splits'])}{gone}; {counted(facts['suspects'], 'label')} suspect. The quick"
        f" model disagrees with {1 - facts['model']['agreement']:.1%} of the labels. {estimate}"
    )


def _suspect(row: Mapping[str, Any]) -> tuple[str, ...]:
    values = ", ".join(
        f"{name} {value}" for name, value in row["values"].items() if value is not None
    )
    short = values if len(values) <= _LETTERS else values[: _LETTERS - 1] + "…"
    return (
        visible(row["place"]) or row["row_id"][:12],
        visible(row["given"]),
        visible(row["suggested"]),
        f"{row['self_confidence']:.3f}",
        visible(short),
    )
