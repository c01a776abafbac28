"""The measures against scikit-learn, their laws (halves merged equal the whole, order is nothing), their
edges, and intervals.
"""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import PenstockError, RecipeError
from penstock.metrics import Measures, better, intervals, measure, names_for, resampled
from penstock.metrics.exact import Cells, two_product
from penstock.metrics.ranking import Scores
from penstock.metrics.rows import prepare
from penstock.parts.metrics.confusion_matrix import MATRIX_CLASSES
from tests import metric_table

quick = settings(deadline=None, max_examples=60)


def binary_case(seed: int, rows: int, *, ties: bool, weighted: bool):
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, 2, rows)
    truth[:2] = [0, 1]
    probability = np.round(chance.random(rows), 1) if ties else chance.random(rows)
    weight = (
        chance.integers(0, 4, rows).astype(float) + (chance.random(rows) if ties else 0)
        if weighted
        else None
    )
    if weight is not None:
        weight[:2] = 1
    return truth, {"probability": probability}, weight


@quick
@given(st.integers(0, 10_000), st.integers(5, 300), st.booleans(), st.booleans())
def test_binary_as_scikit_learn(seed, rows, ties, weighted):
    truth, answers, weight = binary_case(seed, rows, ties=ties, weighted=weighted)
    p = answers["probability"]
    said = (p >= 0.5).astype(int)
    w = {"sample_weight": weight}
    ours = measure(names_for("binary"), truth, answers, weight)
    eps = np.finfo(float).eps
    expected = {
        "roc_auc": sk.roc_auc_score(truth, p, **w),
        "average_precision": sk.average_precision_score(truth, p, **w),
        "accuracy": sk.accuracy_score(truth, said, **w),
        "log_loss": sk.log_loss(truth, np.clip(p, eps, 1 - eps), **w),
        "precision": sk.precision_score(truth, said, zero_division=0, **w),
        "recall": sk.recall_score(truth, said, **w),
        "f1": sk.f1_score(truth, said, zero_division=0, **w),
        "f1_micro": sk.f1_score(truth, said, average="micro", **w),
        "f1_weighted": sk.f1_score(truth, said, average="weighted", zero_division=0, **w),
    }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name
    assert np.allclose(
        ours["confusion_matrix"], sk.confusion_matrix(truth, said, labels=[0, 1], **w)
    )
    if weight is None:
        assert ours["f1_macro"] == pytest.approx(
            sk.f1_score(truth, said, average="macro", zero_division=0)
        )
        assert ours["f1_per_class"] == pytest.approx(
            sk.f1_score(truth, said, average=None, zero_division=0)
        )


@quick
@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(30, 200), st.booleans())
def test_category_as_scikit_learn(seed, classes, rows, weighted):
    chance = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), chance.integers(0, classes, rows)])
    probabilities = chance.dirichlet(np.ones(classes), len(truth))
    weight = chance.random(len(truth)) + 0.1 if weighted else None
    w = {"sample_weight": weight}
    said = probabilities.argmax(axis=1)
    ours = measure(names_for("category"), truth, {"probabilities": probabilities}, weight)
    one_hot = np.eye(classes)[truth]
    expected = {
        "roc_auc": np.mean(
            [
                sk.roc_auc_score(one_hot[:, k], probabilities[:, k], **w)
                for k in range(classes)
            ]
        ),
        "average_precision": np.mean(
            [
                sk.average_precision_score(one_hot[:, k], probabilities[:, k], **w)
                for k in range(classes)
            ]
        ),
        "accuracy": sk.accuracy_score(truth, said, **w),
        "log_loss": sk.log_loss(
            truth, np.clip(probabilities, 2.3e-16, 1), labels=np.arange(classes), **w
        ),
        "f1_macro": sk.f1_score(truth, said, average="macro", zero_division=0, **w),
        "f1_weighted": sk.f1_score(truth, said, average="weighted", zero_division=0, **w),
    }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name
    assert np.allclose(ours["confusion_matrix"], sk.confusion_matrix(truth, said, **w))


@quick
@given(
    st.integers(0, 10_000),
    st.integers(3, 200),
    st.booleans(),
    st.sampled_from([0.0, 1e6, 1.7e9]),
)
def test_number_as_scikit_learn(seed, rows, weighted, offset):
    chance = np.random.default_rng(seed)
    truth = chance.normal(size=rows) + offset + 3
    value = truth + chance.normal(size=rows)
    weight = chance.random(rows) + 0.01 if weighted else None
    w = {"sample_weight": weight}
    ours = measure(
        [*names_for("number"), "mse_standardised"],
        truth,
        {"value": value},
        weight,
        scale=2.0,
    )
    assert ours["mse"] == pytest.approx(sk.mean_squared_error(truth, value, **w))
    assert ours["rmse"] == pytest.approx(sk.mean_squared_error(truth, value, **w) ** 0.5)
    assert ours["mae"] == pytest.approx(sk.mean_absolute_error(truth, value, **w))
    assert ours["mape"] == pytest.approx(
        sk.mean_absolute_percentage_error(truth, value, **w)
    )
    # a large mean costs us no digits
    assert ours["r2"] == pytest.approx(sk.r2_score(truth, value, **w), abs=1e-6)
    assert ours["mse_standardised"] == pytest.approx(ours["mse"] / 4)


def test_standardised_error_without_a_scale_uses_the_truths_own_deviation():
    truth, value = np.array([1.0, 2, 3, 4]), np.array([1.0, 2, 3, 5])
    ours = measure(["mse_standardised", "r2"], truth, {"value": value})
    assert ours["mse_standardised"] == pytest.approx(1 - ours["r2"])


@quick
@given(
    st.integers(0, 10_000),
    st.sampled_from(["binary", "category", "number"]),
    st.booleans(),
)
def test_pieces_merged_in_any_order_equal_the_whole_to_the_last_bit(seed, kind, weighted):
    chance = np.random.default_rng(seed)
    rows = 120
    truth, answers = {
        "binary": (
            chance.integers(0, 2, rows),
            {"probability": np.round(chance.random(rows), 2)},
        ),
        "category": (
            chance.integers(0, 3, rows),
            {"probabilities": chance.dirichlet(np.ones(3), rows).astype(np.float32)},
        ),
        "number": (chance.normal(size=rows) * 1e8, {"value": chance.normal(size=rows)}),
    }[kind]
    weight = chance.random(rows) if weighted else None
    names = names_for(kind)
    whole = measure(names, truth, answers, weight)
    pieces = np.array_split(chance.permutation(rows), chance.integers(1, 6))
    parts = []
    for piece in pieces:
        part = Measures(names)
        part.update(
            truth[piece],
            {k: v[piece] for k, v in answers.items()},
            None if weight is None else weight[piece],
        )
        parts.append(part)
    total = Measures(names)
    for i in chance.permutation(len(parts)):
        total.merge(parts[i])
    assert total.result() == whole
    json.dumps(whole, allow_nan=False)


def test_one_class_has_no_ranking_and_says_null():
    ours = measure(
        names_for("binary"), np.zeros(5), {"probability": np.linspace(0, 0.4, 5)}
    )
    assert (
        ours["roc_auc"]
        is ours["average_precision"]
        is ours["recall"]
        is ours["precision"]
        is ours["f1"]
        is None
    )
    assert (
        ours["accuracy"] == 1
        and ours["f1_per_class"] == [1.0, None]
        and ours["f1_macro"] == 1
    )
    ours = measure(
        names_for("binary"), np.ones(3), {"probability": np.array([0.1, 0.2, 0.3])}
    )
    assert (
        ours["recall"] == 0
        and ours["precision"] == 0
        and ours["f1"] == 0
        and ours["roc_auc"] is None
    )
    ours = measure(
        names_for("category"),
        np.array([1, 1]),
        {"probabilities": np.array([[0.2, 0.7, 0.1]] * 2)},
    )
    assert ours["roc_auc"] is None and ours["accuracy"] == 1 and ours["f1_macro"] == 1


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("binary", {"probability": np.empty(0)}),
        ("category", {"probabilities": np.empty((0, 3))}),
        ("number", {"value": np.empty(0)}),
    ],
)
def test_no_rows_is_null_for_every_metric(kind, answers):
    assert set(measure(names_for(kind), np.empty(0), answers).values()) == {None}
    assert set(intervals(names_for(kind), np.empty(0), answers).values()) == {None}
    assert set(Measures(names_for(kind)).result().values()) == {None}


def test_an_answer_that_is_not_finite_makes_every_metric_null():
    assert measure(
        ["accuracy"], np.array([0, 1]), {"probability": np.array([0.1, np.nan])}
    ) == {"accuracy": None}
    assert measure(["mae"], np.array([0.0, 1]), {"value": np.array([0.1, np.inf])}) == {
        "mae": None
    }


def test_rows_of_weight_nothing_do_not_count():
    truth, p, weight = (
        np.array([0, 1, 1]),
        np.array([0.2, 0.9, 0.1]),
        np.array([1.0, 2.0, 0.0]),
    )
    assert measure(names_for("binary"), truth, {"probability": p}, weight) == measure(
        names_for("binary"), truth[:2], {"probability": p[:2]}, weight[:2]
    )


def test_a_constant_truth_has_no_r2_and_zeros_have_no_relative_error():
    ours = measure(names_for("number"), np.zeros(3), {"value": np.ones(3)})
    assert ours["r2"] is None and ours["mape"] is None and ours["mae"] == 1
    assert measure(["mape"], np.array([0.0, 2.0]), {"value": np.array([5.0, 1.0])}) == {
        "mape": 0.5
    }


def test_calibration_error_of_a_model_that_knows_its_doubt_is_small():
    chance = np.random.default_rng(0)
    p = chance.random(50_000)
    truth = (chance.random(50_000) < p).astype(int)
    assert measure(["ece"], truth, {"probability": p})["ece"] < 0.01
    assert measure(["ece"], truth, {"probability": np.full(50_000, 0.9)})[
        "ece"
    ] == pytest.approx(0.9 - truth.mean())
    confident = np.array([[0.8, 0.2]] * 10)
    assert measure(["ece"], np.array([0] * 5 + [1] * 5), {"probabilities": confident})[
        "ece"
    ] == pytest.approx(0.3)


def test_threshold_decides_what_is_answered_positive():
    truth, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.35, 0.8])
    assert measure(
        ["recall", "precision"], truth, {"probability": p}, threshold=0.35
    ) == {
        "recall": 1.0,
        "precision": 1.0,
    }


def test_beyond_the_limit_ranking_goes_on_in_bounded_memory_and_stays_right():
    chance = np.random.default_rng(1)
    rows = 60_000
    truth = (chance.random(rows) < 0.05).astype(int)
    odds = (
        chance.normal(size=rows) + 2 * truth - 6
    )  # rare, so all probabilities crowd near nothing
    answers = {"probability": 1 / (1 + np.exp(-odds))}
    exact = measure(["roc_auc", "average_precision"], truth, answers)
    areas = frozenset({"roc", "precision"})
    binned, *halves = (Scores(areas, limit=10_000) for _ in range(3))
    for i, start in enumerate(range(0, rows, 6_000)):
        part = slice(start, start + 6_000)
        piece = prepare(
            truth[part],
            {"probability": answers["probability"][part]},
            None,
            threshold=0.5,
        )
        binned.update(piece)
        halves[i % 2].update(piece)
    assert not binned.exact and not binned._kept
    found = binned.totals()
    assert found["roc"][0] == pytest.approx(exact["roc_auc"], abs=1e-4)
    assert found["precision"][0] == pytest.approx(exact["average_precision"], abs=1e-3)
    halves[0].merge(halves[1])
    assert halves[0].totals() == found


def test_a_matrix_of_too_many_classes_is_null():
    classes = MATRIX_CLASSES + 1
    answers = {"probabilities": np.eye(classes, dtype=np.float32)[[1, 2]]}
    assert measure(["confusion_matrix", "accuracy"], np.array([1, 3]), answers) == {
        "confusion_matrix": None,
        "accuracy": 0.5,
    }


def test_names_are_checked_all_at_once_with_a_hint():
    with pytest.raises(RecipeError, match="roc_auc") as caught:
        measure(
            ["rocauc", "mae"], np.array([0, 1]), {"probability": np.array([0.1, 0.9])}
        )
    assert len(caught.value.problems) == 2 and "is for a number or series" in str(
        caught.value
    )
    assert (
        better("roc_auc") == "higher"
        and better("rmse") == better("loss") == better("ece") == "lower"
    )
    with pytest.raises(RecipeError, match="Did you mean 'accuracy'"):
        better("acuracy")


@pytest.mark.parametrize(
    ("truth", "answers", "weight"),
    [
        (np.array([0, 1, 1]), {"probability": np.array([0.1, 0.9])}, None),
        (np.array([0, 5]), {"probability": np.array([0.1, 0.9])}, None),
        (np.array([0, 1]), {"probability": np.array([0.1, 0.9])}, np.array([1.0, -1.0])),
        (np.array([0, 1]), {"probabilities": np.array([0.1, 0.9])}, None),
    ],
)
def test_what_cannot_be_compared_is_a_defect_said_plainly(truth, answers, weight):
    with pytest.raises(PenstockError):
        measure(["accuracy"], truth, answers, weight)


@quick
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.floats(-1e200, 1e200, allow_subnormal=False)),
        max_size=50,
    )
)
def test_cells_sum_without_rounding(pairs):
    cells = Cells()
    for cell, value in pairs:
        cells.add(np.array([cell]), np.array([value]))
    at_once = Cells()
    if pairs:
        at_once.add(np.array([c for c, _ in pairs]), np.array([v for _, v in pairs]))
    import math

    for cell in range(4):
        exact = math.fsum(v for c, v in pairs if c == cell)
        assert float(cells.fraction(cell)) == float(at_once.fraction(cell)) == exact


@quick
@given(
    st.floats(-1e100, 1e100, allow_subnormal=False),
    st.floats(-1e100, 1e100, allow_subnormal=False),
)
def test_two_product_is_exact(a, b):
    from fractions import Fraction

    high, low = two_product(np.array([a]), np.array([b]))
    if abs(a * b) > 1e-200 or a * b == 0:
        assert (
            Fraction(float(high[0])) + Fraction(float(low[0]))
            == Fraction(a) * Fraction(b)
            or a * b == 0
        )


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    inside, times = 0, 60
    for seed in range(times):
        chance = np.random.default_rng(seed)
        truth = (chance.random(400) < 0.4).astype(int)
        p = np.where(chance.random(400) < 0.8, truth, 1 - truth).astype(float)
        low, high = intervals(
            ["accuracy"],
            truth,
            {"probability": p},
            resamples=100,
            confidence=0.9,
            seed=seed,
        )["accuracy"]
        inside += low <= 0.8 <= high
    assert 0.78 <= inside / times <= 0.98


@pytest.mark.parametrize("kind", ["binary", "category", "number"])
def test_each_resampling_is_the_measure_with_those_weights(kind):
    chance = np.random.default_rng(2)
    rows = 90
    truth, answers = {
        "binary": (
            chance.integers(0, 2, rows),
            {"probability": np.round(chance.random(rows), 1)},
        ),
        "category": (
            chance.integers(0, 3, rows),
            {"probabilities": chance.dirichlet(np.ones(3), rows)},
        ),
        "number": (
            chance.normal(size=rows) + 50,
            {"value": chance.normal(size=rows) + 50},
        ),
    }[kind]
    weight = chance.random(rows)
    from penstock.metrics.bootstrap import resampling_counts

    draws = resampled(names_for(kind), truth, answers, weight, resamples=5, seed=3)
    (counts,) = list(resampling_counts(rows, 5, 3))
    for r in range(5):
        expected = measure(
            names_for(kind, scalar=True), truth, answers, weight * counts[r]
        )
        for name, value in expected.items():
            assert draws[name][r] == pytest.approx(value, abs=1e-9), name


def test_intervals_are_the_same_for_one_seed_and_null_without_resamplings():
    truth, answers, _ = binary_case(0, 200, ties=False, weighted=False)
    assert intervals(["roc_auc"], truth, answers, seed=5) == intervals(
        ["roc_auc"], truth, answers, seed=5
    )
    assert intervals(["roc_auc"], truth, answers, resamples=0) == {"roc_auc": None}


def test_a_sample_of_more_rows_gives_an_interval_about_the_whole_that_is_narrower():
    truth, answers, _ = binary_case(0, 1_000, ties=False, weighted=False)
    alone = intervals(["accuracy"], truth, answers)["accuracy"]
    of_more = intervals(
        ["accuracy"], truth, answers, whole={"accuracy": 0.5}, population=4_000
    )["accuracy"]
    assert of_more[1] - of_more[0] == pytest.approx((alone[1] - alone[0]) / 2)
    assert of_more[0] < 0.5 < of_more[1]


def test_an_interval_lies_about_the_value_and_within_what_the_measure_can_be():
    chance = np.random.default_rng(1)
    p = chance.random(150)
    truth = (chance.random(150) < p).astype(int)
    at, (low, high) = (
        measure(["ece"], truth, {"probability": p})["ece"],
        intervals(["ece"], truth, {"probability": p})["ece"],
    )
    assert 0 <= low <= at <= high
    assert intervals(["accuracy"], truth, {"probability": truth * 1.0})["accuracy"] == [
        1,
        1,
    ]


def test_two_hundred_resamplings_of_sixteen_thousand_rows_take_a_moment():
    chance = np.random.default_rng(0)
    truth = (chance.random(16_281) < 0.24).astype(int)
    p = np.clip(0.3 * truth + chance.random(16_281) * 0.7, 0, 1).astype(np.float32)
    started = time.thread_time()
    found = intervals(names_for("binary"), truth, {"probability": p}, resamples=200)
    # of this thread alone; about 0.7 s, and minutes if each is measured anew
    assert time.thread_time() - started < 30
    low, high = found["roc_auc"]
    assert low < sk.roc_auc_score(truth, p) < high and high - low < 0.02


def test_the_page_has_every_metric_as_it_is():
    page = metric_table.PAGE.read_text("utf-8")
    assert page == metric_table.page(page), "run: python -m tests.metric_table"
