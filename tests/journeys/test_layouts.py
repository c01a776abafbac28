"""Data as it lies, from `init` to a report, unedited: split folders, groups, time, series, rare positives."""

from __future__ import annotations

import csv
import datetime as dt
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from penstock.cli import main
from penstock.recipe.schema import Recipe, load_recipe

Chance = np.random.Generator


def table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def wave(count: int, season: int, chance: Chance) -> np.ndarray:
    angle = np.arange(count) / season * 2 * np.pi
    return np.round(100 + 10 * np.sin(angle) + chance.normal(size=count), 3)


def customers(count: int, chance: Chance) -> list[list[Any]]:
    months, calls = chance.integers(1, 70, count), chance.poisson(2, count)
    left = chance.random(count) < 1 / (1 + np.exp(0.08 * months - 0.7 * calls + 0.4))
    return [[m, c, int(y)] for m, c, y in zip(months, calls, left, strict=True)]


CUSTOMER = ("months", "calls", "churned")


def split_folders(folder: Path, chance: Chance) -> str:
    for split, count in (("training", 400), ("val", 80), ("TEST", 100)):
        table(folder / "data" / split / "part.csv", CUSTOMER, customers(count, chance))
    return "data"


def competition(folder: Path, chance: Chance) -> str:
    table(folder / "data/train.csv", CUSTOMER, customers(500, chance))
    unlabelled = [row[:2] for row in customers(100, chance)]
    table(folder / "data/test.csv", CUSTOMER[:2], unlabelled)
    table(folder / "data/sample_submission.csv", ("id", "churned"), [(1, 0), (2, 0)])
    return "data"


def reviews(folder: Path, chance: Chance) -> str:
    tones = {"pos": "great lovely superb fine", "neg": "awful poor terrible dull"}
    plain = "the film was a story with actors and music in it".split()
    number = 0
    for split, count in (("train", 120), ("test", 40)):
        for label, words in tones.items():
            for _ in range(count):
                number += 1
                text = [*chance.choice(plain, 6), *chance.choice(words.split(), 3)]
                path = folder / "reviews" / split / label / f"{number}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(" ".join(chance.permutation(text)), encoding="utf-8")
    return "reviews"


def packed_reviews(folder: Path, chance: Chance) -> str:
    reviews(folder, chance)
    with tarfile.open(folder / "reviews.tar.gz", "w:gz") as archive:
        archive.add(folder / "reviews", arcname="reviews")
    return "reviews.tar.gz"


def patients(folder: Path, chance: Chance) -> str:
    rows = []
    for patient in range(150):
        level, ill = chance.normal(120, 15), chance.random() < 0.4
        rows += [
            (f"P{patient:04d}", f"{level + 18 * ill + chance.normal(0, 8):.0f}", int(ill))
            for _ in range(5)
        ]
    table(folder / "visits.csv", ("patient_id", "pressure", "ill"), rows)
    return "visits.csv"


def sales_in_time(folder: Path, chance: Chance) -> str:
    rows = []
    for i in range(900):
        day = dt.date(2020, 1, 1) + dt.timedelta(days=i // 3)
        weight = chance.uniform(1, 50)
        rows.append(
            (day, f"{weight:.1f}", f"{40 * weight + 0.2 * i + chance.normal(0, 60):.2f}")
        )
    table(folder / "sales.csv", ("shipped", "weight", "price"), rows)
    return "sales.csv"


def missing_hours(folder: Path, chance: Chance) -> str:
    load = wave(1_000, 24, chance)
    start = dt.datetime(2024, 1, 1)
    rows = [
        (start + dt.timedelta(hours=i), load[i])
        for i in range(1_000)
        if chance.random() > 0.02
    ]
    table(folder / "load.csv", ("time", "load"), rows)
    return "load.csv"


def business_days(folder: Path, chance: Chance) -> str:
    days = [dt.date(2020, 1, 1) + dt.timedelta(days=i) for i in range(900)]
    open_days = [day for day in days if day.weekday() < 5]
    close = np.round(100 + np.cumsum(chance.normal(size=len(open_days))), 2)
    table(folder / "share.csv", ("date", "close"), zip(open_days, close, strict=True))
    return "share.csv"


def stores(folder: Path, chance: Chance) -> str:
    rows = []
    for store in range(6):
        sales = wave(220, 7, chance) + 10 * store
        rows += [
            (
                f"s{store}",
                f"{dt.date(2021, 1, 1) + dt.timedelta(days=i):%d-%b-%y}",
                sales[i],
            )
            for i in range(220)
        ]
    table(folder / "stores.csv", ("store", "day", "sales"), rows)
    return "stores.csv"


def numbers_alone(folder: Path, chance: Chance) -> str:
    table(folder / "spots.csv", ("spots",), [(v,) for v in wave(700, 11, chance)])
    return "spots.csv"


def fraud(folder: Path, chance: Chance) -> str:
    is_fraud = chance.permutation(np.arange(3_000) < 30)
    amount = np.round(chance.gamma(2, size=3_000) * (1 + 3 * is_fraud), 3)
    rows = zip(amount, chance.poisson(1 + is_fraud), is_fraud.astype(int), strict=True)
    table(folder / "fraud.csv", ("amount", "tries", "fraud"), rows)
    return "fraud.csv"


@dataclass(frozen=True)
class Journey:
    """Data, and what its recipe must say."""

    write: Callable[[Path, Chance], str]
    target: str | None
    kind: str
    """The target's type."""
    rows: int | None
    """Rows of the source; None where chance leaves some out."""
    split: Mapping[str, Any] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    """Words of the recipe."""


JOURNEYS: dict[str, Journey] = {
    "split folders": Journey(split_folders, "churned", "binary", 580, {"by": "files"}),
    "a competition": Journey(
        competition, "churned", "binary", 500, {"by": "hash"}, ("not read", "test.csv")
    ),
    "class folders of texts": Journey(
        reviews, None, "binary", 320, {"by": "column"}, ("{split}/{label}/*.txt",)
    ),
    "the same in a tar": Journey(
        packed_reviews,
        None,
        "binary",
        320,
        {"by": "column"},
        ("reviews/{split}/{label}/*.txt",),
    ),
    "patients": Journey(patients, "ill", "binary", 750, {"on": ("patient_id",)}),
    "rows in time": Journey(sales_in_time, "price", "number", 900, {"by": "time"}),
    "missing hours": Journey(missing_hours, "load", "series", None, {"by": "time"}),
    "business days": Journey(
        business_days, "close", "series", 643, {"by": "time"}, ("on_gap: ignore",)
    ),
    "several series": Journey(
        stores, "sales", "series", 1_320, {"by": "time"}, ("entity: [store]",)
    ),
    "no time": Journey(numbers_alone, None, "series", 700, {"by": "order"}),
    "rare positives": Journey(
        fraud, "fraud", "binary", 3_000, {"stratify": "fraud"}, ("so few positives",)
    ),
}


def proposed(journey: Journey, folder: Path) -> tuple[Recipe, str]:
    path = journey.write(folder, np.random.default_rng(5))
    target = ["--target", journey.target] if journey.target else []
    assert main(["init", path, *target, "-o", "recipe.yaml"]) == 0
    text = (folder / "recipe.yaml").read_text(encoding="utf-8")
    return load_recipe(folder / "recipe.yaml"), text


@pytest.mark.slow
@pytest.mark.parametrize("name", JOURNEYS)
def test_data_as_it_lies_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    journey = JOURNEYS[name]
    recipe, text = proposed(journey, tmp_path)
    (target,) = recipe.targets.values()
    assert target.type == journey.kind, text
    for word, value in journey.split.items():
        assert getattr(recipe.split, word) == value, text
    assert all(words in text for words in journey.says), text
    assert "path" not in recipe.inputs
    penstock.check("recipe.yaml")
    outcome = penstock.run(
        "recipe.yaml", overrides=["train.epochs=2"], store=tmp_path / "store"
    )
    assert outcome.dataset is not None and outcome.report is not None
    counts = outcome.dataset.counts
    assert sum(counts[k] for k in counts if k != "in") == counts["in"]
    assert journey.rows in (None, counts["in"])
    assert all(counts[split] for split in ("train", "validation", "test")), counts
