"""What a checkpoint costs the training loop: the pause with 250 MB of state, written by a thread while
training goes on, beside saving it at once. Both write the same files with the same checksums; interleaved,
and before each pause the one before it has been written, as `auto` spaces them.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Pairs, say
from penstock.contracts.learn import World
from penstock.core.events import Events
from penstock.core.heartbeat import Heartbeat
from penstock.recipe.schema import load_recipe
from penstock.train import checkpoint_manager
from penstock.train.checkpoint_manager import CheckpointManager
from penstock.train.early_stopping import EarlyStopping
from penstock.train.state import TrainState
from penstock.train.state_dict import StateDict

MEGABYTES, PAIRS = 250, 10


class _Learner:
    """Weights, and the two moments of Adam beside them."""

    def __init__(self) -> None:
        count = MEGABYTES * 1_000_000 // 4 // 3 // 62
        weights = {f"layer{i}.weight": torch.randn(count) for i in range(62)}
        moments = {
            f"supervised/{name}/{word}": torch.randn(count)
            for name in weights
            for word in ("exp_avg", "exp_avg_sq")
        }
        self.precision = SimpleNamespace(scaler=None)
        self.average = None
        self.state = StateDict(weights, moments, {}, {})
        self.tensors = [*weights.values(), *moments.values()]


def bench() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _bench(Path(folder))


def _bench(folder: Path) -> None:
    learner = _Learner()
    checkpoint_manager.capture = lambda learner: learner.state  # type: ignore[assignment]
    loader = SimpleNamespace(state_dict=lambda: {"epoch": 0, "position": 0})

    def keeper(name: str, background: bool) -> CheckpointManager:
        recipe = load_recipe(
            {
                "name": "bench",
                "source": {"type": "files", "path": "none.csv"},
                "train": {"checkpoint": {"background": background, "keep": 1}},
            },
            base=folder,
        )
        (folder / name).mkdir()
        made: Any = learner, loader
        return CheckpointManager(
            recipe,
            folder / name,
            "run-bench",
            str(folder / "store"),
            *made,
            EarlyStopping(),
            None,
            Events(),
            World(),
            Heartbeat(None),
        )

    ours, other = keeper("thread", True), keeper("at once", False)
    pauses: dict[str, list[float]] = {"ours": [], "other": []}
    for i in range(PAIRS + 1):
        for word, one in (
            (("ours", ours), ("other", other))
            if i % 2
            else (("other", other), ("ours", ours))
        ):
            for tensor in learner.tensors[:4]:
                tensor.add_(1e-3)  # a step was taken
            start = time.perf_counter()
            one.write(TrainState(step=i))
            pause = time.perf_counter() - start
            one.wait()
            if i:  # the first one takes its memory from the system
                pauses[word].append(pause)
    size = sum(file.stat().st_size for file in ours._checkpoints.path(PAIRS).iterdir())
    pairs = Pairs(np.array(pauses["ours"]), np.array(pauses["other"]))
    low, high = pairs.bounds()
    say(
        name="checkpoint/pause",
        value=float(np.median(pairs.ours)),
        unit="s",
        other="saved at once",
        ratio=pairs.ratio,
        goal="at least 5 times shorter (lower bound)",
        holds=low >= 5,
        low=round(low, 2),
        high=round(high, 2),
        at_once_seconds=round(float(np.median(pairs.other)), 4),
        megabytes=round(size / 1e6, 1),
        pairs=PAIRS,
    )
    ours.close(), other.close()
