"""Columns compared: with the target (does one give the answer away?) and with each other (do two say the same?).

A column gives the target away if it alone foretells it nearly without error on rows that were not used to learn how:
half the sample teaches, the other half examines, so a column with many values cannot shine by memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from penstock.data.look.columns import Finding, Look

LEAK = 0.98
"""The share of the errors of always answering the commonest class that a column alone must undo to be called a leak."""
STRONG = 0.9
"""From this share on the user is asked to look."""
RANKS = 0.9995
_LEAST = 40
_CELLS = 5_000_000


@dataclass(frozen=True)
class Foretells:
    """How well a column alone foretells the target: 0 not at all, 1 without error."""

    score: float
    words: str


def foretells(column: Look, target: Look, *, number: bool) -> Foretells:
    """How well `column` alone foretells `target` on rows held out.

    Args:
        number: the target is a number (share of variance explained), not a class (share of errors undone).
    """
    nothing = Foretells(0.0, "")
    if pa.types.is_nested(column.type):
        return nothing
    known = target.codes >= 0 if not number else np.isfinite(target.numbers)
    rows = np.flatnonzero(known)
    if len(rows) < _LEAST:
        return nothing
    rows = np.random.default_rng(0).permutation(rows)
    teach, examine = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    code = _cells(column, teach)
    return _of_number(column, target, rows, code, teach, examine) if number else _of_class(column, target, rows, code, teach, examine)


def _of_class(column: Look, target: Look, rows: np.ndarray, code: np.ndarray, teach: np.ndarray, examine: np.ndarray) -> Foretells:
    classes = np.unique(target.codes[rows], return_inverse=True)[1]
    truth = np.zeros(target.rows, np.int64)
    truth[rows] = classes
    count, cells = int(classes.max()) + 1, int(code.max()) + 1
    if count < 2 or cells * count > _CELLS:
        return Foretells(0.0, "")
    table = np.bincount(code[teach] * count + truth[teach], minlength=cells * count).reshape(cells, count)
    commonest = int(table.sum(axis=0).argmax())
    answer = np.where(table.sum(axis=1) > 0, table.argmax(axis=1), commonest)
    right = float((answer[code[examine]] == truth[examine]).mean())
    base = float((truth[examine] == commonest).mean())
    score = (right - base) / (1 - base) if (1 - base) * len(examine) >= 5 else 0.0
    words = f"alone it foretells {right:.1%} of the held-out rows (the commonest class: {base:.1%})"
    if count == 2 and column.numeric_share == 1 and column.distinct > 2:
        there = rows[np.isfinite(column.numbers[rows])]
        area = _auc(column.numbers[there], truth[there])
        if max(area, 1 - area) >= RANKS and min(truth[there].sum(), (1 - truth[there]).sum()) >= 5:
            return Foretells(1.0, f"alone it ranks the two classes apart (ROC AUC {max(area, 1 - area):.4f})")
    return Foretells(max(score, 0.0), words)


def _of_number(column: Look, target: Look, rows: np.ndarray, code: np.ndarray, teach: np.ndarray, examine: np.ndarray) -> Foretells:
    truth = target.numbers
    if column.numeric_share == 1 and column.distinct > 2:
        there = rows[np.isfinite(column.numbers[rows])]
        if len(there) >= _LEAST and len(there) >= 0.5 * len(rows):
            ranks = abs(_correlation(_ranks(column.numbers[there]), _ranks(truth[there])))
            if ranks >= RANKS:
                return Foretells(1.0, f"it puts the rows in the same order as the target (rank correlation {ranks:.4f})")
    if column.distinct > len(teach) / 4 and column.numeric_share < 1:
        return Foretells(0.0, "")
    weight = np.bincount(code[teach], minlength=int(code.max()) + 1)
    mean = np.bincount(code[teach], weights=truth[teach], minlength=len(weight)) / np.maximum(weight, 1)
    whole = float(truth[teach].mean())
    answer = np.where(weight > 0, mean, whole)[code[examine]]
    variance = float(((truth[examine] - whole) ** 2).mean())
    r2 = 1 - float(((truth[examine] - answer) ** 2).mean()) / variance if variance > 0 else 0.0
    return Foretells(max(r2, 0.0), f"alone it explains {r2:.1%} of the target's variance on held-out rows")


def _cells(column: Look, teach: np.ndarray) -> np.ndarray:
    """Each row's cell: its value, or its quantile among many numbers; missing is a cell of its own."""
    if (column.numeric_share == 1 and column.distinct > max(len(teach) // 8, 8)) or pa.types.is_timestamp(column.type):
        values = column.numbers
        there = np.isfinite(values)
        bins = int(np.clip(len(teach) // 8, 4, 512))
        taught = values[teach][np.isfinite(values[teach])]
        edges = np.unique(np.quantile(taught, np.linspace(0, 1, bins + 1)[1:-1])) if len(taught) else np.empty(0)
        return np.where(there, np.searchsorted(edges, values, side="right") + 1, 0).astype(np.int64)
    return column.codes + 1


def duplicates(columns: list[tuple[Look, Finding]]) -> dict[str, str]:
    """Columns that say exactly what another says (each value of one goes with one value of the other): left out → kept.

    Of a pair the number is kept (it has an order, the category has not), else the one that comes first.
    """
    found: dict[str, str] = {}
    candidates = [(look, finding) for look, finding in columns if finding.type in ("number", "category", "binary") and look.distinct >= 2]
    for i, (a, finding_a) in enumerate(candidates):
        for b, finding_b in candidates[i + 1 :]:
            if a.name in found or b.name in found or a.distinct != b.distinct or a.filled != b.filled or a.rows < 30 or not _same(a, b):
                continue
            if finding_b.type == "number" and finding_a.type != "number":
                found[a.name] = b.name
            else:
                found[b.name] = a.name
    return found


def _same(a: Look, b: Look) -> bool:
    if not np.array_equal(a.codes < 0, b.codes < 0):
        return False
    if a.distinct <= a.filled / 5:
        rarest = sorted(a.present.values())
        if a.distinct == 2 and rarest[0] < 5:
            return False
        return len(np.unique(a.codes * (b.distinct + 1) + b.codes)) == a.distinct + bool(np.any(a.codes < 0))
    if a.numeric_share == 1 and b.numeric_share == 1:  # many values: the same order, or the opposite one
        there = np.isfinite(a.numbers) & np.isfinite(b.numbers)
        x, y = _ranks(a.numbers[there]), _ranks(b.numbers[there])
        return bool(np.array_equal(x, y) or np.array_equal(x, y.max() + y.min() - y))
    return a.codes.tolist() == b.codes.tolist() and list(map(str, a.present)) == list(map(str, b.present))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, ties sharing their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return np.asarray((ends - (count - 1) / 2)[place])


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / size if size else 0.0


def _auc(score: np.ndarray, positive: np.ndarray) -> float:
    ranks = _ranks(score)
    yes = int(positive.sum())
    no = len(positive) - yes
    return (float(ranks[positive == 1].sum()) - yes * (yes + 1) / 2) / (yes * no) if yes and no else 0.5
