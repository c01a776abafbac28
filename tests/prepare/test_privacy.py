"""Whose data it is: hidden columns, consent, retention, anonymity; and where no private value may be seen."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.core.errors import ContractError, RecipeError, UserError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.pipeline.quarantined import Filter, export, replay
from penstock.prepare.dataset import Dataset
from penstock.prepare.prepare import prepare
from penstock.prepare.protect import admitted, has_consent, is_retained
from penstock.prepare.survey import survey
from penstock.recipe.governance import Consent, Governance, Retention
from penstock.recipe.schema import Recipe, load_recipe
from tests.data.lake import adds_up, quarantine, rows

SECRET = "planted-secret"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KEY", "0123456789abcdef-of-the-tests")


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Sixty people; each value that tells of one has `SECRET` in it, or is a number of seven digits."""
    lines = ["person,email,phone,age,zip,born,ok,job"]
    for i in range(60):
        lines.append(
            f"{SECRET}-{i},{SECRET}{i}@x.example,{7_000_000 + i},{20 + i},{75000 + i % 3},"
            f"{1966 + i % 40}-03-05,{'true' if i % 6 else 'false'},{'smith' if i % 2 else 'clerk'}"
        )
    lines.insert(9, f"{SECRET} of a torn line")
    # A quote within a value must not let a part of it through.
    lines[5] = lines[5].replace(f"{SECRET}4@", f"it's {SECRET}@")
    (tmp_path / "people.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path


HIDDEN: dict[str, Any] = {
    "person": "pseudonym",
    "email": "drop",
    "phone": {"type": "generalise", "width": 1_000_000},
    "born": "drop",
}


def prepared(people: Path, **words: Any) -> Dataset:
    recipe = recipe_of(people, **words)
    return prepare(recipe, Store(people / "store"), Events())


def recipe_of(people: Path, **words: Any) -> Recipe:
    declared = {"source": "people.csv", "private": HIDDEN, **words}
    return load_recipe(declared, base=people, name="people")


def test_columns_are_hidden_and_every_row_is_counted(people: Path) -> None:
    dataset = prepared(people, derive={"year": "year(born)"})
    assert adds_up(dataset) and dataset.counts["in"] == 61
    made = rows(dataset)
    assert "email" not in made[0] and "born" not in made[0]
    assert len({row["person"] for row in made}) == 60
    assert {row["phone"] for row in made} == {7_000_000}
    assert {row["year"] for row in made} == {1966 + i for i in range(40)}
    assert dataset.manifest["private"]["columns"]["email"] == "drop"
    assert str(dataset.raw_types["born"]).startswith(("timestamp", "date"))


def test_no_private_value_is_in_any_file_of_the_store(people: Path) -> None:
    rule = {"pattern": "[a-z0-9-]*@.*"}
    dataset = prepared(
        people, expect={"email": rule, "phone": {"max": 7_000_050}}, key=["person"]
    )
    # The torn line, the address with the quote, and the numbers above the bound.
    assert dataset.counts["quarantined"] == 1 + 1 + 9
    for path in (people / "store").rglob("*"):
        if not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        if path.suffix == ".parquet":
            text += str(pq.read_table(path).to_pylist())
        for known in ("7000000", "7000050"):
            text = text.replace(known, "")
        assert SECRET not in text and "70000" not in text, path


def test_a_quarantined_row_keeps_what_tells_of_nobody(people: Path) -> None:
    dataset = prepared(people, expect={"phone": {"max": 7_000_000}})
    row = next(r for r in quarantine(dataset) if r["stage"] == "expect")
    values = json.loads(row["row"])
    assert values["job"] in ("smith", "clerk") and values["phone"] == "[private]"
    assert row["reason"].startswith("found …")


def test_an_error_of_the_contract_shows_no_private_value(people: Path) -> None:
    rule = {"max": 7_000_000, "on_violation": "fail"}
    with pytest.raises(ContractError, match=r"people\.csv, row") as caught:
        prepared(people, expect={"phone": rule})
    assert "70000" not in str(caught.value).replace("7000000", "")


def test_what_cleaners_changed_is_counted_and_not_shown(people: Path) -> None:
    mends = [{"type": "trim", "columns": "email", "case": "upper"}]
    dataset = prepared(people, clean=mends)
    [entry] = json.loads((dataset.path / "changes.json").read_text("utf-8"))["clean"]
    assert entry["cells"] == {"email": 60} and not entry["examples"]


def test_a_derived_column_of_a_private_one_is_told(people: Path) -> None:
    told: list[str] = []
    events = Events(lambda event: told.append(str(event)))
    recipe = recipe_of(people, derive={"copy": "email", "again": "upper(copy)"})
    dataset = prepare(recipe, Store(people / "store"), events)
    assert any("again, copy are computed from private columns" in text for text in told)
    # In the quarantine both are withheld all the same.
    assert SECRET.upper() not in str(quarantine(dataset))


def test_without_consent_no_row_enters(people: Path) -> None:
    dataset = prepared(people, governance={"consent": {"column": "ok"}})
    assert adds_up(dataset) and dataset.counts["filtered"] == 10
    assert all(row["ok"] for row in rows(dataset))
    words = {"column": "job", "values": ["smith"]}
    dataset = prepared(people, governance={"consent": words})
    assert {row["job"] for row in rows(dataset)} == {"smith"}
    with pytest.raises(RecipeError, match="'yes' is no value of the column 'age'"):
        prepared(people, governance={"consent": {"column": "age", "values": ["yes"]}})


def test_rows_past_their_time_leave(people: Path) -> None:
    retention = {"column": "born", "days": 365, "as_of": "2000-03-05"}
    dataset = prepared(people, governance={"retention": retention}, derive={"y": "born"})
    assert adds_up(dataset)
    # Born on the bound itself is too old by a moment.
    assert {row["y"].year for row in rows(dataset)} == set(range(2000, 2006))
    with pytest.raises(RecipeError, match="expected dates or times"):
        prepared(people, governance={"retention": {**retention, "column": "age"}})


def test_today_becomes_a_date(people: Path) -> None:
    retention = {"column": "born", "days": 365, "as_of": "today"}
    before = datetime.datetime.now(datetime.UTC).date()
    recipe = recipe_of(people, governance={"retention": retention})
    declared = recipe.to_dict()["governance"]["retention"]["as_of"]
    after = datetime.datetime.now(datetime.UTC).date()
    assert before.isoformat() <= declared <= after.isoformat()


def test_small_groups_are_suppressed_and_measured(people: Path) -> None:
    private = {**HIDDEN, "age": {"type": "generalise", "width": 25}}
    asked = {"columns": ["age", "zip"], "k": 5}
    dataset = prepared(people, private=private, governance={"anonymity": asked})
    assert adds_up(dataset)
    sizes: dict[Any, int] = {}
    for row in rows(dataset):
        group = row["age"], row["zip"]
        sizes[group] = sizes.get(group, 0) + 1
    facts = dataset.manifest["anonymity"]
    assert min(sizes.values()) >= 5 == facts["k"]
    assert facts["after"] == {
        "rows": sum(sizes.values()),
        "groups": len(sizes),
        "smallest_group": min(sizes.values()),
    }
    assert facts["suppressed"] == dataset.counts["filtered"] > 0


def test_a_group_of_one_answer_is_suppressed(tmp_path: Path) -> None:
    table = pa.table(
        {
            "zip": ["a"] * 4 + ["b"] * 4 + [None] * 4,
            "illness": ["flu"] * 4 + ["flu", "cold"] * 2 + ["flu", "cold"] * 2,
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    asked = {"columns": "zip", "k": 2, "sensitive": "illness", "l": 2}
    recipe = load_recipe(
        {"source": "t.parquet", "governance": {"anonymity": asked}},
        base=tmp_path,
        name="t",
    )
    dataset = prepare(recipe, Store(tmp_path / "store"), Events())
    # Missing values make a group as well.
    assert {row["zip"] for row in rows(dataset)} == {"b", None}
    assert dataset.manifest["anonymity"]["before"]["least_diverse"] == 1


def test_an_id_made_of_a_private_key_needs_the_key(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {row["row_id"] for row in rows(prepared(people, key=["person"]))}
    again = {row["row_id"] for row in rows(prepared(people, key=["person"], seed=8))}
    assert one == again
    monkeypatch.setenv("PENSTOCK_KEY", "another key, long enough too")
    other = {row["row_id"] for row in rows(prepared(people, key=["person"]))}
    assert not one & other


def test_another_key_makes_another_dataset_and_none_is_a_sentence(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, store = recipe_of(people), Store(people / "store")
    one = survey(recipe, store).id
    assert survey(recipe, store).id == one
    monkeypatch.setenv("PENSTOCK_KEY", "another key, long enough too")
    assert survey(recipe, store).id != one
    monkeypatch.delenv("PENSTOCK_KEY")
    with pytest.raises(UserError, match="PENSTOCK_KEY is not set"):
        survey(recipe, store)


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ({"inputs": {"email": "category"}}, "inputs.email"),
        ({"split": {"by": "hash", "on": "email"}}, "split.on"),
        ({"keep": ["person"]}, "keep"),
        ({"key": ["email"]}, "key"),
        ({"weight": "born"}, "weight"),
        ({"evaluate": {"slices": ["email"]}}, "evaluate.slices"),
        ({"governance": {"anonymity": {"columns": ["email"]}}}, "governance.anonymity"),
        ({"clean": [{"type": "fill", "columns": "email"}]}, "clean.0"),
        ({"governance": {"anonymity": {"columns": "age", "l": 2}}}, "governance"),
        ({"private": {"email": {"type": "vanish"}}}, "private.email"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused_at_once(
    people: Path, words: dict[str, Any], path: str
) -> None:
    with pytest.raises(RecipeError, match=path.replace(".", r"[.\[]?")):
        recipe_of(people, **words)


def test_a_private_column_that_is_not_there_is_refused(people: Path) -> None:
    with pytest.raises(RecipeError, match="there is no column 'e_mail'"):
        prepared(people, private={"e_mail": "drop"})


def test_recipes_without_it_are_what_they_were(people: Path) -> None:
    plain = load_recipe({"source": "people.csv"}, base=people, name="people")
    assert not {"private", "governance"} & plain.to_dict().keys()
    assert not {"private", "governance"} & plain.data_identity().keys()


def test_mended_rows_keep_the_private_values_of_the_source(people: Path) -> None:
    rule = {"job": {"allowed": ["clerk"]}}
    broken = prepared(people, expect=rule, key=["person"])
    assert broken.counts["quarantined"] == 31
    fixed = people / "fixed.csv"
    written = export(broken, Filter(column="job"), str(fixed))
    text = fixed.read_text("utf-8")
    assert written == 30 and SECRET not in text and "email" not in text.split("\n")[0]
    fixed.write_text(text.replace("smith", "clerk"), "utf-8")
    store = Store(people / "store")
    child = replay(broken, fixed, store, Events(), base=people)
    assert adds_up(child) and child.counts["quarantined"] == 1
    whole = prepared(people, key=["person"])
    of_child = {(row["row_id"], row["person"], row["phone"]) for row in rows(child)}
    assert of_child == {
        (row["row_id"], row["person"], row["phone"]) for row in rows(whole)
    }


@pytest.mark.parametrize(
    ("kind", "consent"),
    [
        (pa.bool_(), Consent(column="c")),
        (pa.string(), Consent(column="c", values=("yes", True, "it's"))),
        (pa.int64(), Consent(column="c", values=(1, 2))),
    ],
)
def test_consent_is_judged_alike_in_a_dataset_and_in_later_rows(
    kind: pa.DataType, consent: Consent
) -> None:
    values = {
        pa.bool_(): [True, False, None],
        pa.string(): ["yes", "Yes", "true", "True", "it's", "", None],
        pa.int64(): [0, 1, 2, -1, None],
    }[kind]
    rows = pa.table({"c": pa.array(values, kind)})
    [condition] = admitted(Governance(consent=consent), {"c": kind})
    _same_rows(rows, condition, lambda table: has_consent(table, consent))


@pytest.mark.parametrize(
    "kind", [pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC")], ids=str
)
def test_retention_is_judged_alike_in_a_dataset_and_in_later_rows(
    kind: pa.DataType,
) -> None:
    as_of = datetime.date(2026, 3, 1)
    retention = Retention(column="c", days=30, as_of=as_of)
    days = [as_of - datetime.timedelta(days=n) for n in (0, 29, 30, 31, 400)]
    rows = pa.table({"c": pa.array([*days, None], pa.date32()).cast(kind)})
    [condition] = admitted(Governance(retention=retention), {"c": kind})
    _same_rows(rows, condition, lambda table: is_retained(table, retention))


def _same_rows(rows: pa.Table, condition: str, stays: Any) -> None:
    import duckdb
    import ibis

    numbered = rows.append_column("n", pa.array(range(len(rows))))
    table = ibis.memtable(numbered)
    in_dataset = table.filter(stays(table))["n"].to_pyarrow().to_pylist()
    with duckdb.connect() as session:
        session.execute("set timezone = 'UTC'")
        later = session.from_arrow(numbered).filter(condition).order("n")
        in_later = [row[0] for row in later.project("n").fetchall()]
    assert 0 < len(in_later) < len(rows) and sorted(in_dataset) == in_later
