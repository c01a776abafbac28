"""A class for each step of an input: softmax over classes on what is known of the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from penstock.contracts.learn import Decoder
from penstock.contracts.tensors import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class Sequence(Decoder):
    """Cross-entropy of each step, averaged over a row's steps.

    Reads `labels [B, T]` and `mask [B, T]` and, of the labels' facts, `classes`, `counts`, `over` (the input
    whose steps are labelled: the model gives its tokens, each with what is known of the whole row) and
    `weights`. Answers `probabilities [B, T, K]`, all 0 at a step that is not there.
    """

    metrics: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "f1_macro",
        "f1_micro",
        "f1_weighted",
        "log_loss",
    )

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """The share of each label that is spread over all classes (Szegedy et al. 2016)."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        labels = spec.get("labels")
        if (
            labels is None
            or labels.role != "target"
            or labels.shape != (None,)
            or "mask" not in spec
        ):
            return (
                "sequence answers a target that has a class for each step; this one has "
                + ", ".join(f"{name} {list(s.shape)}" for name, s in spec.items())
            )
        return (
            None
            if labels.facts.get("classes")
            else "sequence needs the fitted classes of the target"
        )

    def build(self, spec: Mapping[str, TensorSpec], width: int) -> nn.Module:
        from penstock.nn.heads import StepHead

        facts = spec["labels"].facts
        weights = facts.get("weights") or [1.0] * len(facts["classes"])
        mass = [
            # A floor, since a class without weight has no log.
            max(float(c) * float(w), 1e-6)
            for c, w in zip(facts.get("counts", weights), weights, strict=True)
        ]
        return StepHead(width, bias=[math.log(m / sum(mass)) for m in mass])

    def loss(
        self, raw: Tensor, target: Mapping[str, Tensor], spec: Mapping[str, TensorSpec]
    ) -> Tensor:
        import torch
        from torch.nn import functional as F

        # Steps beyond the input's `length` have no logits, so they cannot be learnt.
        steps = min(raw.shape[1], target["labels"].shape[1])
        raw, labels = raw[:, :steps].float(), target["labels"][:, :steps]
        # The last component of `raw` is positive where the model has a step.
        there = target["mask"][:, :steps].bool() & (raw[..., -1] > 0)
        losses = F.cross_entropy(
            raw[..., :-1].transpose(1, 2),
            labels,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        if weights := spec["labels"].facts.get("weights"):
            losses = (
                losses
                * torch.tensor(weights, dtype=torch.float32, device=raw.device)[labels]
            )
        # A row without a step that can be learnt has the loss 0.
        return (losses * there).sum(1) / there.sum(1).clamp(min=1)

    def answer(self, raw: Tensor, spec: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        raw = raw.float()
        return {
            "probabilities": raw[..., :-1].softmax(dim=-1)
            * (raw[..., -1:] > 0).to(raw.dtype)
        }

    def merged(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        import torch

        from penstock.nn.members import mean_logits

        # Which steps are there is the same for all members.
        return torch.cat(
            [mean_logits(raws[..., :-1]), raws[:, 0, :, -1:].float()], dim=-1
        )

    def doubt(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        """As of a category, its mean over the steps that are there: 0 to 1 - 1/N."""
        from penstock.nn.members import spread

        there = (raws[:, 0, :, -1] > 0).float()
        apart = spread(raws[..., :-1].float().softmax(dim=-1)).sum(dim=-1) / 2
        return (apart * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)
