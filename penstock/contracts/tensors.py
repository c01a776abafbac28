"""TensorSpec: what a feature says of an array, and all that a model knows of it.

Shapes leave out the batch axis. Letters used across the house: B batch, T tokens or time, W width, F
features, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

MEMBER = "member"
"""Of a batch in training: which member of an ensemble each row is for, int64 `[B]`."""

Role = Literal["values", "index", "mask", "pixels", "target"]


@dataclass(frozen=True)
class TensorSpec:
    """One array of a batch."""

    dtype: str
    """A numpy name: `float32`, `int64`, `bool`, `uint8`."""
    shape: tuple[int | None, ...] = ()
    """Without the batch axis; None is a length that varies from batch to batch and is padded."""
    role: Role = "values"
    """`values`: standardised numbers; `index`: whole numbers below `cardinality`; `mask`: 1 where something
    is there; `pixels`: 0–255.
    """
    axes: tuple[str, ...] = ()
    """What each axis of `shape` means: `("time", "variable")`."""
    cardinality: int | None = None
    """For `index`: how many values there are; 0 is missing and 1 is unseen, where the feature has them."""
    facts: dict[str, Any] = field(default_factory=dict, hash=False)
    """Fitted facts that an encoder or decoder may use: `edges`, `classes`, `counts`, `mean`, `std`."""

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON holds it; `load` reads it back."""
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            "role": self.role,
            "axes": list(self.axes),
            "cardinality": self.cardinality,
            "facts": self.facts,
        }

    @classmethod
    def load(cls, data: dict[str, Any]) -> TensorSpec:
        """The spec that `to_dict` wrote. Raises KeyError or TypeError for fields that are not its own."""
        # JSON has lists where a spec has tuples, and specs are compared.
        return cls(**{**data, "shape": tuple(data["shape"]), "axes": tuple(data["axes"])})


FeatureSpecs = dict[str, dict[str, TensorSpec]]
"""Feature name → array name → spec. In a batch the array is called `<feature>.<array>`."""


def open_axes_alike(pieces: Sequence[np.ndarray], fill: float = 0) -> list[np.ndarray]:
    """Arrays of several batches `[n, …]` with open axes made equally long at their ends, so that they can be
    joined.
    """
    # The longest of each open axis; a fixed one is equal in all pieces.
    longest = tuple(
        max(sizes) for sizes in zip(*(piece.shape[1:] for piece in pieces), strict=True)
    )
    return [
        (
            piece
            if piece.shape[1:] == longest
            else np.pad(
                piece,
                [
                    (0, 0),
                    *(
                        (0, most - size)
                        for most, size in zip(longest, piece.shape[1:], strict=True)
                    ),
                ],
                constant_values=fill,
            )
        )
        for piece in pieces
    ]


def joined(pieces: Sequence[np.ndarray], fill: float = 0) -> np.ndarray:
    """Several batches' rows as one array, open axes padded with `fill`."""
    return (
        pieces[0] if len(pieces) == 1 else np.concatenate(open_axes_alike(pieces, fill))
    )
