"""The cleaner `label_errors`: wrong labels of the training split leave or weigh less, and are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.core.errors import ContractError, RecipeError
from penstock.core.store import Store
from penstock.pipeline.quarantined import statistics
from tests.data.lake import Lake, adds_up, quarantine, rows
from tests.parts.sparks import ENGINE, differences

ROWS = 500
WORDS = {"type": "label_errors", "target": "kind", "using": ["size", "note"]}
HALVES = {"train": 0.6, "validation": 0.2, "test": 0.2}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Rows whose `kind` follows from the rest, but for every tenth."""
    lake = Lake(tmp_path)
    chance = np.random.default_rng(2)
    true = chance.integers(0, 2, ROWS)
    given = np.where(np.arange(ROWS) % 10 == 0, 1 - true, true)
    table = {
        "i": np.arange(ROWS),
        "size": chance.normal(0, 0.5, ROWS) + 2 * true,
        "note": np.array(["made of steel", "made of wool"])[true],
        "kind": np.array(["metal", "cloth"])[given],
        "w": np.ones(ROWS),
    }
    lake.put("rows.parquet", pa.table(table))
    return lake


def wrong(some: list[int]) -> float:
    return sum(i % 10 == 0 for i in some) / len(some)


def test_wrong_labels_of_the_training_split_are_put_aside(lake: Lake) -> None:
    dataset = lake.prepare(clean=[WORDS], split=HALVES)
    whole = lake.prepare(split=HALVES)
    assert adds_up(dataset)
    aside = [json.loads(row["row"])["i"] for row in quarantine(dataset)]
    split = {row["i"]: row["split"] for row in rows(whole)}
    assert {split[i] for i in aside} == {"train"}
    errors = [i for i in split if i % 10 == 0 and split[i] == "train"]
    assert wrong(aside) > 0.85 and len(set(errors) & set(aside)) > 0.8 * len(errors)
    for name in ("validation", "test"):
        assert dataset.table(name).equals(whole.table(name))
    row = quarantine(dataset)[0]
    assert (row["stage"], row["column"]) == ("clean", "kind")
    assert "the quick model, which has not seen the row, gives that" in row["reason"]
    assert statistics(dataset)["rules"][0]["rule"] == "label_errors"


def test_the_worst_share_alone(lake: Lake) -> None:
    dataset = lake.prepare(clean=[{**WORDS, "share": 0.05}])
    train = dataset.counts["train"] + dataset.counts["quarantined"]
    assert adds_up(dataset) and dataset.counts["quarantined"] == int(0.05 * train)


def test_they_may_weigh_less_instead(lake: Lake) -> None:
    words = {**WORDS, "on_violation": "weight", "factor": 0.1}
    dataset = lake.prepare(clean=[words], weight="w", split=HALVES)
    assert adds_up(dataset) and len(rows(dataset)) == ROWS
    light = [row for row in rows(dataset) if row["w"] == 0.1]
    assert {row["split"] for row in light} == {"train"}
    assert wrong([row["i"] for row in light]) > 0.85


def test_a_private_label_is_in_no_reason(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_KEY", "0123456789abcdef-of-the-tests")
    dataset = lake.prepare(clean=[WORDS], private={"kind": "pseudonym"})
    assert adds_up(dataset) and dataset.counts["quarantined"] > 10
    told = "".join(row["reason"] + row["row"] for row in quarantine(dataset))
    assert "metal" not in told and "cloth" not in told


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({"using": ["kind", "size"]}, "the labels themselves"),
        ({"folds": 1}, "folds"),
        ({"share": 0}, "share"),
        ({"target": None}, "target"),
        ({"on_violation": "weight"}, "has no column of weights"),
    ],
)
def test_mistakes_are_sentences(lake: Lake, words: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        lake.recipe(clean=[{**WORDS, **words}])


def test_a_number_is_no_label(lake: Lake) -> None:
    with pytest.raises(ContractError, match="'size' holds double"):
        lake.prepare(clean=[{**WORDS, "target": "size", "using": "note"}])


@pytest.mark.slow
@pytest.mark.long
def test_both_engines_find_the_same(lake: Lake) -> None:
    words: dict[str, Any] = {"clean": [{**WORDS, "share": 0.08}], "split": HALVES}
    one = lake.prepare(**words)
    # In the same store it would be taken as it is there.
    lake.store = Store(lake.folder / "other")
    other = lake.prepare(engine=ENGINE, **words)
    assert one.counts["quarantined"] and not differences(one, other)
