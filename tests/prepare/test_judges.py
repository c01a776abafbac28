"""Cleaners that judge rows: what they find is quarantined, dropped or weighed, and counted exactly."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from penstock.core.errors import ContractError, PenstockError, RecipeError
from penstock.core.store import Store
from penstock.pipeline.quarantined import Filter, quarantined, statistics
from tests.data.lake import Lake, adds_up, quarantine, rows
from tests.parts.sparks import ENGINE, differences
from tests.prepare import own_judges

OWN = {"type": "tests.prepare.own_judges", "column": "n"}
HIGH = {7, 40, 77}
HALVES = {"train": 0.6, "validation": 0, "test": 0.4}


@pytest.fixture
def lake(tmp_path):
    lake = Lake(tmp_path)
    n = [1000.0 if i in HIGH else 1.0 for i in range(80)]
    lake.put("rows.parquet", pa.table({"i": range(80), "n": n, "w": [2.0] * 80}))
    return lake


def changes(dataset):
    return json.loads((dataset.path / "changes.json").read_text("utf-8"))["clean"]


def test_rows_that_are_found_are_in_quarantine_with_their_reason(lake):
    dataset = lake.prepare(clean=[OWN])
    assert adds_up(dataset) and dataset.counts["quarantined"] == 3
    assert {row["i"] for row in rows(dataset)} == set(range(80)) - HIGH
    aside = list(quarantined(dataset, Filter(column="n")))
    assert {row["line"] - 1 for row in aside} == HIGH
    assert {(row["stage"], row["column"], row["reason"]) for row in aside} == {
        ("clean", "n", "found 1000, over twice the mean")
    }
    assert all(json.loads(row["row"]).keys() == {"i", "n", "w"} for row in aside)
    assert statistics(dataset)["rules"] == [
        {"stage": "clean", "column": "n", "rule": OWN["type"], "rows": 3}
    ]
    assert changes(dataset)[0]["rows_quarantined"] == 3
    assert changes(dataset)[0]["rows_dropped"] == 0
    assert "rows quarantined: 3" in lake.said()


def test_rows_that_are_dropped_are_counted(lake):
    dataset = lake.prepare(clean=[{**OWN, "on_violation": "drop"}])
    assert adds_up(dataset) and dataset.counts["filtered"] == 3
    assert quarantine(dataset) == []
    entry = changes(dataset)[0]
    assert (entry["rows_dropped"], entry["rows_quarantined"]) == (3, 0)


def test_rows_that_are_weighed_stay(lake):
    judge = {**OWN, "on_violation": "weight", "factor": 0.25}
    dataset = lake.prepare(clean=[judge], weight="w")
    assert adds_up(dataset) and len(rows(dataset)) == 80
    assert all(r["w"] == (0.5 if r["i"] in HIGH else 2.0) for r in rows(dataset))
    assert changes(dataset)[0]["cells"] == {"w": 3}
    # Another column of weights is another dataset, and without a judge it is none.
    assert dataset.id != lake.prepare(clean=[judge], weight="n").id
    assert lake.prepare(weight="w").id == lake.prepare(weight="n").id


def test_after_the_split_only_training_rows_leave(lake):
    dataset = lake.prepare(clean=[{**OWN, "after": True}], split=HALVES)
    assert adds_up(dataset)
    lost = {row["line"] - 1 for row in quarantine(dataset)}
    whole = {r["i"]: r["split"] for r in rows(lake.prepare(split=HALVES))}
    assert lost == {i for i in HIGH if whole[i] == "train"} and 0 < len(lost) < 3
    assert all("__p" not in row["row"] for row in quarantine(dataset))


def test_a_clean_table_is_left_as_it_is(lake):
    lake.put("rows.parquet", pa.table({"n": [1.0] * 30}))
    dataset = lake.prepare(clean=[OWN])
    assert adds_up(dataset) and dataset.counts["quarantined"] == 0


def test_private_values_are_not_in_a_reason(lake):
    dataset = lake.prepare(clean=[OWN], private={"n": "drop"})
    assert adds_up(dataset)
    assert all("1000" not in r["reason"] + r["row"] for r in quarantine(dataset))


def test_wide_tables(lake, monkeypatch):
    monkeypatch.setattr("penstock.contracts.data.WIDE_COLUMNS", 2)
    dataset = lake.prepare(clean=[{**OWN, "after": True}, OWN], split={"by": "order"})
    assert adds_up(dataset) and len(rows(dataset)) == 77
    dataset = lake.prepare(clean=[{**OWN, "on_violation": "weight"}], weight="w")
    assert [r["w"] for r in rows(dataset)].count(1.0) == 3


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({"clean": [{**OWN, "on_violation": "weight"}]}, "has no column of weights"),
        ({"clean": [{**OWN, "factor": 0.1}]}, "is for `on_violation: weight`"),
        ({"clean": [{**OWN, "on_violation": "fail"}]}, "on_violation"),
    ],
)
def test_mistakes_are_sentences(lake, words, problem):
    with pytest.raises(RecipeError, match=problem):
        lake.recipe(**words)


def test_a_weight_of_whole_numbers_is_refused_with_advice(lake):
    with pytest.raises(ContractError, match=r"holds int64.*CAST\(i AS DOUBLE\)"):
        lake.prepare(clean=[{**OWN, "on_violation": "weight"}], weight="i")


def test_a_judge_that_names_a_row_twice_is_stopped(lake, monkeypatch):
    find = own_judges.FarAbove.violations

    def twice(self, table, facts, session):
        once = session.keep(find(self, table, facts, session))
        return once.union(once)

    monkeypatch.setattr(own_judges.FarAbove, "violations", twice)
    with pytest.raises(PenstockError, match="found 6 rows, with 3 ids"):
        lake.prepare(clean=[OWN])


@pytest.mark.slow
def test_both_engines_find_the_same(lake):
    texts = [f"the words of row number {i // 2} and no more {i // 2}" for i in range(80)]
    n = [1000.0 if i in HIGH else 1.0 for i in range(80)]
    lake.put("rows.parquet", pa.table({"n": n, "w": [2.0] * 80, "t": texts}))
    clean = [
        {"type": "near_duplicates", "columns": "t", "threshold": 1},
        {**OWN, "after": True, "on_violation": "weight"},
        {"type": "isolate_outliers", "columns": ["n"], "share": 0.1},
    ]
    words = {"clean": clean, "weight": "w", "split": HALVES}
    one = lake.prepare(**words)
    # A store of its own: in the same one the dataset would be there already.
    lake.store = Store(lake.folder / "other")
    other = lake.prepare(engine=ENGINE, **words)
    assert not differences(one, other) and one.path != other.path
    assert one.counts["quarantined"] >= 40


def odd_rows(count=400, odd=8):
    """Two numbers that go together, but in the first `odd` rows, each usual by itself."""
    rng = np.random.default_rng(3)
    a = rng.normal(size=count)
    b = a + rng.normal(scale=0.1, size=count)
    a[:odd], b[:odd] = 6.0, -6.0
    return pa.table({"i": range(count), "a": a, "b": b})


def test_outliers_are_put_aside_by_what_training_rows_are_like(lake):
    lake.put("rows.parquet", odd_rows())
    clean = [{"type": "isolate_outliers", "columns": ["a", "b"]}]
    dataset = lake.prepare(clean=clean, split=HALVES)
    aside = quarantine(dataset)
    assert adds_up(dataset) and {row["line"] - 1 for row in aside} >= set(range(8))
    assert len(aside) <= 16
    assert all("its isolation score is" in row["reason"] for row in aside)
    # A share of the training rows is found in any case.
    clean[0]["share"] = 0.05
    assert 15 <= lake.prepare(clean=clean, split=HALVES).counts["quarantined"] <= 25


def test_outliers_of_a_given_test_stay(lake):
    rows_ = odd_rows()
    given_split = pa.array(["test" if i % 2 else "train" for i in range(len(rows_))])
    lake.put("rows.parquet", rows_.append_column("s", given_split))
    dataset = lake.prepare(
        clean=[{"type": "isolate_outliers", "columns": ["a", "b"]}],
        split={"by": "column", "on": "s", "validation": 0, "train": 0.5, "test": 0.5},
    )
    assert adds_up(dataset) and dataset.counts["test"] == 200
    assert {row["line"] - 1 for row in quarantine(dataset)} >= {0, 2, 4, 6}


def test_outliers_of_texts_are_no_outliers(lake):
    lake.put("rows.parquet", pa.table({"t": ["a", "b"] * 9}))
    with pytest.raises(ContractError, match="'t' holds string; expected numbers"):
        lake.prepare(clean=[{"type": "isolate_outliers", "columns": "t"}])
    words = {"columns": "t", "score": 0.7, "share": 0.1}
    with pytest.raises(RecipeError, match="either `score` or `share`"):
        lake.recipe(clean=[{"type": "isolate_outliers", **words}])
