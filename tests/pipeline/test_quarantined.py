"""The quarantine is shown, counted, exported, and its mended rows come out as a new version."""

from __future__ import annotations

import csv
import json

import pyarrow.csv
import pytest

from penstock.cli import main
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.pipeline.quarantined import Filter, export, quarantined, replay, statistics
from tests.data.lake import Lake, adds_up, quarantine, rows

SOURCE = "name,age,town\nAnna,30,Bern\nBert,-4,\nCleo,31\nDora,200,Basel\nEmil,28,Chur\n"
EXPECT = {"age": {"min": 0, "max": 120}, "town": {"not_null": True}}


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path)


@pytest.fixture
def dataset(lake):
    lake.put("in/people.csv", SOURCE)
    return lake.prepare(source={"type": "files", "path": "in/people.csv"}, expect=EXPECT)


def mended(lake, dataset, changes):
    """A file of repairs: what was exported, with some values changed, by line."""
    path = lake.folder / "fixed.csv"
    export(dataset, Filter(), str(path))
    # As text, so that nothing is read otherwise than a person would write it.
    table = pyarrow.csv.read_csv(path).to_pylist()
    for row in table:
        row |= changes.get(row["quarantine_line"], {})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    return path


def test_rows_are_found_by_reason_and_column(dataset):
    assert [row["line"] for row in quarantined(dataset, Filter("at least"))] == [2]
    assert [row["line"] for row in quarantined(dataset, Filter(column="town"))] == [2]
    assert [row["line"] for row in quarantined(dataset, Filter("MAX:"))] == [3]


def test_rows_are_counted_for_every_rule(dataset):
    facts = statistics(dataset)
    assert facts["rows"] == dataset.counts["quarantined"] == 3
    counts = {(r["stage"], r["column"], r["rule"]): r["rows"] for r in facts["rules"]}
    assert counts["expect", "age", "min: 0"] == 1
    assert counts["expect", "town", "not_null"] == 1
    assert counts["expect", "age", "max: 120"] == 1
    assert sum(count for (stage, *_), count in counts.items() if stage == "read") == 1
    assert facts["files"] == [
        {"file": dataset.manifest["lineage"]["source"][0]["path"], "rows": 3}
    ]


def test_mended_rows_come_out_as_a_child_whose_rows_add_up(lake, dataset):
    unread = next(row for row in quarantine(dataset) if row["stage"] == "read")
    fixed = mended(
        lake,
        dataset,
        {
            2: {"age": 4, "town": "Thun"},
            unread["line"]: {"name": "Cleo", "age": 31, "town": "Olten"},
        },
    )
    broken = {row["line"]: row["row_id"] for row in quarantine(dataset)}
    child = replay(dataset, fixed, lake.store, Events(), base=lake.folder)
    assert child.id != dataset.id
    assert child.manifest["lineage"]["parent"] == dataset.reference
    assert adds_up(child) and child.counts["in"] == dataset.counts["in"] == 5
    by_name = {row["name"]: row for row in rows(child)}
    assert by_name.keys() == {"Anna", "Bert", "Cleo", "Emil"}
    assert (by_name["Bert"]["age"], by_name["Bert"]["town"]) == (4, "Thun")
    assert by_name["Bert"]["row_id"] == broken[2]
    # What was not mended is in the child's quarantine, and other rows are as they were.
    assert [row["reason"] for row in quarantine(child)] == [
        "found 200, expected at most 120"
    ]
    before = {row["row_id"]: row["split"] for row in rows(dataset)}
    after = {row["row_id"]: row["split"] for row in rows(child)}
    assert before.items() <= after.items()
    again = replay(dataset, fixed, lake.store, Events(), base=lake.folder)
    assert again.id == child.id


def test_repairs_that_mend_no_row_are_refused(lake, dataset):
    fixed = mended(lake, dataset, {2: {"quarantine_line": 77}})
    with pytest.raises(SourceError, match="name a line that its file does not have"):
        replay(dataset, fixed, lake.store, Events(), base=lake.folder)
    (lake.folder / "bare.csv").write_text("name,age,town\nBert,4,Thun\n")
    with pytest.raises(SourceError, match="no column 'quarantine_file'"):
        replay(dataset, lake.folder / "bare.csv", lake.store, Events(), base=lake.folder)


def test_the_commands(lake, dataset, capsys, monkeypatch):
    monkeypatch.chdir(lake.folder)
    store = ["--store", "store"]
    assert main(["quarantine", "show", "lake", "--reason", "at least", *store]) == 0
    assert "age min: 0, town not_null" in " ".join(capsys.readouterr().out.split())
    assert main(["quarantine", "stats", "lake", "--json", *store]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 3
    assert main(["quarantine", "show", "lake", "-o", "bad.csv", *store]) == 0
    assert (
        main(["quarantine", "replay", dataset.reference, "bad.csv", "--json", *store])
        == 0
    )
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["parent"] == dataset.reference
    assert facts["rows"]["quarantined"] == 3


def test_a_sample_drawn_by_another_seed_than_the_split_is_drawn_again(lake):
    lines = [f"p{i},{-1 if i == 7 else i},Bern" for i in range(60)]
    lake.put("in/people.csv", "name,age,town\n" + "\n".join(lines) + "\n")
    words = {
        "source": {"type": "files", "path": "in/people.csv"},
        "expect": {"age": {"min": 0}},
        "sample": 50,
        "split": {"seed": 1},
    }
    drawn = {}
    for seed in (2, 3):
        dataset = lake.prepare(seed=seed, **words)
        drawn[seed] = {row["name"] for row in rows(dataset)}
        broken = {row["line"] for row in quarantine(dataset)}
        if not broken:
            continue
        fixed = mended(lake, dataset, {line: {"age": 7} for line in broken})
        child = replay(dataset, fixed, lake.store, Events(), base=lake.folder)
        assert {row["name"] for row in rows(child)} == drawn[seed] | {"p7"}
    # One split seed, and two samples: two datasets.
    assert drawn[2] != drawn[3] and broken
