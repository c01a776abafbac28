"""Cores that may be used: what a container is given counts, not the machine's."""

import os
from pathlib import Path

import pytest

from penstock.core import cores


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


def own(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("max 100000\n", None),
        ("150000 100000\n", 1.5),
        ("50000 100000\n", 0.5),
        ("no\n", None),
    ],
)
def test_the_unified_hierarchy_says_it_in_one_file(tmp_path, text, quota):
    group(tmp_path / "groups" / "a", cpu_max=text)
    assert cores.quota_of(tmp_path / "groups", own(tmp_path, "0::/a\n")) == quota


def test_the_least_of_a_group_and_those_above_it_holds(tmp_path):
    group(tmp_path / "groups" / "pod", cpu_max="200000 100000")
    group(tmp_path / "groups" / "pod" / "mine", cpu_max="800000 100000")
    assert cores.quota_of(tmp_path / "groups", own(tmp_path, "0::/pod/mine\n")) == 2.0


def test_the_older_hierarchy_says_it_in_two(tmp_path):
    folder = tmp_path / "groups" / "cpu,cpuacct" / "a"
    group(folder)
    (folder / "cpu.cfs_quota_us").write_text("300000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    names = own(tmp_path, "5:cpu,cpuacct:/a\n4:memory:/a\n0::/a\n")
    assert cores.quota_of(tmp_path / "groups", names) == 3.0
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert cores.quota_of(tmp_path / "groups", names) is None


def test_without_groups_there_is_no_bound(tmp_path):
    assert cores.quota_of(tmp_path, tmp_path / "none") is None
    assert cores.quota_of(tmp_path, own(tmp_path, "rubbish\n0::/../..\n")) is None


@pytest.mark.parametrize(
    ("quota", "usable"), [(None, 6), (0.5, 1), (2.0, 2), (2.2, 3), (64.0, 6)]
)
def test_never_more_than_the_process_is_bound_to(monkeypatch, quota, usable):
    monkeypatch.setattr(cores, "_quota", lambda: quota)
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    else:
        monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.usable_cores() == usable
