"""Rows of a table reach the model: 30 float32, 10 int64 and a label, in shuffled batches of 4,096, one core
each.

Ours is a Loader over a feed, which gives `row_id` and `weight` too. The limit is a gather of the same values
from arrays in memory. Peers give them as they like it best: matrices, or columns. LitData, Mosaic Streaming
and webdataset are slow at one sample a row, so they have fewer rows; the ratio is of seconds a row. The ratio
for samples of 4,096 rows packed by hand is stated too: that is fast, but shuffles no rows.

    BENCH_TABLE_ROWS=1000000 BENCH_PEER_ROWS=100000 BENCH_SLOW_ROWS=8192 python -m benchmarks tabular
"""

from __future__ import annotations

from typing import Any

from benchmarks._feeds import part, tabular
from benchmarks._loading import Against, beside
from benchmarks.harness import scratch, size

BATCH, SEED = 4096, 7


def bench() -> None:
    rows = size("TABLE_ROWS", 1_050_000)
    with scratch("tabular") as folder:
        table = tabular(folder, rows)
        ours = Against(
            "penstock", "ours", "tabular", {**table.ours, "batch": BATCH, "seed": SEED}
        )

        def over(most: int) -> dict[str, Any]:
            return {"data": str(part(table, most)), "batch": BATCH, "seed": SEED}

        peer, slow = size("PEER_ROWS", 100_000), size("SLOW_ROWS", 8_192)
        beside(
            "table",
            ours,
            [
                Against(
                    "a gather from arrays in memory",
                    "memory",
                    "tabular",
                    over(rows),
                    group=None,
                    least=0.5,
                    pairs=20,
                ),
                Against(
                    "torch DataLoader over tensors, batch sampler",
                    "memory",
                    "dataloader",
                    over(rows),
                    group=None,
                ),
                Against(
                    "Hugging Face datasets, whole Arrow batches",
                    "huggingface",
                    "tabular",
                    over(rows),
                    least=2.0,
                ),
                Against(
                    "Hugging Face datasets, rows shuffled, as tensors",
                    "huggingface",
                    "rows",
                    over(peer),
                ),
                Against(
                    "LitData, a sample a row", "lit", "tabular", over(peer), least=20.0
                ),
                Against(
                    "LitData, samples of 4,096 rows packed by hand",
                    "lit",
                    "packed",
                    over(rows),
                ),
                Against(
                    "Mosaic Streaming, a sample a row",
                    "mosaic",
                    "tabular",
                    over(slow),
                    least=100.0,
                ),
                Against(
                    "Mosaic Streaming, samples of 4,096 rows packed by hand",
                    "mosaic",
                    "packed",
                    over(rows),
                ),
                Against(
                    "webdataset, a sample a row",
                    "tars",
                    "tabular",
                    over(slow),
                    least=100.0,
                ),
                Against(
                    "webdataset, samples of 4,096 rows packed by hand",
                    "tars",
                    "packed",
                    over(rows),
                ),
            ],
            cores=1,
            folder=folder,
        )
        runs = Against(
            "penstock",
            "ours",
            "tabular",
            {**ours.how, "shuffle": "blocks", "order": {"block": BATCH, "window": 1}},
        )
        beside(
            "table in shuffled runs of 4,096 neighbours, as Hugging Face's are, and shuffled within each",
            runs,
            [
                Against(
                    "Hugging Face datasets, whole Arrow batches",
                    "huggingface",
                    "tabular",
                    over(rows),
                    least=2.0,
                ),
                Against(
                    "a gather from arrays in memory",
                    "memory",
                    "tabular",
                    over(rows),
                    group=None,
                ),
            ],
            cores=1,
            folder=folder / "runs",
        )
        blocks = Against("penstock", "ours", "tabular", {**ours.how, "shuffle": "blocks"})
        beside(
            "table shuffled by blocks",
            blocks,
            [
                Against(
                    "a gather from arrays in memory",
                    "memory",
                    "tabular",
                    over(rows),
                    group=None,
                )
            ],
            cores=1,
            folder=folder / "blocks",
        )
        columns = tabular(folder, rows, columns=True)
        beside(
            "table of 30 number columns, each with its flag of being missing",
            Against(
                "penstock",
                "ours",
                "tabular",
                {**columns.ours, "batch": BATCH, "seed": SEED},
            ),
            [
                Against(
                    "a gather of the same 60 floats",
                    "memory",
                    "tabular",
                    {"data": str(columns.data), "batch": BATCH, "seed": SEED},
                    group=None,
                )
            ],
            cores=1,
            folder=folder / "columns",
        )
