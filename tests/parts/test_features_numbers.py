"""Numbers, binaries and categories: how values are read, learnt, refused and answered."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.core.errors import ContractError
from penstock.testing.laws.features import Specimen, fit
from tests.parts.featured import (
    NUMBERS,
    NUMBERS_IN_TEXT,
    TWO,
    WORDS,
    encode,
    part,
    reasons,
)


def test_numbers_are_read_from_text_and_refused_with_what_was_found() -> None:
    found, _ = part("number", na=["?"]).accept([NUMBERS_IN_TEXT])
    assert found.to_pylist() == [
        1.5,
        None,
        None,
        None,
        -300.0,
        7.0,
        0.5,
        None,
        None,
        None,
        None,
        None,
    ]
    assert reasons(part("number", na=["?"]), NUMBERS_IN_TEXT) == {
        1: "'abc' is not a number",
        7: "'1e999' goes beyond what a double can hold",
        10: "'0x10' is not a number",
        11: "'1,5' is not a number",
    }
    assert reasons(part("number"), NUMBERS) == {6: "inf is not a finite number"}
    assert reasons(part("number"), pa.array([dt.datetime(2024, 1, 1)])) == {
        0: "a timestamp is not a number"
    }
    assert reasons(part("number"), pa.array([["a"], None])) == {
        0: "a list is not a number"
    }


def test_a_missing_number_is_filled_as_declared_and_told() -> None:
    train = pa.array([0.0, 2.0, 10.0, None])
    std = float(np.std([0, 2, 10]))
    for missing, filled in (("mean", 4.0), ("median", 2.0), ("zero", 0.0)):
        found = encode(part("number", missing=missing), train, pa.array([None, 10.0]))
        assert found["value"] == pytest.approx([(filled - 4) / std, 6 / std])
        assert found["missing"] == [1.0, 0.0]


def test_an_absurd_number_is_taken_as_one_range_beyond_the_training_range() -> None:
    low, high = encode(part("number"), pa.array([0.0, 10.0]), pa.array([-1e300, 20.0]))[
        "value"
    ]
    assert (low, high) == (-3.0, 3.0)


def test_a_constant_number_says_so_as_an_input_and_is_refused_as_a_target() -> None:
    _, fitted = fit(Specimen(part("number"), (pa.array([3, 3]),)))
    assert "is 3 in every row" in fitted["said"][0] and len(fitted["edges"]) == 1
    with pytest.raises(ContractError, match="there is nothing to learn"):
        fit(Specimen(part("number"), (pa.array([3, 3]),), target=True))
    with pytest.raises(ContractError, match="missing in every row"):
        fit(Specimen(part("number"), (pa.array([None, None], pa.float64()),)))
    with pytest.raises(
        ContractError, match="up to 1e\\+200; a target is answered in single precision"
    ):
        fit(Specimen(part("number"), (pa.array([3, 1e200]),), target=True))
    with pytest.raises(ContractError, match="cannot be filled"):
        fit(Specimen(part("number", missing="zero"), (pa.array([3, 4]),), target=True))


def test_edges_are_ascending_and_few_and_a_common_value_takes_one() -> None:
    rng = np.random.default_rng(0)
    gains = np.where(rng.random(20_000) < 0.92, 0.0, rng.lognormal(8, 1, 20_000))
    _, fitted = fit(Specimen(part("number"), (pa.array(gains),)))
    edges = np.array(fitted["edges"])
    assert 60 <= len(edges) <= 65 and (np.diff(edges) > 0).all()
    assert (edges > (0 - fitted["mean"]) / fitted["std"] + 1e-3).sum() > 55, (
        "the values above the common one share the other bins"
    )
    _, small = fit(Specimen(part("number"), (pa.array(rng.normal(size=150)),)))
    assert len(small["edges"]) <= 150 // 8 + 1


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True),
        ),
        min_size=1,
        max_size=40,
    ),
    st.booleans(),
)
@example([1e200, -1e200, 1.0], False)
@example([1.7e308, 1.6e308, -5e-324], False)
def test_any_column_of_numbers_encodes_to_finite_values(
    values: list[float | None], constant: bool
) -> None:
    train = pa.array([1.0] * 3 if constant else [*values, 0.0], pa.float64())
    found = encode(part("number"), train, pa.array(values, pa.float64()))
    assert np.isfinite(found["value"]).all()
    assert found["missing"] == [float(v is None) for v in values]


def test_a_target_of_zero_is_told_as_zero() -> None:
    feature = part("number")
    column, fitted = fit(
        Specimen(feature, (pa.array([0.0, 1.0, 1e-3, 7.0, 1e6]),), target=True)
    )
    truth = feature.truth(feature.encode(column, fitted), fitted)
    assert (
        truth[0] == 0
        and truth[3] == pytest.approx(7, abs=0.1)
        and truth[4] == pytest.approx(1e6)
    )


@pytest.mark.parametrize(
    ("values", "positive", "why"),
    [
        (["<=50K", ">50K", "<=50K"], ">50K", "the rarer value (33.3 %"),
        (["yes", "yes", "no"], "yes", "the word that means yes"),
        ([True, True, False], "true", "the word that means yes"),
        ([1, 0, 0], "1", "the word that means yes"),
        (["a", "b"], "b", "the later of two equally common values"),
    ],
)
def test_the_positive_value_is_chosen_aloud(
    values: list[Any], positive: str, why: str
) -> None:
    _, fitted = fit(Specimen(part("binary"), (pa.array(values),), target=True))
    assert fitted["positive"] == positive
    assert why in fitted["said"][0] and repr(positive) in fitted["said"][0]


def test_a_declared_positive_value_is_taken_and_a_wrong_one_is_told() -> None:
    _, fitted = fit(
        Specimen(
            part("binary", positive="<=50K"),
            (TWO.take(pa.array([0, 1, 3, 6])),),
            target=True,
        )
    )
    assert (fitted["positive"], fitted["negative"], fitted["said"]) == (
        "<=50K",
        ">50K",
        [],
    )
    assert (
        fit(Specimen(part("binary", positive=True), (pa.array(["True", "False"]),)))[1][
            "positive"
        ]
        == "True"
    )
    with pytest.raises(
        ContractError,
        match=r"never has the declared positive value '>50k'.*Did you mean '>50K'",
    ):
        fit(Specimen(part("binary", positive=">50k"), (pa.array([">50K", "<=50K"]),)))


def test_a_binary_with_one_or_three_values_is_refused() -> None:
    with pytest.raises(
        ContractError, match=r"3 values where a binary has two: 'b' \(2\).*type: category"
    ):
        fit(Specimen(part("binary"), (pa.array(["a", "b", "c", "b"]),)))
    with pytest.raises(ContractError, match=r"one class, 'a', in all 2 rows"):
        fit(Specimen(part("binary"), (pa.array(["a", "a"]),), target=True))


def test_spellings_of_yes_and_no_mean_the_same_and_others_are_unseen() -> None:
    found = encode(
        part("binary"),
        pa.array(["True", "False"]),
        pa.array(["true", "0", "perhaps", None, "YES"]),
    )
    assert found == {
        "value": [1.0, 0.0, 0.5, 0.5, 1.0],
        "missing": [0.0, 0.0, 1.0, 1.0, 0.0],
    }
    _, fitted = fit(Specimen(part("binary"), (pa.array(["Yes", "yes", "no"]),)))
    assert fitted["counts"] == [1, 2] and "spellings" in fitted["said"][0]


def test_a_third_value_of_an_input_is_strange_unless_it_was_fitted_before() -> None:
    feature, column = part("binary"), pa.array(["no", "maybe", None, "YES", "2"])
    _, fitted = fit(Specimen(feature, (pa.array(["yes", "no"]),)))
    found = feature.strange(column, fitted)
    assert found.rows.tolist() == [1, 4]
    assert feature.strange(column.dictionary_encode(), fitted).reasons == found.reasons
    # What was fitted by an earlier Penstock goes on taking it as missing.
    before = {word: fact for word, fact in fitted.items() if word != "third"}
    assert not len(feature.strange(column, before).rows)
    # With one value in training nobody knows what the other one is.
    _, alone = fit(Specimen(feature, (pa.array(["a", "a"]),)))
    assert not len(feature.strange(column, alone).rows)


def test_an_unknown_class_of_a_target_is_refused_and_the_threshold_decides() -> None:
    feature = part("binary")
    _, fitted = fit(Specimen(feature, (pa.array(["bad", "good", "good"]),), target=True))
    refused = feature.unknown(pa.array(["good", "ugly", None]), fitted)
    assert refused.rows.tolist() == [1] and refused.reasons == [
        "'ugly' is neither 'good' nor 'bad', the two classes of the training split"
    ]
    decoded = feature.decode(
        {"probability": np.array([0.3, 0.6], np.float32)}, fitted, {"threshold": 0.25}
    )
    assert decoded[""].to_pylist() == ["bad", "bad"]
    assert decoded["probabilities"].to_pylist()[1] == {
        "good": pytest.approx(0.4),
        "bad": pytest.approx(0.6),
    }


def test_missing_unseen_and_rare_have_their_indices() -> None:
    assert encode(part("category"), WORDS, pa.array(["a", "b", None, "new", "c", "10"]))[
        "index"
    ] == [
        2,
        3,
        0,
        1,
        1,
        4,
    ]
    assert encode(part("category", rare=1), WORDS, pa.array(["c", "new"]))["index"] == [
        6,
        1,
    ]


def test_a_number_is_the_same_category_whatever_its_type() -> None:
    train = pa.array(["3", "3", "4.5", "4.5", "true", "true"])
    for served in (
        pa.array([3]),
        pa.array([3.0]),
        pa.array([Decimal("3.00")]),
        pa.array([" 3"]),
        pa.array([b"3"]),
        pa.array([3.0], pa.float32()),
    ):
        assert encode(part("category"), train, served)["index"] == [2]
    assert encode(part("category"), train, pa.array([4.5, float("nan")]))["index"] == [
        3,
        0,
    ]
    assert encode(part("category"), train, pa.array([True, None]))["index"] == [4, 0]
    assert reasons(part("category"), pa.array([{"a": 1}])) == {
        0: "expected one value, found {'a': 1}"
    }


def test_a_large_vocabulary_is_looked_up_alike_by_one_and_by_many() -> None:
    train = pa.array([f"v{i % 3000}" for i in range(9000)])
    feature = part("category", limit=2000)
    _, fitted = fit(Specimen(feature, (train,)))
    many = feature.encode(train.slice(0, 3000), fitted)["index"]
    one = np.concatenate(
        [feature.encode(train.slice(i, 1), fitted)["index"] for i in range(0, 3000, 250)]
    )
    assert np.array_equal(many[::250], one) and (many == 1).sum() == 1000
    assert "commonest 2,000" in fitted["said"][0]


def test_targets_that_cannot_be_learnt_are_told() -> None:
    def fails(values: list[Any], match: str, **options: Any) -> None:
        with pytest.raises(ContractError, match=match):
            fit(Specimen(part("category", **options), (pa.array(values),), target=True))

    fails(["x", "x"], "one class, 'x'")
    fails([f"{i}" for i in range(300)], "nearly one class a row")
    fails(["a", "b"], "`rare` is for inputs", rare=3)
    fails(["a", "b", "c"], "none of them with the 2 rows", pool=2)
    fails(["other", "other", "a"], "has a class 'other' of its own, with 2 rows", pool=2)
    _, fitted = fit(
        Specimen(part("category"), (pa.array(["10", "2", "10", "x"]),), target=True)
    )
    assert fitted["values"] == ["2", "10", "x"]


def test_rare_classes_of_a_target_are_one() -> None:
    values = pa.array(["b"] * 5 + ["a"] * 6 + ["c"] * 2 + ["d"])
    feature = part("category", pool=5)
    _, fitted = fit(Specimen(feature, (values,), target=True))
    assert fitted["values"] == ["a", "b", "other"] and fitted["counts"] == [6, 5, 3]
    assert "2 classes with fewer than 5 rows, 3 rows in all" in fitted["said"][0]
    served = pa.array(["d", "a", "never seen", "other"])
    assert feature.encode(served, fitted)["index"].tolist() == [2, 0, 2, 2] and not len(
        feature.unknown(served, fitted).rows
    )
    assert feature.decode({"probabilities": np.eye(3, dtype=np.float32)}, fitted, {})[
        ""
    ].to_pylist() == [
        "a",
        "b",
        "other",
    ]

    _, fitted = fit(
        Specimen(part("category", pool=2), (pa.array(["a", "a", "b", "b"]),), target=True)
    )
    assert fitted["values"] == ["a", "b"] and not fitted["said"], (
        "nothing is rare, so nothing is pooled"
    )
    assert len(part("category", pool=2).unknown(pa.array(["c"]), fitted).rows) == 1

    _, fitted = fit(
        Specimen(
            part("category", pool=2, pooled="rest"),
            (pa.array(["other", "other", "b"]),),
            target=True,
        )
    )
    assert fitted["values"] == ["other", "rest"]
    with pytest.raises(ContractError, match="`pool` is for targets"):
        fit(Specimen(part("category", pool=2), (values,)))


def test_many_classes_are_answered_by_the_likeliest() -> None:
    feature = part("category")
    _, fitted = fit(
        Specimen(
            feature, (pa.array([f"c{i % 120:03}" for i in range(600)]),), target=True
        )
    )
    shares = np.zeros((2, 120), np.float32)
    shares[0, 7], shares[0, 9], shares[1, 119] = 0.6, 0.4, 1.0
    decoded = feature.decode({"probabilities": shares}, fitted, {})
    assert decoded[""].to_pylist() == ["c007", "c119"]
    assert decoded["probabilities"].to_pylist()[0][:2] == [
        {"class": "c007", "probability": pytest.approx(0.6)},
        {"class": "c009", "probability": pytest.approx(0.4)},
    ]
