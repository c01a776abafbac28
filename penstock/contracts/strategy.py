"""What a strategy promises: how several processes train one model.

A `Strategy` is what a recipe declares, and light: it says what it forbids and what the user should know.
`open` makes an `ActiveStrategy` of it for one process, which answers the three questions a trainer has:

    gradients    how are the gradients of a phase combined?      `GradientBuffer`
    layout       which part of a tensor does this rank hold?     `Layout`
    averaging    when, and how, do ranks that step alone agree?  `Averaging`; None: they step together

The trainer asks nothing else, and no file of it knows a strategy by name. Checkpoints hold whole tensors at
rank 0, whatever the strategy, so that any number of processes and any strategy may go on from one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from penstock.contracts.learn import Exchanging, GradientCompressor, Wire
from penstock.contracts.part import Part

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Flags = tuple[bool, bool]
"""Whether a rank asks to stop, and for a checkpoint of the step."""


class Peers(Wire, Protocol):
    """The other ranks, counted."""

    def count(self, size_bytes: float) -> None:
        """Note that this rank takes part in a sum of so many bytes that goes another way than through
        here.
        """


class GradientBuffer(Protocol):
    """The gradients of the parameters of one phase, and how they are combined over ranks."""

    exchanging: Exchanging | None
    """The compressor at work, if they are sent by one; a checkpoint keeps what it remembers."""
    plain_bytes: float
    """Of these gradients in float32."""

    @property
    def needs_loss_scale(self) -> bool:
        """Whether `reduce` must know the loss scale of fp16."""

    def clear(self) -> None:
        """Set them to zero, before the first backward of a step."""

    def passed(self) -> None:
        """The network has gone forward and backward once more."""

    def reduce(
        self,
        loss: Tensor,
        weight: Tensor | float,
        flags: Flags,
        *,
        rows: int | None,
        loss_scale: float = 1.0,
    ) -> Any:
        """Combine them over ranks, in place; every rank calls.

        Args:
            loss: `[]`, the sum of this rank's losses over the rows that all divide by.
            weight: the sum of this rank's rows' weights.
            rows: of the global batch: gradients are then multiplied by rows / weight; None where every row
                weighs 1.
            loss_scale: what gradients are still multiplied with; 1 unless `needs_loss_scale`.

        Returns:
            (loss, weight, stop, save), summed over the ranks that step together: floats on a CPU, a tensor
            `[4]` on an accelerator.
        """

    def norm(self) -> Any:
        """The L2 norm of all of it: a float on a CPU, a tensor `[]` on an accelerator; every rank calls."""

    def clip(self, norm: Any, most: float) -> None:
        """Shorten it to `most` if it is longer; `norm` is what `norm` has said."""

    def scale(self, factor: Tensor | float) -> None:
        """Multiply all of them, in place."""


class Layout(Protocol):
    """Where the tensors of the network lie."""

    is_divided: bool
    """Whether ranks hold parts: then each pass through the network is a collective, and every rank must go
    forward and backward equally often.
    """

    def before_pass(self, *, is_last: bool) -> None:
        """A pass comes; `is_last` of its batch, whose backward must combine gradients."""

    def local(self, tensor: Tensor) -> Tensor:
        """This rank's part of a tensor of the network, in the same memory."""

    def whole(self, tensor: Tensor, *, keep: bool) -> Tensor | None:
        """All of a tensor, where it is to be kept; every rank calls."""

    def like(self, tensor: Tensor, other: Tensor) -> Tensor:
        """A whole tensor, laid out as `other` of the network is; no rank is asked."""

    def rewrapped(self, part: Tensor, other: Tensor) -> Tensor:
        """This rank's part as a tensor that is laid out like `other`."""


class WholeTensors:
    """The layout of a network that every rank has all of."""

    is_divided = False

    def before_pass(self, *, is_last: bool) -> None:
        """As `Layout.before_pass`: nobody waits."""

    def local(self, tensor: Tensor) -> Tensor:
        """`tensor`, unchanged."""
        return tensor

    def whole(self, tensor: Tensor, *, keep: bool) -> Tensor | None:
        """The tensor, where it is to be kept."""
        return tensor if keep else None

    def like(self, tensor: Tensor, other: Tensor) -> Tensor:
        """`tensor`, unchanged."""
        return tensor

    def rewrapped(self, part: Tensor, other: Tensor) -> Tensor:
        """`part`, unchanged."""
        return part


class Averaging(Protocol):
    """How ranks that step by their own rows alone come to the same weights again."""

    exchanging: Exchanging | None
    """The compressor at work, if movements are sent by one."""

    def learnt(self, loss: Tensor | float, weight: Tensor | float) -> None:
        """This rank took a step of its own: the weighted sum of its losses, and of its rows' weights."""

    def agree(self, flags: Flags) -> tuple[float, float, bool, bool]:
        """Give every rank the same weights, and layers the same memory of batches; every rank calls.

        Returns:
            (loss, weight, stop, save) of all ranks since the last time.
        """

    def begin(self) -> None:
        """What the weights are now is what all have agreed on."""

    def memory(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it, the same at every rank."""

    def recall(self, memory: dict[str, Tensor]) -> None:
        """The inverse of `memory`; the weights have been taken up already."""


@dataclass(frozen=True)
class Setting:
    """What a strategy is given to work with."""

    peers: Peers
    device: torch.device
    blocks: Sequence[nn.Module]
    """Modules of the network that may be gathered one by one: layers of a transformer, residual blocks."""
    compressor: GradientCompressor | None
    """How gradients (or movements) are sent, if not as they are."""


@dataclass(frozen=True)
class ActiveStrategy:
    """A strategy at work in one process."""

    gradients: Callable[[list[nn.Parameter]], GradientBuffer]
    """A buffer for the parameters of a phase."""
    layout: Layout = field(default_factory=WholeTensors)
    averaging: Averaging | None = None
    """None: ranks step together, by the gradient of the whole batch."""


class Strategy(Part):
    """How several processes train one model.

    Laws (penstock.testing.laws.strategies): where ranks agree they have the same weights and have heard the
    same numbers; a rank without rows harms nobody; what says nothing in `depends` gives the answer of one
    process; what is taken up from a checkpoint goes on the same.
    """

    shelf: ClassVar[str] = "penstock.parts.strategies"
    steps_alone: ClassVar[bool] = False
    """Whether ranks step by their own rows and agree only now and then: `open` then has an `averaging`."""

    @abstractmethod
    def open(self, network: nn.Module, setting: Setting) -> ActiveStrategy:
        """Put it to work on a network, which it may change in place; every rank calls, also where there is
        only one.
        """

    def agrees(self, step: int) -> bool:
        """Whether all ranks have the same weights after this step (from 0); a function of the step alone. The
        last step of an epoch always ends so, whatever is said here.
        """
        return True

    def refuses(self, word: str, value: Any) -> str | None:
        """Why a word of the recipe cannot go with it, None if it can.

        Args:
            word: `gradients` (of `parallel`; a compressor), `batchnorm` (of `parallel`; `sync`), or `on_nan`
                (of `train`; `skip` or `rollback`).
        """
        # Ranks that step together agree in every step, so nothing is forbidden.
        if not self.steps_alone:
            return None
        if word == "batchnorm":
            return (
                f"would make processes of {self.type} wait for each other in every step, which it is there to"
                " avoid. Use `each`, or the strategy ddp"
            )
        if word == "on_nan":
            return (
                f"{value!r} needs processes that find together what is not finite; with parallel.strategy"
                f" {self.type} one finds it alone, between averages. Use `stop`"
            )
        return None

    def alone(self) -> str | None:
        """What the user should know where there is one process: what it has nothing to do with."""
        return None

    def depends(self) -> str | None:
        """Why the answer depends on the number of processes by more than rounding; None if it does not."""
        return None

    def saves_memory(self) -> str | None:
        """What to try in its place where memory runs out, as a line of a recipe and what it brings."""
        return None


__all__ = [
    "ActiveStrategy",
    "Averaging",
    "Flags",
    "GradientBuffer",
    "Layout",
    "Peers",
    "Setting",
    "Strategy",
    "WholeTensors",
]
