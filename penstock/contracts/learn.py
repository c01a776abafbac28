"""What the learning side promises: Encoder, Combiner, Decoder, Objective, Launcher, GradientCompressor,
Tracker, Runtime.

The head of a part's file imports no torch, so that recipes, plans and schemas stay light; `build` imports it.
Shapes: B batch, T tokens, W width, F features, K classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

from penstock.contracts.part import Part
from penstock.contracts.tensors import FeatureSpecs, TensorSpec
from penstock.core.events import Event

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Encoded(NamedTuple):
    """What an encoder or combiner says of a batch (a tuple, so that tracing and export pass through it)."""

    tokens: Tensor
    """`[B, T, W]`: what may be attended to."""
    mask: Tensor
    """`[B, T]` bool: True where a token is there."""
    pooled: Tensor
    """`[B, W]`: all of it in one vector."""


class Encoder(Part):
    """Arrays of one feature, or of all features that declare an equal encoder, → `Encoded`."""

    shelf: ClassVar[str] = "penstock.parts.encoders"
    together: ClassVar[bool] = False
    """True: one module encodes all features with this declaration and equal specs (numbers, categories), one
    token each.
    """

    def at(self, base: Path) -> Self:
        """The same encoder with paths that it names made absolute: they are relative to `base`, the recipe's
        folder.
        """
        return self

    @abstractmethod
    def build(self, features: FeatureSpecs, width: int | None) -> nn.Module:
        """A module whose `forward(batch: dict[str, Tensor]) → Encoded` reads `<feature>.<array>` for each of
        `features`.

        Args:
            features: the features it encodes, in order; exactly one unless `together`. With `together`, token
                t belongs to feature t, and `pooled` is the tokens flattened `[B, T·W]`.
            width: W that the combiner asks for; None leaves it to the encoder. The module has int attributes
                `width` (W of the tokens) and `pooled_width` (of `pooled`).
        """

    @abstractmethod
    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        """None if it can encode a feature with these arrays, otherwise why not (told to the user before
        anything runs).
        """


class Combiner(Part):
    """Several `Encoded` → one."""

    shelf: ClassVar[str] = "penstock.parts.combiners"

    def token_width(self) -> int | None:
        """The token width it needs from every encoder, or None if any will do."""
        return None

    @abstractmethod
    def build(self, encoders: Sequence[nn.Module]) -> nn.Module:
        """A module with `forward(list[Encoded]) → Encoded` and int attribute `width` (of its pooled output).

        Args:
            encoders: the built encoder modules, for their `width`, `pooled_width`.
        """


class SharingCombiner(Combiner):
    """A combiner that the members of an ensemble can share the weights of (`model.ensemble.share`)."""

    @abstractmethod
    def build_members(self, encoders: Sequence[nn.Module], members: int) -> nn.Module:
        """A module with `forward(list[Encoded]) → Encoded` whose `pooled` is `[B, N, W]` and whose `tokens`
        are `[B, N, 1, W]`: one vector a row and member. It has `width`, as `build`'s has.

        Args:
            encoders: as of `build`; all members hear the same.
            members: N.
        """


class Decoder(Part):
    """What is known of a row → one raw tensor for a target; the loss on it; the answer from it."""

    shelf: ClassVar[str] = "penstock.parts.decoders"
    metrics: ClassVar[tuple[str, ...]] = ()
    """The metrics that suit its target, best known first; the first is watched by early stopping unless the
    recipe says.
    """
    teacher_forced: ClassVar[bool] = False
    """True: where the target's arrays are in the batch, as in training, its module is given them (`target`),
    and its raw is what `loss` wants; elsewhere it is not, and its raw is what `answer` wants.
    """
    combiner: ClassVar[str] = "mlp"
    """The combiner that a model uses where all its decoders ask for this one and the recipe names none; `mlp`
    if they differ.
    """

    @abstractmethod
    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        """None if it can decode into a target with these arrays, otherwise why not."""

    @abstractmethod
    def build(self, spec: Mapping[str, TensorSpec], width: int) -> nn.Module:
        """A module with `forward(encoded: Encoded, target: dict[str, Tensor] | None = None) → Tensor` raw
        `[B, …]`.
        """

    def build_on(self, spec: Mapping[str, TensorSpec], combiner: nn.Module) -> nn.Module:
        """As `build`, for a decoder that wants to know more of the built combiner than its `width`."""
        return self.build(spec, int(combiner.width))  # type: ignore[arg-type]

    @abstractmethod
    def loss(
        self, raw: Tensor, target: Mapping[str, Tensor], spec: Mapping[str, TensorSpec]
    ) -> Tensor:
        """Per-row losses `[B]`, float32, unweighted by `weight`.

        `target` has the target feature's arrays by name.
        """

    @abstractmethod
    def answer(self, raw: Tensor, spec: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        """What is answered, by name, ready for `Feature.decode`; exported with the model.

        Names by decoder: `binary`: `probability [B]`; `category`: `probabilities [B, K]`; `number`: `value
        [B]` in the user's units.
        """

    def merged(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        """What the members of an ensemble say together: their raws `[B, N, …]` as one raw `[B, …]`, whose
        answer is the mean of their answers.

        The mean of the raws, unless a decoder says otherwise: right where answers are linear in the raw, as
        numbers are. A decoder whose answers are probabilities has to take the mean of those.
        """
        return raws.float().mean(dim=1)

    def doubt(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        """How far the members of an ensemble lie apart, from their raws `[B, N, …]`: float32 `[B]`, 0 where
        all say the same.

        The standard deviation over members, in units of the raw, its mean over all other axes, unless a
        decoder says otherwise.
        """
        raws = raws.float()
        variance = (raws - raws.mean(dim=1, keepdim=True)).square().mean(dim=1)
        return (
            variance.sqrt().flatten(1).mean(dim=1) if raws.dim() > 2 else variance.sqrt()
        )


@dataclass(frozen=True)
class Phase:
    """One thing a training step optimises."""

    name: str
    parameters: Callable[[Any], Iterable[Any]]
    """model → the parameters this phase moves."""
    loss: Callable[[Any, Mapping[str, Any]], Any]
    """(model, batch) → per-row losses `[B]`, already times the row's weight."""
    every: int = 1
    """Run in each `every`-th optimiser step."""


class Objective(Part):
    """What one training step optimises. The trainer's loop knows no task."""

    shelf: ClassVar[str] = "penstock.parts.objectives"

    @abstractmethod
    def phases(self, decoders: Mapping[str, Decoder], specs: FeatureSpecs) -> list[Phase]:
        """The phases of one step, in order. A model is called as `model(batch) → dict[target, raw]`."""


@dataclass(frozen=True)
class World:
    """A process's place among its peers."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    threads: int = 1


@dataclass(frozen=True)
class Recovery:
    """How often training may be started again from its last checkpoint when processes were lost."""

    restarts: int = 0
    """At most so many within `window_seconds`."""
    window_seconds: float = 3600.0
    fewest: int | None = None
    """Go on without those that were lost, down to so many; None: always with the same number."""
    return_seconds: float = 120.0
    """Where fewer are at work than were asked for: how long they are left at it before more may be taken
    in.
    """


@dataclass(frozen=True)
class Growth:
    """Leave to stop a world that is smaller than was asked for."""

    to: int
    """How many processes were asked for."""
    after_seconds: float
    """Not before so long after its first step."""


class Launcher(Part):
    """Where functions run: every rank gets the same function and its place in the world."""

    shelf: ClassVar[str] = "penstock.parts.launchers"

    @abstractmethod
    def launch(
        self,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        *,
        processes: int,
        threads: int,
        grows: Growth | None = None,
    ) -> Any:
        """Run `function(world, *arguments)` in each process; returns rank 0's (picklable) value.

        Args:
            function: at the top level of a module; `contracts.tasks` says what else it takes where messages
                are JSON (`env`).
            processes: how many; where `recovery` has a `fewest`, as many of them as there is room for, down
                to that.
            grows: given only where `recovery` has a `fewest`. Once there is room for more than are at work,
                and it is time, the ranks get SIGTERM, as from a user who wants to stop; when they have
                stopped (`Interrupted`), `Outgrown` is raised.

        Raises:
            PenstockError: the error that a rank raised, once.
            RankLost: a rank died without one, or stalled.
            Outgrown: there is room for more.
        """

    @abstractmethod
    def limits(self) -> tuple[int | None, int | None]:
        """(processes, threads) as declared; None is left to a measurement."""

    def recovery(self) -> Recovery:
        """What is to be done when `launch` raises `RankLost`."""
        return Recovery()

    def here(self) -> World:
        """This process's place among those that somebody else has started with the same command; alone unless
        there are some.
        """
        return World()

    def lead(self, command: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do a whole command.

        Where several processes were started with it, the first does it, and the others take part in what it
        launches; all return what it returns (plain data, as JSON has it), or raise what it raises.
        """
        return command()

    def goes_on(self) -> bool:
        """Whether a training that was interrupted goes on by itself when the same is asked for again: so
        where whoever starts the processes starts them again after a loss.
        """
        return False


class Wire(Protocol):
    """What a rank says to the others. It counts what it sends."""

    rank: int
    size: int

    def add(self, tensor: Tensor) -> None:
        """The sum over ranks, in place; the same bytes at every rank."""

    def most(self, tensor: Tensor) -> None:
        """The largest over ranks, in place."""

    def all(self, tensor: Tensor) -> Tensor:
        """Every rank's, `[size, …]`, in order."""


class Exchanging(Protocol):
    """A `GradientCompressor` at work on some tensors."""

    errors: dict[str, Tensor]
    """By name, what this rank has not been able to say yet; float32.

    Over ranks, what was said and the sum of these are together what there was to say: nothing is lost. A
    checkpoint keeps every rank's; where ranks are fewer or more, their sum goes on.
    """
    shared: dict[str, Tensor]
    """By name, what every rank remembers alike."""

    def sum(self) -> None:
        """Put the sum over ranks in place of the tensors, as well as was asked for.

        Every rank calls; all get the same bytes.
        """

    def let_go(self) -> None:
        """Add this rank's errors to the tensors, and forget them: where one process goes on alone nothing has
        to wait.
        """


class GradientCompressor(Part):
    """How gradients (with `local_sgd`, movements) are summed over ranks: in fewer bytes than float32 takes.

    Laws (penstock.testing.laws.gradients): every rank gets the same bytes; what was not sent is kept; a rank
    with nothing adds nothing; memory that is taken up goes on the same; fewer bytes are sent.
    """

    shelf: ClassVar[str] = "penstock.parts.gradients"
    depends: ClassVar[str | None] = None
    """Why the answer depends on the number of processes by more than rounding; None if it does not."""

    @abstractmethod
    def open(self, tensors: Sequence[Tensor], wire: Wire) -> Exchanging:
        """An exchange of these float32 tensors: the same ones, with new contents, at each `sum`."""


OWN_NAMES = frozenset(
    {
        "manifest.json",
        "run.json",
        "recipe.yaml",
        "world.json",
        "events.jsonl",
        "checkpoints",
        "report",
        "model.safetensors",
    }
)
"""What a run keeps in its folder; a tracker's files lie beside."""


class Tracker(Part):
    """Where the records of a run are shown beside the diary. Built as a sink of events."""

    shelf: ClassVar[str] = "penstock.parts.trackers"

    @abstractmethod
    def sink(self, folder: Path) -> Callable[[Event], None]:
        """A function that takes each event of the run in `folder`; `measured` events have `step` and numbers.

        What it writes lies below `folder` (`core.paths.below`), under none of `OWN_NAMES`."""


class Runtime(Part):
    """What runs a bundle's program.

    Laws (penstock.testing.laws.runtimes): a row is answered alone as in a batch, within 1e-5; calls leave no
    trace.
    """

    shelf: ClassVar[str] = "penstock.parts.runtimes"
    foreign: ClassVar[bool] = False
    """True: opening runs code that came with the bundle; it is done only when the user trusts it."""

    @abstractmethod
    def open(
        self, folder: Path, program: Mapping[str, Any], *, threads: int
    ) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """The program as a function: arrays by input name, `[B, …]` each → arrays by output name.

        Args:
            folder: the bundle's folder, verified.
            program: what `bundle.json` says of it: `file`, `inputs` and `outputs` (each a list of `name`,
                `dtype`, `shape` without the batch axis), and the runtime's own facts.
            threads: how many threads one call may use.

        Raises:
            BundleError: the program cannot be read.
            MissingPackage: the runtime is not installed.
        """

    @abstractmethod
    def specimen(self, folder: Path) -> dict[str, Any]:
        """Write a small program for the laws to judge, and return what `bundle.json` would say of it.

        It takes `a.value` and `b.value`, float32 `[B]`, and gives `y.value`, float32 `[B]`: a + 2 b.
        """


def model_inputs(specs: FeatureSpecs) -> list[str]:
    """The batch keys of these features, in the order that an exported program takes them."""
    # Whoever exports a program and whoever calls it have to agree on this order.
    return [f"{name}.{array}" for name, arrays in specs.items() for array in arrays]


__all__ = [
    "Combiner",
    "Decoder",
    "Encoded",
    "Encoder",
    "GradientCompressor",
    "Exchanging",
    "Growth",
    "Launcher",
    "OWN_NAMES",
    "Objective",
    "Phase",
    "Recovery",
    "Runtime",
    "SharingCombiner",
    "Tracker",
    "Wire",
    "World",
    "model_inputs",
]

if TYPE_CHECKING:
    _unused = torch
