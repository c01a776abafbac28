"""A column's measures without private values: nothing of a person may stand in a profile."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from penstock.inspect.profile.records import Remark, worst_first
from penstock.inspect.profile.suspicions import masked
from penstock.inspect.wording import key

_COUNTED = frozenset(
    "missing blank empty mojibake invisible control markup spaces name unreadable drift".split()
)
"""Kinds of findings that count rows and show no value."""
_TOLD = {
    "leak": "gives the target away; how is not shown, since it is declared private",
    "personal": "holds personal data; it is declared private",
}
_VALUES = ("min", "max", "mean", "std", "quantiles", "histogram", "outliers")


def covered(facts: Mapping[str, Any], *, is_private: bool) -> dict[str, Any]:
    """The facts of a column with texts that reach a person masked.

    Args:
        facts: of `Measures.columns`.
        is_private: whether the whole column is: then no value of it is shown at all.
    """
    shown = {
        word: value
        for word, value in facts.items()
        if not (is_private and word in _VALUES)
    }
    shown["private"] = is_private
    if "top" in shown:
        shown["top"] = (
            [] if is_private else [[masked(text), n] for text, n in shown["top"]]
        )
    if "splits" in shown:
        shown["splits"] = {
            split: {
                k: v
                for k, v in covered(mine, is_private=is_private).items()
                if k != "private"
            }
            for split, mine in shown["splits"].items()
        }
    return shown


def without_values(remarks: Sequence[Remark], declared: Collection[str]) -> list[Remark]:
    """Findings without the values of columns that a recipe declares private, the worst first.

    Args:
        remarks: of all columns.
        declared: the names of those columns.
    """
    shown = []
    once: set[tuple[str, str]] = set()
    for remark in remarks:
        if remark.column not in declared or remark.kind in _COUNTED:
            shown.append(remark)
        elif remark.kind in _TOLD and (remark.kind, remark.column) not in once:
            once.add((remark.kind, remark.column))
            shown.append(
                Remark(
                    remark.severity,
                    remark.kind,
                    remark.column,
                    _TOLD[remark.kind],
                    {},
                    f"leave {key(remark.column)} out of `inputs`",
                )
            )
    return worst_first(shown)
