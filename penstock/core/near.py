"""What may have been meant by a word that is not known: the nearest of the names that are.

Comparing two words costs the product of their lengths, and names come from recipes, tables and requests,
thousands at a time. So the cost of one error is bounded here, for all that give such a hint: words of a
sensible length only, a few hundred names a word, a few dozen words an error. A hint is a kindness; without it
the error still names what was found.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Collection, Iterable
from itertools import islice, takewhile

LONGEST = 80
"""Characters of a word, and of a name, that are compared."""

MOST_NAMES = 200
"""Names that one word is compared with; of more, those that begin and end most alike."""

MOST_SEEN = 10_000
"""Names of which those are chosen: the first ones."""

WRITTEN = " There is {name!r} instead."
"""A hint where a name is expected, and one like it was written."""
MOST_HINTS = 20
"""Words of one error that get a hint: the first ones."""

# Share of matching characters, as difflib counts it; its own default.
_ALIKE = 0.6


class Hints:
    """The hints of one error: ` Did you mean 'x'?` for each of the first `MOST_HINTS` words, nothing for
    those after them.

    Args:
        known: what a word may stand for.
        text: of a hint, where the names in `known` are what the user wrote.
    """

    def __init__(
        self, known: Collection[str], *, text: str = " Did you mean {name!r}?"
    ) -> None:
        self._known, self._text = known, text
        self._left = MOST_HINTS

    def __call__(self, word: str) -> str:
        if self._left <= 0:
            return ""
        self._left -= 1
        alike = nearest(word, self._known)
        return self._text.format(name=alike[0]) if alike else ""


def did_you_mean(word: str, known: Collection[str]) -> str:
    """` Did you mean 'x'?`, or nothing.

    Where an error may have many such words, use `Hints`, which bounds them together.
    """
    return Hints(known)(word)


def nearest(word: str, known: Iterable[str], *, most: int = 1) -> list[str]:
    """At most `most` of the names that `word` may stand for, the likeliest first."""
    if len(word) > LONGEST:
        return []
    # Lazily: a table may have millions of columns.
    names = [name for name in islice(known, MOST_SEEN) if len(name) <= LONGEST]
    # Similarity by ends is linear and cheap; difflib's is not.
    if len(names) > MOST_NAMES:
        names = heapq.nlargest(
            MOST_NAMES, names, key=lambda name: _ends_alike(word, name)
        )
    return difflib.get_close_matches(word, names, n=most, cutoff=_ALIKE)


def _ends_alike(word: str, name: str) -> int:
    """How many characters two words share at their begin and end, less what their lengths differ by; case is
    no matter.
    """
    one, other = word.lower(), name.lower()
    begin = _alike_from_the_start(one, other)
    # Behind the shared beginning only, or a short word would count twice.
    end = _alike_from_the_start(one[begin:][::-1], other[begin:][::-1])
    return begin + end - abs(len(one) - len(other))


def _alike_from_the_start(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def listed(names: Iterable[str], *, most: int = 30) -> str:
    """Names as an error lists them, cut where they would drown it."""
    every = list(names)
    return ", ".join(every[:most]) + (
        f" and {len(every) - most} more" if len(every) > most else ""
    )
