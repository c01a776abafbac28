from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.contracts.features import CollatedFeature, Feature
from penstock.contracts.foreign import no_foreign_code
from penstock.core.errors import BundleError, RequestError
from penstock.encode.encoding import Encoding
from penstock.encode.feed import fit_encoding
from tests.data.fakes import recipe

ROWS = pa.table(
    {
        "age": pa.chunked_array(
            [pa.array([20.0, None]), pa.array([40.0, 60.0, 30.0, 30.0])]
        ),
        "job": ["clerk", "clerk", "cook", None, "cook", "smith"],
        "seen": [
            "2020-01-01",
            "2021-06-01",
            None,
            "2022-01-01",
            "2020-05-05",
            "2020-01-02",
        ],
        "income": ["low", "high", "low", "low", None, "high"],
        "children": [0, 1, 2, 3, 1, 1],
        "w": [1.0, 2.0, 0.5, 1.0, 1.0, None],
    }
)
WORDS: dict[str, Any] = {
    "inputs": {
        "years": {"type": "number", "column": "age"},
        "job": "category",
        "seen": "timestamp",
    },
    "targets": {"income": {"type": "binary", "positive": "high"}, "children": "number"},
    "weight": "w",
}


@pytest.fixture
def encoding() -> Encoding:
    return fit_encoding(recipe(**WORDS), ROWS)


def test_columns_are_raw_ones_each_once(encoding: Encoding) -> None:
    assert encoding.columns(targets=False) == ["age", "job", "seen"]
    assert encoding.columns(targets=True) == [
        "age",
        "job",
        "seen",
        "income",
        "children",
        "w",
    ]


def test_refused_rows_say_which_column_and_why(encoding: Encoding) -> None:
    rows = ROWS.set_column(
        0, "age", pa.array(["20", "old", "40", "inf", "5", "6"])
    ).set_column(3, "income", pa.array(["low", "high", "middle", "low", None, "high"]))
    rows = rows.set_column(5, "w", pa.array([1.0, -2.0, 1.0, 1.0, 1.0, None]))
    accepted = encoding.accept(rows, targets=True)
    assert {
        row: [str(p) for p in found] for row, found in sorted(accepted.refused.items())
    } == {
        1: ["age: 'old' is not a number", "w: weight is negative: -2"],
        2: [
            "income: 'middle' is neither 'low' nor 'high', the two classes of the training split"
        ],
        3: ["age: 'inf' is not a number"],
        4: ["income: target is missing"],
        5: ["w: weight is missing"],
    }
    assert accepted.usable().rows == 1 and accepted.usable().columns[
        "job"
    ].to_pylist() == ["clerk"]
    assert set(encoding.accept(rows, targets=False).refused) == {
        1,
        3,
    }, "a request has neither targets nor weights"


def test_absent_columns_are_all_named(encoding: Encoding) -> None:
    with pytest.raises(RequestError) as caught:
        encoding.accept(pa.table({"agee": [1], "seen": ["2020-01-01"]}), targets=False)
    assert [str(p) for p in caught.value.problems] == [
        "age: is required but missing. There is 'agee' instead.",
        "job: is required but missing.",
    ]


def test_a_row_encodes_alone_as_in_a_batch(encoding: Encoding) -> None:
    whole = encoding.collate(encoding.encode(encoding.accept(ROWS, targets=True)))
    assert set(whole) == {
        "years.value",
        "years.missing",
        "job.index",
        "seen.cyclic",
        "seen.since",
        "seen.missing",
        "income.label",
        "children.value",
        "weight",
    }
    for row in range(len(ROWS)):
        alone = encoding.collate(
            encoding.encode(encoding.accept(ROWS.slice(row, 1), targets=True))
        )
        assert all(np.array_equal(alone[name][0], whole[name][row]) for name in whole)


def test_specs_are_what_is_collated(encoding: Encoding) -> None:
    batch = encoding.encode(encoding.accept(ROWS, targets=False))
    specs = encoding.specs("inputs")
    assert [
        f"{name}.{array}" for name, arrays in specs.items() for array in arrays
    ] == list(batch)
    assert set(encoding.specs("targets")) == {"income", "children"}


def test_answers_are_decoded_in_the_users_words(encoding: Encoding) -> None:
    answers = {
        "income.probability": np.array([0.2, 0.7], np.float32),
        "children.value": np.array([1.5, 2.0], np.float32),
    }
    table = encoding.decode(answers, {"income": {"threshold": 0.1}})
    assert table.column_names == ["income", "income_probabilities", "children"]
    assert table["income"].to_pylist() == ["high", "high"] and table[
        "children"
    ].to_pylist() == [1.5, 2.0]
    truth = encoding.truth(encoding.encode(encoding.accept(ROWS, targets=True)))
    assert truth["income"].tolist() == [0, 1, 0, 0, 0, 1] and truth[
        "children"
    ] == pytest.approx([0, 1, 2, 3, 1, 1])


def test_declared_and_loaded_it_is_the_same(encoding: Encoding) -> None:
    again = Encoding.load(json.loads(json.dumps(encoding.to_dict())))
    assert again == encoding and again.fingerprint == encoding.fingerprint
    one, other = (e.encode(e.accept(ROWS, targets=True)) for e in (encoding, again))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    unfitted = Encoding(encoding.inputs, encoding.targets, weight="w")
    assert (
        unfitted.fingerprint
        != encoding.fingerprint
        == fit_encoding(recipe(**WORDS), ROWS).fingerprint
    )


def test_a_changed_or_foreign_or_newer_encoding_is_refused(encoding: Encoding) -> None:
    declared = encoding.to_dict()
    with pytest.raises(BundleError, match="format 99"):
        Encoding.load({**declared, "format": 99})
    with pytest.raises(BundleError, match="cannot be read"):
        Encoding.load({**declared, "inputs": {"a": {"type": "nmber"}}})
    with pytest.raises(BundleError, match="cannot be read"):
        Encoding.load({"format": 1})
    with no_foreign_code(), pytest.raises(BundleError, match="--trust"):
        Encoding.load({**declared, "inputs": {"a": {"type": "acme.colour"}}})


def test_keys_reach_only_features_that_augment() -> None:
    class Jitter(CollatedFeature, type(Feature.load("number"))):  # type: ignore[misc]
        def collate(
            self, stored: Any, fitted: Any, keys: np.ndarray | None = None
        ) -> Any:
            return stored if keys is None else {**stored, "key": keys}

    encoding = Encoding(
        {"a": Jitter(), "b": Jitter(), "c": Feature.load("number")},
        {},
        {name: {} for name in "abc"},
    )
    stored = {
        "a.value": np.zeros(2),
        "b.value": np.zeros(2),
        "c.value": np.zeros(2),
        "row_id": np.zeros((2, 2)),
    }
    assert encoding.augments and set(encoding.collate(stored)) == set(stored)
    found = encoding.collate(stored, np.array([5, 6], np.uint64))
    assert not np.array_equal(found["a.key"], found["b.key"]), (
        "two features of a row are not changed alike"
    )
    assert np.array_equal(
        found["a.key"],
        encoding.collate(
            {k: v for k, v in stored.items() if k[0] == "a"}, np.array([5, 6], np.uint64)
        )["a.key"],
    )
    assert "c.key" not in found and np.array_equal(found["row_id"], stored["row_id"])
