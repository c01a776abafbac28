"""A bundle that somebody else wrote: its id may be right, since anyone can compute one, and its facts may
still be anything.

What is not as pack writes it ends in one sentence, wherever in a bundle it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from penstock.core.errors import BundleError
from penstock.core.sound import sound
from penstock.core.visible import visible

_WORDS: dict[str, type] = {
    "name": str,
    "run": str,
    "dataset": str,
    "penstock": str,
    "runtime": dict,
    "programs": dict,
    "encoding": dict,
    "columns": dict,
    "schema": str,
    "keep": list,
    "steps": dict,
    "source": dict,
    "serve": dict,
    "measured": dict,
    "validation": dict,
}
"""What bundle.json says, in every version."""
_TEXTS = ("keep", "source", "columns")
"""Those whose values are texts."""
_KINDS: dict[Any, str] = {str: "text", dict: "an object", list: "a list"}
_LONGEST = 200


def check_facts(facts: Mapping[str, Any], where: str) -> None:
    """Check that bundle.json has the words that pack writes, each of its type.

    Raises:
        BundleError: it has not.
    """
    for word, kind in _WORDS.items():
        if word not in facts:
            raise BundleError(
                f"{where} lacks {word!r}: it was not written by Penstock's pack."
            )
        # Later code indexes these without asking.
        if not isinstance(facts[word], kind):
            raise _wrong(where, word, _KINDS[kind], facts[word])
    for word in _TEXTS:
        # A list of texts, or an object whose values are texts.
        values = facts[word].values() if isinstance(facts[word], dict) else facts[word]
        for value in values:
            if not isinstance(value, str):
                raise _wrong(where, word, "texts alone", value)
    # Bundles of an older format have no such word.
    learnt = facts.get("learnt") or {}
    if not isinstance(learnt, dict) or not isinstance(
        learnt.get("distance") or 0.0, (int, float)
    ):
        raise _wrong(where, "learnt", "an object, and its distance a number", learnt)


def _wrong(where: str, word: str, expected: str, value: Any) -> BundleError:
    return BundleError(
        f"{where}: {word!r} must be {expected}, and {_short(repr(value))} stands there: it was not written by"
        " Penstock's pack."
    )


def clearly(where: str, own: Path | None = None) -> AbstractContextManager[None]:
    """Context in which a bundle's files are read; errors become a BundleError in one
    sentence.

    Args:
        own: a folder of its code, which is trusted; its errors stay what they are.

    Raises:
        BundleError: instead of whatever reading them raised.
    """
    return sound(
        where, of=BundleError, advice="Fetch it again, or pack its run again", own=own
    )


def _short(text: str, longest: int = _LONGEST) -> str:
    return visible(text if len(text) <= longest else f"{text[:longest]}…")
