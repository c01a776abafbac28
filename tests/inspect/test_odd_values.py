"""Values that are allowed and rare: `init` drafts a recipe for them, or says why it cannot."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import penstock
from penstock.inspect import look
from tests.inspect.inspected import recipe_of
from tests.inspect.leaky_tables import table_of

_ROWS = 200
_Y = ["ab"[i % 2] for i in range(_ROWS)]


def _judged(**columns):
    findings = look(table_of({**columns, "y": columns.get("y", _Y)}), target="y")
    return {f.column: f for f in findings.columns}, findings


def test_vectors_of_whole_numbers_are_held_against_the_target():
    chance = np.random.default_rng(0)
    vectors = [[int(v), 3] for v in chance.integers(0, 9, _ROWS)]
    telling = [[int(v), "ab".index(y)] for (v, _), y in zip(vectors, _Y, strict=True)]
    columns, _ = _judged(v=vectors, w=telling, n=[[1, None], [2, 3]] * (_ROWS // 2))
    assert columns["v"].type == "vector" and columns["n"].type is None
    assert columns["w"].role == "leak"


def test_lists_of_objects_of_whole_numbers():
    columns, _ = _judged(v=[[{"a": 1}, {"a": i}] for i in range(_ROWS)])
    assert columns


@pytest.mark.parametrize(("different", "kind"), [(_ROWS, None), (3, "category")])
def test_digits_by_the_hundred_are_no_number(different, kind):
    texts = ["9" * 390 + f"{i % different:010d}" for i in range(_ROWS)]
    columns, _ = _judged(v=texts, w=list(range(_ROWS)))
    assert columns["v"].type == kind


def test_digits_by_the_hundred_as_a_target_are_classes():
    _, findings = _judged(
        x=list(range(_ROWS)), y=[f"{i % 3 + 1}" * 400 for i in range(_ROWS)]
    )
    assert findings.target.type == "category"


def test_values_near_the_end_of_a_double_are_no_clue_and_warn_of_nothing():
    chance = np.random.default_rng(0)
    one, other, y = chance.uniform(-1, 1, (3, _ROWS)) * 1.7e308
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        columns, findings = _judged(one=one, other=other, y=y)
    assert {f.type for f in columns.values()} == {"number"}
    assert findings.target.type == "number" and "mean" in findings.target.why
    assert "inf" not in findings.target.why


def test_a_class_that_is_a_large_double_is_drafted_as_its_column_spells_it():
    y = np.where(np.arange(_ROWS) % 10 == 0, -1e308, 5e307)
    draft = penstock.init(table_of({"x": np.arange(_ROWS) % 7, "y": y}), target="y")
    assert not draft.problems and len(str(draft)) < 2_000


@pytest.mark.parametrize(
    ("name", "drafted"),
    [("nul", "my-nul"), ("COM1.csv", "my-COM1.csv"), (".a.", "a"), ("...", "unnamed")],
)
def test_a_drafted_name_loads_on_every_system(name, drafted):
    findings = look(table_of({"x": list(range(_ROWS)), "y": _Y}), target="y")
    assert recipe_of(findings, name=name)[0].name == drafted
