"""Accelerate: a loop of one's own around what its Accelerator has prepared."""

from __future__ import annotations

from itertools import islice

from shared_training import CLIP, Perceptron, adamw, fitting, loss_of, rows_of, tensors

PACKAGES = ("accelerate", "torch")


def fit(*, folder: str, data: str, batch: int, steps: int):
    from accelerate import Accelerator

    x, y = tensors(data)
    accelerator = Accelerator(cpu=True)

    def train(clock) -> None:
        bare = Perceptron()
        network, optimiser, loader = accelerator.prepare(
            bare, adamw(bare), rows_of(x, y, batch, whole=False)
        )
        network.train()
        clock.begin()
        for a, b in islice(loader, steps):
            optimiser.zero_grad()
            accelerator.backward(loss_of(network.logits(a), b))
            accelerator.clip_grad_norm_(network.parameters(), CLIP)
            optimiser.step()
        clock.end()
        accelerator.free_memory()

    return fitting(train, batch=batch, steps=steps)
