"""kill -9 of one process, of all and of the launcher, at random moments and at the worst ones; from a seed.

After each: no row lost, none repeated, the weights of the run that nothing happened to, no process left.
"""

from __future__ import annotations

import random

import pytest

from tests.matrix.harness import EPOCHS, STEPS, Case, records

SEED = 20261121
EPOCH = STEPS // EPOCHS


def kill(
    where: str, victims: tuple[str, ...], *, at: int, rank: int, **more: object
) -> dict[str, object]:
    return {
        "where": where,
        "rank": rank,
        "step": at,
        "do": "kill",
        "victims": list(victims),
        **more,
    }


def planned(moment: str, victims: tuple[str, ...], processes: int) -> dict[str, object]:
    """Where a fault happens: `rank` is the process that does it."""
    chance = random.Random(f"{SEED} {moment} {victims} {processes}")
    at = chance.randrange(4, STEPS - 2)
    rank = next(
        (int(victim[4:]) for victim in victims if victim != "launcher"), processes - 1
    )
    if moment.startswith("random"):
        return kill(
            "step", victims, at=at, rank=rank, aside=True, delay=chance.random() * 0.05
        )
    if moment == "write":  # rank 0 writes
        return kill("write", victims, at=at, rank=0)
    if moment == "validation":
        return kill(
            "judge", victims, at=EPOCH * chance.randrange(1, EPOCHS) - 1, rank=rank
        )
    return kill("reduce", victims, at=at, rank=rank)


LAUNCHER, ZERO, ONE, ALL = (
    ("launcher",),
    ("rank0",),
    ("rank1",),
    ("rank1", "rank0", "launcher"),
)
QUICK = {(1, LAUNCHER, "random 1"), (1, LAUNCHER, "write"), (2, ONE, "reduce")}
FRESH = QUICK | {(2, ONE, "random"), (2, ALL, "random")}
"""Whose processes are started as users' are."""
MATRIX = [
    *(
        (1, LAUNCHER, moment)
        for moment in ("random 1", "random 2", "random 3", "write", "validation")
    ),
    *(
        (2, victims, moment)
        for victims in (ONE, ZERO, LAUNCHER, ALL)
        for moment in ("random", "write", "reduce", "validation")
    ),
    (2, ("rank0", "rank1"), "random"),
    (2, ("rank0", "rank1"), "reduce"),
    (3, ("rank2",), "random"),
    (3, ("rank0",), "reduce"),
    (3, ("rank1", "rank2"), "random"),
]


@pytest.mark.parametrize(
    ("processes", "victims", "moment"),
    [
        pytest.param(
            *row,
            id=f"{row[0]} processes, {'+'.join(row[1])}, {row[2]}",
            marks=[] if row in QUICK else pytest.mark.faults,
        )
        for row in MATRIX
    ],
)
def test_killed(processes, victims, moment, tmp_path, reference):
    row = (processes, victims, moment)
    case = Case(
        tmp_path,
        planned(moment, victims, processes),
        processes=processes,
        is_fresh=row in FRESH,
    )
    found = case.through()
    assert (tmp_path / "fired-0").exists()
    case.holds(reference(processes))
    if "launcher" in victims:
        assert [attempt.code for attempt in case.attempts] == [-9, 0]
    else:
        assert len(case.attempts) == 1
        assert found.summary["restarts"] == 1
        again = next(event for event in case.events("warned") if "restart" in event)
        assert again["repeated"] <= 3 + 1
        assert "was killed by SIGKILL" in again["text"]
        assert "Restarting from step" in again["text"]


@pytest.mark.faults
@pytest.mark.parametrize("victim", [0, 1])
def test_killed_while_it_waits_within_an_all_reduce(victim, tmp_path, reference):
    plan = [
        # so the other one waits, and dies there
        {"where": "reduce", "rank": 1 - victim, "step": 9, "do": "pause", "seconds": 1.0},
        kill("reduce", (f"rank{victim}",), at=9, rank=victim, aside=True, delay=0.4),
    ]
    case = Case(tmp_path, *plan, processes=2)
    assert case.through().summary["restarts"] == 1
    assert (
        f"training process {victim} (pid " in case.warned()
        and "was killed by SIGKILL" in case.warned()
    )
    case.holds(reference(2))


@pytest.mark.faults
@pytest.mark.parametrize(
    "parallel",
    [
        {"strategy": "fsdp"},
        {"strategy": "local_sgd", "every": 3},
        {"gradients": {"type": "powersgd", "rank": 1, "warm_up": 4}},
        {"gradients": {"type": "topk", "share": 0.2}},
    ],
    ids=["fsdp", "local_sgd", "powersgd", "topk"],
)
def test_killed_under_each_strategy(parallel, tmp_path):
    """What each process keeps for itself (its own steps, a part of the weights, what compression left) goes
    on as well: to the bit.
    """
    for name in ("unharmed", "killed"):
        (tmp_path / name).mkdir()
    unharmed = Case(tmp_path / "unharmed", processes=2, pause=0.0, parallel=parallel)
    assert unharmed.train().code == 0
    case = Case(
        tmp_path / "killed",
        kill("step", ("rank1",), at=13, rank=1),
        processes=2,
        parallel=parallel,
    )
    assert case.through().summary["restarts"] == 1
    case.holds(unharmed)


@pytest.mark.faults
def test_a_crash_of_the_interpreter(tmp_path, reference):
    case = Case(
        tmp_path, {"where": "step", "rank": 1, "step": 9, "do": "exit"}, processes=2
    )
    assert case.through().summary["restarts"] == 1
    assert "ended with code 3 and without a word" in case.warned()
    case.holds(reference(2))


@pytest.mark.faults
@pytest.mark.parametrize("victim", ["rank0", "rank1"])
def test_those_that_are_left_go_on(victim, tmp_path, reference):
    case = Case(
        tmp_path,
        kill("step", (victim,), at=10, rank=int(victim[4:])),
        processes={"processes": [1, 2]},
    )
    found = case.through()
    assert found.summary["processes"] == 1
    assert "with 1 process:" in case.warned()
    case.holds(reference(2))
    case.holds(reference(1))


@pytest.mark.faults
def test_one_alone_in_a_process_of_its_own(tmp_path, reference):
    case = Case(
        tmp_path, kill("step", ("rank0",), at=10, rank=0), processes={"processes": [1, 1]}
    )
    found = case.through()
    assert (found.summary["restarts"], len(case.attempts)) == (1, 1)
    case.holds(reference(1))


@pytest.mark.faults
def test_those_that_have_returned_are_taken_in_while_training_runs(tmp_path, reference):
    case = Case(
        tmp_path,
        kill("step", ("rank1",), at=4, rank=1),
        processes={"processes": [1, 2], "return_seconds": 1},
        pause=0.15,
    )
    found = case.through()
    assert (
        found.summary["restarts"],
        found.summary["taken_in"],
        found.summary["processes"],
        len(case.attempts),
    ) == (1, 1, 2, 1)
    told = next(
        event for event in case.events("said") if "there is room for" in event["text"]
    )
    assert (
        told["text"].startswith("there is room for 2 of 2 processes; at work: 1: ")
        and f"continuing from step {told['step']} with 2 processes" in told["text"]
    )
    assert 4 < told["step"] < STEPS
    sizes = {
        line["attempt"]: line["world"] for line in records(tmp_path / "processes.jsonl")
    }
    assert list(sizes.values()) == [2, 1, 2]
    worked = {line["attempt"] for line in records(tmp_path / "steps.jsonl")}
    assert len(worked) == 3  # each of the three has taken steps
    case.holds(reference(2))
    case.holds(reference(1))


@pytest.mark.faults
def test_a_loss_while_more_are_taken_in(tmp_path, reference):
    """The first checkpoint of all is the one to go on from with more: who writes it is killed."""
    plan = [
        kill("step", ("rank1",), at=4, rank=1),
        kill("write", ("rank0",), at=0, rank=0),
    ]
    case = Case(
        tmp_path,
        *plan,
        processes={"processes": [1, 2], "return_seconds": 1},
        pause=0.25,
        checkpoint={"every_steps": 30},
    )
    found = case.through()
    assert (
        found.summary["restarts"],
        found.summary["taken_in"],
        found.summary["processes"],
        len(case.attempts),
    ) == (2, 0, 1, 1)
    first, second = (event for event in case.events("warned") if "restart" in event)
    # before the end of an epoch, which keeps one
    assert (first["step"], second["step"]) == (0, 0) and second["repeated"] < EPOCH
    case.holds(reference(1))


@pytest.mark.faults
def test_restarts_have_a_bound(tmp_path, reference):
    plan = [kill("step", ("rank1",), at=at, rank=1) for at in (5, 9)]
    case = Case(tmp_path, *plan, processes={"processes": 2, "restarts": 1})
    found = case.train()
    assert found.type == "TrainingError"
    assert "It was started again 1 time already" in found.error
    assert f"penstock resume {case.run.id}" in found.error
    case.nobody_left()
    assert case.train(resume=True).code == 0
    case.holds(reference(2))


@pytest.mark.faults
def test_killed_on_two_and_resumed_on_one(tmp_path, reference):
    from tests.train.tiny import tiny_recipe

    case = Case(tmp_path, kill("step", ALL, at=13, rank=1), processes=2)
    assert case.train().code == -9
    case.nobody_left()
    case.recipe = tiny_recipe(
        tmp_path,
        launcher={"type": "local", "processes": 1, "threads": 1},
        model={"type": "tests.matrix.faulty:Net"},
        epochs=EPOCHS,
        batch_size=32,
        checkpoint={"every_steps": 3, "keep": 3},
    )
    assert case.train(resume=True).code == 0
    case.holds(reference(2))


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.faults)])
def test_asked_to_end_while_a_checkpoint_is_written(processes, tmp_path, reference):
    case = Case(
        tmp_path,
        {"where": "write", "rank": 0, "step": 10, "do": "term"},
        processes=processes,
    )
    found = case.train()
    assert (found.code, found.type) == (130, "Interrupted")
    assert "A checkpoint is saved" in found.error
    case.nobody_left()
    assert case.train(resume=True).code == 0
    case.holds(reference(processes))
