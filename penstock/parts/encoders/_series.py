"""What the encoders of series share that needs no torch: which features they read."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.contracts.tensors import TensorSpec


def unreadable(word: str, spec: Mapping[str, TensorSpec]) -> str | None:
    """Why the encoder called `word` cannot read a feature, or None if it is a series of fixed length."""
    values, mask = spec.get("values"), spec.get("mask")
    if (
        values is None
        or mask is None
        or values.role != "values"
        or values.axes != ("time", "variable")
    ):
        return (
            f"{word} reads a series: the array `values` [time, variable] with its `mask`; this feature has "
            + ", ".join(f"{name} {list(s.shape)}" for name, s in spec.items())
        )
    return (
        f"{word} needs windows of one length; this feature's vary"
        if None in values.shape
        else None
    )
