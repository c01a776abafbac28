"""The loader within a training step: a perceptron of about 100,000 parameters, batch 256, AdamW, fed by the
loader and by indexing two tensors in memory, which no loader can beat; torch's DataLoader beside. Each in a
process of its own, one thread of torch.

    BENCH_STEPS=200 python -m benchmarks step
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from benchmarks._feeds import Encoded, encoded
from benchmarks._loading import Against
from benchmarks.harness import compare, say, say_compared, scratch, size
from benchmarks.peers import Peer

BATCH, WIDTH, ROWS, SEED = 256, 300, 100_000, 7
PARAMETERS = 31 * WIDTH + WIDTH * (WIDTH + 1) + WIDTH + 1


def bench() -> None:
    with scratch("step") as folder:
        rng = np.random.default_rng(7)
        floats = rng.normal(size=(ROWS, 30)).astype(np.float32)
        label = np.where(floats[:, :5].sum(1) + rng.normal(size=ROWS) > 0, "yes", "no")
        table = pa.table(
            {
                "x": pa.FixedSizeListArray.from_arrays(pa.array(floats.reshape(-1)), 30),
                "y": label,
            }
        )
        made: Encoded = encoded(
            folder,
            "step",
            table,
            {"x": {"type": "vector", "length": 30}},
            {"y": "binary"},
        )
        steps = min(size("STEPS", 200), made.feed.rows["train"] // BATCH)
        how = {**made.ours, "batch": BATCH, "steps": steps, "width": WIDTH, "seed": SEED}
        others = [
            Against(
                "the same loop fed from tensors in memory",
                "ours",
                "step_memory",
                how,
                group=None,
                least=0.9,
                pairs=max(size("PAIRS", 20), 20),
                by_bound=True,
            ),
            Against(
                "the same loop fed by torch's DataLoader",
                "ours",
                "step_dataloader",
                how,
                group=None,
                pairs=size("PAIRS", 10),
            ),
        ]
        with Peer("ours", group=None, cores=1, folder=folder / "loader") as mine:
            mine.setup("step", **how)
            for n, other in enumerate(others):
                with Peer(
                    "ours", group=None, cores=1, folder=folder / f"other{n}"
                ) as peer:
                    peer.setup(other.task, **how)
                    found = compare(mine.run, peer.run, pairs=other.pairs)
                name = f"{steps} steps of {PARAMETERS:,} parameters, batch {BATCH}: {other.name}"
                say_compared(
                    found,
                    name=name,
                    other=other.name,
                    least=other.least,
                    by_bound=other.by_bound,
                    cores=1,
                    versions=mine.versions,
                )
                if not n:
                    loader, memory = (
                        float(np.median(values)) * BATCH * 1e6
                        for values in (found.cpu.ours, found.cpu.other)
                    )
                    say(
                        name="what the loader adds to a step, CPU",
                        value=loader - memory,
                        unit="µs",
                        other=other.name,
                        step_us=round(loader, 1),
                        other_step_us=round(memory, 1),
                    )
