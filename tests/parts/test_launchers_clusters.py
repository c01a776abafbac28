"""The ray and spark launchers: words, sentences, one real start of Ray; Spark's, the laws and the faults are
slow.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from examples.cluster_demo import ray_cluster, spark_cluster
from penstock.contracts.learn import Launcher, Recovery, World
from penstock.core.errors import (
    MissingPackage,
    RankLost,
    RecipeError,
    TrainingError,
    UserError,
)
from penstock.parts.launchers._line import Line
from penstock.parts.launchers._rank import answer
from penstock.recipe.schema import load_recipe
from tests.matrix.harness import records
from tests.parts.clustered import program, told

RAY = {"type": "ray", "processes": 2}
SPARK = {"type": "spark", "processes": 2}
BOTH = pytest.mark.parametrize("launcher", [RAY, SPARK], ids=["ray", "spark"])
MACHINE = {"ray": "raylet/raylet", "spark": "deploy.worker.Worker"}
"""What the process is called that stands for a machine."""
LONG = (pytest.mark.slow, pytest.mark.long)
RESTARTS = (
    {"where": "step", "rank": 1, "step": 5, "do": "kill"},
    {
        "where": "step",
        "rank": 0,
        "step": 14,
        "do": "stop",
    },
)


def test_limits_and_recovery_are_as_declared():
    assert Launcher.load({**RAY, "cpus": 3}).limits() == (2, 3)
    assert Launcher.load(
        {"type": "ray", "processes": [1, 4], "restarts": 1}
    ).limits() == (4, 1)
    assert Launcher.load(
        {"type": "ray", "processes": [1, 4], "restarts": 1}
    ).recovery() == Recovery(restarts=1, fewest=1)
    assert Launcher.load({**SPARK, "options": {"spark.task.cpus": "2"}}).limits() == (
        2,
        2,
    )
    assert Launcher.load(SPARK).recovery() == Recovery(restarts=3)
    assert Launcher.load(
        {**SPARK, "processes": [2, 4], "return_seconds": 30}
    ).limits() == (4, 1)
    assert Launcher.load(
        {**SPARK, "processes": [2, 4], "return_seconds": 30}
    ).recovery() == Recovery(restarts=3, fewest=2, return_seconds=30.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"type": "ray", "processes": [4, 1]}, r"launcher.*write \[1, 4\]"),
        ({"type": "ray", "gpus": 2}, r"launcher\.gpus"),
        ({"type": "spark", "master": "localhost"}, r"launcher\.master"),
        ({"type": "spark", "procesess": 2}, "processes"),
        (
            {"type": "ray", "processes": 2, "return_seconds": 5},
            r"launcher\.return_seconds.*is fixed \(2\)",
        ),
    ],
)
def test_a_wrong_word_is_refused_with_its_path(words, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe({"source": {"type": "files", "path": "x"}, "launcher": words})


@pytest.mark.parametrize(("words", "package"), [(RAY, "ray"), (SPARK, "pyspark")])
def test_an_absent_package_names_its_extra(words, package, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    for name in (package, "pyspark.sql"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackage, match=rf"penstock\[{words['type']}\]"):
        Launcher.load(words).launch(print, (), processes=2, threads=1)


def test_the_heads_import_no_cluster():
    code = (
        "import sys, penstock.parts.launchers.ray, penstock.parts.launchers.spark,"
        " penstock.parts.launchers.env; print([m for m in ('ray', 'pyspark', 'torch') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


# -- the line home, without a cluster ------------------------------------------------------------------------


CODE = (
    "import pickle, sys; from penstock.parts.launchers._rank import answer;"
    " answer(pickle.loads(bytes.fromhex(sys.argv[1])), int(sys.argv[2]))"
)


def over_a_line(
    function,
    *,
    size=1,
    stall_seconds=60.0,
    ended=lambda: None,
    start_seconds=60.0,
    missing=(),
):
    """`function` at the end of a line in processes that stand for a cluster's."""
    import pickle

    line = Line("127.0.0.1", size, stall_seconds)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CODE, pickle.dumps(line.call).hex(), str(rank)]
        )
        for rank in range(size)
        if rank not in missing
    ]
    try:
        return line.run(
            function, (), threads=1, gpus=False, ended=ended, start_seconds=start_seconds
        )
    finally:
        line.close()
        for one in started:
            try:
                one.wait(5 if function is stop else 30)
            except subprocess.TimeoutExpired:
                one.kill()  # one that was stopped, which its cluster would end
                one.wait()


def stop(world):
    os.kill(os.getpid(), signal.SIGSTOP)


def die(world):
    os.kill(os.getpid(), signal.SIGKILL)


def unpicklable(world):
    return threading.Lock()


def refuse(world):
    raise RecipeError(f"rank {world.rank} says no")


def where(world: World):
    return world, os.environ["MASTER_ADDR"], os.environ["GLOO_SOCKET_IFNAME"]


def test_ranks_on_a_line_know_their_place_and_meet_on_loopback():
    assert over_a_line(where, size=2) == (
        World(rank=0, size=2, local_rank=0, threads=1),
        "127.0.0.1",
        "lo",
    )


@pytest.mark.parametrize(
    ("function", "kind", "said"),
    [
        (refuse, RecipeError, "rank 0 says no"),
        (
            die,
            RankLost,
            r"training process 0 \(pid \d+ on .*ended without an error message",
        ),
        (unpicklable, TrainingError, "cannot be sent"),
    ],
)
def test_what_ends_a_rank_comes_home_once(function, kind, said):
    before = set(
        psutil.Process().children()
    )  # another test's forkserver may still be about
    with pytest.raises(kind, match=said):
        over_a_line(function)
    assert not set(psutil.Process().children()) - before


def test_a_stopped_rank_is_named():
    with pytest.raises(
        RankLost, match=r"training process 0 .*has been silent for 3 s"
    ) as caught:
        over_a_line(stop, stall_seconds=3.0)
    assert caught.value.ranks == (0,)


def test_a_cluster_that_does_not_start_all_is_said():
    with pytest.raises(
        RankLost, match="only 0 of 1 processes have called within 1 s"
    ) as caught:
        over_a_line(where, missing=(0,), start_seconds=1.0)
    assert caught.value.ranks == (0,)
    with pytest.raises(RankLost, match="no executor"):
        over_a_line(where, missing=(0,), ended=lambda: "no executor")


def test_a_caller_without_the_key_is_not_heard():
    from dataclasses import replace
    from multiprocessing import AuthenticationError

    line = Line("127.0.0.1", 1, 60.0)
    try:
        with pytest.raises((AuthenticationError, OSError, EOFError)):
            answer(replace(line.call, key=b"guessed"), 1)
        assert not line._ranks
    finally:
        line.close()


# -- clusters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "launcher",
    [RAY, pytest.param(SPARK, marks=pytest.mark.slow)],
    ids=["ray", "spark"],
)
def test_two_processes_of_a_cluster(launcher, tmp_path):
    """Of one that is started for them."""
    assert told(program("place", tmp_path, launcher)) == {"place": [0, 2, 1, 2]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({**SPARK, "master": "local[1]"}, "has room for 1 task at once"),
        ({**RAY, "address": "127.0.0.1:9"}, "there is no Ray cluster at '127.0.0.1:9'"),
    ],
)
def test_too_few_slots_and_an_absent_cluster_are_sentences(words, said, tmp_path):
    found = told(program("place", tmp_path, words))
    assert UserError.__name__ in found["failed"] and said in found["failed"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("launcher", "is_held"),
    [
        pytest.param(RAY, True, id="ray, held"),
        pytest.param(RAY, False, id="ray, anew", marks=pytest.mark.long),
        pytest.param(SPARK, True, id="spark, held", marks=pytest.mark.long),
        pytest.param(SPARK, False, id="spark, anew", marks=pytest.mark.long),
    ],
)
def test_laws_in_a_cluster(launcher, is_held, tmp_path):
    """In one that runs already; in the long ring also in those that are started, one for each launch. Of
    Spark the slow ring has the laws of two processes, of errors and of stopping, each in a test of its own.
    """
    words = {"type": launcher["type"], "processes": [1, 2]}
    started = program("laws", tmp_path, words, is_held=is_held)
    assert told(started, 550.0) == {"lawful": True}


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory):
    """The weights of the training that nothing happens to, on this machine."""
    laptop = {"type": "local", "processes": 2, "threads": 1}
    folder = tmp_path_factory.mktemp("laptop")
    return told(program("train", folder, laptop))["weights"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "launcher", [RAY, pytest.param(SPARK, marks=pytest.mark.long)], ids=["ray", "spark"]
)
def test_a_training_that_lost_processes_ends_as_the_unharmed_one_on_the_laptop(
    launcher, tmp_path, unharmed
):
    words = {**launcher, "stall_seconds": 10}
    is_held = launcher is RAY  # one of Spark's may be lost with its processes
    started = program("train", tmp_path / "cluster", words, *RESTARTS, is_held=is_held)
    found = told(started, 500.0)
    assert found.get("restarts") == 2, found.get("warned", found)
    assert any("ended without an error message" in text for text in found["warned"])
    assert any(
        "training process 0" in text and "has been silent for 10 s" in text
        for text in found["warned"]
    )
    assert found["weights"] == unharmed
    assert found["heard"] > 5
    log = list(records(tmp_path / "cluster" / "processes.jsonl"))
    assert len(log) == 6
    until = time.monotonic() + 20
    while any(psutil.pid_exists(one["pid"]) for one in log):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize(
    "kind",
    [pytest.param("ray", marks=pytest.mark.slow), pytest.param("spark", marks=LONG)],
)
def test_training_goes_on_without_a_machine_that_is_gone_and_takes_in_one_that_comes(
    kind, tmp_path, monkeypatch
):
    folder = tmp_path / "cluster"
    steps, processes = folder / "steps.jsonl", folder / "processes.jsonl"
    monkeypatch.setenv(
        "PENSTOCK_TEST_FAULTS", str(folder)
    )  # workers have the environment of their machines

    def until(there):
        limit = time.monotonic() + 200
        while not there():
            assert time.monotonic() < limit and started.poll() is None, told(started)
            time.sleep(0.1)

    with (ray_cluster if kind == "ray" else spark_cluster)(tmp_path) as cluster:
        where = {"address" if kind == "ray" else "master": cluster.address}
        started = program(
            "train",
            folder,
            {"type": kind, **where, "processes": [1, 2], "return_seconds": 2},
            pause=0.8,
        )
        until(lambda: steps.exists() and len(list(records(steps))) >= 8)
        there = {one["rank"]: psutil.Process(one["pid"]) for one in records(processes)}
        machine = {
            rank: next(p for p in one.parents() if MACHINE[kind] in " ".join(p.cmdline()))
            for rank, one in there.items()
        }
        assert len(set(machine.values())) == 2
        # those that are left have time until somebody comes
        (folder / "plan.json").write_text('{"pause": 3.0, "faults": []}')
        for one in [machine[1], *machine[1].children(recursive=True)]:
            one.kill()
        until(lambda: len(list(records(processes))) == 3)
        (folder / "plan.json").write_text('{"pause": 0.1, "faults": []}')
        cluster.join()
        found = told(started)
    assert (found.get("restarts"), found.get("taken_in")) == (1, 1), found.get(
        "warned", found
    )
    assert any(
        "training process 1" in text
        and "Restarting" in text
        and "with 1 process:" in text
        for text in found["warned"]
    )
    assert (found["steps"], found["processes"]) == (24, 2)
    log = sorted(records(processes), key=lambda one: one["at"])
    assert [one["world"] for one in log] == [2, 2, 1, 2, 2]
    launch = {
        one["pid"]: number for one, number in zip(log, [1, 1, 2, 3, 3], strict=True)
    }
    # the last that took a step
    counts = {
        one["step"]: launch[one["pid"]]
        for one in sorted(records(steps), key=lambda one: launch[one["pid"]])
    }
    assert set(counts.values()) == {1, 2, 3}
    for epoch in range(3):
        seen = [
            id
            for one in records(steps)
            if one["step"] // 8 == epoch and launch[one["pid"]] == counts[one["step"]]
            for id in one["ids"]
        ]
        assert len(seen) == len(set(seen)) == 256


@pytest.mark.parametrize(
    "launcher",
    [pytest.param(RAY, marks=pytest.mark.slow), pytest.param(SPARK, marks=LONG)],
    ids=["ray", "spark"],
)
def test_a_command_that_is_killed_takes_its_processes_along_and_is_resumed(
    launcher, tmp_path, unharmed
):
    started = program("train", tmp_path / "cluster", launcher, pause=0.2)
    steps, until = tmp_path / "cluster" / "steps.jsonl", time.monotonic() + 200
    while not steps.exists() or len(list(records(steps))) < 12:
        assert time.monotonic() < until and started.poll() is None, told(started)
        time.sleep(0.1)
    started.kill()
    started.communicate()
    until = time.monotonic() + 20
    while left := [
        one
        for one in records(tmp_path / "cluster" / "processes.jsonl")
        if psutil.pid_exists(one["pid"])
        and psutil.Process(one["pid"]).status() != psutil.STATUS_ZOMBIE
    ]:
        assert time.monotonic() < until, left
        time.sleep(0.1)
    laptop = {"type": "local", "processes": 2, "threads": 1}
    assert told(program("train", tmp_path / "cluster", laptop))["weights"] == unharmed


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [pytest.param(RAY, marks=pytest.mark.long), SPARK], ids=["ray", "spark"]
)
def test_a_users_error_comes_back_once_and_starts_nothing_again(launcher, tmp_path):
    found = told(
        program(
            "train",
            tmp_path,
            launcher,
            {"where": "step", "rank": 1, "step": 4, "do": "raise"},
        )
    )
    assert (
        found["error"] == "TrainingError"
        and "the model is unhappy 3 times" in found["message"]
        and "in training process 1" in found["message"]
    )
    assert len(list(records(tmp_path / "processes.jsonl"))) == 2


@pytest.mark.slow
@BOTH
def test_ctrl_c_reaches_the_ranks_which_save(launcher, tmp_path):
    started = program("train", tmp_path, launcher)
    until = time.monotonic() + 200
    while not (tmp_path / "steps.jsonl").exists():
        assert time.monotonic() < until and started.poll() is None, (
            tmp_path / "err"
        ).read_text()[-2000:]
        time.sleep(0.05)
    os.kill(started.pid, signal.SIGINT)
    found = told(started)
    assert found["error"] == "Interrupted", found
    assert list(Path(tmp_path).glob("store/runs/*/checkpoints/step-*/manifest.json"))
