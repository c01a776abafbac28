"""Several labels at once: one logistic regression a label on what is known of the row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from penstock.contracts.learn import Decoder
from penstock.contracts.tensors import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class Set(Decoder):
    """Binary cross-entropy of every label, summed over the labels (a row's negative log-likelihood, so of the
    order of a category's loss). Reads `labels [B, K]` and, of its facts, `classes`, `counts` and `rows`
    (where the head starts) and `weights` (of the labels in the loss: the recipe's `train.class_weights`).
    Answers `probabilities [B, K]`.
    """

    metrics: ClassVar[tuple[str, ...]] = (
        "label_ranking_average_precision",
        "average_precision",
        "roc_auc",
        "f1_macro",
        "f1_micro",
        "subset_accuracy",
        "log_loss",
    )

    positive_weight: float | Literal["balanced"] = Field(1.0)
    """How much more a label that is there counts than one that is not; `balanced`: the root of how many rows
    lack the label for each that has it, 10 at most. It moves probabilities up: thresholds follow, a
    probability's meaning does not.
    """
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """The share of each label's truth that is spread over yes and no."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        labels = spec.get("labels")
        if (
            labels is None
            or labels.role != "target"
            or len(labels.shape) != 1
            or not labels.shape[0]
        ):
            return (
                "set answers a target with several labels a row; this one has "
                + ", ".join(f"{name} {list(s.shape)}" for name, s in spec.items())
            )
        if not isinstance(self.positive_weight, str) and not self.positive_weight > 0:
            return f"its positive_weight must be above 0; found {self.positive_weight:g}"
        return (
            None
            if labels.facts.get("classes")
            else "set needs the fitted labels of the target"
        )

    def build(self, spec: Mapping[str, TensorSpec], width: int) -> nn.Module:
        from penstock.nn.heads import LinearHead

        ratios = [(1 - p) / p for p in _shares(spec["labels"])]
        return LinearHead(
            width,
            len(ratios),
            # The head starts at each label's log-odds under the loss's weights, so that
            # no step is spent on the base rates.
            bias=[
                math.log(w / r)
                for w, r in zip(self._positive(spec["labels"]), ratios, strict=True)
            ],
        )

    def _positive(self, spec: TensorSpec) -> list[float]:
        if self.positive_weight == "balanced":
            return [min(max(((1 - p) / p) ** 0.5, 1.0), 10.0) for p in _shares(spec)]
        return [float(self.positive_weight)] * len(spec.facts["classes"])

    def loss(
        self, raw: Tensor, target: Mapping[str, Tensor], spec: Mapping[str, TensorSpec]
    ) -> Tensor:
        import torch
        from torch.nn import functional as F

        labels = target["labels"].float()
        if self.label_smoothing:
            # Half of the smoothed share goes to yes, half to no.
            labels = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        positive = (
            None
            if self.positive_weight == 1.0
            else torch.tensor(
                self._positive(spec["labels"]), dtype=torch.float32, device=raw.device
            )
        )
        losses = F.binary_cross_entropy_with_logits(
            raw.float(), labels, reduction="none", pos_weight=positive
        )
        if weights := spec["labels"].facts.get("weights"):
            losses = losses * torch.tensor(
                weights, dtype=torch.float32, device=raw.device
            )
        # Summed, as the row's negative log-likelihood is.
        return losses.sum(dim=1)

    def answer(self, raw: Tensor, spec: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        return {"probabilities": raw.float().sigmoid()}

    def merged(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        from penstock.nn.members import mean_log_odds

        return mean_log_odds(raws)

    def doubt(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        """As of a yes or no, of the label that members differ about most: 0 to 0.5."""
        from penstock.nn.members import spread

        return spread(raws.float().sigmoid()).amax(dim=-1)


def _shares(spec: TensorSpec) -> list[float]:
    """The share of the rows that have each label, never 0 or 1."""
    # Half a row is added on either side, so that no share is 0 or 1 and every log is
    # finite.
    rows = float(spec.facts.get("rows") or 0) + 1
    return [
        min((float(count) + 0.5) / rows, 1 - 0.5 / rows)
        for count in spec.facts.get("counts", [rows / 2] * len(spec.facts["classes"]))
    ]
