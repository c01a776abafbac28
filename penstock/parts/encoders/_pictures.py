"""What the encoders of pictures ask of a feature's arrays."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.contracts.tensors import TensorSpec


def not_pictures(who: str, spec: Mapping[str, TensorSpec]) -> str | None:
    """Why `who` cannot read a feature with these arrays; None if it is pictures."""
    pixels = spec.get("pixels")
    if (
        pixels is None
        or pixels.role != "pixels"
        or len(pixels.shape) != 3
        or None in pixels.shape
        or set(spec) - {"pixels", "missing"}
    ):
        return f"{who} encodes pictures of one size; this feature has " + ", ".join(
            f"{name} {list(s.shape)}" for name, s in spec.items()
        )
    return None
