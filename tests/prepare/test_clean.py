"""Cleaners: the family's laws over the whole shelf, their order around the split, and what each does."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from penstock.contracts.data import Cleaner
from penstock.core.errors import ContractError
from penstock.pipeline.facts import facts_of
from penstock.prepare.changes import Changes
from penstock.prepare.ledger import Ledger
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


def test_fill_by_what_the_training_split_holds(lake):
    lake.put(
        "rows.parquet",
        pa.table(
            {
                "i": range(6),
                "x": [1.0, 2.0, 9.0, None, float("nan"), 500.0],
                "w": [1, 2, 2, None, 7, 1000],
                "t": ["a", "b", "b", None, "c", "z"],
                "s": ["train"] * 4 + ["test"] * 2,
            }
        ),
    )
    split = {"by": "column", "on": "s"}
    found = {
        by: {
            row["i"]: row
            for row in rows(
                lake.prepare(
                    clean=[{"type": "fill", "columns": columns, "by": by}], split=split
                )
            )
        }
        for by, columns in {
            "mean": ["x", "w"],
            "median": ["x", "w"],
            "mode": ["t", "w"],
        }.items()
    }
    # The test rows' 500 and 1000 teach nothing; whole numbers stay whole.
    assert [found["mean"][i]["x"] for i in (3, 4, 5)] == [4.0, 4.0, 500.0]
    assert found["mean"][3]["w"] == 2 and found["median"][4]["x"] == 2.0
    assert found["mode"][3]["t"] == "b" and found["mode"][3]["w"] == 2


@pytest.mark.parametrize(
    "words",
    [{}, {"values": {"x": 1}, "columns": "y", "by": "mean"}, {"columns": "x"}],
)
def test_fill_takes_one_way(words):
    with pytest.raises(PydanticCustomError, match="give"):
        Cleaner.load({"type": "fill", **words})


def test_forward_fill_looks_at_the_past_of_its_group_alone(lake):
    _, found = cleaned(
        lake,
        {
            "x": [None, 1.0, None, None, 5.0, float("nan"), None],
            "t": [None, "a", None, None, "b", None, None],
            "when": [0, 1, 2, 3, 4, 5, None],
            "who": ["a", "a", "b", "a", "b", "b", "b"],
        },
        {"type": "forward_fill", "columns": ["x", "t"], "time": "when", "by": "who"},
    )
    assert [r["x"] for r in found] == [None, 1.0, None, 1.0, 5.0, 5.0, None]
    assert [r["t"] for r in found] == [None, "a", None, "a", "b", "b", None]


def test_changes_are_counted_by_cleaner_and_column(lake):
    dataset, _ = cleaned(
        lake,
        {"a": [" x", "x", None, "y "], "b": [1.0, None, 3.0, float("nan")]},
        "trim",
        {"type": "replace", "columns": "a", "values": {"x": "z"}},
        {"type": "deduplicate", "columns": "a"},
        {"type": "fill", "columns": "b", "by": "mean"},
    )
    trim, replace, deduplicate, fill = dataset.manifest["changes"]
    assert trim["cells"] == {"a": 2} and replace["cells"] == {"a": 2}
    assert deduplicate["rows_dropped"] == 1 == dataset.counts["duplicates"]
    missing = sum(1 for row in rows(dataset) if row["a"] in (None, "y"))
    assert missing == 2 and fill["cells"]["b"] in (1, 2)
    shown = facts_of(dataset.reference, lake.store)["changes"]
    assert sorted(shown[0]["examples"]["a"]) == [[" x", "x"], ["y ", "y"]]
    assert shown[1]["examples"]["a"] == [["x", "z"]] * 2
    assert " x" not in json.dumps(dataset.manifest["changes"])


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.text("aB \t", max_size=3)),
            st.one_of(st.none(), st.integers(-3, 3)),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_the_counts_are_those_of_the_cells_that_differ(table):
    given = pa.table(
        {
            "row_id": [f"{i:032x}" for i in range(len(table))],
            "t": pa.array([t for t, _ in table], pa.string()),
            "n": pa.array([n for _, n in table], pa.int64()),
        }
    )
    with laws.engine() as session:
        changes = Changes(session, ledger=Ledger(Path("unused"), []))
        before = session.table(given)
        trimmed = changes.mended(0, Cleaner.load({"type": "trim"}), before, {})
        fill = Cleaner.load({"type": "fill", "values": {"n": 0}})
        after = changes.settle(changes.mended(1, fill, trimmed, {}))
        assert after.columns == before.columns
        mended = session.rows(after.order_by("row_id"))
    one, two = changes.to_dict(examples=True)
    differ = {
        name: sum(
            row[name] != was
            for row, was in zip(mended, given[name].to_pylist(), strict=True)
        )
        for name in ("t", "n")
    }
    assert one["cells"] == {k: v for k, v in differ.items() if v and k == "t"}
    assert two["cells"] == {k: v for k, v in differ.items() if v and k == "n"}


@pytest.mark.parametrize("method", ["iterative", "nearest"])
def test_fill_by_model_is_as_near_as_the_reference(lake, method):
    impute = pytest.importorskip("sklearn.impute", reason="needs the extra `train`")
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401

    random = np.random.default_rng(7)
    factor = random.normal(size=(400, 2))
    truth = factor @ random.normal(size=(2, 4)) + 0.1 * random.normal(size=(400, 4))
    gaps = random.random(truth.shape) < 0.15
    holes = np.where(gaps, np.nan, truth)
    names = ["a", "b", "c", "d"]
    _, found = cleaned(
        lake,
        {name: pa.array(holes[:, i], from_pandas=True) for i, name in enumerate(names)},
        {"type": "fill_by_model", "columns": names, "method": method},
    )
    ours = np.array([[row[name] for name in names] for row in found])
    assert (ours[~gaps] == truth[~gaps]).all()
    scaled = (holes - np.nanmean(holes, 0)) / np.nanstd(holes, 0)
    model = (
        impute.IterativeImputer(max_iter=300, random_state=0)
        if method == "iterative"
        else impute.KNNImputer(n_neighbors=5)
    )
    theirs = model.fit_transform(scaled) * np.nanstd(holes, 0) + np.nanmean(holes, 0)
    error, reference = (
        float(np.sqrt(np.mean((each - truth)[gaps] ** 2))) for each in (ours, theirs)
    )
    assert error < np.std(truth) and error < 1.05 * reference


def test_units_become_numbers_of_one(lake):
    _, found = cleaned(
        lake,
        {"w": ["12.0 oz", "16 OZ. can", "1 lb", "7", "2 stone", None, "none", "1.5oz"]},
        {"type": "units", "columns": "w", "units": {"oz": 1, "lb": 16}},
    )
    assert [r["w"] for r in found] == [
        *("12", "16", "16", "7", "2 stone"),
        None,
        *("none", "1.5"),
    ]


def test_dates_are_read_in_the_order_of_the_formats(lake):
    _, found = cleaned(
        lake,
        {"d": ["03/04/2024", "Jan 31, 2024", "31/02/2024", "2024-05-06", "1/2/70", None]},
        {
            "type": "dates",
            "columns": "d",
            "formats": ["%d/%m/%Y", "%b %d, %Y", "%m/%d/%y"],
        },
    )
    assert [r["d"] for r in found] == [
        *("2024-04-03", "2024-01-31", "31/02/2024", "2024-05-06", "1970-01-02"),
        None,
    ]
    with pytest.raises(PydanticCustomError, match="needs a year"):
        Cleaner.load({"type": "dates", "columns": "d", "formats": ["%d/%m"]})


@given(st.text(max_size=12))
def test_repair_text_undoes_a_wrong_decoding_and_repeats_nothing(text):
    repair = Cleaner.load({"type": "repair_text", "columns": "t"})

    def once(value):
        return repair.repair({"t": pa.array([value])}, {})["t"][0].as_py()

    # Doubly encoded text is undone one layer at a time.
    plain = Cleaner.load({"type": "repair_text", "columns": "t", "mojibake": False})
    normal = plain.repair({"t": pa.array([text])}, {})["t"][0].as_py()
    assert plain.repair({"t": pa.array([normal])}, {})["t"][0].as_py() == normal
    if not text.isascii():
        assert once(text.encode().decode("latin-1")) == normal


def test_spelling_merges_the_rare_into_the_common_and_says_so(lake):
    pytest.importorskip("rapidfuzz", reason="needs the extra `clean`")
    towns = [
        *["birmingham"] * 9,
        *["ward 1"] * 9,
        *["cat", "car"] * 9,
        *("birminghxm", "ward 2", "ward 12", "caz", "bxrminghxm"),
    ]
    dataset, found = cleaned(
        lake,
        {"t": [*towns, None]},
        {"type": "spelling", "columns": "t", "distance": 0.34},
    )
    merged = {"birminghxm": "birmingham", "bxrminghxm": "birmingham"}
    assert dataset.facts[0] == {"t": merged}
    assert [r["t"] for r in found] == [*(merged.get(t, t) for t in towns), None]
    changes = facts_of(dataset.reference, lake.store)["changes"][0]
    assert changes["cells"] == {"t": 2} and changes["notes"] == {"merged": {"t": merged}}


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (
            "<p>One&nbsp;&amp; two</p>\n<script>if (a<b) x()</script><p>three<br>four",
            "One & two\nthree\nfour",
        ),
        ("a < b and b > c", "a < b and b > c"),
        ("x <!-- <p>hidden</p> --> y<td>z", "x y z"),
        ("open <STYLE>p {}", "open"),
        ("cut <a href='", "cut"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_html_leaves_what_a_reader_sees(text, plain):
    html = Cleaner.load({"type": "html", "columns": "t"})
    assert html.repair({"t": pa.array([text])}, {})["t"].to_pylist() == [plain]


def test_sample_draws_so_many_of_each_group(lake):
    columns = {"g": ["a", "b", None, "b"] * 25, "x": list(range(100))}
    some, found = cleaned(lake, columns, {"type": "sample", "rows": 7, "by": "g"})
    assert Counter(row["g"] for row in found) == {"a": 7, "b": 7, None: 7}
    assert some.counts["filtered"] == 79
    assert some.manifest["changes"][0]["rows_dropped"] == 79
    half, found = cleaned(lake, columns, {"type": "sample", "share": 0.5})
    _, again = cleaned(lake, columns, {"type": "sample", "share": 0.5, "seed": 1})
    assert 30 < half.counts["train"] < 70 and found != again


def test_clip_outliers_by_the_median_deviation(lake):
    _, found = cleaned(
        lake,
        {"x": [1.0, 2.0, 3.0, 4.0, 5.0, 1000.0, None]},
        {"type": "clip_outliers", "columns": "x", "mad": 3},
    )
    # The median is 3.5, the median deviation 1.5.
    limit = 3.5 + 3 * 1.4826 * 1.5
    assert [r["x"] for r in found] == [
        1.0,
        2.0,
        3.0,
        4.0,
        5.0,
        pytest.approx(limit),
        None,
    ]
    with pytest.raises(ContractError, match="median deviation"):
        cleaned(
            lake,
            {"x": [1.0] * 5 + [9.0]},
            {"type": "clip_outliers", "columns": "x", "mad": 3},
        )
