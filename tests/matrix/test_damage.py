"""Checkpoints that were harmed, disks that are full."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.matrix.harness import Case


def torn(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def flipped(path):
    file = path / "optimiser.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def missing(path):
    (path / "state.json").unlink()


def unfinished(path):
    (path / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("harm", "processes"),
    [
        pytest.param(
            harm,
            processes,
            marks=[] if (harm, processes) == (flipped, 1) else pytest.mark.faults,
        )
        for processes, harms in (
            (1, (torn, flipped, missing, unfinished)),
            (2, (flipped,)),
        )
        for harm in harms
    ],
)
def test_a_harmed_checkpoint_is_refused_aloud_and_the_one_before_it_used(
    harm, processes, tmp_path, reference
):
    case = Case(
        tmp_path,
        {
            "where": "step",
            "rank": 0,
            "step": 14,
            "do": "kill",
            "victims": ["launcher"],
            "delay": 0.3,
        },
        processes=processes,
    )
    newest = []

    def between():
        newest.extend(sorted(case.run.checkpoints.glob("step-*"))[-2:])
        harm(newest[-1])

    case.through(between=between)
    assert (
        f"The checkpoint {newest[1].name} cannot be used; the one before it is"
        in case.warned()
    )
    assert any(
        f"Continuing from {newest[0].name}" in event["text"]
        for event in case.events("said")
    )
    case.holds(reference(processes))


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
def test_all_checkpoints_harmed_is_a_start_at_step_0(processes, tmp_path, reference):
    case = Case(
        tmp_path,
        {
            "where": "step",
            "rank": 0,
            "step": 14,
            "do": "kill",
            "victims": ["launcher"],
            "delay": 0.3,
        },
        processes=processes,
    )
    case.through(
        between=lambda: [flipped(path) for path in case.run.checkpoints.glob("step-*")]
    )
    assert any(
        "There is no checkpoint to continue from" in event["text"]
        for event in case.events("said")
    )
    case.holds(reference(processes))


@pytest.fixture
def small_disk():
    """Make a folder a disk of so many bytes; as root only."""
    mounted = []

    def mount(path, size_bytes):
        path.mkdir(parents=True, exist_ok=True)
        done = (
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(path)],
                capture_output=True,
            )
            if os.geteuid() == 0
            else None
        )
        if done is None or done.returncode:
            pytest.skip("only root may mount a small disk")
        mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("size_bytes", [4096, 49152])
def test_a_full_disk_stops_no_training_and_is_said(
    size_bytes, processes, tmp_path, reference, small_disk
):
    case = Case(tmp_path, processes=processes)
    small_disk(case.run.checkpoints, size_bytes)
    assert case.train().code == 0
    assert (
        "training continues without it: the disk is full while writing" in case.warned()
    )
    assert case.lost_and_repeated() == (0, 0)
    assert case.weights() == reference(processes).weights()
    assert not list(case.run.checkpoints.glob(".step-*"))
    case.nobody_left()
