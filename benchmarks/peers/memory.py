"""The limits, without a library: rows gathered from arrays in memory, pictures from the bare decoder; and
torch's own DataLoader over tensors in memory.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

PACKAGES = ("torch", "numpy")


def tabular(*, folder: str, data: str, batch: int, seed: int):
    """A gather by numpy; each epoch's permutation is there before."""
    floats, ints, labels = (
        np.array(np.load(Path(data) / f"{name}.npy"))
        for name in ("floats", "ints", "labels")
    )
    orders: dict[int, np.ndarray] = {
        n: np.random.default_rng((seed, n)).permutation(len(labels)) for n in range(2)
    }

    def epoch(n: int):
        order = orders[n % 2]
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            yield {
                name: torch.from_numpy(values.take(chosen, axis=0))
                for name, values in (
                    ("floats", floats),
                    ("ints", ints),
                    ("label", labels),
                )
            }

    torch.set_num_threads(1)
    return epoch, lambda b: len(b["label"]), lambda b: b["label"].sum()


def dataloader(*, folder: str, data: str, batch: int, seed: int):
    """torch's DataLoader over a TensorDataset, whole batches at a time by a batch sampler."""
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

    torch.set_num_threads(1)
    rows = TensorDataset(
        *(
            torch.from_numpy(np.array(np.load(Path(data) / f"{name}.npy")))
            for name in ("floats", "ints", "labels")
        )
    )
    loader = DataLoader(
        rows,
        sampler=BatchSampler(RandomSampler(rows), batch, drop_last=False),
        batch_size=None,
    )
    return lambda n: iter(loader), lambda b: len(b[-1]), lambda b: b[-1].sum()


def text(*, folder: str, data: str, batch: int, seed: int):
    """Rows gathered into padded batches: ids and where they are."""
    flat, offsets = (
        np.array(np.load(Path(data) / f"{name}.npy")) for name in ("tokens", "offsets")
    )
    rows = len(offsets) - 1
    orders = {n: np.random.default_rng((seed, n)).permutation(rows) for n in range(2)}

    def epoch(n: int):
        order = orders[n % 2]
        for start in range(0, rows, batch):
            chosen = order[start : start + batch]
            starts, stops = offsets[chosen], offsets[chosen + 1]
            lengths = stops - starts
            tokens = np.zeros((len(chosen), int(lengths.max())), np.int64)
            for row, (low, high) in enumerate(
                zip(starts.tolist(), stops.tolist(), strict=True)
            ):
                tokens[row, : high - low] = flat[low:high]
            yield (
                torch.from_numpy(tokens),
                torch.from_numpy(np.arange(tokens.shape[1]) < lengths[:, None]),
            )

    torch.set_num_threads(1)
    return epoch, lambda b: len(b[0]), lambda b: b[1].sum()


def jpeg(*, folder: str, data: str, batch: int, side: int, threads: int, seed: int):
    """simplejpeg on a pool of threads; each batch is written by them into one array, and two are under
    way.
    """
    import simplejpeg

    coded, offsets, labels = (
        np.memmap(Path(data) / "pictures.bin", np.uint8, "r"),
        np.load(Path(data) / "offsets.npy"),
        np.load(Path(data) / "labels.npy"),
    )
    pool, piece = ThreadPoolExecutor(threads), max(batch // (4 * threads), 1)

    def decode(chosen: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        for row, picture in enumerate(chosen.tolist()):
            pixels = simplejpeg.decode_jpeg(
                coded[offsets[picture] : offsets[picture + 1]], "RGB"
            )
            top, left = (
                int(places[row, 0] * (pixels.shape[0] - side + 1)),
                int(places[row, 1] * (pixels.shape[1] - side + 1)),
            )
            out[row] = pixels[top : top + side, left : left + side]

    def begin(chosen: np.ndarray, rng: np.random.Generator):
        out, places = (
            np.empty((len(chosen), side, side, 3), np.uint8),
            rng.random((len(chosen), 2)),
        )
        work = [
            pool.submit(
                decode,
                chosen[at : at + piece],
                places[at : at + piece],
                out[at : at + piece],
            )
            for at in range(0, len(chosen), piece)
        ]
        return chosen, out, work

    def epoch(n: int):
        rng = np.random.default_rng((seed, n))
        order = rng.permutation(len(labels))
        waiting: deque = deque()
        for start in [*range(0, len(order), batch), -1, -1]:
            if start >= 0:
                waiting.append(begin(order[start : start + batch], rng))
            if len(waiting) > 2 or (start < 0 and waiting):
                chosen, out, work = waiting.popleft()
                for each in work:
                    each.result()
                yield torch.from_numpy(out), torch.from_numpy(labels[chosen])

    torch.set_num_threads(1)
    return epoch, lambda b: len(b[0]), lambda b: b[1].sum()
