"""webdataset: tar files, a file a field, shuffled within a buffer; one sample a row, and samples of whole
batches packed by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from shared_rows import Pictures, columns, cropped, padded

PACKAGES = ("webdataset", "torch")
BUFFER = 1000
SHARDS = 8


def _opened(folder: str, rows: Iterable[dict], total: int):
    import webdataset

    torch.set_num_threads(1)
    kept = Path(folder) / "tars"
    if not kept.is_dir():
        kept.mkdir()
        with webdataset.ShardWriter(
            str(kept / "part-%03d.tar"), maxcount=max(-(-total // SHARDS), 1), verbose=0
        ) as out:
            for place, row in enumerate(rows):
                out.write({"__key__": f"{place:09d}", **row})
    files = sorted(map(str, kept.glob("*.tar")))
    return (
        webdataset.WebDataset(files, shardshuffle=len(files), empty_check=False)
        .shuffle(BUFFER)
        .decode()
    )


def tabular(*, folder: str, data: str, batch: int, seed: int):
    floats, ints, labels = columns(data)
    rows = _opened(
        folder,
        (
            {"floats.npy": f, "ints.npy": i, "label.cls": int(y)}
            for f, i, y in zip(floats, ints, labels, strict=True)
        ),
        len(labels),
    )

    def collate(some):
        f, i, y = zip(*some, strict=True)
        return (
            torch.from_numpy(np.stack(f)),
            torch.from_numpy(np.stack(i)),
            torch.tensor(y),
        )

    batches = rows.to_tuple("floats.npy", "ints.npy", "label.cls").batched(
        batch, collation_fn=collate
    )
    return lambda n: iter(batches), lambda b: len(b[-1]), lambda b: b[-1].sum()


def packed(*, folder: str, data: str, batch: int, seed: int):
    floats, ints, labels = columns(data)
    made = (
        {
            "floats.npy": floats[at : at + batch],
            "ints.npy": ints[at : at + batch],
            "label.npy": labels[at : at + batch],
        }
        for at in range(0, len(labels), batch)
    )
    samples = _opened(folder, made, -(-len(labels) // batch))
    batches = samples.to_tuple("floats.npy", "ints.npy", "label.npy").map_tuple(
        torch.from_numpy, torch.from_numpy, torch.from_numpy
    )
    return lambda n: iter(batches), lambda b: len(b[-1]), lambda b: b[-1].sum()


def text(*, folder: str, data: str, batch: int, seed: int):
    flat, offsets = (
        np.load(Path(data) / f"{name}.npy") for name in ("tokens", "offsets")
    )
    texts = _opened(
        folder,
        ({"tokens.npy": flat[low:high]} for low, high in pairwise(offsets)),
        len(offsets) - 1,
    )
    batches = texts.to_tuple("tokens.npy").batched(
        batch, collation_fn=lambda rows: padded([row[0] for row in rows])
    )
    return lambda n: iter(batches), lambda b: len(b[0]), lambda b: b[1].sum()


def jpeg(*, folder: str, data: str, batch: int, side: int, threads: int, seed: int):
    import webdataset

    pictures = Pictures(data)
    rows = _opened(
        folder,
        (
            {"coded.bin": coded, "label.cls": label}
            for coded, label in (pictures[n] for n in range(len(pictures)))
        ),
        len(pictures),
    )
    made = rows.to_tuple("coded.bin", "label.cls").map_tuple(
        lambda coded: cropped(coded, side), int
    )
    loader = webdataset.WebLoader(
        made, batch_size=batch, num_workers=threads, persistent_workers=True
    )
    return lambda n: iter(loader), lambda b: len(b[0]), lambda b: b[1].sum()
