"""One of several classes: a probability for each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from penstock.contracts.learn import Decoder
from penstock.contracts.tensors import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class CategoryDecoder(Decoder):
    """One of K classes.

    Raw logits `[B, K]`; reads the target's `index [B]`, its fact `classes`, and if there `counts` (rows by
    class: where the head starts) and `weights` (of the classes in the loss: the recipe's
    `train.class_weights`).
    """

    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "f1_macro",
        "f1_micro",
        "f1_weighted",
        "log_loss",
        "ece",
        "roc_auc",
    )

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """The share of each label that is spread over all classes (Szegedy et al. 2016)."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        index = spec.get("index")
        if index is None or index.role != "target" or index.shape != ():
            return (
                "category answers a target that is one class a row; this one has "
                + ", ".join(f"{name} {list(s.shape)}" for name, s in spec.items())
            )
        return (
            None
            if index.facts.get("classes")
            else "category needs the fitted classes of the target"
        )

    def build(self, spec: Mapping[str, TensorSpec], width: int) -> nn.Module:
        from penstock.nn.heads import LinearHead

        facts = spec["index"].facts
        classes = len(facts["classes"])
        weights = facts.get("weights") or [1.0] * classes
        mass = [
            # A floor, since a class without weight has no log.
            max(float(c) * float(w), 1e-6)
            for c, w in zip(facts.get("counts", [1] * classes), weights, strict=True)
        ]
        # The head starts at the log of the classes' shares, so that no step is spent on
        # the base rates.
        return LinearHead(width, classes, bias=[math.log(m / sum(mass)) for m in mass])

    def loss(
        self, raw: Tensor, target: Mapping[str, Tensor], spec: Mapping[str, TensorSpec]
    ) -> Tensor:
        import torch
        from torch.nn import functional as F

        index = target["index"]
        # In float32, whatever precision the network ran in.
        losses = F.cross_entropy(
            raw.float(), index, reduction="none", label_smoothing=self.label_smoothing
        )
        if weights := spec["index"].facts.get("weights"):
            losses = (
                losses
                * torch.tensor(weights, dtype=torch.float32, device=raw.device)[index]
            )
        return losses

    def answer(self, raw: Tensor, spec: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        return {"probabilities": raw.float().softmax(dim=-1)}

    def merged(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        from penstock.nn.members import mean_logits

        return mean_logits(raws)

    def doubt(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        """The share of the probability that a member gives to other classes than the mean does, on average
        over members (total variation): 0 to 1 - 1/N.
        """
        from penstock.nn.members import spread

        return spread(raws.float().softmax(dim=-1)).sum(dim=-1) / 2
