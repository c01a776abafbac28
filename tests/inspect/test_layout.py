"""The layout speaks: splits in folders and columns, groups, the order of time, series, and the likely target.

Each table is made so that one thing is true of it; beside those that have it stand those that only look so.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import penstock
from penstock.inspect import look, write_recipe
from penstock.inspect.findings import Findings
from penstock.inspect.layout import path_words, split_files, split_of, split_of_path
from penstock.inspect.likely_target import likely_target
from penstock.recipe.read import parse_yaml
from penstock.recipe.schema import Recipe, load_recipe

ROWS = 1_500
CHANCE = np.random.default_rng(7)


def recipe_of(
    findings: Findings, source: dict[str, Any] | None = None
) -> tuple[Recipe, str]:
    declaration = source or {"type": "files", "path": "x.csv"}
    text = write_recipe(findings, source_declaration=declaration, name="n")
    return load_recipe(parse_yaml(text, where="drafted")), text


def drafted(columns: dict[str, Any], target: str | None) -> tuple[Recipe, str]:
    return recipe_of(look(pa.table(columns), target=target))


def hours(count: int, start: dt.datetime = dt.datetime(2024, 1, 1)) -> list[dt.datetime]:
    return [start + dt.timedelta(hours=i) for i in range(count)]


def days(count: int, start: dt.date = dt.date(2020, 1, 1)) -> list[dt.date]:
    return [start + dt.timedelta(days=i) for i in range(count)]


def seasonal(count: int, season: int, noise: float = 1.0) -> np.ndarray:
    angle = np.arange(count) / season * 2 * np.pi
    return 100 + 10 * np.sin(angle) + CHANCE.normal(0, noise, count)


# -- words, folders and names --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("train", "train"),
        ("TRAINING", "train"),
        ("val", "validation"),
        ("Dev", "validation"),
        ("valid", "validation"),
        ("testing", "test"),
        ("contest", None),
        ("trainee", None),
        ("", None),
    ],
)
def test_words_of_splits(word: str, split: str | None) -> None:
    assert split_of(word) == split


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train/a.csv", "train"),
        ("data/TRAIN/a.csv", "train"),
        ("x_test.csv", "test"),
        ("adult.data", "train"),
        ("adult.test", "test"),
        ("wiki-dev.tsv", "validation"),
        ("train-00000-of-00002.parquet", "train"),
        ("test_2016_flickr.de.gz", "test"),
        ("XTrain.csv", "train"),
        ("drives_test_results.csv", None),
        ("latest.csv", None),
        ("devices.csv", None),
    ],
)
def test_splits_of_paths(path: str, split: str | None) -> None:
    assert split_of_path(path) == split


FILES: dict[str, tuple[list[str], dict[str, tuple[str, ...]] | None]] = {
    "folders": (
        ["train/a.csv", "train/b.csv", "validation/a.csv", "test/a.csv"],
        {
            "train": ("train/*.csv",),
            "validation": ("validation/a.csv",),
            "test": ("test/a.csv",),
        },
    ),
    "upper case": (
        ["TRAIN/a.csv", "Testing/a.csv"],
        {"train": ("TRAIN/a.csv",), "test": ("Testing/a.csv",)},
    ),
    "names": (
        ["train.tsv", "dev.tsv", "test.tsv", "labels.txt"],
        {
            "train": ("train.tsv",),
            "validation": ("dev.tsv",),
            "test": ("test.tsv",),
        },
    ),
    "one endings tell": (
        ["adult.data", "adult.test"],
        {"train": ("adult.data",), "test": ("adult.test",)},
    ),
    "shards": (
        [f"data/train-0000{i}-of-00003.parquet" for i in range(3)]
        + ["data/test-00000-of-00001.parquet"],
        {
            "train": ("data/train-*-of-00003.parquet",),
            "test": ("data/test-00000-of-00001.parquet",),
        },
    ),
    "validation alone is the test": (
        ["train/a.csv", "val/a.csv"],
        {"train": ("train/a.csv",), "test": ("val/a.csv",)},
    ),
    "halves of rows": (
        ["X_train.csv", "y_train.csv", "X_test.csv", "y_test.csv"],
        None,
    ),
    "no train": (["test.csv", "dev.csv"], None),
    "months": (["2024-01.csv", "2024-02.csv"], None),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_splits(name: str) -> None:
    paths, expected = FILES[name]
    found = split_files(paths)
    assert (found and found.paths) == expected


PATHS: dict[str, tuple[list[str], tuple[str, int] | None]] = {
    "split and label": (
        [f"{s}/{c}/{i}.txt" for s in ("train", "test") for c in "ab" for i in range(5)],
        ("{split}/{label}/*.txt", 2),
    ),
    "below a name": (
        [
            f"cifar10/{s}/{c}/{i}.jpg"
            for s in ("train", "test")
            for c in "ab"
            for i in range(5)
        ],
        ("cifar10/{split}/{label}/*.jpg", 2),
    ),
    "label before split": (
        [f"{c}/{s}/{i}.png" for s in ("TRAIN", "val") for c in "abc" for i in range(5)],
        ("{label}/{split}/*.png", 3),
    ),
    "mixed endings": (
        [f"train/{c}/{i}.jpg" for c in "ab" for i in range(5)]
        + [f"test/{c}/{i}.png" for c in "ab" for i in range(5)],
        ("{split}/{label}/*", 2),
    ),
    "splits without labels": (
        [f"{s}/{i}.txt" for s in ("train", "test") for i in range(5)],
        ("{split}/*.txt", 0),
    ),
    "a class is called test": (
        [f"{c}/{i}.txt" for c in ("test", "control") for i in range(5)],
        None,
    ),
    "labels alone": ([f"{c}/{i}.txt" for c in "ab" for i in range(5)], None),
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_that_tell_split_and_label(name: str) -> None:
    paths, expected = PATHS[name]
    found = path_words(paths)
    assert (found and (found.pattern, found.labels)) == expected


# -- a column that says the split ----------------------------------------------------------------------------


def test_a_column_of_splits_in_the_very_words() -> None:
    parts = np.array(["train", "validation", "test"])[CHANCE.integers(0, 3, ROWS)]
    recipe, _ = drafted(
        {"split": parts, "x": CHANCE.normal(size=ROWS), "y": CHANCE.normal(size=ROWS)},
        "y",
    )
    assert recipe.split.by == "column" and recipe.split.on == ("split",)
    assert not recipe.derive and "split" not in recipe.inputs


def test_a_column_of_splits_in_other_words_is_derived() -> None:
    parts = np.array(["TRAIN", "Testing"])[CHANCE.integers(0, 2, ROWS)]
    recipe, text = drafted(
        {
            "Partition": parts,
            "x": CHANCE.normal(size=ROWS),
            "y": CHANCE.normal(size=ROWS),
        },
        "y",
    )
    assert recipe.split.by == "column" and recipe.split.on == tuple(recipe.derive)
    assert "validation is taken out of train" in text


def test_a_column_called_set_that_is_no_split() -> None:
    sets = np.array(["a", "b", "c"])[CHANCE.integers(0, 3, ROWS)]
    recipe, _ = drafted({"set": sets, "y": CHANCE.normal(size=ROWS)}, "y")
    assert recipe.split.by == "hash" and "set" in recipe.inputs


# -- groups --------------------------------------------------------------------------------------------------


def patients(count: int = 250, visits: int = 6) -> dict[str, Any]:
    ill = np.repeat(CHANCE.random(count) < 0.4, visits)
    level = np.repeat(CHANCE.normal(120, 15, count), visits)
    order = CHANCE.permutation(count * visits)
    names = np.array([f"P{i:04d}" for i in np.repeat(np.arange(count), visits)])
    return {
        "patient_id": names[order],
        "pressure": (level + 18 * ill + CHANCE.normal(0, 8, len(ill)))[order],
        "state": np.where(ill, "ill", "well")[order],
    }


def test_rows_of_one_patient_stay_together() -> None:
    recipe, text = drafted(patients(), "state")
    assert recipe.split.on == ("patient_id",) and "patient_id" not in recipe.inputs
    assert "rows of one patient_id are alike" in text


def test_patients_whose_rows_are_not_alike_are_no_groups() -> None:
    table = patients()
    table["pressure"] = CHANCE.permutation(table["pressure"])
    table["state"] = CHANCE.permutation(table["state"])
    recipe, _ = drafted(table, "state")
    assert recipe.split.on is None


def test_a_group_that_is_missing_in_many_rows_is_none() -> None:
    table = patients()
    gone = CHANCE.random(ROWS) < 0.2
    table["patient_id"] = pa.array(table["patient_id"], mask=gone)
    recipe, _ = drafted(table, "state")
    assert recipe.split.on is None


def test_users_and_items_stay_inputs() -> None:
    users, items = CHANCE.integers(0, 200, 6_000), CHANCE.integers(0, 100, 6_000)
    taste, worth = CHANCE.normal(size=200), CHANCE.normal(size=100)
    rating = 3 + taste[users] + worth[items] + CHANCE.normal(0, 0.3, 6_000)
    recipe, _ = drafted({"user_id": users, "item_id": items, "rating": rating}, "rating")
    assert recipe.split.on is None and {"user_id", "item_id"} <= set(recipe.inputs)


# -- the order of time ---------------------------------------------------------------------------------------


def in_time() -> dict[str, Any]:
    x = CHANCE.normal(size=ROWS)
    y = 2 * x + np.arange(ROWS) / 500 + CHANCE.normal(size=ROWS)
    return {"shipped": np.repeat(days(500), 3), "x": x, "price": y}


def test_a_time_that_rises_with_the_rows() -> None:
    recipe, text = drafted(in_time(), "price")
    assert recipe.split.by == "time" and recipe.split.on == ("shipped",)
    assert "come in the order of 'shipped'" in text


def test_a_time_in_other_words_is_derived() -> None:
    table = in_time()
    table["shipped"] = [f"{day:%d-%b-%y}" for day in table["shipped"]]
    recipe, _ = drafted(table, "price")
    assert recipe.split.by == "time" and recipe.split.on == ("shipped_time",)
    assert "try_strptime" in recipe.derive["shipped_time"]


def test_a_moment_that_says_when_a_row_happened() -> None:
    table = in_time()
    table["order_date"] = CHANCE.permutation(table.pop("shipped"))
    recipe, _ = drafted(table, "price")
    assert recipe.split.by == "time" and recipe.split.on == ("order_date",)


def test_a_date_of_birth_orders_nothing() -> None:
    table = in_time()
    table["birth_date"] = CHANCE.permutation(table.pop("shipped"))
    recipe, _ = drafted(table, "price")
    assert recipe.split.by == "hash"


def test_a_time_that_is_missing_in_many_rows_is_no_order() -> None:
    table = in_time()
    table["shipped"] = pa.array(table["shipped"], mask=CHANCE.random(ROWS) < 0.1)
    recipe, _ = drafted(table, "price")
    assert recipe.split.by != "time"


def drifting() -> dict[str, Any]:
    level, other = (np.cumsum(CHANCE.normal(0, 0.3, ROWS)) for _ in range(2))
    return {
        "a": level + CHANCE.normal(0, 2, ROWS),
        "b": other,
        "y": level + CHANCE.normal(0, 0.5, ROWS),
    }


def test_neighbours_that_are_alike_are_split_by_order() -> None:
    recipe, text = drafted(drifting(), "y")
    assert recipe.split.by == "order" and "neighbouring rows are alike" in text


def test_shuffled_rows_have_no_order() -> None:
    order = CHANCE.permutation(ROWS)
    recipe, _ = drafted({k: v[order] for k, v in drifting().items()}, "y")
    assert recipe.split.by == "hash"


def test_a_file_sorted_by_class_is_no_order_of_time() -> None:
    kind = np.repeat(np.arange(5), ROWS // 5)
    recipe, _ = drafted(
        {"a": kind + CHANCE.normal(size=ROWS), "kind": [f"k{i}" for i in kind]}, "kind"
    )
    assert recipe.split.stratify == "kind"


@pytest.mark.parametrize("by", ["number", "name"])
def test_a_file_sorted_by_a_column_is_no_order_of_time(by: str) -> None:
    size = np.sort(CHANCE.gamma(2, size=ROWS))
    town = np.array([f"town {i:03d}" for i in np.arange(ROWS) // 50])
    table = {"size": size, "y": size * 3 + CHANCE.normal(size=ROWS)}
    if by == "name":
        table = {
            "town": town,
            "y": (np.arange(ROWS) // 50) % 7 + CHANCE.normal(size=ROWS),
        }
    recipe, _ = drafted(table, "y")
    assert recipe.split.by == "hash"


# -- series --------------------------------------------------------------------------------------------------


def forecast(recipe: Recipe) -> tuple[Any, Any]:
    """The series looked back on, and the one to come."""
    past = recipe.inputs["past"]
    (ahead,) = recipe.targets.values()
    assert past.type == ahead.type == "series" and recipe.samples is not None
    return past, ahead


def test_hours_are_forecast_a_day_ahead() -> None:
    recipe, text = drafted(
        {
            "time": hours(ROWS),
            "load": seasonal(ROWS, 24),
            "heat": CHANCE.normal(size=ROWS),
        },
        "load",
    )
    past, ahead = forecast(recipe)
    assert (recipe.samples.time, recipe.samples.on_gap) == ("time", "split")
    assert recipe.split.by == "time" and recipe.split.on == ("time",)
    assert past.names == ("load", "heat") and past.window >= 48 and ahead.horizon == 24
    assert "an hour after the one before" in text


def test_missing_hours_are_reached_across_where_cutting_costs_most_samples() -> None:
    there = np.sort(CHANCE.permutation(ROWS)[: int(0.97 * ROWS)])
    at = [hours(ROWS)[i] for i in there]
    recipe, text = drafted({"time": at, "load": seasonal(ROWS, 24)[there]}, "load")
    forecast(recipe)
    assert recipe.samples.on_gap == "ignore" and "samples reach across" in text


def test_one_long_gap_cuts_the_series() -> None:
    at = hours(700) + hours(800, dt.datetime(2025, 1, 1))
    recipe, _ = drafted({"time": at, "load": seasonal(ROWS, 24)}, "load")
    forecast(recipe)
    assert recipe.samples.on_gap == "split"


def test_business_days_have_no_gaps() -> None:
    at = [day for day in days(1_200) if day.weekday() < 5]
    recipe, text = drafted(
        {"date": at, "close": 100 + np.cumsum(CHANCE.normal(size=len(at)))}, "close"
    )
    _, ahead = forecast(recipe)
    assert recipe.samples.on_gap == "ignore" and ahead.horizon == 5
    assert "weekends and holidays are no gaps" in text


def test_months_are_forecast_a_year_ahead_where_there_are_enough() -> None:
    at = [dt.date(1960 + i // 12, i % 12 + 1, 1) for i in range(480)]
    recipe, _ = drafted({"month": at, "passengers": seasonal(480, 12)}, "passengers")
    past, ahead = forecast(recipe)
    assert ahead.horizon == 12 and past.window == 36
    few, _ = drafted({"month": at[:120], "passengers": seasonal(120, 12)}, "passengers")
    assert 1 <= forecast(few)[1].horizon < 12


def test_several_series_are_told_apart() -> None:
    stores = np.repeat([f"s{i}" for i in range(8)], 200)
    sales = np.concatenate([10 * i + seasonal(200, 7) for i in range(8)])
    recipe, text = drafted(
        {"store": stores, "date": days(200) * 8, "sales": sales}, "sales"
    )
    forecast(recipe)
    assert recipe.samples.entity == ("store",) and "8 series by store" in text
    assert recipe.inputs["store"].type == "category"


def test_stores_and_items_name_a_series_together() -> None:
    pairs = [(s, i) for s in range(4) for i in range(3)]
    table = {
        "date": [day for day in days(150) for _ in pairs],
        "store": [f"s{s}" for _ in range(150) for s, _ in pairs],
        "item": [f"i{i}" for _ in range(150) for _, i in pairs],
    }
    level = seasonal(150, 7, 0.2)
    table["sales"] = [level[d] + 9 * s + i for d in range(150) for s, i in pairs]
    recipe, _ = drafted(table, "sales")
    assert set(recipe.samples.entity) == {"store", "item"}


def test_one_column_of_numbers_is_a_series_in_the_order_of_its_rows() -> None:
    recipe, _ = drafted({"spots": seasonal(900, 11)}, "spots")
    past, ahead = forecast(recipe)
    assert recipe.samples.time is None and recipe.split.by == "order"
    assert ahead.horizon == 11 and past.window == 33


def test_numbers_without_a_past_are_no_series() -> None:
    recipe, _ = drafted({"time": hours(ROWS), "load": CHANCE.normal(size=ROWS)}, "load")
    assert recipe.samples is None and recipe.split.by == "time"


def test_one_row_for_each_customer_is_no_series() -> None:
    table = {
        "customer": np.arange(ROWS),
        "since": CHANCE.permutation(days(ROWS)),
        "spent": CHANCE.gamma(2, size=ROWS),
    }
    recipe, _ = drafted(table, "spent")
    assert recipe.samples is None


# -- classes -------------------------------------------------------------------------------------------------


def rare(share: float, rows: int) -> dict[str, Any]:
    fraud = np.zeros(rows, int)
    fraud[: round(share * rows)] = 1
    return {"amount": CHANCE.gamma(2, size=rows), "fraud": CHANCE.permutation(fraud)}


def test_rare_positives_are_warned_of_with_their_number() -> None:
    findings = look(pa.table(rare(0.012, 4_000)), target="fraud")
    recipe, text = recipe_of(findings)
    assert recipe.split.stratify == "fraud"
    (warning,) = findings.warnings
    assert 'about 5 rows with fraud "1", of 48 in all' in warning and warning in text


def test_average_precision_is_watched_where_positives_are_rare_and_enough() -> None:
    findings = look(pa.table(rare(0.05, 4_000)), target="fraud")
    recipe, _ = recipe_of(findings)
    assert not findings.warnings
    assert recipe.train.early_stop.metric == "fraud.average_precision"


def test_even_classes_are_watched_by_the_loss() -> None:
    recipe, _ = recipe_of(look(pa.table(rare(0.4, 4_000)), target="fraud"))
    assert recipe.train.early_stop.metric == "loss"


# -- the likely target ---------------------------------------------------------------------------------------

TARGETS: dict[str, tuple[dict[str, Any], str | None]] = {
    "by its name": (
        {"id": range(60), "Churn": ["yes", "no"] * 30, "age": range(20, 80)},
        "Churn",
    ),
    "a name of two words": (
        {"is_fraud": [0, 1] * 30, "amount": [i * 0.5 for i in range(60)]},
        "is_fraud",
    ),
    "the last column": (
        {"a": [i * 0.5 for i in range(60)], "z": ["u", "v", "w"] * 20},
        "z",
    ),
    "the name before the place": (
        {"target": [0, 1] * 30, "b": [i * 0.5 for i in range(60)]},
        "target",
    ),
    "no identifier": (
        {"kind": ["u", "v"] * 30, "row_id": range(60)},
        "kind",
    ),
    "no moment": (
        {"level": ["low", "high"] * 30, "date": days(60)},
        "level",
    ),
    "labels side by side": (
        {"x": [i * 0.5 for i in range(60)], "tags": ["a;b", "b;c", "c", "a;c"] * 15},
        "tags",
    ),
    "one number alone": ({"spots": [i % 11 + i / 10 for i in range(60)]}, "spots"),
    "nothing fits": ({"key": [f"k{i}" for i in range(60)]}, None),
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_likely_target(name: str) -> None:
    columns, expected = TARGETS[name]
    table = pa.table({column: list(values) for column, values in columns.items()})
    likely = likely_target(table, named=table.column_names)
    assert (likely and likely.column) == expected


def test_a_competitions_test_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("x,y\n" + "1.5,0\n2.5,1\n" * 60, "utf-8")
    (tmp_path / "test.csv").write_text("x\n1.5\n2.5\n", "utf-8")
    text = penstock.init(tmp_path)
    recipe = load_recipe(parse_yaml(text, where="x"))
    assert recipe.source.path == (f"{tmp_path}/train.csv",)
    assert "no row of test.csv has" in text and recipe.split.by == "hash"


def test_files_of_one_table_that_are_splits_without_a_header(tmp_path: Path) -> None:
    rows = [f"{i % 70},{'ab'[i % 2]},{'no' if i % 3 else 'yes'}" for i in range(300)]
    (tmp_path / "people.data").write_text("\n".join(rows) + "\n", "utf-8")
    tested = "\n".join(f"{row}." for row in rows[:90])
    (tmp_path / "people.test").write_text(f"|1x3 Cross validator\n{tested}\n", "utf-8")
    recipe = load_recipe(parse_yaml(penstock.init(tmp_path), where="x"))
    assert recipe.split.by == "files"
    (target,) = recipe.targets.values()
    assert target.type == "binary"


def test_files_with_the_same_times_are_series_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        load = seasonal(400, 24) + number
        lines = [f"{at},{value:.3f}" for at, value in zip(hours(400), load, strict=True)]
        path = tmp_path / f"meter{number}.csv"
        path.write_text("time,load\n" + "\n".join(lines) + "\n", "utf-8")
    recipe = load_recipe(parse_yaml(penstock.init(tmp_path, target="load"), where="x"))
    assert recipe.samples is not None and recipe.samples.time is None
    assert recipe.split.by == "order"


def test_neighbours_in_space_or_in_one_town_are_no_order_of_time() -> None:
    place = np.cumsum(CHANCE.normal(0, 0.1, ROWS))
    table = {"latitude": place, "rooms": CHANCE.normal(size=ROWS)}
    table["value"] = place + CHANCE.normal(0, 0.1, ROWS)
    assert drafted(table, "value")[0].split.by == "hash"
    town = np.repeat(CHANCE.normal(size=(60, 3)), 25, axis=0)
    houses = {f"fact {i}": town[:, i] for i in range(3)}
    houses["value"] = town.sum(axis=1) + CHANCE.normal(0, 0.3, ROWS)
    assert drafted(houses, "value")[0].split.by == "hash"


@pytest.mark.parametrize(
    ("name", "is_group"),
    [
        ("patient_id", True),
        ("Subject", True),
        ("CustomerID", True),
        ("user no", True),
        ("sensor_12", False),
        ("family_size", False),
        ("engine size", False),
        ("usergrade", False),
    ],
)
def test_names_of_groups_and_of_measures(name: str, is_group: bool) -> None:
    table = patients()
    codes = np.unique(table.pop("patient_id"), return_inverse=True)[1]
    recipe, _ = drafted({name: [f"n{i}" for i in codes], **table}, "state")
    assert (recipe.split.on == (name,)) == is_group


def test_many_series_side_by_side_are_told_from_rows_that_were_drawn(
    tmp_path: Path,
) -> None:
    level = seasonal(400, 7, 0.5)
    lines = [
        f"{day},s{shop},{level[i] + 9 * shop:.2f}"
        for i, day in enumerate(days(400))
        for shop in range(40)
    ]
    path = tmp_path / "shops.csv"
    path.write_text("day,shop,sales\n" + "\n".join(lines) + "\n", "utf-8")
    text = penstock.init(path, target="sales", rows=6_000)
    recipe = load_recipe(parse_yaml(text, where="x"))
    assert recipe.samples is not None and recipe.samples.entity == ("shop",), text
    assert recipe.split.by == "time"
