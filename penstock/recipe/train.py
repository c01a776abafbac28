"""Words about training: `train`, and what stands in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from penstock.contracts.amounts import Seconds
from penstock.contracts.learn import Objective
from penstock.contracts.optim import Optimiser, Schedule
from penstock.contracts.part import Strict, part
from penstock.recipe.identifiers import Names
from penstock.recipe.order import TrainOrder


class EarlyStop(Strict):
    """Stop when the watched metric of the validation split has not improved."""

    patience: int = Field(5, ge=1)
    """Epochs without improvement before stopping."""
    metric: str = "loss"
    """`loss`, or `<target>.<metric>`; the validation loss unless given, since it is smooth and defined for
    every target. A metric of your own stands in `evaluate.metrics`, too.
    """
    min_delta: float = Field(0.0, ge=0)
    """An improvement smaller than this does not count."""


class CheckpointPolicy(Strict):
    """When training is kept, so that it can go on as if nothing had happened. Also at each epoch's end."""

    every_steps: int | None = Field(None, ge=1)
    """Every so many steps."""
    every_seconds: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """`auto`: spaced so that the pauses, which are measured, stay under 2 % of the time, but every 30 s at
    most and every 10 minutes at least; with `every_steps`, by the steps alone.
    """
    background: bool = True
    """The loop pauses only while tensors are copied aside, and a thread writes them: twice the state is in
    memory. False: training waits until it is written.
    """
    keep: int = Field(2, ge=1)
    """How many of the last ones are kept, beside the best."""
    keep_best: int = Field(1, ge=1)
    """How many of the best epochs' are kept."""


class Start(Strict):
    """Where weights start."""

    weights: str
    """A finished run (`run-…`) or a bundle (`bundle-…`) in the store: every tensor of an equal name and shape
    is taken, and the rest is said. An encoder's name is its type and its input's name.
    """
    only: Names = ()
    """Inputs whose encoders are taken, and nothing else; all that fits unless given."""


def _start(value: Any) -> Any:
    return {"weights": value} if isinstance(value, str) else value


def _order(value: Any) -> Any:
    return {"shuffle": value} if isinstance(value, str) else value


class Train(Strict):
    """How the model learns."""

    epochs: int = Field(20, ge=1)
    budget: Seconds | None = None
    """About how long training may take where it begins, such as `10min`; seconds where it is a number.

    Steps are measured first. Where the declared epochs take longer, there are fewer, and the schedule of the
    learning rate ends with them. What was chosen is said, kept with the run and used again when it is
    resumed. The machine decides then how many steps there are; without a budget it never does.
    """
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Rows per optimiser step over all processes.

    `auto`: about 1/128 of the training split as a power of two in 32–1024, so that small data still gets
    enough steps; it depends on the data alone, never on the machine.
    """
    accumulate: int = Field(1, ge=1)
    """Cut each batch into this many pieces, one after another, and step once."""
    order: Annotated[TrainOrder, BeforeValidator(_order)] = TrainOrder()
    """In which order rows come: a word for `shuffle`, or a mapping.

    It is the training split's; the others are read as they lie.
    """
    lr: float = Field(1e-3, gt=0, allow_inf_nan=False)
    """Never scaled in silence."""
    weight_decay: float = Field(1e-4, ge=0)
    """Not applied to biases, norms and embeddings."""
    optimiser: Optimiser = Field(part("adamw"), validate_default=True)
    """How weights move by their gradients."""
    schedule: Schedule = Field(part("cosine"), validate_default=True)
    """How the learning rate moves over training."""
    clip: float | None = Field(1.0, gt=0)
    """Largest norm of the whole gradient; null for none."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    """torch.compile: pays on long runs; needs a C++ compiler on the machine."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights; validation and the bundle then use the
    average.
    """
    early_stop: EarlyStop | None = EarlyStop()
    objective: Objective = Field(part("supervised"), validate_default=True)
    class_weights: dict[str, Literal["balanced"] | dict[str, float]] = {}
    """By target: weights of its classes in the loss; `balanced` weighs each class by 1/frequency."""
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    from_: Annotated[Start | None, BeforeValidator(_start)] = Field(None, alias="from")
    """Earlier weights to start from: a run, a bundle, or `{weights: bundle-…, only: [bio]}`.

    See `fitted_from` of the features.
    """
    freeze: Names = ()
    """Inputs whose encoders stay as they start."""
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    """A loss or gradient that is infinite or not a number: `stop` names the rows; `skip` leaves that batch
    out, and says so; `rollback` goes back to the last checkpoint and leaves that batch out from then on. Both
    end after ten in a row.
    """
    deterministic: bool = True
    """Ask torch for deterministic kernels, so that one seed on one machine gives one set of weights."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many optimiser steps, whatever `epochs` says."""
