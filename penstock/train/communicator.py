"""What ranks say to each other about a model, counted: sums, largest, everyone's.

Bytes are those that a rank sends where collectives go round in a ring, the least that any algorithm needs: of
a sum 2 (n - 1) / n times the tensor, of a gathering n - 1 times what each gives. Control (verdicts, barriers)
is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from penstock.contracts.learn import World
from penstock.core.errors import TrainingError
from penstock.train.collectives import gathered


class Communicator:
    """Collectives among the ranks of a training, with the bytes they send counted.

    With one process nothing is sent.
    """

    def __init__(self, world: World) -> None:
        self.rank, self.size = world.rank, world.size
        self.sent_bytes = 0.0
        """By this rank, since the beginning."""

    def count(self, size_bytes: float) -> None:
        """Count a sum over ranks of a tensor of `size_bytes`."""
        self.sent_bytes += 2 * (self.size - 1) / self.size * size_bytes

    def add(self, tensor: Tensor) -> None:
        """Sum a tensor over ranks, in place; every rank calls, and gets the same bits."""
        if self.size > 1:
            self.count(tensor.nbytes)
            dist.all_reduce(tensor)

    def most(self, tensor: Tensor) -> None:
        """Take the element-wise maximum over ranks, in place; every rank calls."""
        if self.size > 1:
            self.count(tensor.nbytes)
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)

    def all(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor, `[size, …]`, in order of rank; every rank calls."""
        if self.size == 1:
            return tensor.unsqueeze(0)
        # Each rank's part goes once to every other, along the ring.
        self.sent_bytes += (self.size - 1) * tensor.nbytes
        tensors = tensor.new_empty((self.size, *tensor.shape))
        dist.all_gather(list(tensors.unbind(0)), tensor.contiguous())
        return tensors

    def given(self, tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]] | None:
        """Every rank's tensors, in order of rank, on rank 0's CPU; None at the others.

        For checkpoints: not counted. One rank after another, so that rank 0 holds no more of them on its
        device than its own.
        """
        if self.size == 1:
            return [dict(tensors)]
        # A receiver must make room first, so shapes and types go before the tensors.
        outline = [
            (name, tuple(tensor.shape), str(tensor.dtype))
            for name, tensor in tensors.items()
        ]
        outlines = gathered(outline, World(self.rank, self.size))
        # NCCL sends what is on a GPU and nothing else; gloo sends from the CPU.
        away = (
            torch.device("cuda", torch.cuda.current_device())
            if dist.get_backend() == "nccl"
            else torch.device("cpu")
        )
        if outlines is None:
            # One message a tensor, in the order that was told: rank 0 receives in the
            # same one.
            for tensor in tensors.values():
                dist.send(tensor.detach().to(away).contiguous(), 0)
            return None
        everyone = [{name: tensor.detach().cpu() for name, tensor in tensors.items()}]
        for rank in range(1, self.size):
            theirs = {}
            # Each box is emptied to the CPU before the next arrives.
            for name, shape, dtype in outlines[rank]:
                box = torch.empty(shape, dtype=_dtype(dtype), device=away)
                dist.recv(box, rank)
                theirs[name] = box.cpu()
            everyone.append(theirs)
        return everyone


def _dtype(name: str) -> torch.dtype:
    """A type of torch by its name; another process says it."""
    kind = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(kind, torch.dtype):
        raise TrainingError(
            f"another process sends tensors of {name[:80]!r}, which is no type."
        )
    return kind
