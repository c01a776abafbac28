"""Errors of the user's own model, and memory that runs out: told once, where they are, and nothing is started
again.
"""

from __future__ import annotations

import pytest

from tests.matrix.harness import Case

PLACES = [(1, 0), (2, 0), (2, 1)]


def fault(do: str, rank: int) -> dict[str, object]:
    return {"where": "forward", "rank": rank, "step": 9, "do": do}


@pytest.mark.parametrize(
    ("processes", "rank"),
    [
        pytest.param(*place, marks=[] if place == (1, 0) else pytest.mark.faults)
        for place in PLACES
    ],
)
def test_an_error_of_the_model_is_its_line(processes, rank, tmp_path, reference):
    case = Case(tmp_path, fault("raise", rank), processes=processes)
    found = case.train()
    assert (found.code, found.type) == (4, "TrainingError")
    assert found.error.count("ValueError: the model is unhappy 3 times") == 1
    assert "faulty.py:" in found.error
    assert 'raise ValueError(f"the model is unhappy {2 + 1} times")' in found.error
    assert "Traceback (most recent call last)" not in found.error
    assert ("in training process" in found.error) == (processes > 1)
    if processes > 1:
        assert f"in training process {rank}" in found.error
    assert "Traceback (most recent call last)" in case.events("traceback")[0]["text"]
    assert not [event for event in case.events("warned") if "restart" in event]
    case.nobody_left()
    assert case.train(resume=True).code == 0  # it was mended
    case.holds(reference(processes))


@pytest.mark.faults
@pytest.mark.parametrize(("processes", "rank"), PLACES)
def test_no_memory_names_the_batch_and_what_to_try(processes, rank, tmp_path, reference):
    case = Case(tmp_path, fault("memory", rank), processes=processes)
    found = case.train()
    assert (found.code, found.type) == (4, "TrainingError")
    assert "ran out of memory with batches of 32 rows" in found.error
    for word in ("train.accumulate: 2", "train.batch_size: 16", "train.precision: bf16"):
        assert word in found.error
    case.nobody_left()
    assert case.train(resume=True).code == 0
    case.holds(reference(processes))
