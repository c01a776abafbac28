"""The decoders `set` and `sequence`, and encoders of sets and of steps that are numbers, by every law; losses
against definitions.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from penstock.contracts.learn import Decoder, Encoded, Encoder
from penstock.contracts.tensors import TensorSpec
from penstock.testing.laws import decoders as laws
from penstock.testing.laws import encoders as encoder_laws

torch.set_num_threads(1)
LABELS = {
    "labels": TensorSpec(
        "float32",
        (3,),
        "target",
        ("label",),
        2,
        {"classes": ["a", "b", "c"], "counts": [50, 10, 1], "rows": 99},
    )
}
STEPS = {
    "labels": TensorSpec(
        "int64",
        (None,),
        "target",
        ("time",),
        4,
        {"classes": ["a", "b", "c", "d"], "counts": [40, 30, 20, 10], "over": "words"},
    ),
    "mask": TensorSpec("bool", (None,), "mask", ("time",)),
}
MASK = TensorSpec("bool", (None,), "mask", ("time",))
MEMBERS = {
    "genres": {
        "members": TensorSpec("int64", (None,), "index", ("member",), 9),
        "mask": MASK,
    }
}
NUMBERS = {
    "beats": {
        "values": TensorSpec("float32", (None, 1), "values", ("time", "variable")),
        "mask": MASK,
    }
}


@pytest.mark.parametrize(
    "decoder",
    [
        {"type": "set"},
        {"type": "set", "positive_weight": "balanced"},
        {"type": "set", "positive_weight": 3.0, "label_smoothing": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0]])
def test_set_by_the_laws(decoder: dict[str, object], weights: list[float] | None) -> None:
    spec = LABELS["labels"]
    laws.check(
        Decoder.load(decoder),
        {
            "labels": replace(
                spec, facts={**spec.facts, **({"weights": weights} if weights else {})}
            )
        },
    )


@pytest.mark.parametrize(
    "decoder",
    [{"type": "sequence"}, {"type": "sequence", "label_smoothing": 0.1}],
    ids=str,
)
@pytest.mark.parametrize(
    "law",
    [law for law in laws.LAWS if law is not laws.learns],
    ids=lambda law: law.__name__,
)
def test_sequence_by_the_laws(decoder: dict[str, object], law: laws.Law) -> None:
    law(Decoder.load(decoder), STEPS)


@pytest.mark.parametrize(
    ("type", "features"),
    [
        ("bag", MEMBERS),
        ("bag", NUMBERS),
        ("rnn", NUMBERS),
        ("textcnn", NUMBERS),
        ("transformer", NUMBERS),
    ],
)
def test_encoders_of_sets_and_numbers(
    type: str, features: dict[str, dict[str, TensorSpec]]
) -> None:
    encoder_laws.check(Encoder.load(type), features)


def test_a_set_is_so_many_binaries() -> None:
    raw, labels = torch.randn(5, 3), torch.randint(2, (5, 3)).float()
    wanted = F.binary_cross_entropy_with_logits(raw, labels, reduction="none").sum(1)
    torch.testing.assert_close(
        Decoder.load("set").loss(raw, {"labels": labels}, LABELS), wanted
    )
    head = Decoder.load("set").build(LABELS, 4)
    torch.testing.assert_close(
        head.linear.bias.sigmoid(), torch.tensor([50.5, 10.5, 1.5]) / 100
    )  # type: ignore[union-attr, operator]
    assert "above 0" in str(
        Decoder.load({"type": "set", "positive_weight": -1}).reads(LABELS)
    )


def test_a_step_is_a_category_and_padding_counts_for_nothing() -> None:
    decoder = Decoder.load("sequence")
    mask = torch.tensor([[True, True, False], [False, False, False]])
    raw = torch.cat([torch.randn(2, 3, 4), mask.unsqueeze(-1) * 2.0 - 1], -1)
    labels = torch.tensor([[1, 3, 0], [0, 0, 0]])
    wanted = F.cross_entropy(raw[0, :2, :4], labels[0, :2])
    torch.testing.assert_close(
        decoder.loss(raw, {"labels": labels, "mask": mask}, STEPS),
        torch.stack([wanted, torch.zeros(())]),
    )
    longer = {"labels": F.pad(labels, (0, 2)), "mask": F.pad(mask, (0, 2))}
    # labels beyond what the model read
    torch.testing.assert_close(decoder.loss(raw, longer, STEPS)[0], wanted)
    shares = decoder.answer(raw, STEPS)["probabilities"]
    torch.testing.assert_close(shares.sum(-1), mask.float())
    module = decoder.build(STEPS, 6)
    found = module(Encoded(torch.randn(2, 3, 6), mask, torch.randn(2, 2)))
    assert found.shape == (2, 3, 5) and torch.equal(found[..., -1] > 0, mask)
