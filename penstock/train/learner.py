"""One optimiser step, exact on any number of processes.

A global batch is the same whatever the number of ranks; a rank has a slice of it, perhaps an empty one. Each
rank goes backward on (sum of its rows' losses) / (rows of the global batch); the sum over ranks, times rows /
(weight of the global batch), is then the gradient of the weighted mean, whatever the slices. Pieces of an
accumulated batch likewise.

The random state of a step (dropout) is derived from seed, step and rank alone: a resumed run needs no memory
of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penstock.contracts.learn import Decoder, Exchanging, Phase, World
from penstock.contracts.strategy import ActiveStrategy, Flags, GradientBuffer, Setting
from penstock.contracts.tensors import FeatureSpecs
from penstock.core.errors import TrainingError, UserError
from penstock.core.identity import derive_seed
from penstock.encode.feed import Feed
from penstock.model import (
    build_network,
    decoders_of,
    networks_of,
    separate_members,
    target_specs,
)
from penstock.recipe.schema import Recipe
from penstock.shards.row_ids import row_id_text
from penstock.train.blocks import blocks_of, compute_again, sync_norms
from penstock.train.collectives import everyones, shared
from penstock.train.communicator import Communicator
from penstock.train.freezing import freeze
from penstock.train.microbatches import Microbatches
from penstock.train.nonfinite import NotFinite
from penstock.train.optim import MovingAverage, build_optimiser
from penstock.train.parallel import Precision, compiled, depends, device_of
from penstock.train.snapshot import StepSnapshot

Batch = dict[str, Tensor]


@dataclass
class _Phase:
    declared: Phase
    gradients: GradientBuffer
    optimiser: torch.optim.Optimizer


Number = Tensor | float
"""A float on a CPU; on an accelerator a tensor `[]` that may not be computed yet."""


@dataclass(frozen=True)
class StepResult:
    """What one step came to, over all ranks."""

    loss: Number
    """The weighted sum of the rows' losses of the first phase."""
    weight: Number
    """The sum of the rows' weights."""
    norm: Number | None
    """The gradient's L2 norm before clipping; None if nobody needed it."""
    stop: bool = False
    """A rank asks to stop."""
    save: bool = False
    """A rank asks for a checkpoint of this step: all of them have their part in one."""


@dataclass(frozen=True)
class _Step:
    """What the phases of one step share."""

    number: int
    batch: Batch
    padding: Batch | None
    """A row that is sent through where this rank has none and others wait; see `train.microbatches`."""
    rows: int
    """Of the global batch."""
    divisor: int
    """Losses are divided by so many rows: those of the global batch, or, of a worker that steps alone, its
    own.
    """
    learning_rate: float
    flags: Flags
    """Whether this rank asks to stop, and for a checkpoint."""
    checks_now: bool
    """Whether losses are looked at in the step itself; see `Learner.check`."""
    wants_norm: bool
    snapshot: StepSnapshot | None


class Learner:
    """The network of a recipe, with its optimisers, gradients and strategy: takes steps."""

    def __init__(self, recipe: Recipe, feed: Feed, world: World) -> None:
        self.recipe, self.world = recipe, world
        self.device = device_of(world)
        self.peers = Communicator(world)
        self._on_cpu = self.device.type == "cpu"
        # Seeded, so that every rank builds the same weights: nothing is broadcast at
        # the start.
        self.network: nn.Module = build_network(
            recipe, feed.encoding, seed=recipe.seed
        ).to(self.device)
        # Before the phases: only parameters that still ask for a gradient get a buffer
        # and moments.
        self._frozen = freeze(self.network, recipe)
        self.decoders: dict[str, Decoder] = decoders_of(recipe, feed.encoding)
        self.specs: FeatureSpecs = target_specs(recipe, feed.encoding)
        self.precision = Precision(recipe.train.precision, self.device)
        # Before the average and the optimisers: sharding replaces the parameters that
        # these hold.
        self.strategy = self._open_strategy()
        self.layout, self.averaging = self.strategy.layout, self.strategy.averaging
        self._microbatches = Microbatches(
            world,
            self.device,
            pieces=recipe.train.accumulate,
            synced=self._synced,
            layout=self.layout,
        )
        self.average = self._moving_average()
        # It shares its weights with `network`: steps call this one, checkpoints read
        # that one.
        self.model: Any = (
            compiled(self.network, self.device) if recipe.train.compile else self.network
        )
        self._is_weighted = feed.encoding.weight is not None
        # Names by identity, taken after the strategy, which may have replaced
        # parameters.
        self.names = {id(p): name for name, p in self.network.named_parameters()}
        # (step, loss `[]`, norm `[]` or None, row ids) of each step that `check` has
        # yet to look at.
        self._unchecked: list[tuple[int, Number, Number | None, Tensor]] = []
        self.draws: bool | None = None
        """Whether a step draws from chance (dropout, mixing of rows), as its first step here has shown; None
        before.
        """
        # Separate members of an ensemble together have a gradient of √N times the norm of one.
        self._clip_scale = math.sqrt(separate_members(recipe) or 1)
        self.phases = [
            self._phase(phase)
            for phase in recipe.train.objective.phases(self.decoders, self.specs)
        ]
        # For `communication`, since this process began; and steps since the average was
        # updated.
        self._steps, self._plain_bytes, self._since_average = 0, 0.0, 0

    def _open_strategy(self) -> ActiveStrategy:
        """What `parallel` asks for, done to the network: norms first, since they replace modules, then blocks
        that compute again, and last the strategy, which may divide what is there by then.
        """
        declared = self.recipe.parallel
        is_synced = self.world.size > 1 and declared.batchnorm == "sync"
        self._synced = sync_norms(self.network, self.peers) if is_synced else []
        blocks = blocks_of(self.network)
        self._blocks = len(blocks)
        if declared.activation_checkpointing:
            for block in blocks:
                compute_again(block)
        # Not the decoders': one that tells a text calls its blocks as often as the text is long, and a block
        # that is gathered by itself must be called equally often at every rank.
        of_decoders = {
            id(module)
            for one in networks_of(self.network).values()
            for module in one.decoders.modules()
        }
        gathered = [block for block in blocks if id(block) not in of_decoders]
        setting = Setting(self.peers, self.device, gathered, declared.gradients)
        opened = declared.strategy.open(self.network, setting)
        # What is refused beside it follows from this word; with the wrong one, ranks would wait for ever for
        # one that steps alone.
        if (opened.averaging is not None) != declared.strategy.steps_alone:
            raise UserError(
                f"parallel.strategy {declared.strategy.type}: its `steps_alone` is"
                f" {declared.strategy.steps_alone}, and `open` gave"
                f" {'no' if opened.averaging is None else 'an'} `averaging`. Where ranks step alone both must"
                " say so, otherwise neither (docs/extending.md)."
            )
        return opened

    def _moving_average(self) -> MovingAverage | None:
        decay = self.recipe.train.ema
        if decay is None:
            return None
        # Of divided weights each rank averages its own part; a checkpoint gathers them.
        part = self.layout.local if self.layout.is_divided else None
        return MovingAverage(self.network, decay, part=part)

    def _phase(self, phase: Phase) -> _Phase:
        parameters = [p for p in phase.parameters(self.network) if p.requires_grad]
        if not parameters:
            raise TrainingError(
                f"There is nothing to train: the phase {phase.name!r} of"
                f" {self.recipe.train.objective.type!r} has no trainable parameters."
            )
        return _Phase(
            phase,
            self.strategy.gradients(parameters),
            build_optimiser(
                self.recipe.train,
                self.network,
                parameters,
                is_divided=self.layout.is_divided,
            ),
        )

    def to_train(self) -> None:
        """Put the network into training mode, except for the encoders that are frozen."""
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
    ) -> StepResult:
        """Move the weights once.

        Args:
            batch: this rank's slice of the global batch.
            rows: of the global batch, over all ranks.
            step: from 0; `total` are planned.
            scale: what the verdicts of epochs made of the rate (`RateScale`).
            stop: this rank asks to stop after this step.
            save: it asks for a checkpoint of this step.
            wants_norm: compute the gradient's norm even where no clipping needs it.
            is_last: of its epoch, or of all: ranks that have moved apart must agree now.

        Raises:
            NotFinite: the loss or the gradient is; names the step and the rows. With `on_nan: skip` nothing
                has moved then.
        """
        train = self.recipe.train
        # A slice may be empty, and then has arrays of length 0 under the same names.
        own_rows = len(batch["row_id"])
        if not self._on_cpu:
            # The stream orders these copies before the step's kernels; the host need
            # not wait.
            batch = {
                name: array.to(self.device, non_blocking=True)
                for name, array in batch.items()
            }
        # Before anything moves: where a later phase fails, what earlier ones moved is
        # undone.
        snapshot = self._snapshot() if train.on_nan == "skip" else None
        # A worker that steps alone must not shrink its gradient by rows that it never
        # sees.
        divisor = own_rows if self.averaging is not None else rows
        # May be a broadcast: every rank comes here, whatever its slice holds.
        padding = self._microbatches.padding(batch, rows)
        # Before the first forward, so that dropout does not depend on what ran earlier.
        self._seed(step)
        this = _Step(
            number=step,
            batch=batch,
            padding=padding,
            rows=rows,
            divisor=divisor,
            learning_rate=train.lr * (train.schedule.rate(step, total) * scale),
            flags=(stop, save),
            # On an accelerator looking at a number waits for the device; a snapshot
            # needs to know now.
            checks_now=self._on_cpu or snapshot is not None,
            # `skip` and `rollback` judge the gradient by its norm.
            # Of divided weights every rank must ask: the norm is a collective, and ranks whose
            # clocks differ would wait for each other for ever.
            wants_norm=wants_norm
            or self.layout.is_divided
            or train.clip is not None
            or train.on_nan != "stop",
            snapshot=snapshot,
        )
        # Only the first step that has rows is watched: a model that draws from chance does so in each.
        chance = self._generator.get_state() if self.draws is None and own_rows else None
        result = StepResult(0.0, 0.0, None)
        # By the step alone, so that every rank meets the collectives of the same
        # phases.
        due = [phase for phase in self.phases if step % phase.declared.every == 0]
        # A worker that steps alone and has no rows takes no step: momentum alone must not move it.
        for phase in due if divisor else []:
            of_phase = self._step_phase(phase, this)
            if phase is self.phases[0]:
                result = of_phase
        if chance is not None:
            self.draws = not torch.equal(chance, self._generator.get_state())
        # Once for all phases, which share the scale; torch refuses it where no phase
        # has stepped.
        if self.precision.scaler is not None and divisor:
            self.precision.scaler.update()
        self._steps += 1
        # Of every phase that was due, also where this rank had no rows: it would have been sent all the same.
        self._plain_bytes += sum(phase.gradients.plain_bytes for phase in due)
        return self._after_step(result, this, self.agrees(step, is_last))

    def _step_phase(self, phase: _Phase, this: _Step) -> StepResult:
        """Backward, sum over ranks, clip, and move what the phase moves."""
        train, scaler = self.recipe.train, self.precision.scaler
        phase.gradients.clear()
        loss = self._backward(phase, this)
        # Where rows have weights, a tensor `[]`: on an accelerator nothing waits for
        # it.
        weight: Number = (
            this.batch["weight"].sum()
            if self._is_weighted
            else float(len(this.batch["row_id"]))
        )
        # The plain buffer sums scaled gradients; a compressor and divided ones must
        # know the scale.
        unscales = scaler is not None and phase.gradients.needs_loss_scale
        # From here on all four numbers are sums over the ranks that step together: a
        # flag is set where any of them has set it.
        loss_sum, weight_sum, stop, save = phase.gradients.reduce(
            loss,
            weight,
            this.flags,
            rows=this.divisor if self._is_weighted else None,
            loss_scale=scaler.get_scale() if scaler is not None and unscales else 1.0,
        )
        # Where ranks step together the sum is every rank's, so all of them raise, or none: one that went on
        # alone would wait in the next collective.
        if this.checks_now and not math.isfinite(loss_sum):
            raise self._not_finite(this, "loss", phase.declared)
        # Before the norm: clipping by a norm that has the loss scale in it would shorten each gradient.
        if scaler is not None:
            scaler.unscale_(phase.optimiser)
        norm = phase.gradients.norm() if this.wants_norm else None
        # Under fp16 an infinite gradient is the scaler's business: it leaves the step out and scales less.
        if (
            this.checks_now
            and scaler is None
            and norm is not None
            and not math.isfinite(norm)
        ):
            raise self._not_finite(this, "gradient", phase.declared)
        if train.clip is not None and norm is not None:
            phase.gradients.clip(norm, train.clip * self._clip_scale)
        # Set anew in each step, so that nothing of the rate has to be in a checkpoint.
        for group in phase.optimiser.param_groups:
            group["lr"] = this.learning_rate * group.get("lr_scale", 1.0)
        if scaler is None:
            phase.optimiser.step()
        else:
            scaler.step(phase.optimiser)
        # On an accelerator numbers are only put aside here; looking at one would wait for the device.
        if phase is self.phases[0] and not this.checks_now:
            # Under fp16 an infinite norm only tells the scaler to leave the step out.
            finite_norm = norm if scaler is None else None
            self._unchecked.append(
                (this.number, loss_sum, finite_norm, this.batch["row_id"])
            )
        # Where each row weighs 1 the weight is known without a look at the device.
        rows = weight_sum if self._is_weighted else float(this.divisor)
        # Back from the mean over `divisor` rows to the sum of their losses.
        return StepResult(loss_sum * this.divisor, rows, norm, bool(stop), bool(save))

    def _after_step(self, result: StepResult, this: _Step, agrees: bool) -> StepResult:
        """Where ranks step alone, what this one learnt until all agree; then the moving average."""
        if self.averaging is not None:
            self.averaging.learnt(result.loss, result.weight)
            if agrees:
                # A collective that every rank reaches, as `agrees` follows from the
                # step alone.
                loss, weight, stop, save = self.averaging.agree(this.flags)
                # Workers that met different overflows have different scales, and a checkpoint keeps rank 0's.
                if self.precision.scaler is not None:
                    state = shared(self.precision.scaler.state_dict(), self.world)
                    self.precision.scaler.load_state_dict(state)
                result = StepResult(loss, weight, result.norm, stop, save)
            else:
                # What others have learnt is unheard of till the next average, which
                # tells the sum of all.
                result = StepResult(0.0, 0.0, result.norm)
        # Only where ranks agree: the moving average is one, and rank 0's is the one that is kept.
        self._since_average += 1
        if self.average is not None and agrees:
            self.average.update(this.number, steps=self._since_average)
        if agrees:
            self._since_average = 0
        return result

    def _backward(self, phase: _Phase, this: _Step) -> Tensor:
        """Add the gradients of this rank's rows to the phase's; returns the sum of their losses over the
        divisor.
        """
        # `[]`, on the device, so that adding up losses does not wait for it.
        whole = torch.zeros((), device=self.device)
        for piece in self._microbatches.of(this.batch, this.padding, this.rows):
            with self.precision.lowered():
                losses = phase.declared.loss(self.model, piece)
            loss = losses.sum() / this.divisor
            # Times zero, not left out: the backward of a row that only pads must meet the same collectives.
            if piece is this.padding:
                loss = loss * 0.0
            (
                loss
                if self.precision.scaler is None
                else self.precision.scaler.scale(loss)
            ).backward()
            # Before scaling: the loss that is told and checked knows nothing of the
            # fp16 scale.
            whole = whole + loss.detach()
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
        # Taken off first, so that an error is raised for these steps once.
        unchecked, self._unchecked = self._unchecked, []
        for step, loss, norm, row_id in unchecked:
            for what, value in (("loss", loss), ("gradient", norm)):
                if value is not None and not math.isfinite(float(value)):
                    # Weights have moved since, so that which rows it was cannot be
                    # computed any more.
                    raise NotFinite.at(step, what, [], _names(row_id), self.recipe.train)

    def _snapshot(self) -> StepSnapshot:
        optimisers = [phase.optimiser for phase in self.phases]
        return StepSnapshot(
            self.network, optimisers, self._exchanged(), self.precision.scaler
        )

    def _exchanged(self) -> list[Tensor]:
        return [
            tensor
            for exchanging in self.exchangings().values()
            for tensor in (*exchanging.errors.values(), *exchanging.shared.values())
        ]

    def _not_finite(self, this: _Step, what: str, phase: Phase) -> NotFinite:
        """The error that names the rows; every rank calls, since they may be any rank's (a worker alone, its
        own).
        """
        own = this.batch["row_id"]
        # Where passes are collectives a rank without rows sends its padding through
        # here too.
        rows = this.batch if len(own) else this.padding
        # A padding row must not enter the statistics of norms over all ranks.
        self._microbatches.counts(rows is this.batch)
        losses = torch.zeros(0)
        if rows is not None:
            with torch.no_grad(), self.precision.lowered():
                # The cut drops the padding row's loss: that row is another rank's to
                # name.
                losses = phase.loss(self.model, rows)[: len(own)]
        mine = _names(own[~torch.isfinite(losses.detach().float())]), _names(own)
        # All name the same rows and raise the same error, so that all leave out the
        # same step.
        every = everyones(mine, self.world) if self.averaging is None else [mine]
        # After the pass above, which needs the weights that these rows have met.
        if this.snapshot is not None:
            this.snapshot.restore()
        culprits = [name for names, _ in every for name in names]
        batch = [name for _, names in every for name in names]
        return NotFinite.at(this.number, what, culprits, batch, self.recipe.train)

    # -- among ranks -----------------------------------------------------------------------------------------

    def agrees(self, step: int, is_last: bool) -> bool:
        """Whether all ranks have the same weights after this step, and have heard of each other's loss and
        flags.
        """
        return is_last or self.recipe.parallel.strategy.agrees(step)

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
        # Bytes of sums in float32, by the ring that `Communicator` counts by.
        plain = 2 * (peers.size - 1) / peers.size * self._plain_bytes
        return {
            "bytes_per_step": round(peers.sent_bytes / max(self._steps, 1), 1),
            "ratio": round(plain / peers.sent_bytes, 3) if peers.sent_bytes else None,
        }

    def exchangings(self) -> dict[str, Exchanging]:
        """The compressors at work: by phase those of gradients, as `@movements` that of weights."""
        compressors = {
            phase.declared.name: phase.gradients.exchanging for phase in self.phases
        } | {"@movements": self.averaging.exchanging if self.averaging else None}
        return {
            whose: exchanging
            for whose, exchanging in compressors.items()
            if exchanging is not None
        }

    # -- without moving weights ------------------------------------------------------------------------------

    def accompany(self, batch: Batch, rows: int) -> None:
        """Judge a row of another rank on a rank that has none, where weights are divided: each pass is a
        collective there. Every rank calls, before `judge`.

        Args:
            rows: of the global batch.
        """
        # With a row for each rank at least, no slice is empty and nobody has to be lent
        # one.
        if self.layout.is_divided and rows < self.world.size:
            lent = self._microbatches.padding(
                {name: array.to(self.device) for name, array in batch.items()}, rows
            )
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
            # The very same batch, so that this is the answer that the loss has asked
            # for already.
            raw = once(batch)
            # an answer is what is said without being told
            if any(decoder.teacher_forced for decoder in self.decoders.values()):
                raw = self.model(
                    {
                        name: array
                        for name, array in batch.items()
                        # `<feature>.<array>`: without a target's arrays a decoder
                        # cannot see the truth.
                        if name.rpartition(".")[0] not in self.decoders
                    }
                )
        answers = {
            # Under autocast the raw answers have 16 bits.
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
        # By identity: a loss that changes rows passes a dict of its own and is computed
        # anew.
        if batch is not self._batch:
            self._batch, self._raw = batch, self._model(batch)
        return self._raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
