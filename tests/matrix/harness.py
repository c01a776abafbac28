"""Runs a tiny training with a plan of faults, starts it again as a user would, and looks at what became of
it.

Each attempt is a forked process of its own (a launcher that may be killed), and so are the processes that it
starts (`forked`), but where a test wants fresh ones. The log of `faulty` tells which rows each step of each
attempt saw; the history that made the final weights has, for each step, the last attempt that took it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import torch

from penstock.core.errors import Interrupted, PenstockError
from penstock.core.events import Events, JsonLines
from penstock.core.identity import sha256_file
from penstock.core.store import Store
from penstock.encode.feed import Feed
from penstock.nn.weights import read_tensors
from penstock.parts.launchers import local
from penstock.recipe.schema import Recipe
from penstock.run import Run
from penstock.train.supervisor import train
from tests.matrix.forked import Forked
from tests.train.tiny import tiny_feed, tiny_recipe, tiny_run, tiny_table

ROWS, BATCH, EPOCHS = 256, 32, 3
STEPS = EPOCHS * ROWS // BATCH
IDS = tiny_table(ROWS)["row_id"].to_pylist()
SECONDS = 90.0
"""An attempt that takes longer hangs."""


@dataclass
class Attempt:
    """How one process that trained has ended."""

    code: int
    """Of its exit; negative: the signal that killed it."""
    error: str | None = None
    type: str | None = None
    summary: dict[str, Any] = field(default_factory=dict)


class Case:
    """One run and its faults.

    Args:
        folder: an empty one.
        faults: see `faulty`.
        processes: of the local launcher, or a declaration of it.
        is_fresh: the processes of a training are started as the launcher does; else they are forks.
        words: more words of `train`.
    """

    def __init__(
        self,
        folder: Path,
        *faults: dict[str, Any],
        processes: Any = 1,
        pause: float = 0.005,
        is_fresh: bool = False,
        spoil: Callable[[Any], None] | None = None,
        store: str | None = None,
        **words: Any,
    ) -> None:
        self.folder, self.is_fresh = folder, is_fresh
        launcher = processes if isinstance(processes, dict) else {"processes": processes}
        checkpoint = {"every_steps": 3, "keep": 3, **words.pop("checkpoint", {})}
        self.recipe: Recipe = tiny_recipe(
            folder,
            launcher={"type": "local", "threads": 1, **launcher},
            model={"type": "tests.matrix.faulty:Net"},
            epochs=EPOCHS,
            batch_size=BATCH,
            checkpoint=checkpoint,
            **words,
        )
        self.store = Store(store or folder / "store")
        self.feed: Feed = tiny_feed(
            self.store, self.recipe, rows=ROWS, validation=64, change=spoil
        )
        self.run: Run = tiny_run(self.store, self.recipe, self.feed)
        self.run.record({"status": "interrupted"})  # free for another process to take
        (folder / "plan.json").write_text(
            json.dumps({"pause": pause, "faults": list(faults)})
        )
        self.attempts: list[Attempt] = []
        self.launchers: list[int] = []

    # -- running ---------------------------------------------------------------------------------------------

    def train(
        self, *, resume: bool = False, meanwhile: Callable[[int], None] | None = None
    ) -> Attempt:
        """One attempt, to its end."""
        warm()
        said = self.folder / f"said-{len(self.attempts)}.json"
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setsid()
                torch.set_num_threads(1)
                os.environ["PENSTOCK_TEST_FAULTS"] = str(self.folder)
                os.environ["TMPDIR"] = str(self.folder)
                import tempfile

                tempfile.tempdir = str(self.folder)
                code = self._attempt(said, resume)
            finally:
                os._exit(code)
        self.launchers.append(pid)
        if meanwhile:
            meanwhile(pid)
        found = Attempt(
            _ended(pid), **(json.loads(said.read_text()) if said.exists() else {})
        )
        self.attempts.append(found)
        return found

    def _attempt(self, said: Path, resume: bool) -> int:
        if not self.is_fresh:
            # In this process alone, which is a fork that ends after this attempt.
            local.subprocess = SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE)  # type: ignore[assignment]
        run = Run.open(Store(self.store.url), reference=self.run.id)
        try:
            summary = train(
                self.recipe,
                self.feed,
                run,
                Events(JsonLines(run.events_path)),
                resume=resume,
            )
        except PenstockError as error:
            run.record(
                {
                    "status": "interrupted"
                    if isinstance(error, Interrupted)
                    else "failed",
                    "error": str(error),
                }
            )
            said.write_text(
                json.dumps({"error": str(error), "type": type(error).__name__})
            )
            return error.exit_code
        run.finish(summary)
        said.write_text(json.dumps({"summary": summary}))
        return 0

    def through(
        self, *, most: int = 3, between: Callable[[], None] | None = None
    ) -> Attempt:
        """Train and, while something outside ends it, resume: what a user would do."""
        found = self.train()
        while found.code != 0 and len(self.attempts) < most:
            self.nobody_left()
            if between:
                between()
                between = None
            found = self.train(resume=True)
        assert found.code == 0, found
        return found

    # -- what became of it -----------------------------------------------------------------------------------

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [
            json.loads(line)
            for line in self.run.events_path.read_text("utf-8").splitlines()
        ]
        return [line for line in lines if line["event"] == name]

    def warned(self) -> str:
        return "\n".join(event["text"] for event in self.events("warned"))

    def history(self) -> dict[int, list[str]]:
        """step → ids of the rows that it saw, in the attempt that counts."""
        lines = list(records(self.folder / "steps.jsonl"))
        begun: dict[str, int] = {}
        for line in lines:
            begun[line["attempt"]] = min(
                begun.get(line["attempt"], line["at"]), line["at"]
            )
        found: dict[int, list[str]] = {}
        for step in sorted({line["step"] for line in lines}):
            here = [line for line in lines if line["step"] == step]
            last = max(
                (line["attempt"] for line in here), key=lambda attempt: begun[attempt]
            )
            # after going back, the later of two
            latest = {
                line["rank"]: line["ids"] for line in here if line["attempt"] == last
            }
            found[step] = sorted(id for ids in latest.values() for id in ids)
        return found

    def lost_and_repeated(self) -> tuple[int, int]:
        """Rows of all epochs that no step saw, and those that more than one did."""
        history = self.history()
        each = STEPS // EPOCHS
        lost = repeated = 0
        for epoch in range(EPOCHS):
            seen = [
                id
                for step in range(epoch * each, (epoch + 1) * each)
                for id in history.get(step, [])
            ]
            lost += len(set(IDS) - set(seen))
            repeated += len(seen) - len(set(seen))
        return lost, repeated

    def weights(self) -> str:
        return sha256_file(self.run.weights)

    def tensors(self) -> dict[str, torch.Tensor]:
        return read_tensors(self.run.weights)

    def nobody_left(self) -> None:
        """Every process that was ever part of it has ended, within a moment."""
        pids = {*self.launchers}
        log = self.folder / "processes.jsonl"
        if log.exists():
            pids |= {line["pid"] for line in records(log)}
        until = time.monotonic() + 10
        while left := [pid for pid in pids if _lives(pid)]:
            assert time.monotonic() < until, f"left behind: {left}"
            time.sleep(0.02)

    def nothing_left(self) -> None:
        """No draft, no relay, no file locked, nothing that holds the run."""
        locks = Path("/proc/locks")
        held = (
            {
                line.split()[5].split(":")[-1]
                for line in locks.read_text().splitlines()
                if "->" not in line
            }
            if locks.exists()
            else set()
        )
        assert not [
            path
            for path in self.folder.rglob("*")
            if path.is_file() and str(path.stat().st_ino) in held
        ]
        assert not list(self.run.checkpoints.glob(".step-*"))
        assert not (self.run.path / ".events").exists()
        assert Run.open(self.store, reference=self.run.id).status == "done"

    def holds(self, reference: Case) -> None:
        """What is promised after every fault: nothing lost, nothing repeated, the same weights, nothing left
        behind.
        """
        self.nobody_left()
        self.nothing_left()
        assert self.lost_and_repeated() == (0, 0)
        assert self.history() == reference.history()
        worlds = {line["world"] for line in records(self.folder / "processes.jsonl")}
        if worlds == {reference.attempts[-1].summary["processes"]}:
            assert self.weights() == reference.weights()
        else:
            for name, tensor in reference.tensors().items():
                torch.testing.assert_close(
                    self.tensors()[name], tensor, rtol=1e-4, atol=1e-6
                )


def records(path: Path) -> Iterator[dict[str, Any]]:
    """What processes wrote down, each record between line ends of its own.

    Who was killed while it wrote one has left half of it, and has not done what it was about to.
    """
    for line in path.read_text("utf-8").splitlines():
        if line.endswith("}"):
            yield json.loads(line)


def warm() -> None:
    """Import here, once, what torch imports late, so that the processes we fork need not."""
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.zeros(2)
    torch.optim.AdamW([weight]).step()


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _ended(pid: int) -> int:
    until = time.monotonic() + SECONDS
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"the attempt hangs after {SECONDS:g} s")
        time.sleep(0.01)
