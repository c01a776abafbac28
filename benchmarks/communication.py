"""What is sent between processes, and what it costs: two processes on this machine, each with one thread.

    python -m benchmarks communication            # what a few minutes allow
    COMMUNICATION=bytes,local,ddp,adult,exchanges,cifar10 SEEDS=7,8,9 python -m benchmarks communication

- `bytes`: PowerSGD of rank 2 on a ResNet-18 of 11 M parameters: real gradients, real collectives, counted.
- `ddp`: our step on two processes beside torch's DistributedDataParallel on two, by hand; an MLP and a small
  CNN.
- `local`: local SGD, H = 16, on two processes beside one process with one thread, the MLP: with a batch as
  large as each of the two has, and with one as large as both have together.
- `adult`: local SGD, H = 16, beside `ddp`: bytes and roc_auc.
- `exchanges`: each of `parallel.gradients` beside float32, on `adult`: bytes and roc_auc.
- `cifar10`: PowerSGD of rank 2 beside float32 on a CNN of 1.1 M parameters: bytes and accuracy. RANK=4 for
  another rank; RESNET=1 for the recipe's own network and batches, where a training is too short for rank 2.

Pairs alternate inside one launch, so that both meet the machine in the same mood. With `ddp`, CPU seconds are
those of both processes; wall seconds those of rank 0.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.harness import Cannot, Pairs, say
from penstock.contracts.learn import GradientCompressor, Launcher, World
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.loader.loader import Loader
from penstock.nn.gradients import Gradients
from penstock.pipeline.stages import Pipeline
from penstock.recipe.schema import Recipe, load_recipe
from penstock.train.communicator import Communicator
from penstock.train.learner import Learner
from penstock.train.parallel import joined, settled

RECIPES = Path(__file__).parent.parent / "recipes"
TWO = {"type": "local", "processes": 2, "threads": 1}


def bench() -> None:
    wanted = os.environ.get("COMMUNICATION", "bytes,ddp,local").split(",")
    pairs = int(os.environ.get("PAIRS", "20"))
    if "bytes" in wanted:
        _bytes()
    if "ddp" in wanted:
        for model in ("mlp", "cnn"):
            _beside(model, "ddp", pairs)
    if "local" in wanted:
        _beside("mlp", "local", pairs)
    seeds = [int(seed) for seed in os.environ.get("SEEDS", "7").split(",")]
    if "adult" in wanted:
        _trained(
            "adult",
            {"local SGD, H = 16": {"strategy": "local_sgd", "every": 16}},
            seeds,
            fewer=12,
            within=0.005,
            measure=("income", "roc_auc"),
        )
    if "exchanges" in wanted:
        kinds: dict[str, Any] = {
            "bf16": "bf16",
            "fp16": "fp16",
            "top-k, 1 %": {"type": "topk", "share": 0.01},
            "PowerSGD of rank 2": {"type": "powersgd", "rank": 2},
        }
        _trained(
            "adult",
            {called: {"gradients": words} for called, words in kinds.items()},
            seeds,
            fewer=None,
            within=0.005,
            measure=("income", "roc_auc"),
        )
    if "cifar10" in wanted:
        rank = int(os.environ.get("RANK", "2"))
        _trained(
            "cifar10",
            {
                f"PowerSGD of rank {rank}": {
                    "gradients": {"type": "powersgd", "rank": rank}
                }
            },
            seeds,
            fewer=None,
            within=0.015,
            measure=("label", "accuracy"),
            changed=(
                ()
                if os.environ.get("RESNET")
                else (
                    "model={type: 'benchmarks.communication:Vgg'}",
                    "train.batch_size=32",
                    "train.lr=0.05",
                )
            ),
        )


# -- bytes ---------------------------------------------------------------------------------------------------


def _bytes() -> None:
    steps = int(os.environ.get("BYTES_STEPS", "8"))
    warm_up, training = (
        100,
        11_730,
    )  # of the declaration's default; 30 epochs of CIFAR-10 in batches of 128
    warm, steady, plain = Launcher.load("local").launch(
        _resnet_bytes, (steps,), processes=2, threads=1
    )
    whole = plain * training / (warm * warm_up + steady * (training - warm_up))
    say(
        name=(
            f"PowerSGD rank 2, ResNet-18 of 11 M: bytes a step, of a rank of two, mean of {steps} steps after"
            " the warm-up"
        ),
        value=steady,
        unit="bytes",
        other="float32",
        ratio=plain / steady,
        float32_bytes=plain,
        warm_up_step_bytes=warm,
    )
    say(
        name=f"the same over {training:,} steps, {warm_up} of them the warm-up",
        value=plain / whole,
        unit="bytes a step",
        other="float32",
        ratio=whole,
        goal="≥ 50",
        holds=bool(whole >= 50),
    )


def _resnet_bytes(world: World, steps: int) -> tuple[float, float, float]:
    with joined(world), settled(threads=1, deterministic=False, events=Events()):
        torch.manual_seed(0)
        network, peers = resnet18(), Communicator(world)
        exchange = GradientCompressor.load({"type": "powersgd", "rank": 2, "warm_up": 2})
        gradients = Gradients(
            list(network.parameters()), peers, torch.device("cpu"), exchange
        )
        sent = []
        for _ in range(2 + steps):
            before = peers.sent_bytes
            gradients.clear()
            loss = network(torch.randn(2, 3, 32, 32)).square().mean()
            loss.backward()
            gradients.reduce(loss.detach(), 2.0, (False, False), rows=None)
            sent.append(peers.sent_bytes - before)
        return sent[0], float(np.mean(sent[2:])), float(gradients.plain_bytes)


class _Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.two = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.across = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if stride != 1 or inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.relu(self.two(self.one(x)) + self.across(x))
        return out


def resnet18() -> nn.Module:
    """ResNet-18 for small pictures (He et al. 2016): 11,173,962 parameters."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 3, 1, 1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
    ]
    width = 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [_Basic(width, outputs, stride), _Basic(outputs, outputs, 1)]
        width = outputs
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)
    )


# -- speed, side by side -------------------------------------------------------------------------------------


class Pictures(nn.Module):
    """A small CNN over 16 × 16 numbers, as a user would write it; 94,000 parameters."""

    def __init__(self, side: int = 16) -> None:
        super().__init__()
        self.side = side
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, 1, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, 1),
        )

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            "y": self.layers(batch["x.value"].view(-1, 1, self.side, self.side)).squeeze(
                -1
            )
        }


class Vgg(nn.Module):
    """A CNN over CIFAR-10's pictures, after Simonyan and Zisserman 2015: 1,138,794 parameters, most of them
    where pictures are small.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last = 3
        for level, (width, depth) in enumerate(((32, 2), (64, 1), (128, 2), (256, 2))):
            if level:
                layers.append(nn.MaxPool2d(2))
            for _ in range(depth):
                layers += [
                    nn.Conv2d(last, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
                last = width
        self.layers = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 10)
        ).to(memory_format=torch.channels_last)
        self.register_buffer(
            "mean", 255 * torch.tensor([0.491, 0.482, 0.447]).view(1, 3, 1, 1)
        )
        self.register_buffer(
            "spread", 255 * torch.tensor([0.247, 0.243, 0.262]).view(1, 3, 1, 1)
        )

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        pixels = (batch["picture.pixels"].float() - self.mean) / self.spread
        return {
            "label": self.layers(
                pixels.contiguous(memory_format=torch.channels_last)
            ).float()
        }


def _feed(folder: Path, model: str) -> tuple[Recipe, Pipeline]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    rows, width = (100_000, 30) if model == "mlp" else (6_000, 256)
    values = rng.normal(size=(rows, width)).astype("float32")
    label = np.where(values[:, :5].sum(1) > 0, "yes", "no")
    pq.write_table(
        pa.table(
            {
                "x": pa.FixedSizeListArray.from_arrays(
                    pa.array(values.reshape(-1)), width
                ),
                "y": label,
            }
        ),
        folder / "t.parquet",
    )
    inputs: dict[str, Any] = {"x": {"type": "vector", "length": width}}
    network = {
        "type": (
            "benchmarks.peers.shared_training:Perceptron"
            if model == "mlp"
            else "benchmarks.communication:Pictures"
        )
    }
    recipe = load_recipe(
        {
            "name": "communication",
            "source": {"type": "files", "path": str(folder / "t.parquet")},
            "split": {"train": 0.98, "validation": 0.01, "test": 0.01},
            "inputs": inputs,
            "targets": {"y": "binary"},
            "model": network,
            "train": {
                "batch_size": int(
                    os.environ.get("BATCH", "512" if model == "mlp" else "128")
                ),
                "early_stop": None,
                "schedule": "constant",
            },
            "trackers": [],
        }
    )
    pipeline = Pipeline(recipe, Store(folder / "store"), Events())
    pipeline.prepare()
    pipeline.encode()
    return recipe, pipeline


def _beside(model: str, what: str, pairs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        recipe, pipeline = _feed(Path(folder), model)
        feed = pipeline.outcome.feed
        assert feed is not None
        if what == "local":
            size = recipe.train.batch_size
            assert isinstance(size, int)
            local = Recipe.model_validate(
                {**recipe.to_dict(), "parallel": {"strategy": "local_sgd", "every": 16}}
            )
            for other_size, goal in ((size // 2, 1.6), (size, None)):
                alone = Recipe.model_validate(
                    {
                        **recipe.to_dict(),
                        "train": {**recipe.to_dict()["train"], "batch_size": other_size},
                    }
                )
                wall, cpu, ours, other = Launcher.load("local").launch(
                    _pairs,
                    ((local, alone, None), pipeline.store.url, feed.id, pairs, 160),
                    processes=2,
                    threads=1,
                )
                low, high = wall.bounds()
                say(
                    name=(
                        f"two processes with local SGD (H = 16), MLP, batch {size // 2} each, against one of"
                        f" {other_size}: examples a second, wall"
                    ),
                    value=ours,
                    unit="examples/s",
                    other=f"one process, one thread, batch {other_size}",
                    other_value=round(other),
                    ratio=wall.ratio,
                    bounds=[round(low, 3), round(high, 3)],
                    goal=f"≥ {goal}" if goal else None,
                    holds=bool(wall.ratio >= goal) if goal else None,
                    times_by_cpu_if_each_has_a_core=round(2 * cpu.ratio, 3),
                )
            return
        steps = 100 if model == "mlp" else 20
        wall, cpu, ours, other = Launcher.load("local").launch(
            _pairs,
            ((recipe, None, recipe), pipeline.store.url, feed.id, pairs, steps),
            processes=2,
            threads=1,
        )
        for clock, found in (("wall", wall), ("CPU of both", cpu)):
            low, high = found.bounds()
            say(
                name=f"two processes, {model}: examples a second, {clock}",
                value=ours,
                unit="examples/s (wall)",
                other="hand-written DDP on two processes, batches in memory",
                other_value=round(other),
                ratio=found.ratio,
                bounds=[round(low, 3), round(high, 3)],
                goal="lower bound ≥ 0.93",
                holds=bool(low >= 0.93),
            )


def _pairs(
    world: World,
    recipes: tuple[Recipe, Recipe | None, Recipe | None],
    store: str,
    feed_id: str,
    pairs: int,
    steps: int,
) -> tuple[Pairs, Pairs, float, float]:
    """Ours on both ranks, then as many examples by the other: `recipes[1]` on rank 0 alone, or hand-written
    DDP of `recipes[2]` on both.
    """
    from penstock.encode.feed import Feed

    with joined(world), settled(threads=1, deterministic=False, events=Events()):
        feed = Feed.open(Store(store), id=feed_id)
        ours = _ours(recipes[0], feed, world)
        if recipes[1] is not None:
            other = _ours(recipes[1], feed, World()) if world.rank == 0 else None
        else:
            assert recipes[2] is not None
            other = _by_hand(recipes[2], feed, world)
        size = int(recipes[0].train.batch_size)
        times = {
            "ours": steps,
            "other": steps
            if recipes[1] is None
            else steps * size // int(recipes[1].train.batch_size),
        }
        seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "other": []}
        for i in range(-1, pairs):
            for name, run in (
                (("ours", ours), ("other", other))
                if i % 2
                else (("other", other), ("ours", ours))
            ):
                dist.barrier()
                wall, cpu = time.perf_counter(), time.process_time()
                if run is not None:
                    run(times[name])
                spent = torch.tensor([time.process_time() - cpu])
                took = time.perf_counter() - wall
                dist.all_reduce(spent)
                if i >= 0:
                    seconds[name].append((took, float(spent)))
        found = {name: np.array(values) for name, values in seconds.items()}
        return (
            Pairs(found["ours"][:, 0], found["other"][:, 0]),
            Pairs(found["ours"][:, 1], found["other"][:, 1]),
            size * steps / float(np.median(found["ours"][:, 0])),
            size * steps / float(np.median(found["other"][:, 0])),
        )


def _ours(recipe: Recipe, feed: Any, world: World) -> Callable[[int], None]:
    learner = Learner(recipe, feed, world)
    learner.to_train()
    loader = Loader(
        feed,
        batch_size=int(recipe.train.batch_size),
        options={"rank": world.rank, "world": world.size},
    )

    def endless() -> Iterator[tuple[int, Any]]:
        for epoch in cycle(range(1_000_000)):
            yield from loader.batches(epoch)

    batches, done = endless(), 0

    def run(steps: int) -> None:
        nonlocal done
        for position, batch in islice(batches, steps):
            learner.step(
                batch,
                rows=loader.global_rows(position),
                step=done,
                total=1_000_000,
                scale=1.0,
            )
            done += 1

    return run


def _by_hand(recipe: Recipe, feed: Any, world: World) -> Callable[[int], None]:
    """What a user would write: DDP around the network, batches gathered from tensors in memory."""
    from penstock.model import build_network, decoders_of, target_specs

    network: Any = nn.parallel.DistributedDataParallel(
        build_network(recipe, feed.encoding, seed=0)
    )
    phase = recipe.train.objective.phases(
        decoders_of(recipe, feed.encoding), target_specs(recipe, feed.encoding)
    )[0]
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=1e-3, weight_decay=1e-4, fused=True
    )
    whole = Loader(
        feed,
        batch_size=feed.rows["train"],
        order="stored",
        options={"rank": 0, "world": 1},
    )
    # no more than the loop needs
    everything = {
        name: array
        for _, batch in whole.batches(0)
        for name, array in batch.items()
        if name.startswith(("x.", "y."))
    }
    size, rows = int(recipe.train.batch_size) // world.size, feed.rows["train"]
    network.train()

    def run(steps: int) -> None:
        order = torch.randperm(rows)[: rows // world.size]
        for step in range(steps):
            start = step * size % (len(order) - size)
            chosen = order[start : start + size]
            batch = {name: array[chosen] for name, array in everything.items()}
            optimiser.zero_grad(set_to_none=True)
            phase.loss(network, batch).mean().backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()

    return run


# -- accuracy on real data -----------------------------------------------------------------------------------


def _trained(
    name: str,
    variants: dict[str, dict[str, Any]],
    seeds: list[int],
    *,
    fewer: float | None,
    within: float,
    measure: tuple[str, str],
    changed: Sequence[str] = (),
) -> None:
    """Bytes and a metric of each variant (what it is called → the recipe's `parallel`) beside gradients in
    float32.
    """
    recipe_file = RECIPES / f"{name}.yaml"
    if not (RECIPES.parent.parent / "shared" / "data" / name).is_dir():
        raise Cannot(f"the data set {name} is not here")
    epochs = os.environ.get("EPOCHS")
    scores: dict[str, list[float]] = {called: [] for called in ("", *variants)}
    ratios: dict[str, list[float]] = {called: [] for called in ("", *variants)}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for called, words in {"": {}, **variants}.items():
                recipe = load_recipe(
                    recipe_file,
                    [
                        f"seed={seed}",
                        *([f"train.epochs={epochs}"] if epochs else []),
                        *changed,
                    ],
                )
                recipe = recipe.model_copy(
                    update={
                        "parallel": type(recipe.parallel).model_validate(words),
                        "launcher": Launcher.load(TWO),
                        "trackers": [],
                    }
                )
                pipeline = Pipeline(recipe, Store(Path(folder) / f"{seed}"), Events())
                pipeline.until("evaluate")
                summary, report = pipeline.outcome.training, pipeline.outcome.report
                assert summary is not None and report is not None
                scores[called].append(report["metrics"]["test"][measure[0]][measure[1]])
                ratios[called].append(summary["communication"]["ratio"])
                if called:
                    say(
                        name=f"{called} on {name}, seed {seed}: {measure[1]} on the test split",
                        value=scores[called][-1],
                        unit=measure[1],
                        other="gradients in float32",
                        other_value=round(scores[""][-1], 4),
                    )
    plain = statistics.mean(scores[""])
    for called in variants:
        apart, ratio = (
            statistics.mean(scores[called]) - plain,
            statistics.mean(ratios[called]),
        )
        say(
            name=(
                f"{called} on {name}, two processes, {len(seeds)}"
                f" seed{'s' if len(seeds) != 1 else ''}{f', {epochs} epochs' if epochs else ''}: times fewer"
                " bytes"
            ),
            value=ratio,
            unit="×",
            other="gradients in float32",
            ratio=ratio,
            goal=None if fewer is None else f"≥ {fewer}",
            holds=None if fewer is None else bool(ratio >= fewer),
        )
        say(
            name=f"the same: {measure[1]} on the test split",
            value=statistics.mean(scores[called]),
            unit=measure[1],
            other="gradients in float32",
            other_value=round(plain, 4),
            difference=round(apart, 4),
            goal=f"within {within}",
            holds=bool(apart >= -within),
        )
