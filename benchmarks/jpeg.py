"""Pictures: JPEGs of 256 × 256 decoded and cut at random to 224 × 224, batches of 64, on two cores.

All read the same bytes, decode them whole and give uint8. The limit is the bare decoder on a pool of threads.
LitData, Mosaic Streaming and webdataset are given that decoder too, within their own workers; SPDL has its
own.

    BENCH_PICTURES=2000 python -m benchmarks jpeg
"""

from __future__ import annotations

from benchmarks._feeds import pictures
from benchmarks._loading import Against, beside
from benchmarks.harness import scratch, size

BATCH, SIDE, WHOLE, CORES, SEED = 64, 224, 256, 2, 7


def bench() -> None:
    with scratch("jpeg") as folder:
        made = pictures(
            folder,
            size("PICTURES", 2000),
            side=WHOLE,
            feature={"type": "image", "size": SIDE, "cut_from": WHOLE, "stored": "jpeg"},
        )
        how = {
            "data": str(made.data),
            "batch": BATCH,
            "side": SIDE,
            "threads": CORES,
            "seed": SEED,
        }
        beside(
            "pictures",
            Against(
                "penstock",
                "ours",
                "jpeg",
                {**made.ours, "batch": BATCH, "threads": CORES, "seed": SEED},
            ),
            [
                Against(
                    "simplejpeg on a pool of threads",
                    "memory",
                    "jpeg",
                    how,
                    least=0.75,
                    pairs=20,
                ),
                Against("SPDL", "spdl_threads", "jpeg", how, least=1.1),
                Against("LitData", "lit", "jpeg", how, least=1.3),
                Against("webdataset", "tars", "jpeg", how),
                Against("Mosaic Streaming", "mosaic", "jpeg", how),
            ],
            cores=CORES,
            folder=folder,
            unit="pictures",
        )
