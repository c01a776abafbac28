"""Rows are forgotten: a new version without them, and no value of theirs in any file of the store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

import penstock
from penstock.core import audit
from penstock.core.errors import PenstockError, RecipeError, StoreError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.feed import Feed, write_feed
from penstock.pipeline.forget import forgetting, record
from penstock.pipeline.forget.conditions import Condition
from penstock.pipeline.forget.forgetting import forget
from penstock.pipeline.forget.plan import make_plan
from penstock.pipeline.forget.traces import blanked
from penstock.pipeline.open_loader import Loader
from penstock.prepare.dataset import SPLITS, Dataset
from penstock.prepare.prepare import find_dataset, prepare
from penstock.prepare.tags import set_tag, tags_of
from penstock.recipe.schema import Recipe, load_recipe
from tests.data.lake import adds_up

WHERE = "person = 'planted-7'"
PLANTED = ("planted-7", "jo-planted-7@x.example", "7000007")


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PENSTOCK_KEY", "0123456789abcdef-of-the-tests")
    return "PENSTOCK_KEY"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Two hundred visits of forty people, five each; some of every person's break the contract, one line is
    torn.
    """
    lines = ["visit,person,email,phone,age,job,pay"]
    for i in range(200):
        who = i % 40
        age = 900 if i < 40 and who in (7, 8) else 20 + who
        lines.append(
            f"{i},planted-{who},jo-planted-{who}@x.example,{7_000_000 + who},{age},"
            f"{'smith' if i % 2 else 'clerk'},{'high' if who > 20 else 'low'}"
        )
    lines.insert(60, "9999,planted-7,torn")
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "visits.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path


def recipe_of(lake: Path, **words: Any) -> Recipe:
    declared = {
        "source": "lake",
        "key": ["visit"],
        "expect": {"age": {"max": 120}},
        "inputs": {"age": "number", "job": "category", "person": "category"},
        "targets": {"pay": "binary"},
        "train": {"epochs": 1, "batch_size": 32},
        **words,
    }
    return load_recipe(declared, base=lake, name="visits")


def prepared(lake: Path, **words: Any) -> tuple[Store, Recipe, Dataset]:
    store, recipe = Store(lake / "store"), recipe_of(lake, **words)
    return store, recipe, prepare(recipe, store, Events())


def texts(folder: Path) -> dict[str, str]:
    """Every file below a folder, as text, tables decoded."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_bytes().decode("utf-8", "replace")
            if path.suffix == ".parquet":
                text += str(pq.read_table(path).to_pylist())
            if path.suffix == ".arrow":
                text += str(ipc.open_file(path).read_all().to_pylist())
            found[str(path.relative_to(folder))] = text
    return found


def nothing_left(folder: Path) -> None:
    for name, text in texts(folder).items():
        for value in PLANTED:
            assert value not in text, (name, value)


def rows_of(dataset: Dataset) -> dict[str, list[dict[str, Any]]]:
    return {split: dataset.table(split).to_pylist() for split in SPLITS}


def test_a_new_version_without_the_rows_and_nothing_left(lake: Path) -> None:
    store, recipe, parent = prepared(lake)
    feed = write_feed(recipe, parent, store, Events())
    before = rows_of(parent)
    quarantined = parent.counts["quarantined"]
    assert any("planted-7" in text for text in texts(lake / "store").values())

    report = forget(store, Condition(WHERE), Events())

    [version] = report["versions"]
    child = Dataset.open(store, reference=version["child"])
    assert rows_of(child) == {
        split: [row for row in rows if row["person"] != "planted-7"]
        for split, rows in before.items()
    }
    # One broke the contract, one could not be read.
    assert sum(version["rows"].values()) == 4 and version["quarantined"] == 2
    assert child.counts["quarantined"] == quarantined - 2
    assert child.counts["in"] == parent.counts["in"] and adds_up(child)
    assert child.manifest["lineage"]["parent"] == parent.reference
    assert not store.has(f"datasets/visits/{parent.id}")
    assert not store.has(f"feeds/{feed.id}") and version["feeds_destroyed"] == [feed.id]
    nothing_left(lake / "store")
    store.open(f"datasets/visits/{child.id}", verify=True)


def test_the_source_prepared_again_gives_the_version_without_them(lake: Path) -> None:
    store, recipe, parent = prepared(lake)
    set_tag(store, parent.reference, "gold", Events())
    report = forget(store, Condition(WHERE), Events())
    assert [tag.dataset for tag in tags_of(store)] == [report["versions"][0]["child"]]
    child = report["versions"][0]["child"]
    again = find_dataset(recipe, store)
    assert again is not None and again.reference == child
    assert prepare(recipe, store, Events()).reference == child
    nothing_left(lake / "store")
    # And once more, of the child.
    second = forget(store, Condition("person = 'planted-8'"), Events())
    assert second["versions"][0]["dataset"] == child
    assert prepare(recipe, store, Events()).reference == second["versions"][0]["child"]


@pytest.mark.parametrize("key", [["visit"], []], ids=["with a key", "without a key"])
def test_more_files_do_not_bring_the_rows_back(lake: Path, key: list[str]) -> None:
    store, recipe, _ = prepared(lake, key=key)
    forget(store, Condition(WHERE), Events())
    head = "visit,person,email,phone,age,job,pay"
    (lake / "lake" / "later.csv").write_text(
        f"{head}\n500,planted-3,a@x.example,1,30,clerk,low\n", "utf-8"
    )
    again = prepare(recipe, store, Events())

    # It is what preparing the files without these rows would be, but for the counts.
    clean = lake / "clean"
    shutil.copytree(lake / "lake", clean / "lake")
    visits = clean / "lake" / "visits.csv"
    left = [x for x in visits.read_text("utf-8").splitlines() if "planted-7" not in x]
    visits.write_text("\n".join(left) + "\n", "utf-8")
    expected = prepare(recipe_of(clean, key=key), Store(clean / "store"), Events())

    def plain(dataset: Dataset) -> list[dict[str, Any]]:
        rows = (row for split in SPLITS for row in dataset.table(split).to_pylist())
        # Without a key an id has the content of its file, which is another here.
        return sorted(
            ({k: v for k, v in row.items() if key or k != "row_id"} for row in rows),
            key=lambda row: row["visit"],
        )

    assert plain(again) == plain(expected)
    assert again.counts["filtered"] == 6 and adds_up(again)
    assert again.counts["quarantined"] == expected.counts["quarantined"]
    nothing_left(lake / "store")
    # The same once more, also after another forgetting.
    assert prepare(recipe, store, Events()).reference == again.reference
    report = forget(store, Condition("person = 'planted-8'"), Events())
    children = {v["dataset"]: v["child"] for v in report["versions"]}
    assert prepare(recipe, store, Events()).reference == children[again.reference]


def test_with_a_key_a_changed_file_does_not_bring_the_rows_back(lake: Path) -> None:
    path = lake / "lake" / "visits.csv"
    with path.open("a", encoding="utf-8") as file:
        # A second row with a key that another person has: only this one is meant.
        file.write("3,planted-7,jo-planted-7@x.example,7000007,20,clerk,low\n")
    store, recipe, parent = prepared(lake)
    assert [r["stage"] for r in parent.manifest["quarantine"]] == [
        "expect",
        "key",
        "read",
    ]
    forget(store, Condition(WHERE), Events())
    with path.open("a", encoding="utf-8") as file:
        file.write("501,planted-3,a@x.example,1,30,clerk,low\n")
    again = prepare(recipe, store, Events())
    rows = [row for split in SPLITS for row in again.table(split).to_pylist()]
    assert {3, 501} <= {row["visit"] for row in rows}
    assert again.counts["filtered"] == 7 and adds_up(again)
    nothing_left(lake / "store")


def test_a_list_of_forgotten_rows_that_was_changed_is_refused(lake: Path) -> None:
    store, recipe, _ = prepared(lake)
    forget(store, Condition(WHERE), Events())
    [listed] = (lake / "store" / "index" / "forgotten-rows" / "visits").iterdir()
    listed.write_text("row nonsense\n", "utf-8")
    (lake / "lake" / "later.csv").write_text(
        "visit,person,email,phone,age,job,pay\n500,x,y,1,2,clerk,low\n", "utf-8"
    )
    with pytest.raises(StoreError, match="Restore the file"):
        prepare(recipe, store, Events())


@pytest.mark.slow
def test_without_its_successor_the_rows_do_not_come_back(lake: Path) -> None:
    store, recipe, _ = prepared(lake)
    report = forget(store, Condition(WHERE), Events())
    name, _, id = report["versions"][0]["child"].partition("@")
    forgetting.destroy(store, f"datasets/{name}/{id}")
    with pytest.raises(PenstockError, match="take them out of the source"):
        prepare(recipe, store, Events())


def test_looking_changes_nothing(lake: Path) -> None:
    store, _, _ = prepared(lake)
    before = texts(lake / "store")
    plan = make_plan(store, Condition(WHERE))
    assert plan.rows == 6
    assert "planted-7" not in json.dumps(plan.to_dict())
    assert texts(lake / "store") == before


@pytest.mark.slow
def test_forgetting_twice_finds_nothing_more(lake: Path) -> None:
    store, _, _ = prepared(lake)
    forget(store, Condition(WHERE), Events())
    after = texts(lake / "store")
    report = forget(store, Condition(WHERE), Events())
    assert not report["versions"] and "report" not in report
    assert texts(lake / "store") == after


@pytest.mark.parametrize("last", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_interrupted_it_goes_on(
    lake: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    store, recipe, parent = prepared(lake)
    write_feed(recipe, parent, store, Events())
    calls: list[str] = []
    whole = forgetting.destroy

    def dies(store: Store, name: str) -> None:
        if len(calls) == last:
            # Half way: its manifest is gone, its files are not.
            (store.at(name) / "manifest.json").unlink()
            raise KeyboardInterrupt
        calls.append(name)
        whole(store, name)

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "destroy", dies)
        with pytest.raises(KeyboardInterrupt):
            forget(store, Condition(WHERE), Events())
    assert any("planted-7" in text for text in texts(lake / "store").values())
    # Another condition by then: what was begun is brought to its end all the same.
    forget(store, Condition("person = 'nobody'"), Events())
    nothing_left(lake / "store")
    [name] = [n for n in store.texts("forget") if n.endswith(".json")]
    report = json.loads(store.read_text(f"forget/{name}") or "")
    assert record.is_signed(report, Condition(WHERE))
    assert prepare(recipe, store, Events()).reference == report["versions"][0]["child"]


def test_the_report_is_signed_with_a_key(lake: Path, key: str) -> None:
    store, _, _ = prepared(lake)
    condition = Condition(WHERE)
    report = forget(store, condition, Events())
    kept = json.loads(store.read_text(f"{report['report']}.json") or "")
    assert kept["signature"]["by"] == "HMAC-SHA-256" and record.is_signed(kept, condition)
    assert kept["condition"]["redacted"] == "person = '…'" and kept["condition"]["hmac"]
    kept["versions"][0]["rows"]["train"] += 1
    assert not record.is_signed(kept, condition)
    text = store.read_text(f"{report['report']}.md") or ""
    assert "What remains" in text and "planted-7" not in text


@pytest.mark.slow
def test_without_a_key_the_audit_log_has_its_hash(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENSTOCK_KEY", raising=False)
    store, _, parent = prepared(lake)
    report = forget(store, Condition(WHERE), Events())
    assert "hmac" not in report["condition"] and "why" in report["signature"]
    [entry] = audit.entries(store, parent.reference)
    assert entry["act"] == "erased" and entry["digest"] == report["signature"]["digest"]
    assert not audit.check(store)


def test_a_pseudonym_is_matched_with_its_key(
    lake: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = {"person": "pseudonym", "email": "drop", "phone": "drop"}
    store, _, _ = prepared(lake, private=private)
    plan = make_plan(store, Condition("person IN ('planted-7', 'planted-8')"))
    assert sum(plan.versions[0].to_dict()["rows"].values()) == 8
    # A hidden column, and a pseudonym without its key, cannot be matched; that is told.
    [hidden] = make_plan(store, Condition("email = 'jo@x'")).unmatched
    assert hidden.is_hidden and "drop" in hidden.why
    [other] = make_plan(store, Condition("person LIKE 'planted-7%'")).unmatched
    assert other.is_hidden and "= or IN" in other.why
    monkeypatch.delenv("PENSTOCK_KEY")
    [keyless] = make_plan(store, Condition(WHERE)).unmatched
    assert keyless.is_hidden and "PENSTOCK_KEY" in keyless.why


@pytest.mark.slow
def test_a_bucket_and_this_machines_copies_of_it(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_CACHE", str(lake / "cache"))
    store, recipe = Store(f"memory://forget-{lake.name}"), recipe_of(lake)
    parent = prepare(recipe, store, Events())
    feed = write_feed(recipe, parent, store, Events())
    # A copy of a shard in the cache of the machine.
    store.open(f"feeds/{feed.id}")
    shutil.rmtree(store.at(f"feeds/{feed.id}"))
    list(Loader(Feed.open(store, id=feed.id), batch_size=32))
    assert any("planted-7" in text for text in texts(lake / "cache").values())
    report = forget(store, Condition(WHERE), Events())
    child = report["versions"][0]["child"]
    nothing_left(lake / "cache")
    for key in store.shelf.below(""):
        content = store.shelf.read(key) or b""
        (lake / "cache" / "bucket" / key).parent.mkdir(parents=True, exist_ok=True)
        (lake / "cache" / "bucket" / key).write_bytes(content)
    nothing_left(lake / "cache" / "bucket")
    assert prepare(recipe, Store(store.url), Events()).reference == child
    assert not audit.check(store)


def test_the_verbs_of_python(lake: Path) -> None:
    store, _, parent = prepared(lake)
    plan = penstock.forget(WHERE, store=store, dry_run=True, events=Events())
    assert not plan["done"] and store.has(f"datasets/visits/{parent.id}")
    done = penstock.forget(WHERE, store=store, events=Events())
    [version] = done["versions"]
    assert done["done"] and version["dataset"] == parent.reference
    assert "planted-7" not in json.dumps(done.to_dict())
    nothing_left(lake / "store")
    last = penstock.audit(version["child"], store=store)[-1]
    assert last["act"] == "erased" and last["child"] == version["child"]


def test_datasets_without_the_column_are_named(lake: Path) -> None:
    store, _, parent = prepared(lake)
    plan = make_plan(store, Condition("passport = 'x'"))
    [each] = plan.unmatched
    assert each.reference == parent.reference and not each.is_hidden
    assert "no column passport" in each.why


def test_a_condition_that_does_not_fit_is_told_without_its_value(lake: Path) -> None:
    store, _, parent = prepared(lake)
    plan = make_plan(store, Condition("age = 'planted-7' OR phone > 'planted-8'"))
    [each] = plan.unmatched
    assert each.reference == parent.reference and each.is_hidden
    assert "planted" not in json.dumps(plan.to_dict())


@pytest.mark.slow
def test_a_dataset_that_cannot_be_read_is_named_and_stops_nothing(lake: Path) -> None:
    store, _, parent = prepared(lake)
    _, _, other = prepared(lake, seed=5)
    file = next((parent.path / "rows" / "split=train").glob("*.parquet"))
    file.write_bytes(b"")
    report = forget(store, Condition(WHERE), Events())
    assert [v["dataset"] for v in report["versions"]] == [other.reference]
    [each] = report["not_matched"]
    assert each["dataset"] == parent.reference and "cannot be read" in each["why"]


@pytest.mark.parametrize("text", ["{", "[]", '{"report": {"versions": []}}'])
def test_a_journal_that_was_changed_is_refused(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path / "store")
    store.write_text("forget/01.journal", text=text)
    with pytest.raises(StoreError, match=r"01\.journal says what .* was changed since"):
        forget(store, Condition(WHERE), Events())


def test_records_are_blanked_and_stay_json() -> None:
    values = {"7000007", "jo x", "strasse 9"}
    line = json.dumps({"text": "of JO X, Straße 9", "bytes": 7000007, "n": "No 7000007"})
    made = json.loads(blanked("events.jsonl", line + "\n", values))
    assert made == {"text": "[forgotten]", "bytes": 7000007, "n": "No [forgotten]"}
    assert blanked("x.md", "by Jo X.", values) == "by [forgotten]."


@pytest.mark.parametrize("where", ["person =", "1 = 1", "person = (SELECT 1)"])
def test_what_is_no_condition_is_refused(where: str) -> None:
    with pytest.raises(RecipeError):
        Condition(where)
