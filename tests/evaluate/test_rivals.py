"""Beside a model stand a trivial and a classical answer to the same rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from penstock.core.events import Events
from penstock.evaluate import classical as classical_module
from penstock.evaluate import evaluate, report_markdown
from tests.evaluate.judged import (
    INPUTS,
    PAY,
    Model,
    Rows,
    fitted,
    ids,
    knows,
    old_where,
    people,
    recipe,
)


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
    # The commonest label, whatever stands at a step, is the trivial answer.
    assert 0.7 < result["baseline"]["tags"]["accuracy"] < 0.8
    assert (
        "always answering 'y'" in result["verdict"]
        and "training steps" in result["verdict"]
    )
    assert (
        "a linear model of each step and its neighbours reaches accuracy"
        in result["verdict"]
    )
    assert "gradient boosting" not in result["verdict"]


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
