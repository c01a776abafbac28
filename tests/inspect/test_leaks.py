"""Leaks are left out with the right reason, and honest columns stay."""

from __future__ import annotations

import numpy as np
import pytest

from penstock.inspect import look
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
