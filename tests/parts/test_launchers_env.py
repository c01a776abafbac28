"""The env launcher: places in every scheduler's words; real processes started by torchrun and by hand, on
loopback.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.contracts.learn import Launcher
from penstock.contracts.tasks import launchable
from penstock.core.errors import RecipeError, StoreError, UserError
from penstock.parts.launchers._places import nodes_of, place_of
from penstock.parts.launchers._rank import explained
from penstock.testing.laws import launchers as laws

WORDS = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "JOB_COMPLETION_INDEX",
    "SLURM_PROCID",
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
)


def alone():
    """This environment, with no word of a place in it."""
    return {
        word: value
        for word, value in os.environ.items()
        if not word.startswith(("SLURM_", "OMPI_", "PMI_", "TORCHELASTIC_"))
        and word not in WORDS
    }


@launchable
def refuse(world):
    if world.rank == 1:
        raise RecipeError("rank 1 refuses")
    laws._meet(world)


@launchable
def die(world):
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    laws._meet(world)


@launchable
def place(world):
    return world.rank, world.size, world.local_rank, world.threads


def ranks(function, count=2):
    """`function` launched in so many processes that were started with RANK and the rest set; each one's exit
    code and what it printed.
    """
    code = (
        "import sys, json; from penstock.contracts.learn import Launcher; from penstock.core.errors import"
        " PenstockError; import tests.parts.test_launchers_env as here\nlauncher = Launcher.load({'type':"
        " 'env', 'start_seconds': 60})\ntry: print(json.dumps(launcher.lead(lambda: {'value':"
        " launcher.launch(getattr(here, sys.argv[1]), (), processes=2, threads=1)})))\nexcept PenstockError"
        " as error: print(f'{type(error).__name__}: {error}'); sys.exit(error.exit_code)"
    )
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, function.__name__],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **alone(),
                "RANK": str(rank),
                "WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "LOCAL_RANK": str(rank),
                "OMP_NUM_THREADS": "1",
            },
        )
        for rank in range(count)
    ]
    try:
        said = [one.communicate(timeout=120) for one in started]
    finally:
        for one in started:
            one.kill()
    return [
        (one.returncode, out.strip() or err.strip()[-500:])
        for one, (out, err) in zip(started, said, strict=True)
    ]


@pytest.mark.parametrize(
    ("env", "rank", "size", "local", "host", "port"),
    [
        (
            {
                "RANK": "3",
                "WORLD_SIZE": "8",
                "LOCAL_RANK": "1",
                "LOCAL_WORLD_SIZE": "2",
                "MASTER_ADDR": "a",
                "MASTER_PORT": "99",
            },
            3,
            8,
            (1, 2),
            "a",
            99,
        ),
        (
            {
                "RANK": "1",
                "WORLD_SIZE": "4",
                "MASTER_ADDR": "job-master-0",
                "MASTER_PORT": "23456",
            },
            1,
            4,
            (0, 1),
            "job-master-0",
            23456,
        ),
        (
            {
                "JOB_COMPLETION_INDEX": "2",
                "WORLD_SIZE": "4",
                "MASTER_ADDR": "job-0.job",
                "MASTER_PORT": "29400",
            },
            2,
            4,
            (0, 1),
            "job-0.job",
            29400,
        ),
        (
            {
                "SLURM_PROCID": "5",
                "SLURM_NTASKS": "6",
                "SLURM_LOCALID": "1",
                "SLURM_NODELIST": "gpu[07-09]",
                "MASTER_PORT": "5",
            },
            5,
            6,
            (1, 2),
            "gpu07",
            5,
        ),
        (
            {
                "SLURM_PROCID": "1",
                "SLURM_NTASKS": "4",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_JOB_NODELIST": "solo",
                "SLURM_LOCALID": "1",
                "MASTER_PORT": "5",
            },
            1,
            2,
            (1, 2),
            "127.0.0.1",
            5,
        ),
        (
            {
                "SLURM_PROCID": "6",
                "SLURM_NTASKS": "7",
                "SLURM_LOCALID": "0",
                "SLURM_NODEID": "3",
                "SLURM_TASKS_PER_NODE": "2(x3),1",
                "SLURM_NODELIST": "gpu[07-10]",
                "MASTER_PORT": "5",
            },
            6,
            7,
            (0, 1),
            "gpu07",
            5,
        ),
        (
            {
                "OMPI_COMM_WORLD_RANK": "1",
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
                "MASTER_PORT": "5",
            },
            1,
            2,
            (1, 2),
            "127.0.0.1",
            5,
        ),
        (
            {"PMI_RANK": "0", "PMI_SIZE": "3", "MASTER_ADDR": "b", "MASTER_PORT": "7"},
            0,
            3,
            (0, 1),
            "b",
            7,
        ),
    ],
    ids=[
        "torchrun",
        "kubeflow",
        "kubernetes",
        "slurm",
        "slurm step",
        "slurm of uneven nodes",
        "open mpi",
        "mpi",
    ],
)
def test_a_place_in_each_schedulers_words(env, rank, size, local, host, port):
    found = place_of(env)
    assert (
        found.rank,
        found.size,
        (found.local_rank, found.local_size),
        found.host,
        found.port,
    ) == (
        rank,
        size,
        local,
        host,
        port,
    )


def test_slurm_and_mpi_agree_on_a_port_where_none_is_given():
    slurm = [
        place_of(
            {
                "SLURM_PROCID": str(rank),
                "SLURM_NTASKS": "2",
                "SLURM_NODELIST": "n[1-2]",
                "SLURM_JOB_ID": "4711",
            }
        ).port
        for rank in (0, 1)
    ]
    assert slurm[0] == slurm[1] and 1024 < slurm[0] < 65536


def test_one_process_needs_no_meeting_place():
    assert place_of({"RANK": "0", "WORLD_SIZE": "1"}).size == 1
    assert place_of({"JOB_COMPLETION_INDEX": "0", "WORLD_SIZE": "1"}).size == 1


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "from the environment.*torchrun --nproc-per-node"),
        ({"RANK": "0"}, "WORLD_SIZE is not"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x'; expected a whole number"),
        (
            {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "rank 2 of 2",
        ),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "Set MASTER_ADDR"),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "MASTER_PORT is not set"),
        ({"JOB_COMPLETION_INDEX": "1"}, "WORLD_SIZE is not"),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, "Set MASTER_ADDR"),
    ],
)
def test_what_is_lacking_is_said(env, words):
    with pytest.raises(UserError, match=words):
        place_of(env)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z]{1,4}-?", fullmatch=True),
            st.lists(st.integers(0, 30), min_size=1, max_size=5, unique=True),
            st.integers(1, 3),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_names_in_slurms_short_form(groups):
    short = ",".join(
        f"{name}[{','.join(str(n).zfill(width) for n in numbers)}]"
        for name, numbers, width in groups
    )
    assert nodes_of(short) == [
        f"{name}{str(n).zfill(width)}" for name, numbers, width in groups for n in numbers
    ]
    assert nodes_of("a[01-03],b,c[9-11]x") == [
        "a01",
        "a02",
        "a03",
        "b",
        "c9x",
        "c10x",
        "c11x",
    ]


def test_a_store_that_another_machine_does_not_see_is_said():
    found = explained(
        StoreError("there is no feed abc in the store /mnt/store."), "laptop"
    )
    assert (
        isinstance(found, StoreError)
        and "training was started on laptop" in str(found)
        and "shared file system" in str(found)
    )
    assert (
        str(explained(StoreError("the disk is full"), socket.gethostname()))
        == "the disk is full"
    )


def test_the_words_of_the_environment_are_asked_for_when_needed(monkeypatch):
    for word in list(os.environ):
        if word not in alone():
            monkeypatch.delenv(word)
    launcher = Launcher.load("env")
    with pytest.raises(UserError, match="launcher: env"):
        launcher.limits()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launcher.limits() == (1, None)
    assert launcher.here().size == 1
    laws.one(launcher)
    with pytest.raises(UserError, match="has started 1"):
        launcher.launch(place, (), processes=2, threads=1)


def test_laws_under_torchrun():
    code = (
        "from penstock.contracts.learn import Launcher; from penstock.testing.laws import launchers as laws;"
        " import os\nlaws.check(Launcher.load('env')); print('lawful', os.environ['RANK'])"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "--no-python",
            sys.executable,
            "-c",
            code,
        ],
        env={**alone(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(line for line in done.stdout.splitlines() if "lawful" in line) == [
        "lawful 0",
        "lawful 1",
    ]


def test_an_error_of_another_rank_ends_all_alike():
    found = ranks(refuse)
    assert found == [(2, "RecipeError: rank 1 refuses")] * 2


def test_a_death_is_named_and_the_others_end():
    began = time.monotonic()
    (code, said), (other, _) = ranks(die)
    assert (code, other) == (4, -signal.SIGKILL)
    assert (
        "RankLost: training process 1 (on" in said
        and "ended without an error message" in said
    )
    assert time.monotonic() - began < 250  # a hang, not a speed


def test_every_rank_knows_its_place():
    assert [json.loads(said)["value"] for _, said in ranks(place)] == [[0, 2, 0, 1]] * 2
