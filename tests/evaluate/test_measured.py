"""What is measured: which rows, how many of them, and by which metrics."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from penstock.core.events import Events
from penstock.evaluate import answers as answers_module
from penstock.evaluate import evaluate, report_markdown, training
from penstock.metrics import measure
from tests.evaluate.judged import INPUTS, PAY, Model, Rows, fitted, knows, people, recipe


def test_what_is_measured_is_what_measure_says(good):
    result, test, _ = good
    truth = np.array([p == "high" for p in test.column("pay").to_pylist()])
    assert (
        result["rows"] == len(test)
        and result["refused"] == 0
        and result["split"] == "test"
    )
    assert (
        result["metrics"]["test"]["pay"]["roc_auc"]
        == measure(["roc_auc"], truth, {"probability": knows(test)["pay.probability"]})[
            "roc_auc"
        ]
    )
    low, high = result["intervals"]["pay"]["roc_auc"]
    assert low < result["metrics"]["test"]["pay"]["roc_auc"] < high
    assert result["overlap"] == {"rows": 3} and result["classes"]["pay"] == [
        "low",
        "high",
    ]
    json.dumps(result, allow_nan=False)


def test_numbers_and_categories_with_weights_and_several_targets():
    def add(table):
        return table.append_column("w", pa.array(np.tile([1.0, 2.0], len(table) // 2)))

    train, test = add(people(1_200, 1)), add(people(600, 2))
    targets = {"euros": "number", "city": "category"}

    def answer(table):
        cities = sorted({"Bergen", "Oslo", "Tromsø", "Voss"})
        right = np.array([cities.index(c) for c in table.column("city").to_pylist()])
        sure = np.full((len(table), 4), 0.1)
        sure[np.arange(len(table)), right] = 0.7
        return {
            "euros.value": table.column("euros").to_numpy() + 10,
            "city.probabilities": sure,
        }

    result = evaluate(
        Model(fitted({"age": "number"}, targets, train, weight="w"), answer),
        Rows(train=train, test=test),
        recipe(),
        Events(),
    )
    euros = result["metrics"]["test"]["euros"]
    assert (
        euros["mae"] == pytest.approx(10, rel=1e-3)
        and result["metrics"]["test"]["city"]["accuracy"] == 1
    )
    mean = np.average(
        train.column("euros").to_numpy(), weights=train.column("w").to_numpy()
    )
    truth, weight = test.column("euros").to_numpy(), test.column("w").to_numpy()
    assert result["baseline"]["euros"]["mae"] == pytest.approx(
        np.average(np.abs(truth - mean), weights=weight), rel=1e-4
    )
    assert set(result["classical"]) >= {"euros", "city"}
    assert "It is also clearly better than gradient boosting" in result["verdict"]


def test_rows_that_a_feature_refuses_are_counted_and_not_measured():
    train = people(600, 1)
    test = people(300, 2)
    spoilt = test.set_column(
        test.column_names.index("age"),
        "age",
        pa.array(
            [
                "old" if i % 10 == 0 else str(a) if a is not None else None
                for i, a in enumerate(test.column("age").to_pylist())
            ]
        ),
    )
    spoilt = spoilt.set_column(
        spoilt.column_names.index("pay"),
        "pay",
        pa.array(
            [
                "medium" if i == 1 else p
                for i, p in enumerate(spoilt.column("pay").to_pylist())
            ]
        ),
    )

    def answer(table):
        assert "old" not in table.column("age").to_pylist()
        return {"pay.probability": np.full(len(table), 0.4)}

    said = []
    result = evaluate(
        Model(fitted(INPUTS, PAY, train), answer),
        Rows(train=train, test=spoilt),
        recipe(baselines=False),
        Events(said.append),
    )
    assert result["refused"] == 31 and result["rows"] == 269
    warned = [e.fields["text"] for e in said if e.name == "warned"]
    assert any("31 rows of the test split could not be answered" in w for w in warned)
    # all of them have a truth: "medium" is a class that training never saw
    assert result["plain"]["pay"]["unanswered"] == 31
    accuracy = result["metrics"]["test"]["pay"]["accuracy"]
    whole = result["plain"]["pay"]["whole"]["accuracy"]
    assert whole == pytest.approx(accuracy * 269 / 300)
    report = report_markdown(result)
    assert report.index("It is right for") < report.index("There is no comparison")
    assert "This counts 31 rows that it cannot answer" in report
    assert any("old" in reason for reason in result["refused_reasons"])


def test_an_empty_test_split_gives_way_to_validation_aloud():
    train = people(400, 1)
    said = []
    result = evaluate(
        Model(fitted(INPUTS, PAY, train), knows),
        Rows(train=train, validation=people(100, 2), test=people(0, 3)),
        recipe(),
        Events(said.append),
    )
    assert (
        result["split"] == "validation"
        and list(result["metrics"]) == ["validation"]
        and result["rows"] == 100
    )
    assert any(
        "validation split was measured instead" in e.fields["text"]
        for e in said
        if e.name == "warned"
    )
    nothing = evaluate(
        Model(fitted(INPUTS, PAY, train), knows),
        Rows(train=train, validation=people(0, 2), test=people(0, 3)),
        recipe(),
        Events(),
    )
    assert (
        nothing["rows"] == 0
        and "Nothing was measured" in nothing["verdict"]
        and report_markdown(nothing)
    )


def test_answers_that_are_not_finite_are_told():
    train = people(400, 1)
    result = evaluate(
        Model(
            fitted(INPUTS, PAY, train),
            lambda table: {"pay.probability": np.full(len(table), np.nan)},
        ),
        Rows(train=train, test=people(200, 2)),
        recipe(),
        Events(),
    )
    assert (
        result["metrics"]["test"]["pay"]["accuracy"] is None
        and "not finite" in result["verdict"]
    )
    json.dumps(result, allow_nan=False)


def test_a_split_larger_than_the_sample_is_measured_whole_and_sampled_evenly(monkeypatch):
    monkeypatch.setattr(answers_module, "SAMPLE", 1_000)
    train, test = people(800, 1), people(4_000, 2)
    result = evaluate(
        Model(fitted(INPUTS, PAY, train), knows),
        Rows(train=train, test=test),
        recipe(slices=["city"]),
        Events(),
    )
    truth = np.array([p == "high" for p in test.column("pay").to_pylist()])
    assert (
        result["metrics"]["test"]["pay"]["accuracy"]
        == measure(["accuracy"], truth, {"probability": knows(test)["pay.probability"]})[
            "accuracy"
        ]
    )
    assert 850 < result["sampled_rows"] < 1_150 and result["rows"] == 4_000
    low, high = result["intervals"]["pay"]["accuracy"]
    assert low < result["metrics"]["test"]["pay"]["accuracy"] < high and high - low < 0.05
    assert "uniform sample" in report_markdown(result)


def test_evaluation_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; import penstock.evaluate, penstock.metrics,"
        " penstock.inspect; assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_at_hand_are_as_many_as_their_bytes_allow(monkeypatch):
    rows = people(4_000, 1)
    dataset, encoding = Rows(train=rows), fitted(INPUTS, PAY, rows)
    whole = training.split_rows(encoding, dataset, "train", limit=10_000)
    assert len(whole) == len(whole.truth["pay"]) == whole.total == 4_000
    held = sum(each.nbytes for each in (*whole.columns.values(), *whole.truth.values()))
    monkeypatch.setattr(training, "MOST_BYTES", held // 3)
    dataset.batches = lambda split, *, columns, rows: Rows.batches(
        dataset, split, columns=columns, rows=min(rows, 700)
    )
    fewer = training.split_rows(encoding, dataset, "train", limit=10_000)
    assert 500 < len(fewer.truth["pay"]) == len(fewer) < 4_000 // 2
    again = training.split_rows(encoding, dataset, "train", limit=10_000)
    assert all(fewer.columns[name].equals(again.columns[name]) for name in fewer.columns)
    assert {value.as_py() for value in fewer.columns["age"]} <= {
        value.as_py() for value in whole.columns["age"]
    }


def test_the_sample_is_as_large_as_its_bytes_allow(monkeypatch):
    train, test = people(2_000, 1), people(4_000, 2)
    model = Model(fitted(INPUTS, PAY, train), knows)
    whole = evaluate(
        model, Rows(train=train, test=test), recipe(baselines=False), Events()
    )
    monkeypatch.setattr(answers_module, "SAMPLE_BYTES", test.nbytes // 6)
    monkeypatch.setattr(answers_module, "BATCH", 500)
    fewer = evaluate(
        model, Rows(train=train, test=test), recipe(baselines=False), Events()
    )
    assert not whole.get("sampled_rows") and 500 < fewer["sampled_rows"] < 2_500
    # measured on all rows, as before
    assert fewer["rows"] == 4_000 and fewer["metrics"]["test"]["pay"][
        "roc_auc"
    ] == pytest.approx(whole["metrics"]["test"]["pay"]["roc_auc"])
    assert fewer["intervals"]["pay"]["roc_auc"] != whole["intervals"]["pay"]["roc_auc"]


def test_rows_without_a_truth_are_not_counted_as_wrong():
    train, test = people(600, 1), people(300, 2)
    pays = test.column("pay").to_pylist()
    place = test.column_names.index("pay")
    spoilt = test.set_column(place, "pay", pa.array([None, *pays[1:]]))
    result = evaluate(
        Model(fitted(INPUTS, PAY, train), knows),
        Rows(train=train, test=spoilt),
        recipe(baselines=False),
        Events(),
    )
    assert result["refused"] == 1 and result["plain"]["pay"]["unanswered"] == 0
    assert "whole" not in result["plain"]["pay"]


def test_a_figure_without_a_value_is_left_out_with_the_reason():
    train, test = people(600, 1), people(300, 2)
    place = test.column_names.index("pay")
    low = test.set_column(place, "pay", pa.array(["low"] * len(test)))
    result = evaluate(
        Model(fitted(INPUTS, PAY, train), knows),
        Rows(train=train, test=low),
        recipe(baselines=True),
        Events(),
    )
    assert "undefined" not in result["verdict"]
    assert "roc_auc cannot be computed on these rows" in result["verdict"]
    report = report_markdown(result)
    assert "roc\\_auc is left out" in report or "roc_auc is left out" in report
    assert "| roc_auc |" not in report and "undefined" not in report
