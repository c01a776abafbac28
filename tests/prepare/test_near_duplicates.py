"""Near duplicates: MinHash against exact Jaccard, and what becomes of a group."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.minhash import band_keys, jaccard, normal, shingles, signatures
from penstock.core.errors import ContractError
from tests.data.lake import Lake, adds_up, quarantine, rows

CHANCE = random.Random(5)
WORDS = [
    "".join(CHANCE.choices("abcdefghijklmnop", k=CHANCE.randint(2, 9)))
    for _ in range(900)
]


def sentence(words: int, chance: random.Random = CHANCE) -> list[str]:
    return chance.choices(WORDS, k=words)


def copies(count: int, words: int, seed: int) -> list[str]:
    """Texts, and with each a copy of it with some words changed."""
    chance = random.Random(seed)
    texts = []
    for i in range(count):
        text = sentence(words, chance)
        other = list(text)
        for _ in range(i % (words // 2)):
            other[chance.randrange(words)] = chance.choice(WORDS)
        texts += [" ".join(text), " ".join(other)]
    return texts


def nearly(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    pairs = combinations(range(len(texts)), 2)
    return {
        (a, b)
        for a, b in pairs
        if jaccard(normal(texts[a]), normal(texts[b]), 5) >= threshold
    }


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 2**30), st.sampled_from([6, 15, 40]), st.sampled_from([0.5, 0.8]))
def test_candidates_hold_nearly_every_pair(seed, words, threshold):
    texts = copies(80, words, seed)
    keys = band_keys(signatures(texts, 5), threshold)
    pairs = [(i, i + 1) for i in range(0, len(texts), 2)]
    alike = [p for p in pairs if jaccard(texts[p[0]], texts[p[1]], 5) >= threshold]
    caught = [p for p in alike if (keys[p[0]] == keys[p[1]]).any()]
    assert len(alike) - len(caught) <= 1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=12))
def test_a_signature_is_of_its_text_alone(texts):
    together = signatures(texts, 3)
    for text, signature in zip(texts, together, strict=True):
        assert (signatures([text], 3)[0] == signature).all()


def test_signatures_are_equal_in_the_share_of_common_shingles():
    texts = copies(300, 30, seed=2)
    signature = signatures(texts, 5)
    exact = [jaccard(a, b, 5) for a, b in zip(texts[::2], texts[1::2], strict=True)]
    shared = (signature[::2] == signature[1::2]).mean(axis=1)
    assert np.abs(shared - exact).mean() < 0.04 and np.abs(shared - exact).max() < 0.2


def test_jaccard_counts_shingles():
    assert shingles("abcd", 3) == {"abc", "bcd"} and shingles("ab", 3) == {"ab"}
    assert jaccard("abcd", "bcde", 3) == 1 / 3
    assert jaccard("", "", 3) == 0 and jaccard("ab", "ab", 3) == 1


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path)


def test_rows_that_leave_are_those_that_an_exact_comparison_finds(lake):
    texts = copies(60, 20, seed=9)
    lake.put("rows.parquet", pa.table({"i": range(len(texts)), "t": texts}))
    dataset = lake.prepare(clean=[{"type": "near_duplicates", "columns": "t"}])
    assert adds_up(dataset)
    gone = {row["line"] - 1 for row in quarantine(dataset)}
    assert gone == {b for _, b in nearly(texts, 0.8)} and len(gone) > 10
    ids = {row["row_id"]: row["i"] for row in rows(dataset)}
    for row in quarantine(dataset):
        # The reason names the row that stayed.
        assert ids[row["reason"].split("'")[1]] == row["line"] - 2
        assert row["column"] == "t" and row["rules"][0]["rule"] == "near_duplicates"


def test_a_group_has_one_row_whatever_its_links(lake):
    text = sentence(60)
    chain = []
    for i in range(9):
        chain.append(" ".join(text))
        text[i * 6 : i * 6 + 3] = sentence(3)
    equal = ["  THE same text, again ", "the same text, again"] * 30
    lake.put("rows.parquet", pa.table({"t": [*chain, *equal, None, "", "", "x", "X"]}))
    dataset = lake.prepare(
        clean=[{"type": "near_duplicates", "columns": "t", "on_violation": "drop"}],
    )
    # Missing and empty texts are compared with nothing.
    kept_texts = {row["t"] for row in rows(dataset)}
    assert kept_texts == {chain[0], equal[0], None, "", "x"}
    assert adds_up(dataset) and dataset.counts["duplicates"] == 8 + 59 + 1


def test_a_given_test_is_not_touched_and_training_rows_near_it_leave(lake):
    text = " ".join(sentence(30))
    columns = {
        "t": [text, text + " x", "another one", text, text + " y"],
        "s": ["train", "train", "train", "test", "test"],
    }
    lake.put("rows.parquet", pa.table(columns))
    dataset = lake.prepare(
        clean=[{"type": "near_duplicates", "columns": "t"}],
        split={"by": "column", "on": "s", "train": 0.5, "validation": 0, "test": 0.5},
    )
    assert adds_up(dataset) and dataset.counts["test"] == 2
    assert [row["t"] for row in dataset.table("train").to_pylist()] == ["another one"]


def test_columns_of_numbers_are_refused(lake):
    lake.put("rows.parquet", pa.table({"n": [1, 2]}))
    with pytest.raises(ContractError, match="'n' holds int64; expected texts"):
        lake.prepare(clean=[{"type": "near_duplicates", "columns": "n"}])
