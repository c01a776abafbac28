"""Data that benchmarks of loading share: written as Parquet, prepared and encoded by the very pipeline that
users run, then laid out as plain arrays in the same order, so that every peer is given the same values as the
loader.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Cannot
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.feed import Feed
from penstock.loader.loader import Loader
from penstock.pipeline.stages import Pipeline
from penstock.recipe.schema import load_recipe

PICTURES = Path(__file__).parents[2] / "shared" / "data" / "fashion" / "images"


@dataclass(frozen=True)
class Encoded:
    """A feed, and where the same values lie as plain arrays."""

    store: str
    feed: Feed
    data: Path

    @property
    def ours(self) -> dict[str, str]:
        return {"store": self.store, "feed": self.feed.id}


def encoded(
    folder: Path,
    name: str,
    table: pa.Table,
    inputs: dict[str, Any],
    targets: dict[str, Any],
) -> Encoded:
    """Prepare and encode a table; nearly all of it is the training split."""
    source = folder / f"{name}.parquet"
    if not source.is_file():
        pq.write_table(table, source, row_group_size=1 << 17)
    recipe = load_recipe(
        {
            "name": name,
            "source": {"type": "files", "path": str(source)},
            "split": {"train": 0.98, "validation": 0.01, "test": 0.01},
            "inputs": inputs,
            "targets": targets,
            "launcher": {"type": "local", "processes": 1, "threads": 1},
            "trackers": [],
        }
    )
    pipeline = Pipeline(recipe, Store(folder / "store"), Events())
    pipeline.prepare()
    pipeline.encode()
    feed = pipeline.outcome.feed
    assert feed is not None
    data = folder / f"{name}-arrays"
    data.mkdir(exist_ok=True)
    return Encoded(str(folder / "store"), feed, data)


def arrays(feed: Feed, *, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What the loader gives of the training split, in stored order."""
    pieces = [
        {name: np.array(batch[name]) for name in names}
        for batch in Loader(feed, batch_size=1 << 16, order="stored", numpy=True)
    ]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in names}


def tabular(folder: Path, rows: int, *, columns: bool = False) -> Encoded:
    """30 floats, 10 categories and a label of 10 classes; the floats as one vector, or with `columns` as 30
    columns.
    """
    rng = np.random.default_rng(7)
    floats = rng.normal(size=(rows, 30)).astype(np.float32)
    made: dict[str, Any] = {
        f"c{i}": rng.integers(0, 10 * (i + 1), rows) for i in range(10)
    }
    made |= (
        {f"x{i}": np.ascontiguousarray(floats[:, i]) for i in range(30)}
        if columns
        else {"x": pa.FixedSizeListArray.from_arrays(pa.array(floats.reshape(-1)), 30)}
    )
    made["y"] = (floats[:, :5].sum(1) * 2 + 5).clip(0, 9).astype(np.int64)
    inputs: dict[str, Any] = (
        {f"x{i}": "number" for i in range(30)}
        if columns
        else {"x": {"type": "vector", "length": 30}}
    )
    name = "columns" if columns else "matrix"
    found = encoded(
        folder,
        name,
        pa.table(made),
        inputs | {f"c{i}": "category" for i in range(10)},
        {"y": "category"},
    )
    ints, floating = (
        tuple(f"c{i}.index" for i in range(10)),
        (
            tuple(f"x{i}.{word}" for i in range(30) for word in ("value", "missing"))
            if columns
            else ("x.value",)
        ),
    )
    held = arrays(found.feed, names=(*floating, *ints, "y.index"))
    np.save(
        found.data / "floats.npy",
        np.stack([held[n] for n in floating], 1) if columns else held["x.value"],
    )
    np.save(found.data / "ints.npy", np.stack([held[n] for n in ints], 1))
    np.save(found.data / "labels.npy", held["y.index"])
    return found


def part(encoded: Encoded, rows: int) -> Path:
    """The first `rows` rows of the plain arrays alone, for peers that would take too long."""
    labels = np.load(encoded.data / "labels.npy", mmap_mode="r")
    if rows >= len(labels):
        return encoded.data
    folder = encoded.data.with_name(f"{encoded.data.name}-{rows}")
    folder.mkdir(exist_ok=True)
    for name in ("floats", "ints", "labels"):
        np.save(
            folder / f"{name}.npy",
            np.load(encoded.data / f"{name}.npy", mmap_mode="r")[:rows],
        )
    return folder


def texts(folder: Path, rows: int) -> Encoded:
    """Rows of 16–256 ids of a vocabulary of 30,000, uint16 as stored."""
    rng = np.random.default_rng(7)
    lengths = rng.integers(16, 257, rows)
    flat = np.minimum((30_000 * rng.random(int(lengths.sum())) ** 3), 29_999).astype(
        np.int32
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    table = pa.table(
        {
            "words": pa.ListArray.from_arrays(offsets, pa.array(flat)),
            "y": rng.choice(["yes", "no"], rows),
        }
    )
    found = encoded(
        folder,
        "texts",
        table,
        {"words": {"type": "sequence", "unit": "items"}},
        {"y": "binary"},
    )
    pieces, counts = [], [np.zeros(1, np.int64)]
    for batch in Loader(found.feed, batch_size=1 << 13, order="stored", numpy=True):
        mask = batch["words.mask"]
        pieces.append(batch["words.tokens"][mask].astype(np.uint16))
        counts.append(mask.sum(1))
    np.save(found.data / "tokens.npy", np.concatenate(pieces))
    np.save(
        found.data / "offsets.npy", np.cumsum(np.concatenate(counts)).astype(np.int64)
    )
    return found


def pictures(folder: Path, rows: int, *, side: int, feature: dict[str, Any]) -> Encoded:
    """Photographs brought to `side`² as JPEG, repeated as often as needed; noise of several scales where the
    data set is absent.
    """
    coded = _photographs(rows, side)
    rng = np.random.default_rng(7)
    table = pa.table(
        {
            "picture": pa.array(coded, pa.large_binary()),
            "y": rng.integers(0, 10, rows),
            "place": np.arange(rows),
        }
    )
    found = encoded(folder, "pictures", table, {"picture": feature}, {"y": "category"})
    shards = found.feed.shards("train")
    held = shards.gather(np.arange(found.feed.rows["train"]))
    stored = [
        name
        for name, values in held.items()
        if values.dtype == object
        and isinstance(values[0], (bytes, memoryview, np.ndarray, pa.Buffer))
    ]
    if not stored:
        raise Cannot(f"the feed stores no coded pictures; it has {', '.join(held)}")
    bodies = [bytes(body) for body in held[stored[0]]]
    (found.data / "pictures.bin").write_bytes(b"".join(bodies))
    np.save(found.data / "offsets.npy", np.cumsum([0, *map(len, bodies)]))
    np.save(found.data / "labels.npy", held["y.index"])
    return found


def _photographs(rows: int, side: int) -> list[bytes]:
    from PIL import Image

    rng, different = np.random.default_rng(7), min(rows, 500)
    files = sorted(PICTURES.glob("*.jpg"))[:different] if PICTURES.is_dir() else []
    found = []
    for n in range(different):
        if files:
            image = (
                Image.open(files[n % len(files)])
                .convert("RGB")
                .resize((side, side), Image.Resampling.LANCZOS)
            )
        else:
            layers = [
                Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).resize(
                    (side, side), Image.Resampling.BICUBIC
                )
                for size in (4, 16, 64)
            ]
            image = Image.blend(Image.blend(layers[0], layers[1], 0.4), layers[2], 0.15)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=90)
        found.append(out.getvalue())
    return [found[n % different] for n in range(rows)]
