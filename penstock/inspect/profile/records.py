"""`Remark`: one thing that a profile found, as a record for people and for machines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

SEVERITIES = ("error", "warning", "note")
"""The worst first: what spoils a model or reaches a person; what wants a look; what is good to know."""


@dataclass(frozen=True)
class Remark:
    """One finding."""

    severity: str
    """One of `SEVERITIES`."""
    kind: str
    """Such as `leak`, `duplicates`, `markers`: the same for the same kind of finding in every profile."""
    column: str
    """Empty where it is of the table as a whole."""
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)
    """What was counted, of JSON's types; no private value."""
    recipe: str = ""
    """What to write in the recipe; empty where there is nothing to write."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "column": self.column,
            "sentence": self.sentence,
            "evidence": self.evidence,
            "recipe": self.recipe,
        }


def worst_first(remarks: Iterable[Remark]) -> list[Remark]:
    """Sorted by severity, otherwise in the order in which they came."""
    return sorted(remarks, key=lambda remark: SEVERITIES.index(remark.severity))
