"""Checkpoints: `checkpoints/step-<10 digits>/`, each whole or not there.

    model.safetensors       weights as they are
    average.safetensors     their moving average, if one is kept
    optimiser.safetensors   `<phase>/<parameter>/<state>`
    state.json              place in the data, schedule, early-stop memory, metrics so far
    manifest.json           SHA-256 of the rest, written last

Written into a hidden folder beside and renamed. One that was torn or changed since is refused, aloud, and the one before
it is used. There is no random state: the trainer derives it anew for each step.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from penstock.core.errors import StoreError
from penstock.core.events import Events
from penstock.core.store import Artefact, seal, told_plainly

MODEL = "model.safetensors"
AVERAGE = "average.safetensors"
OPTIMISER = "optimiser.safetensors"
STATE = "state.json"


@dataclass
class Checkpoint:
    """All that training needs to go on as if nothing had happened."""

    state: dict[str, Any]
    """Plain data."""
    model: dict[str, Tensor]
    optimiser: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """The checkpoint in `path`, which `Checkpoints.newest` has found whole."""
        tensors = {name: read_tensors(path / name) if (path / name).is_file() else {} for name in (MODEL, OPTIMISER, AVERAGE)}
        return cls(json.loads((path / STATE).read_text("utf-8")), tensors[MODEL], tensors[OPTIMISER], tensors[AVERAGE])


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: the run's `checkpoints`.
        keep: how many of the last ones stay, beside the best.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self._keep = keep

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:010d}"

    def all(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step-*"))

    def write(self, step: int, checkpoint: Checkpoint, *, best: int | None) -> Path:
        """Write the checkpoint of `step`; afterwards drop those that are neither among the last nor the best.

        Args:
            best: the step of the best one.

        Raises:
            StoreError: the disk is full or may not be written; the older ones are untouched.
        """
        target = self.path(step)
        draft = self.folder / f".{target.name}.{uuid.uuid4().hex}"
        with told_plainly(target):
            try:
                draft.mkdir(parents=True)
                for name, tensors in ((MODEL, checkpoint.model), (AVERAGE, checkpoint.average), (OPTIMISER, checkpoint.optimiser)):
                    if tensors:
                        write_tensors(draft / name, tensors)
                (draft / STATE).write_text(json.dumps(checkpoint.state, indent=1), "utf-8")
                seal(draft, {"type": "checkpoint", "step": step})
                if target.exists():  # the same step, written before an epoch's validation or by a run that was resumed since
                    shutil.rmtree(target)
                os.rename(draft, target)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        self._prune(best)
        return target

    def _prune(self, best: int | None) -> None:
        kept = {*self.all()[-self._keep :], *([self.path(best)] if best is not None else [])}
        for path in self.all():
            if path not in kept:
                shutil.rmtree(path)

    def whole(self, step: int) -> Path:
        """The checkpoint of `step`.

        Raises:
            StoreError: it is not there, torn or changed.
        """
        Artefact.open(self.path(step), verify=True)
        return self.path(step)

    def newest(self, events: Events) -> Path | None:
        """The newest one of which every byte is as it was written; says which were not."""
        for stale in self.folder.glob(".step-*"):
            shutil.rmtree(stale, ignore_errors=True)  # drafts of a process that was killed
        for path in reversed(self.all()):
            try:
                Artefact.open(path, verify=True)
            except StoreError as error:
                events.warn(f"the checkpoint {path.name} is not used, but the one before it: {error}")
                continue
            return path
        return None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Raises:
        StoreError: it is no such file.
    """
    try:
        found: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise StoreError(f"cannot read the weights in {path}: {error}") from None
    return found


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file; tensors that share memory (tied weights) are written once a name.

    Raises:
        OSError: it could not be written.
    """
    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        if place in seen or tensor.untyped_storage().nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(place)
        plain[name] = tensor
    try:
        save_file(plain, path, metadata={"format": "pt"})
    except SafetensorError as error:  # it has lost the error's number on the way out of Rust
        full = any(word in str(error) for word in ("os error 28", "os error 122", "No space left"))
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from None
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors makes it private; a store is shared as its folders are


def flatten_optimiser(optimiser: torch.optim.Optimizer, names: Mapping[int, str], phase: str) -> dict[str, Tensor]:
    """What the optimiser remembers, as `<phase>/<parameter>/<state>`.

    Args:
        names: `id` of a parameter → its name.
    """
    found = {}
    for parameter, memory in optimiser.state.items():
        for word, value in memory.items():
            if value is not None:  # SGD without momentum remembers nothing
                found[f"{phase}/{names[id(parameter)]}/{word}"] = value
    return found


def restore_optimiser(optimiser: torch.optim.Optimizer, names: Mapping[int, str], phase: str, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `flatten_optimiser`, for an optimiser made anew from the same recipe."""
    memories: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{phase}/"):
            parameter, word = name.removeprefix(f"{phase}/").rsplit("/", 1)
            memories.setdefault(parameter, {})[word] = tensor
    whole = optimiser.state_dict()
    order = [names[id(p)] for group in optimiser.param_groups for p in group["params"]]
    whole["state"] = {i: memories[name] for i, name in enumerate(order) if name in memories}
    optimiser.load_state_dict(whole)


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The final weights, so that a reader sees all of the file or none.

    Raises:
        StoreError: the disk is full or may not be written.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with told_plainly(path):
        try:
            write_tensors(draft, tensors)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


