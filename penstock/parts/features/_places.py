"""Whether the places of a sequence mean something, as far as fitting can know: every row is as long as any
other, and the alphabet is small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.contracts.tensors import TensorSpec

ENCODER = "places"
SMALLEST, LARGEST = 2, 62
"""Different tokens of an alphabet whose places are told apart (two more ids are padding and unknown)."""
_PAIRS = {"a": "t", "c": "g", "g": "c", "t": "a", "u": "a", "n": "n"}


def are_aligned(shortest: int, longest: int, alphabet: int) -> bool:
    """Whether rows of these lengths, over so many tokens, have places to tell apart."""
    return 2 <= shortest == longest and SMALLEST <= alphabet <= LARGEST


def sentence(length: int) -> str:
    """What the user hears of it."""
    return (
        f"has {length:,} steps in every row: the model sees at which place each stands, by the encoder"
        f" `{ENCODER}` unless the recipe names another"
    )


def encoder_of(spec: Mapping[str, TensorSpec], usual: str) -> str:
    """The encoder of a feature with these arrays."""
    tokens = spec.get("tokens")
    is_placed = tokens is not None and tokens.facts.get("aligned") and "grams" not in spec
    return ENCODER if is_placed else usual


def facts(fitted: Mapping[str, Any], values: Sequence[str], first: int) -> dict[str, Any]:
    """What an encoder is told of places and letters; nothing for what was fitted before either was known.

    Args:
        values: the vocabulary, whose ids begin at `first`.
    """
    if "aligned" not in fitted:
        return {}
    complement = _complement(values, first)
    return {"aligned": fitted["aligned"]} | (
        {"complement": complement} if complement else {}
    )


def _complement(values: Sequence[str], first: int) -> list[int] | None:
    """For each id that of its complement in DNA or RNA; None for another alphabet."""
    if not values or any(value.lower() not in _PAIRS for value in values):
        return None
    ids = {value: first + i for i, value in enumerate(values)}
    paired = []
    for value in values:
        pair = _PAIRS[value.lower()]
        # RNA has U in the place of T.
        names = ("t", "u") if pair == "t" else (pair,)
        cased = [name if value.islower() else name.upper() for name in names]
        # A complement that never occurs is an unknown letter.
        paired.append(next((ids[name] for name in cased if name in ids), first - 1))
    return [*range(first), *paired]
