"""Members of an ensemble: what they say together, and layers whose weights they share.

Probabilities are averaged, not logits: the mean of probabilities is the answer of the mixture, and never
worse in log-likelihood than its members on average (Lakshminarayanan, Pritzel, Blundell 2017). It is done in
logarithms, so that a sure member neither over- nor underflows.

The layers are those of BatchEnsemble (Wen, Tran, Ba 2020) as TabM has them for tables (Gorishniy, Kotelnikov,
Babenko 2024, arXiv:2410.24210): y = s · (W (r · x)) + b, where W is everybody's and r, s, b are a member's
own. The first r is ±1 by chance, which makes members differ; the others begin at 1.

Shapes: B batch, N members, K classes, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penstock.contracts.learn import Encoded
from penstock.nn.combine import Pooled
from penstock.nn.tokens import undecayed


def mean_log_odds(raws: Tensor) -> Tensor:
    """Log-odds `[B, N, …]` → those of the mean probability `[B, …]`."""
    raws = raws.float()
    return F.logsigmoid(raws).logsumexp(dim=1) - F.logsigmoid(-raws).logsumexp(dim=1)


def mean_logits(raws: Tensor) -> Tensor:
    """Logits over the last axis `[B, N, …, K]` → the logarithms of the mean probabilities `[B, …, K]`."""
    members = raws.shape[1]
    return raws.float().log_softmax(dim=-1).logsumexp(dim=1) - math.log(members)


def spread(probabilities: Tensor) -> Tensor:
    """Probabilities `[B, N, …]` → how far members lie from their mean, on average `[B, …]`."""
    mean = probabilities.mean(dim=1, keepdim=True)
    return (probabilities - mean).abs().mean(dim=1)


# -- texts that are told -------------------------------------------------------------------------------------


def most_agreed(texts: Tensor, end: int) -> tuple[Tensor, Tensor]:
    """Of the members' texts, the one that agrees best with the others (consensus, or minimum Bayes risk
    decoding: Kumar and Byrne 2004).

    Two texts agree in the share of their tokens, of both together, that stand in the other one, too.

    Args:
        texts: ids `[B, N, S]`; from the first `end` on, `end`.

    Returns:
        The text `[B, S]`, and its mean agreement with the others `[B]`, 0 to 1.
    """
    members = texts.shape[1]
    there = texts != end
    lengths = there.float().sum(dim=2)
    total = torch.zeros_like(lengths)
    for one in range(members):
        for other in range(one + 1, members):
            # `[B, S, S]`, pair by pair, since texts may be long.
            same = texts[:, one].unsqueeze(2) == texts[:, other].unsqueeze(1)
            same = same & there[:, one].unsqueeze(2) & there[:, other].unsqueeze(1)
            common = same.any(dim=2).float().sum(1) + same.any(dim=1).float().sum(1)
            tokens = lengths[:, one] + lengths[:, other]
            # Two empty texts agree.
            agreement = torch.where(tokens > 0, common / tokens.clamp(min=1), 1.0)
            places = torch.tensor([one, other], device=texts.device)
            total = total.index_add(1, places, agreement.unsqueeze(1).expand(-1, 2))
    best = total.argmax(dim=1, keepdim=True)
    text = texts.gather(1, best.unsqueeze(2).expand(-1, -1, texts.shape[2])).squeeze(1)
    return text, total.gather(1, best).squeeze(1) / (members - 1)


# -- shared weights ------------------------------------------------------------------------------------------


class MemberLinear(nn.Module):
    """A linear map that members share, with scales and a bias of each one's own: `[B, N, I] → [B, N, O]`.

    Args:
        linear: what is shared; its weight is taken over, its bias is where each member's begins.
        members: N.
        signs: lengths of the runs of inputs that get one random sign a member, together I; None: no signs,
            members begin alike.
    """

    def __init__(
        self, linear: nn.Linear, members: int, *, signs: Sequence[int] | None
    ) -> None:
        super().__init__()
        self.weight = linear.weight
        outputs, inputs = linear.weight.shape
        scale = torch.ones(members, inputs)
        if signs is not None:
            chance = torch.randint(2, (members, len(signs))) * 2.0 - 1
            run_of = [run for run, length in enumerate(signs) for _ in range(length)]
            scale = chance[:, run_of]
        self.before = undecayed(scale)
        self.after = undecayed(torch.ones(members, outputs))
        bias = linear.bias if linear.bias is not None else torch.zeros(outputs)
        self.bias = undecayed(bias.detach().expand(members, -1).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x * self.before, self.weight) * self.after + self.bias


def shared(layers: nn.Module, members: int, signs: Sequence[int]) -> nn.Module:
    """`layers` with each linear map shared by members; the first met gets the random signs. What else stands
    in it must act on the last axis alone.
    """
    first: list[Sequence[int] | None] = [signs]

    def replaced(module: nn.Module) -> nn.Module:
        if isinstance(module, nn.Linear):
            return MemberLinear(module, members, signs=first.pop() if first else None)
        for name, child in list(module.named_children()):
            setattr(module, name, replaced(child))
        return module

    return replaced(layers)


def signs_of(encoders: Sequence[Any]) -> list[int]:
    """Runs of the encoders' pooled vectors, side by side, that get one sign: the token of a feature, where
    `pooled` is tokens side by side; otherwise each component.
    """
    runs: list[int] = []
    for encoder in encoders:
        width, pooled = int(encoder.width), int(encoder.pooled_width)
        are_tokens = pooled > width and pooled % width == 0
        runs += [width] * (pooled // width) if are_tokens else [1] * pooled
    return runs


class MembersPooled(Pooled):
    """Pooled vectors side by side, through layers that members share: `[B, ΣW] → [B, N, W]`."""

    def __init__(
        self,
        layers: nn.Module,
        width: int,
        members: int,
        signs: Sequence[int],
        *,
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__(
            shared(layers, members, signs), width, modality_dropout=modality_dropout
        )
        self.members = members

    def forward(self, parts: list[Encoded]) -> Encoded:
        parts = self.drop(parts)
        side_by_side = torch.cat([part.pooled for part in parts], dim=1)
        pooled: Tensor = self.layers(
            side_by_side.unsqueeze(1).expand(-1, self.members, -1)
        )
        there = torch.ones((pooled.shape[0], 1), dtype=torch.bool, device=pooled.device)
        return Encoded(pooled.unsqueeze(2), there, pooled)
