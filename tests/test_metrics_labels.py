"""Measures of sets and of sequences: against scikit-learn, in pieces, weighted, resampled, at their edges."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import PenstockError, RecipeError
from penstock.metrics import Measures, intervals, kind_of, measure, names_for

CHANCE = np.random.default_rng(4)
TRUTH = (CHANCE.random((300, 5)) < [0.5, 0.3, 0.1, 0.05, 0.2]).astype(np.uint8)
SHARES = np.clip(np.round(TRUTH * 0.4 + CHANCE.random(TRUTH.shape) * 0.6, 2), 0, 1)
LIMITS = np.array([0.5, 0.4, 0.3, 0.35, 0.6])
STEPS = np.where(
    np.arange(7) < CHANCE.integers(0, 8, 60)[:, None], CHANCE.integers(0, 3, (60, 7)), -1
)
ANSWERS = CHANCE.dirichlet(np.ones(3), (60, 7))


def test_a_set_is_measured_as_scikit_learn_measures_it() -> None:
    found = measure(names_for("set"), TRUTH, {"probabilities": SHARES}, threshold=LIMITS)
    said = SHARES >= LIMITS
    for word in ("macro", "micro", "weighted"):
        assert found[f"f1_{word}"] == pytest.approx(
            sk.f1_score(TRUTH, said, average=word)
        )
    assert found["f1_per_label"] == pytest.approx(sk.f1_score(TRUTH, said, average=None))
    assert found["subset_accuracy"] == pytest.approx(sk.accuracy_score(TRUTH, said))
    assert found["label_ranking_average_precision"] == pytest.approx(
        sk.label_ranking_average_precision_score(TRUTH, SHARES)
    )
    assert found["average_precision"] == pytest.approx(
        sk.average_precision_score(TRUTH, SHARES)
    )
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(TRUTH, SHARES))
    clipped = np.clip(SHARES, np.finfo(float).eps, 1 - np.finfo(float).eps)
    assert found["log_loss"] == pytest.approx(
        -np.where(TRUTH == 1, np.log(clipped), np.log1p(-clipped)).mean()
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 300), st.booleans(), st.integers(0, 100))
def test_pieces_of_a_set_merged_equal_the_whole(
    cut: int, weighted: bool, seed: int
) -> None:
    weight = np.random.default_rng(seed).random(300) if weighted else None
    whole = measure(
        names_for("set"), TRUTH, {"probabilities": SHARES}, weight, threshold=LIMITS
    )
    parts = []
    for some in (slice(cut, None), slice(0, cut)):
        parts.append(Measures(names_for("set"), threshold=LIMITS))
        parts[-1].update(
            TRUTH[some],
            {"probabilities": SHARES[some]},
            None if weight is None else weight[some],
        )
    parts[0].merge(parts[1])
    assert parts[0].result() == whole


def test_a_weight_of_two_is_a_row_twice() -> None:
    weight = CHANCE.integers(0, 3, 300)
    again = np.repeat(np.arange(300), weight)
    names = [n for n in names_for("set") if n != "f1_per_label"]
    assert measure(names, TRUTH, {"probabilities": SHARES}, weight) == pytest.approx(
        measure(names, TRUTH[again], {"probabilities": SHARES[again]})
    )


def test_the_edges_of_sets() -> None:
    none = measure(
        names_for("set"), np.zeros((3, 2)), {"probabilities": np.full((3, 2), 0.1)}
    )
    assert (
        none["f1_macro"] is None
        and none["subset_accuracy"] == 1
        and none["label_ranking_average_precision"] == 1
        and none["roc_auc"] is None
    )
    assert set(
        measure(names_for("set"), TRUTH[:0], {"probabilities": SHARES[:0]}).values()
    ) == {None}
    assert set(
        measure(
            names_for("set"), TRUTH[:2], {"probabilities": np.full((2, 5), np.nan)}
        ).values()
    ) == {None}
    with pytest.raises(PenstockError, match="must both be"):
        measure(["f1_macro"], TRUTH[:, :4], {"probabilities": SHARES})
    with pytest.raises(RecipeError, match=r"ece.*is for a binary or category"):
        measure(["ece"], TRUTH, {"probabilities": SHARES})


def test_a_sequence_is_its_steps() -> None:
    found = measure(names_for("sequence"), STEPS, {"probabilities": ANSWERS})
    there = STEPS >= 0
    flat, said = STEPS[there], ANSWERS.argmax(2)[there]
    assert found["accuracy"] == found["f1_micro"] == pytest.approx((flat == said).mean())
    assert found["f1_macro"] == pytest.approx(sk.f1_score(flat, said, average="macro"))
    assert found["f1_per_class"] == pytest.approx(sk.f1_score(flat, said, average=None))
    assert found["log_loss"] == pytest.approx(sk.log_loss(flat, ANSWERS[there]))


def test_a_step_that_was_not_answered_is_wrong_and_padding_is_nothing() -> None:
    truth, answers = (
        np.array([[0, 1, 1], [1, -1, -1]]),
        np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.3, 0.7], [0, 0]]]),
    )
    found = measure(["accuracy", "f1_macro"], truth, {"probabilities": answers})
    assert found["accuracy"] == pytest.approx(3 / 4) and found[
        "f1_macro"
    ] == pytest.approx((1 + 0.8) / 2)
    longer = measure(
        ["accuracy", "f1_macro"],
        np.pad(truth, ((0, 0), (0, 3)), constant_values=-1),
        {"probabilities": np.pad(answers, ((0, 0), (0, 9), (0, 0)))},
    )
    assert longer == found


def test_intervals_hold_the_value_and_a_rows_steps_go_together() -> None:
    assert (
        kind_of({"probabilities": SHARES}, TRUTH),
        kind_of({"probabilities": SHARES}),
        kind_of({"probabilities": ANSWERS}),
    ) == ("set", "category", "sequence")
    for truth, shares, threshold in ((TRUTH, SHARES, LIMITS), (STEPS, ANSWERS, 0.5)):
        kind = kind_of({"probabilities": shares}, truth)
        names = names_for(kind, scalar=True)
        at = measure(names, truth, {"probabilities": shares}, threshold=threshold)
        found = intervals(
            names, truth, {"probabilities": shares}, threshold=threshold, resamples=100
        )
        for name in names:
            low, high = found[name]
            assert low <= at[name] <= high and high - low < 0.4
    # seven equal steps a row: as sure as one step a row, not seven times surer
    alike = np.repeat(STEPS[:, :1], 7, axis=1)
    wide, one = (
        intervals(["accuracy"], t, {"probabilities": a}, resamples=200)["accuracy"]
        for t, a in (
            (alike, np.repeat(ANSWERS[:, :1], 7, axis=1)),
            (STEPS[:, :1], ANSWERS[:, :1]),
        )
    )
    assert wide == pytest.approx(one, abs=0.02)
