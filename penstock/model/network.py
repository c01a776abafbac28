"""The network: encoders → combiner → decoders."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from penstock.contracts.learn import Encoded


class Network(nn.Module):
    """Encoders → combiner → decoders.

    `forward(batch) → {target: raw}`; `batch` has `<feature>.<array>` for each input.
    """

    encoded: dict[str, list[str]]
    """The inputs that each encoder encodes."""
    step_encoders: dict[str, str]
    """By target that labels an input's steps, the encoder of that input: its decoder gets that encoder's
    tokens, each with what the combiner says of the whole row behind it.
    """

    teacher_forced: dict[str, list[str]]
    """By target whose decoder is given the truth in training, the arrays of it."""

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        combiner: nn.Module,
        decoders: Mapping[str, nn.Module],
        *,
        encoded: Mapping[str, list[str]],
        step_encoders: Mapping[str, str],
        teacher_forced: Mapping[str, list[str]],
    ) -> None:
        super().__init__()
        self.encoded = dict(encoded)
        self.step_encoders = dict(step_encoders)
        self.teacher_forced = dict(teacher_forced)
        self.encoders = nn.ModuleDict(encoders)
        self.combiner = combiner
        self.decoders = nn.ModuleDict(
            {module_key(name): decoder for name, decoder in decoders.items()}
        )
        self.targets = list(decoders)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # By encoder, its tokens `[B, T, W]`, their mask `[B, T]` and the pooled row
        # `[B, P]`.
        parts = {key: encoder(batch) for key, encoder in self.encoders.items()}
        combined: Encoded = self.combiner(list(parts.values()))
        raw: dict[str, Tensor] = {}
        # In the order of the recipe, which both have been made in.
        for name, decoder in zip(self.targets, self.decoders.values(), strict=True):
            key = self.step_encoders.get(name)
            known = combined if key is None else _steps(parts[key], combined)
            raw[name] = decoder(known, self._truth(name, batch))
        return raw

    def _truth(self, name: str, batch: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The target's arrays, where its decoder is teacher-forced and the batch has them all (training)."""
        arrays = self.teacher_forced.get(name)
        # At inference the truth is not there, and the decoder goes by its own answers.
        if not arrays or any(f"{name}.{array}" not in batch for array in arrays):
            return None
        return {array: batch[f"{name}.{array}"] for array in arrays}


def _steps(one: Encoded, whole: Encoded) -> Encoded:
    """One input's tokens `[B, T, W]`, each with what is known of the row `[B, P]` behind it.

    Of members that share weights, what each knows `[B, N, P]`, and so `[B, N, T, W + P]`.
    """
    tokens = one.tokens
    if whole.pooled.dim() == 3:
        tokens = tokens.unsqueeze(1).expand(-1, whole.pooled.shape[1], -1, -1)
    # `[B, P]` seen as `[B, T, P]`.
    row = whole.pooled.unsqueeze(-2).expand(*tokens.shape[:-1], -1)
    return Encoded(torch.cat([tokens, row], dim=-1), one.mask, whole.pooled)


_ESCAPES = str.maketrans(
    {character: f"%{ord(character):02X}" for character in '%."\n\r\0'}
)


def module_key(name: str) -> str:
    """A name that `nn.ModuleDict` takes: no dot, and never one of its own attributes. Neither has it what
    ends the texts that `torch.export` puts such names into.

    It is part of every name in a checkpoint; another spelling would lose the weights of older runs.
    """
    return ":" + name.translate(_ESCAPES)


def parameter_count(network: nn.Module) -> int:
    """How many numbers training moves."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
