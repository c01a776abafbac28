"""Staging: batches from memory to an accelerator, while the model works on those before.

A driver copies beside its computing only from pinned memory, and only on a stream that is not the model's. So
the arrays of one or several batches are packed into one pinned buffer of a ring (one copy instead of forty),
copied on a stream of their own by the thread that made them, and cut up again as views where they arrive. The
model's stream waits for the copy's event, not the interpreter. A buffer of the ring is filled again only when
the copy out of it has ended. What arrived was allocated on the copying stream, so the allocator is told
(`record_stream`) that the model's stream uses it too: it is not given away while a kernel may still read it.
(PyTorch's CUDA semantics: "Use pinned memory buffers", "CUDA streams".)

A picture's batch is a transposed view; it is packed as it lies in memory and transposed again on arrival.

What this file refuses to know: rows, features, order. Torch is imported when a `Staging` is made.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

_ALIGNED = 256
"""Bytes that every array begins at a multiple of, as the device's own allocator does."""
_STEP = 2**20
"""Buffers grow by whole mebibytes, so that batches of a little more do not each need a new one."""


class Link(Protocol):
    """The way to a device."""

    def room(self, size: int) -> Any:
        """A pinned buffer: uint8 tensor `[size]`."""

    def copy(self, pinned: Any, size: int) -> tuple[Any, Any]:
        """Begin to copy the first `size` bytes; (uint8 tensor `[size]` on the device, the event of the copy's
        end).
        """

    def finish(self, event: Any) -> None:
        """Wait for a copy's end."""

    def hand_over(self, there: Any, event: Any) -> None:
        """Make the calling thread's stream wait for the copy, and tell the allocator that this stream uses
        `there`.
        """


@dataclass(frozen=True)
class _Spot:
    """Where an array lies in a buffer."""

    start: int
    size: int
    dtype: Any
    shape: tuple[int, ...]
    """As it lies."""
    axes: tuple[int, ...] | None
    """How its axes go back, if they were moved."""


@dataclass(frozen=True)
class Sent:
    """Batches on their way to the device."""

    there: Any
    event: Any
    layout: list[dict[str, _Spot]]
    size: int
    """Bytes."""


class Staging:
    """Batches to one device.

    `send` may be called by several threads, `receive` by the one that uses the batches.

    Args:
        device: a torch device of type `cuda`.
        slots: pinned buffers of the ring; with one more than there are threads, none waits for another's
            copy.
        link: the way there; CUDA's unless given.
    """

    def __init__(self, device: Any, *, slots: int = 3, link: Link | None = None) -> None:
        import torch

        self._torch = torch
        self._link: Link = link or _Cuda(torch.device(device))
        self._gate = threading.Condition()
        self._free: deque[tuple[Any, Any]] = deque()
        """Buffers nobody is filling, each with the event of the last copy out of it; the longest ago
        first.
        """
        self._left = slots
        """Buffers that may still be made."""

    def send(self, batches: Sequence[Mapping[str, np.ndarray]]) -> Sent:
        """Pack the arrays and begin to copy them. They are the caller's again when this returns."""
        # The size first: a buffer of the ring may be too small for this batch.
        layout, size = _layout(batches)
        pinned = self._buffer(size)
        # Without an event a buffer counts as idle, also after a failure.
        event = None
        try:
            bytes_ = pinned.numpy()
            for spots, arrays in zip(layout, batches, strict=True):
                for name, spot in spots.items():
                    values = arrays[name]
                    if spot.axes is not None:
                        # As it lies in memory, so the copy reads and writes straight
                        # on.
                        values = values.transpose(np.argsort(spot.axes))
                    np.copyto(
                        bytes_[spot.start : spot.start + spot.size]
                        .view(spot.dtype)
                        .reshape(spot.shape),
                        values,
                    )
            there, event = self._link.copy(pinned, size)
        finally:
            with self._gate:
                # Back to the ring at once: whoever takes it next waits for the event.
                self._free.append((pinned, event))
                self._gate.notify()
        return Sent(there, event, layout, size)

    def receive(self, sent: Sent) -> list[dict[str, Any]]:
        """The batches, as tensors on the device that the calling thread's stream may use from now on."""
        # The stream waits, not this thread.
        self._link.hand_over(sent.there, sent.event)
        return [
            {name: self._tensor(sent.there, spot) for name, spot in spots.items()}
            for spots in sent.layout
        ]

    def _tensor(self, there: Any, spot: _Spot) -> Any:
        # Torch's word for numpy's dtype, without a table of them.
        dtype = self._torch.from_numpy(np.empty(0, spot.dtype)).dtype
        values = there[spot.start : spot.start + spot.size].view(dtype).view(spot.shape)
        # A view with other strides: nothing is copied on the device.
        return values if spot.axes is None else values.permute(spot.axes)

    def _buffer(self, size: int) -> Any:
        """A pinned buffer of at least `size` bytes; waits until no copy out of it is under way."""
        with self._gate:
            # All buffers are being filled by other threads.
            while not self._free and not self._left:
                self._gate.wait()
            # A new one only while the ring is not full and the oldest copy is still
            # under way.
            if self._left and (not self._free or not self._idle(self._free[0])):
                self._left -= 1
                pinned, event = None, None
            else:
                pinned, event = self._free.popleft()
        # Outside the gate, since a copy may take milliseconds and other threads have
        # buffers of their own.
        if event is not None:
            self._link.finish(event)
        if pinned is None or len(pinned) < size:
            # By whole steps, so that a slightly larger batch fits into the same buffer.
            pinned = self._link.room(-(-max(size, 1) // _STEP) * _STEP)
        return pinned

    @staticmethod
    def _idle(slot: tuple[Any, Any]) -> bool:
        return slot[1] is None or bool(slot[1].query())


def _layout(
    batches: Sequence[Mapping[str, np.ndarray]],
) -> tuple[list[dict[str, _Spot]], int]:
    layout, end = [], 0
    for arrays in batches:
        spots = {}
        for name, values in arrays.items():
            axes = _moved(values)
            shape = (
                values.shape
                if axes is None
                else tuple(values.shape[axis] for axis in np.argsort(axes))
            )
            # The array as it lies; `axes` brings it back on arrival.
            spots[name] = _Spot(end, values.nbytes, values.dtype, shape, axes)
            # Every array begins at a multiple that any dtype may be viewed at.
            end += -(-values.nbytes // _ALIGNED) * _ALIGNED
        layout.append(spots)
    return layout, end


def _moved(values: np.ndarray) -> tuple[int, ...] | None:
    """For a dense array with moved axes: the axes that restore it from its layout in memory. None
    if its layout is its shape's.
    """
    # One axis cannot be moved, and what is contiguous lies as it says.
    if values.flags.c_contiguous or values.ndim < 2:
        return None
    # The axis of the largest stride is the outermost in memory.
    order = sorted(range(values.ndim), key=lambda axis: -values.strides[axis])
    return (
        tuple(int(n) for n in np.argsort(order))
        if values.transpose(order).flags.c_contiguous
        # An array with gaps is packed in the order of its shape.
        else None
    )


class _Cuda:
    """The way to a CUDA device, on a stream of its own."""

    def __init__(self, device: Any) -> None:
        import torch

        self._torch: Any = torch
        self._device = (
            device
            # An index: another thread's current device may be another one.
            if device.index is not None
            else torch.device(device.type, torch.cuda.current_device())
        )
        self._stream = self._torch.cuda.Stream(self._device)

    def room(self, size: int) -> Any:
        return self._torch.empty(size, dtype=self._torch.uint8, pin_memory=True)

    def copy(self, pinned: Any, size: int) -> tuple[Any, Any]:
        # For this thread alone; it sets the current device as well.
        with self._torch.cuda.stream(self._stream):
            # Allocated on the copying stream; `record_stream` tells of the other that
            # uses it.
            there = self._torch.empty(size, dtype=self._torch.uint8, device=self._device)
            there.copy_(pinned[:size], non_blocking=True)
            event = self._torch.cuda.Event()
            # After the copy in the same stream, so its end is the copy's end.
            event.record(self._stream)
        return there, event

    def finish(self, event: Any) -> None:
        event.synchronize()

    def hand_over(self, there: Any, event: Any) -> None:
        stream = self._torch.cuda.current_stream(self._device)
        # Kernels queued after this see the bytes; the interpreter goes on.
        stream.wait_event(event)
        there.record_stream(stream)
