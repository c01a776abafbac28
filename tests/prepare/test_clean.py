"""Cleaners: the family's laws over the whole shelf, their order around the split, and what each does."""

from __future__ import annotations

import pyarrow as pa
import pytest

from penstock.contracts.data import Cleaner
from penstock.core.errors import ContractError
from penstock.testing.laws import cleaners as laws
from tests.data.lake import Lake, adds_up, rows

SPECIMENS = [
    Cleaner.load({"type": type, **words})
    for type in Cleaner.types()
    for words in Cleaner.find(type).specimens
]
ALL = {"train": 1, "validation": 0, "test": 0}


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize(
    "cleaner", SPECIMENS, ids=lambda c: f"{c.type}-{SPECIMENS.index(c)}"
)
def test_laws(cleaner, law):
    law(cleaner, laws.TABLE)


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path)


def cleaned(lake, columns, *cleaners, **words):
    lake.put(
        "rows.parquet",
        pa.table({**columns, "i": range(len(next(iter(columns.values()))))}),
    )
    dataset = lake.prepare(clean=list(cleaners), split=ALL, **words)
    assert adds_up(dataset)
    return dataset, sorted(rows(dataset), key=lambda r: r["i"])


def test_trim(lake):
    _, found = cleaned(
        lake,
        {"t": ["  a  B\t", None, "\u00a0x\u00a0", ""], "u": [" k ", "", "z", None]},
        {"type": "trim", "columns": "t", "collapse": True, "case": "lower"},
    )
    assert [r["t"] for r in found] == ["a b", None, "x", ""] and [
        r["u"] for r in found
    ] == [
        " k ",
        "",
        "z",
        None,
    ]


def test_replace(lake):
    _, found = cleaned(
        lake,
        {
            "t": ["?", "<=50K.", "b", None],
            "n": [-1.0, 2.0, None, 3.0],
            "w": [9, 8, 7, None],
            "f": [True, False, None, True],
        },
        {"type": "replace", "columns": "t", "values": {"?": None, "<=50K.": "<=50K"}},
        {"type": "replace", "columns": ["n", "w"], "values": {"-1": None, "9": 90}},
        {"type": "replace", "columns": "f", "values": {"true": False}},
    )
    assert [r["t"] for r in found] == [None, "<=50K", "b", None] and [
        r["n"] for r in found
    ] == [
        None,
        2.0,
        None,
        3.0,
    ]
    assert [r["w"] for r in found] == [90, 8, 7, None] and [r["f"] for r in found] == [
        False,
        False,
        None,
        False,
    ]


def test_replace_that_does_not_fit_is_a_sentence(lake):
    with pytest.raises(ContractError, match="'w' holds int64, which 'x' is not"):
        cleaned(lake, {"w": [1]}, {"type": "replace", "columns": "w", "values": {"x": 1}})


def test_fill(lake):
    _, found = cleaned(
        lake,
        {"n": [1.0, float("nan"), None], "t": ["a", None, ""]},
        {"type": "fill", "values": {"n": 0, "t": "none"}},
    )
    assert [r["n"] for r in found] == [1.0, 0.0, 0.0] and [r["t"] for r in found] == [
        "a",
        "none",
        "",
    ]
    with pytest.raises(ContractError, match="'n' holds float64"):
        cleaned(lake, {"n": [1.0]}, {"type": "fill", "values": {"n": "none"}})


def test_filter_sees_what_was_mended_and_derived(lake):
    dataset, found = cleaned(
        lake,
        {"t": [" a", "b", None]},
        "trim",
        {"type": "filter", "keep": "t = 'a' OR d = 2"},
        derive={"d": "i"},
    )
    assert [r["i"] for r in found] == [0, 2] and dataset.counts["filtered"] == 1


def test_deduplicate_counts_and_keeps_the_smallest_row_id(lake):
    lake.put(
        "rows.parquet",
        pa.table({"a": [1, 1, None, None, 2, 1], "t": ["x", "x", "", "", None, "x;"]}),
    )
    dataset = lake.prepare(clean=["deduplicate"], split=ALL)
    assert dataset.counts["duplicates"] == 2 and adds_up(dataset)
    plain = lake.prepare(split=ALL)
    groups = {}
    for row in rows(plain):
        groups.setdefault((row["a"], row["t"]), []).append(row["row_id"])
    assert {r["row_id"] for r in rows(dataset)} == {min(ids) for ids in groups.values()}


def test_null_and_a_text_that_looks_like_it_are_no_duplicates(lake):
    dataset, _ = cleaned(
        lake,
        {"t": ["~", None, "1:", "", "0:"], "u": [None, "~", "", "1:", ""]},
        {"type": "deduplicate", "columns": ["t", "u"]},
    )
    assert dataset.counts["duplicates"] == 0


def test_clip_outliers_learns_from_the_training_split_alone(lake):
    lake.put(
        "rows.parquet",
        pa.table(
            {
                "x": [float(i) for i in range(100)] + [1e6, -1e6],
                "s": ["train"] * 100 + ["test"] * 2,
                "w": list(range(102)),
            }
        ),
    )
    dataset = lake.prepare(
        clean=[{"type": "clip_outliers", "columns": ["x", "w"], "quantiles": [0.1, 0.9]}],
        split={"by": "column", "on": "s", "validation": 0},
    )
    limits = dataset.facts[0]["x"]
    assert limits == pytest.approx({"low": 9.9, "high": 89.1}) and dataset.facts == {
        0: {"x": limits, "w": limits}
    }
    assert sorted(r["x"] for r in dataset.table("test").to_pylist()) == [
        limits["low"],
        limits["high"],
    ]
    whole = [r["w"] for r in dataset.table("train").to_pylist()]
    assert (min(whole), max(whole)) == (9, 90)


def test_clip_outliers_says_when_it_cannot(lake):
    with pytest.raises(ContractError, match="interquartile range is 0"):
        cleaned(lake, {"x": [0.0] * 9 + [5.0]}, {"type": "clip_outliers", "columns": "x"})
    with pytest.raises(ContractError, match="expected numbers"):
        cleaned(lake, {"x": ["a"]}, {"type": "clip_outliers", "columns": "x"})
    with pytest.raises(ContractError, match="no number"):
        cleaned(
            lake,
            {"x": pa.array([None], pa.float64())},
            {"type": "clip_outliers", "columns": "x"},
        )


def test_what_learns_runs_after_what_does_not_and_says_so(lake):
    dataset, found = cleaned(
        lake,
        {"x": [1.0, 2.0, None, 100.0]},
        {"type": "clip_outliers", "columns": "x", "quantiles": [0, 0.5]},
        {"type": "fill", "values": {"x": 3.0}},
    )
    assert "clean runs fill → clip_outliers" in lake.said()
    assert [r["x"] for r in found] == [1.0, 2.0, 2.5, 2.5] and dataset.facts == {
        0: {"x": {"low": 1.0, "high": 2.5}}
    }


def test_dropped_rows_are_counted_cleaner_by_cleaner(lake):
    dataset, _ = cleaned(
        lake,
        {"a": [1, 1, 2, 3, 3, 4]},
        {"type": "deduplicate", "columns": "a"},
        {"type": "filter", "keep": "a <> 2"},
        {"type": "fill", "values": {"a": 0}},
        {"type": "filter", "keep": "a < 4"},
    )
    assert (
        dataset.counts["duplicates"],
        dataset.counts["filtered"],
        dataset.counts["train"],
    ) == (2, 2, 2)
