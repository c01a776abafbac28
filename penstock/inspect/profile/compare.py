"""Two profiles held against each other: columns that came and went, statistics that moved, drift."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_FLOOR = 1e-4
"""The least share of a bin in the population stability index: an empty bin would make it infinite."""
_SHARES = 0.05
"""A share of missing rows that moves by more is told."""
SOME, MUCH = 0.1, 0.25
"""Population stability index from which rows have drifted somewhat, and much (the usual rule of thumb)."""


def psi(before: Sequence[float], after: Sequence[float]) -> float:
    """The population stability index of two counts of the same bins: 0 where shares are equal."""
    total_before, total_after = sum(before) or 1.0, sum(after) or 1.0
    index = 0.0
    for a, b in zip(before, after, strict=True):
        p, q = max(a / total_before, _FLOOR), max(b / total_after, _FLOOR)
        index += (q - p) * math.log(q / p)
    return index


def drift(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """The index of two measures of a column, by its histogram or its commonest texts; None where they
    cannot be compared.
    """
    a, b = before.get("histogram"), after.get("histogram")
    if a and b:
        if a["edges"] == b["edges"]:
            bins = [[h["below"], *h["rows"], h["above"]] for h in (a, b)]
            return psi(bins[0], bins[1])
        return psi(*_rebinned(a, b))
    if "top" in before and "top" in after and (before["top"] or after["top"]):
        first, second = dict(map(tuple, before["top"])), dict(map(tuple, after["top"]))
        # Of texts that hardly recur the commonest say nothing of the others.
        if sum(first.values()) < 0.5 * (before["rows"] - before["missing"]):
            return None
        names = [name for name in first if name in second or _has_all(after)]
        names += [name for name in second if name not in first and _has_all(before)]
        counts = [[x.get(name, 0) for name in names] for x in (first, second)]
        rest = [
            max(0, m["rows"] - m["missing"] - sum(c))
            for m, c in zip((before, after), counts, strict=True)
        ]
        return psi([*counts[0], rest[0]], [*counts[1], rest[1]])
    return None


def _has_all(column: Mapping[str, Any]) -> bool:
    """Whether the commonest texts of a column are all that it has: else one that is missing among them may
    be there all the same.
    """
    return bool(column.get("distinct", 0) <= len(column["top"]))


def _rebinned(
    a: Mapping[str, Any], b: Mapping[str, Any]
) -> tuple[list[float], list[float]]:
    """Both histograms in ten bins that hold equal shares of the first, rows spread evenly in a bin."""
    total = sum(a["rows"]) or 1
    cuts: list[float] = []
    passed = 0.0
    for low, high, rows in zip(a["edges"], a["edges"][1:], a["rows"], strict=False):
        while rows and len(cuts) < 9 and passed + rows >= total * (len(cuts) + 1) / 10:
            share = (total * (len(cuts) + 1) / 10 - passed) / rows
            cuts.append(low + share * (high - low))
        passed += rows
    edges = [-math.inf, *cuts, math.inf]
    return _spread(a, edges), _spread(b, edges)


def _spread(histogram: Mapping[str, Any], edges: Sequence[float]) -> list[float]:
    counts = [0.0] * (len(edges) - 1)
    counts[0] += histogram["below"]
    counts[-1] += histogram["above"]
    marks = histogram["edges"]
    for low, high, rows in zip(marks, marks[1:], histogram["rows"], strict=False):
        for i in range(len(counts)):
            inside = min(high, edges[i + 1]) - max(low, edges[i])
            if inside > 0:
                counts[i] += rows * inside / (high - low)
    return counts


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What is different in `after`, as plain data.

    Args:
        before: a profile, as plain data.
        after: another.

    Returns:
        `rows` of both; `columns` added, removed, retyped; `changed`: by column what moved, with `drift`, most
        first; `findings` that came and went.
    """
    old = {column["name"]: column for column in before["columns"]}
    new = {column["name"]: column for column in after["columns"]}
    both = [name for name in old if name in new]
    retyped = {
        name: [old[name]["type"], new[name]["type"]]
        for name in both
        if old[name]["type"] != new[name]["type"]
    }
    changed = [
        moved
        for name in both
        if (moved := _moved(name, old[name], new[name])) is not None
    ]
    changed.sort(key=lambda each: -(each["drift"] or 0.0))
    sentences = [{_key(f): f["sentence"] for f in p["findings"]} for p in (before, after)]
    return {
        "a": before["source"],
        "b": after["source"],
        "rows": [before["rows"], after["rows"]],
        "columns": {
            "added": [name for name in new if name not in old],
            "removed": [name for name in old if name not in new],
            "retyped": retyped,
        },
        "changed": changed,
        "findings": {
            "new": [
                text for key, text in sentences[1].items() if key not in sentences[0]
            ],
            "gone": [
                text for key, text in sentences[0].items() if key not in sentences[1]
            ],
        },
    }


def _key(finding: Mapping[str, Any]) -> tuple[str, str]:
    return finding["kind"], finding["column"]


def _moved(
    name: str, a: Mapping[str, Any], b: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What moved in a column; None where nothing worth telling did."""
    facts: dict[str, Any] = {}
    missing = [each["missing"] / max(each["rows"], 1) for each in (a, b)]
    if abs(missing[1] - missing[0]) > _SHARES or (missing[0] == 0) != (missing[1] == 0):
        facts["missing"] = [round(share, 4) for share in missing]
    for word in ("min", "max", "mean", "std", "distinct"):
        pair = [a.get(word), b.get(word)]
        if pair[0] != pair[1]:
            facts[word] = pair
    came = _new_values(a, b)
    if came:
        facts["new_values"] = came
    index = drift(a, b)
    if not facts and not index:
        return None
    return {"column": name, "drift": None if index is None else round(index, 4), **facts}


def _new_values(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Common texts of `b` that `a`, all of whose texts are known, has not."""
    if "top" not in a or "top" not in b or a.get("distinct", 0) > len(a["top"]):
        return []
    known = {text for text, _ in a["top"]}
    return [text for text, _ in b["top"] if text not in known]
