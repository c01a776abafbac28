"""The laws of optimisers: `check(Optimiser.load({"type": "acme.lion"}))`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from penstock.contracts.optim import Optimiser
from penstock.testing.laws import _learning as _
from penstock.train.checkpoint import flatten_optimiser, restore_optimiser
from penstock.train.optim import decay_groups

Law = Callable[[Optimiser], None]
STEPS = 5
RATE = 0.01
PHASE = "law"


class _Net(nn.Module):
    """A small network with what parameter groups tell apart: weights, biases, a norm, an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)
        self.unused = nn.Parameter(torch.ones(2, 2))

    def forward(self, index: Tensor) -> Tensor:
        out: Tensor = self.norm(self.linear(self.embedding(index)))
        return out


class _Training:
    """A network that an optimiser moves, as the trainer would."""

    def __init__(self, optimiser: Optimiser, *, weight_decay: float = 0.0) -> None:
        self.net = _.built(_Net)
        self.names = {id(p): name for name, p in self.net.named_parameters()}
        groups = decay_groups(self.net, self.net.parameters(), weight_decay)
        self.optimiser = optimiser.build(groups, lr=RATE, is_divided=False)

    def steps(self, first: int, count: int, *, rate: float = RATE) -> None:
        for step in range(first, first + count):
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            self.optimiser.zero_grad()
            loss = _.projected(self.net(torch.tensor([0, 1, 2 + step % 3]))).square()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()

    def weights(self) -> dict[str, Tensor]:
        return {
            name: tensor.detach().clone() for name, tensor in self.net.named_parameters()
        }


def moves(optimiser: Optimiser) -> None:
    """Every weight that has a gradient moves, stays finite, and none that has no gradient moves."""
    training = _Training(optimiser)
    before = training.weights()
    training.steps(0, STEPS)
    for name, after in training.weights().items():
        assert bool(torch.isfinite(after).all()), (
            f"moves: {name!r} is not finite after {STEPS} steps"
        )
        moved = not torch.equal(before[name], after)
        assert moved == (name != "unused"), (
            f"moves: {name!r} {'has no gradient and moves' if moved else 'has a gradient and stays'}"
        )


def descends(optimiser: Optimiser) -> None:
    """Small steps against the gradient of a bowl lead down it."""
    weights = nn.Parameter(torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]]))
    groups = [{"params": [weights], "weight_decay": 0.0, "lr_scale": 1.0}]
    moving = optimiser.build(groups, lr=RATE, is_divided=False)
    losses = []
    for _step in range(20):
        moving.zero_grad()
        loss = weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        moving.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0], (
        f"descends: the loss goes from {losses[0]:g} to {losses[-1]:g}"
    )


def rate(optimiser: Optimiser) -> None:
    """The rate that the trainer sets before a step is the rate of that step: with 0 nothing moves."""
    training = _Training(optimiser, weight_decay=0.1)
    training.steps(0, STEPS)
    before = training.weights()
    training.steps(STEPS, 1, rate=0.0)
    for name, after in training.weights().items():
        assert torch.equal(before[name], after), (
            f"rate: {name!r} moves although `lr` of its group is 0; read group['lr'] in `step`"
        )


def groups_kept(optimiser: Optimiser) -> None:
    """The groups are those that were given, in their order, and keep `lr_scale`."""
    training = _Training(optimiser, weight_decay=0.1)
    given = decay_groups(training.net, training.net.parameters(), 0.1)
    groups = training.optimiser.param_groups
    assert len(groups) == len(given), (
        f"groups_kept: given {len(given)}, found {len(groups)}"
    )
    for mine, theirs in zip(given, groups, strict=True):
        for word in ("lr_scale", "weight_decay"):
            assert theirs[word] == mine[word], (
                f"groups_kept: {word} of a group is {theirs[word]!r}; {mine[word]!r} was given"
            )
        assert [id(p) for p in theirs["params"]] == [id(p) for p in mine["params"]], (
            "groups_kept: a group's parameters are others, or in another order"
        )


def remembered(optimiser: Optimiser) -> None:
    """What it remembers are tensors by parameter; taken up by another, they go on to the bit."""
    one = _Training(optimiser, weight_decay=0.1)
    one.steps(0, STEPS)
    memory = flatten_optimiser(one.optimiser, one.names, PHASE)
    for name, value in memory.items():
        assert isinstance(value, Tensor), (
            f"remembered: {name!r} is a {type(value).__name__}; a checkpoint keeps tensors"
        )
        place, _slash, word = name.rpartition("/")
        shape = tuple(one.net.get_parameter(place.removeprefix(f"{PHASE}/")).shape)
        shapes = optimiser.state_shapes(shape)
        assert shapes.get(word) == tuple(value.shape), (
            f"remembered: {name!r} has shape {tuple(value.shape)}; `state_shapes` says {shapes.get(word)}"
        )
    for name, parameter in one.net.named_parameters():
        lacking = [
            word
            for word in optimiser.state_shapes(tuple(parameter.shape))
            if name != "unused" and f"{PHASE}/{name}/{word}" not in memory
        ]
        assert not lacking, (
            f"remembered: `state_shapes` says {lacking[0]!r}, and {name!r} has none"
        )
    memory = {name: tensor.clone() for name, tensor in memory.items()}
    other = _Training(optimiser, weight_decay=0.1)
    other.net.load_state_dict(one.net.state_dict())
    restore_optimiser(other.optimiser, other.names, PHASE, memory)
    one.steps(STEPS, STEPS)
    other.steps(STEPS, STEPS)
    for name, tensor in one.weights().items():
        _.same("remembered", name, other.weights()[name], tensor, tolerance=0)


def deterministic(optimiser: Optimiser) -> None:
    """The same gradients move the same weights to the same bits."""
    one, other = _Training(optimiser), _Training(optimiser)
    one.steps(0, STEPS)
    other.steps(0, STEPS)
    for name, tensor in one.weights().items():
        _.same("deterministic", name, other.weights()[name], tensor, tolerance=0)


def declared(optimiser: Optimiser) -> None:
    """Declared → loaded → declared is the identity."""
    _.declared_again("declared", optimiser)


def light(optimiser: Optimiser) -> None:
    """The head of its file imports no torch."""
    _.light_head("light", optimiser)


LAWS: tuple[Law, ...] = (
    moves,
    descends,
    rate,
    groups_kept,
    remembered,
    deterministic,
    declared,
    light,
)


def check(optimiser: Optimiser) -> None:
    """Judge one optimiser by every law.

    Raises:
        AssertionError: it breaks a law.
    """
    for law in LAWS:
        law(optimiser)
