"""Bundles for tests, packed for real from small stand-ins of a dataset, a feed and a run (whose weights are
those of the seed).
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
from safetensors.torch import save_file

from penstock.core.events import Event, Events
from penstock.core.store import Store, seal
from penstock.encode.encoding import Encoding
from penstock.model import build_network
from penstock.recipe.bundled import bundle_id
from penstock.recipe.schema import load_recipe

DECLARED: dict[str, Any] = {
    "name": "people",
    "seed": 5,
    "source": {"type": "files", "path": "lake"},
    "keep": ["id"],
    "inputs": {
        "age": "number",
        "income": "number",
        "city": "category",
        "code": "category",
        "member": "binary",
        "joined": "timestamp",
        "place": {"type": "vector", "length": 2},
    },
    "targets": {
        "pay": {"type": "binary", "positive": "high"},
        "kind": "category",
        "score": "number",
    },
    "model": {"combiner": {"type": "mlp", "width": 16, "depth": 1}},
}


def people(rows: int = 300, *, seed: int = 1) -> pa.Table:
    """Made-up rows of every type, some values missing."""
    chance = random.Random(seed)

    def maybe(value: Any) -> Any:
        return None if chance.random() < 0.1 else value

    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "age": pa.array(
                [maybe(chance.randint(16, 90)) for _ in range(rows)], pa.int64()
            ),
            "income": pa.array(
                [maybe(chance.lognormvariate(10, 1)) for _ in range(rows)], pa.float64()
            ),
            "city": pa.array(
                [maybe(chance.choice(["Oslo", "Bergen", "Tromsø"])) for _ in range(rows)],
                pa.string(),
            ),
            "code": pa.array(
                [maybe(chance.choice([2**60 + 1, 2**60 + 2, 7])) for _ in range(rows)],
                pa.int64(),
            ),
            "member": pa.array(
                [maybe(chance.random() < 0.5) for _ in range(rows)], pa.bool_()
            ),
            "joined": pa.array(
                [
                    maybe(
                        f"20{chance.randint(10, 26)}-0{chance.randint(1, 9)}-1{chance.randint(0, 9)}"
                    )
                    for _ in range(rows)
                ],
                pa.string(),
            ),
            "place": pa.array(
                [maybe([chance.random(), chance.gauss(0, 1)]) for _ in range(rows)],
                pa.list_(pa.float64()),
            ),
            "pay": pa.array(
                [chance.choice(["low", "high"]) for _ in range(rows)], pa.string()
            ),
            "kind": pa.array(
                [chance.choice(["a", "b", "c"]) for _ in range(rows)], pa.string()
            ),
            "score": pa.array([chance.gauss(100, 20) for _ in range(rows)], pa.float64()),
        }
    )


def fitted(declared: dict[str, Any], table: pa.Table) -> Encoding:
    """The recipe's features, fitted to all of `table`."""
    recipe = load_recipe(declared)
    ids = pa.array(
        [hashlib.md5(str(i).encode()).hexdigest() for i in range(table.num_rows)]
    )
    encoding = Encoding(recipe.inputs, recipe.targets)
    accepted = encoding.accept(table, targets=True)
    for name, feature in {**recipe.inputs, **recipe.targets}.items():
        summary = feature.summary()
        summary.update(accepted.columns[name], ids)
        encoding.fitted[name] = feature.fit(
            summary.result(), target=name in recipe.targets
        )
    return encoding


class FakeDataset:
    """A dataset whose test split is `table`."""

    def __init__(self, table: pa.Table, facts: dict[Any, Any] | None = None) -> None:
        self.name, self.id, self.facts = "people", "0123456789abcdef", facts or {}
        self._table = table
        self.path, self.manifest = Path("people"), {}
        self.schema = table.schema
        self.raw_types: dict[str, pa.DataType] = {}
        self.counts = {
            "in": table.num_rows,
            "train": 0,
            "validation": 0,
            "test": table.num_rows,
            "quarantined": 0,
            "duplicates": 0,
            "filtered": 0,
        }
        self.reference = f"{self.name}@{self.id}"

    def batches(self, split: str, columns: Any = None, rows: int = 65_536) -> Any:
        if split != "train":
            yield from self._table.select(columns).to_batches(max_chunksize=rows)


class FakeRun:
    """A finished run with the weights that the seed gives."""

    def __init__(
        self, folder: Path, recipe: Any, encoding: Encoding, network: Any = None
    ) -> None:
        self.path, self.id, self.dataset = (
            folder,
            "run-01hzzzzzzzzzzzzzzzzzzzzzzz",
            "people@0123456789abcdef",
        )
        self._recipe = recipe
        folder.mkdir(parents=True, exist_ok=True)
        made = network or build_network(recipe, encoding, seed=recipe.seed)
        save_file(
            {k: v.contiguous().clone() for k, v in made.state_dict().items()},
            str(folder / "model.safetensors"),
        )
        (folder / "recipe.yaml").write_text(json.dumps(recipe.to_dict()), "utf-8")

    def recipe(self) -> Any:
        return self._recipe

    def verified(self, name: str) -> Path:
        return self.path / name

    def facts(self) -> dict[str, Any]:
        return {"summary": self.summary}

    @property
    def summary(self) -> dict[str, Any]:
        return {"parameters": 10, "epochs": 3, "validation": {"pay": {"roc_auc": 0.8}}}


def make(
    folder: Path,
    declared: dict[str, Any] | None = None,
    table: pa.Table | None = None,
    *,
    derived: pa.Table | None = None,
    facts: dict[Any, Any] | None = None,
) -> tuple[Any, Store, list[Event]]:
    """A packed bundle, its store, and what was said while packing.

    Args:
        derived: the prepared rows, where `table` is raw and the recipe derives or cleans.
    """
    from penstock.bundle.pack import pack

    declared = declared or DECLARED
    table = people() if table is None else table
    prepared = table if derived is None else derived
    recipe = load_recipe(declared)
    encoding = fitted(declared, prepared)
    store = Store(folder / "store")
    heard: list[Event] = []
    run = FakeRun(folder / "run", recipe, encoding)
    bundle = pack(
        run,
        SimpleNamespace(encoding=encoding, id="feed"),
        FakeDataset(prepared, facts),
        store,
        Events(heard.append),
    )  # type: ignore[arg-type]
    return bundle, store, heard


def reseal(folder: Path, **words: Any) -> str:
    """Give a bundle that was changed the checksums and the id of what it is now, as who repacks by hand
    would; its id.
    """
    file = folder / "manifest.json"
    manifest = {**json.loads(file.read_text("utf-8")), **words}
    card = folder / "card.md"
    text = card.read_text("utf-8").replace(f"bundle-{manifest['id']}", "bundle-")
    card.write_text(text, "utf-8")
    seal(
        folder,
        {
            word: value
            for word, value in manifest.items()
            if word not in ("format", "files")
        },
    )
    id = bundle_id(folder, json.loads(file.read_text("utf-8"))["files"])
    card.write_text(text.replace("(bundle-)", f"(bundle-{id})", 1), "utf-8")
    seal(
        folder,
        {
            **{
                word: value
                for word, value in manifest.items()
                if word not in ("format", "files")
            },
            "id": id,
        },
    )
    return str(id)


_shared: list[tuple[Any, Store]] = []


def shared(tmp_path_factory: Any) -> tuple[Any, Store]:
    """One bundle for all tests that only read it (packing takes seconds), and its store."""
    if not _shared:
        bundle, store, _ = make(tmp_path_factory.mktemp("bundle"))
        _shared.append((bundle, store))
    return _shared[0]


def rough(rows: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows as the world sends them: missing, unseen and extreme values, whole numbers as floats, numbers as
    text.
    """
    chance = random.Random(seed)
    cities: list[Any] = [
        "Oslo",
        "Bergen",
        "Tromsø",
        "Nowhere",
        "",
        " Oslo ",
        "naïve \u4e2d\U0001f600",
        "x" * 2_000,
        None,
        7,
        True,
    ]
    numbers: list[Any] = [
        None,
        0,
        -1,
        1e300,
        -1e300,
        1e-300,
        2**62,
        "41",
        " 3.5 ",
        True,
        39,
        39.0,
    ]
    records: list[dict[str, Any]] = []
    for _ in range(rows):
        usual = chance.random() < 0.5
        records.append(
            {
                "id": chance.randrange(10**6),
                "age": chance.randint(16, 90) if usual else chance.choice(numbers),
                "income": chance.lognormvariate(10, 1)
                if usual
                else chance.choice(numbers),
                "city": chance.choice(["Oslo", "Bergen"])
                if usual
                else chance.choice(cities),
                "code": (
                    chance.choice([2**60 + 1, 2**60 + 2, 7])
                    if usual
                    else chance.choice([None, -(2**63), 2**63 - 1, 7.0, "7", 0])
                ),
                "member": (
                    chance.random() < 0.5
                    if usual
                    else chance.choice([None, True, "true", "no", 1, 0])
                ),
                "joined": (
                    f"20{chance.randint(10, 26)}-0{chance.randint(1, 9)}-1{chance.randint(0, 9)}"
                    if usual
                    else chance.choice(
                        [None, "1970-01-01", "1900-01-01T00:00:00", "2999-12-31"]
                    )
                ),
                "place": (
                    [chance.random(), chance.gauss(0, 1)]
                    if usual
                    else chance.choice([None, [0, 0], [1e30, -1e30], [1, 2.5]])
                ),
            }
        )
    return records


def apart(one: Any, other: Any) -> float:
    """The largest difference between two answers (numbers as a share of 1 or of their size); infinite if
    words differ.
    """
    if isinstance(one, dict):
        return (
            max((apart(one[k], other[k]) for k in one), default=0.0)
            if one.keys() == other.keys()
            else float("inf")
        )
    if isinstance(one, (list, tuple)):
        return max((apart(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float) or isinstance(other, float):
        return abs(one - other) / max(1.0, abs(other))
    return 0.0 if one == other else float("inf")
