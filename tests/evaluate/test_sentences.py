"""A report says in sentences what the figures mean, and no more."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from penstock.core.events import Events
from penstock.evaluate import evaluate, report_markdown
from penstock.evaluate.classical_answers import Classical
from penstock.evaluate.compare import Difference, tiny, verdict
from penstock.evaluate.sentences import _advice
from penstock.evaluate.trivial import Trivial
from tests.evaluate.judged import (
    INPUTS,
    PAY,
    Model,
    Rows,
    fitted,
    knows,
    old_where,
    people,
    recipe,
)


def test_the_report_reads(good):
    result, _, said = good
    text = report_markdown(result)
    assert (
        "## pay" in text
        and "roc_auc" in text
        and "city = Oslo" in text
        and result["verdict"] in text
        and "| high |" in text
    )
    assert "| trivial |" in text
    assert any(
        e.name == "said" and e.fields["text"] == result["verdict"] for e in said
    ) and any(e.name == "progress" for e in said)


def test_where_there_is_no_signal_it_is_said():
    train, chance = people(1_000, 1, signal=0), np.random.default_rng(4)
    model = Model(
        fitted(INPUTS, {**PAY, "euros": "number"}, train),
        lambda table: {
            "pay.probability": chance.random(len(table)),
            "euros.value": chance.normal(size=len(table)) * 300,
        },
    )
    result = evaluate(
        model, Rows(train=train, test=people(600, 2, signal=0)), recipe(), Events()
    )
    pay, euros = result["verdict"].split("\neuros: ")
    assert (
        "pay: no signal was found. The network is not clearly better than always answering"
        in pay
    )
    # noise of 300 is worse than nothing, and no rival finds anything either
    assert euros.startswith("no signal was found. The network is clearly worse than")
    assert (
        abs(result["baseline"]["euros"]["r2"]) < 0.05
        and result["metrics"]["test"]["euros"]["r2"] < 0
    )


def test_a_model_that_missed_the_signal_is_told_apart_from_none():
    train, chance = people(2_000, 1), np.random.default_rng(4)
    model = Model(
        fitted(INPUTS, PAY, train),
        lambda table: {"pay.probability": chance.random(len(table))},
    )
    result = evaluate(model, Rows(train=train, test=people(800, 2)), recipe(), Events())
    assert "misses a signal that is in the data" in result["verdict"]


def test_a_report_begins_with_sentences_in_the_terms_of_the_question():
    train, test = people(1_200, 1), people(600, 2)

    def answer(table):
        euros = table.column("euros").to_numpy()
        shift = np.where(np.arange(len(table)) % 2, 3.0, 9.0)
        return {"euros.value": euros + shift, **knows(table)}

    result = evaluate(
        Model(fitted(INPUTS, {**PAY, "euros": "number"}, train), answer),
        Rows(train=train, test=test),
        recipe(),
        Events(),
    )
    lead = report_markdown(result).split("## ")[0]
    assert "The model predicts pay (one of two values) for 600 rows" in lead
    assert "Of 100 rows with pay = high it finds" in lead
    # half of the answers are 3 off, the others 9
    assert "within ±3.000 of the truth, and nine in ten within ±9.000" in lead
    assert "Always answering the mean" in lead and "Gradient boosting is within" in lead


def with_pay(table, pays):
    """The table with other truths."""
    return table.set_column(table.column_names.index("pay"), "pay", pa.array(pays))


def test_a_row_that_another_target_refuses_is_answered():
    targets = {**PAY, "kind": "category"}
    train, test = (
        people(n, n).append_column("kind", pa.array(["a", "b", "c"] * (n // 3)))
        for n in (600, 300)
    )
    place = test.column_names.index("kind")
    strange = ["new"] * 2 + test["kind"].to_pylist()[2:]
    odd = old_where(test.set_column(place, "kind", pa.array(strange)), {7})

    def answer(table):
        return {
            "pay.probability": np.full(len(table), 0.4),
            "kind.probabilities": np.full((len(table), 3), 1 / 3),
        }

    result = evaluate(
        Model(fitted(INPUTS, targets, train), answer),
        Rows(train=train, test=odd),
        recipe(baselines=False),
        Events(),
    )
    assert result["refused"] == 3
    assert result["plain"]["pay"]["unanswered"] == 1
    assert result["plain"]["kind"]["unanswered"] == 3


def test_positives_that_could_not_be_answered_are_not_said_to_be_absent():
    train, test = people(600, 1), people(300, 2)
    test = with_pay(test, ["high"] * 5 + ["low"] * 295)
    odd = old_where(test, set(range(5)))
    result = evaluate(
        Model(
            fitted(INPUTS, PAY, train),
            lambda table: {"pay.probability": np.full(len(table), 0.4)},
        ),
        Rows(train=train, test=odd),
        recipe(baselines=False),
        Events(),
    )
    report = report_markdown(result)
    assert "No row that could be answered has pay = high" in report
    assert "No row of the split" not in report


def test_shares_name_the_rows_that_they_count():
    train, test = people(600, 1), people(300, 2)
    result = evaluate(
        Model(
            fitted(INPUTS, PAY, train),
            lambda table: {"pay.probability": np.full(len(table), 0.9)},
        ),
        Rows(train=train, test=old_where(test, {0})),
        recipe(baselines=False),
        Events(),
    )
    report = report_markdown(result)
    assert "Of 100 rows with pay = high that it can answer it finds 100" in report
    assert "of 100 rows that it can answer have pay = high" in report


@pytest.mark.parametrize(
    ("high", "words"),
    [
        (0, "only one class occurs in 300 rows"),
        (1, "1 of 300 rows is of another class"),
    ],
)
def test_too_few_positives_decide_nothing(high, words):
    train = people(600, 1)
    test = with_pay(people(300, 2), ["high"] * high + ["low"] * (300 - high))
    first = test["row_id"].to_pylist()[0]

    def answer(table):
        is_first = np.array([each == first for each in table["row_id"].to_pylist()])
        return {"pay.probability": np.where(is_first, 0.9, 0.01).astype(np.float32)}

    result = evaluate(
        Model(fitted(INPUTS, PAY, train), answer),
        Rows(train=train, test=test),
        recipe(),
        Events(),
    )
    assert words in result["verdict"] and "clearly" not in result["verdict"]
    assert "Measure on more rows of the rarer classes" in report_markdown(result)


def test_a_network_worse_than_the_trivial_answer_is_said_to_be():
    chance = np.random.default_rng(0)
    truth = chance.normal(size=400)
    judged = SimpleNamespace(
        rows=400,
        sample_rows=400,
        kinds={"y": "number"},
        broken=[],
        metrics=lambda: {"y": {"r2": -1.0, "mae": 1.0}},
        truth={"y": truth},
        answers={"y": {"value": chance.normal(size=400)}},
        weight=None,
        thresholds={"y": 0.5},
        scales={},
        columns={},
    )
    trivial = {"y": Trivial("value", np.array(0.0), "always answering the mean")}
    line = verdict(
        judged, trivial, Classical(note="none"), resamples=60, confidence=0.95, seed=3
    )
    assert line.startswith("y: the network is clearly worse than always answering")
    assert "no signal" not in line
    (advice,) = _advice(
        {"verdict": line, "plain": {"y": {"kind": "number", "unanswered": 0}}}
    )
    assert advice.startswith("Train longer") and "data has changed" in advice
    (of_series,) = _advice(
        {"verdict": line, "plain": {"y": {"kind": "series", "unanswered": 0}}}
    )
    assert "`window`" in of_series


def test_small_figures_are_plain_unless_they_have_a_unit():
    assert tiny("log_loss", 6.3e-5) == "0.0001" and tiny("ece", 2e-6) == "<0.0001"
    assert tiny("mae", 6.3e-5) == tiny("log_loss", 0.2) == tiny("log_loss", 0.0) == ""
    assert str(Difference("roc_auc", 1.0, 1.0, 0.0, 0.0)).endswith(", difference 0")
    assert str(Difference("roc_auc", 1.0, 0.5, 0.5, 0.5)).endswith(", better by 0.500")
