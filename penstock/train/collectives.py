"""What ranks tell each other beside tensors: any value of `plain`'s vocabulary, to one rank or to all.

Two collectives of torch each: the lengths first, then the bytes, padded to the longest. They go where torch's
process group sends: from the CPU with gloo, from this rank's device with NCCL. Every rank calls.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from penstock.contracts.learn import World
from penstock.core.errors import TrainingError
from penstock.train.plain import pack, unpack

_MOST_BYTES = 4 << 30
"""Of one rank's value. The length is what another process says, and room is made for it."""


def gathered(value: Any, world: World) -> list[Any] | None:
    """Every rank's value, in order of rank, at rank 0; None at the others.

    Raises:
        TrainingError: a value cannot be sent, or what came is none.
    """
    if world.size == 1:
        return [value]
    mine, lengths = _announced(value, world)
    boxes = (
        [torch.empty_like(mine) for _ in range(world.size)] if world.rank == 0 else None
    )
    dist.gather(mine, boxes)
    if boxes is None:
        return None
    # Its own value needs no way through bytes.
    return [
        value if rank == 0 else _read(box, length)
        for rank, (box, length) in enumerate(zip(boxes, lengths, strict=True))
    ]


def everyones(value: Any, world: World) -> list[Any]:
    """Every rank's value, in order of rank, at every rank.

    Raises:
        TrainingError: a value cannot be sent, or what came is none.
    """
    if world.size == 1:
        return [value]
    mine, lengths = _announced(value, world)
    boxes = [torch.empty_like(mine) for _ in range(world.size)]
    dist.all_gather(boxes, mine)
    return [_read(box, length) for box, length in zip(boxes, lengths, strict=True)]


def shared(value: Any, world: World, *, source: int = 0) -> Any:
    """One rank's value, at every rank; also a barrier.

    Args:
        source: whose; rank 0's unless given.

    Raises:
        TrainingError: the value cannot be sent, or what came is none.
    """
    if world.size == 1:
        return value
    is_mine = world.rank == source
    data = pack(value) if is_mine else b""
    length = torch.tensor([len(data)], dtype=torch.int64, device=_device())
    dist.broadcast(length, src=source)
    size = _checked(int(length.item()))
    box = _bytes(data, size)
    dist.broadcast(box, src=source)
    return value if is_mine else _read(box, size)


def _announced(value: Any, world: World) -> tuple[Tensor, list[int]]:
    """The value as bytes, padded to the longest of all ranks', and all lengths."""
    data = pack(value)
    length = torch.tensor([len(data)], dtype=torch.int64, device=_device())
    each = [torch.empty_like(length) for _ in range(world.size)]
    dist.all_gather(each, length)
    lengths = [_checked(int(one.item())) for one in each]
    return _bytes(data, max(lengths)), lengths


def _bytes(data: bytes, size: int) -> Tensor:
    box = torch.zeros(size, dtype=torch.uint8)
    if data:
        box[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return box.to(_device())


def _read(box: Tensor, length: int) -> Any:
    return unpack(box[:length].cpu().numpy().tobytes())


def _checked(length: int) -> int:
    if not 0 < length <= _MOST_BYTES:
        raise TrainingError(
            f"another process announced a message of {length:,} bytes, and at most {_MOST_BYTES:,} are taken."
            " Is the same version of Penstock installed on every machine?"
        )
    return length


def _device() -> torch.device:
    # NCCL sends what is on a GPU and nothing else; gloo sends from the CPU.
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
