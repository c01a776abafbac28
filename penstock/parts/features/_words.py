"""Texts → token ids, and hashed bags of n-grams: what the features `text` and `sequence` share.

A batch of texts is joined into one string, so that the regular expression and the Unicode tables are entered
once a batch and not once a text; NUL keeps the texts apart (it joins no word, composes with nothing and ends
a word for Greek sigma), so a text is cut alone as in a batch. Token ids: 0 is padding, 1 unknown, and the
vocabulary begins at `first`.

- `words`: runs of letters, digits and inner apostrophes; every other character that is no white space stands
  alone, and so do Chinese and Japanese characters, which are written without spaces.
- `characters`: Unicode code points after NFC, so an "é" is one token however it was typed.
- `bpe` (Sennrich, Haddow and Birch 2016) over bytes and `wordpiece` (Schuster and Nakajima 2012): by the
  package `tokenizers`, whose JSON is what is learnt.

Grams (Weinberger et al. 2009; Joulin et al. 2017): word n-grams and the character n-grams within words, each
hashed into one of `buckets`. The hash is ours, in 64-bit whole numbers, and never changes: what a bundle
learnt of a bucket stays true.

What this file refuses to know: features, fitting, Arrow.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from penstock.contracts.ragged import Ragged as Rows
from penstock.core.errors import RecipeError
from penstock.core.optional import require

# Ids that no vocabulary gives out.
PADDING, UNKNOWN = 0, 1
NUL = "\x00"
# Hiragana and katakana, the ideographs of Chinese and Japanese, and their compatibility
# forms.
_ALONE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# A run of word characters with inner apostrophes, or else one character that is no
# white space: NUL is one, so it ends up as a word of its own.
_WORD = re.compile(rf"[^\W{_ALONE}]+(?:'[^\W{_ALONE}]+)*|[^\s]")
_SPECIAL = "[UNK]"

Ragged = tuple[np.ndarray, np.ndarray]
"""All rows' values one after another, and how many each row has (int64 `[n]`)."""


def normalised(texts: Sequence[str], *, lower: bool) -> str:
    """The texts as one string with NUL between: composed (NFC), curly apostrophes straight, in lower case if
    asked.
    """
    joined = NUL.join(texts)
    # A text with a NUL of its own would come out as two.
    if joined.count(NUL) != max(len(texts) - 1, 0):
        joined = NUL.join(text.replace(NUL, " ") for text in texts)
    # ASCII text is composed already, and has no curly apostrophe.
    if not joined.isascii():
        joined = unicodedata.normalize("NFC", joined).replace("’", "'")
    return joined.lower() if lower else joined


def words_of(texts: Sequence[str], *, lower: bool) -> list[str]:
    """Every word of every text, in order, with NUL between texts."""
    return _WORD.findall(normalised(texts, lower=lower))


# -- tokenizers ----------------------------------------------------------------------------------------------


class Tokenizer(ABC):
    """Texts ↔ ids from `first` on."""

    def __init__(self, size: int, first: int) -> None:
        self.first = first
        self.cardinality = first + size
        """Ids lie below it."""

    @abstractmethod
    def ids(self, texts: Sequence[str]) -> Ragged:
        """Each text's ids."""

    @abstractmethod
    def text(self, ids: Iterable[int]) -> str:
        """Ids back as text; those that name no token are left out."""


class Words(Tokenizer):
    """One id a word of the vocabulary."""

    def __init__(self, vocabulary: Sequence[str], first: int, *, lower: bool) -> None:
        super().__init__(len(vocabulary), first)
        self._vocabulary, self._lower = vocabulary, lower
        # NUL has the id -1, at which `_parted` cuts.
        self._ids = {NUL: -1, **{word: first + i for i, word in enumerate(vocabulary)}}

    def ids(self, texts: Sequence[str]) -> Ragged:
        # Looked up once, since the loop runs for every word.
        find, unknown = self._ids.get, UNKNOWN
        return _parted(
            np.array(
                [find(word, unknown) for word in words_of(texts, lower=self._lower)],
                np.int64,
            ),
            len(texts),
        )

    def text(self, ids: Iterable[int]) -> str:
        joined = " ".join(
            self._vocabulary[i - self.first]
            for i in ids
            if self.first <= i < self.cardinality
        )
        # No space before punctuation, unless it is a sign that stands before a word,
        # such as a bracket.
        return re.sub(r" ([^\w\s#@&(\[{<«“])", r"\1", joined)


class Characters(Tokenizer):
    """One id a character of the vocabulary."""

    def __init__(self, vocabulary: Sequence[str], first: int, *, lower: bool) -> None:
        super().__init__(len(vocabulary), first)
        self._vocabulary, self._lower = vocabulary, lower
        # Sorted, so that a batch is looked up by one bisection.
        points = np.array([ord(char) for char in vocabulary], np.uint32)
        self._order = np.argsort(points)
        self._points = points[self._order]

    def ids(self, texts: Sequence[str]) -> Ragged:
        points = _code_points(normalised(texts, lower=self._lower))
        # With an empty vocabulary there is no place to compare with.
        if not len(self._points):
            return _parted(
                np.where(points == 0, -1, UNKNOWN).astype(np.int64), len(texts)
            )
        # Points beyond the last are looked up at the last and found unequal, thus
        # unknown.
        place = np.minimum(np.searchsorted(self._points, points), len(self._points) - 1)
        ids = np.where(
            self._points[place] == points, self.first + self._order[place], UNKNOWN
        )
        return _parted(np.where(points == 0, -1, ids), len(texts))

    def text(self, ids: Iterable[int]) -> str:
        return "".join(
            self._vocabulary[i - self.first]
            for i in ids
            if self.first <= i < self.cardinality
        )


class Pieces(Tokenizer):
    """What the package `tokenizers` made, from its JSON.

    Its own ids are moved up by `first`, its unknown token is ours.
    """

    def __init__(self, declared: str, first: int) -> None:
        self._made = _library().Tokenizer.from_str(declared)
        # Rows are cut and padded by this file; a given tokenizer may come with limits
        # of its own.
        self._made.no_truncation()
        self._made.no_padding()
        super().__init__(self._made.get_vocab_size(), first)
        # A model over bytes has no unknown token, as any text is spelt in bytes.
        unknown = getattr(self._made.model, "unk_token", None)
        self._unknown = self._made.token_to_id(unknown) if unknown else None

    def ids(self, texts: Sequence[str]) -> Ragged:
        ids = [encoding.ids for encoding in self._made.encode_batch_fast(list(texts))]
        flat = np.array([i for ids in ids for i in ids], np.int64) + self.first
        # Encoders know one id for the unknown, ours.
        if self._unknown is not None:
            flat[flat == self._unknown + self.first] = UNKNOWN
        return flat, np.array([len(ids) for ids in ids], np.int64)

    def text(self, ids: Iterable[int]) -> str:
        return str(
            self._made.decode(
                [i - self.first for i in ids if self.first <= i < self.cardinality]
            )
        ).strip()


def _library() -> Any:
    """The package `tokenizers`, kept to one thread: the house chooses its threads, and forks."""
    # A choice that the user made in the environment stands.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return require(
        "tokenizers",
        extra="text",
        why="word pieces (`tokenizer: bpe` or `wordpiece`, or a given one); `tokenizer: words` does without",
    )


def trained(
    type: str, texts: Sequence[str], *, vocabulary: int, min_count: int, lower: bool
) -> str:
    """A `bpe` or `wordpiece` tokenizer learnt from texts, as JSON. The same texts give the same JSON.

    Raises:
        MissingPackage: `tokenizers` is not installed.
    """
    library = _library()
    # Composed first: a letter with an accent is one spelling, however it was typed.
    steps = [
        library.normalizers.NFC(),
        *([library.normalizers.Lowercase()] if lower else []),
    ]
    if type == "bpe":
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            # Fewer than 256 tokens could not spell every byte.
            vocab_size=max(vocabulary, 256),
            min_frequency=min_count,
            show_progress=False,
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        )
    else:
        tokenizer = library.Tokenizer(library.models.WordPiece(unk_token=_SPECIAL))
        tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = library.decoders.WordPiece()
        # The trainer numbers the inner characters as it meets them, in an order of chance, and breaks ties by
        # number: number them first.
        inner = [
            f"##{char}"
            for char in sorted(set(normalised(texts, lower=lower)) - {NUL})
            if not char.isspace()
        ]
        trainer = library.trainers.WordPieceTrainer(
            # Room for [UNK] and for each character both at a word's beginning and
            # within it.
            vocab_size=max(vocabulary, 2 * len(inner) + 1),
            min_frequency=min_count,
            show_progress=False,
            special_tokens=[_SPECIAL, *inner],
        )
    tokenizer.normalizer = library.normalizers.Sequence(steps)
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    declared = json.loads(tokenizer.to_str())
    declared[
        "added_tokens"
    ] = []  # numbered first, they would be looked for in texts as they stand
    return json.dumps(declared, ensure_ascii=False)


def read_given(declared: str) -> None:
    """Whether a given tokenizer's JSON can be read.

    Raises:
        RecipeError: it cannot.
        MissingPackage: `tokenizers` is not installed.
    """
    library = _library()
    try:
        library.Tokenizer.from_str(declared)
    except Exception as error:  # noqa: BLE001 - the package raises bare Exceptions, each with its sentence
        raise RecipeError(
            f"the given tokenizer is not one of the package `tokenizers`: {error}. Give its `tokenizer.json`"
            " by `given: {content_of: tokenizer.json}`."
        ) from None


def commonest(
    type: str, texts: Sequence[str], *, most: int, min_count: int, lower: bool
) -> tuple[list[str], int]:
    """The words (or characters) seen at least `min_count` times, commonest first, ties by spelling, at most
    `most`; and how many different ones there are.
    """
    counts: Counter[str] = Counter()
    # In pieces, since a piece is joined into one string.
    for start in range(0, len(texts), 8_192):
        some = texts[start : start + 8_192]
        counts.update(
            words_of(some, lower=lower)
            if type == "words"
            else normalised(some, lower=lower)
        )
    # The mark between texts was counted like a word; a Counter lets go of what it
    # lacks.
    del counts[NUL]
    often = sorted(
        (item for item in counts.items() if item[1] >= min_count),
        key=lambda item: (-item[1], item[0]),
    )
    return [word for word, _ in often[:most]], len(counts)


# (identity of the owner, variant) → the owner, held so that its identity stays taken,
# and what was made.
_held: dict[tuple[int, object], tuple[object, Any]] = {}


def made_once_for(owner: object, variant: object, make: Callable[[], Any]) -> Any:
    """What `make` makes, made once for each `owner` (a fitted list or text, told by its identity; held, so
    that the identity stays its own) and `variant`.
    """
    entry = _held.get((id(owner), variant))
    if entry is None or entry[0] is not owner:
        # A bound on what a long-lived process holds; whatever is dropped is made again.
        if len(_held) >= 200:
            _held.clear()
        entry = _held[id(owner), variant] = (owner, make())
    return entry[1]


# -- ragged arrays -------------------------------------------------------------------------------------------


def _parted(values: np.ndarray, rows: int) -> Ragged:
    """Values with -1 between rows, as rows."""
    # An empty array has no mark, yet the end below would make a row of it.
    if not rows:
        return values, np.empty(0, np.int64)
    # n rows have n - 1 marks; the end of the array closes the last row.
    ends = np.append(np.flatnonzero(values == -1), len(values))
    # As if a mark stood before the first row.
    return values[values != -1], np.diff(ends, prepend=-1) - 1


def cut(ragged: Ragged, most: int) -> Ragged:
    """At most the first `most` values of each row."""
    flat, lengths = ragged
    # Nothing to cut: the arrays are handed on as they are.
    if not len(lengths) or int(lengths.max()) <= most:
        return ragged
    return flat[_places(lengths) < most], np.minimum(lengths, most)


def _places(lengths: np.ndarray) -> np.ndarray:
    """Each value's place within its row, 0, 1, …"""
    ends = np.cumsum(lengths)
    return np.asarray(
        np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    )


def rows_of(ragged: Ragged, dtype: str) -> np.ndarray:
    """As stored: an object array `[n]` of arrays, each its own."""
    flat, lengths = ragged
    # Rows are slices of this one array; nothing is copied a second time.
    flat = flat.astype(dtype)
    rows = np.empty(len(lengths), object)
    end = 0
    for row, length in enumerate(lengths.tolist()):
        rows[row] = flat[end : end + length]
        end += length
    return rows


def padded(rows: np.ndarray | Rows, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Stored rows side by side: values `[n, T]`, 0 where nothing is, and where something is (bool `[n, T]`);
    T is at least 1.
    """
    return (rows if isinstance(rows, Rows) else Rows.of(rows)).padded(dtype)


def smallest(cardinality: int) -> str:
    """The dtype that ids below `cardinality` are stored in."""
    # Ids lie below the cardinality, so 65,536 of them still fit 16 bits.
    return "uint16" if cardinality <= 1 << 16 else "int32"


# -- grams ---------------------------------------------------------------------------------------------------


def grams(
    texts: Sequence[str],
    *,
    words: Sequence[int],
    characters: Sequence[int],
    buckets: int,
    most: int,
    lower: bool,
) -> Ragged:
    """Each text's n-grams as buckets from 1 to `buckets` - 1: those of words first, then those of characters
    within words, at most `most`.

    Args:
        words: how many words a word gram has: (1, 2) is single words and pairs.
        characters: how many characters a character gram has; `<` and `>` stand for a word's ends.
    """
    # Each different word by its place of appearance, NUL at 0: where `index` is 0 a
    # mark stands.
    place: dict[str, int] = {NUL: 0}
    index = np.array(
        [place.setdefault(word, len(place)) for word in words_of(texts, lower=lower)],
        np.int64,
    )
    # The text of each word, from 0; a mark counts to the text behind it.
    row = np.cumsum(index == 0)
    # Not Python's `hash`, which differs between processes: buckets are part of what a
    # bundle learnt.
    hashes = np.array(
        [
            int.from_bytes(
                hashlib.blake2b(word.encode(), digest_size=8).digest(), "little"
            )
            for word in place
        ],
        np.uint64,
    )
    # Empty arrays in front, since `concatenate` wants one even if no size is asked for.
    owners, values = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for size in words:
        starts = np.arange(max(len(index) - size + 1, 0))
        # A mark within a gram changes the row; one at its start is left out next.
        starts = starts[row[starts] == row[starts + size - 1]]
        starts = starts[index[starts] != 0]
        # The size goes in first, so a word and a pair differ from the outset.
        mixed = np.full(len(starts), size, np.uint64)
        for step in range(size):
            # 0x100000001B3 is the 64-bit prime of FNV; products wrap round, as they
            # should.
            mixed = _mixed(
                mixed * np.uint64(0x100000001B3) + hashes[index[starts + step]]
            )
        owners.append(row[starts])
        values.append(mixed)
    if characters:
        flat, lengths = _within_words(list(place)[1:], characters)
        # Words of all texts without marks, as places among the different words.
        spoken = index[index != 0] - 1
        repeated, each = _gathered(flat, lengths, spoken)
        owners.append(np.repeat(row[index != 0], each))
        values.append(repeated)
    owner = np.concatenate(owners)
    # Stable: a text's word grams stay before its character grams, which `most` counts
    # on.
    order = np.argsort(owner, kind="stable")
    # From 1, since bucket 0 is padding.
    bucket = (np.concatenate(values)[order] % np.uint64(buckets - 1)).astype(np.int64) + 1
    return cut(
        (
            bucket,
            (
                np.bincount(owner, minlength=len(texts)).astype(np.int64)
                if len(texts)
                else np.empty(0, np.int64)
            ),
        ),
        most,
    )


def _within_words(
    words: list[str], sizes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the character grams of each word, one word after another, and how many each has."""
    points = _code_points("".join(f"<{word}>" for word in words)).astype(np.uint64)
    lengths = np.array([len(word) + 2 for word in words], np.int64)
    owner = np.repeat(np.arange(len(words)), lengths)
    # How many characters are left in the word, this one included: no gram runs into the
    # next word.
    left = np.repeat(lengths, lengths) - _places(lengths)
    owners, values = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for size in sizes:
        starts = np.flatnonzero(left >= size)
        # Another start than word grams have (2^64 over the golden ratio), different for
        # each size.
        mixed = np.full(len(starts), 0x9E3779B97F4A7C15 ^ size, np.uint64)
        for step in range(size):
            mixed = _mixed(mixed * np.uint64(0x100000001B3) + points[starts + step])
        owners.append(owner[starts])
        values.append(mixed)
    every = np.concatenate(owners)
    # By word, and within it by size; the counts tell where each word's grams end.
    return np.concatenate(values)[np.argsort(every, kind="stable")], np.bincount(
        every, minlength=len(words)
    ).astype(np.int64)


def _gathered(
    flat: np.ndarray, lengths: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The values of `rows`, repeats allowed, one row after another, and how many each has."""
    starts, each = (np.cumsum(lengths) - lengths)[rows], lengths[rows]
    return flat[np.repeat(starts, each) + _places(each)], each


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of MurmurHash3: every bit depends on every bit."""
    x = x ^ (x >> np.uint64(33))
    x = x * np.uint64(0xFF51AFD7ED558CCD)
    x = x ^ (x >> np.uint64(33))
    x = x * np.uint64(0xC4CEB9FE1A85EC53)
    return np.asarray(x ^ (x >> np.uint64(33)))


def _code_points(text: str) -> np.ndarray:
    # A lone surrogate is a character like any other here.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
