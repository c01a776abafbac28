"""A user's own feature: a binary that wants to be sure."""

from typing import Any, ClassVar

from penstock.contracts.features import DecidingFeature
from penstock.parts.features.binary import Binary


class Careful(Binary, DecidingFeature):
    at_least: float = 0.9
    decoder: ClassVar[str] = "binary"

    def decide(
        self, answers: Any, truth: Any, weight: Any, fitted: Any
    ) -> dict[str, Any]:
        assert len(answers["probability"]) == len(truth) > 0 and weight is None
        return {"threshold": self.at_least, "rows": len(truth)}
