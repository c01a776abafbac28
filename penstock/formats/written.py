"""Numbers as people write them, as the plain spelling that everything else reads.

    decimal ","  thousands "."  unit €     "1.234,50 €"  → "1234.50"
    unit $                                 "($1,200)"    → "-1200"      (with thousands ",")
    unit {k: 1000, M: 1000000}             "1.5k"        → "1500"

A text is judged by itself alone, so a row reads the same in training, in a file and in a request. What is not
written so is no number: `1,5` is none where the comma stands between thousands.

What this file refuses to know: how a column is written. A recipe says it (`init` proposes it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, DecimalException
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

SPACES = " \u00a0\u2009\u202f"
"""White space that stands within numbers: plain, not to be broken at, thin."""
_SIGN = "[-+\u2212\u2013\ufe63\uff0d]"
_THOUSANDS = {" ": f"[{SPACES}]", "'": "['\u2019]"}
"""By the word of a recipe, what is taken for it in a text; any other stands for itself."""
_FARTHEST = 400
"""The power of ten beyond which no unit makes a double of a number."""
_META = re.compile(r"([\\.^$*+?()\[\]{}|/-])")


@dataclass(frozen=True)
class Written:
    """How numbers are written."""

    decimal: str = "."
    thousands: str | None = None
    """What stands between groups of digits; a number may leave it out."""
    unit: Mapping[str, float] = field(default_factory=dict)
    """By the text that may stand before or behind a number: what it multiplies the number by."""

    @cached_property
    def pattern(self) -> str:
        """What a number looks like; the groups are those that `plain` reads."""
        space = f"[{SPACES}]*"
        whole = "[0-9]+"
        if self.thousands:
            # A zero is no first group: `0.123` has decimals. Groups of two are those of
            # India (1,23,456).
            point = _THOUSANDS.get(self.thousands, _META.sub(r"\\\1", self.thousands))
            whole = f"[1-9][0-9]{{0,2}}(?:{point}[0-9]{{2,3}})*{point}[0-9]{{3}}|[0-9]+"
        units = "|".join(_literal(text) for text in self.affixes) or r"[^\s\S]"
        mark = _META.sub(r"\\\1", self.decimal)
        return (
            rf"^(?P<open>\()?{space}(?P<first>{_SIGN})?{space}(?P<before>{units})?{space}"
            rf"(?P<second>{_SIGN})?{space}(?P<whole>{whole})?(?P<rest>{mark}[0-9]*)?"
            rf"(?P<power>[eE][+-]?[0-9]+)?{space}(?P<behind>{units})?{space}(?P<last>{units})?"
            rf"{space}(?P<third>{_SIGN})?(?P<close>\))?$"
        )

    @cached_property
    def affixes(self) -> list[str]:
        """The units, the longest first, so that none is taken for the beginning of another."""
        return sorted(self.unit, key=lambda text: (-len(text), text))

    def plain(self, text: pa.Array) -> pa.Array:
        """Texts `[n]` as the plain spelling of their numbers; null where missing, or not written so."""
        groups = pc.extract_regex(text, self.pattern)
        parts = {
            name: pc.fill_null(groups.field(name), "")
            for name in (
                *("open", "first", "before", "second", "whole", "rest", "power"),
                *("behind", "last", "third", "close"),
            )
        }
        signs = [_is_there(parts[name]) for name in ("first", "second", "third", "open")]
        # One sign at most, or the brackets that accountants write.
        count = signs[0]
        for sign in signs[1:]:
            count = pc.add(count, sign)
        good = pc.and_kleene(
            pc.less_equal(count, 1),
            pc.equal(_is_there(parts["open"]), _is_there(parts["close"])),
        )
        # A point alone, or a unit alone, is no number.
        digits = pc.binary_length(
            pc.binary_join_element_wise(parts["whole"], parts["rest"], "")
        )
        bare = pc.and_kleene(
            pc.equal(parts["whole"], ""), pc.equal(parts["rest"], self.decimal)
        )
        good = pc.and_kleene(good, pc.and_kleene(pc.greater(digits, 0), pc.invert(bare)))
        whole = pc.replace_substring_regex(parts["whole"], "[^0-9]", "")
        rest = pc.replace_substring(parts["rest"], self.decimal, ".")
        sign = pc.if_else(
            self._minus(parts, _is_there(parts["open"])),
            pa.scalar("-"),
            pa.scalar(""),
        )
        plain = pc.binary_join_element_wise(sign, whole, rest, parts["power"], "")
        plain = pc.if_else(
            pc.and_kleene(groups.is_valid(), good), plain, pa.scalar(None, pa.string())
        )
        return self._scaled(plain, parts)

    @staticmethod
    def _minus(parts: Mapping[str, pa.Array], bracketed: pa.Array) -> pa.Array:
        sign = pc.binary_join_element_wise(
            parts["first"], parts["second"], parts["third"], ""
        )
        # Any sign but a plus, however it is encoded, is a minus.
        signed = pc.and_(pc.not_equal(sign, ""), pc.not_equal(sign, "+"))
        return pc.or_(signed, pc.equal(bracketed, 1))

    def _scaled(self, plain: pa.Array, parts: Mapping[str, pa.Array]) -> pa.Array:
        """Multiplied by the units that were met, exactly: as decimals, once a distinct text."""
        factors = {text: factor for text, factor in self.unit.items() if factor != 1}
        if not factors:
            return plain
        units = [parts[name] for name in ("before", "behind", "last")]
        wanted = pa.array(list(factors), pa.string())
        met = pc.is_in(units[0], wanted)
        for unit in units[1:]:
            met = pc.or_(met, pc.is_in(unit, wanted))
        if not pc.any(met).as_py():
            return plain
        keys = pc.binary_join_element_wise(plain, *units, "\0").dictionary_encode()
        scaled = pa.array(
            [_times(key, factors) for key in keys.dictionary.to_pylist()], pa.string()
        )
        return pc.if_else(met, scaled.take(keys.indices), plain)

    def value(self, text: str) -> float | None:
        """One text as a number; None where it is none."""
        plain = self.plain(pa.array([text.strip()], pa.string()))[0].as_py()
        return None if plain is None else float(plain)

    def words(self) -> str:
        """The words of a recipe that say so, as a reason repeats them."""
        words = [f"`decimal: '{self.decimal}'`"]
        if self.thousands:
            words.append(f"`thousands: '{self.thousands}'`")
        if self.unit:
            words.append(f"`unit: {', '.join(self.unit)}`")
        return ", ".join(words)


def units(value: Any) -> Any:
    """What a recipe says of units, by text: one text, or several, multiply by one."""
    if isinstance(value, str):
        return {value: 1.0}
    if isinstance(value, (list, tuple)):
        return dict.fromkeys(value, 1.0)
    return value


def _is_there(texts: pa.Array) -> pa.Array:
    return pc.cast(pc.not_equal(texts, ""), pa.int8())


def _literal(text: str) -> str:
    """A unit in a pattern; any white space stands for its own."""
    return "".join(
        f"[{SPACES}]" if c in SPACES else _META.sub(r"\\\1", c) for c in text.strip()
    )


def _times(key: str | None, factors: Mapping[str, float]) -> str | None:
    if key is None:
        return None
    plain, *units = key.split("\0")
    try:
        product = Decimal(plain)
        # Of no double whatever the units: the text says so itself, as 0 or as too large.
        if abs(product.adjusted()) > _FARTHEST:
            return plain
        for unit in units:
            # By the factor's shortest spelling, so that 1.1 million is 1100000 and
            # nothing beside it.
            product *= Decimal(repr(float(factors.get(unit, 1))))
    # An exponent beyond what decimals hold.
    except DecimalException:
        return plain
    return str(product)
