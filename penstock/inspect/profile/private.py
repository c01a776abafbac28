"""A column's measures without private values: nothing of a person may stand in a profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.inspect.profile.suspicions import masked

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
