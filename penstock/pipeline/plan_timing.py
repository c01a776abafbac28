"""What a training step costs, measured by taking a few on real rows."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.contracts.learn import World
from penstock.contracts.tensors import MEMBER
from penstock.encode.encoding import Encoding
from penstock.recipe.schema import Recipe

if TYPE_CHECKING:
    import torch

_SECONDS = 1.0
"""How long steps are taken for, about."""
_FEWEST, _MOST = 3, 50


@dataclass(frozen=True)
class Measured:
    """The measurements of a few training steps."""

    parameters: int
    memory_bytes: int
    step_seconds: float
    of_one: Measured | None = None
    """Of an ensemble, what one network of its kind would take."""


def measure_steps(
    recipe: Recipe, encoding: Encoding, rows: pa.Table, *, batch_rows: int
) -> Measured:
    """Build the network and take a few steps, on the device and in the precision of the training.

    Args:
        rows: raw rows, repeated until they fill a batch, so that texts are as long as texts are. Where
            samples are made of many rows (series), or no row can be encoded, a batch of chance stands in.
    """
    import torch

    from penstock.model import (
        build_network,
        decoders_of,
        ensemble_of,
        parameter_count,
        separate_members,
    )
    from penstock.train.parallel import Precision, device_of

    of_one = (
        measure_steps(_of_one(recipe), encoding, rows, batch_rows=batch_rows)
        if ensemble_of(recipe) is not None
        else None
    )
    members = separate_members(recipe)
    batch_rows *= members or 1
    network = build_network(recipe, encoding, seed=recipe.seed)
    device = device_of(World())
    network.to(device)
    batch = {
        name: values.to(device)
        for name, values in _batch(recipe, encoding, rows, batch_rows).items()
    }
    if members is not None:
        batch[MEMBER] = torch.arange(batch_rows, device=device) % members
    targets = encoding.specs("targets")
    phases = recipe.train.objective.phases(decoders_of(recipe, encoding), targets)
    # Stands in for any optimiser: only time and memory are measured.
    optimiser = torch.optim.AdamW(network.parameters())
    precision = Precision(recipe.train.precision, device)

    def step() -> None:
        for phase in phases:
            optimiser.zero_grad()
            with precision.lowered():
                loss = phase.loss(network, batch).mean()
            loss.backward()
            optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    seconds = _timed(step)
    parameters = parameter_count(network)
    batch_bytes = sum(tensor.numel() * tensor.element_size() for tensor in batch.values())
    # 16 bytes a parameter: float32 weight, gradient and the two moments of AdamW.
    # Activations are guessed: 64 times the batch.
    # Members that share weights keep their own activations behind the encoders.
    copies = getattr(ensemble_of(recipe), "members", 1) if members is None else 1
    memory_bytes = parameters * 16 + 64 * batch_bytes * copies
    return Measured(parameters, memory_bytes, seconds, of_one)


def _of_one(recipe: Recipe) -> Recipe:
    """The recipe of one network in the place of an ensemble."""
    model = recipe.model.model_copy(update={"ensemble": None})
    return recipe.model_copy(update={"model": model})


def _timed(step: Any) -> float:
    """Return the seconds of a step: the median of several, after one that warms up."""
    import torch

    threads = torch.get_num_threads()
    # Threads of torch that wait for each other can make a small model ten times slower;
    # a training measures how many pay, and one is where it begins.
    torch.set_num_threads(1)
    try:
        step()
        laps: list[float] = []
        while len(laps) < _FEWEST or (sum(laps) < _SECONDS and len(laps) < _MOST):
            start = time.perf_counter()
            step()
            laps.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return float(np.median(laps))


def _batch(
    recipe: Recipe, encoding: Encoding, rows: pa.Table, batch_rows: int
) -> dict[str, torch.Tensor]:
    import torch

    from penstock.model import fake_batch

    weight = {"weight": torch.ones(batch_rows)}
    if recipe.samples is None:
        # Rows that a feature refuses are not trained on.
        accepted = encoding.accept(rows, targets=True).usable()
        if accepted.rows:
            stored = encoding.encode(accepted)
            places = np.arange(batch_rows) % accepted.rows
            taken = {name: values[places] for name, values in stored.items()}
            arrays = encoding.collate(taken)
            return {
                **{
                    name: torch.from_numpy(np.ascontiguousarray(values))
                    for name, values in arrays.items()
                },
                **weight,
            }
    return {
        **fake_batch(encoding.specs("inputs"), batch_rows),
        **fake_batch(encoding.specs("targets"), batch_rows),
        **weight,
    }
