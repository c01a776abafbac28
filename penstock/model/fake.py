"""Batches of chance that hold to specs: to try a model out, to trace it for export, to warm it up."""

from __future__ import annotations

import torch
from torch import Tensor

from penstock.contracts.tensors import FeatureSpecs, TensorSpec


def fake_batch(
    specs: FeatureSpecs, rows: int, *, seed: int = 0, length: int = 5
) -> dict[str, Tensor]:
    """A batch of chance that holds to `specs`, by `<feature>.<array>`; same seed, same batch.

    Args:
        specs: inputs, targets or both.
        rows: B.
        seed: of the chance.
        length: what open axes get.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{name}.{array}": _fake(
            spec, (rows, *(length if n is None else n for n in spec.shape)), generator
        )
        for name, arrays in specs.items()
        for array, spec in arrays.items()
    }


def _fake(spec: TensorSpec, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    dtype = getattr(torch, spec.dtype)
    classes = spec.facts.get("classes")
    # Whole numbers stay below what an embedding or a mask takes: one more is an index error in the model.
    limit = spec.cardinality or (len(classes) if classes else None)
    limit = limit or {"mask": 2, "pixels": 256}.get(spec.role)
    if limit is None and dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(limit or 2, shape, generator=generator).to(dtype)
