"""A text that is told token by token: captions, titles, answers. See `penstock.nn.generate`.

Combine with `attention` where the text should look at the places of a picture or the words of another text;
any other combiner shows it one vector a row, or one an encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from penstock.contracts.learn import Decoder
from penstock.contracts.tensors import TensorSpec
from penstock.core.optional import require

if TYPE_CHECKING:
    from torch import Tensor, nn


class TextDecoder(Decoder):
    """Cross-entropy of each next token, a row's mean over its tokens.

    Reads `tokens [B, T]`, `mask [B, T]` and the facts `begin`, `end`, `length`. Raw is logits `[B, T-1, V]`
    where the true tokens are given, otherwise the ids told, `[B, length - 1]`. Answers `tokens [B, length -
    1]`.
    """

    metrics: ClassVar[tuple[str, ...]] = ("bleu", "rouge_l")
    teacher_forced: ClassVar[bool] = True

    hidden: int = Field(256, ge=1)
    """Of the recurrent state."""
    embedding: int = Field(128, ge=1)
    """Of the tokens' vectors."""
    beam: int = Field(4, ge=1, le=32)
    """How many beginnings are followed at once when answering; 1 is greedy, and as many times quicker."""
    length_power: float = Field(0.6, ge=0, le=2)
    """A beginning's log-probability is divided by its length to this power: 0 favours short texts, 1 none (Wu
    et al. 2016).
    """
    dropout: float = Field(0.3, ge=0, lt=1)
    """In training."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """The share of each token's truth that is spread over all tokens."""

    def reads(self, spec: Mapping[str, TensorSpec]) -> str | None:
        tokens = spec.get("tokens")
        if (
            tokens is None
            or tokens.role != "target"
            or "mask" not in spec
            or {"begin", "end", "length"} - tokens.facts.keys()
        ):
            return "text answers a target that is a text; this one has " + ", ".join(
                f"{name} {list(s.shape)}" for name, s in spec.items()
            )
        return None

    def build(self, spec: Mapping[str, TensorSpec], width: int) -> nn.Module:
        from penstock.nn.generate import Teller

        # Asked for now, not when the first epoch is to be judged.
        for package in (
            "sacrebleu",
            "rouge_score",
        ):
            require(package, extra="text-metrics", why="judging generated texts")
        tokens = spec["tokens"]
        return Teller(
            width,
            int(tokens.cardinality or 4),
            hidden=self.hidden,
            embedding=self.embedding,
            begin=int(tokens.facts["begin"]),
            end=int(tokens.facts["end"]),
            steps=int(tokens.facts["length"]) - 1,
            beam=self.beam,
            length_power=self.length_power,
            dropout=self.dropout,
        )

    def loss(
        self, raw: Tensor, target: Mapping[str, Tensor], spec: Mapping[str, TensorSpec]
    ) -> Tensor:
        from torch.nn import functional as F

        # The first token is `begin`, which is given and not predicted.
        mask = target["mask"][:, 1:].float()
        losses = F.cross_entropy(
            # torch wants the classes on the second axis.
            raw.float().transpose(1, 2),
            target["tokens"][:, 1:],
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return (losses * mask).sum(1) / mask.sum(1).clamp(min=1)

    def answer(self, raw: Tensor, spec: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
        return {"tokens": raw.long()}

    def merged(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        from penstock.nn.members import mean_logits, most_agreed

        # Logits `[B, N, T-1, V]`, where the true text was given.
        if raws.dim() == 4:
            return mean_logits(raws)
        return most_agreed(raws.long(), int(spec["tokens"].facts["end"]))[0]

    def doubt(self, raws: Tensor, spec: Mapping[str, TensorSpec]) -> Tensor:
        """The share of the tokens in which the text that is answered, and those of the other members, do not
        agree: 0 to 1.
        """
        from penstock.nn.members import most_agreed

        return 1 - most_agreed(raws.long(), int(spec["tokens"].facts["end"]))[1]
