"""A peer at work: run by its environment's own python, asked over stdin and answering over stdout, a JSON
line each.

    python -P serve.py NAME CORES

`NAME.py` beside this file has a function for each task that it can do. It is given where the common data and
a folder of its own are, and returns (`epoch`, `rows`, `total`): `epoch(n)` goes through the batches of an
epoch, `rows(batch)` counts and `total(batch)` is a number whose sum over an epoch must be everybody's. A
fourth, `clock()`, where there is one, gives the seconds and CPU seconds of the part of the last epoch that is
to be timed, all of it being more.

    {"do": "setup", "task": "tabular", "with": {…}} → {"versions": {…}}
    {"do": "check"}                                 → {"rows": …, "total": …, "first": [[dtype, shape], …]}
    {"do": "run", "epoch": 3}                       → {"seconds": …, "cpu_seconds": …, "rows": …,
                                                       "whole_cpu_seconds": …}

The process keeps to CORES cores, so that "one thread" is one core whatever threads and children a library
starts. Its CPU seconds are those of its threads and of its children, also of children that still live.

Only the standard library is imported here: every peer's environment has that.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import resource
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """CPU seconds of this process's threads and of its children, dead and alive."""
    dead = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (
        time.process_time()
        + dead.ru_utime
        + dead.ru_stime
        + sum(map(_lived, _children(os.getpid())))
    )


def _children(process: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [int(child) for child in file.read_text().split()]
        except OSError:  # the thread ended meanwhile
            continue
    return found


def _lived(process: int) -> float:
    """CPU seconds of a living child, its own dead children and its living ones."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it ended meanwhile
        return 0.0
    return sum(map(int, fields[11:15])) / _TICK + sum(map(_lived, _children(process)))


def load(name: str) -> Any:
    """The file `name` beside this one, as a module that does not hide a package of the same name."""
    spec = importlib.util.spec_from_file_location(
        f"peer_{name}", Path(__file__).parent / f"{name}.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    name, cores = sys.argv[1], int(sys.argv[2])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the log
    sys.path.append(
        str(Path(__file__).parent)
    )  # last: what these files are called hides no library
    held: dict[str, Any] = {}
    for line in sys.stdin:
        ask = json.loads(line)
        try:
            answer = _DO[ask.pop("do")](held, name, **ask)
        except Exception as error:  # noqa: BLE001 - told to who asked
            traceback.print_exc()
            answer = {
                "error": (
                    f"{type(error).__name__}:"
                    f" {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
                )
            }
        answers.write(json.dumps(answer) + "\n")


def _setup(held: dict[str, Any], name: str, *, task: str, **rest: Any) -> dict[str, Any]:
    module = load(name)
    held["epoch"], held["rows"], held["total"], *clock = getattr(module, task)(
        **rest["with"]
    )
    held["clock"] = clock[0] if clock else None
    return {"versions": {package: version(package) for package in module.PACKAGES}}


def _check(held: dict[str, Any], name: str) -> dict[str, Any]:
    rows = total = 0
    first: list[Any] = []
    for batch in held["epoch"](0):
        rows += held["rows"](batch)
        total += int(held["total"](batch))
        if not first:
            values = batch.values() if isinstance(batch, dict) else batch
            first = [[str(each.dtype), list(each.shape)] for each in values]
    if not rows:
        raise RuntimeError("no batch came; the log has what went wrong")
    return {"rows": rows, "total": total, "first": first}


def _run(held: dict[str, Any], name: str, *, epoch: int) -> dict[str, Any]:
    gc.collect()
    count, rows = held["rows"], 0
    start, cpu = time.perf_counter(), cpu_seconds()
    for batch in held["epoch"](epoch):
        rows += count(batch)
    seconds = time.perf_counter() - start
    if not rows:
        raise RuntimeError("no batch came; the log has what went wrong")
    whole = cpu_seconds() - cpu
    part = held["clock"]() if held["clock"] else (seconds, whole)
    return {
        "seconds": part[0],
        "cpu_seconds": part[1],
        "rows": rows,
        "whole_cpu_seconds": whole,
    }


_DO = {"setup": _setup, "check": _check, "run": _run}

if __name__ == "__main__":
    main()
