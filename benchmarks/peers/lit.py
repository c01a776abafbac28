"""LitData: optimised chunks, StreamingDataset and StreamingDataLoader, shuffled; one sample a row, and
samples of whole batches packed by hand.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from shared_rows import Pictures, columns, cropped, joined, padded

PACKAGES = ("litdata", "torch")


def _row(data: str, n: int) -> dict:
    floats, ints, labels = _columns(data)
    return {"floats": floats[n], "ints": ints[n], "label": int(labels[n])}


def _packed(data: str, batch: int, n: int) -> dict:
    return {
        name: values[n * batch : (n + 1) * batch]
        for name, values in zip(("floats", "ints", "label"), _columns(data), strict=True)
    }


def _tokens(data: str, n: int) -> np.ndarray:
    flat, offsets = _held(
        ("text", data),
        lambda: tuple(
            np.load(Path(data) / f"{name}.npy") for name in ("tokens", "offsets")
        ),
    )
    return flat[offsets[n] : offsets[n + 1]]


def _picture(data: str, n: int) -> dict:
    coded, label = _held(("jpeg", data), lambda: Pictures(data))[n]
    return {"coded": coded, "label": label}


def _columns(data: str):
    return _held(("rows", data), lambda: columns(data))


_KEPT: dict = {}


def _held(key, make):
    if key not in _KEPT:
        _KEPT[key] = make()
    return _KEPT[key]


def _chunks(folder: str, of, rows: int) -> str:
    from litdata import optimize

    kept = Path(folder) / "chunks"
    if not (kept / "index.json").is_file():
        optimize(
            of,
            list(range(rows)),
            str(kept),
            chunk_bytes="64MB",
            num_workers=1,
            start_method="fork",
            verbose=False,
        )
    return str(kept)


def _loader(dataset, batch: int, collate, workers: int = 0):
    from litdata import StreamingDataLoader

    torch.set_num_threads(1)
    loader = StreamingDataLoader(
        dataset,
        batch_size=batch,
        num_workers=workers,
        collate_fn=collate,
        persistent_workers=workers > 0,
    )
    return lambda n: iter(loader)


def tabular(*, folder: str, data: str, batch: int, seed: int):
    from litdata import StreamingDataset

    rows = StreamingDataset(
        _chunks(folder, partial(_row, data), len(_columns(data)[2])),
        shuffle=True,
        drop_last=False,
        seed=seed,
    )
    return (
        _loader(rows, batch, None),
        lambda b: len(b["label"]),
        lambda b: b["label"].sum(),
    )


def packed(*, folder: str, data: str, batch: int, seed: int):
    from litdata import StreamingDataset

    rows = len(_columns(data)[2])
    samples = StreamingDataset(
        _chunks(folder, partial(_packed, data, batch), -(-rows // batch)),
        shuffle=True,
        drop_last=False,
        seed=seed,
    )
    return (
        _loader(samples, 1, joined),
        lambda b: len(b["label"]),
        lambda b: b["label"].sum(),
    )


def text(*, folder: str, data: str, batch: int, seed: int):
    from litdata import StreamingDataset

    rows = len(np.load(Path(data) / "offsets.npy", mmap_mode="r")) - 1
    texts = StreamingDataset(
        _chunks(folder, partial(_tokens, data), rows),
        shuffle=True,
        drop_last=False,
        seed=seed,
    )
    return _loader(texts, batch, padded), lambda b: len(b[0]), lambda b: b[1].sum()


def jpeg(*, folder: str, data: str, batch: int, side: int, threads: int, seed: int):
    from litdata import StreamingDataset

    class Cropped(StreamingDataset):
        def __getitem__(self, index):
            row = super().__getitem__(index)
            return cropped(row["coded"], side), row["label"]

    pictures = Cropped(
        _chunks(folder, partial(_picture, data), len(Pictures(data))),
        shuffle=True,
        drop_last=False,
        seed=seed,
    )
    return (
        _loader(pictures, batch, None, workers=threads),
        lambda b: len(b[0]),
        lambda b: b[1].sum(),
    )
