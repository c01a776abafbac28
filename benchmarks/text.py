"""Texts that are ids already: rows of 16–256 ids (uint16 as stored), shuffled, padded batches of 256 and of
64 (int64, and a mask), one core each.

The limit is a gather of rows from one array in memory into padded batches. Peers' rows are padded by the same
few lines.

    BENCH_TEXTS=50000 BENCH_PEER_TEXTS=20000 python -m benchmarks text
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks._feeds import texts
from benchmarks._loading import Against, beside
from benchmarks.harness import scratch, size

BATCH, SMALL, SEED = 256, 64, 7


def bench() -> None:
    with scratch("text") as folder:
        made = texts(folder, size("TEXTS", 50_000))
        few = _part(made.data, size("PEER_TEXTS", 20_000))

        def over(data: object, batch: int = BATCH) -> dict[str, Any]:
            return {"data": str(data), "batch": batch, "seed": SEED}

        def tokens(seen: Any) -> float:
            return float(seen["total"] / seen["rows"])

        beside(
            "texts in batches of 256",
            Against(
                "penstock", "ours", "text", {**made.ours, "batch": BATCH, "seed": SEED}
            ),
            [
                Against(
                    "a gather into padded batches, from an array in memory",
                    "memory",
                    "text",
                    over(made.data),
                    group=None,
                    least=0.4,
                    pairs=20,
                ),
                Against("LitData, a sample a row", "lit", "text", over(few), least=5.0),
                Against(
                    "Hugging Face datasets, whole Arrow batches",
                    "huggingface",
                    "text",
                    over(made.data),
                ),
                Against("Mosaic Streaming, a sample a row", "mosaic", "text", over(few)),
                Against("webdataset, a sample a row", "tars", "text", over(few)),
            ],
            cores=1,
            folder=folder,
            unit="tokens",
            per_row=tokens,
        )
        beside(
            "texts in batches of 64",
            Against(
                "penstock", "ours", "text", {**made.ours, "batch": SMALL, "seed": SEED}
            ),
            [
                Against(
                    "a gather into padded batches, from an array in memory",
                    "memory",
                    "text",
                    over(made.data, SMALL),
                    group=None,
                    least=0.4,
                    pairs=20,
                ),
                Against("LitData, a sample a row", "lit", "text", over(few, SMALL)),
            ],
            cores=1,
            folder=folder,
            unit="tokens",
            per_row=tokens,
        )


def _part(data: Any, rows: int) -> object:
    offsets = np.load(data / "offsets.npy")
    if rows + 1 >= len(offsets):
        return data
    folder = data.with_name(f"{data.name}-{rows}")
    folder.mkdir(exist_ok=True)
    np.save(folder / "offsets.npy", offsets[: rows + 1])
    np.save(
        folder / "tokens.npy",
        np.load(data / "tokens.npy", mmap_mode="r")[: offsets[rows]],
    )
    return folder
