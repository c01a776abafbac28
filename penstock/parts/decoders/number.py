"""A number: learnt standardised, answered in the user's units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from penstock.contracts.learn import Decoder
from penstock.contracts.tensors import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class NumberDecoder(Decoder):
    """One number a row.

    Raw `[B]` in standard deviations from the mean; reads the target's `value [B]` and its facts `mean`,
    `std`.
    """

    metrics: ClassVar[tuple[str, ...]] = ("rmse", "mae", "r2", "mape", "mse")

    loss_: Literal["mse", "huber", "mae"] = Field("mse", alias="loss")
    """`mse` answers the mean, and suits the metrics people ask for; `mae` the median; `huber` is in between,
    for outliers.
    """
    delta: float = Field(1.0, gt=0)
    """For huber: where, in standard deviations, the loss turns from square to straight."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        value = spec.get("value")
        if value is None or value.role != "target" or value.shape != ():
            return (
                "number answers a target that is one number a row; this one has "
                + ", ".join(f"{name} {list(s.shape)}" for name, s in spec.items())
            )
        lacking = [fact for fact in ("mean", "std") if fact not in value.facts]
        return (
            f"number needs the fitted {' and '.join(lacking)} of the target, to answer in its units"
            if lacking
            else None
        )

    def build(self, spec: Mapping[str, TensorSpec], width: int) -> nn.Module:
        from penstock.nn.heads import LinearHead

        # The target is standardised, so its mean is 0.
        return LinearHead(width, None, bias=[0.0])

    def loss(
        self, raw: Tensor, target: Mapping[str, Tensor], spec: Mapping[str, TensorSpec]
    ) -> Tensor:
        from torch.nn import functional as F

        raw, value = raw.float(), target["value"].float()
        if self.loss_ == "mse":
            return F.mse_loss(raw, value, reduction="none")
        if self.loss_ == "mae":
            return F.l1_loss(raw, value, reduction="none")
        return F.huber_loss(raw, value, reduction="none", delta=self.delta)

    def answer(self, raw: Tensor, spec: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        facts = spec["value"].facts
        return {"value": raw.float() * float(facts["std"]) + float(facts["mean"])}
