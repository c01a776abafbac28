"""Leaks are left out with the right reason, and honest columns stay."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.inspect import look, write_recipe
from tests.inspect.leaky_tables import CLEAN, LEAKY, table_of


def test_there_are_thirty_of_each():
    assert len(LEAKY) == len(CLEAN) == 30


@pytest.mark.parametrize("name", LEAKY)
def test_a_planted_leak_is_left_out_with_its_reason(name):
    planted = LEAKY[name](np.random.default_rng(7))
    findings = look(table_of(planted.columns), target=planted.target)
    out = {f.column: f for f in findings.left_out}
    assert planted.out <= set(out), {
        f.column: f.why for f in findings.inputs if f.column in planted.out
    }
    assert all(out[c].role == "leak" and out[c].loud for c in planted.out)
    assert any(planted.word in out[c].why for c in planted.out), [
        out[c].why for c in planted.out
    ]
    others = {f.column for f in findings.columns if f.role == "leak"} - planted.out
    assert not others, {c: out[c].why for c in others}


def test_honest_columns_stay():
    alarms = {
        (name, f.column): f.why
        for name, make in CLEAN.items()
        for case in [make(np.random.default_rng(7))]
        for f in look(table_of(case.columns), target=case.target).left_out
        if f.column not in case.may_go and f.role == "leak"
    }
    assert not alarms


def _look(chance, rows=600, **columns):
    """Judge columns beside two honest ones."""
    honest = {"a": chance.normal(size=rows), "b": chance.choice(list("xyz"), rows)}
    findings = look(table_of({**honest, **columns}), target="y")
    assert {"a", "b"} <= {f.column for f in findings.inputs}
    return {f.column: f for f in findings.columns}


def test_flags_of_all_classes_but_one_leave_nothing_to_be_told():
    chance = np.random.default_rng(1)
    y = chance.choice(["u", "v", "w"], 600)
    found = _look(chance, f1=(y == "u").astype(int), f2=(y == "v").astype(int), y=y)
    assert found["f1"].role == found["f2"].role == "leak"


def test_kinds_of_failure_that_together_are_the_failure():
    chance = np.random.default_rng(2)
    kinds = chance.random((3, 4_000)) < 0.015
    flags = {f"k{i}": kind.astype(int) for i, kind in enumerate(kinds)}
    found = _look(chance, 4_000, **flags, y=kinds.any(axis=0))
    assert all(found[name].role == "leak" for name in flags)


def test_a_number_in_a_text():
    chance = np.random.default_rng(3)
    stars = chance.integers(1, 6, 600)
    words = chance.choice(["good", "bad", "place", "food"], (600, 6))
    text = [
        f"{' '.join(w)}, I rate it {s} of 5" for w, s in zip(words, stars, strict=True)
    ]
    found = _look(chance, text=text, y=stars)
    assert found["text"].role == "leak" and "first number" in found["text"].why


def test_a_list_that_is_empty_in_one_class():
    chance = np.random.default_rng(4)
    y = chance.random(600) < 0.4
    codes = chance.choice(["E1", "E2", "E3"], (600, 2)).tolist()
    errors = [code if v else [] for v, code in zip(y, codes, strict=True)]
    assert _look(chance, errors=errors, y=y)["errors"].role == "leak"


def test_moments_near_each_other_are_a_warning_to_split_by_time():
    chance = np.random.default_rng(5)
    state = np.repeat(chance.random(30) < 0.5, 40)
    when = np.datetime64("2024-01-01", "s") + np.arange(1_200) * np.timedelta64(600, "s")
    found = _look(chance, 1_200, when=when, y=state)
    assert found["when"].type == "timestamp" and found["when"].loud
    assert "Split by time" in found["when"].why


def test_the_path_of_a_rows_own_file_is_no_input():
    chance = np.random.default_rng(6)
    path = [f"pool/{i % 40}/{i}.txt" for i in range(600)]
    text = [
        " ".join(w) for w in chance.choice(["good", "dull", "film", "plot"], (600, 9))
    ]
    found = _look(chance, path=path, content=text, y=chance.choice(["p", "n"], 600))
    assert found["path"].type is None and found["content"].type == "text"


def test_where_nothing_else_is_left_the_weakest_leak_stays_and_a_note_says_so():
    chance = np.random.default_rng(7)
    casual, registered = chance.poisson(40, 500), chance.poisson(90, 500)
    table = {"casual": casual, "registered": registered, "total": casual + registered}
    findings = look(table_of(table), target="total")
    assert [f.column for f in findings.inputs] == ["casual"] and findings.inputs[0].loud
    assert "gives the target away" in findings.inputs[0].why
    assert any("weakest evidence" in note for note in findings.notes)


def test_no_split_is_proposed_on_a_leak():
    chance = np.random.default_rng(8)
    y = chance.random(1_000) < 0.5
    days = np.datetime64("2024-01-01", "s") + chance.integers(0, 10**7, 1_000)
    ended = [v if gone else None for v, gone in zip(days.tolist(), y, strict=True)]
    columns = {"x": chance.normal(size=1_000), "ended": ended, "y": y}
    findings = look(table_of(columns), target="y")
    text = write_recipe(
        findings, source_declaration={"type": "files", "path": "x.csv"}, name="n"
    )
    assert [f.column for f in findings.left_out] == ["ended"]
    assert "on: ended" not in text


def test_what_is_particular_to_a_group_does_not_shine_by_memory():
    chance = np.random.default_rng(9)
    who = chance.integers(0, 40, 1_200)
    height = chance.normal(172, 9, 40)[who].round(2)
    y = (chance.random(40) < 0.5)[who]
    found = _look(chance, 1_200, patient=[f"p{w}" for w in who], height=height, y=y)
    assert found["patient"].role == "leak"
    assert "one side of the split" in found["patient"].why
    assert found["height"].type == "number"


def test_flags_of_the_labels_of_a_set():
    chance = np.random.default_rng(10)
    names = ["red", "blue", "pink", "grey"]
    there = chance.random((4, 600)) < 0.4
    flags = {f"has_{name}": row for name, row in zip(names, there, strict=True)}
    labels = [[n for n, t in zip(names, row, strict=True) if t] for row in there.T]
    found = _look(chance, **flags, y=labels)
    assert all(found[name].role == "leak" for name in flags)
