"""Whether what a checkpoint remembers beside the weights is this training's: asked of all of it, before any
of it is taken up.

Whoever made a checkpoint can compute its checksums, and torch compares nothing here: `copy_` repeats a
smaller tensor over a larger one, and an optimiser takes moments of any shape, to fail in its next step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from penstock.core.errors import StoreError
from penstock.core.visible import visible
from penstock.nn.weights import some
from penstock.train.learner import Learner

_RANK = re.compile(r"0|[1-9][0-9]{0,8}")


def refuse_foreign(
    learner: Learner,
    *,
    optimiser: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    extra: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Refuse tensors of a checkpoint that are not what this learner remembers.

    Args:
        optimiser: `<phase>/<parameter>/<state>` → tensor, whole.
        average: the moving average, by the names of the network's tensors; empty where none is kept.
        extra: by file, what a strategy or a compression remembers (see `state_dict`).

    Raises:
        StoreError: naming the file, and some of what differs.
    """
    _refuse("optimiser", _odd_moments(learner, optimiser))
    if learner.average is not None:
        # Of divided tensors `shape` is the whole one, as checkpoints have them.
        shapes = {
            name: tensor.shape for name, tensor in learner.network.state_dict().items()
        }
        wanted = {name: shapes[name] for name in learner.average.tensors}
        _refuse(
            "average",
            sorted(wanted.keys() - average.keys()) + _odd_shapes(average, wanted),
        )
    _refuse("ranks", _odd_ranks(learner, extra.get("ranks", {})))
    if learner.averaging is not None:
        velocity = {
            name: tensor.shape for name, tensor in learner.averaging.memory().items()
        }
        _refuse("outer", _odd_shapes(extra.get("outer", {}), velocity))
    _refuse("exchange", _odd_exchanges(learner, extra.get("exchange", {})))


def remembers(learner: Learner) -> bool:
    """Whether its optimisers remember something from their first step on."""
    return bool(learner.recipe.train.optimiser.state_shapes((1,)))


def _refuse(file: str, names: list[str]) -> None:
    if names:
        raise StoreError(
            f"the checkpoint's {file}.safetensors belongs to another training:"
            f" {len(names)} of its tensors differ ({visible(some(names))}). It or the code"
            " was changed after the run began. Delete the checkpoint to use the one"
            " before it, or train again."
        )


def _odd_moments(learner: Learner, tensors: Mapping[str, Tensor]) -> list[str]:
    wanted: dict[str, torch.Size] = {}
    whole: dict[str, tuple[str, ...]] = {}
    for phase in learner.phases:
        for group in phase.optimiser.param_groups:
            for parameter in group["params"]:
                place = f"{phase.declared.name}/{learner.names[id(parameter)]}"
                shapes = learner.recipe.train.optimiser.state_shapes(
                    tuple(parameter.shape)
                )
                whole[place] = tuple(shapes)
                wanted |= {
                    f"{place}/{word}": torch.Size(shape) for word, shape in shapes.items()
                }
    # Of one parameter all moments are there or none; with some of them the optimiser
    # would fail in its next step.
    torn = [
        f"{place}/{word}"
        for place, words in whole.items()
        for word in words
        if f"{place}/{word}" not in tensors
        and any(f"{place}/{other}" in tensors for other in words)
    ]
    return _odd_shapes(tensors, wanted) + torn


def _odd_ranks(learner: Learner, tensors: Mapping[str, Tensor]) -> list[str]:
    """Moments of ranks above 0, by `<rank>/<phase>/<parameter>/<state>`."""
    by_rank: dict[str, dict[str, Tensor]] = {}
    odd: list[str] = []
    for name, tensor in tensors.items():
        rank, _, rest = name.partition("/")
        if not _RANK.fullmatch(rank):
            odd.append(name)
            continue
        by_rank.setdefault(rank, {})[rest] = tensor
    return odd + [
        f"{rank}/{name}"
        for rank, theirs in by_rank.items()
        for name in _odd_moments(learner, theirs)
    ]


def _odd_exchanges(learner: Learner, tensors: Mapping[str, Tensor]) -> list[str]:
    """What is remembered by `<whose>/<rank or shared>/<name>`; what nobody asks for is left.

    Odd is a tensor of another shape or kind of number, and one that lacks where others of its rank are there:
    it would begin at nothing, without a word.
    """
    odd: list[str] = []
    for whose, exchanging in learner.exchangings().items():
        by_rank: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"{whose}/"):
                rank, _, word = name.removeprefix(f"{whose}/").partition("/")
                by_rank.setdefault(rank, {})[word] = tensor
        for rank, theirs in by_rank.items():
            # What all ranks share is kept once, under `shared` in the place of a rank.
            wanted = exchanging.shared if rank == "shared" else exchanging.errors
            known = [word for word in wanted if word in theirs]
            if rank != "shared" and known and not _RANK.fullmatch(rank):
                odd += [f"{whose}/{rank}/{word}" for word in known]
                continue
            odd += [
                f"{whose}/{rank}/{word}"
                for word in (wanted if known else ())
                if word not in theirs or not _is_alike(theirs[word], wanted[word])
            ]
    return odd


def _is_alike(tensor: Tensor, wanted: Tensor) -> bool:
    """Whether it may be copied over another without a change of its numbers' kind."""
    return (
        tensor.shape == wanted.shape
        and tensor.is_complex() == wanted.is_complex()
        and tensor.is_floating_point() == wanted.is_floating_point()
    )


def _odd_shapes(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]
) -> list[str]:
    """The names of tensors that nobody wants, or not in this shape, or that are no numbers."""
    return sorted(
        name
        for name, tensor in tensors.items()
        # Taking up a complex tensor would drop its imaginary part.
        if name not in wanted or tensor.shape != wanted[name] or tensor.is_complex()
    )
