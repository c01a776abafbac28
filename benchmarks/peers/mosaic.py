"""Mosaic Streaming: MDS shards, StreamingDataset under torch's DataLoader, shuffled; one sample a row, and
samples of whole batches packed by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from shared_rows import Pictures, columns, cropped, joined, padded, without_box_operators

PACKAGES = ("mosaicml-streaming", "torch")


def _opened(
    folder: str,
    kinds: dict[str, str],
    rows: Iterable[dict],
    *,
    batch: int,
    seed: int,
    of=None,
    **more,
):
    without_box_operators()
    from streaming import MDSWriter, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    torch.set_num_threads(1)
    clean_stale_shared_memory()
    kept = Path(folder) / "mds"
    if not (kept / "index.json").is_file():
        with MDSWriter(out=str(kept), columns=kinds, size_limit=1 << 26) as out:
            for row in rows:
                out.write(row)
    return (of or StreamingDataset)(
        local=str(kept), shuffle=True, shuffle_seed=seed, batch_size=batch, **more
    )


def _loader(dataset, batch: int, collate=None, workers: int = 0):
    from torch.utils.data import DataLoader

    loader = DataLoader(
        dataset,
        batch_size=batch,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
    )
    return lambda n: iter(loader)


def tabular(*, folder: str, data: str, batch: int, seed: int):
    floats, ints, labels = columns(data)
    kinds = {
        "floats": f"ndarray:float32:{floats.shape[1]}",
        "ints": f"ndarray:int64:{ints.shape[1]}",
        "label": "int",
    }
    rows = _opened(
        folder,
        kinds,
        (
            {"floats": f, "ints": i, "label": int(y)}
            for f, i, y in zip(floats, ints, labels, strict=True)
        ),
        batch=batch,
        seed=seed,
    )
    return _loader(rows, batch), lambda b: len(b["label"]), lambda b: b["label"].sum()


def packed(*, folder: str, data: str, batch: int, seed: int):
    floats, ints, labels = columns(data)
    kinds = {
        "floats": "ndarray:float32",
        "ints": "ndarray:int64",
        "label": "ndarray:int64",
    }
    made = (
        {
            "floats": floats[at : at + batch],
            "ints": ints[at : at + batch],
            "label": labels[at : at + batch],
        }
        for at in range(0, len(labels), batch)
    )
    return (
        _loader(_opened(folder, kinds, made, batch=1, seed=seed), 1, joined),
        lambda b: len(b["label"]),
        lambda b: b["label"].sum(),
    )


def text(*, folder: str, data: str, batch: int, seed: int):
    flat, offsets = (
        np.load(Path(data) / f"{name}.npy") for name in ("tokens", "offsets")
    )
    texts = _opened(
        folder,
        {"tokens": "ndarray:uint16"},
        ({"tokens": flat[low:high]} for low, high in pairwise(offsets)),
        batch=batch,
        seed=seed,
    )
    return (
        _loader(texts, batch, lambda rows: padded([row["tokens"] for row in rows])),
        lambda b: len(b[0]),
        lambda b: b[1].sum(),
    )


def jpeg(*, folder: str, data: str, batch: int, side: int, threads: int, seed: int):
    without_box_operators()
    from streaming import StreamingDataset

    class Cropped(StreamingDataset):
        def __getitem__(self, at):
            row = super().__getitem__(at)
            return cropped(row["coded"], side), row["label"]

    rows = (
        {"coded": coded, "label": label}
        for coded, label in (
            pictures[n] for pictures in [Pictures(data)] for n in range(len(pictures))
        )
    )
    return (
        _loader(
            _opened(
                folder,
                {"coded": "bytes", "label": "int"},
                rows,
                batch=batch,
                seed=seed,
                of=Cropped,
            ),
            batch,
            workers=threads,
        ),
        lambda b: len(b[0]),
        lambda b: b[1].sum(),
    )
