"""A forecast: every variable at every step of the horizon, at once (not step by step, so that errors do not
add up).

Behind the combiner `variables`, each variable is forecast from its own token, and gets its window's level and
scale back; behind any other, all are forecast from the one vector that it makes. With quantiles, the loss is
theirs (the pinball loss: Koenker and Bassett 1978), and the forecast is the median; they are sorted, so that
they never cross.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from penstock.contracts.learn import Decoder
from penstock.contracts.tensors import TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class SeriesDecoder(Decoder):
    """Numbers ahead.

    Raw `[B, H, V]` (with quantiles `[B, H, V, Q]`) in deviations from the mean; reads the target's `values`
    and `present`, both `[B, H, V]`, and its facts `mean`, `std`, `variables`, `quantiles`.
    """

    metrics: ClassVar[tuple[str, ...]] = (
        "mse_standardised",
        "mae_standardised",
        "mse",
        "mae",
        "smape",
        "mase",
        "pinball",
    )
    combiner: ClassVar[str] = "variables"

    loss_: Literal["mse", "mae", "huber"] | None = Field(None, alias="loss")
    """Of standardised values: `mse` (the usual one) forecasts the mean, `mae` the median, `huber` is in
    between. Not with quantiles.
    """
    delta: float = Field(1.0, gt=0)
    """For huber: where, in standard deviations, the loss turns from square to straight."""
    shared: bool = True
    """One map from a variable's token to its forecast for all variables, or each its own (for many steps and
    variables that differ).
    """

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        values = spec.get("values")
        if (
            values is None
            or values.role != "target"
            or values.axes != ("time", "variable")
            or "present" not in spec
        ):
            return (
                "series answers a target of steps and variables; this one has "
                + ", ".join(f"{name} {list(s.shape)}" for name, s in spec.items())
            )
        lacking = [fact for fact in ("mean", "std") if fact not in values.facts]
        if lacking:
            return f"series needs the fitted {' and '.join(lacking)} of the target, to answer in its units"
        if self.loss_ and values.facts.get("quantiles"):
            return f"the loss of quantiles is their own; leave `loss: {self.loss_}` out, or the quantiles"
        return None

    def build(self, spec: Mapping[str, TensorSpec], width: int) -> nn.Module:
        from penstock.nn.series import PooledForecast

        steps, variables = (int(n or 0) for n in spec["values"].shape)
        return PooledForecast(
            width, steps, variables, len(spec["values"].facts.get("quantiles") or ())
        )

    def build_on(self, spec: Mapping[str, TensorSpec], combiner: nn.Module) -> nn.Module:
        from penstock.nn.series import Apart, VariableForecast

        values = spec["values"]
        names = list(values.facts.get("variables") or ())
        # Only tokens of single variables can be forecast from; any other combiner gives
        # one vector.
        if not isinstance(combiner, Apart):
            return super().build_on(spec, combiner)
        known = combiner.variables
        if len(names) == len(known) == 1:
            places = [0]  # the only one, whatever it is called
        # A name that two inputs share does not say which window is meant.
        elif all(known.count(name) == 1 for name in names):
            places = [known.index(name) for name in names]
        else:
            return super().build_on(spec, combiner)
        std = [float(s) for s in values.facts["std"]]
        # Inputs and targets are standardised each by its own fit, so a window's level
        # and scale are converted.
        shift = [
            (combiner.mean[place] - float(mean)) / s
            for place, mean, s in zip(places, values.facts["mean"], std, strict=True)
        ]
        stretch = [combiner.std[place] / s for place, s in zip(places, std, strict=True)]
        quantiles = len(values.facts.get("quantiles") or ())
        return VariableForecast(
            int(combiner.width),
            int(values.shape[0] or 0),
            quantiles,
            places,
            shared=self.shared,
            shift=shift,
            stretch=stretch,
        )

    def loss(
        self, raw: Tensor, target: Mapping[str, Tensor], spec: Mapping[str, TensorSpec]
    ) -> Tensor:
        import torch
        from torch.nn import functional as F

        raw, values, present = (
            raw.float(),
            target["values"].float(),
            target["present"].float(),
        )
        if levels := spec["values"].facts.get("quantiles"):
            under = values.unsqueeze(-1) - raw
            level = torch.tensor(levels, dtype=torch.float32, device=raw.device)
            # Doubled, so that the median's loss is the absolute error.
            losses = torch.maximum(level * under, (level - 1) * under).mean(dim=-1) * 2
        elif self.loss_ == "mae":
            losses = F.l1_loss(raw, values, reduction="none")
        elif self.loss_ == "huber":
            losses = F.huber_loss(raw, values, reduction="none", delta=self.delta)
        else:
            losses = F.mse_loss(raw, values, reduction="none")
        # A step that was not observed has no loss; a row without any counts 0.
        return (losses * present).sum(dim=(1, 2)) / present.sum(dim=(1, 2)).clamp_min(1.0)

    def merged(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        raws = raws.float()
        # The mean of each quantile, not of whatever stands in its place before sorting.
        if spec["values"].facts.get("quantiles"):
            raws = raws.sort(dim=-1).values
        return raws.mean(dim=1)

    def doubt(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        """The standard deviation over members in standard deviations of the variable, its mean over steps,
        variables and quantiles.
        """
        if spec["values"].facts.get("quantiles"):
            raws = raws.float().sort(dim=-1).values
        return super().doubt(raws, spec)

    def answer(self, raw: Tensor, spec: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        import torch

        facts = spec["values"].facts
        mean, std = (
            torch.tensor(facts[word], dtype=torch.float32, device=raw.device)
            for word in ("mean", "std")
        )
        raw = raw.float()
        levels = list(facts.get("quantiles") or ())
        if not levels:
            return {"values": raw * std + mean}
        # Sorted, so that quantiles never cross.
        ordered = raw.sort(dim=-1).values * std[:, None] + mean[:, None]
        return {"values": ordered[..., levels.index(0.5)], "quantiles": ordered}
