"""Gradients as products of two thin matrices (Vogels, Karimireddy and Jaggi 2019, "PowerSGD: Practical
Low-Rank Gradient Compression for Distributed Optimization").

A gradient `[n, m]` (of a convolution `[out, in · height · width]`) is sent as P `[n, r]`, then Q `[m, r]`:
one step of the power method from the Q of the step before, P made orthonormal between. Each rank keeps the
difference between its gradient and its own share of the product, and adds it to its next one. All P travel in
one collective, with the tensors that r would not make smaller (biases, norms, thin layers), and all Q in a
second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from penstock.contracts.learn import Exchanging, GradientCompressor, Wire

if TYPE_CHECKING:
    from torch import Tensor


class PowerSGD(GradientCompressor):
    """Each matrix of gradients is sent as a product of low rank; what it leaves is kept and added to the next
    gradients.
    """

    depends: ClassVar[str | None] = (
        "what a product of low rank leaves depends on how the rows were divided among processes"
    )

    rank: int = Field(2, ge=1)
    """r. Bytes grow with it; 1 to 4 are usual."""
    warm_up: int = Field(100, ge=0)
    """So many first steps are sent whole: early gradients turn fast, and what is left of them would come too
    late. They teach the directions that the first product is made of.
    """

    def open(self, tensors: Sequence[Tensor], wire: Wire) -> Exchanging:
        return _Exchanging(self, tensors, wire)


class _Exchanging:
    def __init__(self, declared: PowerSGD, tensors: Sequence[Tensor], wire: Wire) -> None:
        import torch

        self._warm_up, self._tensors, self._wire = declared.warm_up, tensors, wire
        # `[n, m]`, over the same memory: writing to these writes the gradients.
        flat = [t.reshape(len(t), -1) if t.dim() > 1 else t for t in tensors]
        r = declared.rank
        # Only where the two thin matrices have fewer entries than the matrix itself.
        self._matrices = [
            t for t in flat if t.dim() == 2 and r * (t.shape[0] + t.shape[1]) < t.numel()
        ]
        # By address, since `in` would compare entries.
        chosen = {t.data_ptr() for t in self._matrices}
        self._plain = [t for t in flat if t.data_ptr() not in chosen]
        chance = torch.Generator().manual_seed(
            0
        )  # every rank begins with the same Q, whatever else is drawn
        device = tensors[0].device
        self.errors: dict[str, Tensor] = {
            str(i): torch.zeros_like(m) for i, m in enumerate(self._matrices)
        }
        self.shared: dict[str, Tensor] = {
            "steps": torch.zeros((), dtype=torch.int64),
            **{
                f"q{i}": torch.randn(m.shape[1], r, generator=chance).to(device)
                for i, m in enumerate(self._matrices)
            },
        }

    def sum(self) -> None:
        import torch

        steps = self.shared["steps"]
        # Counted among what all share, so that ranks change over at the same step.
        warming = int(steps) < self._warm_up
        steps += 1
        if warming:
            self._added([*self._plain, *self._matrices])
            # whole gradients are at hand: learn their directions from them
            for i, matrix in enumerate(self._matrices):
                self.shared[f"q{i}"].copy_(
                    # One step of the power method, from sums that are alike at every
                    # rank.
                    matrix.T @ torch.linalg.qr(matrix @ self.shared[f"q{i}"]).Q
                )
            return
        ps, errors, qs = (
            [],
            list(self.errors.values()),
            [self.shared[f"q{i}"] for i in range(len(self._matrices))],
        )
        for matrix, error, q in zip(self._matrices, errors, qs, strict=True):
            error += matrix  # from here on, what there is to say
            ps.append(error @ q)
        # P of all matrices and the plain tensors in one message: on slow networks
        # messages cost.
        self._added([*self._plain, *ps])
        for i, (p, error) in enumerate(zip(ps, errors, strict=True)):
            # Orthonormal columns. All ranks have the same sum, and so the same basis.
            ps[i] = torch.linalg.qr(p).Q
            torch.mm(error.T, ps[i], out=qs[i])
            error -= (
                ps[i] @ qs[i].T
            )  # less this rank's share of the product: what is left
        if qs:
            self._added(qs)
        for matrix, p, q in zip(self._matrices, ps, qs, strict=True):
            # P is the same at every rank and Q is the sum, so the product is the sum's.
            torch.mm(p, q.T, out=matrix)

    def let_go(self) -> None:
        for matrix, error in zip(self._matrices, self.errors.values(), strict=True):
            matrix += error
            error.zero_()

    def _added(self, tensors: list[Tensor]) -> None:
        """Their sums over ranks, in place, by one collective."""
        import torch

        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._wire.add(flat)
        for tensor, part in zip(
            tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True
        ):
            tensor.copy_(part.view(tensor.shape))
