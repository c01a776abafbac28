"""Texts, sets and sequences by the laws of features, and what laws cannot say: Unicode, truncation,
thresholds, hashes.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import PydanticCustomError
from sklearn.metrics import f1_score

from penstock.contracts.data import Feature, Fitted, Stored
from penstock.core.errors import ContractError, MissingPackage
from penstock.parts.features import _words
from penstock.parts.features._thresholds import thresholds
from penstock.testing.laws import features as laws
from penstock.testing.laws.features import Specimen, fit


def part(type: str, **options: Any) -> Feature:
    return Feature.load({"type": type, **options})


TEXTS = pa.array(
    [
        "The cat sat on the mat.",
        "the CAT isn’t there",
        None,
        "",
        "naïve cafe\u0301, café!",
        "日本語のテキスト の cat",
        "😀😀 the 👩‍👩‍👧 cat",
        "Σίσυφος ΣΟΦΟΣ",
        "\x00NUL\x00 the",
        " the the ",
        "it's it's rock'n'roll",
        "\u0301leading mark",
        "don't",
        "a" * 300,
    ]
)
SERVED = pa.array(["never seen words", None, "the cat", "\U0001f9ff", "x\x00y"])
LABELS = pa.array(["b,a", "a", None, "", "a,,b, a", "10,2", "c", "2", "b"])
LISTS = pa.array([["b", "a", None], [], None, ["a", "a"], ["c"]])
STEPS = pa.array(["A C G T", "A A", None, "", " C  T ", "N"])
NUMBERS = pa.array([[1.0, 2.0, None], [], None, [4.0], [float("inf"), 1.0], [3.0, 3.0]])


def _labels(stored: Stored, fitted: Fitted) -> dict[str, np.ndarray]:
    return {"probabilities": stored["labels"].astype(np.float32)}


def _steps(stored: Stored, fitted: Fitted) -> dict[str, np.ndarray]:
    labels, mask = _words.padded(stored["labels"], "int64")
    return {
        "probabilities": np.eye(len(fitted["values"]), dtype=np.float32)[labels]
        * mask[..., None]
    }


def _generated(stored: Stored, fitted: Fitted) -> dict[str, np.ndarray]:
    return {"tokens": _words.padded(stored["tokens"], "int64")[0]}


SPECIMENS = [
    Specimen(part("text"), (TEXTS,), served=(SERVED,)),
    Specimen(
        part("text", grams=True, min_count=1, length=3),
        (TEXTS,),
        served=(SERVED.dictionary_encode(),),
    ),
    Specimen(
        part("text", grams={"words": [], "characters": [3], "buckets": 50, "most": 7}),
        (TEXTS,),
        served=(pa.array([1, None, 2.5]),),
    ),
    Specimen(
        part("text", tokenizer="characters", lower=False, min_count=1),
        (TEXTS,),
        served=(SERVED,),
    ),
    Specimen(part("text", tokenizer="bpe", vocabulary=300), (TEXTS,), served=(SERVED,)),
    Specimen(
        part("text", tokenizer="wordpiece", vocabulary=60), (TEXTS,), served=(SERVED,)
    ),
    Specimen(
        part("text", tokenizer="characters", lower=False, min_count=1),
        (pa.array(["hello", None, "größe 😀", "a  b"]),),
        target=True,
        answers=_generated,
    ),
    Specimen(
        part("text", tokenizer="bpe", lower=False, min_count=1, length=100),
        (pa.array(["hello", None, "größe 😀", "a  b"]),),
        target=True,
        answers=_generated,
    ),
    Specimen(part("set", rare=1), (LABELS,), served=(pa.array(["x,a", b"b", None]),)),
    Specimen(part("set", empty="none"), (LABELS,), served=(LISTS,)),
    Specimen(part("set", empty="none"), (LABELS,), target=True, answers=_labels),
    Specimen(
        part("set"),
        (LISTS,),
        target=True,
        answers=_labels,
        served=(pa.array([[1, 2], None], pa.list_(pa.int64())),),
    ),
    Specimen(
        part("set", names=["zero", "one", "two"]),
        (pa.array(["0,2", "one", None, "3", "1,zero"]),),
        target=True,
        answers=_labels,
        served=(pa.array([[0, 1], [9]]),),
    ),
    Specimen(
        part("set", columns=["hot", "cold"]),
        (pa.array([1, 0, None, 2, 1, 1]), pa.array(["0", "1", None, "0", "x", None])),
        target=True,
        answers=_labels,
    ),
    Specimen(
        part("sequence"), (STEPS,), served=(pa.array([["A", None, "Z"], [], None]),)
    ),
    Specimen(
        part("sequence", delimiter=",", min_count=2, length=2),
        (pa.array(["a,,b", "a,b,c", None]),),
        served=(STEPS,),
    ),
    Specimen(
        part("sequence", unit="characters"),
        (pa.array(["ACGT", "AAN", None, "é"]),),
        served=(SERVED,),
    ),
    Specimen(part("sequence", unit="words", lower=True), (TEXTS,), served=(SERVED,)),
    Specimen(
        part("sequence", unit="numbers"),
        (NUMBERS,),
        served=(pa.array(["1 2", "x", "3 nan", None]),),
    ),
    Specimen(
        part("sequence", over="words"),
        (pa.array(["N V N", "V", None, "N D"]),),
        target=True,
        answers=_steps,
        served=(pa.array(["N Q", "", None]),),
    ),
]


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda s: str(s)[:70])
def test_laws(specimen: Specimen, law: laws.Law) -> None:
    law(specimen)


def fitted(feature: Feature, column: pa.Array, *, target: bool = False) -> Fitted:
    return fit(Specimen(feature, (column,), target=target))[1]


def encoded(feature: Feature, train: pa.Array, column: pa.Array) -> dict[str, np.ndarray]:
    known = fitted(feature, train)
    return feature.collate(feature.encode(feature.accept([column])[0], known), known)


# -- texts ---------------------------------------------------------------------------------------------------


def test_words_are_cut_as_a_reader_would() -> None:
    cut = _words.words_of(
        ["Don’t stop, café-crème 2.5 €!", "日本語 ok", "😀👍🏽"], lower=True
    )
    assert cut == [
        "don't",
        "stop",
        ",",
        "café",
        "-",
        "crème",
        "2",
        ".",
        "5",
        "€",
        "!",
        "\x00",
        "日",
        "本",
        "語",
        "ok",
        "\x00",
        "😀",
        "👍",
        "🏽",
    ]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        min_size=1,
        max_size=6,
    )
)
def test_a_text_is_cut_and_hashed_alone_as_in_a_batch(texts: list[str]) -> None:
    for tokenizer in (
        _words.Words(["the", "a", "."], 2, lower=True),
        _words.Characters(["a", "é"], 2, lower=False),
    ):
        flat, lengths = tokenizer.ids(texts)
        assert (
            len(lengths) == len(texts)
            and lengths.sum() == len(flat)
            and (flat >= 1).all()
        )
        assert np.array_equal(
            flat, np.concatenate([tokenizer.ids([text])[0] for text in texts])
        )
    options: dict[str, Any] = {
        "words": (1, 2),
        "characters": (3, 4),
        "buckets": 1000,
        "most": 10**6,
        "lower": True,
    }
    flat, lengths = _words.grams(texts, **options)
    assert (
        np.array_equal(
            flat, np.concatenate([_words.grams([text], **options)[0] for text in texts])
        )
        and ((flat > 0) & (flat < 1000)).all()
    )
    assert lengths.sum() == len(flat)


def test_the_hash_of_a_gram_never_changes() -> None:
    """A bundle's table was learnt by these numbers: if this test fails, every bundle with grams would answer
    otherwise.
    """
    flat, lengths = _words.grams(
        ["the cat", "", "é"],
        words=(1, 2),
        characters=(3,),
        buckets=65_536,
        most=100,
        lower=True,
    )
    assert (flat.tolist(), lengths.tolist()) == (GRAMS, [9, 0, 2])


GRAMS = [8471, 42340, 2252, 7024, 987, 25217, 58043, 54146, 26415, 35369, 10368]


def test_unknown_words_padding_and_truncation() -> None:
    found = encoded(
        part("text", length=3),
        pa.array(["a b", "a b", "c"]),
        pa.array(["a", "b zzz a a", None]),
    )
    assert found["tokens"].tolist() == [[2, 0, 0], [3, 1, 2], [0, 0, 0]] and found[
        "mask"
    ].tolist() == [
        [True, False, False],
        [True] * 3,
        [False] * 3,
    ]
    said = fitted(part("text"), pa.array(["a"] * 300 + ["a " * 50]))
    assert (
        said["length"] == 1
        and said["truncated"] == pytest.approx(1 / 301)
        and "0.3% of them are longer" in said["said"][0]
    )


def test_however_a_letter_is_typed_it_is_one_token() -> None:
    composed, apart = "café", unicodedata.normalize("NFD", "café")
    for type in ("words", "characters", "bpe"):
        found = encoded(
            part("text", tokenizer=type, vocabulary=300),
            pa.array([composed] * 3),
            pa.array([composed, apart]),
        )
        assert (
            found["tokens"][0].tolist() == found["tokens"][1].tolist()
            and 1 not in found["tokens"][0].tolist()
        )


@pytest.mark.parametrize("type", ["bpe", "wordpiece"])
def test_a_trained_tokenizer_is_the_same_whatever_the_order_of_rows_and_travels_as_text(
    type: str,
) -> None:
    texts = [
        f"{word} {other}ing"
        for word in ("river", "rivers", "turbine", "turbines")
        for other in ("run", "turn", "flow")
    ] * 3
    feature = part("text", tokenizer=type, vocabulary=280)
    names = laws.ids(len(texts))
    found = []
    for order in (
        np.arange(len(texts)),
        np.random.default_rng(1).permutation(len(texts)),
    ):
        summary = feature.summary()
        summary.update(pa.array(texts).take(pa.array(order)), names.take(pa.array(order)))
        found.append(feature.fit(summary.result(), target=False))
    assert found[0] == found[1] and isinstance(found[0]["pieces"], str)
    given_one = part("text", given=found[0]["pieces"])
    column = pa.array(["the river turns", "😀"])
    own, same = (
        f.encode(column, g)["tokens"]
        for f, g in ((feature, found[0]), (given_one, fitted(given_one, pa.array(texts))))
    )
    assert all(np.array_equal(a[:4], b[:4]) for a, b in zip(own, same, strict=True))


def test_wrong_tokenizers_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        (PydanticCustomError, ValidationError), match="not one of the package"
    ):
        part("text", given="{}")
    with pytest.raises(
        (PydanticCustomError, ValidationError), match="has no meaning beside `given`"
    ):
        part("text", given="{}", tokenizer="bpe")
    with pytest.raises(ContractError, match="missing in every row"):
        fitted(part("text"), pa.nulls(3, pa.string()))
    import sys

    known = fitted(part("text", tokenizer="bpe"), pa.array(["a b c"]))
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    _words._held.clear()
    with pytest.raises(MissingPackage, match=r"penstock\[text\]"):
        part("text", tokenizer="bpe").encode(pa.array(["a"]), known)
    # words do without
    assert encoded(part("text"), pa.array(["a a"]), pa.array(["a"]))[
        "tokens"
    ].tolist() == [[2]]


def test_a_generated_text_stands_between_its_ends() -> None:
    feature = part("text", tokenizer="characters", min_count=1)
    known = fitted(feature, pa.array(["abc", "b"]), target=True)
    stored = feature.encode(pa.array(["ab"]), known)
    a, b = (4 + known["vocabulary"].index(char) for char in "ab")
    assert stored["tokens"][0].tolist() == [2, a, b, 3]
    assert feature.decode({"tokens": np.array([[2, b, a, 3, a, 0]])}, known, {})[
        ""
    ].to_pylist() == ["ba"]
    assert feature.truth(stored, known).tolist() == ["ab"]
    assert "no meaning there" in str(
        part("text", grams=True).unfit(target=True, sampled=False)
    )


# -- sets ----------------------------------------------------------------------------------------------------


def test_labels_are_the_same_however_they_are_written() -> None:
    for column in (
        pa.array(["2,0"]),
        pa.array([["two", "0"]]),
        pa.array([[2, 0, 0]]),
        pa.array([" zero , 2,two"]),
    ):
        assert part("set", names=["zero", "one", "two"]).accept([column])[
            0
        ].to_pylist() == [["zero", "two"]]
    assert part("set", delimiter=" | ").accept([pa.array(["b | a | 10 | 9"])])[
        0
    ].to_pylist() == [["9", "10", "a", "b"]]
    found, refused = part("set", columns=["x", "y"]).accept(
        [pa.array([1, 0, None, 1]), pa.array([True, False, None, None])]
    )
    assert found.to_pylist() == [["x", "y"], [], None, None]
    assert refused.reasons == ["y is missing, while others of its columns are not"]


def test_none_and_nothing_known_differ() -> None:
    assert part("set").accept([pa.array(["", None])])[0].to_pylist() == [None, None]
    assert (
        part("set", empty="none").accept([pa.array([" ", None, "a"])])[0].to_pylist()
        == part("set", empty="none").accept([pa.array([[], None, ["a"]])])[0].to_pylist()
        == [[], [], ["a"]]
    )
    assert part("set").accept([pa.array([[], None], pa.list_(pa.string()))])[
        0
    ].to_pylist() == [[], None]


def test_a_label_the_training_split_lacks_is_refused() -> None:
    feature = part("set")
    known = fitted(feature, pa.array(["anger,joy", "joy"]), target=True)
    refused = feature.unknown(
        feature.accept([pa.array(["joy", "joy,Anger!", None])])[0], known
    )
    assert refused.rows.tolist() == [1] and refused.reasons == [
        "'Anger!' is not among the 2 labels of the training split. Did you mean 'anger'?"
    ]


def test_thresholds_answer_and_named_labels_keep_their_order() -> None:
    feature = part("set", names=["joy", "anger"])
    known = fitted(feature, pa.array(["0", "0,1"]), target=True)
    assert known["values"] == ["joy", "anger"] and "in every row" in known["said"][0]
    decoded = feature.decode(
        {"probabilities": np.array([[0.4, 0.4], [0.6, 0.1]], np.float32)},
        known,
        {"thresholds": {"anger": 0.3}},
    )
    assert decoded[""].to_pylist() == [["anger"], ["joy"]]
    assert decoded["probabilities"].to_pylist()[0] == {
        "joy": pytest.approx(0.4),
        "anger": pytest.approx(0.4),
    }


def test_decided_thresholds_serve_f1() -> None:
    chance = np.random.default_rng(0)
    rates = np.array([0.3, 0.05, 0.01])
    truth = chance.random((4_000, 3)) < rates
    odds = np.log(rates / (1 - rates)) + 1.5 * truth + chance.normal(size=truth.shape)
    shares = 1 / (1 + np.exp(-odds))
    found = thresholds(shares[:2_000], truth[:2_000])
    decided, usual = (
        f1_score(truth[2_000:], shares[2_000:] >= t, average="macro", zero_division=0.0)
        for t in (found, 0.5)
    )
    assert decided > usual + 0.05 and (found > 0.01).all() and (found < 0.7).all()
    assert thresholds(shares[:50], truth[:50] & False).tolist() == [0.5] * 3
    lonely = truth[:2_000].copy()
    lonely[:, 2] = False
    lonely[7, 2] = (
        True  # one example says nearly nothing: its threshold is nearly the common one
    )
    own, common = (
        thresholds(shares[:2_000], lonely)[2],
        thresholds(shares[:2_000], lonely & [True, True, False])[2],
    )
    assert abs(np.log(own / (1 - own)) - np.log(common / (1 - common))) < 0.7
    weighted = thresholds(shares[:2_000], truth[:2_000], np.ones(2_000))
    assert np.allclose(found, weighted)


@pytest.mark.parametrize(
    "options",
    [
        {"columns": ["a", "a"]},
        {"columns": ["a"], "column": "b"},
        {"columns": ["a"], "names": ["x"]},
        {"names": ["x", "x"]},
        {"delimiter": ""},
    ],
)
def test_a_set_declares_one_form(options: dict[str, Any]) -> None:
    with pytest.raises((PydanticCustomError, ValidationError)):
        part("set", **options)


# -- sequences -----------------------------------------------------------------------------------------------


def test_steps_are_counted_alike_from_texts_and_lists() -> None:
    feature = part("sequence", delimiter=",")
    for column in (
        pa.array(["a,,b"]),
        pa.array([["a", None, "b"]]),
        pa.array([["a", "", "b"]]),
    ):
        accepted = feature.accept([column])[0]
        assert feature.steps(accepted).tolist() == [3]
    found = encoded(
        part("sequence", unit="characters"), pa.array(["AAC"]), pa.array(["CAN"])
    )
    assert found["tokens"].tolist() == [[3, 2, 1]]
    assert (
        part("text").steps(pa.array(["a b.", None])).tolist() == [3, 0]
        and part("text", tokenizer="bpe").steps(pa.array(["a"])) is None
    )


def test_numbers_are_standardised_and_missing_ones_are_the_mean() -> None:
    feature = part("sequence", unit="numbers")
    found = encoded(feature, pa.array([[0.0, 2.0]]), pa.array([[2.0, None], [1e9]]))
    assert found["values"][..., 0].tolist() == [[1.0, 0.0], [3.0, 0.0]] and found[
        "mask"
    ].tolist() == [
        [True, True],
        [True, False],
    ]
    refused = feature.accept([pa.array([[1.0, float("inf")], [1.0]])])[1]
    assert refused.rows.tolist() == [0] and refused.reasons == [
        "step 1: inf is not a finite number"
    ]


def test_a_label_a_step() -> None:
    feature = part("sequence", over="words")
    known = fitted(feature, pa.array(["N V", "N"]), target=True)
    stored = feature.encode(feature.accept([pa.array(["V N", "N"])])[0], known)
    batch = feature.collate(stored, known)
    assert (
        feature.truth(stored, known).tolist()
        == feature.truth(batch, known).tolist()
        == [[1, 0], [0, -1]]
    )
    shares = np.array([[[0.2, 0.8], [0.9, 0.1]], [[0.6, 0.4], [0, 0]]], np.float32)
    decoded = feature.decode({"probabilities": shares}, known, {})
    assert decoded[""].to_pylist() == [["V", "N"], ["N"]] and decoded[
        "probabilities"
    ].to_pylist()[1] == [pytest.approx(0.6)]
    assert feature.unknown(
        feature.accept([pa.array(["N Q", "N"])])[0], known
    ).reasons == ["'Q' is not among the 2 labels of the training split"]
    assert "name it in `over`" in str(part("sequence").unfit(target=True, sampled=False))


def test_what_is_learnt_is_plain_data() -> None:
    for specimen in SPECIMENS:
        json.dumps(fit(specimen)[1], allow_nan=False)
