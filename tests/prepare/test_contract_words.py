"""The later words of `expect` and `expect_table`: rows are judged alike on every engine, and add up."""

from __future__ import annotations

import datetime
import json

import pyarrow as pa
import pytest

from penstock.cli import main
from penstock.core.errors import ContractError, RecipeError
from penstock.core.events import Events
from penstock.prepare.contract_only import judge_contract
from penstock.prepare.set_rules import _divergence
from penstock.recipe.schema import load_recipe
from tests.data.lake import Lake, adds_up, quarantine, rows

ALL = {"train": 1, "validation": 0, "test": 0}


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path)


def kept(lake, values, promise, **words):
    """The values that keep the promise, and the reasons of the others."""
    table = pa.table({"v": values, "i": range(len(values))})
    lake.put("rows.parquet", table)
    dataset = lake.prepare(expect={"v": promise}, split=ALL, **words)
    assert adds_up(dataset)
    left = sorted(rows(dataset), key=lambda r: r["i"])
    aside = sorted(quarantine(dataset), key=lambda r: r["line"])
    return [r["v"] for r in left], [r["reason"] for r in aside]


@pytest.mark.parametrize(
    ("values", "promise", "good", "reasons"),
    [
        (
            ["a", "abc", "äöüß", None],
            {"min_length": 2, "max_length": 3},
            ["abc", None],
            [
                "found 'a', expected at least 2 characters",
                "found 'äöüß', expected at most 3 characters",
            ],
        ),
        (
            [[1], [1, 2], None],
            {"max_length": 1},
            [[1], None],
            ["found [1, 2], expected at most 1 element"],
        ),
        (
            [1, 5, 2, None, 4, 6],
            {"monotonic": {"order": "increasing"}},
            [1, 5, None, 6],
            [
                "found 2, expected at least what stands before it",
                "found 4, expected at least what stands before it",
            ],
        ),
        (
            ["9", "10", "8", "8"],
            {"monotonic": {"order": "decreasing"}, "type": "integer"},
            ["9", "8", "8"],
            ["found '10', expected at most what stands before it"],
        ),
    ],
)
def test_a_row_that_breaks_a_word_is_put_aside(lake, values, promise, good, reasons):
    assert kept(lake, values, promise) == (good, reasons)


def test_series_are_ordered_each_by_itself(lake):
    lake.put("rows.parquet", pa.table({"v": [1, 9, 2, 8, 1, 9], "g": ["a", "b"] * 3}))
    dataset = lake.prepare(
        expect={"v": {"monotonic": {"order": "increasing", "by": "g"}}}, split=ALL
    )
    assert [row["line"] for row in quarantine(dataset)] == [4, 5]
    assert adds_up(dataset)


def test_a_value_refers_to_another_source(lake):
    lake.put("shops.csv", "shop,town\n007,Bern\n1.50,Basel\n")
    assert kept(
        lake,
        ["007", "1.50", "7", None],
        {"refers_to": {"source": "shops.csv", "column": "shop"}},
    ) == (
        ["007", "1.50", None],
        ["found '7', expected a value of 'shop' in the other source"],
    )


def test_what_a_rule_compares_with_is_in_the_id(lake):
    lake.put("rows.parquet", pa.table({"v": [1, 2]}))
    promise = {"v": {"refers_to": {"source": "known.csv"}}}
    lake.put("known.csv", "v\n1\n2\n")
    first = lake.prepare(expect=promise, split=ALL)
    assert lake.prepare(expect=promise, split=ALL).id == first.id
    lake.put("known.csv", "v\n1\n3\n")
    second = lake.prepare(expect=promise, split=ALL)
    assert second.id != first.id
    assert second.counts["quarantined"] == 1


def test_a_recipe_names_a_column_that_the_other_source_lacks(lake):
    lake.put("rows.parquet", pa.table({"v": [1, 2]}))
    lake.put("known.csv", "w\n1\n")
    with pytest.raises(RecipeError, match="the other source has no column 'v'"):
        lake.prepare(expect={"v": {"refers_to": {"source": "known.csv"}}}, split=ALL)


def test_a_dropped_row_is_counted_as_filtered_and_one_put_aside_as_well_is_kept(lake):
    lake.put("rows.parquet", pa.table({"v": [1, -1, -5, 200], "w": ["a", "b", "", ""]}))
    dataset = lake.prepare(
        expect={
            "v": {
                "min": 0,
                "on_violation": "drop",
                "also": [{"max": 100, "on_violation": "warn"}],
            },
            "w": {"min_length": 1},
        },
        split=ALL,
    )
    assert adds_up(dataset)
    counts = dataset.counts
    assert (counts["filtered"], counts["quarantined"], counts["train"]) == (1, 2, 1)
    both = next(row for row in quarantine(dataset) if row["line"] == 3)
    assert [(r["column"], r["rule"]) for r in both["rules"]] == [
        ("v", "min: 0"),
        ("w", "min_length: 1"),
    ]
    assert "v: 1 rows break `max: 100`" in lake.said("warned")


def test_every_rule_is_in_the_manifest_with_its_rows(lake):
    lake.put("rows.parquet", pa.table({"v": [1, -1, None]}))
    contract = lake.prepare(
        expect={"v": {"min": 0, "not_null": True}}, split=ALL
    ).manifest["contract"]
    assert [(r["rule"], r["rows"]) for r in contract["rules"]] == [
        ("not_null", 1),
        ("min: 0", 1),
    ]


@pytest.mark.parametrize(("bad", "passes"), [(2, True), (3, False)])
def test_a_budget_stops_the_run_when_more_rows_go_away(lake, bad, passes):
    lake.put("rows.parquet", pa.table({"v": [-1] * bad + [1] * (100 - bad)}))
    promise = {"v": {"min": 0, "budget": 0.02}}
    if passes:
        assert lake.prepare(expect=promise, split=ALL).counts["quarantined"] == bad
        return
    with pytest.raises(ContractError) as told:
        lake.prepare(expect=promise, split=ALL)
    assert told.value.exit_code == 3
    assert "send 3 of 100 rows away (3.00%); the `budget` is 2.00%" in str(told.value)
    assert "rows.parquet, row 1: found -1, expected at least 0" in str(told.value)


def test_rules_on_several_columns(lake):
    lake.put(
        "rows.parquet",
        pa.table({"a": [1, 2, 2, 3, None], "b": [1, 1, 1, 2, 1], "c": [1, 2, 3, 4, 5]}),
    )
    dataset = lake.prepare(
        expect_table={
            "rows": {"min": 3, "max": 5},
            "rules": {
                "a_is_less": "a < 3",
                "once": {"unique": ["a", "b"], "on_violation": "drop"},
            },
        },
        split=ALL,
    )
    assert adds_up(dataset)
    assert dataset.counts["filtered"] == 1
    aside = quarantine(dataset)
    assert [(r["column"], r["reason"]) for r in aside] == [
        ("a_is_less", "expected a < 3")
    ]


@pytest.mark.parametrize(
    ("promise", "part"),
    [
        ({"fresh": {"max_age": "1 day", "at": "2024-01-03"}}, "the newest is 2024-01-01"),
        ({"share": {"2024-01-01": [0, 1]}}, "cannot be judged on a column"),
    ],
)
def test_rules_on_all_rows_of_times(lake, promise, part):
    lake.put("rows.parquet", pa.table({"v": [datetime.datetime(2024, 1, 1)] * 4}))
    with pytest.raises((ContractError, RecipeError), match=part):
        lake.prepare(expect={"v": promise}, split=ALL)


def test_fresh_is_said_against_a_moment_that_is_recorded(lake):
    lake.put("rows.parquet", pa.table({"v": [datetime.datetime(2024, 1, 1)] * 4}))
    promise = {"fresh": {"max_age": "2 days", "at": "2024-01-02T12:00+02:00"}}
    (rule,) = lake.prepare(expect={"v": promise}, split=ALL).manifest["contract"]["rules"]
    assert not rule["broken"]
    late = {"fresh": {"max_age": "2 days"}, "on_violation": "warn"}
    contract = lake.prepare(expect={"v": late}, split=ALL).manifest["contract"]
    assert contract["rules"][0]["broken"]
    assert contract["at"][:19].replace("T", " ") in contract["rules"][0]["found"]


def test_share_and_rows_fail_or_warn(lake):
    lake.put("rows.parquet", pa.table({"v": ["yes"] * 3 + ["no"] * 7}))
    ok = lake.prepare(expect={"v": {"share": {"yes": [0.2, 0.4]}}}, split=ALL)
    assert ok.counts["train"] == 10
    with pytest.raises(ContractError) as told:
        lake.prepare(
            expect={"v": {"share": {"yes": [0.4, 0.5]}}},
            expect_table={"rows": {"min": 11}},
            split=ALL,
        )
    assert "3 of 10 values are 'yes' (30.00%), expected 40.00% to 50.00%" in str(
        told.value
    )
    assert "found 10 rows, expected at least 11" in str(told.value)


def test_drift_is_measured_against_files_and_datasets(lake):
    lake.put("old.parquet", pa.table({"v": [float(i) for i in range(1_000)]}))
    lake.put("rows.parquet", pa.table({"v": [float(i) for i in range(1_000)]}))
    same = {"drift": {"against": "old.parquet", "limit": 0.01}}
    first = lake.prepare(expect={"v": same}, split=ALL)
    lake.put("rows.parquet", pa.table({"v": [float(i) + 500 for i in range(1_000)]}))
    told = {}
    for measure in ("psi", "ks", "js"):
        drift = {"dataset": first.reference, "measure": measure, "limit": 0.01}
        dataset = lake.prepare(
            expect={"v": {"drift": drift, "on_violation": "warn"}}, split=ALL
        )
        told[measure] = dataset.manifest["contract"]["rules"][0]
    assert all(rule["broken"] for rule in told.values())
    # Five tenths of the reference are empty here, and the last holds six.
    cells = [(0, 0.1)] * 5 + [(0.1, 0.1)] * 4 + [(0.6, 0.1)]
    assert "it is 0.5," in told["ks"]["found"]
    for measure in ("psi", "js"):
        assert f"it is {_divergence(cells, measure):.4g}," in told[measure]["found"]


def test_psi_of_categories_is_that_of_the_text_book():
    cells = [(0.2, 0.1), (0.3, 0.4), (0.5, 0.5)]
    assert _divergence(cells, "psi") == pytest.approx(
        0.1 * 0.693147 + 0.1 * 0.287682, 1e-4
    )
    assert _divergence([(1, 0), (0, 1)], "js") == pytest.approx(1)


def test_a_rule_on_all_rows_cannot_send_one_away():
    source = {"type": "files", "path": "rows.csv"}
    with pytest.raises(RecipeError) as told:
        load_recipe(
            {
                "source": source,
                "expect": {
                    "v": {"share": {"a": [0, 1]}, "on_violation": "quarantine"},
                    "w": {"fresh": {"max_age": "1d"}, "min": "2024-01-01"},
                    "x": {"min": 1, "on_violation": "warn", "budget": 0.1},
                },
                "expect_table": {"rows": {"min": 1, "on_violation": "drop"}},
            }
        )
    places = [".".join(map(str, problem.path)) for problem in told.value.problems]
    assert places == [
        "expect.v.on_violation",
        "expect.w.on_violation",
        "expect.x.budget",
        "expect_table.rows.on_violation",
    ]


def test_a_contract_survives_being_written():
    recipe = load_recipe(
        {
            "source": {"type": "files", "path": "rows.csv"},
            "expect": {"v": {"min": 1, "also": [{"share": {"true": [0, 1]}}]}},
            "expect_table": {"rules": {"a": "v > 1"}},
        }
    )
    again = load_recipe(json.loads(json.dumps(recipe.to_dict())))
    assert again.to_dict() == recipe.to_dict()
    assert again.expect["v"].also[0].on_violation == "fail"


def test_a_contract_without_later_words_is_declared_as_before():
    recipe = load_recipe(
        {"source": {"type": "files", "path": "rows.csv"}, "expect": {"v": {"min": 1}}}
    )
    assert list(recipe.to_dict()["expect"]["v"]) == [
        "type",
        "min",
        "max",
        "allowed",
        "pattern",
        "not_null",
        "unique",
        "max_missing",
        "on_violation",
    ]
    assert not {"expect_table", "repairs"} & recipe.to_dict().keys()


def test_the_contract_alone_counts_every_rule_and_writes_nothing(lake):
    lake.put("rows.parquet", pa.table({"v": [1, -1, None, 3], "w": ["a", "a", "b", "c"]}))
    recipe = lake.recipe(
        expect={
            "v": {"min": 0, "budget": 0.1},
            "w": {"share": {"a": [0, 0.4]}, "also": [{"unique": True}]},
        }
    )
    report = judge_contract(recipe, lake.store, Events())
    assert not report.holds and report.rows == 4
    rules = {(r["column"], r["rule"]): r for r in report.rules}
    low = rules["v", "min: 0"]
    assert (low["rows"], low["within"]) == (1, False)
    assert low["examples"] == ["rows.parquet, row 2: found -1, expected at least 0"]
    assert (rules["w", "unique"]["rows"], rules["w", "unique"]["within"]) == (1, True)
    assert rules["w", "share: a"]["within"] is False
    assert not lake.store.names("datasets/lake")


def test_check_data_prints_the_contract_and_ends_with_3_where_it_does_not_hold(
    lake, capsys, monkeypatch
):
    lake.put("rows.csv", "v\n1\n-1\n")
    monkeypatch.chdir(lake.folder)
    recipe = {"source": "rows.csv", "expect": {"v": {"min": 0}}}
    (lake.folder / "r.json").write_text(json.dumps(recipe))
    assert main(["check", "r.json", "--data"]) == 0
    assert "rows.csv, row 2: found -1, expected at least 0" in capsys.readouterr().out
    fails = ["--set", "expect.v.on_violation=fail"]
    assert main(["check", "r.json", "--data", "--json", *fails]) == 3
    assert json.loads(capsys.readouterr().out)["rules"][0]["rows"] == 1
