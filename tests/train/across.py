"""Learners on several ranks: what a launched process runs, many cases one after another, since starting it
costs seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import distributed_c10d

from penstock.contracts.learn import Launcher, World
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.feed import Feed
from penstock.recipe.schema import Recipe
from penstock.train.collectives import shared
from penstock.train.learner import Learner
from penstock.train.parallel import joined, settled
from penstock.train.state_dict import StateDict, capture, restore
from tests.loader.flat import open_loader


def _refuse_pickles(*_: Any, **__: Any) -> Any:
    raise AssertionError("a collective of objects was used, which pickles")


# Also within torch itself (FSDP, DDP): nothing that ranks say may be a pickle.
for _name in ("_object_to_tensor", "_tensor_to_object"):
    assert hasattr(distributed_c10d, _name)
    setattr(distributed_c10d, _name, _refuse_pickles)


class Normed(nn.Module):
    """A model of the user's with BatchNorm, as deep as it takes to feel a mistake in it."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, width),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.BatchNorm1d(width, affine=False),
            nn.ReLU(),
            nn.Linear(width, 1),
        )

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            "y": self.layers(
                torch.stack([batch["a.value"], batch["b.value"]], 1)
            ).squeeze(-1)
        }


@dataclass
class Case:
    recipe: Recipe
    store: str
    feed: str
    steps: int
    batch_size: int = 32
    pause: int | None = None
    """After so many steps, write what is held and go on with a new learner that has taken it up."""
    begin: tuple[int, StateDict] | None = None
    """Go on from here: steps done, and what was held then."""
    threads: int = 1
    clocks: tuple[int, ...] | None = None
    """The ranks whose clock asks for the gradient's norm; all unless given."""


@dataclass
class Walked:
    losses: list[float] = field(default_factory=list)
    """Mean loss at each step that ranks agree at."""
    held: StateDict | None = None
    paused: StateDict | None = None
    said: list[str] = field(default_factory=list)
    sent: dict[str, Any] = field(default_factory=dict)
    agree: bool = True
    """Every rank has the same weights in the end."""
    local: dict[str, int] = field(default_factory=dict)
    """Numbers that rank 0 itself keeps of each weight."""
    norms: list[float] = field(default_factory=list)
    judged: float = 0.0


def walk(world: World, case: Case) -> Walked:
    feed = Feed.open(Store(case.store), id=case.feed)
    loader = open_loader(
        feed,
        "train",
        batch_size=case.batch_size,
        seed=case.recipe.seed,
        rank=world.rank,
        world=world.size,
    )
    walked = Walked()
    learner = Learner(case.recipe, feed, world)
    step = 0
    if case.begin:
        step, held = case.begin
        # A copy: the learner goes on in this memory, and another may begin from it, too.
        walked.said += take(learner, copied(held))
    walked.said += learner.depends()
    learner.to_train()
    while step < case.steps:
        for position, batch in loader.batches(
            step // len(loader), start=step % len(loader)
        ):
            is_last = position + 1 == len(loader) or step + 1 == case.steps
            done = learner.step(
                batch,
                rows=loader.global_rows(position),
                step=step,
                total=case.steps,
                scale=1.0,
                wants_norm=case.clocks is None or world.rank in case.clocks,
                is_last=is_last,
            )
            if learner.agrees(step, is_last):
                walked.losses.append(float(done.loss) / float(done.weight))
                walked.norms.append(
                    float(done.norm) if done.norm is not None else float("nan")
                )
            step += 1
            if step == case.pause:
                # What a checkpoint is to the other ranks: rank 0's word, tensor by tensor.
                own = copied(capture(learner))
                told = shared(None if own is None else vars(own), world)
                walked.paused = None if told is None else StateDict(**told)
                learner = Learner(case.recipe, feed, world)
                walked.said += take(learner, walked.paused)
                learner.to_train()
            if step == case.steps:
                break
    walked.sent = learner.communication()
    walked.local = {
        name: (p.to_local() if hasattr(p, "to_local") else p).numel()
        for name, p in learner.network.named_parameters()
    }
    walked.held = copied(capture(learner))
    if not learner.layout.is_divided and world.size > 1:
        flat = torch.cat([p.detach().reshape(-1) for p in learner.network.parameters()])
        walked.agree = all(
            torch.equal(flat, theirs) for theirs in learner.peers.all(flat)
        )
    learner.network.eval()
    validation = open_loader(
        feed,
        "validation",
        batch_size=64,
        shuffle=False,
        rank=world.rank,
        world=world.size,
    )
    for position, batch in validation.batches(0):
        learner.accompany(batch, validation.global_rows(position))
        if len(batch["row_id"]):
            walked.judged += float(learner.judge(batch)[0])
    total = torch.tensor(walked.judged, dtype=torch.float64)
    learner.peers.add(total)
    walked.judged = float(total)
    return walked


def take(learner: Learner, held: StateDict | None) -> list[str]:
    assert held is not None
    return restore(learner, held, None)


def copied(held: StateDict | None) -> StateDict | None:
    """Not the memory that goes on changing."""
    if held is None:
        return None

    def clone(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    return StateDict(
        clone(held.model),
        clone(held.optimiser),
        clone(held.average),
        {name: clone(tensors) for name, tensors in held.extra.items()},
    )


def walk_all(world: World, cases: dict[str, Case]) -> dict[str, Walked]:
    """Every case, one after another, in one process group."""
    with joined(world), settled(threads=1, deterministic=True, events=Events()):
        return {name: walk(world, case) for name, case in cases.items()}


def launched(cases: dict[str, Case], processes: int) -> dict[str, Walked]:
    found: dict[str, Walked] = Launcher.load("local").launch(
        walk_all, (cases,), processes=processes, threads=1
    )
    return found
