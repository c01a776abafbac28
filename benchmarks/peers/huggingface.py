"""Hugging Face datasets over memory-mapped Arrow files, read by whole Arrow batches: the fast way, by hand.

Batches are runs of rows, shuffled among each other (a shuffle of rows would be many times slower), which is
less than the others do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

PACKAGES = ("datasets", "pyarrow", "torch")


def _opened(folder: str, table):
    from datasets import Dataset, disable_progress_bars, load_from_disk

    torch.set_num_threads(1)
    disable_progress_bars()
    kept = Path(folder) / "arrow"
    if not kept.is_dir():
        Dataset(table()).save_to_disk(str(kept))
    return load_from_disk(str(kept)).with_format("arrow")


def _runs(rows: int, batch: int, seed: int, n: int) -> list[int]:
    starts = np.arange(0, rows, batch)
    return np.random.default_rng((seed, n)).permutation(starts).tolist()


def tabular(*, folder: str, data: str, batch: int, seed: int):
    floats, ints, labels = (
        np.load(Path(data) / f"{name}.npy") for name in ("floats", "ints", "labels")
    )
    rows = _opened(
        folder,
        lambda: pa.table(
            {
                **{
                    f"x{i}": np.ascontiguousarray(floats[:, i])
                    for i in range(floats.shape[1])
                },
                **{
                    f"c{i}": np.ascontiguousarray(ints[:, i])
                    for i in range(ints.shape[1])
                },
                "label": labels,
            }
        ),
    )

    def epoch(n: int):
        for start in _runs(len(rows), batch, seed, n):
            table = rows[start : start + batch]
            arrays = {
                name: np.asarray(column)
                for name, column in zip(table.column_names, table.columns, strict=True)
            }
            wide = [arrays.pop(f"x{i}") for i in range(floats.shape[1])]
            # what a model takes, as the others give
            yield {
                "x": torch.from_numpy(np.stack(wide, axis=1)),
                **{
                    name: torch.from_numpy(np.array(values))
                    for name, values in arrays.items()
                },
            }

    return epoch, lambda b: len(b["label"]), lambda b: b["label"].sum()


def rows(*, folder: str, data: str, batch: int, seed: int):
    """The same table by its own means: rows shuffled, batches as tensors."""
    floats, ints, labels = (
        np.load(Path(data) / f"{name}.npy") for name in ("floats", "ints", "labels")
    )
    table = _opened(
        folder,
        lambda: pa.table(
            {
                **{
                    f"x{i}": np.ascontiguousarray(floats[:, i])
                    for i in range(floats.shape[1])
                },
                **{
                    f"c{i}": np.ascontiguousarray(ints[:, i])
                    for i in range(ints.shape[1])
                },
                "label": labels,
            }
        ),
    )

    def epoch(n: int):
        return table.shuffle(seed=n, keep_in_memory=True).with_format("torch").iter(batch)

    return epoch, lambda b: len(b["label"]), lambda b: b["label"].sum()


def text(*, folder: str, data: str, batch: int, seed: int):
    flat, offsets = (
        np.load(Path(data) / f"{name}.npy") for name in ("tokens", "offsets")
    )
    texts = _opened(
        folder,
        lambda: pa.table(
            {"tokens": pa.ListArray.from_arrays(offsets.astype(np.int32), flat)}
        ),
    )

    def epoch(n: int):
        for start in _runs(len(texts), batch, seed, n):
            column = texts[start : start + batch].column("tokens").combine_chunks()
            ends = np.asarray(column.offsets)
            values = np.asarray(column.values)
            lengths = np.diff(ends)
            tokens = np.zeros((len(lengths), int(lengths.max())), np.int64)
            mask = np.arange(tokens.shape[1]) < lengths[:, None]
            tokens[mask] = values[ends[0] : ends[-1]]
            yield torch.from_numpy(tokens), torch.from_numpy(mask)

    return epoch, lambda b: len(b[0]), lambda b: b[1].sum()
