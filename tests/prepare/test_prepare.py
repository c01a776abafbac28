"""Preparing: identity, ids, joins, where, sample, derive, the ledger, and every mistake as a sentence."""

from __future__ import annotations

import hashlib
import json
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import ContractError, RecipeError, SourceError, StoreError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.prepare.dataset import Dataset
from penstock.prepare.prepare import find_dataset, prepare
from tests.data.lake import Lake, adds_up, quarantine, rows


@pytest.fixture
def lake(tmp_path):
    made = Lake(tmp_path)
    made.put(
        "rows.parquet",
        [
            {"id": i, "age": i % 90, "name": f"n{i % 7}", "score": i / 4}
            for i in range(200)
        ],
    )
    return made


def test_rows_come_out_whole_in_order_and_add_up(lake):
    dataset = lake.prepare()
    assert (
        adds_up(dataset)
        and dataset.counts["in"] == 200
        and dataset.counts["quarantined"] == 0
    )
    assert sorted(row["id"] for row in rows(dataset)) == list(range(200))
    for split in ("train", "validation", "test"):
        ids = dataset.table(split)["row_id"].to_pylist()
        assert ids == sorted(ids)
    assert dataset.schema.names == ["row_id", "id", "age", "name", "score"]
    assert "200 rows in = " in lake.said()
    assert not (lake.store.folder / ".staging").exists()


def test_a_row_id_is_the_md5_of_path_content_and_number(lake):
    dataset = lake.prepare()
    file = dataset.manifest["lineage"]["source"][0]
    wanted = {
        hashlib.md5(f"{file['path']}|{file['sha256']}|{i}".encode()).hexdigest()
        for i in range(200)
    }
    assert {row["row_id"] for row in rows(dataset)} == wanted


def test_several_files_keep_their_own_numbers(lake):
    lake.put("more/a.parquet", [{"id": 1}, {"id": 2}])
    lake.put("more/b.parquet", [{"id": 3}])
    dataset = lake.prepare(
        source={"type": "files", "path": "more/*.parquet"},
        split={"train": 1, "validation": 0, "test": 0},
    )
    by_path = {f["path"]: f["sha256"] for f in dataset.manifest["lineage"]["source"]}
    wanted = {1: ("a.parquet", 0), 2: ("a.parquet", 1), 3: ("b.parquet", 0)}
    for row in rows(dataset):
        name, number = wanted[row["id"]]
        path = next(p for p in by_path if p.endswith(name))
        assert (
            row["row_id"]
            == hashlib.md5(f"{path}|{by_path[path]}|{number}".encode()).hexdigest()
        )


def test_a_version_that_is_there_is_returned_untouched(lake):
    recipe = lake.recipe()
    assert find_dataset(recipe, lake.store) is None
    first = lake.prepare()
    changed = (first.path / "manifest.json").stat().st_mtime_ns
    lake.heard.clear()
    again = lake.prepare()
    assert (
        again.id == first.id
        and (again.path / "manifest.json").stat().st_mtime_ns == changed
        and not lake.heard
    )
    found = find_dataset(recipe, lake.store)
    assert found is not None and found.reference == first.reference


def test_what_changes_rows_changes_the_id_and_nothing_else_does(lake):
    start = lake.prepare().id
    same = [
        {"engine": {"type": "embedded", "memory_share": 0.4}},
        {"resources": {"memory": "1GB", "threads": 1}},
        {"inputs": {"age": "number"}, "targets": {"score": "number"}},
    ]
    assert {find_dataset(lake.recipe(**words), lake.store).id for words in same} == {
        start
    }
    others = [
        {"where": "age > 3"},
        {"seed": 1},
        {"sample": 9},
        {"derive": {"x": "age"}},
        {"key": "id"},
        {"clean": ["trim"]},
        {"expect": {"age": {"min": 0}}},
        {"split": {"train": 0.7, "test": 0.2}},
    ]
    assert all(find_dataset(lake.recipe(**words), lake.store) is None for words in others)
    lake.put("rows.parquet", [{"id": 1, "age": 2, "name": "n", "score": 0.5}])
    assert find_dataset(lake.recipe(), lake.store) is None


def test_the_same_lake_elsewhere_is_the_same_version(lake, tmp_path):
    other = Lake(tmp_path / "elsewhere")
    other.folder.mkdir()
    (other.folder / "rows.parquet").write_bytes(
        (lake.folder / "rows.parquet").read_bytes()
    )
    one, two = lake.prepare(), other.prepare()
    assert one.id == two.id
    assert rows(one) == rows(two)


def test_a_key_names_rows(lake):
    lake.put(
        "keyed.parquet",
        [
            {"a": 1, "b": "x"},
            {"a": 2, "b": "x|y"},
            {"a": 1, "b": "x"},
            {"a": None, "b": "z"},
            {"a": 3, "b": "q"},
        ],
    )
    dataset = lake.prepare(
        source={"type": "files", "path": "keyed.parquet"},
        key=["a", "b"],
        split={"train": 1, "validation": 0, "test": 0},
    )
    assert {r["row_id"] for r in rows(dataset)} == {
        hashlib.md5(t.encode()).hexdigest() for t in ("1|x", "2|x\\|y", "3|q")
    }
    aside = sorted(quarantine(dataset), key=lambda r: r["line"])
    assert [(r["line"], r["stage"], r["column"], r["reason"]) for r in aside] == [
        (3, "key", "a, b", "an earlier row has the same key: 1|x"),
        (4, "key", "a, b", "the key is missing"),
    ]
    assert json.loads(aside[1]["row"]) == {"a": None, "b": "z"} and adds_up(dataset)


def test_a_single_key_is_hashed_as_its_text(lake):
    assert {r["row_id"] for r in rows(lake.prepare(key="id"))} == {
        hashlib.md5(str(i).encode()).hexdigest() for i in range(200)
    }


def test_where_filters_what_is_false_or_unknown(lake):
    lake.put("n.parquet", [{"a": 1}, {"a": None}, {"a": 5}])
    dataset = lake.prepare(
        source={"type": "files", "path": "n.parquet"},
        where="a > 2",
        split={"train": 1, "validation": 0, "test": 0},
    )
    assert (
        [r["a"] for r in rows(dataset)] == [5]
        and dataset.counts["filtered"] == 2
        and adds_up(dataset)
    )


def test_a_sample_is_exact_and_does_not_depend_on_order(lake):
    dataset = lake.prepare(sample=50, key="id")
    assert dataset.counts["filtered"] == 150 and adds_up(dataset)
    table = pa.Table.from_pylist(
        [
            {"id": i, "age": i % 90, "name": f"n{i % 7}", "score": i / 4}
            for i in range(199, -1, -1)
        ]
    )
    lake.put("rows.parquet", table)
    assert {r["id"] for r in rows(lake.prepare(sample=50, key="id"))} == {
        r["id"] for r in rows(dataset)
    }
    assert lake.prepare(sample=500).counts["filtered"] == 0


def test_derived_columns_may_use_those_above(lake):
    dataset = lake.prepare(
        derive={"double": "age * 2", "half": "double * 0.25", "tag": "upper(name) || id"}
    )
    assert all(
        r["double"] == 2 * r["age"]
        and r["half"] == r["age"] / 2
        and r["tag"] == f"{r['name'].upper()}{r['id']}"
        for r in rows(dataset)
    )
    assert dataset.schema.field("half").type == pa.float64()


# -- joins ---------------------------------------------------------------------------------------------------


@pytest.fixture
def joined(lake):
    lake.put(
        "people.parquet",
        [{"name": f"n{i}", "city": f"c{i}", "size": i} for i in range(5)],
    )
    return lake


def test_a_join_brings_columns(joined):
    dataset = joined.prepare(
        join=[
            {
                "source": {"type": "files", "path": "people.parquet"},
                "on": "name",
                "prefix": "p_",
            }
        ],
        where="p_size < 4 OR p_size IS NULL",
    )
    for row in rows(dataset):
        n = int(row["name"][1:])
        assert (row["p_city"], row["p_size"]) == ((f"c{n}", n) if n < 4 else (None, None))
    assert dataset.counts["filtered"] == len(
        [i for i in range(200) if i % 7 == 4]
    ) and adds_up(dataset)
    assert dataset.manifest["lineage"]["joined"][0]["rows"] == 5


def test_a_join_by_other_names_and_chosen_columns(joined):
    joined.put("c.parquet", [{"who": f"n{i}", "a": i, "b": -i} for i in range(7)])
    dataset = joined.prepare(
        join=[
            {
                "source": {"type": "files", "path": "c.parquet"},
                "on": {"name": "who"},
                "columns": "b",
            }
        ]
    )
    assert (
        all(r["b"] == -int(r["name"][1:]) for r in rows(dataset))
        and "a" not in dataset.schema.names
    )


def test_keys_of_two_types_are_compared_as_text_aloud(joined):
    joined.put("t.parquet", [{"id": str(i), "extra": i * 10} for i in range(200)])
    dataset = joined.prepare(
        join=[{"source": {"type": "files", "path": "t.parquet"}, "on": "id"}]
    )
    assert (
        all(r["extra"] == r["id"] * 10 for r in rows(dataset))
        and "compared as text" in joined.said()
    )


def test_who_finds_none_may_be_quarantined(joined):
    dataset = joined.prepare(
        join=[
            {
                "source": {"type": "files", "path": "people.parquet"},
                "on": "name",
                "missing": "quarantine",
            }
        ]
    )
    assert dataset.counts["quarantined"] == len(
        [i for i in range(200) if i % 7 > 4]
    ) and adds_up(dataset)
    assert {r["stage"] for r in quarantine(dataset)} == {"join"}


def test_who_finds_none_may_end_the_run(joined):
    with pytest.raises(
        ContractError,
        match=r"join\[0\]: \d+ rows have no match by name \(rows.parquet, row 6: name='n5'",
    ):
        joined.prepare(
            join=[
                {
                    "source": {"type": "files", "path": "people.parquet"},
                    "on": "name",
                    "missing": "fail",
                }
            ]
        )


def test_a_join_is_to_one(joined):
    joined.put(
        "people.parquet",
        [
            {"name": "n1", "city": "a"},
            {"name": "n1", "city": "b"},
            {"name": "zz", "city": "c"},
            {"name": "zz", "city": "d"},
        ],
    )
    with pytest.raises(
        ContractError,
        match=r"one row in the joined source, but 1 keys .* name='n1' \(2 rows\)",
    ):
        joined.prepare(
            join=[{"source": {"type": "files", "path": "people.parquet"}, "on": "name"}]
        )


def test_many_where_nobody_asks_are_no_matter(joined):
    joined.put(
        "people.parquet",
        [
            {"name": "zz", "city": "c"},
            {"name": "zz", "city": "d"},
            {"name": "n1", "city": "a"},
        ],
    )
    assert (
        joined.prepare(
            join=[{"source": {"type": "files", "path": "people.parquet"}, "on": "name"}]
        ).counts["train"]
        > 0
    )


# -- mistakes ------------------------------------------------------------------------------------------------


def test_every_name_that_is_not_there_is_told_at_once(lake):
    with pytest.raises(RecipeError) as refused:
        lake.prepare(
            where="agee > 1",
            derive={"x": "scor * 2", "age": "1"},
            expect={"nam": {"not_null": True}},
            clean=[
                {"type": "trim", "columns": ["name", "nme"]},
                {"type": "filter", "keep": "x > zz"},
            ],
            split={"by": "time", "on": "tim"},
            inputs={
                "age": "number",
                "nmae": "category",
                "other": {"type": "number", "column": "scroe"},
            },
            targets={"score": "number"},
            weight="wght",
            keep="idd",
            key="kee",
            evaluate={"slices": "agge"},
        )
    text = str(refused.value)
    for part in (
        "where: there is no column 'agee'. Did you mean 'age'?",
        "derive.x: there is no column 'scor'. Did you mean 'score'?",
        "derive.age: already exists",
        "expect.nam:",
        "clean[0]: there is no column 'nme'",
        "clean[1].keep: there is no column 'zz'",
        "split.on: there is no column 'tim'",
        "inputs.nmae:",
        "inputs.other.column: there is no column 'scroe'",
        "weight: there is no column 'wght'",
        "keep: there is no column 'idd'",
        "key[0]: there is no column 'kee'",
        "evaluate.slices: there is no column 'agge'",
    ):
        assert part in text
    assert len(refused.value.problems) == 13
    assert (
        not (lake.store.folder / "datasets").exists()
        and not (lake.store.folder / ".staging").exists()
    )


def test_mistakes_of_joins(joined):
    with pytest.raises(RecipeError) as refused:
        joined.prepare(
            join=[
                {
                    "source": {"type": "files", "path": "people.parquet"},
                    "on": {"nme": "nam"},
                    "columns": ["cty"],
                },
                {"source": {"type": "files", "path": "rows.parquet"}, "on": "id"},
            ]
        )
    text = str(refused.value)
    assert (
        "join[0].on: there is no column 'nme'" in text
        and "join[0].on: there is no column 'nam'" in text
        and "join[0].columns: there is no column 'cty'" in text
    )
    assert "join[1].prefix: would add 'age', 'name', 'score'" in text


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ({"where": "age + 1"}, "where: a condition must be true or false; this is int64"),
        ({"where": "name > age + name"}, "where: No function matches"),
        ({"derive": {"x": "name * 2"}}, "derive.x:"),
        ({"clean": [{"type": "filter", "keep": "age"}]}, "clean[0].keep: a condition"),
        ({"where": "age IN (SELECT 1)"}, "where: a query inside"),
        ({"split": {"by": "files"}}, "split.by: is `files`"),
    ],
)
def test_expressions_of_the_wrong_type(lake, words, part):
    with pytest.raises(RecipeError) as refused:
        lake.prepare(**words)
    assert part in str(refused.value)


def test_a_value_that_breaks_an_expression_is_a_sentence(lake):
    with pytest.raises(ContractError, match="broke an expression"):
        lake.prepare(derive={"x": "CAST(name AS INTEGER)"})


def test_nothing_left_to_train_on(lake):
    with pytest.raises(
        ContractError, match=r"no row is left to train on: 0 train .* 200 filtered"
    ):
        lake.prepare(where="age > 1000")


def test_no_rows_at_all(lake):
    lake.put("empty.parquet", pa.table({"a": pa.array([], pa.int64())}))
    with pytest.raises((ContractError, SourceError), match="no rows"):
        lake.prepare(source={"type": "files", "path": "empty.parquet"})


def test_a_column_called_row_id_is_renamed_aloud(lake):
    lake.put("r.parquet", [{"row_id": i, "a": i} for i in range(30)])
    dataset = lake.prepare(
        source={"type": "files", "path": "r.parquet"}, derive={"b": "source_row_id + 1"}
    )
    assert (
        all(r["b"] == r["source_row_id"] + 1 for r in rows(dataset))
        and "source_row_id" in lake.said()
    )


def test_unreadable_rows_count_as_in_and_quarantined(lake):
    lake.put(
        "ragged.csv",
        "a,b\n1,2\n3\n4,5,6,7\n8,9\n" + "".join(f"{i},{i}\n" for i in range(20)),
    )
    dataset = lake.prepare(
        source={"type": "files", "path": "ragged.csv"},
        split={"train": 1, "validation": 0, "test": 0},
    )
    assert (
        adds_up(dataset)
        and dataset.counts["in"] == 24
        and dataset.counts["quarantined"] == len(quarantine(dataset)) > 0
    )
    assert all(
        r["stage"] == "read" and r["file"].endswith("ragged.csv") and r["row_id"] is None
        for r in quarantine(dataset)
    )
    assert "in quarantine" in lake.said("warned")


def test_a_failed_preparation_leaves_nothing(lake, monkeypatch):
    import errno

    from penstock.prepare import preparation as module

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "profile", full)
    with pytest.raises(StoreError, match="the disk is full"):
        lake.prepare()
    assert (
        not (lake.store.folder / "datasets").exists()
        and not (lake.store.folder / ".staging").exists()
    )


def test_threads_and_memory_change_no_row(lake):
    lake.put(
        "wide.parquet",
        [{"id": i, "t": f"{i * 7919 % 1000}" * 5, "x": i / 7} for i in range(3_000)],
    )
    words = {
        "source": {"type": "files", "path": "wide.parquet"},
        "clean": [
            {"type": "deduplicate", "columns": "t"},
            {"type": "clip_outliers", "columns": "x", "quantiles": [0.1, 0.9]},
        ],
    }
    other = Store(lake.folder / "other")
    one = prepare(lake.recipe(**words), lake.store, Events())
    two = prepare(
        lake.recipe(**words, resources={"memory": "2GB", "threads": 1}), other, Events()
    )
    assert (
        one.id == two.id
        and rows(one) == rows(two)
        and one.facts == two.facts
        and one.counts == two.counts
    )
    assert (one.path / "profile.json").read_text("utf-8") == (
        two.path / "profile.json"
    ).read_text("utf-8")


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**32))
def test_whatever_is_declared_the_rows_add_up(tmp_path_factory, chance):
    """Random rows through random steps: none is lost, none comes twice."""
    draw = random.Random(chance)
    lake = Lake(tmp_path_factory.mktemp("lake"))
    made = [
        {
            "id": i,
            "a": draw.choice([None, 1, 2, 50]),
            "t": draw.choice([None, "x", " y", "z "]),
            "f": draw.choice([None, 0.5, float("nan"), -3.0]),
        }
        for i in range(draw.randint(30, 90))
    ]
    lake.put("rows.parquet", [{**r, "id": draw.choice([r["id"], 3])} for r in made])
    steps = {
        "where": "a IS NULL OR a < 40",
        "sample": 25,
        "key": "id",
        "derive": {"d": "coalesce(a, 0) + 1"},
        "expect": {"a": {"not_null": True}, "t": {"allowed": ["x", "y", "z"]}},
        "clean": [
            "trim",
            "deduplicate",
            {"type": "filter", "keep": "f IS NULL OR f > -5"},
            {"type": "fill", "values": {"a": 0}},
        ],
        "split": draw.choice(
            [
                {"by": "hash", "on": "t"},
                {"stratify": "t"},
                {"by": "time", "on": "f"},
                {"train": 0.5, "validation": 0.5, "test": 0},
            ]
        ),
    }
    words = {word: steps[word] for word in steps if draw.random() < 0.5}
    try:
        dataset = lake.prepare(**words)
    except ContractError as error:
        if "no row is left to train on" in str(error):
            return
        raise
    assert adds_up(dataset) and dataset.counts["in"] == len(made)
    ids = [r["row_id"] for r in rows(dataset)]
    assert len(set(ids)) == len(ids)
    assert isinstance(
        Dataset.open(lake.store, reference=dataset.reference, verify=True), Dataset
    )
