"""One optimiser step, exact on any number of processes.

A global batch is the same whatever the number of ranks; a rank has a slice of it, perhaps an empty one. Each rank goes
backward on (sum of its rows' losses) / (rows of the global batch); the sum over ranks, times rows / (weight of the
global batch), is then the gradient of the weighted mean, whatever the slices. Pieces of an accumulated batch likewise.

The random state of a step (dropout) is derived from seed, step and rank alone: a resumed run needs no memory of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from penstock.contracts.learn import Decoder, Phase, World
from penstock.contracts.tensors import FeatureSpecs
from penstock.core.errors import StoreError, TrainingError
from penstock.core.identity import derive_seed
from penstock.data.feed import Feed
from penstock.data.shards import row_id_text
from penstock.model import build_network, decoders_of, target_specs
from penstock.recipe.schema import Recipe
from penstock.train.checkpoint import flatten_optimiser, restore_optimiser
from penstock.train.optim import MovingAverage, make_optimiser, rate
from penstock.train.parallel import Gradients, Precision, compiled, device_of
from penstock.train.start import freeze

Batch = dict[str, Tensor]
_TINY = torch.finfo(torch.float32).tiny


@dataclass
class _Phase:
    declared: Phase
    gradients: Gradients
    optimiser: torch.optim.Optimizer


Number = Tensor | float
"""A float on a CPU; on an accelerator a tensor `[]` that may not be computed yet."""


@dataclass(frozen=True)
class Stepped:
    """What one step came to, over all ranks."""

    loss: Number
    """The weighted sum of the rows' losses of the first phase."""
    weight: Number
    """The sum of the rows' weights."""
    norm: Number | None
    """The gradient's L2 norm before clipping; None if nobody needed it."""
    wishes: int = 0
    """What ranks wished for, summed over them: 1 for each that would stop, `SAVE` for each that would keep a checkpoint."""

    @property
    def stop(self) -> bool:
        """A rank wishes to stop."""
        return self.wishes % SAVE > 0

    @property
    def save(self) -> bool:
        """A rank wishes a checkpoint of this step: all of them have their part in one."""
        return self.wishes >= SAVE


SAVE = 1 << 12
"""More than there are ranks; few enough of them fit float32 exactly."""


@dataclass(frozen=True)
class Held:
    """Tensors by name, whole."""

    model: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    average: dict[str, Tensor]
    extra: dict[str, dict[str, Tensor]]
    """By name, what a strategy or an exchange remembers besides."""


class NotFinite(TrainingError):
    """The loss or the gradient is infinite or not a number; equal at every rank.

    Args:
        step: of the batch, from 0.
        culprits: ids of the rows whose losses are not finite, where that is known.
        batch: ids of all the rows of the batch (of this rank, where a device is looked at late).
    """

    def __init__(self, message: str, *, step: int = -1, culprits: tuple[str, ...] = (), batch: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.step, self.culprits, self.batch = step, culprits, batch


class Learner:
    """The network of a recipe with all that moves it."""

    def __init__(self, recipe: Recipe, feed: Feed, world: World) -> None:
        self.recipe, self.world = recipe, world
        self.device = device_of(world)
        self._on_cpu = self.device.type == "cpu"
        self.network: nn.Module = build_network(recipe, feed.encoding, seed=recipe.seed).to(self.device)
        self._frozen = freeze(self.network, recipe)
        self.decoders: dict[str, Decoder] = decoders_of(recipe, feed.encoding)
        self.specs: FeatureSpecs = target_specs(recipe, feed.encoding)
        self.precision = Precision(recipe.train.precision, self.device)
        self.model: Any = compiled(self.network, self.device) if recipe.train.compile else self.network
        self.average = MovingAverage(self.network, recipe.train.ema) if recipe.train.ema else None
        self._is_weighted = feed.encoding.weight is not None
        self._names = {id(p): name for name, p in self.network.named_parameters()}
        self._unchecked: list[tuple[int, Number, Number | None, Tensor]] = []
        self._phases = [self._phase(phase) for phase in recipe.train.objective.phases(self.decoders, self.specs)]

    def _phase(self, phase: Phase) -> _Phase:
        parameters = [p for p in phase.parameters(self.network) if p.requires_grad]
        if not parameters:
            raise TrainingError(f"there is nothing to learn: the phase {phase.name!r} of {self.recipe.train.objective.type!r} has no parameters that may move.")
        return _Phase(phase, Gradients(parameters, self.world, self.device), make_optimiser(self.recipe.train, self.network, parameters))

    def to_train(self) -> None:
        """Training mode, but for encoders that stay as they are."""
        self.network.train()
        for module in self._frozen:
            module.eval()

    # -- the step ----------------------------------------------------------------------------------------------------

    def step(self, batch: Batch, *, rows: int, step: int, total: int, scale: float, stop: bool = False, save: bool = False, wants_norm: bool = False, is_last: bool = False) -> Stepped:
        """Move the weights once.

        Args:
            batch: this rank's slice of the global batch.
            rows: of the global batch, over all ranks.
            step: from 0; `total` are planned.
            scale: what a plateau made of the rate.
            stop: this rank wishes to stop after this step.
            save: it wishes a checkpoint after this step.
            wants_norm: compute the gradient's norm even where no clipping needs it.
            is_last: of its epoch, or of all: ranks that have moved apart must agree now.

        Raises:
            NotFinite: the loss or the gradient is; names the step and the rows. With `on_nan: skip` nothing has moved then.
        """
        train, scaler = self.recipe.train, self.precision.scaler
        row_id = batch["row_id"]
        batch = batch if self._on_cpu else {name: array.to(self.device, non_blocking=True) for name, array in batch.items()}
        weight: Number = batch["weight"].sum() if self._is_weighted else float(len(row_id))
        learning_rate = train.lr * rate(train.schedule, step, total, scale)
        told = Stepped(0.0, 0.0, None)
        wish = int(stop) + SAVE * int(save)
        before = self._before_step() if train.on_nan == "skip" else None
        looks = self._on_cpu or before is not None
        self._seed(step)
        for i, phase in enumerate(self._phases):
            if step % phase.declared.every:
                continue
            phase.gradients.clear()
            loss = self._backward(phase, batch, rows)
            loss_sum, weight_sum, stops = phase.gradients.reduce(loss, weight, wish)
            if looks and not math.isfinite(loss_sum):
                raise self._not_finite(step, batch, "loss", phase.declared, before)
            if scaler is not None:
                scaler.unscale_(phase.optimiser)
            if self._is_weighted:
                # A batch of zero weight has a zero gradient; any number times that is right.
                phase.gradients.scale(rows / (max(weight_sum, _TINY) if self._on_cpu else weight_sum.clamp_min(_TINY)))
            norm = phase.gradients.norm() if train.clip is not None or wants_norm or train.on_nan != "stop" else None
            if looks and scaler is None and norm is not None and not math.isfinite(norm):
                raise self._not_finite(step, batch, "gradient", phase.declared, before)
            if train.clip is not None and norm is not None:
                phase.gradients.clip(norm, train.clip)
            for group in phase.optimiser.param_groups:
                group["lr"] = learning_rate * group.get("lr_scale", 1.0)
            if scaler is None:
                phase.optimiser.step()
            else:
                scaler.step(phase.optimiser)
            if i == 0:
                told = Stepped(loss_sum * rows, weight_sum if self._is_weighted else float(rows), norm, int(stops))
                if not looks:
                    self._unchecked.append((step, loss_sum, norm if scaler is None else None, row_id))
        if scaler is not None:
            scaler.update()
        if self.average is not None:
            self.average.update(step)
        return told

    def _backward(self, phase: _Phase, batch: Batch, rows: int) -> Tensor:
        """Add the gradients of this rank's rows to the phase's; returns the sum of their losses over `rows`."""
        whole = torch.zeros((), device=self.device)
        for piece in self._pieces(batch):
            with self.precision.lowered():
                losses = phase.declared.loss(self.model, piece)
            loss = losses.sum() / rows
            (loss if self.precision.scaler is None else self.precision.scaler.scale(loss)).backward()
            whole = whole + loss.detach()
        return whole

    def _pieces(self, batch: Batch) -> Iterator[Batch]:
        """The rank's rows in `accumulate` near-equal pieces, without empty ones."""
        rows, pieces = len(batch["row_id"]), self.recipe.train.accumulate
        if pieces == 1:
            if rows:
                yield batch
            return
        for i in range(pieces):
            start, end = i * rows // pieces, (i + 1) * rows // pieces
            if end > start:
                yield {name: array[start:end] for name, array in batch.items()}

    def _seed(self, step: int) -> None:
        # Not torch.manual_seed: it looks up every kind of device, 75 µs a call.
        seed = derive_seed(self.recipe.seed, "step", step, self.world.rank)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index].manual_seed(seed)

    # -- what cannot be learnt from ----------------------------------------------------------------------------------

    def check(self) -> None:
        """On an accelerator, look at the steps since the last call: looking at each would make it wait each time. On a CPU, and
        with `on_nan: skip`, `step` has looked already.

        Raises:
            NotFinite: as `step`.
        """
        unchecked, self._unchecked = self._unchecked, []
        for step, loss, norm, row_id in unchecked:
            for what, value in (("loss", loss), ("gradient", norm)):
                if value is not None and not math.isfinite(float(value)):
                    raise self._error(step, what, [], _names(row_id))

    def _before_step(self) -> dict[str, Any]:
        """What a step changes before it is known to be sound: layers' memories of batches, and with several phases the
        weights and optimisers of those that come first."""
        found: dict[str, Any] = {"buffers": [buffer.clone() for buffer in self.network.buffers()]}
        if len(self._phases) > 1:
            found["parameters"] = [parameter.detach().clone() for parameter in self.network.parameters()]
            found["optimisers"] = [copy.deepcopy(phase.optimiser.state_dict()) for phase in self._phases]
        return found

    @torch.no_grad()
    def _undo(self, before: Mapping[str, Any]) -> None:
        for buffer, was in zip(self.network.buffers(), before["buffers"], strict=True):
            buffer.copy_(was)
        for parameter, was in zip(self.network.parameters(), before.get("parameters", ()), strict=False):
            parameter.copy_(was)
        for phase, was in zip(self._phases, before.get("optimisers", ()), strict=False):
            phase.optimiser.load_state_dict(was)
        if self.precision.scaler is not None and len(self._phases) > 1:
            self.precision.scaler.update(self.precision.scaler.get_scale())  # it forgets which phases it has stepped

    def _not_finite(self, step: int, batch: Batch, what: str, phase: Phase, before: Mapping[str, Any] | None) -> NotFinite:
        """The error that names the rows; every rank calls it, since the rows may be any rank's."""
        with torch.no_grad(), self.precision.lowered():
            losses = phase.loss(self.model, batch) if len(batch["row_id"]) else torch.zeros(0)
        mine = _names(batch["row_id"][~torch.isfinite(losses.detach().float())]), _names(batch["row_id"])
        every: list[Any] = [mine]
        if self.world.size > 1:
            every = [None] * self.world.size
            dist.all_gather_object(every, mine)
        if before is not None:
            self._undo(before)
        return self._error(step, what, [name for names, _ in every for name in names], [name for _, names in every for name in names])

    def _error(self, step: int, what: str, culprits: list[str], batch: list[str]) -> NotFinite:
        rows = culprits or batch
        shown = ", ".join(rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
        which = f"row{'s' if len(rows) != 1 else ''} {shown}" if culprits else f"in a batch of the rows {shown}"
        return NotFinite(
            f"the {what} is not finite at step {step}, {which}. Look at {'those rows' if culprits else 'the data'} for extreme values; "
            f"otherwise lower train.lr (now {self.recipe.train.lr:g}){'' if self.recipe.train.clip else ' or set train.clip'}.",
            step=step, culprits=tuple(culprits), batch=tuple(batch))

    # -- among ranks -------------------------------------------------------------------------------------------------

    def agrees(self, step: int, is_last: bool) -> bool:
        """Whether all ranks have the same weights after this step, and have heard of each other's loss and wish to stop."""
        return True

    def depends(self) -> list[str]:
        """Why the answer will depend on the number of processes by more than rounding."""
        return []

    def communication(self) -> dict[str, Any]:
        """`bytes_per_step`: what a rank has sent, on average over the steps so far; `ratio`: how many times less that is than
        gradients in float32 would have been."""
        return {}

    # -- memory ------------------------------------------------------------------------------------------------------

    def held(self) -> Held | None:
        """What a checkpoint keeps, at rank 0; None at the others. Every rank calls."""
        if self.world.rank:
            return None
        return Held(dict(self.network.state_dict()), self.optimisers(), self.average.tensors if self.average else {}, {})

    def optimisers(self) -> dict[str, Tensor]:
        """What the optimisers remember, by `<phase>/<parameter>/<state>`."""
        return {name: tensor for phase in self._phases for name, tensor in flatten_optimiser(phase.optimiser, self._names, phase.declared.name).items()}

    def recall(self, model: Mapping[str, Tensor], optimiser: Mapping[str, Tensor], average: dict[str, Tensor], scaler: dict[str, Any] | None, extra: Mapping[str, dict[str, Tensor]]) -> list[str]:
        """Take up what a checkpoint holds; returns what the user should hear of it.

        Raises:
            StoreError: its tensors are not this model's: other code built it.
        """
        ours = {name: list(tensor.shape) for name, tensor in self.network.state_dict().items()}
        differing = sorted(name for name in {*ours, *model} if name not in model or ours.get(name) != list(model[name].shape))
        if differing:
            raise StoreError(
                f"the checkpoint is of another model: {len(differing)} tensors differ ({', '.join(differing[:4])}{', …' if len(differing) > 4 else ''}). The code "
                "has changed since the run began; its world.json says which commit and packages it was. Go back to those, or train anew.")
        self.network.load_state_dict(dict(model))
        for phase in self._phases:
            restore_optimiser(phase.optimiser, self._names, phase.declared.name, optimiser)
        if self.average is not None:
            self.average.load(average)
        if self.precision.scaler is not None and scaler:
            self.precision.scaler.load_state_dict(scaler)
        return []

    # -- without moving weights --------------------------------------------------------------------------------------

    @torch.no_grad()
    def judge(self, batch: Batch) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """The sum of the rows' losses of the first phase, and each target's answers. Shapes `[]` and `[b, …]`.

        The model is called once: a loss is free to call it, and gets what it has said already.
        """
        batch = {name: array.to(self.device) for name, array in batch.items()}
        once = _Once(self.model)
        with self.precision.lowered():
            losses = self._phases[0].declared.loss(once, batch)
            raw = once(batch)
            if any(decoder.told for decoder in self.decoders.values()):  # an answer is what is said without being told
                raw = self.model({name: array for name, array in batch.items() if name.rpartition(".")[0] not in self.decoders})
        answers = {name: decoder.answer(raw[name].float(), self.specs[name]) for name, decoder in self.decoders.items()}
        return losses.float().sum(), answers


def _names(row_id: Tensor) -> list[str]:
    return row_id_text(row_id.cpu().numpy())


class _Once:
    """A model that answers a batch it has just answered without computing again."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._batch: Any = None
        self._raw: Any = None

    def __call__(self, batch: Batch) -> Any:
        if batch is not self._batch:
            self._batch, self._raw = batch, self._model(batch)
        return self._raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

