"""What is changed in a network before it is trained: blocks that compute again, norms that see all ranks'
rows.

**Activation checkpointing** (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). A block is a
module with modules of its own that stands in a list or a sequence of them: a layer of a transformer, a
residual block. Its inputs are kept and its inside is computed again when going backward, with the same
chance. A norm in it has seen the batch by then, and its memory of batches is left as it is the second time.

**BatchNorm over all ranks' rows.** torch's own SyncBatchNorm runs on accelerators only, and counts a rank
without rows wrongly. Here each rank's count, mean and sum of squares about it are gathered and merged (Chan,
Golub and LeVeque 1979), so that mean and variance are those of one process with all the rows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from penstock.train.communicator import Communicator


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The outermost blocks of a network: those that stand in a list or sequence and have modules with weights
    of their own.
    """
    blocks: list[nn.Module] = []

    def look(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(module, (nn.ModuleList, nn.Sequential)) and _is_block(child):
                # Not looked into any further: a block within a block would be computed
                # again twice.
                blocks.append(child)
            else:
                look(child)

    look(network)
    return blocks


def _is_block(module: nn.Module) -> bool:
    # Containers have no forward of their own worth keeping; what they hold is looked at
    # instead.
    return (
        not isinstance(module, (nn.ModuleList, nn.ModuleDict, nn.Sequential))
        # A single layer keeps hardly more than its input.
        and any(True for _ in module.children())
        and any(p.requires_grad for p in module.parameters())
    )


# -- less memory ---------------------------------------------------------------------------------------------


def compute_again(block: nn.Module) -> None:
    """From now on, in training, keep only what goes into this block, and compute its inside again when going
    backward.
    """
    # Bound to this block; the attribute below hides it, and names of weights stay.
    forward = block.forward
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]

    @functools.wraps(forward)
    def again(*arguments: Any, **named: Any) -> Any:
        # Where no gradient is wanted, nothing is kept that could be let go of.
        if not block.training or not torch.is_grad_enabled():
            return forward(*arguments, **named)
        # Not reentrant: the first block's input needs no gradient, and the reentrant
        # form would then give its weights none.
        if not norms:
            return checkpoint(forward, *arguments, use_reentrant=False, **named)
        return checkpoint(
            forward,
            *arguments,
            use_reentrant=False,
            # A context for going forward, and one for computing again.
            context_fn=lambda: (nullcontext(), _unmoved(norms)),
            **named,
        )

    block.forward = again


@contextmanager
def _unmoved(norms: list[Any]) -> Iterator[None]:
    before = [
        (
            # The count of batches moves even where the momentum is 0, so it is kept and
            # put back.
            norm.momentum,
            None
            if norm.num_batches_tracked is None
            else norm.num_batches_tracked.clone(),
        )
        for norm in norms
    ]
    for norm in norms:
        # With a momentum of 0 running means stay as they are.
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if count is not None:
                norm.num_batches_tracked.copy_(count)


# -- norms over all ranks ------------------------------------------------------------------------------------


class SyncBatchNorm(_BatchNorm):
    """A BatchNorm of any number of dimensions over the rows of all ranks, with the weights and memory of
    `norm`.
    """

    def __init__(self, norm: Any, peers: Communicator) -> None:
        super().__init__(
            norm.num_features,
            norm.eps,
            norm.momentum,
            norm.affine,
            norm.track_running_stats,
        )
        # The tensors themselves, so that names in checkpoints and ties between weights
        # stay.
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self._peers = peers
        self.counts = True
        """False: these rows only keep company with other ranks' and are not there."""
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        return

    def forward(self, input: Tensor) -> Tensor:
        """Normalise by the mean and variance of all ranks' rows; shapes as `nn.BatchNorm1d` and `2d`."""
        # Running statistics need no other rank: evaluation is no collective.
        if not self.training:
            out: Tensor = super().forward(input)
            return out
        together: Any = _Together
        normed: Tensor
        normed, mean, variance, count = together.apply(
            input, self.weight, self.bias, self.eps, self.counts, self._peers
        )
        if (
            self.track_running_stats
            and self.running_mean is not None
            and self.running_var is not None
            and self.num_batches_tracked is not None
        ):
            # From statistics of all ranks, so that every rank's memory stays the same.
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                # Without a momentum, the mean over all batches, as in torch.
                share = (
                    1 / float(self.num_batches_tracked)
                    if self.momentum is None
                    else self.momentum
                )
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
                # n / (n - 1): torch, too, keeps the unbiased variance and normalises by
                # the biased one.
                self.running_var.lerp_(
                    (variance * (count / (count - 1).clamp_min(1))).to(
                        self.running_var.dtype
                    ),
                    share,
                )
        return normed


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        counts: bool,
        peers: Communicator,
    ) -> Any:
        # All but the channels, of `[b, c, …]`.
        dims = [0, *range(2, input.dim())]
        # In float32: in 16 bits the sums of squares would lose the variance.
        numbers = input.float()
        # Values a channel that these statistics stand for; padding stands for none.
        here = input.numel() // max(input.shape[1], 1) if counts else 0
        # `[2 c + 1]`: by channel the mean and the sum of squares about it, then the
        # count.
        moments = torch.zeros(2 * input.shape[1] + 1, device=input.device)
        if here:
            variance, mean = torch.var_mean(numbers, dims, correction=0)
            moments = torch.cat(
                [mean, variance * here, moments.new_full((1,), float(here))]
            )
        # `[ranks, 2 c + 1]`. A rank without rows calls too: the others wait in it.
        every = peers.all(moments)
        count = every[:, -1:]
        # 1 at least, so that nothing is divided by 0 where all ranks pad.
        total = count.sum().clamp_min(1.0)
        means, squares = every[:, : input.shape[1]], every[:, input.shape[1] : -1]
        mean = (means * count).sum(0) / total
        # Squares within ranks, and between their means: no difference of large sums.
        variance = (squares.sum(0) + (count * (means - mean) ** 2).sum(0)) / total
        shape = [1, -1, *[1] * (input.dim() - 2)]
        scale = torch.rsqrt(variance + eps)
        even = (numbers - mean.view(shape)) * scale.view(shape)
        out = (
            even
            if weight is None
            else even * weight.view(shape) + (0 if bias is None else bias.view(shape))
        )
        context.save_for_backward(even, scale, weight, total)
        context.dims, context.shape, context.counts, context.peers, context.has_bias = (
            dims,
            shape,
            counts,
            peers,
            bias is not None,
        )
        # They feed the running memory only, and no loss.
        context.mark_non_differentiable(mean, variance, total)
        return out.to(input.dtype), mean, variance, total

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        even, scale, weight, total = context.saved_tensors
        gradient = gradients[0].float()
        shape = context.shape
        own = gradient.sum(context.dims), (gradient * even).sum(context.dims)
        # A copy: `own` stays this rank's, since gradients of weight and bias are summed
        # over ranks later, with all the others.
        sums = torch.cat(own)
        # Every rank's rows shape the mean and variance that each is normalised by.
        context.peers.add(sums)
        of_one, of_even = (sums / total).chunk(2)
        # Padding has no part in the statistics, so nothing flows back to it through
        # them.
        back = (
            gradient - of_one.view(shape) - even * of_even.view(shape)
            if context.counts
            else torch.zeros_like(gradient)
        )
        back = back * (scale if weight is None else scale * weight).view(shape)
        return (
            back.to(gradients[0].dtype),
            None if weight is None else own[1],
            own[0] if context.has_bias else None,
            None,
            None,
            None,
        )


def sync_norms(network: nn.Module, peers: Communicator) -> list[SyncBatchNorm]:
    """Put a `SyncBatchNorm` in place of each BatchNorm of a network; weights keep their names."""
    norms: list[SyncBatchNorm] = []
    # A list, as modules are replaced while they are walked.
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
                norms.append(SyncBatchNorm(child, peers))
                setattr(module, name, norms[-1])
    return norms


def has_norms(network: nn.Module) -> bool:
    """Whether a layer looks at the whole batch."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())
