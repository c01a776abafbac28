"""Summaries: exact whatever the order, and merged halves equal the whole."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.summary import (
    Count,
    ExactSum,
    Frequencies,
    Moments,
    Quantiles,
    Together,
    interpolated,
    sample_keys,
)
from penstock.contracts.value_counts import BottomK, Counts
from penstock.core.errors import ContractError
from penstock.testing.laws import summaries as laws

finite = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.lists(st.one_of(st.none(), finite), max_size=60).map(
    lambda v: pa.array(v, pa.float64())
)
TEXTS = st.lists(
    st.one_of(st.none(), st.sampled_from(["a", "b", "ä", "", "c" * 40])), max_size=60
).map(lambda v: pa.array(v, pa.string()))
quick = settings(deadline=None, max_examples=60)


@quick
@given(NUMBERS)
@pytest.mark.parametrize(
    "make",
    [
        Moments,
        lambda: Quantiles(size=7),
        Count,
        lambda: Together(a=Moments(), b=Quantiles(size=3)),
    ],
    ids=["moments", "quantiles", "count", "together"],
)
def test_laws_of_numbers(make, column):
    laws.check(make, column)


def test_quantiles_of_numbers_at_the_ends_of_the_doubles_are_numbers():
    largest = np.finfo(np.float64).max
    values = np.array([-largest, -largest, 0.5, largest, largest])
    assert interpolated(values, np.array([0.0, 0.5, 0.625, 1.0])).tolist() == [
        -largest,
        0.5,
        largest / 2,
        largest,
    ]
    assert interpolated(values[2:3], np.array([0.5])).tolist() == [0.5]


@quick
@given(TEXTS)
@pytest.mark.parametrize(
    "make",
    [
        Frequencies,
        lambda: Frequencies(limit=2, size=5),
        lambda: Frequencies(size=9, most_bytes=41),
        Count,
    ],
    ids=["frequencies", "sampled", "bytes", "count"],
)
def test_laws_of_texts(make, column):
    laws.check(make, column)


@quick
@given(TEXTS)
def test_laws_where_several_values_have_one_row_id(column):
    """Lists are summarised flattened: their values share the id of their row."""
    row_ids = laws.ids(1).take(pa.array([0] * len(column), pa.int64()))
    laws.check(lambda: Frequencies(limit=1, size=4), column, row_ids)


@quick
@given(st.lists(finite), st.randoms(use_true_random=False))
def test_sums_are_exact_in_any_order(values, random):
    wanted = sum(map(Fraction, values), Fraction(0))
    total = ExactSum()
    total.add(np.array(values, np.float64))
    assert total.fraction() == wanted
    random.shuffle(values)
    cut = len(values) // 2
    left, right = ExactSum(), ExactSum()
    left.add(np.array(values[:cut], np.float64))
    right.add(np.array(values[cut:], np.float64))
    right.merge(left)
    assert right.fraction() == wanted
    with np.errstate(over="ignore"):
        if abs(wanted) <= Fraction(1.7e308):
            assert (
                float(right) == math.fsum(values)
                if all(abs(v) < 1e300 for v in values)
                else float(right) == float(wanted)
            )


def test_a_sum_beyond_doubles_is_infinite():
    total = ExactSum()
    total.add(np.array([1.7e308] * 4))
    assert float(total) == math.inf


@quick
@given(st.lists(finite))
def test_squares_are_exact(values):
    total = ExactSum()
    total.add_squares(np.array(values, np.float64))
    assert total.fraction() == sum((Fraction(v) ** 2 for v in values), Fraction(0))


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1.0, 1e170, 1e300])
def test_deviations_of_any_magnitude(scale):
    summary = Moments()
    summary.update(pa.array([-scale, scale, 3 * scale]), laws.ids(3))
    assert summary.result()["std"] == pytest.approx(scale * math.sqrt(8 / 3), rel=1e-14)


@quick
@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.sampled_from([0.0, 1e9, 1.7e15]))
def test_moments_are_right_even_where_the_mean_dwarfs_the_deviation(values, far):
    column = np.array(values) + far
    summary = Moments()
    summary.update(pa.array(column), laws.ids(len(column)))
    found = summary.result()
    exact = [Fraction(v) for v in column]
    mean = sum(exact) / len(exact)
    assert found["mean"] == float(mean)
    variance = sum((v - mean) ** 2 for v in exact) / len(exact)
    assert found["std"] == pytest.approx(float(variance) ** 0.5, rel=1e-12, abs=1e-150)
    assert (found["min"], found["max"], found["count"]) == (
        column.min(),
        column.max(),
        len(column),
    )


def test_what_is_no_finite_number_is_missing():
    summary = Moments()
    summary.update(pa.array([1.0, None, float("nan"), float("inf"), 3.0]), laws.ids(5))
    assert summary.result() == {
        "count": 2,
        "missing": 3,
        "min": 1.0,
        "max": 3.0,
        "mean": 2.0,
        "std": 1.0,
    }


def test_whole_numbers_beyond_doubles_are_taken_at_their_nearest():
    summary = Moments()
    summary.update(pa.array([2**60 + 1, 2**60 + 1]), laws.ids(2))
    assert summary.result()["mean"] == float(2**60)


def test_zero_has_one_sign_whatever_the_order():
    for values in ([-0.0, 0.0], [0.0, -0.0]):
        summary = Moments()
        summary.update(pa.array(values), laws.ids(2))
        assert (
            math.copysign(1, summary.result()["min"])
            == math.copysign(1, summary.result()["max"])
            == 1
        )


@quick
@given(
    st.lists(finite, min_size=1, max_size=80),
    st.integers(1, 20),
    st.randoms(use_true_random=False),
)
def test_bottom_k_is_the_k_smallest_row_ids_whatever_the_order(values, size, random):
    row_ids = laws.ids(len(values)).to_pylist()
    wanted = [v for _, v in sorted(zip(row_ids, values, strict=True))][:size]
    pairs = list(zip(row_ids, values, strict=True))
    random.shuffle(pairs)
    summary = Quantiles(size=size)
    for start in range(0, len(pairs), 7):
        part = pairs[start : start + 7]
        summary.update(
            pa.array([v for _, v in part], pa.float64()),
            pa.array([i for i, _ in part], pa.string()),
        )
    assert sorted(summary.values()) == sorted(wanted) and summary.count == len(values)


def test_quantiles_of_few_rows_are_those_of_the_rows():
    summary = Quantiles()
    values = np.arange(1001.0)
    summary.update(pa.array(values), laws.ids(1001))
    assert summary.quantiles(np.array([0, 0.25, 0.5, 1])) == [0, 250, 500, 1000]
    assert len(summary.result()["quantiles"]) == 101


def test_frequencies_are_exact_up_to_the_limit_and_scaled_beyond():
    exact = Frequencies(limit=3)
    exact.update(pa.array(["b", "a", "b", None, "c"]), laws.ids(5))
    assert exact.result() == {
        "count": 4,
        "missing": 1,
        "distinct": 3,
        "exact": True,
        "values": [["b", 2], ["a", 1], ["c", 1]],
    }
    beyond = Frequencies(limit=3, size=100)
    beyond.update(pa.array([str(i % 50) for i in range(1_000)]), laws.ids(1_000))
    assert not beyond.result()["exact"] and beyond.result()["count"] == 1_000
    assert sum(count for _, count in beyond.result()["values"]) == pytest.approx(
        1_000, rel=0.02
    )


@quick
@given(st.lists(st.text(max_size=5), max_size=20))
def test_sample_keys_are_the_first_64_bits(texts):
    import hashlib

    digests = [hashlib.md5(t.encode()).hexdigest() for t in texts]
    assert sample_keys(pa.array(digests, pa.string())).tolist() == [
        int(d[:16], 16) for d in digests
    ]


@quick
@given(
    st.lists(st.sampled_from(["a", "b", "a long text " * 20, "é"]), max_size=60),
    st.integers(1, 40),
)
def test_codes_are_summarised_as_the_texts_they_stand_for(texts, size):
    column = pa.array(texts, pa.string())
    plain, coded = Frequencies(limit=1, size=size), Frequencies(limit=1, size=size)
    row_ids = laws.ids(len(column))
    plain.update(column, row_ids)
    for start in range(0, len(column), 7):
        part = Frequencies(limit=1, size=size)
        part.update(column.slice(start, 7).dictionary_encode(), row_ids.slice(start, 7))
        coded.merge(part)
    assert coded.result() == plain.result()


@quick
@given(
    st.lists(st.text(alphabet="aä😀", max_size=6), min_size=1, max_size=60), st.randoms()
)
def test_texts_are_kept_up_to_a_number_of_bytes_whatever_the_order(texts, random):
    bound = 40
    ids = laws.ids(len(texts))
    order = sorted(range(len(texts)), key=lambda i: ids[i].as_py())
    kept = next(
        (
            n
            for n in range(len(texts), 0, -1)
            if sum(len(t.encode()) for t in {texts[i] for i in order[:n]}) <= bound
        ),
        0,
    )
    shuffled = random.sample(range(len(texts)), len(texts))
    pieces = [shuffled[i : i + 7] for i in range(0, len(shuffled), 7)]
    sample, rest = BottomK(1_000, bound), BottomK(1_000, bound)
    for number, piece in enumerate(pieces):
        taken = pa.array(piece)
        (sample if number % 2 else rest).add(
            sample_keys(ids.take(taken)), pa.array(texts).take(taken)
        )
    sample.merge(rest)
    found = sample.values()
    assert sorted(found.to_pylist() if found is not None else []) == sorted(
        texts[i] for i in order[:kept]
    )


def test_what_long_texts_leave_in_memory_is_bounded():
    """Ten thousand texts of ten thousand letters, of which a million bytes are kept."""
    summary = Frequencies(most_bytes=1_000_000)
    chance = np.random.default_rng(0)
    base = pa.total_allocated_bytes()
    for start in range(0, 10_000, 500):
        column = pa.array(
            [f"{number:04}" * 2_500 for number in range(start, start + 500)]
        )
        summary.update(column, pa.array(chance.integers(0, 2**63, 500, dtype=np.uint64)))
        del column
        assert pa.total_allocated_bytes() - base < 4_000_000
    result = summary.result()
    assert (result["exact"], result["count"], result["distinct"]) == (False, 10_000, 100)


def test_a_value_larger_than_what_is_kept_ends_in_a_sentence():
    summary = Frequencies(most_bytes=1 << 20)
    summary.update(pa.array(["x" * (2 << 20), "y"]), pa.array([1, 2], pa.uint64()))
    with pytest.raises(
        ContractError, match="more than 1 MiB of different values in one row"
    ):
        summary.result()


def test_counts_stop_taking_in_and_go_on_counting():
    counts = Counts(10, 6)
    assert (
        counts.add([("ab", 1), ("cd", 2)])
        and not counts.add([("ab", 5), ("efg", 1)])
        and counts.add([("gh", 0.5)])
    )
    assert counts.by_value == {"ab": 6, "cd": 2, "gh": 0.5} and not counts.add(
        [("", 1), ("x", 1)]
    )


def test_an_exact_sum_is_one_number_however_many_are_added():
    """Of numbers of every magnitude: no list that grows."""
    total = ExactSum()
    for exponent in range(-1074, 1024):
        total.add(np.array([2.0**exponent, -(2.0**exponent), 2.0**exponent]))
        total.add_squares(np.array([1.5 * 2.0 ** (exponent // 2)]))
    assert total._total[0].bit_length() < 2_300
    assert total.fraction() == sum(
        (
            Fraction(2) ** e + Fraction(9, 4) * Fraction(2) ** (2 * (e // 2))
            for e in range(-1074, 1024)
        ),
        Fraction(0),
    )
