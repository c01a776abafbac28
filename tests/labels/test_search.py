"""The search: what is wrong is found, whatever the batches; what it cannot do it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.core.errors import ContractError
from penstock.labels import LabelErrors, Options, find_label_errors
from penstock.labels.search import Read

OPTIONS = Options("kind", ("size", "name", "note"), listed=20)


def ids(number: int) -> list[str]:
    return [hashlib.md5(str(i).encode()).hexdigest() for i in range(number)]


def table(rows: int = 2_000) -> pa.Table:
    """Rows in the order of their ids whose `kind` follows from the rest, a fifth of them wrong (`wrong`)."""
    chance = np.random.default_rng(3)
    true = chance.integers(0, 3, rows)
    wrong = chance.random(rows) < 0.2
    given = np.where(wrong, (true + chance.integers(1, 3, rows)) % 3, true)
    names, words = np.array(["low", "mid", "high"]), np.array(["cold", "mild", "hot"])
    whole = pa.table(
        {
            "row_id": ids(rows),
            "size": true + chance.normal(0, 0.4, rows),
            "name": names[np.where(chance.random(rows) < 0.2, 0, true)],
            "note": [f"it was {word} there" for word in words[true]],
            "kind": names[given],
            "wrong": wrong,
        }
    )
    return whole.sort_by("row_id")


def reader(rows: pa.Table, at_once: int) -> Read:
    def read(columns: list[str]) -> Iterator[pa.RecordBatch]:
        yield from rows.select(["row_id", *columns]).to_batches(max_chunksize=at_once)

    return read


def search(
    rows: pa.Table, folder: Path, options: Options = OPTIONS, at_once: int = 500
) -> LabelErrors:
    folder.mkdir()
    kinds = {field.name: field.type for field in rows.schema}
    # One piece after sorting, so that batches are as asked for.
    return find_label_errors(
        reader(rows.combine_chunks(), at_once), kinds, options, folder
    )


def test_wrong_labels_are_found(tmp_path: Path) -> None:
    rows = table()
    errors = search(rows, tmp_path / "a")
    wrong = set(rows.filter(rows["wrong"])["row_id"].to_pylist())
    suspects = pq.read_table(errors.file)
    right = wrong & set(suspects["row_id"].to_pylist())
    assert errors.classes == ["high", "low", "mid"]
    assert errors.suspects == len(suspects)
    assert len(right) / len(suspects) > 0.95 and len(right) / len(wrong) > 0.95
    assert errors.rule.wrong() / errors.rows == pytest.approx(0.2, abs=0.03)
    # The worst are the first, and all of the list.
    worst = errors.ranked["self_confidence"].to_pylist()
    assert worst == sorted(suspects["self_confidence"].to_pylist())[:20]
    facts = errors.to_dict()
    assert sum(pair["rows"] for pair in facts["pairs"]) == pytest.approx(
        facts["estimated_wrong"], abs=3
    )


def test_batches_change_nothing_and_a_seed_does(tmp_path: Path) -> None:
    rows = table(600)
    one = search(rows, tmp_path / "a")
    other = search(rows, tmp_path / "b", at_once=600)
    seeded = search(rows, tmp_path / "c", replace(OPTIONS, seed=1))
    assert one.ranked["row_id"].equals(other.ranked["row_id"])
    assert one.rule.to_dict()["thresholds"] != seeded.rule.to_dict()["thresholds"]


def test_rows_without_a_label_are_not_judged(tmp_path: Path) -> None:
    rows = table(300)
    gone = pa.array(
        [None if i < 50 else v for i, v in enumerate(rows["kind"].to_pylist())]
    )
    lacking = rows.set_column(rows.column_names.index("kind"), "kind", gone)
    errors = search(lacking, tmp_path / "a")
    assert (errors.rows, errors.unlabelled) == (250, 50)
    first = set(rows["row_id"].to_pylist()[:50])
    assert not first & set(pq.read_table(errors.file)["row_id"].to_pylist())


def test_ranked_by_the_margin(tmp_path: Path) -> None:
    options = replace(OPTIONS, rank="normalised_margin")
    ranked = search(table(600), tmp_path / "a", options).ranked["normalised_margin"]
    assert ranked.to_pylist() == sorted(ranked.to_pylist())
    assert all(0 <= value < 0.5 for value in ranked.to_pylist())


def test_labels_that_nothing_tells_of_are_said_to_be_so(tmp_path: Path) -> None:
    rows = table(400)
    chance = np.random.default_rng(0).choice(["a", "b"], 400, p=[0.8, 0.2])
    blind = rows.set_column(rows.column_names.index("kind"), "kind", pa.array(chance))
    assert search(blind, tmp_path / "a").to_dict()["estimate"] == "none"
    assert search(rows, tmp_path / "b").to_dict()["estimate"] == "about"


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (pa.array([["a", "b"]] * 40), "not a set of labels"),
        (
            pa.array(np.linspace(0, 1, 40)),
            "which are texts, whole numbers or truth values",
        ),
        (pa.array(["a"] * 40), "has 1 different values in 40 rows"),
        (pa.array([str(i) for i in range(40)]), ""),
        (pa.array(["a", "b"] + [None] * 38, pa.string()), "in 2 rows: at least"),
    ],
)
def test_what_is_no_class_is_refused(
    column: pa.Array, sentence: str, tmp_path: Path
) -> None:
    rows = pa.table({"row_id": sorted(ids(40)), "size": np.arange(40.0), "kind": column})
    options = replace(OPTIONS, inputs=("size",))
    if not sentence:
        # Forty classes of one row each: nothing can be said, and nothing is.
        assert search(rows, tmp_path / "a", options).suspects == 0
        return
    with pytest.raises(ContractError, match=sentence):
        search(rows, tmp_path / "a", options)


def test_many_values_and_nothing_to_read_are_refused(tmp_path: Path) -> None:
    many = pa.array([str(i) for i in range(400)])
    rows = pa.table({"row_id": sorted(ids(400)), "size": [b"x"] * 400, "kind": many})
    with pytest.raises(ContractError, match="no column is left"):
        search(rows, tmp_path / "a", replace(OPTIONS, inputs=("size",)))
    rows = rows.set_column(1, "size", pa.array(np.arange(400.0)))
    with pytest.raises(ContractError, match="400 different values, more than the 300"):
        search(rows, tmp_path / "b", replace(OPTIONS, inputs=("size",)))
