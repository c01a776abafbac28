"""The gradients of a phase, and how they are summed over ranks.

Gradients are not left to DistributedDataParallel. All gradients of a phase are views into one flat buffer:
clearing them, their norm, clipping and the sum over ranks are one operation each, whatever the number of
tensors, and the loss, the weights of the rows and the flags to stop and to save ride along in the same
collective. A rank with an empty slice of a small last batch just adds zeros, where DDP would hang or weigh it
wrongly.

With a `GradientCompressor` the four numbers go first, alone: what is compressed is then the gradient as the
optimiser will have it (weighted by all ranks' rows, the loss scale taken off), so that what a rank keeps for
later is in units that do not change from step to step, and a gradient that is not finite is seen before it
spoils that memory.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from penstock.contracts.learn import Exchanging, GradientCompressor, Wire
from penstock.contracts.strategy import Flags

_ALIGN = 16
"""Elements between which views start: 64 bytes, a cache line and a vector register."""
TINY = torch.finfo(torch.float32).tiny


class Alone:
    """A `Wire` for a single rank: nothing is sent."""

    rank, size = 0, 1

    def add(self, tensor: Tensor) -> None:
        """Do nothing: the sum over one rank is the tensor itself."""

    def most(self, tensor: Tensor) -> None:
        """Do nothing: the largest over one rank is the tensor itself."""

    def all(self, tensor: Tensor) -> Tensor:
        """The tensor of every rank, here the only one: `[1, …]`."""
        return tensor.unsqueeze(0)


class Flat:
    """Tensors like these, as views into one buffer a dtype; a little room stays before the float32 ones.

    Each has its entries in the order that its parameter has them in memory (`channels_last`, say): else torch
    would have to turn every gradient round. A `GradientCompressor` has them as they are named: what it keeps
    goes on where memory may be laid out otherwise.
    """

    def __init__(self, like: list[nn.Parameter], device: torch.device) -> None:
        # The room is there even where no parameter is float32: the four numbers need
        # it.
        sizes: dict[torch.dtype, int] = {torch.float32: _ALIGN}
        offsets = []
        for tensor in like:
            offset = sizes.get(tensor.dtype, 0)
            offsets.append(offset)
            # Up to the next multiple of _ALIGN, so that the next view is aligned too.
            sizes[tensor.dtype] = offset + -(-tensor.numel() // _ALIGN) * _ALIGN
        self.whole = {
            dtype: torch.zeros(size, dtype=dtype, device=device)
            for dtype, size in sizes.items()
        }
        orders = [_order(p) for p in like]
        # Each with its axes as they follow each other in memory, then turned to the
        # parameter's.
        straight = [
            self.whole[p.dtype][o : o + p.numel()].view([p.shape[i] for i in order])
            for p, o, order in zip(like, offsets, orders, strict=True)
        ]
        self.views = [
            # `order.index` inverts the permutation.
            base.permute([order.index(i) for i in range(len(order))])
            for base, order in zip(straight, orders, strict=True)
        ]
        # (view, contiguous copy), for a compressor that takes tensors as they are
        # named.
        self._turned: list[tuple[Tensor, Tensor]] = []
        self.room = self.whole[torch.float32][:_ALIGN]
        # Without the room, which is no gradient: norm and clipping must not meet it.
        parts = [
            flat[_ALIGN if dtype == torch.float32 else 0 :]
            for dtype, flat in self.whole.items()
        ]
        self.parts = [part for part in parts if part.numel()] or parts
        """The buffers without the room."""

    def exchanging(
        self, exchange: GradientCompressor | None, peers: Wire
    ) -> Exchanging | None:
        """How the float32 ones are exchanged, if not as they are.

        With one process it only lets go of what more have left.
        """
        views = [
            view for view in self.views if view.dtype == torch.float32 and view.numel()
        ]
        if exchange is None or not views:
            return None
        as_named = [
            view
            if view.is_contiguous()
            else torch.empty_like(view, memory_format=torch.contiguous_format)
            for view in views
        ]
        self._turned = [
            (view, turned)
            for view, turned in zip(views, as_named, strict=True)
            if view is not turned
        ]
        return exchange.open(as_named, peers)

    def add(self, exchanging: Exchanging | None, peers: Wire) -> None:
        """Sum over ranks; the room too, unless there is an exchange."""
        for dtype, flat in self.whole.items():
            if exchanging is not None and dtype == torch.float32:
                # A compressor reads and writes contiguous copies, so these go in before
                # and out after.
                for view, turned in self._turned:
                    turned.copy_(view)
                if peers.size > 1:
                    exchanging.sum()
                else:
                    # Alone nobody is spared any bytes: what was left unsent goes into
                    # this gradient.
                    exchanging.let_go()
                for view, turned in self._turned:
                    view.copy_(turned)
            else:
                peers.add(flat)


def _order(tensor: Tensor) -> list[int]:
    """Its dimensions as they follow each other in memory, where it fills it; else as they are."""
    as_they_are = list(range(tensor.dim()))
    if tensor.is_contiguous():
        return as_they_are
    # From the largest stride to the smallest.
    order = sorted(as_they_are, key=tensor.stride, reverse=True)
    # What was sliced or expanded fills no memory in any order.
    return order if tensor.permute(order).is_contiguous() else as_they_are


class Gradients:
    """The gradients of some parameters in one flat buffer, and four numbers that are summed with them."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        peers: Wire,
        device: torch.device,
        exchange: GradientCompressor | None = None,
    ) -> None:
        self._peers = peers
        self._on_cpu = device.type == "cpu"
        self._parameters = parameters
        self._flat = Flat(parameters, device)
        self._parts = self._flat.parts
        self.exchanging = self._flat.exchanging(exchange, peers)
        self.plain_bytes = 4.0 * sum(p.numel() for p in parameters)
        """Of these gradients in float32."""

    @property
    def needs_loss_scale(self) -> bool:
        """Whether `reduce` must know the loss scale: a compressor keeps what it cannot send, in units that
        must not change with the scale.
        """
        return self.exchanging is not None

    def passed(self) -> None:
        """Note one more forward and backward pass: nothing was sent for it."""

    def clear(self) -> None:
        """Set all gradients to zero; called before the first backward of a step."""
        for flat in self._flat.whole.values():
            flat.zero_()
        # Set anew, since an optimiser or objective may have put None there. Autograd
        # adds into what it finds, and a tensor of its own would never be summed.
        for parameter, view in zip(self._parameters, self._flat.views, strict=True):
            parameter.grad = view

    def reduce(
        self,
        loss: Tensor,
        weight: Tensor | float,
        flags: Flags,
        *,
        rows: int | None,
        loss_scale: float = 1.0,
    ) -> Any:
        """Sum over ranks: the gradients in place, and (loss, weight, stop, save), floats on a CPU, a tensor
        on an accelerator.

        Args:
            rows: of the global batch: gradients are then multiplied by rows / weight; None where every row
                weighs 1.
            loss_scale: what gradients are still multiplied with.
        """
        # Nothing to send and no device to wait for: plain floats.
        if self._peers.size == 1 and self._on_cpu and self.exchanging is None:
            extra: Any = (float(loss), float(weight), *flags)
        else:
            # The room stands at the beginning of the buffer, so that the numbers go
            # with the sum.
            room = self._flat.room
            room[0] = loss
            room[1] = weight
            room[2], room[3] = flags
            if self.exchanging is not None:
                return self._exchange(rows, loss_scale)
            self._flat.add(None, self._peers)
            # A copy, since the next step writes into the room.
            extra = room[:4].tolist() if self._on_cpu else room[:4].clone()
        if rows is not None:
            # A batch of zero weight has a zero gradient; any number times that is right.
            self.scale(
                rows / (max(extra[1], TINY) if self._on_cpu else extra[1].clamp_min(TINY))
            )
        return extra

    def _exchange(self, rows: int | None, loss_scale: float) -> Any:
        assert self.exchanging is not None
        room = self._flat.room
        # Whether this rank's are finite: all must hear of it before anything is
        # compressed, or the infinity would stay in what is kept for later steps.
        room[4] = (
            0.0
            if math.isfinite(float(self.norm())) and math.isfinite(float(room[0]))
            else 1.0
        )
        # Loss, weight, stop, save, and how many ranks have gradients that are not
        # finite.
        self._peers.add(room[:5])
        extra = room[:5].tolist()
        if extra[4]:
            # one rank's is not finite, so the sum is not: everyone sees it, and nobody's memory is touched
            self._parts[0].fill_(math.inf)
        else:
            # In final units, so that what is kept of it still fits the next step's
            # gradients.
            self.scale((1.0 if rows is None else rows / max(extra[1], TINY)) / loss_scale)
            self._flat.add(self.exchanging, self._peers)
            if self._peers.size == 1:
                self.exchanging = None  # it has let go of what there was
            # The scaler takes the loss scale off again.
            if loss_scale != 1.0:
                self.scale(loss_scale)
        return extra[:4] if self._on_cpu else torch.tensor(extra[:4], device=room.device)

    def norm(self) -> Any:
        """The L2 norm over all gradients: a float on a CPU, a tensor `[]` on an accelerator."""
        norms = [
            # 16-bit gradients overflow when squared, so their sum is taken in float32.
            torch.linalg.vector_norm(
                part, dtype=torch.float32 if part.dtype != torch.float64 else None
            )
            for part in self._parts
        ]
        norm = (
            norms[0]
            if len(norms) == 1
            else torch.linalg.vector_norm(torch.stack([n.float() for n in norms]))
        )
        return float(norm) if self._on_cpu else norm

    def clip(self, norm: Any, most: float) -> None:
        """Scale the gradients down to the L2 norm `most` where they are longer.

        `norm` is the result of `norm()`.
        """
        # Without a branch: comparing would wait for the device. 1e-6 as in
        # `clip_grad_norm_`.
        if not self._on_cpu:
            self.scale((most / (norm + 1e-6)).clamp_max(1.0))
        elif norm > most:
            self.scale(most / (norm + 1e-6))

    def scale(self, factor: Tensor | float) -> None:
        """Multiply all gradients by a number, in place."""
        for part in self._parts:
            part.mul_(factor)
