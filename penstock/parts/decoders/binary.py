"""Yes or no: the probability of the positive class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from penstock.contracts.learn import Decoder
from penstock.contracts.tensors import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class BinaryDecoder(Decoder):
    """One of two classes.

    Raw `[B]` is a log-odds; reads the target's `label [B]` (0 or 1) and, if there, its facts `counts` (rows
    by class: where the head starts) and `weights` (of the classes in the loss: the recipe's
    `train.class_weights`).
    """

    metrics: ClassVar[tuple[str, ...]] = (
        "roc_auc",
        "average_precision",
        "accuracy",
        "f1",
        "precision",
        "recall",
        "log_loss",
        "ece",
    )

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """The share of each label that is spread over both classes."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        label = spec.get("label")
        if label is None or label.role != "target" or label.shape != ():
            return "binary answers a target with two classes; this one has " + ", ".join(
                f"{name} {list(s.shape)}" for name, s in spec.items()
            )
        return None

    def build(self, spec: Mapping[str, TensorSpec], width: int) -> nn.Module:
        from penstock.nn.heads import LinearHead

        facts = spec["label"].facts
        weights = facts.get("weights") or (1.0, 1.0)
        negative, positive = (
            # A floor, since a class without weight has no log.
            max(float(c) * float(w), 1e-6)
            for c, w in zip(facts.get("counts", (1, 1)), weights, strict=True)
        )
        # The head starts at the base rate's log-odds.
        return LinearHead(width, None, bias=[math.log(positive / negative)])

    def loss(
        self, raw: Tensor, target: Mapping[str, Tensor], spec: Mapping[str, TensorSpec]
    ) -> Tensor:
        from torch.nn import functional as F

        label = target["label"].float()
        smooth = (
            label * (1 - self.label_smoothing) + self.label_smoothing / 2
            if self.label_smoothing
            else label
        )
        losses = F.binary_cross_entropy_with_logits(raw.float(), smooth, reduction="none")
        if weights := spec["label"].facts.get("weights"):
            # By the true label, not the smoothed one: `weights[0]` for 0, `weights[1]`
            # for 1.
            losses = losses * (
                float(weights[0]) + label * (float(weights[1]) - float(weights[0]))
            )
        return losses

    def answer(self, raw: Tensor, spec: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        return {"probability": raw.float().sigmoid()}

    def merged(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        from penstock.nn.members import mean_log_odds

        return mean_log_odds(raws)

    def doubt(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        """How far the members' probabilities lie from their mean, on average: 0 to 0.5."""
        from penstock.nn.members import spread

        return spread(raws.float().sigmoid())
