"""Sequences whose places mean something: when they are taken for such, and that the model sees the place."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from penstock.contracts.features import Feature
from penstock.contracts.learn import Encoder
from penstock.contracts.tensors import TensorSpec
from penstock.model.choices import encoders_of
from penstock.recipe.schema import Model
from penstock.testing.laws import encoders as laws
from penstock.testing.laws.features import Specimen, fit

LETTERS = ["A", "C", "G", "T"]
FACTS = {"length": 9, "aligned": True, "complement": [0, 1, 5, 4, 3, 2]}
SPEC = {
    "tokens": TensorSpec("int64", (None,), "index", ("time",), 6, FACTS),
    "mask": TensorSpec("bool", (None,), "mask", ("time",)),
}


def texts(
    count: int, *, lengths: tuple[int, ...] = (12,), letters: str = "ACGT"
) -> pa.Array:
    chance = np.random.default_rng(0)
    return pa.array(
        "".join(chance.choice(list(letters), lengths[i % len(lengths)]))
        for i in range(count)
    )


def fitted(words: Any, column: pa.Array) -> tuple[Feature, dict[str, Any]]:
    feature = Feature.load(words)
    return feature, fit(Specimen(feature, (column,), False))[1]


SEQUENCE = {"type": "sequence", "unit": "characters"}
CHARACTERS = {"type": "text", "tokenizer": "characters", "min_count": 1}


@pytest.mark.parametrize(("words", "usual"), [(SEQUENCE, "rnn"), (CHARACTERS, "textcnn")])
def test_rows_of_one_length_over_a_small_alphabet_are_read_by_place(words, usual):
    feature, state = fitted(words, texts(50))
    spec = feature.spec(state)
    facts = spec["tokens"].facts
    assert feature.encoder_for(spec) == "places" and facts["aligned"]
    assert any("12 steps in every row" in text for text in state["said"])
    assert sorted(facts["complement"][2:]) == [2, 3, 4, 5]
    # What was fitted before places were looked at keeps its arrays and its encoder.
    old = {word: value for word, value in state.items() if word != "aligned"}
    assert not {"aligned", "complement"} & set(feature.spec(old)["tokens"].facts)
    assert feature.encoder_for(feature.spec(old)) == usual
    for column in (
        texts(50, lengths=(12, 11)),
        texts(50, letters="".join(map(chr, range(0x4E00, 0x4E50)))),
        texts(50, lengths=(1,)),
    ):
        feature, state = fitted(words, column)
        assert feature.encoder_for(feature.spec(state)) == usual
        assert "aligned" not in state
    # Another alphabet has no complement.
    feature, state = fitted(words, texts(50, letters="WXYZ"))
    assert "complement" not in feature.spec(state)["tokens"].facts


def test_words_and_bags_of_grams_keep_their_encoder():
    feature, state = fitted({"type": "text"}, pa.array(["a b", "b a"] * 20))
    assert feature.encoder_for(feature.spec(state)) == "textcnn"
    feature, state = fitted({**CHARACTERS, "grams": True}, texts(50))
    assert feature.encoder_for(feature.spec(state)) == "textcnn"
    recipe: Any = SimpleNamespace(model=Model(), base=None)
    feature, state = fitted(SEQUENCE, texts(50))
    # Who labels steps reads the steps that the usual encoder gives.
    for target, kind in ((SEQUENCE | {"over": "s"}, "rnn"), ("category", "places")):
        encoding: Any = SimpleNamespace(
            inputs={"s": feature},
            targets={"y": Feature.load(target)},
            specs=lambda side: {"s": feature.spec(state)},
        )
        assert encoders_of(recipe, encoding)["s"][0].type == kind


OPTIONS = [{}, {"ends": "both", "strands": "both", "channels": 8}]


@pytest.mark.parametrize("options", OPTIONS, ids=["usual", "both"])
def test_laws(options):
    for law in laws.LAWS:
        law(Encoder.load({"type": "places", **options}), {"s": SPEC})


def test_what_it_reads():
    usual = Encoder.load("places")
    assert usual.reads(SPEC) is None
    plain = {**SPEC, "tokens": replace(SPEC["tokens"], facts={"length": 9})}
    assert usual.reads(plain) is None
    both = Encoder.load({"type": "places", "strands": "both"})
    assert "DNA" in str(both.reads(plain)) and both.reads(SPEC) is None
    assert usual.reads({**SPEC, "grams": SPEC["tokens"]}) is not None
    with pytest.raises(Exception, match="odd"):
        Encoder.load({"type": "places", "kernel": 4})


def test_it_sees_which_letter_stands_where_and_both_strands():
    torch.manual_seed(0)
    chance = np.random.default_rng(1)
    ids = torch.tensor(chance.integers(2, 6, (200, 9)))
    mask = torch.ones(ids.shape, dtype=torch.bool)
    truth = ids[:, 4] - 2
    words = {"type": "places", "dropout": 0, "forget": 0, "channels": 8}
    module = Encoder.load(words).build({"s": SPEC}, 4)
    learnt = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(learnt, lr=0.02)
    for _ in range(40):
        optimiser.zero_grad()
        raw = module({"s.tokens": ids[:150], "s.mask": mask[:150]}).pooled
        torch.nn.functional.cross_entropy(raw, truth[:150]).backward()
        optimiser.step()
    module.eval()
    raw = module({"s.tokens": ids[150:], "s.mask": mask[150:]}).pooled
    assert float((raw.argmax(1) == truth[150:]).float().mean()) > 0.8  # chance is 0.25
    both = (
        Encoder.load({"type": "places", "strands": "both"}).build({"s": SPEC}, 16).eval()
    )
    pairs = torch.tensor(FACTS["complement"])
    one = both({"s.tokens": ids, "s.mask": mask}).pooled
    other = both({"s.tokens": pairs[ids].flip(1), "s.mask": mask}).pooled
    assert torch.allclose(one, other, atol=1e-5)
