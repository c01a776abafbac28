"""Weights from a file, and whether they are a network's own.

Whoever made an artefact can compute its checksums, so what a file of weights holds is compared with the
network before any of it is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from penstock.core.errors import PenstockError, StoreError

_SHOWN = 4


def read_tensors(
    path: Path, *, error: type[PenstockError] = StoreError
) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Raises:
        PenstockError: it is no such file; of the type `error`.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as refused:
        raise error(f"cannot read the weights in {path}: {refused}") from None
    return tensors


def differing(network: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that only one of the two has, or that are of another shape."""
    ours = {name: tensor.shape for name, tensor in network.state_dict().items()}
    return sorted(
        name
        for name in {*ours, *tensors}
        if name not in tensors or name not in ours or ours[name] != tensors[name].shape
    )


def some(names: list[str]) -> str:
    """The first of some names, as a sentence shows them."""
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


def take_weights(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    where: str,
    error: type[PenstockError] = StoreError,
) -> None:
    """Give a network these weights, all of them.

    Args:
        where: whose they are, as the sentence begins.

    Raises:
        PenstockError: they are another network's; of the type `error`.
    """
    # All names are compared first, so that a network has all of the weights or none.
    if others := differing(network, tensors):
        raise error(
            f"{where} are of another model: {len(others)} tensors differ ({some(others)}). They were not"
            " written for this recipe, or its code has changed since. Go back to that code, or train anew."
        )
    network.load_state_dict(dict(tensors))
