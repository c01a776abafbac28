"""What the encoders of token sequences share: which features they can read, and how ids and numbers become
vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock.contracts.tensors import TensorSpec

if TYPE_CHECKING:
    from torch import nn


def unreadable(word: str, spec: Mapping[str, TensorSpec]) -> str | None:
    """None for `tokens [B, T]` (index) with `mask [B, T]`, and perhaps `grams [B, G]`; or for `values [B, T,
    V]` with `mask`; otherwise why not.
    """
    tokens, mask, values = spec.get("tokens"), spec.get("mask"), spec.get("values")
    if (
        values is not None
        and values.role == "values"
        and len(values.shape) == 2
        and values.shape[0] is None
        and values.shape[1]
        and set(spec) == {"values", "mask"}
    ):
        return None
    if (
        tokens is None
        or tokens.role != "index"
        or len(tokens.shape) != 1
        or not tokens.cardinality
        or mask is None
        or set(spec) - {"tokens", "mask", "grams"}
    ):
        return f"{word} encodes a sequence of tokens; this feature has " + ", ".join(
            f"{name} {list(s.shape)}" for name, s in spec.items()
        )
    return None


def table(arrays: Mapping[str, TensorSpec], width: int, **options: Any) -> nn.Module:
    """The module that makes a feature's steps vectors: a table for ids, a linear map for numbers."""
    from penstock.nn.sequences import NumberSteps, WordTable

    if "values" in arrays:
        return NumberSteps(
            int(arrays["values"].shape[1] or 1), width, dropout=options["dropout"]
        )
    name = "members" if "members" in arrays else "tokens"
    # At least 2 rows: padding and unknown.
    return WordTable(int(arrays[name].cardinality or 2), width, array=name, **options)
