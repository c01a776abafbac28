"""A column of texts: token ids, and on request a bag of hashed n-grams beside them.

What is learnt (the vocabulary, or a trained tokenizer, and the length) comes from the `SAMPLED` training rows
with the least row ids, their first `SEEN` characters each: bounded on any data, and free of order.
`penstock.parts.features._words` tells how texts are cut into tokens.

    tokens  int64 [B, T]  0 is padding, 1 unknown, the vocabulary from 2; a text without tokens is all padding
    mask    bool [B, T]   where a token is
    grams   int64 [B, G]  with `grams`: buckets from 1, 0 is padding

As a target (a text to be generated) the vocabulary begins at 4: 2 is the beginning, 3 the end, and every row
has both.

A file is never read here: `given: {content_of: tokenizer.json}` is read with the recipe, and its content is
declared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, model_validator

from penstock.contracts.features import (
    CollatedFeature,
    Fitted,
    Refused,
    SequenceFeature,
    Stored,
    TargetFeature,
)
from penstock.contracts.part import Strict, mistakes
from penstock.contracts.summary import Summary, sample_keys
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import ContractError, Problem, RecipeError
from penstock.parts.features import _places, _raw, _words

# Learning holds 100,000 rows of 1,024 characters, twice as many for a moment.
SAMPLED = 100_000
SEEN = 1_024
LONGEST = 512
"""The most tokens that are kept unless `length` says more."""
# A target's own ids; an input's vocabulary begins at 2.
BEGIN, END = 2, 3
LOST = "⟨unk⟩"
"""What stands in a truth for a token that the model does not know: no answer has it."""


class Grams(Strict):
    """A bag of hashed n-grams (Joulin et al. 2017, fastText): cheap, and good at rare words, spellings and
    endings.
    """

    words_: tuple[Annotated[int, Field(ge=1, le=5)], ...] = Field((1, 2), alias="words")
    """How many words a gram has."""
    characters: tuple[Annotated[int, Field(ge=1, le=8)], ...] = (3, 4, 5)
    """How many characters a gram within a word has; its ends count as one each."""
    buckets: int = Field(65_536, ge=16)
    """Rows of the table that grams are hashed into."""
    most: int = Field(1_024, ge=1)
    """The most grams of a text; words come first."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.words_ and not self.characters:
            raise mistakes(Problem((), "needs sizes in `words` or in `characters`"))
        return self


class Text(SequenceFeature, CollatedFeature, TargetFeature):
    """A column of texts."""

    takes_ragged: ClassVar[bool] = True
    encoder: ClassVar[str] = "textcnn"
    decoder: ClassVar[str] = "text"
    answers: ClassVar[tuple[str, ...]] = ("",)

    tokenizer: Literal["words", "characters", "bpe", "wordpiece"] = "words"
    """How a text is cut: `words` and `characters` by a vocabulary of the training split; `bpe` and
    `wordpiece` are trained on it (and serving then needs the package `tokenizers`).
    """
    given: str | None = None
    """A tokenizer of the package `tokenizers` as its JSON, instead: `{content_of: tokenizer.json}`."""
    vocabulary: int = Field(30_000, ge=1)
    """The most tokens that are told apart."""
    min_count: int = Field(2, ge=1)
    """A token seen fewer times is unknown: so that the unknown is learnt."""
    lower: bool = True
    """Take capitals for small letters."""
    length: int | None = Field(None, ge=1)
    """The most tokens of a text; the rest is cut off.

    Unless given, so many that 99 of 100 training texts stay whole, 512 at most.
    """
    grams: Annotated[
        Grams | None,
        BeforeValidator(
            lambda value: {} if value is True else None if value is False else value
        ),
    ] = None
    """A bag of hashed n-grams beside the tokens, for encoders that read one; `true`, or how."""

    @model_validator(mode="after")
    def _one_tokenizer(self) -> Self:
        if self.given is not None:
            changed = [
                name
                for name in ("tokenizer", "vocabulary", "min_count", "lower")
                if getattr(self, name) != type(self).model_fields[name].default
            ]
            if changed:
                raise mistakes(
                    *(
                        Problem(
                            (name,),
                            "has no meaning beside `given`, which brings its own. Leave it out",
                        )
                        for name in changed
                    )
                )
            try:
                # Read with the recipe, so that a wrong file is refused before any data
                # is touched.
                _words.read_given(self.given)
            except RecipeError as error:
                raise mistakes(Problem(("given",), error.message)) from None
        return self

    def unfit(self, *, target: bool, sampled: bool) -> str | None:
        return (
            "is a target, which is answered token by token: `grams` has no meaning there. Leave it out"
            if target and self.grams
            else None
        )

    def steps(self, column: pa.Array) -> np.ndarray | None:
        # Pieces are known once a tokenizer is learnt, so nobody can label them
        # beforehand.
        if self.given is not None or self.tokenizer not in ("words", "characters"):
            return None
        texts = [text or "" for text in column.to_pylist()]
        # With no vocabulary at all, since lengths alone are wanted.
        return (_words.Words if self.tokenizer == "words" else _words.Characters)(
            [], END + 1, lower=self.lower
        ).ids(texts)[1]

    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        return _raw.texts(_raw.one(columns), self.na)

    def summary(self) -> Summary:
        return _Sample()

    def fit(self, result: dict[str, Any], *, target: bool) -> Fitted:
        if not result["count"]:
            raise ContractError(
                "is missing in every row of the training split: nothing can be learnt from it"
            )
        lengths, texts = (
            [n for n, _ in result["sample"]],
            [text for _, text in result["sample"]],
        )
        fitted: Fitted = {
            "count": result["count"],
            "missing": result["missing"],
            "target": target,
            "said": [],
        }
        learnt, words = self._learn(texts)
        fitted |= learnt
        tokenizer = self._tokenizer(fitted)
        tokens = _counted(tokenizer, texts, lengths)
        # "higher" takes a length that occurs, not one between two.
        whole = max(int(np.quantile(tokens, 0.99, method="higher")), 1)
        fitted["length"] = self.length or min(whole, LONGEST)
        truncated = float((tokens > fitted["length"]).mean())
        fitted |= {"truncated": truncated, "tokens": float(tokens.mean())}
        why = (
            ""
            if self.length
            else f", as long as 99 % of them{f' but at most {LONGEST}' if whole > LONGEST else ''}"
        )
        tail = (
            f"; {truncated:.1%} of them are longer and are cut there"
            if truncated
            else "; none is longer"
        )
        fitted["said"].append(
            f"has {tokens.mean():.0f} tokens in the average text and keeps {fitted['length']:,} at"
            f" most{why}{tail}"
        )
        if words and not learnt["vocabulary"]:
            fitted["said"].append(
                f"has {words:,} different words, none of them seen {self.min_count} times: the model cannot"
                " learn from them"
            )
        # Of word pieces `words` is 0: nothing is left out.
        elif words > len(learnt.get("vocabulary", ())):
            fitted["said"].append(
                f"tells {len(learnt['vocabulary']):,} of {words:,} different {self.tokenizer} apart; the"
                " rarer ones are unknown"
            )
        if (
            self.tokenizer == "characters"
            and self.given is None
            and not target
            and _places.are_aligned(
                int(tokens.min()), int(tokens.max()), len(learnt["vocabulary"])
            )
        ):
            fitted["aligned"] = True
            if not self.grams:
                fitted["said"].append(_places.sentence(fitted["length"]))
        return fitted

    def _learn(self, texts: Sequence[str]) -> tuple[Fitted, int]:
        if self.given is not None:
            return {"pieces": self.given}, 0
        if self.tokenizer in ("words", "characters"):
            vocabulary, different = _words.commonest(
                self.tokenizer,
                texts,
                most=self.vocabulary,
                min_count=self.min_count,
                lower=self.lower,
            )
            return {"vocabulary": vocabulary}, different
        return {
            "pieces": _words.trained(
                self.tokenizer,
                texts,
                vocabulary=self.vocabulary,
                min_count=self.min_count,
                lower=self.lower,
            )
        }, 0

    def _tokenizer(self, fitted: Fitted) -> _words.Tokenizer:
        # A target's vocabulary begins behind its beginning and end.
        first = END + 1 if fitted["target"] else _words.UNKNOWN + 1
        if "pieces" in fitted:
            # Built once for what was fitted, not for each batch.
            pieces: _words.Tokenizer = _words.made_once_for(
                fitted["pieces"], first, lambda: _words.Pieces(fitted["pieces"], first)
            )
            return pieces
        make = _words.Words if self.tokenizer == "words" else _words.Characters
        whole: _words.Tokenizer = _words.made_once_for(
            fitted["vocabulary"],
            (first, self.lower),
            lambda: make(fitted["vocabulary"], first, lower=self.lower),
        )
        return whole

    def spec(self, fitted: Fitted) -> dict[str, TensorSpec]:
        cardinality = self._tokenizer(fitted).cardinality
        if fitted["target"]:
            # Two more than tokens: each row has its beginning and its end.
            facts = {"begin": BEGIN, "end": END, "length": fitted["length"] + 2}
            return {
                "tokens": TensorSpec(
                    "int64", (None,), "target", ("time",), cardinality, facts
                ),
                "mask": TensorSpec("bool", (None,), "mask", ("time",)),
            }
        specs = {
            "tokens": TensorSpec(
                "int64",
                (None,),
                "index",
                ("time",),
                cardinality,
                {
                    "length": fitted["length"],
                    "first": _words.UNKNOWN + 1,
                    **_places.facts(
                        fitted, fitted.get("vocabulary", ()), _words.UNKNOWN + 1
                    ),
                },
            ),
            "mask": TensorSpec("bool", (None,), "mask", ("time",)),
        }
        if self.grams:
            specs["grams"] = TensorSpec(
                "int64", (None,), "index", ("gram",), self.grams.buckets
            )
        return specs

    def encoder_for(self, spec: Mapping[str, TensorSpec]) -> str:
        return _places.encoder_of(spec, self.encoder)

    def encode(self, column: pa.Array, fitted: Fitted) -> Stored:
        # A missing text is one without tokens.
        texts = [text or "" for text in column.to_pylist()]
        tokenizer = self._tokenizer(fitted)
        # Cut before it is framed, so that a long text keeps its end.
        flat, lengths = _words.cut(tokenizer.ids(texts), fitted["length"])
        dtype = _words.smallest(tokenizer.cardinality)
        arrays = {
            "tokens": _words.rows_of(
                _framed(flat, lengths) if fitted["target"] else (flat, lengths), dtype
            )
        }
        if self.grams:
            g = self.grams
            bag = _words.grams(
                texts,
                words=g.words_,
                characters=g.characters,
                buckets=g.buckets,
                most=g.most,
                lower=self.lower,
            )
            arrays["grams"] = _words.rows_of(bag, _words.smallest(g.buckets))
        return arrays

    def augments(self) -> bool:
        return False

    def collate(
        self, stored: Stored, fitted: Fitted, keys: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        tokens, mask = _words.padded(stored["tokens"], "int64")
        arrays = {"tokens": tokens, "mask": mask}
        if self.grams:
            arrays["grams"] = _words.padded(stored["grams"], "int64")[0]
        return arrays

    def decode(
        self,
        arrays: Mapping[str, np.ndarray],
        fitted: Fitted,
        decision: Mapping[str, Any],
    ) -> dict[str, pa.Array]:
        return {"": pa.array(self._texts(arrays["tokens"], fitted), pa.string())}

    def judged(
        self, answers: Mapping[str, np.ndarray], fitted: Fitted
    ) -> Mapping[str, np.ndarray]:
        # An object array filled by slice; `np.array` would give all texts the widest
        # one's room.
        texts = np.empty(len(answers["tokens"]), object)
        texts[:] = self._texts(answers["tokens"], fitted)
        return {"text": texts}

    def truth(self, stored: Stored, fitted: Fitted) -> np.ndarray:
        """Texts, with `LOST` for each token that the model does not know: what it cannot say counts against
        it.
        """
        texts = np.empty(len(stored["tokens"]), object)
        texts[:] = self._texts(stored["tokens"], fitted, lost=LOST)
        return texts

    def _texts(self, rows: np.ndarray, fitted: Fitted, *, lost: str = "") -> list[str]:
        """Rows of ids as texts: what stands between the beginning and the first end."""
        tokenizer, texts = self._tokenizer(fitted), []
        # Between characters no space stands.
        between = f" {lost} " if self.tokenizer != "characters" else lost
        for row in rows:
            ids = np.asarray(row)
            # What an answer has behind its first end means nothing.
            ends = np.flatnonzero(ids == END)
            shown = ids[: ends[0]] if len(ends) else ids
            # A piece begins with the unknown id, which names no token and leaves no
            # text.
            pieces = (
                np.split(shown, np.flatnonzero(shown == _words.UNKNOWN))
                if lost
                else [shown]
            )
            texts.append(
                between.join(tokenizer.text(piece.tolist()) for piece in pieces).strip()
            )
        return texts


class _Sample(Summary):
    """The texts of the rows with the least keys, each with its whole length."""

    def __init__(self) -> None:
        self.count = self.missing = 0
        self._keys: list[np.ndarray] = []
        self._texts: list[pa.Array] = []
        self._held = 0

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        there = column.is_valid()
        # Missing rows are counted and take no place in the sample.
        column, keys = column.filter(there), sample_keys(row_ids.filter(there))
        self.missing += len(there) - len(column)
        self.count += len(column)
        # Cut before it is held; the whole length stays beside it for `_counted`.
        self._add(keys, pc.utf8_slice_codeunits(column, 0, SEEN), pc.utf8_length(column))

    def _add(self, keys: np.ndarray, texts: pa.Array, lengths: pa.Array) -> None:
        if len(keys):
            self._keys.append(keys)
            self._texts.append(
                pa.StructArray.from_arrays(
                    [lengths.cast(pa.int64()), texts], names=["length", "text"]
                )
            )
            self._held += len(keys)
        # At twice the sample, so that rows are not sorted at every batch.
        if self._held > 2 * SAMPLED:
            self._settle()

    def _settle(self) -> None:
        # A single piece within the bound needs no sorting yet.
        if len(self._keys) < 2 and self._held <= SAMPLED:
            return
        keys, texts = np.concatenate(self._keys), pa.concat_arrays(self._texts)
        # Text and length decide between equal keys, so that the order of batches never
        # shows.
        order = pc.sort_indices(
            pa.table(
                {
                    "key": keys,
                    "text": texts.field("text"),
                    "length": texts.field("length"),
                }
            ),
            sort_keys=[
                ("key", "ascending"),
                ("text", "ascending"),
                ("length", "ascending"),
            ],
        )[:SAMPLED]
        self._keys, self._texts, self._held = (
            [keys[np.asarray(order)]],
            [texts.take(order)],
            len(order),
        )

    def merge(self, other: Self) -> None:
        self.count += other.count
        self.missing += other.missing
        for keys, texts in zip(other._keys, other._texts, strict=True):
            self._add(keys, texts.field("text"), texts.field("length"))

    def result(self) -> dict[str, Any]:
        """`sample`: [length in characters, the text's beginning], in the order of their keys."""
        if self._held:
            # An empty second piece has `_settle` sort a single one, too.
            self._keys.append(np.empty(0, np.uint64))
            self._texts.append(self._texts[0][:0])
            self._settle()
        rows = self._texts[0].to_pylist() if self._held else []
        return {
            "count": self.count,
            "missing": self.missing,
            "sample": [[row["length"], row["text"]] for row in rows],
        }


def _counted(
    tokenizer: _words.Tokenizer, texts: Sequence[str], lengths: Sequence[int]
) -> np.ndarray:
    """How many tokens each text has; of one that was not seen whole, as many more as it has characters
    more.
    """
    # In pieces, since a piece is joined into one string.
    counts = [
        tokenizer.ids(texts[start : start + 8_192])[1]
        for start in range(0, len(texts), 8_192)
    ]
    # An empty text divides by 1.
    sizes = np.array([max(len(text), 1) for text in texts])
    return np.asarray(
        np.ceil(np.concatenate(counts) * np.maximum(np.array(lengths), 1) / sizes)
    )


def _framed(flat: np.ndarray, lengths: np.ndarray) -> _words.Ragged:
    """Each row between its beginning and its end."""
    ends = np.cumsum(lengths)
    return (
        # Where a row ends and the next begins the places are equal and keep their
        # order: the end, then the beginning.
        np.insert(
            flat,
            np.stack([ends - lengths, ends], 1).ravel(),
            np.tile([BEGIN, END], len(lengths)),
        ),
        lengths + 2,
    )
