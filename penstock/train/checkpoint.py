"""Checkpoints: `checkpoints/step-<10 digits>/`, each whole or not there.

    model.safetensors       weights as they are
    average.safetensors     their moving average, if one is kept
    optimiser.safetensors   `<phase>/<parameter>/<state>`
    <name>.safetensors      what a strategy or a compression remembers besides, by rank where ranks differ
    state.json              place in the data, schedule, early-stop memory, metrics so far, batches left out
    manifest.json           SHA-256 of the rest, written last

Written into a hidden folder beside and renamed. One that was torn or changed since is refused, aloud, and the
one before it is used. There is no random state: the trainer derives it anew for each step.

A file is hashed while it is written, in pieces and outside the interpreter's lock, so that a thread can write
while another trains (safetensors' own writer holds that lock). `checkpoint_manager` decides when, and by
whom.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penstock.core.errors import StoreError
from penstock.core.events import Events
from penstock.core.paths import below
from penstock.core.sound import object_in, sound
from penstock.core.store import Artefact, as_store_error, seal
from penstock.nn.weights import read_tensors

MODEL = "model.safetensors"
AVERAGE = "average.safetensors"
OPTIMISER = "optimiser.safetensors"
STATE = "state.json"
# Bytes hashed and written at once; both let go of the interpreter's lock.
_PIECE = 1 << 22
# Ten digits, so that names sort as steps do.
_NAME = re.compile(r"step-[0-9]{10}")
# torch's types under the names of the safetensors format.
_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}


@dataclass
class Checkpoint:
    """All that training needs to go on as if nothing had happened."""

    state: dict[str, Any]
    """Plain data."""
    model: dict[str, Tensor]
    optimiser: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    extra: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """What else is remembered: name → tensors, each in a file of its own."""

    def files(self) -> dict[str, dict[str, Tensor]]:
        """Its tensors, by the file they are in; without empty ones."""
        files = {
            MODEL: self.model,
            AVERAGE: self.average,
            OPTIMISER: self.optimiser,
            **{f"{name}.safetensors": tensors for name, tensors in self.extra.items()},
        }
        return {name: tensors for name, tensors in files.items() if tensors}

    @classmethod
    def of(
        cls, state: dict[str, Any], files: Mapping[str, dict[str, Tensor]]
    ) -> Checkpoint:
        """The inverse of `files`."""
        rest = dict(files)
        model, optimiser, average = (
            rest.pop(name, {}) for name in (MODEL, OPTIMISER, AVERAGE)
        )
        return cls(
            state,
            model,
            optimiser,
            average,
            {
                name.removesuffix(".safetensors"): tensors
                for name, tensors in rest.items()
            },
        )

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """The checkpoint in `path`, which `Checkpoints.newest` has found whole.

        Raises:
            StoreError: what it holds is no checkpoint's.
        """
        named = Artefact.open(path).manifest["files"]  # and nothing that lies beside
        files = {
            name: read_tensors(path / name)
            for name in sorted(named)
            if name.endswith(".safetensors")
        }
        with sound_checkpoint(path):
            return cls.of(object_in(path / STATE), files)


def sound_checkpoint(path: Path) -> AbstractContextManager[None]:
    """Within this, what a checkpoint says is taken up."""
    return sound(
        f"the checkpoint {path}", advice="Delete it, and the one before it is used"
    )


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: the run's `checkpoints`.
        keep: how many of the last ones stay, beside the best.
        may_write: called before a checkpoint gets its name, and before any is dropped; raises where that is
            no longer ours to do.
    """

    def __init__(
        self, folder: Path, keep: int, *, may_write: Callable[[], None] | None = None
    ) -> None:
        self.folder = folder
        self._keep = keep
        self._may_write = may_write

    def path(self, step: int) -> Path:
        """The folder of the checkpoint of `step`, whether it is there or not."""
        return self.folder / f"step-{step:010d}"

    def all(self) -> list[Path]:
        """Oldest first."""
        return sorted(
            path
            # A link may lead anywhere: it is no checkpoint of this run.
            for path in self.folder.glob("step-*")
            if _NAME.fullmatch(path.name) and not path.is_symlink()
        )

    def write(
        self,
        step: int,
        checkpoint: Checkpoint,
        *,
        best: int | None,
        also: Sequence[int] = (),
    ) -> Path:
        """Write the checkpoint of `step`; afterwards drop those that are neither among the last nor the best.

        Args:
            best: the step of the best one.
            also: steps of others that stay.

        Raises:
            StoreError: the disk is full or may not be written; the older ones are untouched.
        """
        target = self.path(step)
        # Hidden, so that `all` does not see it, and unique, since a killed process
        # leaves its own.
        draft = self.folder / f".{target.name}.{uuid.uuid4().hex}"
        with as_store_error(target):
            try:
                draft.mkdir(parents=True)
                known = {
                    name: write_tensors(draft / name, tensors)
                    for name, tensors in checkpoint.files().items()
                }
                (draft / STATE).write_text(
                    json.dumps(checkpoint.state, indent=1), "utf-8"
                )
                # The manifest last: its presence says that the rest is whole.
                seal(draft, {"type": "checkpoint", "step": step}, known=known)
                # As late as can be: writing takes long, and the lease may be lost
                # meanwhile.
                if self._may_write is not None:
                    self._may_write()
                # the same step, written before an epoch's validation or by a run that was resumed since
                if target.exists():
                    shutil.rmtree(target)
                os.rename(draft, target)
                _synced(self.folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        # After the rename, so that there is a whole checkpoint at any moment.
        self._prune([*also] if best is None else [best, *also])
        return target

    def _prune(self, steps: Sequence[int]) -> None:
        keep = {*self.all()[-self._keep :], *map(self.path, steps)}
        for path in self.all():
            if path not in keep:
                shutil.rmtree(path)

    def whole(self, step: int) -> Path:
        """The checkpoint of `step`.

        Raises:
            StoreError: it is not there, torn or changed.
        """
        path = below(
            self.folder, self.path(step).name, where=f"a checkpoint in {self.folder}"
        )
        Artefact.open(path, verify=True)
        return path

    def newest(self, events: Events) -> Path | None:
        """The newest one of which every byte is as it was written; says which were not."""
        for stale in self.folder.glob(".step-*"):
            shutil.rmtree(
                stale, ignore_errors=True
            )  # drafts of a process that was killed
        for path in reversed(self.all()):
            try:
                Artefact.open(path, verify=True)
            except StoreError as error:
                events.warn(
                    f"The checkpoint {path.name} cannot be used; the one before it is: {error}"
                )
                continue
            return path
        return None


class Snapshot:
    """Tensors copied into memory of their own, so that training may go on while they are written.

    The memory is kept for the next time: fresh pages would cost more than the copy. Pinned, where the tensors
    are on an accelerator.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Tensor] = {}

    @torch.no_grad()
    def take(
        self, files: Mapping[str, Mapping[str, Tensor]]
    ) -> dict[str, dict[str, Tensor]]:
        """Copies of these, valid until the next call."""
        copies: dict[str, dict[str, Tensor]] = {}
        buffers: dict[tuple[str, str], Tensor] = {}
        away = False
        for file, tensors in files.items():
            copies[file] = {}
            for name, tensor in tensors.items():
                # The same memory as last time, where shape and type still fit.
                copy = self._kept.get((file, name))
                if (
                    copy is None
                    or copy.shape != tensor.shape
                    or copy.dtype != tensor.dtype
                ):
                    copy = torch.empty(
                        tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda
                    )
                away = away or tensor.is_cuda
                copy.copy_(tensor, non_blocking=tensor.is_cuda)
                copies[file][name] = buffers[file, name] = copy
        # The copies are only queued so far; a writer must not read before they are
        # done.
        if away:
            torch.cuda.synchronize()
        # Memory of tensors that are gone is let go of.
        self._kept = buffers
        return copies


def _synced(folder: Path) -> None:
    """What was renamed in it stays so when the machine loses power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """A safetensors file; tensors that share memory (tied weights) are written once a name.

    Returns:
        Its entry in a manifest: `size_bytes`, `sha256`.

    Raises:
        OSError: it could not be written.
    """
    # the widest first, so that each is aligned
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        tensor = tensors[name]
        # Bytes from the end of the header, as the format counts.
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    head = json.dumps(header, separators=(",", ":")).encode()
    # Filled up with spaces to a multiple of 8 bytes, so that the first tensor is
    # aligned.
    head += b" " * (-len(head) % 8)
    digest, size = hashlib.sha256(), 0
    # Pieces are large: a buffer would only copy them once more.
    with open(path, "wb", buffering=0) as file:

        def put(data: Any) -> None:
            nonlocal size
            digest.update(data)
            done = 0
            # A raw write may take less than it is given.
            while done < len(data):
                done += file.write(data[done:])
            size += done

        # The header's length, 8 bytes, little-endian, then the header itself.
        put(memoryview(len(head).to_bytes(8, "little") + head))
        for name in order:
            # As bytes, since numpy has no bfloat16 and no float8.
            array: Any = (
                tensors[name]
                .detach()
                .cpu()
                .contiguous()
                .reshape(-1)
                .view(torch.uint8)
                .numpy()
            )
            data = memoryview(array)
            for start in range(0, len(data), _PIECE):
                put(data[start : start + _PIECE])
        # the manifest, which says that it is whole, must not reach the disk before it
        os.fsync(file.fileno())
    return {"size_bytes": size, "sha256": digest.hexdigest()}


def flatten_optimiser(
    optimiser: torch.optim.Optimizer, names: Mapping[int, str], phase: str
) -> dict[str, Tensor]:
    """What the optimiser remembers, as `<phase>/<parameter>/<state>`.

    Args:
        names: `id` of a parameter → its name.
    """
    tensors = {}
    for parameter, memory in optimiser.state.items():
        for word, value in memory.items():
            if value is not None:  # SGD without momentum remembers nothing
                tensors[f"{phase}/{names[id(parameter)]}/{word}"] = value
    return tensors


def restore_optimiser(
    optimiser: torch.optim.Optimizer,
    names: Mapping[int, str],
    phase: str,
    tensors: Mapping[str, Tensor],
) -> None:
    """The inverse of `flatten_optimiser`, for an optimiser made anew from the same recipe."""
    memories: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{phase}/"):
            parameter, word = name.removeprefix(f"{phase}/").rsplit("/", 1)
            memories.setdefault(parameter, {})[word] = tensor
    # A fresh one brings the groups as the recipe has them; only `state` is filled in.
    whole = optimiser.state_dict()
    # torch counts parameters through all groups, in their order.
    order = [names[id(p)] for group in optimiser.param_groups for p in group["params"]]
    # A parameter that has had no gradient so far has no memory.
    whole["state"] = {
        i: memories[name] for i, name in enumerate(order) if name in memories
    }
    optimiser.load_state_dict(whole)


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The final weights, so that a reader sees all of the file or none.

    Raises:
        StoreError: the disk is full or may not be written.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with as_store_error(path):
        try:
            write_tensors(draft, tensors)
            # Atomic: a reader sees the old file or all of the new one.
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
