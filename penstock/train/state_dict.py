"""What a checkpoint holds of a learner, and taking it up again, on any number of ranks and by any strategy.

Tensors of a checkpoint are whole, and rank 0 has them. What only one rank knows is kept by rank, in files of
their own:

    exchange     `<whose>/<rank>/<name>`: what a rank has not sent yet;
                 `<whose>/shared/<name>`: what all share
    ranks        `<rank>/<phase>/<parameter>/<state>`: moments of ranks above 0, with local SGD
    outer        by parameter, the velocity of an outer optimiser

On the number of ranks that it was written by all is taken up as it was. On another, what was not said is
summed and goes on at rank 0, so that none of it is lost, and every rank begins with the mean of the moments;
both are said aloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penstock.core.errors import StoreError
from penstock.nn.weights import differing, some
from penstock.train.checkpoint import flatten_optimiser, restore_optimiser
from penstock.train.foreign_state import refuse_foreign
from penstock.train.learner import Learner


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, whole."""

    model: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    average: dict[str, Tensor]
    extra: dict[str, dict[str, Tensor]]
    """By name, what a strategy or an exchange remembers besides."""


def capture(learner: Learner) -> StateDict | None:
    """What a checkpoint keeps, at rank 0; None at the others.

    Every rank calls, after a step that `agrees`.
    """
    is_first = learner.world.rank == 0
    extra: dict[str, dict[str, Tensor]] = {}
    exchanged: dict[str, Tensor] = {}
    # In the order of phases, which is the same at every rank: `given` is a collective.
    for whose, exchanging in learner.exchangings().items():
        everyone = learner.peers.given(exchanging.errors)
        for rank, errors in enumerate(everyone or []):
            exchanged |= {
                f"{whose}/{rank}/{name}": tensor for name, tensor in errors.items()
            }
        # Alike at every rank: rank 0's stand for all.
        exchanged |= {
            f"{whose}/shared/{name}": tensor for name, tensor in exchanging.shared.items()
        }
    if exchanged:
        extra["exchange"] = exchanged
    optimiser = _optimisers(learner)
    if learner.averaging is not None:
        # With local SGD the moments are each worker's own.
        moments = learner.peers.given(optimiser)
        extra["ranks"] = {
            f"{rank}/{name}": tensor
            for rank, theirs in enumerate(moments or [])
            # Rank 0's are in the optimiser's own file.
            if rank
            for name, tensor in theirs.items()
        }
        extra["outer"] = learner.averaging.memory()
    # The average is kept as this rank's parts, and must look like the model's tensors to be gathered.
    model = dict(learner.network.state_dict())
    average = learner.average.tensors if learner.average else {}
    average = {
        name: learner.layout.rewrapped(tensor, model[name])
        for name, tensor in average.items()
    }
    model, optimiser, average = (
        _whole(learner, tensors, keep=is_first) for tensors in (model, optimiser, average)
    )
    return StateDict(model, optimiser, average, extra) if is_first else None


def _whole(
    learner: Learner, tensors: Mapping[str, Tensor], *, keep: bool
) -> dict[str, Tensor]:
    # One after another, at every rank: a divided tensor is gathered by a collective, and rank 0 must never
    # hold more than one of them whole on its device.
    gathered = (
        (name, learner.layout.whole(tensor, keep=keep))
        for name, tensor in tensors.items()
    )
    return {name: tensor for name, tensor in gathered if tensor is not None}


def _optimisers(learner: Learner) -> dict[str, Tensor]:
    """What the optimisers remember, by `<phase>/<parameter>/<state>`; parameters in the order of the network,
    so that every rank asks for the same.
    """
    return {
        name: tensor
        for phase in learner.phases
        for name, tensor in flatten_optimiser(
            phase.optimiser, learner.names, phase.declared.name
        ).items()
    }


def restore(
    learner: Learner, state: StateDict, scaler: dict[str, Any] | None
) -> list[str]:
    """The inverse of `capture`; every rank calls, with all of it. Returns what the user should hear.

    Raises:
        StoreError: its tensors are not this model's, or what it remembers is not this training's: other code
            wrote it.
    """
    if others := differing(learner.network, state.model):
        raise StoreError(
            f"The checkpoint belongs to another model: {len(others)} tensors differ"
            f" ({some(others)}). The code has changed since the run began; its world.json"
            " has the commit and the packages. Go back to those, or train again."
        )
    # All of it is looked at before any of it is taken up: a learner that took half of it would be neither.
    refuse_foreign(
        learner, optimiser=state.optimiser, average=state.average, extra=state.extra
    )
    notes: list[str] = []
    # Weights first: what averaging recalls below is measured from them.
    load_weights(learner, state.model)
    optimiser = _moments(learner, state, notes)
    if learner.layout.is_divided:
        named = dict(learner.network.named_parameters())
        optimiser = {
            word: learner.layout.like(
                # The middle of `<phase>/<parameter>/<state>`.
                tensor,
                named[word.split("/", 1)[1].rsplit("/", 1)[0]],
            )
            for word, tensor in optimiser.items()
        }
    for phase in learner.phases:
        restore_optimiser(phase.optimiser, learner.names, phase.declared.name, optimiser)
    if learner.average is not None:
        layout, ours = learner.layout, learner.network.state_dict()
        learner.average.load(
            {
                name: layout.local(layout.like(tensor, ours[name]))
                # As the weights are divided; the average itself holds plain parts.
                for name, tensor in state.average.items()
            }
        )
    if learner.precision.scaler is not None and scaler:
        learner.precision.scaler.load_state_dict(scaler)
    if learner.averaging is not None:
        learner.averaging.recall(state.extra.get("outer", {}))
    _recall_exchanges(learner, state.extra.get("exchange", {}), notes)
    return notes


def load_weights(
    learner: Learner, tensors: Mapping[str, Tensor], *, strict: bool = True
) -> None:
    """Give the network these weights, whole ones."""
    if learner.layout.is_divided:
        ours = learner.network.state_dict()
        tensors = {
            # A name that is not ours goes on as it is, for torch to refuse by name.
            name: learner.layout.like(tensor, ours[name]) if name in ours else tensor
            for name, tensor in tensors.items()
        }
    learner.network.load_state_dict(dict(tensors), strict=strict)


def _moments(learner: Learner, state: StateDict, notes: list[str]) -> dict[str, Tensor]:
    """This rank's moments."""
    by_rank: dict[int, dict[str, Tensor]] = {0: state.optimiser}
    for word, tensor in state.extra.get("ranks", {}).items():
        rank, _, name = word.partition("/")
        by_rank.setdefault(int(rank), {})[name] = tensor
    # Ranks that step together share their moments, and a worker alone writes none by
    # rank.
    if learner.averaging is None or (
        "ranks" not in state.extra and learner.world.size == 1
    ):
        return state.optimiser
    # As many ranks as there were: each goes on with its own.
    if set(by_rank) == set(range(learner.world.size)):
        return by_rank[learner.world.rank]
    strategy = learner.recipe.parallel.strategy.type
    notes.append(
        f"each of {learner.world.size} process{'es' if learner.world.size != 1 else ''} goes on with the mean"
        f" of the optimisers' moments of the {len(by_rank)} there were: with {strategy} each has its own, so"
        " this is not the training that would have been."
    )
    # Each name once: a dict keeps the order and drops repetitions.
    names = dict.fromkeys(name for moments in by_rank.values() for name in moments)
    return {
        name: (
            torch.stack(
                [
                    # The mean is taken in float64, and given back in the moment's own
                    # type.
                    moments[name].double()
                    for moments in by_rank.values()
                    if name in moments
                ]
            )
            .mean(0)
            .to(_any(by_rank, name).dtype)
        )
        for name in names
    }


def _any(by_rank: Mapping[int, Mapping[str, Tensor]], name: str) -> Tensor:
    return next(moments[name] for moments in by_rank.values() if name in moments)


def _recall_exchanges(
    learner: Learner, tensors: Mapping[str, Tensor], notes: list[str]
) -> None:
    moved = False
    for whose, exchanging in learner.exchangings().items():
        # `<rank>/<name>` and `shared/<name>`, once the owner's name is cut off.
        theirs = {
            word.removeprefix(f"{whose}/"): tensor
            for word, tensor in tensors.items()
            if word.startswith(f"{whose}/")
        }
        for name, tensor in exchanging.shared.items():
            if f"shared/{name}" in theirs:
                tensor.copy_(theirs[f"shared/{name}"])
        for name, tensor in exchanging.errors.items():
            ranks = {
                int(word.split("/", 1)[0]): value
                for word, value in theirs.items()
                if word.endswith(f"/{name}") and not word.startswith("shared/")
            }
            if not ranks:
                continue
            if set(ranks) == set(range(learner.world.size)):
                tensor.copy_(ranks[learner.world.rank])
                continue
            moved = True
            tensor.zero_()
            # At rank 0 alone: from every rank it would be sent as often as there are
            # ranks.
            if learner.world.rank == 0:
                for other in ranks.values():
                    tensor += other.to(tensor.device)
    if moved:
        notes.append(
            "what the processes there were had not been able to send of their gradients is summed and sent by"
            " the first of those there are now: none of it is lost, but it goes another way."
        )
