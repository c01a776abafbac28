"""Texts that are probably one: they differ in case or spaces, or a rare one in a single letter from a common
one."""

from __future__ import annotations

import re
from collections.abc import Mapping

_MOST = 20_000
"""Different texts that are compared."""
_LONGEST = 64
_SHORTEST, _CODE = 4, 6
"""Characters of a text, and of one with digits, below which one letter is no slip."""
_RARE = 5
"""A text is rare beside one that has so many times its rows,"""
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
            if rare and text not in usual_of:
                usual_of[text] = usual
    return usual_of
