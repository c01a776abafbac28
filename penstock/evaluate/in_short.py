"""The verdict on a target in one sentence for everybody, beside the one with figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOST = 3
"""Inputs that are named."""
_CASES = (
    ("cannot be judged", ""),
    ("too few rows to compare by", "there are too few rows to say how good it is"),
    (
        "no signal was found",
        "it is not of use yet: one and the same answer for all rows is as good",
    ),
    ("misses a signal", "do not use it: a quick classical model finds what it misses"),
    (
        "the signal is weak",
        "it knows a little, hardly more than one and the same answer for all rows",
    ),
    (
        "is clearly better than the network",
        "it is of use, but a quick classical model answers better",
    ),
    (
        "It is also clearly better than",
        "it is of use, and better than a quick classical model",
    ),
    (
        "It is not clearly better than",
        "it is of use; a quick classical model does as well, within chance",
    ),
    (
        "the network is clearly better than",
        "it is of use; no classical model was there to compare with",
    ),
    ("is clearly worse than", "do not use it: an answer that needs no model is better"),
)
"""What a line of the verdict says, the first that fits, and what that means."""


def in_short(verdict: str, giveaways: Mapping[str, Any]) -> str:
    """Return what a line of the verdict means, as a sentence; empty where it compares with nothing.

    Args:
        giveaways: by target, the inputs that alone give its near-perfect score.
    """
    target, _, _ = verdict.partition(": ")
    if inputs := giveaways.get(target):
        columns = ", ".join(str(each["column"]) for each in inputs[:_MOST])
        which = "which alone gives" if len(inputs) == 1 else "each of which alone gives"
        return (
            f"In short, for {target}: do not trust it before you have looked at {columns}, {which} the"
            " answer away."
        )
    for words, meaning in _CASES:
        if words in verdict:
            return f"In short, for {target}: {meaning}." if meaning else ""
    return ""
