"""Texts in a script that is not expected: a first sieve for languages, without a model.

A letter's script is the first word of its Unicode name (`LATIN SMALL LETTER A`). Only letters count; digits,
signs and emoji belong to every language.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import BeforeValidator, Field

from penstock.contracts.judge import BatchJudge, Columns
from penstock.core.errors import ContractError
from penstock.parts.cleaners._words import Names, one_or_many

Name = Literal[
    "arabic",
    "armenian",
    "bengali",
    "cyrillic",
    "devanagari",
    "ethiopic",
    "georgian",
    "greek",
    "gujarati",
    "gurmukhi",
    "han",
    "hangul",
    "hebrew",
    "hiragana",
    "kannada",
    "katakana",
    "khmer",
    "lao",
    "latin",
    "malayalam",
    "mongolian",
    "myanmar",
    "sinhala",
    "tamil",
    "telugu",
    "thai",
    "tibetan",
]
_OTHERWISE = {
    "cjk": "han",
    "ideographic": "han",
    "fullwidth": "latin",
    "feminine": "latin",
    "masculine": "latin",
    "micro": "greek",
}
"""Where the first word of a letter's name is no script."""
_MOST_CHARACTERS = 100_000
"""Of a text that are looked at."""


class Script(BatchJudge):
    """Finds rows whose texts are not in the scripts that are expected."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": "text", "scripts": "latin"},
        {"columns": "text", "scripts": ["greek", "han"], "share": 1.0},
    )

    columns: Names = Field(min_length=1)
    """Columns of texts; each is judged by itself."""
    scripts: Annotated[tuple[Name, ...], BeforeValidator(one_or_many)] = Field(
        min_length=1
    )
    """The scripts that are expected. Japanese is `[han, hiragana, katakana]`."""
    share: float = Field(0.5, gt=0, le=1)
    """At least this share of a text's letters must be in them. A text without letters is not judged."""

    def needs(self) -> tuple[str, ...]:
        return self.columns

    def judge(
        self, columns: Columns, facts: Mapping[str, Any], gathered: Any
    ) -> Mapping[str, pa.Array]:
        reasons = {}
        for name in self.columns:
            texts = columns[name]
            if not pa.types.is_string(texts.type) and not pa.types.is_large_string(
                texts.type
            ):
                raise ContractError(
                    f"script: the column {name!r} holds {texts.type}; expected texts. Leave it out, or derive"
                    " one that fits."
                )
            encoded = texts.dictionary_encode()
            whys = [
                None if text is None else self._why(text)
                for text in encoded.dictionary.to_pylist()
            ]
            reasons[name] = pa.array(whys, pa.string()).take(encoded.indices)
        return reasons

    def _why(self, text: str) -> str | None:
        letters = Counter[str]()
        for character, times in Counter(text[:_MOST_CHARACTERS]).items():
            if name := script_of(character):
                letters[name] += times
        total = letters.total()
        expected = sum(letters[name] for name in self.scripts)
        if not total or expected >= self.share * total:
            return None
        most = max(letters, key=lambda name: (letters[name], name))
        return (
            f"has {expected / total:.0%} of its letters in {', '.join(self.scripts)}, expected at least"
            f" {self.share:.0%}; most are {most}"
        )


@lru_cache(1 << 16)
def script_of(character: str) -> str:
    """The script of a letter, in small letters; nothing of any other character."""
    if not character.isalpha():
        return ""
    word = unicodedata.name(character, "unknown").split()[0].split("-")[0].lower()
    return _OTHERWISE.get(word, word)
