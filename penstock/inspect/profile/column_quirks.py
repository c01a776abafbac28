"""What a reader should know of a column of texts though no value of it is wrong: amounts with units,
attributes of persons, placeholders, labels that come several at once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from penstock.inspect.draft import flow
from penstock.inspect.profile.records import Remark
from penstock.inspect.raw_column import Finding
from penstock.inspect.wording import key, shown

_AMOUNT = re.compile(r"([+-]?\d[\d.,]*)\s*([A-Za-zµ°%€$£][A-Za-z.%° /-]{0,23})")
_SHORT_UNITS = frozenset("% ° m g l s h b € $ £ v w a k".split())
_MOST_UNITS = 30
_LIKE_AMOUNTS = 0.9
_FEW_VALUES = 12
_ATTRIBUTES = frozenset(
    "sex gender race ethnicity ethnic religion disability nationality orientation".split()
)
_SEXES = frozenset(
    "male female m f man woman other unknown diverse nonbinary non-binary ?".split()
)
_RACES = frozenset(
    "asian hispanic latino caucasian african-american asian-pac-islander"
    " amer-indian-eskimo native-american".split()
)
_RARE = 0.05


def quirks(
    facts: Mapping[str, Any], finding: Finding | None, counts: Mapping[str, int]
) -> Iterator[Remark]:
    """Notes on a column of texts.

    Args:
        facts: of the column, of `Measures.columns`.
        finding: what `look` says of it.
        counts: by text its rows, the commonest first.
    """
    yield from _units(facts, finding, counts)
    yield from _placeholders(facts)
    yield from _attribute(facts, counts)
    if finding is not None and finding.type == "set":
        yield from _labels(facts, finding, counts)


def _units(
    facts: Mapping[str, Any], finding: Finding | None, counts: Mapping[str, int]
) -> Iterator[Remark]:
    # A number whose unit is known is read without it.
    if finding is not None and (finding.type == "number" or "unit" in finding.options):
        return
    units: Counter[str] = Counter()
    for text, rows in counts.items():
        match = _AMOUNT.fullmatch(text.strip())
        if match and (len(match[2]) > 1 or match[2].casefold() in _SHORT_UNITS):
            units[match[2].strip()] += rows
        if len(units) > _MOST_UNITS:
            return
    there = sum(counts.values())
    if not units or units.total() < _LIKE_AMOUNTS * there:
        return
    some = ", ".join(f"{shown(u)} ({n:,} rows)" for u, n in units.most_common(4))
    more = f" and {len(units) - 4} more" if len(units) > 4 else ""
    factors = {unit: 1 for unit, _ in units.most_common(4)}
    yield Remark(
        "warning",
        "units",
        facts["name"],
        f"numbers that carry a unit, {some}{more}: texts as they stand, not amounts",
        {"rows": units.total(), "units": dict(units.most_common(20))},
        f"clean: [{{type: units, columns: {flow(facts['name'])}, units: {flow(factors)}}}]",
    )


def _placeholders(facts: Mapping[str, Any]) -> Iterator[Remark]:
    rows = facts["suspicions"].get("placeholders")
    if rows:
        yield Remark(
            "note",
            "placeholders",
            facts["name"],
            f"words in brackets, such as [NAME], stand for what was taken out in {rows:,} rows",
            {"rows": rows},
        )


def _attribute(facts: Mapping[str, Any], counts: Mapping[str, int]) -> Iterator[Remark]:
    name = facts["name"]
    if not 2 <= facts["distinct"] <= _FEW_VALUES:
        return
    words = {text.strip().casefold() for text in counts}
    of_sex = words <= _SEXES and (
        {"male", "female"} <= words or {"m", "f"} <= words or {"man", "woman"} <= words
    )
    by_name = _ATTRIBUTES & set(re.split(r"[^a-z]+", name.casefold()))
    if of_sex or by_name or ("white" in words and words & _RACES):
        yield Remark(
            "note",
            "protected",
            name,
            "an attribute of persons that laws protect: see how well the model does for each of its"
            f" {facts['distinct']:,} groups",
            {"groups": facts["distinct"]},
            f"evaluate: {{slices: [{key(name)}]}}",
        )


def _labels(
    facts: Mapping[str, Any], finding: Finding, counts: Mapping[str, int]
) -> Iterator[Remark]:
    separator = finding.options.get("separator", ",")
    rows_of: Counter[str] = Counter()
    several = 0
    for text, rows in counts.items():
        labels = {label.strip() for label in text.split(separator)} - {""}
        several += rows if len(labels) > 1 else 0
        for label in labels:
            rows_of[label] += rows
    there = sum(counts.values())
    if len(rows_of) < 2 or not there:
        return
    ranked = rows_of.most_common()
    (most, most_rows), (least, least_rows) = ranked[0], ranked[-1]
    is_unequal = least_rows < _RARE * most_rows
    yield Remark(
        "warning" if is_unequal else "note",
        "balance",
        facts["name"],
        f"{len(rows_of):,} labels, from {shown(most)} ({most_rows:,} rows) to {shown(least)}"
        f" ({least_rows:,}); {several / there:.0%} of the rows have several",
        {
            "labels": len(rows_of),
            "largest": most_rows,
            "smallest": least_rows,
            "several": several,
        },
        "evaluate: {metrics: [f1_macro]}" if is_unequal else "",
    )
