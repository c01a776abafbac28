"""Splits: shares, sides that stay, groups that stay together, time, files."""

from __future__ import annotations

import hashlib
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.data import ROW_FILE, ROW_ID, ROW_NUMBER, Engine
from penstock.contracts.judge import REASON, SPLIT
from penstock.core.errors import RecipeError
from penstock.prepare.split import assign
from penstock.recipe.schema import Split
from tests.data.lake import Lake, adds_up, quarantine, rows


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    with Engine.load("embedded").open(
        tmp_path_factory.mktemp("scratch"), memory_bytes=2**29, threads=2
    ) as session:
        yield session


def placed(session, columns, *, seed=0, files=(None,), **split):
    count = len(next(iter(columns.values())))
    whole = {
        ROW_ID: [hashlib.md5(str(i).encode()).hexdigest() for i in range(count)],
        ROW_FILE: [0] * count,
        "__row": list(range(count)),
        **columns,
    }
    table = session.table(pa.table(whole))
    return session.rows(
        assign(
            table, Split(**split), seed=seed, files=list(files), session=session
        ).order_by("__row")
    )


def test_hash_is_md5_compared_as_text(session):
    found = placed(session, {"a": list(range(500))}, seed=3)
    for row in found:
        share = (
            int(hashlib.md5(f"split:3:{row[ROW_ID]}".encode()).hexdigest()[:16], 16)
            / 2**64
        )
        assert row[SPLIT] == (
            "train" if share < 0.8 else "validation" if share < 0.9 else "test"
        )


def test_shares_are_met_in_expectation(session):
    counts = Counter(
        r[SPLIT]
        for r in placed(
            session, {"a": list(range(20_000))}, train=0.5, validation=0.3, test=0.2
        )
    )
    assert counts["train"] / 20_000 == pytest.approx(0.5, abs=0.015) and counts[
        "validation"
    ] / 20_000 == pytest.approx(0.3, abs=0.015)


def test_all_to_train(session):
    assert {
        r[SPLIT]
        for r in placed(session, {"a": list(range(300))}, train=1, validation=0, test=0)
    } == {"train"}


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "d|", None]), min_size=2, max_size=60),
    st.integers(0, 5),
)
def test_a_group_stays_together_and_keeps_its_side_when_data_grows(session, groups, seed):
    less = placed(
        session,
        {"g": pa.array(groups[: len(groups) // 2 + 1], pa.string())},
        seed=seed,
        on="g",
    )
    more = placed(session, {"g": pa.array(groups, pa.string())}, seed=seed, on="g")
    assert all(
        len({r[SPLIT] for r in more if r["g"] == g}) == 1
        for g in {g for g in groups if g is not None}
    )
    assert [r[SPLIT] for r in less] == [r[SPLIT] for r in more[: len(less)]]


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=80),
    st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.7, 0.0, 0.3)]),
)
def test_stratified_shares_are_exact_to_a_row_a_value(session, values, shares):
    train, validation, test = shares
    found = placed(
        session,
        {"v": pa.array(values, pa.string())},
        stratify="v",
        train=train,
        validation=validation,
        test=test,
    )
    for value in set(values):
        counts = Counter(r[SPLIT] for r in found if r["v"] == value)
        total = sum(counts.values())
        assert (
            abs(counts["train"] - train * total) <= 0.5 + 1e-9
            and abs(counts["validation"] - validation * total) <= 1
            and abs(counts["test"] - test * total) <= 1
        )


@settings(deadline=None, max_examples=15)
@given(st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=1, max_size=60))
def test_time_goes_forward_and_moments_stay_together(session, times):
    found = placed(
        session,
        {
            "t": pa.array(
                [None if t is None else t * 10**12 for t in times], pa.timestamp("us")
            )
        },
        by="time",
        on="t",
        train=0.6,
        validation=0.2,
        test=0.2,
    )
    by = {
        name: [r["t"] for r in found if r[SPLIT] == name]
        for name in ("train", "validation", "test")
    }
    assert all(
        not a or not b or max(a) < min(b)
        for a, b in (
            (by["train"], by["validation"]),
            (by["validation"], by["test"]),
            (by["train"], by["test"]),
        )
    )
    assert all(
        (r[SPLIT] is None) == (r["t"] is None) == (r[REASON] is not None) for r in found
    )
    known = [t for t in times if t is not None]
    largest = max(Counter(known).values(), default=0)
    assert 0 <= len(by["train"]) - round(0.6 * len(known)) < max(largest, 1)


def test_time_by_numbers_and_nan(session):
    found = placed(
        session,
        {"t": [1.0, 2.0, 3.0, 4.0, float("nan")]},
        by="time",
        on="t",
        train=0.5,
        validation=0.25,
        test=0.25,
    )
    assert [r[SPLIT] for r in found] == ["train", "train", "validation", "test", None]


def test_a_column_says_and_what_it_does_not_say_is_put_aside(tmp_path):
    lake = Lake(tmp_path)
    lake.put(
        "rows.parquet",
        [
            {"s": s, "i": i}
            for i, s in enumerate(["train", "validation", "test", "Train", None, "train"])
        ],
    )
    dataset = lake.prepare(split={"by": "column", "on": "s"})
    assert {(r["s"], r["split"]) for r in rows(dataset)} == {
        ("train", "train"),
        ("validation", "validation"),
        ("test", "test"),
    }
    assert sorted(r["reason"] for r in quarantine(dataset)) == [
        "found 'Train', expected train, validation or test",
        "is missing, so the row has no split",
    ]
    assert adds_up(dataset) and {r["stage"] for r in quarantine(dataset)} == {"split"}


# -- by files ------------------------------------------------------------------------------------------------


@pytest.fixture
def given_files(tmp_path):
    lake = Lake(tmp_path)
    lake.put(
        "train.csv", "a,b\n" + "".join(f"{i},x\n" for i in range(100)) + "1,x\n1,x\n"
    )
    lake.put("test.csv", "a,b\n1,x\n1,x\n500,y\n")
    return lake


SOURCE = {"type": "files", "train": "train.csv", "test": "test.csv"}


def test_files_say_and_validation_is_carved_out_of_train(given_files):
    dataset = given_files.prepare(
        source=SOURCE, split={"by": "files", "validation": 0.2, "test": 0}
    )
    assert (
        dataset.counts["test"] == 3
        and dataset.counts["train"] + dataset.counts["validation"] == 102
        and 5 < dataset.counts["validation"] < 40
    )


def test_a_given_test_split_is_never_deduplicated_and_its_overlap_is_told(given_files):
    dataset = given_files.prepare(
        source=SOURCE,
        split={"by": "files", "validation": 0, "test": 0, "train": 1},
        clean=["deduplicate"],
    )
    assert dataset.counts == {
        "in": 105,
        "train": 100,
        "validation": 0,
        "test": 3,
        "quarantined": 0,
        "duplicates": 2,
        "filtered": 0,
    }
    assert dataset.manifest["overlap"]["test"] == 2
    assert "2 of 3 rows of the given test split are also in train" in given_files.said()


def test_a_given_validation_file_is_taken(given_files):
    given_files.put("validation.csv", "a,b\n7,q\n")
    dataset = given_files.prepare(
        source={**SOURCE, "validation": "validation.csv"}, split={"by": "files"}
    )
    assert [r["a"] for r in dataset.table("validation").to_pylist()] == [
        7
    ] and dataset.counts["train"] == 102


def test_files_that_name_splits_want_by_files(given_files):
    with pytest.raises(
        RecipeError,
        match=r"split\.by: is `hash`, but the source gives files for each split",
    ):
        given_files.prepare(source=SOURCE)


def test_an_empty_share_is_warned_of(tmp_path):
    lake = Lake(tmp_path)
    lake.put("rows.parquet", [{"i": i} for i in range(3)])
    lake.prepare(split={"stratify": "i"})
    assert "The split validation is empty" in lake.said("warned")


def test_texts_are_put_in_the_order_of_time_not_of_letters(session):
    # "2024-01-9" comes after "2024-01-31" by its letters
    times = [f"2024-01-{day} 08:00" for day in range(1, 32)]
    found = placed(
        session, {"t": times}, by="time", on="t", train=0.6, validation=0.2, test=0.2
    )
    assert [r[SPLIT] for r in found] == ["train"] * 19 + ["validation"] * 6 + ["test"] * 6


def test_a_text_that_is_no_time_is_put_aside_and_a_column_of_them_is_refused(session):
    found = placed(
        session, {"t": ["2024-01-01", "2024-01-02", "soon", None]}, by="time", on="t"
    )
    assert [r[SPLIT] is None for r in found] == [False, False, True, True]
    assert "soon" in found[2][REASON] and "is missing" in found[3][REASON]
    with pytest.raises(RecipeError, match=r"not ISO 8601 times[\s\S]*strptime"):
        placed(
            session, {"t": ["13/02/2021", "14/02/2021", "2021-02-15"]}, by="time", on="t"
        )


@settings(max_examples=15, deadline=None)
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    shares=st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.0, 0.1)]),
)
def test_a_split_by_order_cuts_files_and_rows_in_their_order(session, counts, shares):
    files = [index for index, count in enumerate(counts) for _ in range(count)]
    if not files:
        return
    numbers = [n for count in counts for n in range(count)]
    columns = {ROW_FILE: files, ROW_NUMBER: numbers, "at": list(range(len(files)))}
    train, validation, test = shares
    seen = placed(
        session, columns, by="order", train=train, validation=validation, test=test
    )
    in_order = [r[SPLIT] for r in sorted(seen, key=lambda r: r["at"])]
    first, second = (
        round(train * len(files)),
        round((train + validation) * len(files)),
    )
    assert in_order == [
        *["train"] * first,
        *["validation"] * (second - first),
        *["test"] * (len(files) - second),
    ]


def test_a_split_by_order_takes_no_column():
    with pytest.raises(ValueError, match="goes by the rows' places"):
        Split(by="order", on="a")
