"""The trainer against a hand-written PyTorch loop: the same network, data, batches, optimiser and number of
steps; CPU seconds an example, one process, one thread, interleaved. The loop is fed from tensors in memory,
which no loader can beat.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.harness import interleave, say
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.loader.loader import Loader
from penstock.model import build_network, decoders_of, parameter_count, target_specs
from penstock.pipeline.stages import Pipeline
from penstock.recipe.schema import load_recipe
from penstock.run import Run
from penstock.train.supervisor import train

ROWS, BATCH, STEPS = 100_000, 256, 300


def bench() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _bench(Path(folder))


def _bench(folder: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(ROWS, 20))
    label = values[:, :5].sum(1) + rng.normal(size=ROWS) > 0
    pq.write_table(
        pa.table(
            {
                **{f"x{i}": values[:, i] for i in range(20)},
                "y": np.where(label, "yes", "no"),
            }
        ),
        folder / "t.parquet",
    )
    recipe = load_recipe(
        {
            "name": "bench",
            "source": {"type": "files", "path": str(folder / "t.parquet")},
            "split": {"train": 0.98, "validation": 0.01, "test": 0.01},
            "inputs": {f"x{i}": {"type": "number"} for i in range(20)},
            "targets": {"y": "binary"},
            "model": {
                "encoders": {"<number>": "linear"},
                "combiner": {"type": "mlp", "width": 160, "depth": 2, "dropout": 0.0},
            },
            "train": {
                "epochs": 1,
                "batch_size": BATCH,
                "max_steps": STEPS,
                "early_stop": None,
                "schedule": "constant",
            },
            "launcher": {"type": "local", "processes": 1, "threads": 1},
            "trackers": [],
        }
    )
    store = Store(folder / "store")
    pipeline = Pipeline(recipe, store, Events())
    pipeline.prepare()
    pipeline.encode()
    feed, dataset = pipeline.outcome.feed, pipeline.outcome.dataset
    assert feed is not None and dataset is not None
    torch.set_num_threads(1)

    everything = {
        k: v
        for _, batch in Loader(
            feed, batch_size=feed.rows["train"], order="stored"
        ).batches(0)
        for k, v in batch.items()
    }
    specs, decoders = (
        target_specs(recipe, feed.encoding),
        decoders_of(recipe, feed.encoding),
    )
    phase = recipe.train.objective.phases(decoders, specs)[0]
    loops: list[float] = []

    def ours() -> None:
        run = Run.create(
            store,
            recipe=recipe,
            dataset=dataset.reference,
            feed=feed.id,
            key=f"bench-{len(loops)}",
        )
        loops.append(1 / train(recipe, feed, run, Events())["examples_per_second"])

    def by_hand() -> None:
        network = build_network(recipe, feed.encoding, seed=0)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=1e-3, weight_decay=1e-4, fused=True
        )
        order = torch.randperm(feed.rows["train"])
        names = list(everything)
        network.train()
        for step in range(STEPS):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            batch = {name: everything[name][chosen] for name in names}
            optimiser.zero_grad(set_to_none=True)
            phase.loss(network, batch).mean().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()

    parameters = parameter_count(build_network(recipe, feed.encoding, seed=0))
    pairs = interleave(ours, by_hand, pairs=12, cpu=True)
    low, high = pairs.bounds()
    say(
        name=(
            f"a whole training of {STEPS} steps, {parameters:,} parameters, batch {BATCH}: CPU, start,"
            " validation and checkpoint included"
        ),
        value=float(np.median(pairs.ours)),
        unit="s",
        other="hand-written PyTorch, the loop alone",
        ratio=pairs.ratio,
        bounds=[round(low, 3), round(high, 3)],
    )
    loop = float(np.median(loops)) * BATCH
    hand = float(np.median(pairs.other)) / STEPS
    say(
        name="one step of the trainer's loop, wall",
        value=loop * 1e6,
        unit="µs",
        other="hand-written PyTorch (CPU)",
        ratio=hand / loop,
        goal="≥ 0.90",
        holds=bool(hand / loop >= 0.9),
    )
