"""What moves weights, put together: parameters in groups for the declared optimiser, the moving average.

Optimisers and schedules themselves are parts (`penstock.contracts.optim`). A schedule is a pure function of
the step, so a checkpoint keeps nothing of it, but for what follows the validation loss (`RateScale`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from penstock.recipe.schema import Train


def total_steps(train: Train, steps_an_epoch: int) -> int:
    """The optimiser steps that the recipe asks for (early stopping may end sooner)."""
    steps = train.epochs * steps_an_epoch
    return steps if train.max_steps is None else min(steps, train.max_steps)


def decay_groups(
    model: nn.Module, parameters: Iterable[nn.Parameter], weight_decay: float
) -> list[dict[str, Any]]:
    """The parameters in groups, order kept: with decay; without (biases, norms, embeddings, and what calls
    itself so by a true attribute `no_decay`); each again by its share of the rate (the attribute `lr_scale`,
    1 unless there), which the group keeps.
    """
    # By identity, since a parameter does not know its module.
    bare: set[int] = set()
    for module in model.modules():
        if (
            # By the name of the class, so that norms of the user's own count as well.
            isinstance(module, (nn.Embedding, nn.EmbeddingBag))
            or "norm" in type(module).__name__.lower()
        ):
            # Its own parameters alone; modules inside it are looked at for themselves.
            bare |= {id(p) for p in module.parameters(recurse=False)}
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter in parameters:
        is_free = (
            parameter.ndim <= 1
            or id(parameter) in bare
            or bool(getattr(parameter, "no_decay", False))
        )
        groups.setdefault(
            (is_free, float(getattr(parameter, "lr_scale", 1.0))), []
        ).append(parameter)
    ordered = sorted(groups.items(), key=lambda entry: (entry[0][0], -entry[0][1]))
    return [
        {
            "params": parameters,
            "weight_decay": 0.0 if is_free else weight_decay,
            "lr_scale": scale,
        }
        for (is_free, scale), parameters in ordered
    ]


def build_optimiser(
    train: Train,
    model: nn.Module,
    parameters: list[nn.Parameter],
    *,
    is_divided: bool = False,
) -> torch.optim.Optimizer:
    """The declared optimiser of these parameters, on the device the weights are on.

    Args:
        is_divided: the parameters are divided among ranks.
    """
    groups = decay_groups(model, parameters, train.weight_decay)
    return train.optimiser.build(groups, lr=train.lr, is_divided=is_divided)


class MovingAverage:
    """An exponential moving average of the weights (Polyak and Juditsky 1992); float buffers are averaged,
    others copied.

    The decay starts low, (1 + step) / (10 + step), so that a short run is not held back by its random start.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float,
        *,
        part: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """`part`: this rank's part of a tensor that is divided among ranks; of those alone an average is kept
        then.
        """
        self.decay = decay
        self._is_divided = part is not None
        # With `keep_vars` these are the parameters themselves, whose memory `_exchange`
        # swaps.
        self._live = {
            name: part(tensor) if part else tensor
            for name, tensor in model.state_dict(keep_vars=True).items()
            if isinstance(tensor, torch.Tensor)
        }
        self.tensors = {
            name: tensor.detach().clone() for name, tensor in self._live.items()
        }
        smooth = [
            name for name, tensor in self._live.items() if tensor.is_floating_point()
        ]
        self._average = [self.tensors[name] for name in smooth]
        # The same memory as the live tensors, but for the time of `in_place`, when
        # nothing is updated.
        self._source = [self._live[name].detach() for name in smooth]
        self._rest = [name for name in self._live if name not in set(smooth)]

    @torch.no_grad()
    def update(self, step: int, *, steps: int = 1) -> None:
        """After step `step` (from 0), the last of so many since the last call."""
        # Several steps at once: the decay to the power of their number, as if the
        # weights had been these after each.
        torch._foreach_lerp_(
            self._average,
            self._source,
            1 - min(self.decay, (1 + step) / (10 + step)) ** steps,
        )
        for name in self._rest:
            self.tensors[name].copy_(self._live[name])

    @torch.no_grad()
    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take the average up from a checkpoint; the inverse of `tensors`."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    @torch.no_grad()
    def begin(self) -> None:
        """Set the average to the present weights."""
        for name, tensor in self.tensors.items():
            tensor.copy_(self._live[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this the model computes with the average (storages are exchanged, nothing is copied)."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, live in self._live.items():
            if (
                self._is_divided
            ):  # what gathers the parts knows their memory, so contents change places
                copied = live.detach().clone()
                live.detach().copy_(self.tensors[name])
                self.tensors[name].copy_(copied)
            else:
                live.data, self.tensors[name].data = self.tensors[name].data, live.data
