"""One optimiser step, exact on any number of processes.

A global batch is the same whatever the number of ranks; a rank has a slice of it, perhaps an empty one. Each
rank goes backward on (sum of its rows' losses) / (rows of the global batch); the sum over ranks, times rows /
(weight of the global batch), is then the gradient of the weighted mean, whatever the slices. Pieces of an
accumulated batch likewise.

The random state of a step (dropout) is derived from seed, step and rank alone: a resumed run needs no memory
of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from penstock.contracts.learn import Decoder, Exchanging, Phase, World
from penstock.contracts.tensors import FeatureSpecs
from penstock.core.errors import TrainingError
from penstock.core.identity import derive_seed
from penstock.data.feed import Feed
from penstock.data.shards import row_id_text
from penstock.model import Network, build_network, decoders_of, target_specs
from penstock.recipe.parallel import Outer
from penstock.recipe.schema import Recipe
from penstock.train.averaging import Averaging
from penstock.train.blocks import blocks_of, compute_again, sync_norms
from penstock.train.communicator import Communicator
from penstock.train.freezing import freeze
from penstock.train.gradients import Gradients
from penstock.train.microbatches import Microbatches
from penstock.train.nonfinite import NotFinite
from penstock.train.optim import MovingAverage, make_optimiser, rate
from penstock.train.parallel import Precision, compiled, depends, device_of, shared

Batch = dict[str, Tensor]


@dataclass
class _Phase:
    declared: Phase
    gradients: Any
    """`Gradients`, or `ShardedGradients`."""
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
    """What ranks wished for, summed over them: 1 for each that would stop, `SAVE` for each that would keep a
    checkpoint.
    """

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


class Learner:
    """The network of a recipe with all that moves it."""

    def __init__(self, recipe: Recipe, feed: Feed, world: World) -> None:
        self.recipe, self.world = recipe, world
        self.device = device_of(world)
        self.peers = Communicator(world)
        self._on_cpu = self.device.type == "cpu"
        self.network: nn.Module = build_network(recipe, feed.encoding, seed=recipe.seed).to(self.device)
        self._frozen = freeze(self.network, recipe)
        self.decoders: dict[str, Decoder] = decoders_of(recipe, feed.encoding)
        self.specs: FeatureSpecs = target_specs(recipe, feed.encoding)
        self.precision = Precision(recipe.train.precision, self.device)
        self._divide()
        self.model: Any = compiled(self.network, self.device) if recipe.train.compile else self.network
        self._is_weighted = feed.encoding.weight is not None
        self.names = {id(p): name for name, p in self.network.named_parameters()}
        self._unchecked: list[tuple[int, Number, Number | None, Tensor]] = []
        self.draws: bool | None = None
        """Whether a step draws from chance (dropout, mixing of rows), as its first step here has shown; None
        before.
        """
        self.phases = [
            self._phase(phase) for phase in recipe.train.objective.phases(self.decoders, self.specs)
        ]
        self.averaging: Averaging | None = None
        if recipe.parallel.strategy == "local_sgd":
            self.averaging = Averaging(
                self.network,
                self.peers,
                self.device,
                outer=recipe.parallel.outer or Outer(),
                exchange=recipe.parallel.gradients,
            )
        self._steps, self._plain_bytes, self._since_average = 0, 0.0, 0

    def _divide(self) -> None:
        """What `parallel` asks for, done to the network."""
        declared = self.recipe.parallel
        several = self.world.size > 1
        self._synced = (
            sync_norms(self.network, self.peers) if several and declared.batchnorm == "sync" else []
        )
        blocks = blocks_of(self.network)
        if declared.activation_checkpointing:
            for block in blocks:
                compute_again(block)
        self._blocks = len(blocks)
        self.is_sharded = several and declared.strategy == "fsdp"
        part = None
        if self.is_sharded:
            from penstock.train import sharding  # it imports late what only it needs

            # Not the decoders': one that tells a text calls its blocks as often as the text is long.
            inner = (
                {id(m) for head in self.network.decoders.values() for m in head.modules()}
                if isinstance(self.network, Network)
                else set()
            )
            sharding.shard(
                self.network, [block for block in blocks if id(block) not in inner], self.peers, self.device
            )
            self._sharding, part = sharding, sharding.local
        self._passes = Microbatches(
            self.world,
            self.device,
            pieces=self.recipe.train.accumulate,
            synced=self._synced,
            sharding=self._sharding if self.is_sharded else None,
            network=self.network,
        )
        self.average = (
            MovingAverage(self.network, self.recipe.train.ema, part=part) if self.recipe.train.ema else None
        )

    def _phase(self, phase: Phase) -> _Phase:
        parameters = [p for p in phase.parameters(self.network) if p.requires_grad]
        if not parameters:
            raise TrainingError(
                f"there is nothing to learn: the phase {phase.name!r} of {self.recipe.train.objective.type!r}"
                " has no parameters that may move."
            )
        gradients: Any
        if self.is_sharded:
            gradients = self._sharding.ShardedGradients(parameters, self.network, self.peers, self.device)
        elif self.recipe.parallel.strategy == "local_sgd":
            gradients = Gradients(parameters, Communicator(World()), self.device)
        else:
            gradients = Gradients(parameters, self.peers, self.device, self.recipe.parallel.gradients)
        return _Phase(
            phase,
            gradients,
            make_optimiser(self.recipe.train, self.network, parameters, divided=self.is_sharded),
        )

    def to_train(self) -> None:
        """Training mode, but for encoders that stay as they are."""
        self.network.train()
        for module in self._frozen:
            module.eval()

    # -- the step --------------------------------------------------------------------------------------------

    def step(
        self,
        batch: Batch,
        *,
        rows: int,
        step: int,
        total: int,
        scale: float,
        stop: bool = False,
        save: bool = False,
        wants_norm: bool = False,
        is_last: bool = False,
    ) -> Stepped:
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
            NotFinite: the loss or the gradient is; names the step and the rows. With `on_nan: skip` nothing
                has moved then.
        """
        train, scaler = self.recipe.train, self.precision.scaler
        row_id = batch["row_id"]
        batch = (
            batch
            if self._on_cpu
            else {name: array.to(self.device, non_blocking=True) for name, array in batch.items()}
        )
        weight: Number = batch["weight"].sum() if self._is_weighted else float(len(row_id))
        learning_rate = train.lr * rate(train.schedule, step, total, scale)
        told = Stepped(0.0, 0.0, None)
        wish = int(stop) + SAVE * int(save)
        before = self._before_step() if train.on_nan == "skip" else None
        looks = self._on_cpu or before is not None
        apart = self.averaging is not None
        over = len(row_id) if apart else rows  # a worker that steps alone learns from its own rows' mean
        company = self._passes.company(batch, rows)
        self._seed(step)
        chance = self._generator.get_state() if self.draws is None and len(row_id) else None
        for i, phase in enumerate(self.phases if over else []):
            if step % phase.declared.every:
                continue
            phase.gradients.clear()
            loss = self._backward(phase, batch, company, rows=rows, over=over)
            loss_scale = (
                1.0
                if scaler is None or (phase.gradients.exchanging is None and not self.is_sharded)
                else scaler.get_scale()
            )
            loss_sum, weight_sum, wishes = phase.gradients.reduce(
                loss, weight, wish, rows=over if self._is_weighted else None, loss_scale=loss_scale
            )
            if looks and not math.isfinite(loss_sum):
                raise self._not_finite(step, batch, company, "loss", phase.declared, before)
            if scaler is not None:
                scaler.unscale_(phase.optimiser)
            norm = (
                phase.gradients.norm()
                if train.clip is not None or wants_norm or train.on_nan != "stop"
                else None
            )
            if looks and scaler is None and norm is not None and not math.isfinite(norm):
                raise self._not_finite(step, batch, company, "gradient", phase.declared, before)
            if train.clip is not None and norm is not None:
                phase.gradients.clip(norm, train.clip)
            for group in phase.optimiser.param_groups:
                group["lr"] = learning_rate * group.get("lr_scale", 1.0)
            if scaler is None:
                phase.optimiser.step()
            else:
                scaler.step(phase.optimiser)
            if i == 0:
                told = Stepped(
                    loss_sum * over, weight_sum if self._is_weighted else float(over), norm, int(wishes)
                )
                if not looks:
                    self._unchecked.append((step, loss_sum, norm if scaler is None else None, row_id))
        if chance is not None:
            self.draws = not torch.equal(chance, self._generator.get_state())
        if scaler is not None and over:
            scaler.update()
        self._steps += 1
        self._plain_bytes += sum(
            phase.gradients.plain_bytes for phase in self.phases if step % phase.declared.every == 0
        )
        agrees = self.agrees(step, is_last)
        if self.averaging is not None:
            told = self._averaged(self.averaging, told, wish) if agrees else self._alone(self.averaging, told)
        self._since_average += 1
        if self.average is not None and agrees:
            self.average.update(step, steps=self._since_average)
        if agrees:
            self._since_average = 0
        return told

    def _alone(self, averaging: Averaging, told: Stepped) -> Stepped:
        averaging.learnt(told.loss, told.weight)
        return Stepped(0.0, 0.0, told.norm)

    def _averaged(self, averaging: Averaging, told: Stepped, wish: int) -> Stepped:
        averaging.learnt(told.loss, told.weight)
        loss, weight, wishes = averaging.agree(wish)
        if self.precision.scaler is not None:
            self.precision.scaler.load_state_dict(shared(self.precision.scaler.state_dict(), self.world))
        return Stepped(loss, weight, told.norm, wishes)

    def _backward(
        self, phase: _Phase, batch: Batch, company: Batch | None, *, rows: int, over: int
    ) -> Tensor:
        """Add the gradients of this rank's rows to the phase's; returns the sum of their losses over
        `over`.
        """
        whole = torch.zeros((), device=self.device)
        for piece in self._passes.of(batch, company, rows):
            with self.precision.lowered():
                losses = phase.declared.loss(self.model, piece)
            loss = losses.sum() / over
            if piece is company:
                loss = loss * 0.0
            (loss if self.precision.scaler is None else self.precision.scaler.scale(loss)).backward()
            whole = whole + loss.detach()
            if self.is_sharded:
                phase.gradients.passed()
        return whole

    @property
    def _generator(self) -> torch.Generator:
        return (
            torch.cuda.default_generators[self.device.index]
            if self.device.type == "cuda"
            else torch.default_generator
        )

    def _seed(self, step: int) -> None:
        # Not torch.manual_seed: it looks up every kind of device, 75 µs a call.
        seed = derive_seed(self.recipe.seed, "step", step, self.world.rank)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index].manual_seed(seed)

    # -- what cannot be learnt from --------------------------------------------------------------------------

    def check(self) -> None:
        """On an accelerator, look at the steps since the last call: looking at each would make it wait each
        time. On a CPU, and with `on_nan: skip`, `step` has looked already.

        Raises:
            NotFinite: as `step`.
        """
        unchecked, self._unchecked = self._unchecked, []
        for step, loss, norm, row_id in unchecked:
            for what, value in (("loss", loss), ("gradient", norm)):
                if value is not None and not math.isfinite(float(value)):
                    raise self._error(step, what, [], _names(row_id))

    def _before_step(self) -> dict[str, Any]:
        """What a step changes before it is known to be sound: layers' memories of batches, and with several
        phases the weights and optimisers of those that come first.
        """
        found: dict[str, Any] = {"buffers": [buffer.clone() for buffer in self.network.buffers()]}
        if len(self.phases) > 1:
            found["parameters"] = [parameter.detach().clone() for parameter in self.network.parameters()]
            found["optimisers"] = [copy.deepcopy(phase.optimiser.state_dict()) for phase in self.phases]
            found["exchanges"] = [tensor.clone() for tensor in self._exchanged()]
        return found

    @torch.no_grad()
    def _undo(self, before: Mapping[str, Any]) -> None:
        for buffer, was in zip(self.network.buffers(), before["buffers"], strict=True):
            buffer.copy_(was)
        for parameter, was in zip(self.network.parameters(), before.get("parameters", ()), strict=False):
            parameter.copy_(was)
        for phase, was in zip(self.phases, before.get("optimisers", ()), strict=False):
            phase.optimiser.load_state_dict(was)
        for tensor, was in zip(self._exchanged(), before.get("exchanges", ()), strict=False):
            tensor.copy_(was)
        if self.precision.scaler is not None and len(self.phases) > 1:
            # it forgets which phases it has stepped
            self.precision.scaler.update(self.precision.scaler.get_scale())

    def _exchanged(self) -> list[Tensor]:
        return [
            tensor
            for exchanging in self.exchangings().values()
            for tensor in (*exchanging.errors.values(), *exchanging.shared.values())
        ]

    def _not_finite(
        self,
        step: int,
        batch: Batch,
        company: Batch | None,
        what: str,
        phase: Phase,
        before: Mapping[str, Any] | None,
    ) -> NotFinite:
        """The error that names the rows; every rank calls it, since the rows may be any rank's (a worker
        apart, for its own).
        """
        rows = batch if len(batch["row_id"]) else company
        self._passes.counts(rows is batch)
        with torch.no_grad(), self.precision.lowered():
            losses = (
                phase.loss(self.model, rows)[: len(batch["row_id"])] if rows is not None else torch.zeros(0)
            )
        mine = _names(batch["row_id"][~torch.isfinite(losses.detach().float())]), _names(batch["row_id"])
        every: list[Any] = [mine]
        if self.world.size > 1 and self.averaging is None:
            every = [None] * self.world.size
            dist.all_gather_object(every, mine)
        if before is not None:
            self._undo(before)
        return self._error(
            step,
            what,
            [name for names, _ in every for name in names],
            [name for _, names in every for name in names],
        )

    def _error(self, step: int, what: str, culprits: list[str], batch: list[str]) -> NotFinite:
        rows = culprits or batch
        shown = ", ".join(rows[:5]) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
        which = (
            f"row{'s' if len(rows) != 1 else ''} {shown}" if culprits else f"in a batch of the rows {shown}"
        )
        return NotFinite(
            f"the {what} is not finite at step {step}, {which}. Look at"
            f" {'those rows' if culprits else 'the data'} for extreme values; otherwise lower train.lr (now"
            f" {self.recipe.train.lr:g}){'' if self.recipe.train.clip else ' or set train.clip'}.",
            step=step,
            culprits=tuple(culprits),
            batch=tuple(batch),
        )

    # -- among ranks -----------------------------------------------------------------------------------------

    def agrees(self, step: int, is_last: bool) -> bool:
        """Whether all ranks have the same weights after this step, and have heard of each other's loss and
        wishes.
        """
        return self.averaging is None or is_last or (step + 1) % self.recipe.parallel.interval == 0

    def depends(self) -> list[str]:
        """What the user should know of the number of processes: why the answer depends on it by more than
        rounding.
        """
        return depends(self.recipe, self.world, self.network, blocks=self._blocks)

    def communication(self) -> dict[str, Any]:
        """`bytes_per_step`: what a rank has sent, on average over the steps of this process; `ratio`: how
        many times less that is than gradients in float32 would have been in every step (None where nothing is
        sent).
        """
        peers = self.peers
        plain = 2 * (peers.size - 1) / peers.size * self._plain_bytes
        return {
            "bytes_per_step": round(peers.sent_bytes / max(self._steps, 1), 1),
            "ratio": round(plain / peers.sent_bytes, 3) if peers.sent_bytes else None,
        }

    def exchangings(self) -> dict[str, Exchanging]:
        """The exchanges at work, by whose they are."""
        found = {phase.declared.name: phase.gradients.exchanging for phase in self.phases} | {
            "@movements": self.averaging.exchanging if self.averaging else None
        }
        return {whose: exchanging for whose, exchanging in found.items() if exchanging is not None}

    # -- without moving weights ------------------------------------------------------------------------------

    def accompany(self, batch: Batch, rows: int) -> None:
        """Where weights are divided, judging is a collective: a rank without rows judges another's, for
        company. Every rank calls, before `judge`.

        Args:
            rows: of the global batch.
        """
        if self.is_sharded and rows < self.world.size:
            lent = self._passes.company({name: array.to(self.device) for name, array in batch.items()}, rows)
            if lent is not None and not len(batch["row_id"]):
                self.judge(lent)

    @torch.no_grad()
    def judge(self, batch: Batch) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """The sum of the rows' losses of the first phase, and each target's answers.

        Shapes `[]` and `[b, …]`.

        The model is called once: a loss is free to call it, and gets what it has said already.
        """
        batch = {name: array.to(self.device) for name, array in batch.items()}
        once = _Once(self.model)
        with self.precision.lowered():
            losses = self.phases[0].declared.loss(once, batch)
            raw = once(batch)
            # an answer is what is said without being told
            if any(decoder.told for decoder in self.decoders.values()):
                raw = self.model(
                    {
                        name: array
                        for name, array in batch.items()
                        if name.rpartition(".")[0] not in self.decoders
                    }
                )
        answers = {
            name: decoder.answer(raw[name].float(), self.specs[name])
            for name, decoder in self.decoders.items()
        }
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
