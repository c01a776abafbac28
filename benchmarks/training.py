"""The trainer against a hand-written PyTorch loop that is fed by indexing tensors in memory, which no loader
can beat; and the field's trainers against the same loop. One process on one core, one thread of torch; CPU
seconds of the loop, an example.

    python -m benchmarks training
    TRAINING=mlp,cnn,transformer,peers BENCH_PAIRS=20 python -m benchmarks training

Ours trains the very module that the other loop calls, on the same rows, by the same optimiser and clipping,
for the same number of steps; its batches come from the shards of a feed by its loader, whose threads, if it
has any, count. Start, validation and checkpoints are told on a line of their own. The peers train the
perceptron of `mlp`, each from tensors in memory through torch's DataLoader as it is used (row by row), Ludwig
through its own batches; all run in processes of their own, in turn with the loop by hand.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from benchmarks._feeds import Encoded, arrays, encoded
from benchmarks.harness import (
    Cannot,
    Took,
    compare,
    say,
    say_compared,
    scratch,
    size,
    skip,
)
from benchmarks.peers import Peer
from benchmarks.peers.shared_training import (
    CLIP,
    DECAY,
    LR,
    Clock,
    Perceptron,
    Pictures,
    Reader,
    by_hand,
)
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.loader.loader import Loader
from penstock.recipe.schema import Recipe, load_recipe
from penstock.run import Run
from penstock.train import session
from penstock.train.supervisor import train

NETWORKS = "benchmarks.peers.shared_training"


@dataclass(frozen=True)
class Case:
    """What is trained."""

    name: str
    network: type[nn.Module]
    inputs: dict[str, Any]
    target: str
    """Its type."""
    arrays: tuple[str, ...]
    """Of a batch: what the network reads, and last the label."""
    batch: int
    steps: int
    least: float
    table: Callable[[np.random.Generator, int], pa.Table]


def _numbers(rng: np.random.Generator, rows: int) -> pa.Table:
    values = rng.normal(size=(rows, 30)).astype(np.float32)
    label = np.where(values[:, :5].sum(1) + rng.normal(size=rows) > 0, "yes", "no")
    return pa.table(
        {
            "x": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 30),
            "y": label,
        }
    )


def _pictures(rng: np.random.Generator, rows: int) -> pa.Table:
    import io

    from PIL import Image

    coded = []
    for _ in range(rows):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize(
            (32, 32), Image.Resampling.BICUBIC
        ).save(out, "PNG")
        coded.append(out.getvalue())
    return pa.table(
        {
            "x": pa.array(coded, pa.large_binary()),
            "y": rng.permutation(np.arange(rows) % 10),
            "place": np.arange(rows),
        }
    )


def _texts(rng: np.random.Generator, rows: int) -> pa.Table:
    tokens = rng.integers(0, 1_000, (rows, 64)).astype(np.int32)
    return pa.table(
        {
            "x": (
                pa.FixedSizeListArray.from_arrays(pa.array(tokens.reshape(-1)), 64).cast(
                    pa.list_(pa.int32())
                )
            ),
            "y": np.where(tokens[:, 0] % 2 == 0, "yes", "no"),
        }
    )


CASES = (
    Case(
        "mlp",
        Perceptron,
        {"x": {"type": "vector", "length": 30}},
        "binary",
        ("x.value", "y.label"),
        256,
        300,
        0.90,
        _numbers,
    ),
    Case(
        "cnn",
        Pictures,
        {"x": {"type": "image", "size": 32}},
        "category",
        ("x.pixels", "y.index"),
        64,
        40,
        0.95,
        _pictures,
    ),
    Case(
        "transformer",
        Reader,
        {"x": {"type": "sequence", "unit": "items"}},
        "binary",
        ("x.tokens", "x.mask", "y.label"),
        64,
        15,
        0.95,
        _texts,
    ),
)


def bench() -> None:
    wanted = os.environ.get("TRAINING", "mlp,cnn,transformer,peers").split(",")
    torch.set_num_threads(1)
    with scratch("training") as folder, _on_one_core():
        for case in CASES:
            if case.name in wanted:
                _beside(case, folder)
        if "peers" in wanted:
            _peers(CASES[0], folder)


@contextmanager
def _on_one_core() -> Iterator[None]:
    """Both sides take turns on the same one, as the peers do; where a system cannot say so, they have all."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if before:
        os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        if before:
            os.sched_setaffinity(0, before)


# -- ours ----------------------------------------------------------------------------------------------------


def _beside(case: Case, folder: Path) -> None:
    case, made, held = _encoded(case, folder)
    *inputs, y = (torch.from_numpy(held[name]) for name in case.arrays)
    y = y.float() if case.target == "binary" else y
    whole: list[tuple[float, float]] = []

    def ours(turn: int) -> Took:
        gc.collect()
        clock, began = Clock(), time.process_time()
        with _loop_timed_by(clock):
            _trained(case, made, key=f"{case.name}-{turn}-{time.time_ns()}")
        took = time.process_time() - began
        whole.append((took, took - clock.cpu_seconds))
        return Took(clock.seconds, clock.cpu_seconds, case.batch * case.steps, took)

    def other(turn: int) -> Took:
        gc.collect()
        clock = Clock()
        by_hand(
            case.network(), inputs, y, batch=case.batch, steps=case.steps, clock=clock
        )
        return Took(clock.seconds, clock.cpu_seconds, case.batch * case.steps)

    found = compare(ours, other, pairs=max(size("PAIRS", 20), 20), least=20)
    mine, theirs = (
        float(np.median(values)) * case.batch * 1e6
        for values in (found.cpu.ours, found.cpu.other)
    )
    parameters = sum(p.numel() for p in case.network().parameters())
    # The goal is of CPU: the wall of one loop is the machine's mood as much as the loop's.
    low = found.cpu.bounds()[0]
    name = (
        f"{case.name}: {case.steps} steps of {parameters:,} parameters, batch {case.batch}: the trainer's"
        " loop"
    )
    say_compared(
        found,
        name=name,
        other="hand-written PyTorch, from tensors in memory",
        step_us=round(mine, 1),
        other_step_us=round(theirs, 1),
        added_us=round(mine - theirs, 1),
        lower_bound_of_cpu=round(low, 3),
        goal_of_cpu=f"lower bound ≥ {case.least:g}",
        holds_by_cpu=bool(low >= case.least),
    )
    around = float(np.median([rest for _, rest in whole[1:]]))
    say(
        name=f"{case.name}: start, validation and checkpoint of such a training, CPU",
        value=around,
        unit="s",
        whole_s=round(float(np.median([all_ for all_, _ in whole[1:]])), 3),
    )


def _encoded(case: Case, folder: Path) -> tuple[Case, Encoded, dict[str, np.ndarray]]:
    rows = int(case.batch * case.steps / 0.98) + 2 * case.batch
    made = encoded(
        folder,
        f"{case.name}-{rows}",
        case.table(np.random.default_rng(7), rows),
        case.inputs,
        {"y": case.target},
    )
    return case, made, arrays(made.feed, names=case.arrays)


def _recipe(case: Case) -> Recipe:
    return load_recipe(
        {
            "name": "training",
            "source": {"type": "files", "path": "."},
            "inputs": case.inputs,
            "targets": {"y": case.target},
            "model": {"type": f"{NETWORKS}:{case.network.__name__}"},
            "train": {
                "epochs": 1,
                "batch_size": case.batch,
                "max_steps": case.steps,
                "early_stop": None,
                "schedule": "constant",
                "lr": LR,
                "weight_decay": DECAY,
                "clip": CLIP,
            },
            "launcher": {"type": "local", "processes": 1, "threads": 1},
            "trackers": [],
        }
    )


def _trained(case: Case, made: Encoded, *, key: str) -> dict[str, Any]:
    recipe = _recipe(case)
    run = Run.create(
        Store(made.store),
        recipe=recipe,
        dataset=made.feed.dataset,
        feed=made.feed.id,
        key=key,
    )
    return train(recipe, made.feed, run, Events())


@contextmanager
def _loop_timed_by(clock: Clock) -> Iterator[None]:
    """Within this, the clock runs while the trainer's loop goes through its batches: from asking for the
    first to letting go of the last, with the threads that read ahead.
    """

    class Clocked(Loader):
        def batches(
            self, epoch: int, *, start: int = 0
        ) -> Iterator[tuple[int, dict[str, Any]]]:
            clock.begin()
            try:
                yield from super().batches(epoch, start=start)
            finally:
                clock.end()

    before = session.Loader
    session.Loader = Clocked  # type: ignore[misc]
    try:
        yield
    finally:
        session.Loader = before  # type: ignore[misc]


# -- theirs --------------------------------------------------------------------------------------------------


def _peers(case: Case, folder: Path) -> None:
    case, made, held = _encoded(case, folder)
    np.save(made.data / "x.npy", held["x.value"])
    np.save(made.data / "y.npy", held["y.label"])
    how: dict[str, Any] = {
        "data": str(made.data),
        "batch": case.batch,
        "steps": case.steps,
    }
    others: list[tuple[str, str, str, str | None, dict[str, Any]]] = [
        (
            "the same loop by hand, fed by torch's DataLoader",
            "hand_fit",
            "dataloader",
            None,
            {},
        ),
        ("Lightning", "lightning_fit", "fit", "training", {}),
        (
            "Lightning, a whole batch at a time",
            "lightning_fit",
            "fit",
            "training",
            {"whole": True},
        ),
        ("Accelerate", "accelerate_fit", "fit", "training", {}),
        ("Hugging Face's Trainer", "transformers_fit", "fit", "training", {}),
        ("Ludwig", "ludwig_fit", "fit", "ludwig", {}),
    ]
    with Peer("hand_fit", group=None, cores=1, folder=folder / "hand") as hand:
        hand.setup("memory", **how)
        for n, (name, script, task, group, more) in enumerate(others):
            try:
                with Peer(
                    script, group=group, cores=1, folder=folder / f"peer{n}"
                ) as peer:
                    peer.setup(task, **how, **more)
                    found = compare(peer.run, hand.run, pairs=size("PEER_PAIRS", 10))
                    step = float(np.median(found.cpu.ours)) * case.batch * 1e6
                    say_compared(
                        found,
                        name=f"mlp, of the field: {name}",
                        other="hand-written PyTorch, from tensors in memory",
                        ours=name,
                        step_us=round(step, 1),
                        versions=peer.versions,
                    )
            except Cannot as reason:
                skip(f"mlp, of the field: {name}", reason)
