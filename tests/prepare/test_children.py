"""A version made of an older one and of new files is the version that preparing all files gives."""

from __future__ import annotations

import importlib
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.core.errors import RecipeError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.feed import write_feed
from penstock.pipeline.forget.conditions import Condition
from penstock.pipeline.forget.forgetting import forget
from penstock.pipeline.quarantined import Filter, quarantined
from penstock.prepare.dataset import SPLITS, Dataset
from penstock.prepare.prepare import prepare
from penstock.prepare.subset import Subset
from penstock.prepare.version_profile import profile_of
from penstock.recipe.schema import Recipe, load_recipe

ROWS = 250
NAMES = ("id", "person", "age", "city", "score", "pay")


def add_file(lake: Path, name: str, ids: range, **odd: Any) -> None:
    """A file of made-up people: some ages break the contract, some are missing, and of CSV a line is torn."""
    chance = random.Random(ids.start)
    rows = [
        {
            "id": i,
            "person": f"planted-{i % 40}",
            "age": chance.choice([None, 900, *range(18, 80)]),
            "city": chance.choice(["Oslo", " Bergen ", None]),
            "score": chance.random(),
            "pay": chance.choice(["high", "low"]),
            **odd,
        }
        for i in ids
    ]
    lake.mkdir(exist_ok=True)
    if name.endswith(".parquet"):
        names = rows[0]
        table = pa.table({name: [row[name] for row in rows] for name in names})
        pq.write_table(table, lake / name)
        return
    lines = [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
    text = "\n".join([",".join(rows[0]), *lines[:100], "7,torn", *lines[100:]])
    (lake / name).write_text(text + "\n", "utf-8")


def recipe_of(lake: Path, **words: Any) -> Recipe:
    declared = {
        "name": "people",
        "source": str(lake),
        "where": "score < 0.95",
        "derive": {"twice": "score * 2"},
        "expect": {
            "age": {"max": 120, "also": [{"min": 30, "on_violation": "warn"}]},
            "pay": {"allowed": ["high", "low"]},
        },
        "clean": [{"type": "trim", "columns": ["city"]}],
        "inputs": {"age": "number", "city": "category", "score": "number"},
        "targets": {"pay": {"type": "binary", "positive": "high"}},
        "resources": {"memory": "1GiB"},
        **words,
    }
    return load_recipe({k: v for k, v in declared.items() if v is not None})


def made(recipe: Recipe, store: Store) -> tuple[Dataset, str]:
    """The version, and what was said."""
    events: list[str] = []
    dataset = prepare(recipe, store, Events(lambda event: events.append(event.line())))
    return dataset, "\n".join(events)


def content_of(dataset: Dataset) -> dict[str, Any]:
    """All that a version says of its rows, but where they came from and when."""
    manifest = dataset.manifest
    aside = [json.dumps(row, sort_keys=True) for row in quarantined(dataset, Filter())]
    return {
        "id": dataset.id,
        "rows": {split: dataset.table(split) for split in SPLITS},
        "quarantine": sorted(aside),
        "contract": manifest["contract"]["rules"],
        "profile": profile_of(dataset),
        **{word: manifest[word] for word in ("counts", "quarantine", "schema", "facts")},
        "changes": manifest["changes"],
        "source": manifest["lineage"]["source"],
    }


def is_shared(dataset: Dataset) -> bool:
    return "files_read" in dataset.manifest["lineage"]


@pytest.mark.parametrize(("ending", "place"), [("csv", "folder"), ("parquet", "bucket")])
def test_a_child_is_what_preparing_all_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, place: str
) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    url = tmp_path / "store" if place == "folder" else f"memory://child-{tmp_path.name}"
    lake, store = tmp_path / "lake", Store(url)
    recipe = recipe_of(lake)
    reading = importlib.import_module("penstock.formats.extract")
    opened: list[str] = []
    open_file = reading._open
    monkeypatch.setattr(
        reading,
        "_open",
        lambda input, context: opened.append(input.path) or open_file(input, context),
    )
    for at, name in enumerate("bd"):
        add_file(lake, f"{name}.{ending}", range(at * ROWS, (at + 1) * ROWS))
    parent, _ = made(recipe, store)
    assert not is_shared(parent)
    # A file before the others, and then one between them: the child of a child.
    for at, name in enumerate("ac", 2):
        opened.clear()
        add_file(lake, f"{name}.{ending}", range(at * ROWS, (at + 1) * ROWS))
        child, told = made(recipe, store)
        assert opened == [f"{name}.{ending}"] and is_shared(child)
        assert f"those of {parent.reference}: 1 new file of" in told
        assert child.manifest["lineage"]["parent"] == parent.reference
        parent = child
    whole, _ = made(recipe, Store(tmp_path / "other"))
    assert not is_shared(whole)
    assert content_of(child) == content_of(whole)
    # Nothing that reads a version sees how it was made.
    feeds = [write_feed(recipe, each, each.store, Events()) for each in (child, whole)]
    assert feeds[0].manifest["files"] == feeds[1].manifest["files"]
    some, same = (Subset(d, where="age > 40", sample=0.5, seed=3) for d in (child, whole))
    assert some.table("train").equals(same.table("train"))
    (tmp_path / "scratch").mkdir()
    ordered = child.ordered_files("train", tmp_path / "scratch")
    assert pq.read_table(ordered).equals(whole.table("train"))
    files = child.manifest["files"]
    of_parent = "rows/split=train/part-0.parquet"
    if place == "folder":
        assert (child.path / of_parent).stat().st_nlink == 3
        Dataset.at(store, name=f"datasets/people/{child.id}", verify=True)
        return
    # In a bucket the manifest says whose a file is; there is one object of it.
    assert files[of_parent]["from"].startswith("datasets/people/")
    objects = store.shelf.below(f"datasets/people/{child.id}")
    assert not any(key.endswith(of_parent) for key in objects)
    # On another machine.
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "elsewhere"))
    far = Dataset.open(Store(url), reference=child.reference)
    assert far.is_far and far.table("test").equals(whole.table("test"))
    assert len(far.files("test")) == 3


@pytest.mark.slow
def test_where_rows_cannot_be_shared_all_are_prepared_and_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, store = tmp_path / "lake", Store(tmp_path / "store")
    recipe, keyed = recipe_of(lake), recipe_of(lake, key=["id"], where=None)
    drawn = recipe_of(lake, sample=400)
    add_file(lake, "a.csv", range(ROWS))
    parents = [made(each, store)[0] for each in (recipe, keyed, drawn)]
    # A word of the recipe that looks at all rows.
    add_file(lake, "b.csv", range(ROWS, 2 * ROWS))
    whole, told = made(drawn, store)
    assert not is_shared(whole) and whole.counts["in"] == 2 * ROWS + 2
    assert f"{parents[2].reference} has the rows of 1 of 2 files, but `sample`" in told
    # With a key, as long as no file has one of another.
    assert is_shared(made(keyed, store)[0])
    add_file(lake, "c.csv", range(ROWS + 5))
    whole, told = made(keyed, store)
    assert (
        not is_shared(whole) and "a `key` of the new files stands in the others" in told
    )
    # Columns that the others do not have, and other types.
    add_file(lake, "c.csv", range(2 * ROWS, 3 * ROWS), more=1)
    assert "other columns: 'more'" in made(recipe, store)[1]
    add_file(lake, "c.csv", range(2 * ROWS, 3 * ROWS), age="old")
    assert "'age' is string in the new files and int64" in made(recipe, store)[1]
    # Files without a header, which all together might be found to have one.
    bare = recipe_of(
        tmp_path / "bare",
        where=None,
        derive={},
        expect={},
        clean=[],
        inputs={},
        targets={},
    )
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "a.csv").write_text(
        "1,x\n2,y\n3,z\n4,x\n5,x\n6,y\n" * 9, "utf-8"
    )
    made(bare, store)
    (tmp_path / "bare" / "b.csv").write_text("7,x\n8,y\n9,z\n", "utf-8")
    assert "say `header: false`" in made(bare, store)[1]
    # A file that was changed since.
    add_file(lake, "b.csv", range(7 * ROWS, 8 * ROWS))
    add_file(lake, "c.csv", range(2 * ROWS, 3 * ROWS))
    child, told = made(recipe, store)
    assert is_shared(child) and f"those of {parents[0].reference}: 2 new files" in told
    # An interrupted child leaves nothing, and is made again.
    add_file(lake, "d.csv", range(3 * ROWS, 4 * ROWS))
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_settle", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            made(recipe, store)
    last, told = made(recipe, store)
    assert is_shared(last) and child.reference in told
    # A file of the parent that is gone: nothing is made of what is left.
    add_file(lake, "e.csv", range(4 * ROWS, 5 * ROWS))
    for dataset in (parents[0], child, last):
        (dataset.path / "rows/split=test/part-0.parquet").unlink()
    whole, told = made(recipe, store)
    assert not is_shared(whole) and "lacks rows/split=test/part-0.parquet" in told
    (lake / "a.csv").unlink()
    whole, told = made(recipe, store)
    assert not is_shared(whole) and "a.csv was changed or is gone since" in told


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"source": "rows.jsonl"}, "jsonl"),
        (
            {"source": {"type": "files", "path": "a.csv", "decimal": ","}},
            "source.decimal",
        ),
        ({"split": {"by": "time", "on": "day"}}, "split.by: time"),
        ({"split": {"stratify": "pay"}}, "split.stratify"),
        ({"cluster_by": "age"}, "cluster_by"),
        ({"expect": {"id": {"unique": True}}}, "expect.id.unique"),
        ({"expect": {"age": {"max": 9, "budget": 0}}}, "expect.age.budget"),
        ({"expect_table": {"rows": {"min": 1}}}, "expect_table"),
        ({"clean": [{"type": "deduplicate"}]}, "deduplicate"),
        (
            {"clean": [{"type": "fill", "columns": ["age"], "by": "mean"}]},
            "fit: parent",
        ),
        ({"governance": {"anonymity": {"k": 2, "columns": ["age"]}}}, "anonymity"),
    ],
)
def test_words_that_look_at_all_rows_are_named(words: dict[str, Any], named: str) -> None:
    from penstock.prepare.standing import preventing

    recipe = recipe_of(Path("rows.csv"), **words)
    why = preventing(recipe, recipe.source.to_dict()["path"])
    assert why is not None and named in why


def test_what_a_parent_learnt_is_taken_over_or_learnt_again(tmp_path: Path) -> None:
    lake, store = tmp_path / "lake", Store(tmp_path / "store")
    fills = {"clean": [{"type": "fill", "columns": ["age"], "by": "mean"}]}
    add_file(lake, "a.csv", range(ROWS))
    parent, _ = made(recipe_of(lake, **fills), store)
    add_file(lake, "b.csv", range(ROWS, 2 * ROWS), age=79)
    taken = {**fills, "parent": parent.reference, "fit": "parent"}
    child, _ = made(recipe_of(lake, **taken), store)
    again, told = made(recipe_of(lake, **fills), store)
    assert is_shared(child) and child.facts == parent.facts
    assert not is_shared(again) and again.facts != parent.facts
    assert "learns from the training split" in told and again.id != child.id
    assert child.counts == again.counts
    # A named version alone changes no id, and one that is not there is told of.
    named = recipe_of(lake, **fills, parent=parent.reference)
    assert made(named, store)[0].id == again.id
    gone = "people@0000000000000000"
    with pytest.raises(RecipeError, match="cannot be taken over: it is not in the store"):
        made(recipe_of(lake, **{**taken, "parent": gone}), store)
    with pytest.raises(RecipeError, match="give `parent: NAME@ID`"):
        recipe_of(lake, fit="parent")


def test_private_columns_are_hidden_in_a_child_as_in_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_KEY", "0123456789abcdef-of-the-tests")
    lake, store = tmp_path / "lake", Store(tmp_path / "store")
    recipe = recipe_of(
        lake,
        where=None,
        key=["id"],
        private={
            "id": "pseudonym",
            "person": "pseudonym",
            "age": {"type": "generalise", "width": 10},
        },
        governance={"consent": {"column": "pay", "values": ["high", "low"]}},
        expect={"score": {"max": 0.9}},
    )
    add_file(lake, "a.csv", range(ROWS))
    made(recipe, store)
    add_file(lake, "b.csv", range(ROWS, 2 * ROWS))
    child, _ = made(recipe, store)
    whole, _ = made(recipe, Store(tmp_path / "other"))
    assert is_shared(child) and not is_shared(whole)
    assert content_of(child) == content_of(whole)
    assert child.manifest["private"] == whole.manifest["private"]
    assert child.counts["quarantined"] > 2
    for path in (tmp_path / "store").rglob("*"):
        assert path.is_dir() or b"planted-" not in path.read_bytes(), path


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_rows_are_forgotten_in_all_versions_that_share_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PENSTOCK_KEY", "0123456789abcdef-of-the-tests")
    url = tmp_path / "store" if place == "folder" else f"memory://share-{tmp_path.name}"
    lake, store = tmp_path / "lake", Store(url)
    recipe = recipe_of(lake)
    add_file(lake, "a.csv", range(ROWS))
    parent, _ = made(recipe, store)
    add_file(lake, "b.csv", range(ROWS, 2 * ROWS))
    child, _ = made(recipe, store)
    # Rows of the new file alone: the parent stays, and its files with it.
    report = forget(store, Condition(f"id = {ROWS + 3} or id = {ROWS + 4}"), Events())
    assert [v["dataset"] for v in report["versions"]] == [child.reference]
    assert parent.table("train").num_rows == parent.counts["train"]
    left = Dataset.open(store, reference=report["versions"][0]["child"])
    # Of the others none is lost, and their order stays.
    before = {split: Dataset.at(store, name=_name(left)).table(split) for split in SPLITS}
    report = forget(store, Condition("person = 'planted-7'"), Events())
    assert {v["dataset"] for v in report["versions"]} == {
        parent.reference,
        left.reference,
    }
    [last] = [v["child"] for v in report["versions"] if v["dataset"] == left.reference]
    after = Dataset.open(store, reference=last)
    for split, table in before.items():
        stays = [name != "planted-7" for name in table["person"].to_pylist()]
        assert after.table(split).equals(table.filter(pa.array(stays)))
    for gone in (parent, child, left):
        assert (
            not store.at(_name(gone)).exists()
            and not store.at(f".files/{_name(gone)}").exists()
        )
        assert not store.is_remote or not store.shelf.below(_name(gone))
    # A version without its forgotten rows is no parent: it lacks rows of its files.
    add_file(lake, "c.csv", range(2 * ROWS, 3 * ROWS))
    assert not is_shared(made(recipe, store)[0])


def _name(dataset: Dataset) -> str:
    return f"datasets/{dataset.name}/{dataset.id}"
