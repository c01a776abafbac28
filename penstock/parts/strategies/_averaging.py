"""Local SGD: workers take steps of their own and agree every so many (McMahan et al. 2017; Stich 2019, "Local
SGD Converges Fast and Communicates Little"; with an outer optimiser, Douillard et al. 2023, "DiLoCo").

Each global batch is the same as ever, and a worker learns from its slice of it. What is sent is how far each
has moved since they last agreed, weighted by the rows it has learnt from; so with SGD, an average in every
step is the same as summing gradients. A worker whose slices were empty has not moved and weighs nothing.

The optimisers' moments stay each worker's own: averaging them would cost what averaging weights does, twice
over. A checkpoint is taken only where workers agree, and keeps every rank's moments; on another number of
processes each begins with the mean of what there was.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from penstock.contracts.learn import GradientCompressor
from penstock.contracts.strategy import Flags, Peers
from penstock.nn.gradients import Flat


class MovementAveraging:
    """Where the workers last agreed, and how they agree again; an `Averaging`.

    Args:
        network: whose weights move; its layers' memories of batches are averaged too.
        outer_lr: how much of the average movement is made, where there is an outer optimiser.
        outer_momentum: of the outer optimiser (Nesterov's); None: workers go on from the average.
        compressor: how movements are sent, if not as they are.
    """

    def __init__(
        self,
        network: nn.Module,
        peers: Peers,
        device: torch.device,
        *,
        outer_lr: float,
        outer_momentum: float | None,
        compressor: GradientCompressor | None,
    ) -> None:
        self._network, self._peers = network, peers
        self._outer_lr, self._outer_momentum = outer_lr, outer_momentum
        self._names = {
            name: p for name, p in network.named_parameters() if p.requires_grad
        }
        # How far each weight has moved; the buffer is used again at each agreement.
        self._moved = Flat(list(self._names.values()), device)
        self.exchanging = self._moved.exchanging(compressor, peers)
        # The weights that all agreed on last, from which movements are measured.
        self._agreed = {name: p.detach().clone() for name, p in self._names.items()}
        self._velocity = (
            {name: torch.zeros_like(p) for name, p in self._agreed.items()}
            if outer_momentum is not None
            else {}
        )
        self._device = device
        # Sums of losses and of rows' weights of this rank's own steps.
        self._since: list[Tensor | float] = [0.0, 0.0]

    def learnt(self, loss: Tensor | float, weight: Tensor | float) -> None:
        """Add one step of this worker: the summed loss, and the weight, of its rows."""
        self._since = [self._since[0] + loss, self._since[1] + weight]

    @torch.no_grad()
    def agree(self, flags: Flags) -> tuple[float, float, bool, bool]:
        """Give every rank the same weights; returns the loss, the weight of the rows and the flags of all
        since the last time.
        """
        # `[4]`: loss and weight since the last time, then the flags to stop and to
        # save.
        totals = torch.zeros(4, dtype=torch.float64, device=self._device)
        totals[0], totals[1], totals[2], totals[3] = *self._since, *flags
        # Read before the sum overwrites it: it decides this rank's share.
        mine = float(totals[1])
        for view, (name, parameter) in zip(
            self._moved.views, self._names.items(), strict=True
        ):
            # Where they were minus where they are: it points as a gradient does, and an
            # outer optimiser takes it as one.
            torch.sub(self._agreed[name], parameter, out=view)
        # A compressor must not see the numbers in the room, and several types are
        # several buffers.
        if (
            self._peers.size > 1
            and self.exchanging is None
            and set(self._moved.whole) == {torch.float32}
        ):
            share = self._at_once(totals, mine)
        else:
            # Weights first: each movement is multiplied by its share before the sum.
            self._peers.add(totals)
            share = self._share(mine, float(totals[1]))
            for part in self._moved.parts:
                part.mul_(share)
            self._moved.add(self.exchanging, self._peers)
        if self._peers.size == 1:
            self.exchanging = None  # it has let go of what there was
        for view, (name, parameter) in zip(
            self._moved.views, self._names.items(), strict=True
        ):
            agreed = self._agreed[name]
            # Nesterov: v = m v + g, then w -= lr (g + m v), with the movement as g.
            if self._outer_momentum is not None:
                velocity = self._velocity[name].mul_(self._outer_momentum).add_(view)
                agreed.sub_(view + self._outer_momentum * velocity, alpha=self._outer_lr)
            else:
                agreed.sub_(view)
            parameter.copy_(agreed)
        # Running statistics by the same shares; whole numbers (counts of batches) stay
        # each rank's.
        if self._peers.size > 1:
            smooth = [b for b in self._network.buffers() if b.is_floating_point()]
            if smooth:
                flat = torch.cat([b.reshape(-1).float() for b in smooth]) * share
                self._peers.add(flat)
                for buffer, part in zip(
                    smooth, torch.split(flat, [b.numel() for b in smooth]), strict=True
                ):
                    buffer.copy_(part.view(buffer.shape))
        self._since = [0.0, 0.0]
        loss, weight, stop, save = totals.tolist()
        return loss, weight, bool(stop), bool(save)

    def _share(self, mine: float, weight: float) -> float:
        # Where nobody has learnt, equal shares still add up to 1.
        return mine / weight if weight > 0 else 1 / self._peers.size

    def _at_once(self, totals: Tensor, mine: float) -> float:
        """Movements and what is told in one message, since on a slow network it is messages that cost: each
        movement goes times its weight, and their sum is divided by the sum of weights.
        """
        flat, room = self._moved.whole[torch.float32], self._moved.room
        weight = mine if mine > 0 else 0.0
        for part in self._moved.parts:
            part.mul_(weight)
        room[:4] = totals
        self._peers.add(flat)
        totals.copy_(room[:4])
        total = float(totals[1])
        # Where no rank has learnt all movements are 0, and so is their sum.
        for part in self._moved.parts:
            part.div_(total if total > 0 else 1.0)
        return self._share(mine, total)

    @torch.no_grad()
    def begin(self) -> None:
        """Take the present weights as those that all ranks agree on."""
        for name, parameter in self._names.items():
            self._agreed[name].copy_(parameter)

    def memory(self) -> dict[str, Tensor]:
        """The velocity of the outer optimiser by parameter, the same at every rank."""
        # Alike at every rank: each has added up the same movements.
        return self._velocity

    def recall(self, memory: dict[str, Tensor]) -> None:
        """The inverse of `memory`; the weights have been taken up already."""
        self.begin()
        for name, velocity in self._velocity.items():
            if name in memory:
                velocity.copy_(memory[name])
