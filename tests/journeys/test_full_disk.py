"""A full disk is one sentence, and nothing half-made is kept."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from penstock.cli import main


@pytest.fixture
def small_disk(tmp_path):
    """A disk of three megabytes."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk to fill")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(path)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def recipe(tmp_path, rows: int) -> str:
    rng = np.random.default_rng(0)
    pq.write_table(
        pa.table(
            {
                "x": rng.normal(size=rows),
                "z": rng.normal(size=rows),
                "y": rng.integers(0, 3, rows),
            }
        ),
        tmp_path / "t.parquet",
    )
    path = tmp_path / "r.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "t",
                "source": {"type": "files", "path": "t.parquet"},
                "inputs": {"x": "number", "z": "number"},
                "targets": {"y": "category"},
                "train": {"epochs": 1},
                "launcher": {"type": "local", "processes": 1, "threads": 1},
            }
        )
    )
    return str(path)


@pytest.mark.parametrize(("command", "rows"), [("prepare", 200_000), ("run", 20_000)])
def test_a_full_disk_is_one_sentence(tmp_path, small_disk, capsys, command, rows):
    code = main([command, recipe(tmp_path, rows), "--store", str(small_disk / "store")])
    err = capsys.readouterr().err
    assert code == 2, err
    assert "Traceback" not in err
    assert "full" in err and "--store" in err, err
    left = [
        p
        for p in (small_disk / "store").rglob("*")
        if p.is_file() and p.name != "manifest.json" and ".staging" in p.parts
    ]
    assert not left
