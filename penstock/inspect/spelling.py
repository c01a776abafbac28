"""How a column's texts spell numbers: what stands before decimals, between thousands, and beside the digits.

    "1.234,50 €", "80 €"      → decimal ",", thousands ".", unit €
    "1.5k", "2M"              → unit {k: 1000, M: 1000000}
    "1,234", "17,500"         → thousands ",", with a doubt: it could be decimals

All texts of a column decide together, each with as many votes as rows; whoever is outvoted is refused by the
feature, aloud.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from penstock.formats.written import SPACES, Written
from penstock.inspect.units import known_units

# What is looked at is trimmed, so no white space is allowed for.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SEVERAL = 0.02
"""The share of the rows from which on plain numbers are a spelling of their own, and no slips."""
LEAST = 0.5
"""Below this share of the rows, numbers are the exception, and no spelling is looked for."""
_SIGNS = "+-\u2212\u2013\ufe63\uff0d"
_PARTS = re.compile(
    rf"(?P<before>[^0-9.,]*)(?P<core>[.,]?[0-9](?:[0-9.,'’_{SPACES}]*[0-9])?[.,]?(?:[eE][+-]?[0-9]+)?)"
    r"(?P<behind>[^0-9]*| ?/ ?[0-9]{1,3})"
)
_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:[^0-9][0-9]{2,3})*[^0-9][0-9]{3}")


@dataclass(frozen=True)
class Spelling:
    """How numbers are spelt, and what each text is."""

    values: Mapping[str, float]
    """By text: the number it is; other texts are none."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the feature that reads them; none, where they are spelt as everywhere."""
    doubt: str = ""
    """What else they could mean."""
    mark: str = ""
    """What stands before decimals, where the texts prove it."""
    mixed: str = ""
    """A plain number beside numbers in another spelling: one of the two would be read wrong."""

    def words(self) -> str:
        """How they are written, to be put in a reason."""
        marks = []
        if self.options.get("decimal") == ",":
            marks.append("a decimal comma")
        if thousands := self.options.get("thousands"):
            marks.append(
                {",": "commas", ".": "dots", " ": "spaces", "'": "apostrophes"}.get(
                    thousands, thousands
                )
                + " between thousands"
            )
        unit = self.options.get("unit")
        if unit == "%":
            marks.append("a percent sign (45% is read as 45)")
        elif isinstance(unit, Mapping):
            marks.append(
                "units ("
                + ", ".join(f"{text} is {factor:g}" for text, factor in unit.items())
                + ")"
            )
        elif unit:
            marks.append(
                "the unit " + (unit if isinstance(unit, str) else ", ".join(unit))
            )
        if not marks:
            return " with signs or brackets of bookkeeping" if self.options else ""
        return " with " + " and ".join(marks)


def spelling_of(counts: Mapping[Any, int], *, mark: str = "") -> Spelling | None:
    """How most of the texts spell numbers; None where fewer than half of the rows are numbers.

    Args:
        counts: rows by text, markers of a missing value left out.
        mark: what stands before decimals in the rest of the table; it settles what could be either.
    """
    texts = {v: c for v, c in counts.items() if isinstance(v, str)}
    rows = sum(texts.values())
    plain = {text: float(text) for text in texts if NUMBER.fullmatch(text)}
    read = sum(texts[text] for text in plain)
    best = Spelling(plain) if rows and read >= LEAST * rows else None
    # Where all are plain, and that is nearly every column of numbers, nothing else is asked.
    if len(plain) == len(texts):
        return best
    votes = _Votes(mark)
    for text, count in texts.items():
        votes.add(text, count)
    spelling = votes.spelling(texts, rows)
    if spelling is None:
        return best
    # Numbers of JSON and of workbooks come as plain texts, whatever spelling the texts beside them have.
    others = [text for text in plain if text not in spelling.values]
    if sum(texts[text] for text in others) >= max(_SEVERAL * rows, 1):
        example = min(others, key=lambda text: (-texts[text], text))
        return Spelling(plain, mixed=example)
    richer = sum(texts[text] for text in spelling.values)
    return spelling if richer > read and richer >= LEAST * rows else best


class _Votes:
    """What the texts say of separators and units."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self.decimal: Counter[str] = Counter()
        self.thousands: Counter[str] = Counter()
        self.either: Counter[str] = Counter()
        """A single separator before three digits: it may be either."""
        self.affixes: Counter[str] = Counter()
        self.before: set[str] = set()
        self.attached: set[str] = set()
        self.lists = 0
        """Rows that could be two labels, with a comma between."""
        self.no_lists = False
        self.chains = 0
        """Rows such as `1,5,7`: labels, and no number."""

    def add(self, text: str, count: int) -> None:
        """Hear one text, which stands in so many rows."""
        parts = _PARTS.fullmatch(text) if len(text) <= 40 else None
        if parts is None:
            return
        before = parts["before"].strip(_SIGNS + "(" + SPACES)
        raw = parts["behind"]
        behind = raw.strip(_SIGNS + ")" + SPACES)
        if before:
            self.affixes[before] += count
            self.before.add(before)
        if behind:
            self.affixes[behind] += count
            if raw[0] not in SPACES:
                self.attached.add(behind)
        self._separators(re.sub(r"[eE].*", "", parts["core"]).rstrip(".,"), count)

    def _separators(self, core: str, count: int) -> None:
        marks = [c for c in core if not c.isdigit()]
        if not marks:
            return
        last, others = marks[-1], set(marks[:-1])
        space = " " if last in SPACES else "'" if last == "’" else last
        tail = core[core.rindex(last) + 1 :]
        if space not in ".,":
            if _GROUPED.fullmatch(core):
                self.thousands[space] += count
        elif others - {last}:
            # Both kinds: the last one stands before the decimals.
            self._mixed(core, last, count)
        elif len(marks) > 1:
            if _GROUPED.fullmatch(core):
                self.thousands[last] += count
            else:
                self.chains += count
        elif len(tail) == 3 and _GROUPED.fullmatch(core):
            self.either[last] += count
        else:
            self.decimal[last] += count
            self._list(core, last, count)

    def _mixed(self, core: str, last: str, count: int) -> None:
        whole, _, _ = core.rpartition(last)
        other = {c for c in whole if not c.isdigit()}
        if len(other) == 1 and last not in whole and _GROUPED.fullmatch(whole):
            mark = other.pop()
            self.decimal[last] += count
            self.thousands[" " if mark in SPACES else "'" if mark == "’" else mark] += (
                count
            )
            self.no_lists = True

    def _list(self, core: str, last: str, count: int) -> None:
        tail = core.rpartition(last)[2]
        # 1,05 is a decimal: no label has a zero before it.
        if last == "," and (core.startswith(",") or (tail[0] == "0" and len(tail) > 1)):
            self.no_lists = True
        self.lists += count * (last == ",")

    def spelling(self, texts: Mapping[str, int], rows: int) -> Spelling | None:
        """The spelling that the votes give, with what each text is by it."""
        unit = known_units(
            self.affixes, before=self.before, attached=self.attached, rows=rows
        )
        if unit is None:
            return None
        if self.chains >= 0.01 * rows:
            return None
        # Labels such as `3` and `3,17` are no decimals: most rows have one alone.
        if self.lists and not self.no_lists and not unit and self.lists < 0.5 * rows:
            return None
        decimal, thousands, doubt = self._marks()
        written = Written(decimal, thousands, unit)
        spelt = list(texts)
        plain = written.plain(pa.array(spelt, pa.string())).to_pylist()
        values = {
            text: float(number)
            for text, number in zip(spelt, plain, strict=True)
            if number is not None
        }
        proof = bool(
            self.decimal[decimal] or self.thousands["." if decimal == "," else ","]
        )
        return Spelling(values, _options(written), doubt, decimal if proof else "")

    def _marks(self) -> tuple[str, str | None, str]:
        """The decimal mark, the mark between thousands, and a doubt about them."""
        doubt = ""
        comma = (
            self.decimal[","] + self.thousands["."]
            > self.decimal["."] + self.thousands[","]
        )
        proof = sum(self.decimal.values()) + self.thousands["."] + self.thousands[","]
        if not proof and self._mark:
            comma = self._mark == ","
        decimal, mark = (",", ".") if comma else (".", ",")
        if not proof and not self._mark:
            if self.either[","]:
                doubt = (
                    "the comma could be a decimal one, since each has three digits behind it: then say"
                    ' {decimal: ","}'
                )
            elif self.either["."]:
                doubt = (
                    "the dot could stand between thousands, since each has three digits behind it: then say"
                    ' {thousands: "."}'
                )
                # A dot is what stands before decimals everywhere else.
                return ".", self._group(","), doubt
        if self.thousands[mark] or self.either[mark]:
            return decimal, mark, doubt
        return decimal, self._group(mark), doubt

    def _group(self, but: str) -> str | None:
        """The commonest of the other marks between thousands."""
        others = [(n, m) for m, n in self.thousands.items() if m not in ".,"]
        return max(others)[1] if others else None


def _options(written: Written) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if written.decimal == ",":
        options["decimal"] = ","
    if written.thousands:
        options["thousands"] = written.thousands
    if written.unit:
        units = {
            text: int(factor) if factor == int(factor) else factor
            for text, factor in written.unit.items()
        }
        same = all(factor == 1 for factor in units.values())
        options["unit"] = (
            units if not same else next(iter(units)) if len(units) == 1 else list(units)
        )
    # Signs alone: any of the words has them read.
    return options or {"decimal": "."}
