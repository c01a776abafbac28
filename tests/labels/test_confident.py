"""Thresholds, joint and ranking: one answer whatever the order and the pieces, and cleanlab's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given as cases
from hypothesis import settings
from hypothesis import strategies as st

from penstock.labels.confident import ConfidentJoint, Judged, Rule, SelfConfidence
from penstock.labels.ranked import Ranked

Rows = tuple[np.ndarray, np.ndarray]


def predictions(seed: int, *, rows: int, classes: int) -> tuple[np.ndarray, ...]:
    """Probabilities of a fair model `[N, K]`, labels of which a fifth is wrong, and which those are."""
    chance = np.random.default_rng(seed)
    true = chance.integers(0, classes, rows)
    scores = chance.normal(size=(rows, classes))
    scores[np.arange(rows), true] += 2.5
    shares = np.exp(scores)
    shares /= shares.sum(axis=1, keepdims=True)
    wrong = chance.random(rows) < 0.2
    moved = (true + chance.integers(1, classes, rows)) % classes
    return shares.astype(np.float32), np.where(wrong, moved, true), wrong


def rule_of(pieces: list[Rows], classes: int, *, merged: bool = False) -> Rule:
    confidences = [SelfConfidence(classes) for _ in (pieces if merged else [0])]
    for i, (shares, labels) in enumerate(pieces):
        confidences[i if merged else 0].update(shares, labels)
    confidence = confidences[0]
    for other in confidences[1:]:
        confidence.merge(other)
    joints = [
        ConfidentJoint(confidence.thresholds(), confidence.rows)
        for _ in (pieces if merged else [0])
    ]
    for i, (shares, labels) in enumerate(pieces):
        joints[i if merged else 0].update(shares, labels)
    joint = joints[0]
    for other in joints[1:]:
        joint.merge(other)
    return joint.rule()


@settings(max_examples=40, deadline=None)
@cases(
    seed=st.integers(0, 10_000),
    rows=st.integers(2, 300),
    classes=st.integers(2, 7),
    cuts=st.lists(st.integers(0, 300), max_size=4),
    merged=st.booleans(),
)
def test_pieces_and_their_order_change_nothing(
    seed: int, rows: int, classes: int, cuts: list[int], merged: bool
) -> None:
    shares, labels, _ = predictions(seed, rows=rows, classes=classes)
    whole = rule_of([(shares, labels)], classes)
    order = np.random.default_rng(seed).permutation(rows)
    spans = np.split(order, sorted(min(cut, rows) for cut in cuts))
    pieces = [(shares[span], labels[span]) for span in spans]
    other = rule_of(pieces, classes, merged=merged)
    assert other.to_dict() == whole.to_dict()


@settings(max_examples=40, deadline=None)
@cases(seed=st.integers(0, 10_000), rows=st.integers(1, 200), classes=st.integers(2, 6))
def test_the_joint_accounts_for_every_row(seed: int, rows: int, classes: int) -> None:
    shares, labels, _ = predictions(seed, rows=rows, classes=classes)
    rule = rule_of([(shares, labels)], classes)
    counts = np.bincount(labels, minlength=classes)
    np.testing.assert_allclose(rule.joint.sum(axis=1), counts)
    judged = rule.judge(shares, labels)
    assert not (judged.suspect & (judged.likely == labels)).any()
    assert 0 <= rule.wrong() <= rows


def test_a_class_of_one_row_is_not_suspect() -> None:
    shares = np.array([[0.9, 0.1]] * 9 + [[0.99, 0.01]], np.float32)
    labels = np.array([0] * 9 + [1])
    assert not rule_of([(shares, labels)], 2).judge(shares, labels).suspect.any()


def test_what_was_put_in_is_what_is_found() -> None:
    shares, labels, wrong = predictions(1, rows=20_000, classes=4)
    rule = rule_of([(shares, labels)], 4)
    suspect = rule.judge(shares, labels).suspect
    assert rule.wrong() / len(labels) == pytest.approx(0.2, abs=0.03)
    assert wrong[suspect].mean() > 0.85
    assert wrong[suspect].sum() / wrong.sum() > 0.85


@settings(max_examples=40, deadline=None)
@cases(
    scores=st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=1, max_size=60),
    limit=st.integers(0, 20),
    cut=st.integers(0, 60),
    seed=st.integers(0, 1_000),
)
def test_a_ranked_list_is_that_of_all_rows(
    scores: list[float], limit: int, cut: int, seed: int
) -> None:
    values = np.array(scores)
    keys = np.random.default_rng(seed).permutation(2 * len(values)).reshape(-1, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0], values))[:limit]
    one, other = Ranked(limit), Ranked(limit)
    for ranked, span in ((one, slice(cut, None)), (other, slice(0, cut))):
        ranked.update(values[span], keys[span].astype(np.uint64), {"x": values[span]})
    one.merge(other)
    assert one.count == len(values)
    assert one.rows()["high"].tolist() == keys[order, 0].tolist()
    assert one.rows()["x"].tolist() == values[order].tolist()


def _cleanlab() -> Any:
    with warnings.catch_warnings():
        # What it imports warns in its own way.
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            "cleanlab.filter", reason="cleanlab, the reference, is not installed"
        )


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_the_same_suspects_as_cleanlab_whole(classes: int) -> None:
    reference = _cleanlab()
    shares, labels, wrong = predictions(7, rows=6_000, classes=classes)
    exact = shares.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = reference.find_label_issues(labels, exact, n_jobs=1)
    ours: Judged = rule_of([(shares, labels)], classes).judge(shares, labels)
    differ = (ours.suspect != theirs).sum() / theirs.sum()
    assert differ < 0.02
    assert wrong[ours.suspect].mean() == pytest.approx(wrong[theirs].mean(), abs=0.02)
