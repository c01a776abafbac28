"""Batches that are not finite, under each policy, on one process and on two; also when the run is killed
meanwhile.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.matrix.harness import BATCH, EPOCHS, IDS, STEPS, Case

BAD = 77


def spoil(stored):
    stored["y.label"][BAD] = np.nan


def made(folder, policy, *plan, processes=1, **words):
    return Case(folder, *plan, processes=processes, spoil=spoil, on_nan=policy, **words)


def without_bad(case):
    """Rows lost and repeated, but for those of the batches that were left out."""
    out = {event["step"] for event in case.events("nan")}
    history = case.history()
    assert len(out) == EPOCHS
    for step in out:
        assert IDS[BAD] in history[step]
    each = STEPS // EPOCHS
    for epoch in range(EPOCHS):
        seen = [
            id
            for step in range(epoch * each, (epoch + 1) * each)
            if step not in out
            for id in history[step]
        ]
        assert len(seen) == len(set(seen)) == len(IDS) - BATCH
    return out


@pytest.fixture(scope="session")
def skipped(tmp_path_factory):
    found: dict[int, Case] = {}

    def make(processes):
        if processes not in found:
            case = made(
                tmp_path_factory.mktemp("skipped"), "skip", processes=processes, pause=0.0
            )
            assert case.train().code == 0
            found[processes] = case
        return found[processes]

    return make


two = pytest.param(2, marks=pytest.mark.faults)


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
def test_stop_names_the_row(processes, tmp_path):
    case = made(tmp_path, "stop", processes=processes)
    found = case.train()
    assert (found.code, found.type) == (4, "NotFinite")
    assert f"row {IDS[BAD]}." in found.error
    case.nobody_left()


@pytest.mark.parametrize("processes", [1, two])
def test_skip_leaves_the_batch_out_and_names_the_row(processes, skipped):
    case = skipped(processes)
    without_bad(case)
    assert case.attempts[0].summary["left_out"] == EPOCHS
    assert all(
        event["rows"] == [IDS[BAD]] and event["is_culprit"]
        for event in case.events("nan")
    )
    case.nobody_left()
    case.nothing_left()


@pytest.mark.parametrize("processes", [1, two])
def test_rollback_goes_back_and_leaves_the_batch_out(processes, tmp_path, skipped):
    case = made(tmp_path, "rollback", processes=processes)
    assert case.train().code == 0
    without_bad(case)
    assert (
        len(
            [
                event
                for event in case.events("said")
                if "Going back to step" in event["text"]
            ]
        )
        == EPOCHS
    )
    assert case.weights() == skipped(processes).weights()
    case.nobody_left()
    case.nothing_left()


@pytest.mark.faults
@pytest.mark.parametrize("policy", ["skip", "rollback"])
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_meanwhile_and_resumed(policy, processes, tmp_path, skipped):
    bad = min(event["step"] for event in skipped(processes).events("nan"))
    case = made(
        tmp_path,
        policy,
        {
            "where": "step",
            "rank": 0,
            "step": bad + 2,
            "do": "kill",
            "victims": ["launcher"],
        },
        processes=processes,
    )
    case.through()
    assert case.weights() == skipped(processes).weights()
    case.nobody_left()
    case.nothing_left()


@pytest.mark.faults
@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_ten_in_a_row_are_enough(policy, tmp_path):
    def all_bad(stored):
        stored["y.label"][:] = np.nan

    case = Case(tmp_path, spoil=all_bad, on_nan=policy)
    found = case.train()
    assert (found.code, found.type) == (4, "NotFinite")
    assert "10 batches in a row were left out" in found.error
    assert len(case.events("nan")) == 10


@pytest.mark.faults
@pytest.mark.parametrize("words", [{"precision": "fp16"}, {"clip": None}, {"ema": 0.9}])
def test_whatever_moves_is_not_moved(words, tmp_path):
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    skip = made(tmp_path / "one", "skip", **words)
    back = made(tmp_path / "two", "rollback", **words)
    assert skip.train().code == back.train().code == 0
    assert skip.attempts[0].summary["left_out"] == EPOCHS
    assert skip.weights() == back.weights()
