"""Ctrl-C saves and says how to go on; `penstock resume` goes on exactly."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.cli import main
from penstock.core.identity import sha256_file

EPOCHS = [
    "--set",
    "train.epochs=25",
    "--set",
    "train.early_stop=null",
    "--set",
    "train.batch_size=16",
]


def penstock(*arguments: str, **kwargs) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "penstock", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def finished(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def only_run(store: Path) -> Path:
    (run,) = (store / "runs").iterdir()
    return run


@pytest.fixture(scope="module")
def never_stopped(people, tmp_path_factory):
    """A folder with the recipe, and `whole`: a store in which it was trained without a stop."""
    folder = tmp_path_factory.mktemp("interrupted")
    shutil.copytree(people, folder / "people")
    recipe, store = str(folder / "people" / "recipe.yaml"), str(folder / "whole")
    code, _, err = finished(penstock("train", recipe, *EPOCHS, "--store", store))
    assert code == 0, err
    return folder


@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_stopped_and_resumed_is_the_same_as_never_stopped(
    never_stopped, tmp_path, how, capsys
):
    recipe = str(never_stopped / "people" / "recipe.yaml")
    store = tmp_path / "cut"
    process = penstock("train", recipe, *EPOCHS, "--store", str(store))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(
        store.glob("runs/*/checkpoints/step-*/manifest.json")
    ):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(how)
    code, _, err = finished(process)
    run = only_run(store)
    if how == signal.SIGINT:
        assert code == 130
        assert f"penstock resume {run.name} --store {store}" in err
    else:
        assert code == -signal.SIGKILL

    code, out, err = finished(
        penstock("resume", run.name, "--store", str(store), "--json")
    )
    assert code == 0, err
    resumed = json.loads(out)
    assert resumed["run"] == run.name
    whole = only_run(never_stopped / "whole")
    assert sha256_file(run / "model.safetensors") == sha256_file(
        whole / "model.safetensors"
    )
    assert main(["resume", run.name, "--store", str(store)]) == 2
    assert "nothing is left to resume" in capsys.readouterr().err
