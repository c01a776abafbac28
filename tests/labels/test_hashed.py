"""Rows as sparse numbers: a row is the same among others and alone, and every kind of column is read."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pytest

from penstock.labels.hashed import Sparse, hashed, is_number, numbers, reads

WIDTH = 2**12
COLUMNS = {
    "number": pa.array([1.5, None, float("nan"), -3.0]),
    "whole": pa.array([1, 2, None, 2**60]),
    "flag": pa.array([True, None, False, True]),
    "day": pa.array([date(2020, 1, 1), None, date(1900, 5, 5), date(2020, 1, 1)]),
    "moment": pa.array([datetime(2020, 1, 1), None, None, datetime(1970, 1, 1)]),
    "short": pa.array(["a", None, "", "two words"]),
    "text": pa.array(["one two three, four", "ONE two three", None, "ça va – très bien"]),
    "list": pa.array([["a", "b"], [], None, ["a", None]]),
}
EDGES = {
    name: np.array([0.0, 1.0, 2.0])
    for name, column in COLUMNS.items()
    if is_number(column.type)
}


def row(sparse: Sparse, i: int) -> list[tuple[int, float]]:
    span = slice(sparse.starts[i], sparse.starts[i + 1])
    pairs = zip(sparse.places[span], sparse.weights[span], strict=True)
    return sorted((int(place), float(weight)) for place, weight in pairs)


@pytest.mark.parametrize("name", [*COLUMNS, "all"])
def test_a_row_is_the_same_alone_as_among_others(name: str) -> None:
    columns = COLUMNS if name == "all" else {name: COLUMNS[name]}
    whole = hashed(columns, EDGES, WIDTH)
    assert len(whole.starts) == 5 and whole.places.max() < WIDTH
    for i in range(4):
        alone = hashed({n: c.slice(i, 1) for n, c in columns.items()}, EDGES, WIDTH)
        assert row(alone, 0) == row(whole, i)
        # The constant, and each column at the length one.
        squares = sum(weight**2 for _, weight in row(whole, i))
        assert squares == pytest.approx(1 + len(columns))


def test_texts_are_their_words_in_any_case_and_order_counts() -> None:
    texts = pa.array(["Red green blue", "red GREEN blue", "blue green red"])
    sparse = hashed({"text": texts}, {}, 2**18)
    assert row(sparse, 0) == row(sparse, 1) != row(sparse, 2)
    shared = {place for place, _ in row(sparse, 0)} & {p for p, _ in row(sparse, 2)}
    # The constant and three words; the pairs differ.
    assert len(shared) == 4


def test_missing_is_a_value() -> None:
    sparse = hashed({"number": COLUMNS["number"]}, EDGES, WIDTH)
    assert row(sparse, 1) == row(sparse, 2) != row(sparse, 3)


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.list_(pa.float32()), pa.struct([("x", pa.int8())])]
)
def test_what_it_cannot_read_it_says(kind: pa.DataType) -> None:
    assert not reads(kind)


def test_moments_are_numbers() -> None:
    assert numbers(COLUMNS["moment"])[3].as_py() == 0.0
    assert numbers(COLUMNS["flag"]).to_pylist() == [1.0, None, 0.0, 1.0]
