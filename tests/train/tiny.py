"""A feed of a few hundred made rows, for tests of training: no source, no engine, in milliseconds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.core.events import Event, Events
from penstock.core.identity import sha256_file
from penstock.core.store import Store
from penstock.encode.feed import SPLITS, Feed, fit_encoding
from penstock.recipe.schema import Recipe, load_recipe
from penstock.run import Run
from penstock.shards.row_ids import row_id_halves
from penstock.shards.writer import ShardWriter

TWO = {"type": "local", "processes": 2, "threads": 1}
NO_CHANCE = {
    "model": {
        "encoders": {"c": {"type": "embedding", "forget": 0.0}},
        "combiner": {"type": "mlp", "width": 16, "depth": 2, "dropout": 0.0},
    },
    "schedule": {"type": "constant", "warmup": 0.0},
    "optimiser": "sgd",
    "lr": 0.05,
}


def tiny_recipe(folder: Path, *, weight: str | None = None, **words: Any) -> Recipe:
    """One process and one thread unless said otherwise; `words` go into `train`, but for sections of that
    name.
    """
    sections = {
        word: words.pop(word)
        for word in ("launcher", "targets", "model", "seed", "parallel")
        if word in words
    }
    train = {"epochs": 3, "batch_size": 64, "lr": 0.01, "early_stop": None, **words}
    return load_recipe(
        {
            "name": "tiny",
            "seed": 3,
            "source": {"type": "files", "path": str(folder / "none.csv")},
            "inputs": {"a": "number", "b": "number", "c": "category"},
            "targets": {"y": "binary"},
            "model": {
                "combiner": {"type": "mlp", "width": 16, "depth": 2, "dropout": 0.1}
            },
            "weight": weight,
            "launcher": {"type": "local", "processes": 1, "threads": 1},
            "trackers": [],
            "train": train,
            **sections,
        },
        base=folder,
    )


def tiny_table(rows: int, *, seed: int = 0) -> pa.Table:
    chance = np.random.default_rng(seed)
    a, b = chance.normal(size=rows), chance.normal(size=rows)
    c = chance.choice(["red", "green", "blue"], rows)
    y = (a + b * (c == "red") + 0.3 * chance.normal(size=rows)) > 0
    z = np.where(y, 3.0, -1.0) + 0.1 * a
    ids = [hashlib.md5(f"{seed}-{i}".encode()).hexdigest() for i in range(rows)]
    return pa.table(
        {
            "row_id": pa.array(ids, pa.string()),
            "a": a,
            "b": b,
            "c": c,
            "y": np.where(y, "yes", "no"),
            "z": z,
            "w": chance.integers(0, 4, rows).astype(float),
        }
    )


def tiny_feed(
    store: Store,
    recipe: Recipe,
    *,
    rows: int = 500,
    validation: int = 200,
    change: Any = None,
    shard_rows: int | None = None,
) -> Feed:
    tables = {
        "train": tiny_table(rows),
        "validation": tiny_table(validation, seed=1),
        "test": tiny_table(20, seed=2),
    }
    encoding = fit_encoding(recipe, tables["train"])
    id = hashlib.md5(
        repr((rows, validation, recipe.inputs, recipe.targets, recipe.weight)).encode()
    ).hexdigest()[:16]
    manifest: dict[str, Any] = {
        "type": "feed",
        "id": id,
        "dataset": "tiny@0123456789abcdef",
        "quarantined": dict.fromkeys(SPLITS, 0),
        "reasons": {},
    }
    with store.draft(f"feeds/{id}", manifest=manifest) as folder:
        (folder / "fitted.json").write_text(json.dumps(encoding.to_dict()))
        manifest["rows"], manifest["shards"], manifest["shard_rows"] = {}, {}, {}
        for split, table in tables.items():
            accepted = encoding.accept(table, targets=True)
            stored = {
                "row_id": row_id_halves(table["row_id"].combine_chunks()),
                **encoding.encode(accepted),
            }
            if change and split == "train":
                change(stored)
            with ShardWriter(folder, split, shard_rows=shard_rows) as writer:
                writer.write(stored)
            (
                manifest["rows"][split],
                manifest["shards"][split],
                manifest["shard_rows"][split],
            ) = (
                writer.rows,
                writer.files,
                writer.rows_by_file,
            )
    return Feed.open(store, id=id)


def tiny_run(store: Store, recipe: Recipe, feed: Feed) -> Run:
    return Run.create(
        store, recipe=recipe, dataset=feed.dataset, feed=feed.id, key="0" * 16
    )


class Heard:
    """Events, kept."""

    def __init__(self) -> None:
        self.all: list[Event] = []
        self.events = Events(self.all.append)

    def texts(self, name: str = "said") -> list[str]:
        return [event.fields["text"] for event in self.all if event.name == name]

    def fields(self, name: str) -> list[dict[str, Any]]:
        return [event.fields for event in self.all if event.name == name]


def weights(run: Run) -> str:
    """A digest of what it has learnt."""
    return sha256_file(run.weights)
