"""Evaluation: real features and encodings, made-up rows, and a stand-in for the model whose quality is known
beforehand.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from penstock.contracts.data import Feature
from penstock.core.events import Events
from penstock.encode.encoding import Encoding
from penstock.evaluate import answers as answers_module
from penstock.evaluate import classical as classical_module
from penstock.evaluate import evaluate, report_markdown, training
from penstock.evaluate.classical_answers import Classical
from penstock.evaluate.compare import Difference, tiny, verdict
from penstock.evaluate.sentences import _advice
from penstock.evaluate.trivial import Trivial
from penstock.metrics import measure
from penstock.recipe.schema import Evaluate


class Rows:
    """A dataset's face over tables in memory."""

    def __init__(self, **splits: pa.Table) -> None:
        self.tables = splits
        self.counts = {name: len(table) for name, table in splits.items()}
        self.schema = splits["train"].schema
        self.manifest = {"overlap": {"rows": 3}}

    def batches(self, split, *, columns=None, rows=65_536):
        yield from (
            self.tables[split]
            .select(columns or self.tables[split].column_names)
            .to_batches(max_chunksize=rows)
        )


class Model:
    """A bundle's face over a function from a table to answers."""

    def __init__(self, encoding, answer, decision=None):
        self.encoding, self._answer, self.decision = encoding, answer, decision or {}

    def predictor(self):
        return SimpleNamespace(answers=self._answer)


def fitted(inputs, targets, table, weight=None):
    """An encoding fitted on a table, as a feed does it."""
    sides = [
        {
            name: Feature.load(
                declared if isinstance(declared, dict) else {"type": declared}
            )
            for name, declared in side.items()
        }
        for side in (inputs, targets)
    ]
    learnt = {}
    for side, target in zip(sides, (False, True), strict=True):
        for name, feature in side.items():
            column, _ = feature.accept(
                [table.column(c).combine_chunks() for c in feature.columns(name)]
            )
            summary = feature.summary()
            good = column.is_valid()
            summary.update(
                column if not target else column.filter(good),
                (
                    table.column("row_id").combine_chunks()
                    if not target
                    else table.column("row_id").combine_chunks().filter(good)
                ),
            )
            learnt[name] = feature.fit(summary.result(), target=target)
    return Encoding(*sides, learnt, weight=weight)


def ids(rows, salt):
    return pa.array([hashlib.md5(f"{salt}{i}".encode()).hexdigest() for i in range(rows)])


def people(rows, seed, *, signal=1.5, weak_city=None):
    """Whether one earns much, by age and city; in `weak_city` only chance decides."""
    chance = np.random.default_rng(seed)
    age, city = (
        chance.uniform(18, 80, rows),
        np.array(["Bergen", "Oslo", "Tromsø", "Voss"])[chance.integers(0, 4, rows)],
    )
    odds = signal * ((age - 49) / 15 + (city == "Oslo"))
    if weak_city:
        odds = np.where(city == weak_city, 0, odds)
    high = chance.random(rows) < 1 / (1 + np.exp(-odds))
    return pa.table(
        {
            "row_id": ids(rows, f"{seed}-"),
            "age": pa.array(age, mask=chance.random(rows) < 0.05),
            "city": city,
            "pay": np.where(high, "high", "low"),
            "euros": odds * 100 + chance.normal(size=rows),
        }
    )


def knows(table, signal=1.5):
    """The model that knows how `people` were made."""
    age = np.nan_to_num(
        table.column("age").to_numpy(zero_copy_only=False).astype(float), nan=49.0
    )
    odds = signal * (
        (age - 49) / 15 + (np.array(table.column("city").to_pylist()) == "Oslo")
    )
    return {"pay.probability": (1 / (1 + np.exp(-odds))).astype(np.float32)}


def recipe(**words):
    return SimpleNamespace(
        evaluate=Evaluate(**{"bootstrap": 60, **words}), seed=3, samples=None
    )


INPUTS = {"age": "number", "city": "category"}
PAY = {"pay": {"type": "binary", "positive": "high"}}


@pytest.fixture(scope="module")
def good():
    train, test = people(3_000, 1), people(1_500, 2)
    data = Rows(train=train, validation=people(200, 3), test=test)
    model = Model(fitted(INPUTS, PAY, train), knows)
    said = []
    return evaluate(model, data, recipe(slices=["city"]), Events(said.append)), test, said


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


def test_beside_it_stand_the_trivial_and_the_classical_answer(good):
    result, _, _ = good
    baseline, classical = result["baseline"]["pay"], result["classical"]
    assert baseline["roc_auc"] == 0.5 and 0.4 < baseline["accuracy"] < 0.65
    assert "always answering" in result["trivial"]["pay"]
    assert (
        "gradient boosting" in classical["model"]
        and classical["rows"] == 3_000
        and classical["pay"]["roc_auc"] > 0.8
    )
    assert (
        "is clearly better than always answering" in result["verdict"]
        and "gradient boosting" in result["verdict"]
    )


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


def test_the_classical_model_reads_times_vectors_and_unseen_values():
    chance = np.random.default_rng(0)

    def table(rows, salt, cities):
        hour = chance.integers(0, 24, rows)
        moments = np.datetime64("2026-01-01T00:00", "us") + (
            chance.integers(0, 300, rows) * 24 + hour
        ).astype("timedelta64[h]")
        return pa.table(
            {
                "row_id": ids(rows, salt),
                "at": moments,
                "v": [list(map(float, v)) for v in chance.normal(size=(rows, 3))],
                "city": np.array(cities)[chance.integers(0, len(cities), rows)],
                "y": hour * 2.0 + chance.normal(size=rows),
            }
        )

    train, test = table(1_500, "a", ["Oslo", "Voss"]), table(500, "b", ["Oslo", "Narvik"])
    encoding = fitted(
        {"at": "timestamp", "v": {"type": "vector", "length": 3}, "city": "category"},
        {"y": "number"},
        train,
    )
    result = evaluate(
        Model(encoding, lambda t: {"y.value": np.zeros(len(t))}),
        Rows(train=train, test=test),
        recipe(),
        Events(),
    )
    assert result["classical"]["y"]["r2"] > 0.95  # the hour is found
    assert "misses a signal" in result["verdict"]


def test_without_scikit_learn_the_comparison_is_left_out_aloud(monkeypatch):
    train = people(400, 1)
    said = []
    monkeypatch.setattr(classical_module, "require", _absent)
    result = evaluate(
        Model(fitted(INPUTS, PAY, train), knows),
        Rows(train=train, test=people(300, 2)),
        recipe(),
        Events(said.append),
    )
    assert (
        "scikit" in result["classical"]["said"]
        and "not compared with gradient boosting" in result["verdict"]
    )
    assert any(
        "no classical comparison" in e.fields["text"] for e in said if e.name == "said"
    )


def _absent(module, **why):
    from penstock.core.errors import MissingPackage

    raise MissingPackage("comparing needs scikit-learn, which is not installed")


def test_evaluation_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; import penstock.evaluate, penstock.metrics,"
        " penstock.inspect; assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_at_hand_are_as_many_as_their_bytes_allow(monkeypatch):
    rows = people(4_000, 1)
    dataset, encoding = Rows(train=rows), fitted(INPUTS, PAY, rows)
    whole, truth, _ = training.split_rows(encoding, dataset, "train", limit=10_000)
    assert len(truth["pay"]) == 4_000
    monkeypatch.setattr(training, "MOST_BYTES", rows.nbytes // 3)
    dataset.batches = lambda split, *, columns, rows: Rows.batches(
        dataset, split, columns=columns, rows=min(rows, 700)
    )
    columns, fewer, _ = training.split_rows(encoding, dataset, "train", limit=10_000)
    assert 500 < len(fewer["pay"]) == len(columns["age"]) < 4_000 // 2
    again = training.split_rows(encoding, dataset, "train", limit=10_000)[0]
    assert all(columns[name].equals(again[name]) for name in columns)
    assert {value.as_py() for value in columns["age"]} <= {
        value.as_py() for value in whole["age"]
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


def test_tables_with_sets_and_texts_get_a_rival_that_reads_all_of_it():
    chance = np.random.default_rng(0)

    def table(rows, salt):
        tags = [["a", "b"] if i % 3 else ["c"] for i in range(rows)]
        age = chance.normal(size=rows)
        y = np.array([2.0 if "c" in t else 0.0 for t in tags]) + 5 * (np.abs(age) < 0.5)
        words = [f"row of {chance.choice(['red', 'blue'])} things" for _ in y]
        return pa.table(
            {"row_id": ids(rows, salt), "tags": tags, "age": age, "words": words, "y": y}
        )

    train, valid, test = table(900, "a"), table(200, "v"), table(300, "b")
    for inputs in (
        {"tags": "set", "age": "number"},
        {"tags": "set", "age": "number", "words": "text"},
    ):
        encoding = fitted(inputs, {"y": "number"}, train)
        result = evaluate(
            Model(encoding, lambda t: {"y.value": np.zeros(len(t))}),
            Rows(train=train, validation=valid, test=test),
            recipe(bootstrap=0),
            Events(),
        )
        # the age counts by its distance from 0, which no linear model sees
        assert result["classical"]["model"] == "gradient boosting"
        assert result["classical"]["metrics"]["y"]["r2"] > 0.9


def test_labels_of_steps_have_a_linear_rival_and_the_verdict_names_it():
    chance = np.random.default_rng(0)

    def table(rows, salt):
        words = [list(chance.choice(list("abc"), 5)) for _ in range(rows)]
        tags = [["x" if i and w[i - 1] == "a" else "y" for i in range(5)] for w in words]
        return pa.table({"row_id": ids(rows, salt), "words": words, "tags": tags})

    train, test = table(300, "a"), table(80, "b")
    inputs = {"words": "sequence"}
    targets = {"tags": {"type": "sequence", "over": "words"}}
    encoding = fitted(inputs, targets, train)

    def answer(rows):
        share = np.full((len(rows), 5, 2), 0.5)
        share[:, :, 0] = 0.6
        return {"tags.probabilities": share}

    result = evaluate(
        Model(encoding, answer), Rows(train=train, test=test), recipe(), Events()
    )
    assert result["classical"]["metrics"]["tags"]["accuracy"] > 0.95
    assert (
        "A linear model of each step and its neighbours is clearly better"
        in result["verdict"]
    )
    assert "gradient boosting" not in result["verdict"]


def with_pay(table, pays):
    """The table with other truths."""
    return table.set_column(table.column_names.index("pay"), "pay", pa.array(pays))


def old_where(table, rows):
    """The table with an age that no feature accepts in some rows."""
    ages = [
        "old" if i in rows else None if age is None else str(age)
        for i, age in enumerate(table["age"].to_pylist())
    ]
    place = table.column_names.index("age")
    return table.set_column(place, "age", pa.array(ages))


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


def test_classes_are_compared_on_the_same_rows():
    train, test = (
        people(n, n).append_column("kind", pa.array(["a", "b", "c"] * (n // 3)))
        for n in (600, 300)
    )
    result = evaluate(
        Model(
            fitted(INPUTS, {"kind": "category"}, train),
            lambda table: {"kind.probabilities": np.full((len(table), 3), 1 / 3)},
        ),
        Rows(train=train, test=old_where(test, {0, 1, 2})),
        recipe(),
        Events(),
    )
    report = report_markdown(result)
    assert "is right for 33 of 100 rows that the model can answer." in report
    assert "is right for 33 of 100 rows.\n" not in report


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
