"""What stands at which place of an aligned sequence: a convolution with a map of its own for each place.

It is the default for sequences and texts of characters that have one length in every row of the training
split and a small alphabet; elsewhere a recipe may name it. `penstock.nn.places` says how it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from penstock.contracts.learn import Encoder
from penstock.contracts.part import mistakes
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.core.errors import Problem

if TYPE_CHECKING:
    from torch import nn


class PlacesEncoder(Encoder):
    """A convolution over letters, each place with weights of its own, and the maximum over time beside it.

    Reads `tokens [B, T]` and `mask [B, T]`.
    """

    width: int | None = Field(None, ge=1)
    """Of the tokens and of what is pooled; what the combiner asks for, or 128 where any will do."""
    channels: int = Field(48, ge=4)
    """Of the convolution."""
    kernel: int = Field(5, ge=1)
    """Its width in steps, an odd number."""
    ends: Literal["first", "both"] = "first"
    """Places are counted from the first step, or from both ends, for rows of different lengths."""
    strands: Literal["one", "both"] = "one"
    """`both` reads DNA and RNA also as the reverse complement, and the clearer of the two counts."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Of what is known of each place, in training."""
    forget: float = Field(0.01, ge=0, lt=1)
    """In training, the chance that a token is taken for unknown, so that the unknown is learnt."""

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise mistakes(
                Problem(
                    (), f"must be odd, so that a step is in its middle; found {kernel}"
                )
            )
        return kernel

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        tokens = spec.get("tokens")
        if (
            tokens is None
            or tokens.role != "index"
            or not tokens.cardinality
            or set(spec) != {"tokens", "mask"}
            or not tokens.facts.get("length")
        ):
            return "places encodes a sequence of tokens; this feature has " + ", ".join(
                f"{name} {list(s.shape)}" for name, s in spec.items()
            )
        if self.strands == "both" and not tokens.facts.get("complement"):
            return (
                "places with `strands: both` reads a sequence of the letters of DNA or RNA alone"
                " (A, C, G, T or U, and N)"
            )
        return None

    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        from penstock.nn import places

        ((name, arrays),) = features.items()
        tokens = arrays["tokens"]
        return places.PlacesEncoder(
            name,
            int(tokens.cardinality or 2),
            int(tokens.facts["length"]),
            self.width or width or 128,
            channels=self.channels,
            kernel=self.kernel,
            dropout=self.dropout,
            forget=self.forget,
            from_end=self.ends == "both",
            complement=tokens.facts["complement"] if self.strands == "both" else None,
        )
