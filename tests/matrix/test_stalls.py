"""Processes that are stopped, or hang: found within the declared time, named, and replaced."""

from __future__ import annotations

import pytest

from tests.matrix.harness import Case


def faults(do: str, rank: int, at: int = 9, where: str = "step") -> dict[str, object]:
    return {
        "where": where,
        "rank": rank,
        "step": at,
        "do": do,
        "victims": [f"rank{rank}"],
    }


@pytest.mark.faults
@pytest.mark.parametrize(
    ("rank", "where"),
    [(1, "step"), (0, "step"), (1, "reduce"), (0, "judge"), (0, "write")],
)
def test_a_stopped_process_is_found_and_named(rank, where, tmp_path, reference):
    case = Case(
        tmp_path,
        faults("stop", rank, where=where, at=7 if where == "judge" else 9),
        processes={"processes": 2, "stall_seconds": 3},
        is_fresh=(rank, where) == (1, "step"),
    )
    found = case.through()
    assert (len(case.attempts), found.summary["restarts"]) == (1, 1)
    told = next(event for event in case.events("warned") if "restart" in event)
    text = told["text"]
    # declared: 3 s, less a beat, and what a busy machine adds
    assert 2.0 <= told["time"] - (tmp_path / "fired-0").stat().st_mtime < 25.0
    assert f"training process {rank} (pid " in text
    assert "has been silent for 3 s" in text
    assert "in step " in text
    case.holds(reference(2))


@pytest.mark.faults
@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_lives_and_gets_nowhere_is_found_and_named(rank, tmp_path, reference):
    case = Case(
        tmp_path,
        faults("hang", rank, where="step"),
        processes={"processes": 2, "stall_seconds": 3},
    )
    found = case.through()
    assert found.summary["restarts"] == 1
    text = next(event["text"] for event in case.events("warned") if "restart" in event)
    # in lockstep both stand in one step, and both may be named
    assert f"training process {rank} (pid " in text
    assert "has got nowhere" in text
    case.holds(reference(2))


@pytest.mark.faults
def test_the_launcher_dies_while_a_process_is_stopped(tmp_path, reference):
    plan = [
        faults("stop", 1, at=8),
        {
            "where": "step",
            "rank": 0,
            "step": 8,
            "do": "kill",
            "victims": ["launcher"],
            "delay": 0.3,
            "aside": True,
        },
    ]
    case = Case(tmp_path, *plan, processes=2)
    assert case.through().code == 0
    assert [attempt.code for attempt in case.attempts] == [-9, 0]
    case.holds(reference(2))
