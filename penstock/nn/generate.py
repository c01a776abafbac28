"""A text, token after token, from what is known of a row.

A GRU tells; at each step it looks at the row's tokens (Luong, Pham and Manning 2015, global attention). In
training it is given the true text so far, all steps at once; otherwise what it has told itself, kept in the
`beam` best beginnings (1: greedy). The steps are as many as the longest training text has and are written out
one after another, so that the whole of it is one program that ONNX expresses; a text that has ended goes on
ending, at no cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from penstock.contracts.learn import Encoded

# In the place of minus infinity: float16 holds it, and differences of it are no NaN.
_NEVER = -1e4


class Teller(nn.Module):
    """`Encoded` → logits `[B, T-1, V]` of each next token where the true `tokens [B, T]` are given; otherwise
    ids `[B, steps]`.

    Args:
        width: of `pooled` and of the tokens.
        cardinality: V; ids below `end` are never told (padding, unknown, beginning).
        hidden: of the GRU.
        embedding: of the tokens' vectors.
        begin, end: ids.
        steps: the most tokens that are told, the end included.
        beam: beginnings that are kept.
        length_power: a text's log-probability is divided by its length to this power before beginnings are
            compared (Wu et al. 2016).
        dropout: of vectors and of what is said, in training.
    """

    def __init__(
        self,
        width: int,
        cardinality: int,
        *,
        hidden: int,
        embedding: int,
        begin: int,
        end: int,
        steps: int,
        beam: int,
        length_power: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.begin, self.end, self.steps, self.length_power = (
            begin,
            end,
            steps,
            length_power,
        )
        # No more beginnings than there are tokens that may be told.
        self.beam = min(beam, max(cardinality - end, 1))
        self.table = nn.Embedding(cardinality, embedding)
        nn.init.normal_(self.table.weight, std=1 / math.sqrt(embedding))
        self.start = nn.Linear(width, hidden)
        self.layer = nn.GRU(embedding, hidden, batch_first=True)
        self.ask, self.told = nn.Linear(hidden, width), nn.Linear(hidden + width, hidden)
        self.out = nn.Linear(hidden, cardinality)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, encoded: Encoded, target: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        # `[B, H]`, where the GRU begins.
        state = torch.tanh(self.start(encoded.pooled))
        if target is None:
            return self._generate(encoded, state)
        # The last token is only to be told, and never read: `[B, T - 1]` go in.
        states, _ = self.layer(
            self.dropout(self.table(target["tokens"][:, :-1])), state.unsqueeze(0)
        )
        logits: Tensor = self.out(self.dropout(self._seen(states, encoded)))
        return logits

    def _seen(self, states: Tensor, encoded: Encoded) -> Tensor:
        """GRU states `[B, S, H]` → the same after a look at the row's tokens."""
        # `[B, S, T]`, over the root of the width, as in attention.
        scores = (
            self.ask(states)
            @ encoded.tokens.transpose(1, 2)
            / math.sqrt(encoded.tokens.shape[2])
        )
        # What is not there gets no weight.
        scores = torch.where(
            encoded.mask.unsqueeze(1),
            scores,
            torch.full((), _NEVER, dtype=scores.dtype, device=scores.device),
        )
        context = scores.softmax(-1) @ encoded.tokens
        return torch.tanh(self.told(torch.cat([states, context], dim=-1)))

    def _step(self, ids: Tensor, state: Tensor) -> Tensor:
        """One step of the GRU, written out (its equations are torch's): ids `[B, k]`, states `[B, k, H]` →
        `[B, k, H]`.
        """
        gru: Any = self.layer
        # torch's order of gates: reset, update, new.
        reset, update, new = F.linear(
            self.table(ids), gru.weight_ih_l0, gru.bias_ih_l0
        ).chunk(3, dim=-1)
        reset_h, update_h, new_h = F.linear(
            state, gru.weight_hh_l0, gru.bias_hh_l0
        ).chunk(3, dim=-1)
        reset, update = torch.sigmoid(reset + reset_h), torch.sigmoid(update + update_h)
        # The reset comes after the product, as in torch and cuDNN.
        candidate = torch.tanh(new + reset * new_h)
        return (1 - update) * candidate + update * state

    def _generate(self, encoded: Encoded, start: Tensor) -> Tensor:
        rows, beam, cardinality = start.shape[0], self.beam, self.out.out_features
        device = start.device
        # `[V]`, added to logits: padding, unknown and the beginning are never told.
        never = torch.zeros(cardinality, device=device).index_fill_(
            0, torch.arange(self.end, device=device), _NEVER
        )
        # `[V]`: after its end a text can only end again, at a log-probability of 0.
        ending = torch.full((cardinality,), _NEVER, device=device).index_fill_(
            0, torch.tensor([self.end], device=device), 0.0
        )
        # `[B, beam, H]`: each beginning has a state of its own.
        state = start.unsqueeze(1).expand(-1, beam, -1)
        last = torch.full_like(start[:, :1], self.begin, dtype=torch.int64).expand(
            -1, beam
        )
        # All beginnings are alike at first, so only one may go on.
        score = (
            start.new_zeros(rows, 1).float() + torch.arange(beam, device=device) * _NEVER
        )
        ended = torch.zeros_like(last, dtype=torch.bool)
        length = torch.zeros_like(score)
        chosen: list[Tensor] = []
        for _ in range(self.steps):
            state = self._step(last, state)
            # In float32, since log-probabilities add up over all steps.
            chance = (self.out(self._seen(state, encoded)).float() + never).log_softmax(
                -1
            )
            chance = torch.where(ended.unsqueeze(-1), ending, chance)
            # The best of all beginnings with all next tokens: `[B, beam · V]`.
            score, picked = (score.unsqueeze(-1) + chance).flatten(1).topk(beam, dim=1)
            # Which beginning each of the best goes on from, and with which token.
            came, last = picked // cardinality, picked % cardinality
            state = state.gather(1, came.unsqueeze(-1).expand(-1, -1, state.shape[2]))
            # The tokens told so far change places with their beginnings.
            chosen = [before.gather(1, came) for before in chosen] + [last]
            ended = ended.gather(1, came)
            # A text that had ended before this step gets no longer.
            length = length.gather(1, came) + (~ended).float()
            ended = ended | (last == self.end)
        # By length, or short texts would win: each token makes a sum of logarithms
        # smaller.
        best = (score / length.clamp(min=1) ** self.length_power).argmax(
            dim=1, keepdim=True
        )
        return torch.cat([tokens.gather(1, best) for tokens in chosen], dim=1)
