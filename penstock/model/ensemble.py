"""An ensemble: several networks that are trained in one loop, and answer together (`model.ensemble`).

The members' raws stand side by side on an axis of their own, `[B, N, …]`, and each target's decoder is one
that reads such raws (`EnsembleDecoder`). So to all others (objectives, the learner, strategies, checkpoints,
the program that is exported) an ensemble is one network, and they need not know of it.

Separate members learn as each would alone: a batch has b rows for each, in an order of its own
(`order.members`), and where `member` says whose a row is, it goes to that member alone, `[B, 1, …]`. With one
order for all, what the last batches taught was wrong in the same way in every member, and the mean kept it:
see `docs/benchmarks.md`. Members that share weights read the same rows, as in TabM.

Given up: members on different processes at once. Processes share the rows, as they do for any network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penstock.contracts.features import DOUBT
from penstock.contracts.learn import Decoder, Encoded
from penstock.contracts.tensors import MEMBER, TensorSpec
from penstock.model.network import Network


class Ensemble(nn.Module):
    """Networks of one recipe, each started from a seed of its own: `forward(batch) → {target: raws}`, raws
    `[B, N, …]`.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        # All have the same parts, under the same names.
        self.encoded = members[0].encoded

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        members: list[nn.Module] = list(self.members)
        if MEMBER in batch:
            return self._dealt(members, batch)
        each: list[dict[str, Tensor]] = [member(batch) for member in members]
        return {
            target: torch.stack([raw[target] for raw in each], dim=1)
            for target in each[0]
        }

    def _dealt(
        self, members: Sequence[nn.Module], batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Each row's raw by the member that it is for: `[B, 1, …]`."""
        whose = batch[MEMBER]
        order = whose.argsort(stable=True)
        counts = whose.bincount(minlength=len(members)).tolist()
        # One gather for all members; each then has a run of rows.
        ordered = {name: array[order] for name, array in batch.items() if name != MEMBER}
        each: list[dict[str, Tensor]] = []
        start = 0
        for member, count in zip(members, counts, strict=True):
            # Without a row of its own it sends one through that counts nothing: where weights are divided
            # among processes, every pass is a collective.
            at = slice(start, start + count) if count else slice(0, 1)
            raw = member({name: array[at] for name, array in ordered.items()})
            each.append({target: value[:count] for target, value in raw.items()})
            start += count
        back = order.argsort()
        return {
            target: torch.cat([raw[target] for raw in each])[back].unsqueeze(1)
            for target in each[0]
        }


class MemberHeads(nn.Module):
    """A head for each member, on its own vector: raws `[B, N, …]`.

    `encoded` has `pooled` `[B, N, W]` and `tokens` `[B, N, T, W]`.
    """

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(
        self, encoded: Encoded, target: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        return torch.stack(
            [
                head(
                    Encoded(encoded.tokens[:, i], encoded.mask, encoded.pooled[:, i]),
                    target,
                )
                for i, head in enumerate(self.heads)
            ],
            dim=1,
        )


class EnsembleDecoder:
    """A target's decoder that reads the raws of all members; in all else it is the decoder of one.

    Args:
        of_one: what the recipe chose.
        members: N.
    """

    def __init__(self, of_one: Decoder, *, members: int) -> None:
        self._of_one, self._members = of_one, members

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of_one, name)

    def loss(
        self, raws: Tensor, target: Mapping[str, Tensor], spec: Mapping[str, TensorSpec]
    ) -> Tensor:
        """Per-row losses `[B]`: of raws `[B, 1, …]` those of the member that each row is for; of all members'
        in training their mean, and in judging the loss of what they say together.
        """
        if raws.shape[1] == 1:
            losses = self._of_one.loss(raws[:, 0], target, spec)
            # A batch's loss is the mean over all members' rows, so a member's gradient would be 1/N of what
            # it is alone: the value stays, and the gradient is N times as large.
            scaled = losses * self._members
            return losses.detach() + (scaled - scaled.detach())
        # Only what is judged needs no gradient.
        if not torch.is_grad_enabled():
            return self._of_one.loss(self._of_one.merged(raws, spec), target, spec)
        each = [self._of_one.loss(raw, target, spec) for raw in raws.unbind(dim=1)]
        return torch.stack(each).mean(dim=0)

    def answer(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        """The answers of what the members say together, and `doubt [B]`."""
        answers = self._of_one.answer(self._of_one.merged(raws, spec), spec)
        return {**answers, DOUBT: self._of_one.doubt(raws, spec)}


def networks_of(network: nn.Module) -> dict[str, Network]:
    """The networks that a model is made of, by the beginning of their weights' names; none where it is the
    user's own module.
    """
    if isinstance(network, Ensemble):
        members: Any = network.members
        return {f"members.{i}.": member for i, member in enumerate(members)}
    return {"": network} if isinstance(network, Network) else {}
