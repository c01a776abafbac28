"""A near-perfect score names the inputs that alone give it, on the rows that were measured."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from penstock.core.events import Events
from penstock.evaluate import evaluate, report_markdown
from penstock.evaluate.giveaways import near_perfect
from tests.evaluate.judged import INPUTS, PAY, Model, Rows, fitted, people, recipe


def with_leak(table):
    """People, and two columns that are only known once the pay is."""
    high = np.array(table.column("pay").to_pylist()) == "high"
    bonus = [f"2024-05-{i % 28 + 1:02d}" if h else None for i, h in enumerate(high)]
    return table.append_column(
        "grade", pa.array(np.where(high, "G7", "G2"))
    ).append_column("bonus_at", pa.array(bonus))


@pytest.fixture(scope="module")
def report():
    train, test = with_leak(people(900, 1)), with_leak(people(600, 2))
    inputs = {**INPUTS, "grade": "category", "bonus_at": "timestamp"}

    def answers(table):
        grade = np.array(table.column("grade").to_pylist())
        return {"pay.probability": np.where(grade == "G7", 0.99, 0.01).astype(np.float32)}

    model = Model(fitted(inputs, PAY, train), answers)
    return evaluate(
        model,
        Rows(train=train, validation=test, test=test),
        recipe(baselines=False),
        Events(lambda _: None),
    )


def test_the_columns_that_give_it_are_in_the_record(report):
    assert {each["column"] for each in report["giveaways"]["pay"]} == {
        "grade",
        "bonus_at",
    }
    why = {each["column"]: each["why"] for each in report["giveaways"]["pay"]}
    assert "the target otherwise written" in why["grade"]
    assert "filled in or missing" in why["bonus_at"]


def test_and_in_a_sentence(report):
    short, line, advice = (
        line
        for line in report_markdown(report).splitlines()
        if "gives the answer away" in line
    )
    assert "Take out of" in advice and "train again" in advice
    assert "do not trust it" in short and "grade, bonus_at, each of which" in short
    assert (
        line.startswith("- pay: accuracy is 1")
        and "grade (" in line
        and "bonus_at" in line
    )


def test_an_honest_score_names_nothing():
    train, test = people(900, 1), people(600, 2)
    truth = np.array(test.column("pay").to_pylist()) == "high"
    result = evaluate(
        Model(
            fitted(INPUTS, PAY, train),
            lambda table: {"pay.probability": np.full(len(table), 0.5, np.float32)},
        ),
        Rows(train=train, validation=test, test=test),
        recipe(baselines=False),
        Events(lambda _: None),
    )
    assert result["giveaways"] == {} and 0.2 < truth.mean() < 0.8


def test_a_perfect_score_of_several_inputs_says_that_none_alone_gives_it():
    train, test = people(900, 1), people(600, 2)
    known = dict(
        zip(
            test.column("row_id").to_pylist(), test.column("pay").to_pylist(), strict=True
        )
    )
    result = evaluate(
        Model(
            fitted(INPUTS, PAY, train),
            lambda table: {
                "pay.probability": np.array(
                    [
                        float(known[i] == "high")
                        for i in table.column("row_id").to_pylist()
                    ],
                    np.float32,
                )
            },
        ),
        Rows(train=train, validation=test, test=test),
        recipe(baselines=False),
        Events(lambda _: None),
    )
    assert result["giveaways"] == {"pay": []}
    assert "No single input does so." in report_markdown(result)


def test_a_rare_class_makes_no_score_near_perfect():
    assert near_perfect({"accuracy": 0.996}, {"accuracy": 0.995}, 5_000) == ""
    assert near_perfect({"accuracy": 0.9996}, {"accuracy": 0.995}, 5_000) == "accuracy"
    assert near_perfect({"accuracy": 1.0}, {"accuracy": 1.0}, 5_000) == ""
    assert near_perfect({"r2": 0.999}, {}, 5_000) == "r2"
    assert near_perfect({"r2": 0.999}, {}, 20) == ""
