"""The same recipe under torchrun, in a cluster and on this machine: the same dataset, weights and answers;
`make cluster-demo`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from penstock.core.identity import sha256_file
from tests.parts.test_launchers_env import alone

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["--set", "train.epochs=3", "--set", "train.early_stop=null"]


def train(
    recipe: str,
    store: Path,
    *words: str,
    before: tuple[str, ...] = (sys.executable,),
    code: int = 0,
) -> tuple[dict, str]:
    command = [
        *before,
        "-m",
        "penstock",
        "train",
        recipe,
        *WORDS,
        *words,
        "--json",
        "--store",
        str(store),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=280,
        env={**alone(), "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode != 0) == bool(code), done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 1, done.stdout  # one rank speaks
    return json.loads(lines[0]), done.stderr


@pytest.fixture
def recipe(people, tmp_path):
    shutil.copytree(people, tmp_path / "people")
    return str(tmp_path / "people" / "recipe.yaml")


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")


def test_a_mistake_under_torchrun_is_told_once_and_ends_all(recipe, tmp_path):
    found, said = train(
        recipe,
        tmp_path / "store",
        "--set",
        "launcher=env",
        "--set",
        "inputs.nowhere=number",
        before=TORCHRUN,
        code=2,
    )
    assert "nowhere" in found["message"]
    assert said.count("penstock: ") == 1


@pytest.mark.slow
def test_what_torchrun_starts_again_goes_on(recipe, tmp_path):
    """Rank 1 is killed once; torchrun starts both again, and the training goes on from its checkpoint to the
    weights that two processes without torchrun come to. One rank speaks.
    """
    here, _ = train(
        recipe,
        tmp_path / "here",
        "--set",
        "launcher={processes: 2, threads: 1}",
        "--set",
        "train.epochs=20",
    )
    store = tmp_path / "there"
    command = [
        *TORCHRUN,
        "--max-restarts",
        "2",
        "-m",
        "penstock",
        "train",
        recipe,
        *WORDS,
        "--set",
        "train.epochs=20",
        "--set",
        "train.checkpoint.every_steps=2",
        # Its steps are measured by all ranks together; it has room for all epochs.
        "--set",
        "train.budget=2h",
        "--set",
        "launcher=env",
        "--store",
        str(store),
    ]
    started = subprocess.Popen(
        command,
        env={**alone(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not list(store.glob("runs/*/checkpoints/step-*/manifest.json")):
            assert started.poll() is None
        for child in psutil.Process(started.pid).children():
            if child.environ().get("RANK") == "1":
                child.kill()
        _, said = started.communicate(timeout=250)
    finally:
        started.terminate()
    assert started.returncode == 0, said[-3000:]
    (run,) = store.glob("runs/*")
    assert "Continuing from step-" in said
    assert said.count("Training with 2 processes") == 1
    summary = json.loads((run / "run.json").read_text())["summary"]
    assert summary["processes"] == 2
    assert sha256_file(run / "model.safetensors") == sha256_file(
        Path(here["path"]) / "model.safetensors"
    )


@pytest.mark.slow
def test_under_torchrun_machines_go_and_come(recipe, tmp_path):
    """Two agents stand for two machines: one is killed, and the other goes on alone; a third comes, and is
    taken in.
    """
    store, agents = tmp_path / "store", []
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    elastic = [
        "--nnodes",
        "1:2",
        "--nproc-per-node",
        "1",
        "--max-restarts",
        "3",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        f"127.0.0.1:{port}",
        "--rdzv-id",
        "people",
        "--monitor-interval",
        "0.5",
    ]
    soon = "last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=3"
    words = [
        "--set",
        "train.epochs=100000",
        "--set",
        "train.early_stop=null",
        "--set",
        "train.checkpoint.every_steps=20",
        "--set",
        "launcher=env",
    ]

    def agent():
        with open(tmp_path / f"agent-{len(agents)}", "w") as log:
            meeting = ["--rdzv-conf", f"{soon},is_host={int(not agents)}"]
            command = [
                *TORCHRUN[:3],
                *elastic,
                *meeting,
                "-m",
                "penstock",
                "train",
                recipe,
                *words,
                "--store",
                str(store),
            ]
            agents.append(
                subprocess.Popen(
                    command,
                    env={
                        **alone(),
                        "OMP_NUM_THREADS": "1",
                        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
                    },
                    stdout=log,
                    stderr=log,
                )
            )

    def kept_by(processes, after=-1):
        """The last step of which so many processes have kept a checkpoint; None until there is one."""
        limit = time.monotonic() + 120
        while True:
            for path in sorted(store.glob("runs/*/checkpoints/step-*"), reverse=True):
                with contextlib.suppress(
                    OSError, ValueError
                ):  # dropped meanwhile, or not whole yet
                    state = json.loads((path / "state.json").read_text())
                    if state["processes"] == processes and state["place"]["step"] > after:
                        return state["place"]["step"]
            assert time.monotonic() < limit and agents[0].poll() is None, (
                tmp_path / "agent-0"
            ).read_text()[-3000:]
            time.sleep(0.1)

    try:
        agent()
        agent()
        both = kept_by(2)
        family = [
            *psutil.Process(agents[1].pid).children(recursive=True),
            psutil.Process(agents[1].pid),
        ]
        for one in reversed(family):
            one.kill()
        one = kept_by(1, both)
        agent()
        again = kept_by(2, one)
        for number in (0, 2):
            agents[number].terminate()
        for number in (0, 2):
            agents[number].wait(60)
    finally:
        for started in agents:
            for child in (
                psutil.Process(started.pid).children(recursive=True)
                if started.poll() is None
                else []
            ):
                child.kill()
            started.kill()
            started.wait()
    (run,) = store.glob("runs/*")  # one training, from beginning to end
    status = json.loads((run / "run.json").read_text())["status"]
    assert (both < one < again, status) == (True, "interrupted")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1100)
def test_the_cluster_demo():
    done = subprocess.run(
        [sys.executable, "examples/cluster_demo.py", "--small", "--minutes", "15"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1000,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "The same dataset, the same fitted state, metrics within rounding." in done.stdout
    )
