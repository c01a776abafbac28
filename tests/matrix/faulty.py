"""A model of the user's that keeps a log of what each step saw, and does harm where a plan says so.

Imported by the recipe in each training process (`model.type`), and only there: product code knows nothing of
it. The plan is `plan.json` in the folder that PENSTOCK_TEST_FAULTS names: {"pause": seconds a step, "faults":
[{"where", "rank", "step", "do", "victims", "delay"}]}. Each fault happens once, whatever is started again.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from penstock.train import checkpoint as checkpoint_file
from penstock.train.learner import Learner

FOLDER = Path(os.environ["PENSTOCK_TEST_FAULTS"])
PLAN = json.loads((FOLDER / "plan.json").read_text())
RANK = int(os.environ.get("RANK", "0"))
ATTEMPT = Path(
    os.environ.get("PENSTOCK_PULSE", f"/{os.getpid()}/x")
).parent.name  # one folder a launch
_now = {"step": -1}


def _say(name: str, **fields: Any) -> None:
    line = (
        "\n"
        + json.dumps(
            {
                "attempt": ATTEMPT,
                "at": time.time_ns(),
                "rank": RANK,
                "pid": os.getpid(),
                "parent": os.getppid(),
                **fields,
            }
        )
        + "\n"
    )
    handle = os.open(FOLDER / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, line.encode())
    os.close(handle)


_say("processes.jsonl", world=int(os.environ.get("WORLD_SIZE", "1")))


def _once(number: int) -> bool:
    try:
        os.close(os.open(FOLDER / f"fired-{number}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _pid(victim: str) -> int:
    lines = [
        json.loads(line)
        for line in (FOLDER / "processes.jsonl").read_text().splitlines()
        if line.endswith("}")
    ]
    mine = [line for line in lines if line["attempt"] == ATTEMPT]
    if victim == "launcher":
        return int(mine[0]["parent"]) if "PENSTOCK_PULSE" in os.environ else os.getpid()
    return next(
        int(line["pid"])
        for line in mine
        if line["rank"] == int(victim.removeprefix("rank"))
    )


def _harm(fault: dict[str, Any]) -> None:
    time.sleep(fault.get("delay", 0.0))
    what = fault["do"]
    if what in ("kill", "stop"):
        pids = [_pid(victim) for victim in fault.get("victims", [f"rank{RANK}"])]
        for pid in sorted(pids, key=lambda pid: pid == os.getpid()):  # ourselves last
            os.kill(pid, signal.SIGKILL if what == "kill" else signal.SIGSTOP)
    elif what == "term":
        os.kill(_pid("launcher"), signal.SIGTERM)
    elif what == "exit":
        os._exit(3)
    elif what == "pause":
        time.sleep(fault["seconds"])
    elif what == "hang":
        time.sleep(600)
    elif what == "raise":
        raise ValueError(f"the model is unhappy {2 + 1} times")
    elif what == "memory":
        torch.empty(1 << 58)
    else:
        raise AssertionError(what)


def meet(where: str, step: int) -> None:
    """Do what the plan has for this place and step."""
    for number, fault in enumerate(PLAN["faults"]):
        if (
            fault["where"] == where
            and fault["rank"] == RANK
            and step >= fault["step"]
            and _once(number)
        ):
            if fault.get("aside"):
                threading.Thread(target=_harm, args=(fault,), daemon=True).start()
            else:
                _harm(fault)


_step, _judge, _reduce, _write = (
    Learner.step,
    Learner.judge,
    dist.all_reduce,
    checkpoint_file.write_tensors,
)


def _stepping(self: Learner, batch: Any, **words: Any) -> Any:
    _now["step"] = words["step"]
    ids = [
        f"{high & (2**64 - 1):016x}{low & (2**64 - 1):016x}"
        for high, low in batch["row_id"].tolist()
    ]
    _say("steps.jsonl", step=words["step"], ids=ids)
    time.sleep(PLAN["pause"])
    meet("step", words["step"])
    return _step(self, batch, **words)


def _judging(self: Learner, batch: Any) -> Any:
    meet("judge", _now["step"])
    return _judge(self, batch)


def _reducing(*arguments: Any, **words: Any) -> Any:
    meet("reduce", _now["step"])
    return _reduce(*arguments, **words)


def _writing(path: Path, tensors: Any) -> Any:
    if path.parent.name.startswith(".step-"):
        meet("before write", _now["step"])
        path.write_bytes(b"half of a file")
        meet("write", _now["step"])
    return _write(path, tensors)


Learner.step, Learner.judge, dist.all_reduce, checkpoint_file.write_tensors = (
    _stepping,
    _judging,
    _reducing,
    _writing,
)  # type: ignore[method-assign, assignment]


class Net(nn.Module):
    """A hundred weights: no chance, no batch statistics, so that every number of processes learns the
    same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.training:
            meet("forward", _now["step"])  # a fault here is the user's own line
        return {
            "y": self.layers(torch.stack([batch["a.value"], batch["b.value"]], 1))[:, 0]
        }
