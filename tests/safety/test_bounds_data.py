"""Bounds of data: wide tables, long texts and unknown labels cost what they are, and stay below a small ceiling.

Each case runs in a child process that a watch ends, so that a regression cannot take the machine's memory.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from penstock.core.memory import Ceiling, held_bytes

CEILING_BYTES = 1 << 30
HANG_SECONDS = 600
"""Generous: only a hang lasts so long."""


def penstock(folder: Path, *words: str, most_bytes: int = CEILING_BYTES) -> subprocess.CompletedProcess[str]:
    """Run a command in a child; fail where its tree holds more than `most_bytes`, or hangs."""
    with open(folder / "said.txt", "w+", encoding="utf-8") as said:
        child = subprocess.Popen([sys.executable, "-m", "penstock", *words], cwd=folder, stdout=said, stderr=subprocess.STDOUT, text=True)
        deadline = time.monotonic() + HANG_SECONDS
        try:
            while child.poll() is None:
                held = held_bytes(child.pid)
                assert held <= most_bytes, f"{words[0]} held {held >> 20} MiB"
                assert time.monotonic() < deadline, f"{words[0]} hangs"
                time.sleep(0.02)
        finally:
            child.kill()
            child.wait()
        said.seek(0)
        return subprocess.CompletedProcess(words, child.returncode, said.read())


def wide(folder: Path, columns: int, rows: int = 400) -> None:
    chance = np.random.default_rng(0)
    values = chance.normal(size=(rows, columns)).round(6)
    table = {f"c{i}": values[:, i] for i in range(columns)}
    table["y"] = np.where(values[:, 0] > 0, "yes", "no")
    pyarrow.csv.write_csv(pa.table(table), folder / "wide.csv")
    (folder / "recipe.yaml").write_text(
        "name: wide\nsource: {type: files, path: wide.csv}\nresources: {memory: 1GiB}\nclean: [deduplicate]\n"
        f"expect: {{c1: {{max: 2.5}}, c{columns - 1}: {{max: 2.5}}}}\nsplit: {{stratify: y}}\n", "utf-8")


@pytest.mark.parametrize("columns", [700, pytest.param(5_000, marks=pytest.mark.slow)])
def test_a_wide_table_is_prepared_below_a_small_ceiling(tmp_path, columns):
    wide(tmp_path, columns)
    done = penstock(tmp_path, "prepare", "recipe.yaml")
    assert done.returncode == 0, done.stdout
    lines = (tmp_path / "wide.csv").read_text("utf-8").splitlines()[1:]
    broken = sum(float(line.split(",")[1]) > 2.5 or float(line.split(",")[columns - 1]) > 2.5 for line in lines)
    assert f"{broken} quarantined + 0 duplicates" in done.stdout


def test_duplicates_of_a_wide_table_are_found(tmp_path):
    wide(tmp_path, 700, rows=40)
    lines = (tmp_path / "wide.csv").read_text("utf-8").splitlines()
    (tmp_path / "wide.csv").write_text("\n".join([*lines, *lines[1:6]]) + "\n", "utf-8")
    (tmp_path / "recipe.yaml").write_text("name: wide\nsource: {type: files, path: wide.csv}\nresources: {memory: 1GiB}\nclean: [deduplicate]\n", "utf-8")
    done = penstock(tmp_path, "prepare", "recipe.yaml")
    assert done.returncode == 0 and "5 duplicates" in done.stdout, done.stdout


def test_six_long_texts_are_no_matter(tmp_path):
    (tmp_path / "texts" / "a").mkdir(parents=True)
    for i in range(6):
        (tmp_path / "texts" / "a" / f"{i}.txt").write_text(f"word{i} " * 500_000, "utf-8")
    (tmp_path / "recipe.yaml").write_text("name: texts\nsource: {type: folder, path: texts}\nresources: {memory: 1GiB}\n", "utf-8")
    done = penstock(tmp_path, "prepare", "recipe.yaml")
    assert done.returncode == 0 and "6 in = " in done.stdout, done.stdout


def test_an_unknown_label_is_compared_with_no_other(monkeypatch):
    import difflib

    from penstock.contracts.data import Feature

    def refused(*words: object, **more: object) -> None:
        raise AssertionError("difflib was asked for a row")

    monkeypatch.setattr(difflib, "get_close_matches", refused)
    feature = Feature.load({"type": "set"})
    fitted = {"values": [f"Label {i}" for i in range(1_000)], "target": True}
    column = pa.array([["label-7"], ["nowhere"], ["Label 3"]], feature.canonical)
    reasons = feature.unknown(column, fitted).reasons
    assert len(reasons) == 2 and "Did you mean 'Label 7'?" in reasons[0] and "Did you mean" not in reasons[1]


def test_memory_that_is_refused_ends_in_the_stages_sentence():
    with pytest.raises(Exception, match=r"prepare held .* MiB of memory"), Ceiling(1 << 50, stage="prepare", advice="Raise it."):
        raise MemoryError
