"""A loop written by hand, fed from tensors in memory, or by torch's DataLoader."""

from __future__ import annotations

from itertools import islice

from shared_training import (
    CLIP,
    Perceptron,
    adamw,
    by_hand,
    fitting,
    loss_of,
    rows_of,
    tensors,
)
from torch import nn

PACKAGES = ("torch",)


def memory(*, folder: str, data: str, batch: int, steps: int):
    x, y = tensors(data)
    return fitting(
        lambda clock: by_hand(
            Perceptron(), [x], y, batch=batch, steps=steps, clock=clock
        ),
        batch=batch,
        steps=steps,
    )


def dataloader(*, folder: str, data: str, batch: int, steps: int, whole: bool = False):
    x, y = tensors(data)

    def fit(clock) -> None:
        network, loader = Perceptron(), rows_of(x, y, batch, whole=whole)
        optimiser = adamw(network)
        clock.begin()
        for a, b in islice(loader, steps):
            optimiser.zero_grad(set_to_none=True)
            loss_of(network.logits(a), b).backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimiser.step()
        clock.end()

    return fitting(fit, batch=batch, steps=steps)
