"""One rate throughout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from penstock.contracts.optim import Schedule


class Constant(Schedule):
    """After the warm-up the declared rate, to the end."""

    others: ClassVar[Mapping[str, str]] = {
        "floor": "plateau",
        "factor": "plateau",
        "patience": "plateau",
    }

    def after_warmup(self, step: int, total: int) -> float:
        return 1.0
