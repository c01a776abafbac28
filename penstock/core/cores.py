"""The processor cores that this process may use: one answer for all who divide work.

A machine's cores are not it: a scheduler may bind the process to some of them (affinity), and a container may
be given the time of fewer (the bandwidth of its control group). More threads than that only wait for each
other.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """How many cores this process may keep busy; at least one.

    The least of the machine's cores, those it is bound to, and the whole cores that the time its control
    groups allow amounts to (a part of one counts as one).
    """
    if hasattr(os, "sched_getaffinity"):
        bound = len(os.sched_getaffinity(0))
    else:
        bound = os.cpu_count() or 1
    quota = _quota()
    # Rounded up: 1.5 cores of time keep two threads busy better than one.
    return max(1, bound if quota is None else min(bound, math.ceil(quota)))


@functools.cache
def _quota() -> float | None:
    return quota_of(_GROUPS, _OWN)


def quota_of(groups: Path, own: Path) -> float | None:
    """The cores' worth of time that control groups allow; None where they set no bound, or there are none.

    Args:
        groups: where control groups are mounted.
        own: the file that names this process's groups, a line `number:controllers:path` each.
    """
    try:
        lines = own.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    bounds: list[float] = []
    for line in lines:
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        # Version 2 has a single hierarchy, whose line names no controllers.
        if not controllers:
            bounds += _bounds(groups, path, _unified)
        elif "cpu" in controllers.split(","):
            # Distributions mount it under all its names (`cpu,cpuacct`) or under `cpu`.
            for mount in (groups / controllers, groups / "cpu"):
                bounds += _bounds(mount, path, _legacy)
    return min(bounds, default=None)


def _bounds(mount: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    """The bounds of a group and of those above it: the least of them holds."""
    folder = mount / path.lstrip("/")
    bounds = [
        read(level)
        # In a container the own path may lie outside of what is mounted, so only levels
        # below it count.
        for level in (folder, *folder.parents)
        if level == mount or mount in level.parents
    ]
    return [bound for bound in bounds if bound is not None]


def _unified(folder: Path) -> float | None:
    """`cpu.max` of version 2: `max 100000`, or `150000 100000`, in microseconds."""
    words = _words(folder / "cpu.max")
    return _ratio(words[0], words[1]) if len(words) == 2 else None


def _legacy(folder: Path) -> float | None:
    """`cpu.cfs_quota_us` of version 1, -1 for no bound, over `cpu.cfs_period_us`."""
    quota, period = (
        _words(folder / "cpu.cfs_quota_us"),
        _words(folder / "cpu.cfs_period_us"),
    )
    return _ratio(quota[0], period[0]) if quota and period else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text("ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def _ratio(quota: str, period: str) -> float | None:
    if (
        # `max` and -1 mean no bound.
        not (quota.isdecimal() and period.isdecimal())
        or int(quota) == 0
        or int(period) == 0
    ):
        return None
    return int(quota) / int(period)


__all__ = ["quota_of", "usable_cores"]
