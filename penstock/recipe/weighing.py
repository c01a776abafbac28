"""What `on_violation: weight` of a cleaner asks of the rest of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.contracts.data import Cleaner
from penstock.contracts.judge import Judge
from penstock.core.errors import Problem


def weighs(clean: Sequence[Cleaner]) -> bool:
    """Whether a cleaner changes the recipe's `weight`."""
    return any(isinstance(c, Judge) and c.on_violation == "weight" for c in clean)


def weighing_problems(clean: Sequence[Cleaner], weight: str | None) -> list[Problem]:
    """Every cleaner that weighs rows, where the recipe has no column of weights."""
    if weight is not None:
        return []
    text = (
        "is `weight`, and the recipe has no column of weights. Say one, such as  derive: {w: '1.0'}  and"
        "  weight: w"
    )
    return [
        Problem(("clean", i, "on_violation"), text)
        for i, cleaner in enumerate(clean)
        if isinstance(cleaner, Judge) and cleaner.on_violation == "weight"
    ]
