"""Evaluation finds the slices where a model is worse, and none where there is none."""

from __future__ import annotations

import numpy as np

from penstock.core.events import Events
from penstock.evaluate import evaluate
from tests.evaluate.judged import INPUTS, PAY, Model, Rows, fitted, knows, people, recipe


def test_declared_slices_are_each_measured(good):
    result, test, _ = good
    declared = [s for s in result["slices"] if s["declared"]]
    assert {s["value"] for s in declared} == {"Bergen", "Oslo", "Tromsø", "Voss"} and sum(
        s["rows"] for s in declared
    ) == len(test)
    assert {
        "target",
        "column",
        "value",
        "rows",
        "metric",
        "value_of_metric",
        "whole",
    } <= declared[0].keys()
    oslo = next(s for s in declared if s["value"] == "Oslo")
    assert (
        oslo["whole"]
        == result["metrics"]["test"]["pay"]["roc_auc"]
        != oslo["value_of_metric"]
    )


def test_the_worst_slice_is_found():
    train = people(2_000, 1)
    model = Model(fitted(INPUTS, PAY, train), knows)
    result = evaluate(
        model,
        Rows(train=train, test=people(6_000, 5, signal=3, weak_city="Voss")),
        recipe(baselines=False),
        Events(),
    )
    found = [s for s in result["slices"] if not s["declared"]]
    assert any(s["column"] == "city" and s["value"] == "Voss" for s in found)
    assert all(
        s["value_of_metric"] < s["whole"] and s["rows"] >= 60 and s["chance"] < 0.01
        for s in found
    )
    gaps = [s["whole"] - s["value_of_metric"] for s in found]
    assert gaps == sorted(gaps, reverse=True)
    assert (
        result["baseline"] == {}
        and result["classical"] == {}
        and "There is no comparison" in result["verdict"]
    )


def test_no_slice_is_found_where_there_is_none():
    train, chance = people(1_000, 1, signal=0), np.random.default_rng(0)
    model = Model(
        fitted(INPUTS, PAY, train),
        lambda table: {"pay.probability": chance.random(len(table))},
    )
    found = [
        evaluate(
            model,
            Rows(train=train, test=people(2_000, seed, signal=0)),
            recipe(baselines=False, bootstrap=0),
            Events(),
        )["slices"]
        for seed in range(5)
    ]
    assert sum(map(len, found)) <= 1  # one in a hundred is let through by design


def test_a_slice_column_that_is_not_there_is_told():
    train = people(400, 1)
    result = evaluate(
        Model(fitted(INPUTS, PAY, train), knows),
        Rows(train=train, test=people(200, 2)),
        recipe(slices=["town", "citty"], baselines=False),
        Events(),
    )
    assert any(
        "'citty'" in n and "Did you mean 'city'" in n for n in result["notes"]
    ) and not any(s["declared"] for s in result["slices"])
