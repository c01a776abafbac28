"""Classes balanced, samples of groups, scripts, boilerplate."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa
import pytest

from penstock.core.errors import ContractError, RecipeError
from penstock.parts.cleaners.script import script_of
from tests.data.lake import Lake, adds_up, quarantine, rows

HALVES = {"train": 0.6, "validation": 0, "test": 0.4}


@pytest.fixture
def lake(tmp_path):
    lake = Lake(tmp_path)
    labels = ["rare"] * 20 + ["usual"] * 60 + ["common"] * 220 + [None] * 5
    lake.put("rows.parquet", pa.table({"y": labels, "w": [1.0] * len(labels)}))
    return lake


def classes(dataset, split):
    return Counter(dataset.table(split)["y"].to_pylist())


def test_balance_leaves_out_rows_of_common_classes_in_training(lake):
    plain = lake.prepare(split=HALVES)
    dataset = lake.prepare(
        split=HALVES, clean=[{"type": "balance", "by": "y", "ratio": 2}]
    )
    assert adds_up(dataset) and classes(dataset, "test") == classes(plain, "test")
    least = classes(plain, "train")["rare"]
    assert classes(dataset, "train") == {
        name: min(n, 2 * least) if name else n
        for name, n in classes(plain, "train").items()
    }
    gone = plain.counts["train"] - dataset.counts["train"]
    assert dataset.counts["filtered"] == gone > 50
    aside = lake.prepare(
        split=HALVES,
        clean=[{"type": "balance", "by": "y", "ratio": 2, "on_violation": "quarantine"}],
    )
    assert adds_up(aside) and aside.counts["quarantined"] == gone
    assert "that its class keeps" in quarantine(aside)[0]["reason"]


def test_weights_of_classes_are_alike_and_one_on_average(lake):
    clean = [{"type": "balance", "by": "y", "method": "weights"}]
    dataset = lake.prepare(split=HALVES, clean=clean, weight="w")
    sums = Counter()
    train = [row for row in rows(dataset) if row["split"] == "train" and row["y"]]
    for row in train:
        sums[row["y"]] += row["w"]
    assert all(total == pytest.approx(len(train) / 3) for total in sums.values())
    others = [r["w"] for r in rows(dataset) if r["split"] == "test" or r["y"] is None]
    assert set(others) == {1.0}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({"method": "weights", "on_violation": "drop"}, "sends no row away"),
        ({"method": "weights", "ratio": 2}, "is for `method: under`"),
        ({"method": "weights", "factor": 0.5}, "is worked out by"),
        ({"method": "weights"}, "has no column of weights"),
        ({"method": "over"}, "method"),
    ],
)
def test_mistakes_of_balance_are_sentences(lake, words, problem):
    with pytest.raises(RecipeError, match=problem):
        lake.recipe(clean=[{"type": "balance", "by": "y", **words}])


def test_a_share_of_each_group_is_exact(lake):
    dataset = lake.prepare(
        clean=[{"type": "sample", "share": 0.25, "by": "y"}],
        split={"train": 1, "validation": 0, "test": 0},
    )
    assert adds_up(dataset)
    assert classes(dataset, "train") == {"rare": 5, "usual": 15, "common": 55, None: 1}


def test_texts_in_other_scripts_are_put_aside(lake):
    texts = [
        "plain words",
        "Привет, мир",
        "naïve ß",
        "12 + 30",
        None,
        "",
        "日本語です",
        "αβγ abc",
    ]
    lake.put("rows.parquet", pa.table({"i": range(len(texts)), "t": texts}))
    judge = {"type": "script", "columns": "t", "scripts": "latin", "share": 0.6}
    dataset = lake.prepare(clean=[judge])
    assert adds_up(dataset)
    reasons = {row["line"] - 1: row["reason"] for row in quarantine(dataset)}
    assert reasons.keys() == {1, 6, 7}
    assert (
        reasons[7]
        == "has 50% of its letters in latin, expected at least 60%; most are latin"
    )
    assert "most are cyrillic" in reasons[1]
    judge["scripts"] = ["han", "hiragana"]
    assert 6 not in {r["line"] - 1 for r in quarantine(lake.prepare(clean=[judge]))}
    with pytest.raises(ContractError, match="'i' holds int64; expected texts"):
        lake.prepare(clean=[{**judge, "columns": "i"}])
    with pytest.raises(RecipeError, match="scripts"):
        lake.recipe(clean=[{**judge, "scripts": "klingon"}])


def test_the_script_of_a_letter():
    letters = {
        "a": "latin",
        "Ａ": "latin",
        "я": "cyrillic",
        "字": "han",
        "カ": "katakana",
        "7": "",
    }
    assert {letter: script_of(letter) for letter in letters} == letters


def test_lines_of_many_texts_are_taken_out(lake):
    footer = "Sent from my pocket telephone"
    texts = [f"Hello number {i}\n\nYes\n  {footer} \n" for i in range(40)]
    texts += [footer, "no such line\r\nhere", None, f"Once: {footer}"]
    lake.put("rows.parquet", pa.table({"i": range(len(texts)), "t": texts}))
    dataset = lake.prepare(
        clean=[{"type": "boilerplate", "columns": "t"}],
        split={"train": 1, "validation": 0, "test": 0},
    )
    assert adds_up(dataset)
    mended = {row["i"]: row["t"] for row in rows(dataset)}
    assert mended[7] == "Hello number 7\n\nYes"
    # All of it gone is missing; a text without the line is as it was.
    assert [mended[i] for i in range(40, 44)] == [None, texts[41], None, texts[43]]
    changes = json.loads((dataset.path / "changes.json").read_text("utf-8"))["clean"][0]
    assert changes["cells"] == {"t": 41} and changes["notes"] == {"lines of t": 1}
    assert footer not in json.dumps(dataset.manifest)
