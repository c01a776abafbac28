"""Texts that are probably one: they differ in case or spaces, or a rare one in a single letter from a common
one."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

_MOST = 20_000
"""Different texts that are compared."""
_LONGEST = 64
_SHORTEST, _CODE = 4, 6
"""Characters of a text, and of one with digits, below which one letter is no slip."""
_RARE = 5
"""A text is rare beside one that has so many times its rows,"""
_WORD = re.compile(r"[^\W_]+")
_OWN = 2
"""Texts that have a word where it is a slip: itself, and one of the same slip."""
_MOST_ROWS = 3
"""and has so many at most: a slip hardly comes again, as skirts do beside shirts."""


def variants(counts: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """Pairs of a text and the commoner one that it probably is, and the rows of the rarer; the most rows
    first.

    Args:
        counts: by text its rows, the commonest first.
    """
    if len(counts) > _MOST:
        return []
    usual_of = {**_one_letter(counts), **_case_and_space(counts)}
    pairs = [(text, usual, counts[text]) for text, usual in usual_of.items()]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0]))


def _case_and_space(counts: Mapping[str, int]) -> dict[str, str]:
    first: dict[str, str] = {}
    usual_of = {}
    for text in counts:
        plain = re.sub(r"[\s_-]+", " ", text.casefold()).strip(" .,;")
        usual = first.setdefault(plain, text)
        # What differs in outer spaces alone is told as such.
        if plain and usual.strip() != text.strip():
            usual_of[text] = usual
    return usual_of


def _one_letter(counts: Mapping[str, int]) -> dict[str, str]:
    """Texts with one letter replaced; digits are left alone, since numbers differ by right."""
    is_slip = _Slips(counts)
    with_gap: dict[str, list[str]] = {}
    usual_of: dict[str, str] = {}
    for text in counts:
        # Short codes, such as postal ones, differ in one letter by right.
        least = _CODE if any(map(str.isdigit, text)) else _SHORTEST
        if not least <= len(text) <= _LONGEST:
            continue
        for i, letter in enumerate(text):
            if letter.isalpha():
                with_gap.setdefault(f"{text[:i]}\0{text[i + 1 :]}", []).append(text)
    for group in with_gap.values():
        # The commonest came first.
        usual = group[0]
        for text in group[1:]:
            rare = counts[text] <= _MOST_ROWS and counts[usual] >= _RARE * counts[text]
            if rare and text not in usual_of and is_slip(text, usual):
                usual_of[text] = usual
    return usual_of


class _Slips:
    """Tells a slip from a name of its own, by what other texts of the column hold.

    `ak_ami-1` is no slip of `al_ami-1` where other texts have `ak`; a `Cortland` is none of `Portland`, since
    the letters of a slip seldom stand side by side elsewhere.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._texts_with: Counter[str] = Counter()
        self._usual_pairs: set[str] = set()
        for text, rows in counts.items():
            words = set(_WORD.findall(_lower(text)))
            self._texts_with.update(words)
            # Slips are rare: what they hold is not what letters usually do.
            if rows > _MOST_ROWS:
                self._usual_pairs.update(*map(_pairs, words))
        self._usual_letters = set("".join(self._usual_pairs))

    def __call__(self, text: str, usual: str) -> bool:
        mine, other = _lower(text), _lower(usual)
        at = next(
            (i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), None
        )
        # What differs in case alone is told as such.
        if at is None:
            return False
        word = next(m for m in _WORD.finditer(mine) if m.start() <= at < m.end())
        if self._texts_with[word[0]] > _OWN:
            return False
        # An accent is a spelling of its own where other texts have it, as in names of several languages.
        if _plain(mine[at]) == _plain(other[at]) and mine[at] in self._usual_letters:
            return False
        here = at - word.start()
        return not set(_pairs(word[0])[here : here + 2]) <= self._usual_pairs


def _lower(text: str) -> str:
    """In lower case, letter by letter: none becomes two."""
    return "".join(c if len(c.lower()) > 1 else c.lower() for c in text)


def _plain(letter: str) -> str:
    """A letter without its accent."""
    return unicodedata.normalize("NFD", letter)[0]


def _pairs(word: str) -> list[str]:
    """Each two letters side by side; the word's ends count as letters."""
    framed = f" {word} "
    return [framed[i : i + 2] for i in range(len(framed) - 1)]
