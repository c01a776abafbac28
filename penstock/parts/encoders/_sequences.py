"""What the encoders of token sequences share: which features they can read."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.contracts.tensors import TensorSpec


def unreadable(word: str, spec: Mapping[str, TensorSpec]) -> str | None:
    """None for `tokens [B, T]` (index) with `mask [B, T]`, and perhaps `grams [B, G]`; otherwise why not."""
    tokens, mask = spec.get("tokens"), spec.get("mask")
    if tokens is None or tokens.role != "index" or len(tokens.shape) != 1 or not tokens.cardinality or mask is None or set(spec) - {"tokens", "mask", "grams"}:
        return f"{word} encodes a sequence of tokens; this feature has " + ", ".join(f"{name} {list(s.shape)}" for name, s in spec.items())
    return None
