"""Tables, models and recipes that the tests of evaluation judge."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from penstock.contracts.data import Feature
from penstock.encode.encoding import Encoding
from penstock.recipe.schema import Evaluate


class Rows:
    """A dataset's face over tables in memory."""

    def __init__(self, **splits: pa.Table) -> None:
        self.tables = splits
        self.counts = {name: len(table) for name, table in splits.items()}
        self.schema = splits["train"].schema
        self.manifest = {"overlap": {"rows": 3}}

    def batches(self, split, *, columns=None, rows=65_536):
        yield from (
            self.tables[split]
            .select(columns or self.tables[split].column_names)
            .to_batches(max_chunksize=rows)
        )


class Model:
    """A bundle's face over a function from a table to answers."""

    def __init__(self, encoding, answer, decision=None):
        self.encoding, self._answer, self.decision = encoding, answer, decision or {}

    def predictor(self):
        return SimpleNamespace(answers=self._answer)


def fitted(inputs, targets, table, weight=None):
    """An encoding fitted on a table, as a feed does it."""
    sides = [
        {
            name: Feature.load(
                declared if isinstance(declared, dict) else {"type": declared}
            )
            for name, declared in side.items()
        }
        for side in (inputs, targets)
    ]
    learnt = {}
    for side, target in zip(sides, (False, True), strict=True):
        for name, feature in side.items():
            column, _ = feature.accept(
                [table.column(c).combine_chunks() for c in feature.columns(name)]
            )
            summary = feature.summary()
            good = column.is_valid()
            summary.update(
                column if not target else column.filter(good),
                (
                    table.column("row_id").combine_chunks()
                    if not target
                    else table.column("row_id").combine_chunks().filter(good)
                ),
            )
            learnt[name] = feature.fit(summary.result(), target=target)
    return Encoding(*sides, learnt, weight=weight)


def ids(rows, salt):
    return pa.array([hashlib.md5(f"{salt}{i}".encode()).hexdigest() for i in range(rows)])


def people(rows, seed, *, signal=1.5, weak_city=None):
    """Whether one earns much, by age and city; in `weak_city` only chance decides."""
    chance = np.random.default_rng(seed)
    age, city = (
        chance.uniform(18, 80, rows),
        np.array(["Bergen", "Oslo", "Tromsø", "Voss"])[chance.integers(0, 4, rows)],
    )
    odds = signal * ((age - 49) / 15 + (city == "Oslo"))
    if weak_city:
        odds = np.where(city == weak_city, 0, odds)
    high = chance.random(rows) < 1 / (1 + np.exp(-odds))
    return pa.table(
        {
            "row_id": ids(rows, f"{seed}-"),
            "age": pa.array(age, mask=chance.random(rows) < 0.05),
            "city": city,
            "pay": np.where(high, "high", "low"),
            "euros": odds * 100 + chance.normal(size=rows),
        }
    )


def knows(table, signal=1.5):
    """The model that knows how `people` were made."""
    age = np.nan_to_num(
        table.column("age").to_numpy(zero_copy_only=False).astype(float), nan=49.0
    )
    odds = signal * (
        (age - 49) / 15 + (np.array(table.column("city").to_pylist()) == "Oslo")
    )
    return {"pay.probability": (1 / (1 + np.exp(-odds))).astype(np.float32)}


def recipe(**words):
    return SimpleNamespace(
        evaluate=Evaluate(**{"bootstrap": 60, **words}),
        seed=3,
        samples=None,
        train=SimpleNamespace(early_stop=None),
    )


INPUTS = {"age": "number", "city": "category"}


PAY = {"pay": {"type": "binary", "positive": "high"}}


def old_where(table, rows):
    """The table with an age that no feature accepts in some rows."""
    ages = [
        "old" if i in rows else None if age is None else str(age)
        for i, age in enumerate(table["age"].to_pylist())
    ]
    place = table.column_names.index("age")
    return table.set_column(place, "age", pa.array(ages))
