"""The laws of strategies: `check(Strategy.load({"type": "acme.post_local", "every": 4}))`.

A small network is trained by the strategy on two processes of this machine, which takes seconds, and what it
came to is judged: by itself, against one process, and against the same training taken up half way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from penstock.contracts.learn import Launcher, World
from penstock.contracts.strategy import ActiveStrategy, Setting, Strategy
from penstock.core.events import Events
from penstock.testing.laws import _learning as _
from penstock.train.communicator import Communicator
from penstock.train.parallel import joined, settled

ROWS = (7, 1, 6, 8, 1, 5, 4, 3, 2, 8, 7, 6)
"""Of each global batch; where there is one, all ranks but one have none."""
STOP = 3
"""From this step on the last rank asks to stop."""
RATE = 0.05


@dataclass
class Walk:
    """What one rank has seen, at each step that ends in an agreement."""

    steps: list[int] = field(default_factory=list)
    weights: list[dict[str, Tensor]] = field(default_factory=list)
    """Whole."""
    heard: list[tuple[float, ...]] = field(default_factory=list)
    """Loss, weight, stop and save of all ranks since the agreement before."""


@dataclass
class Trials:
    """One strategy, tried."""

    alone: Walk
    """With one process."""
    together: list[Walk]
    """By rank."""
    resumed: list[Walk]
    """By rank: the same, taken up by a new network after the first agreement."""


Law = Callable[[Strategy, Trials], None]


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = self.body(rows)
        return out.squeeze(-1)


class _Training:
    """A network that a strategy trains on one rank, as the trainer would."""

    def __init__(self, strategy: Strategy, peers: Communicator, *, seed: int = 0) -> None:
        self.strategy, self.peers = strategy, peers
        self.net = _.built(_Net, seed=seed)
        blocks = list(self.net.children())
        setting = Setting(peers, torch.device("cpu"), blocks, None)
        self.active: ActiveStrategy = strategy.open(self.net, setting)
        parameters = list(self.net.parameters())
        self.gradients = self.active.gradients(parameters)
        self.optimiser = torch.optim.SGD(parameters, lr=RATE)

    def weights(self) -> dict[str, Tensor]:
        whole = (
            (n, self.active.layout.whole(t, keep=True))
            for n, t in self.net.state_dict().items()
        )
        return {
            name: tensor.detach().clone() for name, tensor in whole if tensor is not None
        }

    def take_up(self, weights: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        """Go on from what a checkpoint would hold."""
        ours = self.net.state_dict()
        self.net.load_state_dict(
            {n: self.active.layout.like(t, ours[n]) for n, t in weights.items()}
        )
        if self.active.averaging is not None:
            self.active.averaging.recall(memory)

    def walk(self, first: int) -> Walk:
        """Every step from `first` to the last."""
        walk = Walk()
        for step in range(first, len(ROWS)):
            heard = self._step(step)
            if heard is not None:
                walk.steps.append(step)
                walk.weights.append(self.weights())
                walk.heard.append(heard)
        return walk

    def _step(self, step: int) -> tuple[float, ...] | None:
        averaging, layout = self.active.averaging, self.active.layout
        rows, targets = self._slice(step)
        divisor = ROWS[step] if averaging is None else len(rows)
        flags = (step >= STOP and self.peers.rank == self.peers.size - 1, False)
        loss = 0.0
        numbers: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
        if divisor:
            self.gradients.clear()
            total = torch.zeros(())
            if (
                len(rows) or layout.is_divided
            ):  # a rank without rows keeps the others company
                layout.before_pass(is_last=True)
                own = len(rows)
                losses = (
                    self.net(rows if own else torch.ones(1, 4))
                    - (targets if own else 0.0)
                ).square()
                total = losses.sum() / divisor * (1.0 if own else 0.0)
                total.backward()
                self.gradients.passed()
            numbers = tuple(
                float(n)
                for n in self.gradients.reduce(
                    total.detach(), float(len(rows)), flags, rows=None
                )
            )
            loss = numbers[0] * divisor
            self.optimiser.step()
        if averaging is None:
            return (loss, *numbers[1:])
        averaging.learnt(loss, float(len(rows)))
        if self.strategy.agrees(step) or step + 1 == len(ROWS):
            return tuple(float(n) for n in averaging.agree(flags))
        return None

    def _slice(self, step: int) -> tuple[Tensor, Tensor]:
        """This rank's rows `[n, 4]` of the global batch, perhaps none, and their targets `[n]`."""
        chance = torch.Generator().manual_seed(step)
        rows = torch.randn(ROWS[step], 4, generator=chance)
        start, end = (
            ROWS[step] * (self.peers.rank + i) // self.peers.size for i in (0, 1)
        )
        return rows[start:end], rows[start:end].sum(1)


def observe(strategies: Sequence[Strategy], *, processes: int = 2) -> list[Trials]:
    """Try strategies on so many processes, all in one start."""
    trials: list[Trials] = Launcher.load("local").launch(
        _observe, (list(strategies),), processes=processes, threads=1
    )
    return trials


def _observe(world: World, strategies: list[Strategy]) -> list[Trials]:
    with joined(world), settled(threads=1, deterministic=True, events=Events()):
        return [_try(world, strategy) for strategy in strategies]


def _try(world: World, strategy: Strategy) -> Trials:
    alone = _Training(strategy, Communicator(World())).walk(0)
    whole = _Training(strategy, Communicator(world))
    together = Walk()
    memory: dict[str, Tensor] = {}
    averaging = whole.active.averaging
    first = _first_agreement(strategy)
    for step in range(len(ROWS)):
        heard = whole._step(step)
        if heard is not None:
            together.steps.append(step)
            together.weights.append(whole.weights())
            together.heard.append(heard)
        if step == first and averaging is not None:
            memory = {
                name: tensor.detach().clone()
                for name, tensor in averaging.memory().items()
            }
    again = _Training(strategy, Communicator(world), seed=1)
    again.take_up(together.weights[together.steps.index(first)], memory)
    walks: list[tuple[Walk, Walk]] = [(together, again.walk(first + 1))] * world.size
    dist.all_gather_object(walks, (together, walks[0][1]))
    return Trials(
        alone,
        [whole for whole, _resumed in walks],
        [resumed for _whole, resumed in walks],
    )


def _first_agreement(strategy: Strategy) -> int:
    return next(
        (step for step in range(len(ROWS)) if strategy.agrees(step)), len(ROWS) - 1
    )


# -- the laws ------------------------------------------------------------------------------------------------


def alike(strategy: Strategy, trials: Trials) -> None:
    """Where ranks agree they have the same weights, to the bit, all of them finite, and have heard the same
    numbers.
    """
    one = trials.together[0]
    for rank, other in enumerate(trials.together):
        assert other.steps == one.steps, (
            f"alike: rank {rank} agrees at {other.steps}, rank 0 at {one.steps}"
        )
        for step, mine, theirs in zip(one.steps, one.weights, other.weights, strict=True):
            for name, tensor in mine.items():
                assert bool(torch.isfinite(tensor).all()), (
                    f"alike: {name!r} is not finite after step {step}"
                )
                assert torch.equal(tensor, theirs[name]), (
                    f"alike: after step {step} {name!r} of rank {rank} is not that of rank 0"
                )
        assert other.heard == one.heard, (
            f"alike: rank {rank} heard {other.heard}, rank 0 {one.heard}"
        )


def heard(strategy: Strategy, trials: Trials) -> None:
    """At an agreement each rank hears of all rows since the last one, and of any rank's wish to stop."""
    walk, before = trials.together[0], -1
    for step, (loss, weight, stop, _save) in zip(walk.steps, walk.heard, strict=True):
        rows = sum(ROWS[before + 1 : step + 1])
        assert weight == rows, (
            f"heard: at step {step} {weight:g} rows are told; there were {rows}"
        )
        assert loss > 0, f"heard: at step {step} the loss of all rows is {loss:g}"
        assert bool(stop) == (step >= STOP), (
            f"heard: at step {step} a wish to stop is {'' if stop else 'not '}heard;"
            f" the last rank asks from step {STOP} on"
        )
        before = step


def moves(strategy: Strategy, trials: Trials) -> None:
    """Weights move, with one process as with several."""
    start = _.built(_Net).state_dict()
    for walk in (trials.alone, trials.together[0]):
        for name, tensor in start.items():
            assert not torch.equal(walk.weights[-1][name], tensor), (
                f"moves: {name!r} has not moved"
            )


def same_answer(strategy: Strategy, trials: Trials) -> None:
    """What says nothing in `depends` gives the weights of one process, but for rounding."""
    if strategy.depends() is not None:
        return
    for name, tensor in trials.alone.weights[-1].items():
        _.same(
            "same_answer",
            name,
            trials.together[0].weights[-1][name],
            tensor,
            tolerance=1e-4,
        )


def resumed(strategy: Strategy, trials: Trials) -> None:
    """Taken up by a new network on as many processes, it goes on to the bit."""
    whole, again = trials.together[0], trials.resumed[0]
    for name, tensor in again.weights[-1].items() if again.weights else ():
        _.same("resumed", name, tensor, whole.weights[-1][name], tolerance=0)


def apart(strategy: Strategy, trials: Trials) -> None:
    """`agrees` is a function of the step alone. What steps alone says so in `depends`, and refuses what would
    make ranks wait for each other.
    """
    twice = [[strategy.agrees(step) for step in range(100)] for _time in range(2)]
    assert twice[0] == twice[1], (
        "apart: `agrees` says something else when it is asked again"
    )
    assert strategy.steps_alone or all(twice[0]), (
        "apart: ranks step together, and do not always agree"
    )
    if strategy.steps_alone:
        assert strategy.depends(), (
            "apart: ranks step alone, so `depends` must say why the answer differs"
        )
        for word, value in (("batchnorm", "sync"), ("on_nan", "skip")):
            assert strategy.refuses(word, value), (
                f"apart: ranks step alone, so {word} {value!r} must be refused"
            )


def told(strategy: Strategy, trials: Trials) -> None:
    """What it tells the user are sentences, or nothing."""
    for word in ("alone", "depends", "saves_memory"):
        text = getattr(strategy, word)()
        assert text is None or (isinstance(text, str) and len(text) > 10), (
            f"told: `{word}` must say a sentence, or None; it said {text!r}"
        )


def declared(strategy: Strategy, trials: Trials) -> None:
    """Declared → loaded → declared is the identity."""
    _.declared_again("declared", strategy)


def light(strategy: Strategy, trials: Trials) -> None:
    """The head of its file imports no torch."""
    _.light_head("light", strategy)


LAWS: tuple[Law, ...] = (
    alike,
    heard,
    moves,
    same_answer,
    resumed,
    apart,
    told,
    declared,
    light,
)


def check(strategy: Strategy) -> None:
    """Judge one strategy by every law; it is tried on two processes of this machine.

    Raises:
        AssertionError: it breaks a law.
    """
    (trials,) = observe([strategy])
    for law in LAWS:
        law(strategy, trials)
