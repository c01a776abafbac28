"""Columns compared: with the target (does one give the answer away?) and with each other (do two say the
same?).

A column gives the target away if it alone foretells it nearly without error on rows that were not used to
learn how: half the sample teaches, the other half examines, so a column with many values cannot shine by
memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from penstock.contracts.summary import interpolated
from penstock.inspect.raw_column import Finding, Look

LEAK = 0.98
"""The share of the errors of always answering the commonest class that a column alone must undo to be called
a leak.
"""
STRONG = 0.9
"""From this share on the user is asked to look."""
# Ranks that agree this well say the same, whatever the units.
RANKS = 0.9995
# With fewer rows, half of them teaches too little.
_LEAST = 40
# Cells times classes that are counted at once.
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
    # The same rows in every run, in an order that owes nothing to that of the file.
    rows = np.random.default_rng(0).permutation(rows)
    teach, examine = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    code = _cells(column, teach)
    return (
        _of_number(column, target, rows, code, teach, examine)
        if number
        else _of_class(column, target, rows, code, teach, examine)
    )


def _of_class(
    column: Look,
    target: Look,
    rows: np.ndarray,
    code: np.ndarray,
    teach: np.ndarray,
    examine: np.ndarray,
) -> Foretells:
    # Classes from 0 among the known rows only.
    classes = np.unique(target.codes[rows], return_inverse=True)[1]
    truth = np.zeros(target.rows, np.int64)
    truth[rows] = classes
    count, cells = int(classes.max()) + 1, int(code.max()) + 1
    if count < 2 or cells * count > _CELLS:
        return Foretells(0.0, "")
    # `[cells, classes]`: how often each class is in each cell of the teaching half.
    table = np.bincount(
        code[teach] * count + truth[teach], minlength=cells * count
    ).reshape(cells, count)
    commonest = int(table.sum(axis=0).argmax())
    # A cell that was never taught answers with the commonest class.
    answer = np.where(table.sum(axis=1) > 0, table.argmax(axis=1), commonest)
    right = float((answer[code[examine]] == truth[examine]).mean())
    base = float((truth[examine] == commonest).mean())
    # With fewer than five errors to undo, a share of them is chance.
    score = (right - base) / (1 - base) if (1 - base) * len(examine) >= 5 else 0.0
    words = f"alone it foretells {right:.1%} of the held-out rows (the commonest class: {base:.1%})"
    # A column of numbers may rank two classes apart without a cell being pure.
    if count == 2 and column.numeric_share == 1 and column.distinct > 2:
        there = rows[np.isfinite(column.numbers[rows])]
        area = _auc(column.numbers[there], truth[there])
        if (
            max(area, 1 - area) >= RANKS
            and min(truth[there].sum(), (1 - truth[there]).sum()) >= 5
        ):
            return Foretells(
                1.0,
                f"alone it ranks the two classes apart (ROC AUC {max(area, 1 - area):.4f})",
            )
    return Foretells(max(score, 0.0), words)


def _of_number(
    column: Look,
    target: Look,
    rows: np.ndarray,
    code: np.ndarray,
    teach: np.ndarray,
    examine: np.ndarray,
) -> Foretells:
    truth = target.numbers
    if column.numeric_share == 1 and column.distinct > 2:
        there = rows[np.isfinite(column.numbers[rows])]
        if len(there) >= _LEAST and len(there) >= 0.5 * len(rows):
            ranks = abs(_correlation(_ranks(column.numbers[there]), _ranks(truth[there])))
            if ranks >= RANKS:
                return Foretells(
                    1.0,
                    f"it puts the rows in the same order as the target (rank correlation {ranks:.4f})",
                )
    # Texts that hardly recur teach their own row and no other.
    if column.distinct > len(teach) / 4 and column.numeric_share < 1:
        return Foretells(0.0, "")
    weight = np.bincount(code[teach], minlength=int(code.max()) + 1)
    mean = np.bincount(
        code[teach], weights=truth[teach], minlength=len(weight)
    ) / np.maximum(weight, 1)
    whole = float(truth[teach].mean())
    # A cell that was never taught answers with the mean.
    answer = np.where(weight > 0, mean, whole)[code[examine]]
    variance = float(((truth[examine] - whole) ** 2).mean())
    r2 = (
        1 - float(((truth[examine] - answer) ** 2).mean()) / variance
        if variance > 0
        else 0.0
    )
    return Foretells(
        max(r2, 0.0),
        f"alone it explains {r2:.1%} of the target's variance on held-out rows",
    )


def _cells(column: Look, teach: np.ndarray) -> np.ndarray:
    """Each row's cell: its value, or its quantile among many numbers; missing is a cell of its own."""
    # Many different numbers are cut into quantiles of about eight teaching rows each.
    if (
        column.numeric_share == 1 and column.distinct > max(len(teach) // 8, 8)
    ) or pa.types.is_timestamp(column.type):
        values = column.numbers
        there = np.isfinite(values)
        bins = int(np.clip(len(teach) // 8, 4, 512))
        taught = values[teach][np.isfinite(values[teach])]
        edges = (
            np.unique(interpolated(taught, np.linspace(0, 1, bins + 1)[1:-1]))
            if len(taught)
            else np.empty(0)
        )
        # Cell 0 is for missing values.
        return np.where(
            there, np.searchsorted(edges, values, side="right") + 1, 0
        ).astype(np.int64)
    return column.codes + 1


def duplicates(columns: list[tuple[Look, Finding]]) -> dict[str, str]:
    """Columns that say exactly what another says (each value of one goes with one value of the other): left
    out → kept.

    Of a pair the number is kept (it has an order, the category has not), else the one that comes first.
    """
    alike: dict[bytes, list[tuple[Look, Finding]]] = {}
    for look, finding in columns:
        if (
            finding.type in ("number", "category", "binary")
            and look.distinct >= 2
            and look.rows >= 30
        ):
            alike.setdefault(_signature(look), []).append((look, finding))
    found: dict[str, str] = {}
    for group in alike.values():
        # A number has an order, which a category lacks.
        kept = next(
            (look.name for look, finding in group if finding.type == "number"),
            group[0][0].name,
        )
        found |= {look.name: kept for look, _ in group if look.name != kept}
    return found


def _signature(look: Look) -> bytes:
    """Equal for columns that say the same.

    Where values recur: which rows share a value, whatever it is. Where hardly any does, that says nothing, so
    numbers are compared by their order (up or down) and texts by what they are.
    """
    # Columns of this kind match no other, so their own name is the signature.
    if (
        look.distinct == 2 and min(look.present.values()) < 5
    ):  # two rare flags may agree by chance
        return look.name.encode() + b" alone"
    if look.distinct <= look.filled / 5:
        # Values are renumbered by where they first appear, so that equal divisions are
        # equal bytes.
        _, first, place = np.unique(look.codes, return_index=True, return_inverse=True)
        return b"shares" + bytes(
            np.argsort(np.argsort(first))[place].astype(np.int32).tobytes()
        )
    if look.numeric_share == 1:
        # Up or down: an order and its reverse are one, and which rows are missing
        # belongs to it.
        there = np.isfinite(look.numbers)
        up = _ranks(look.numbers[there])
        order: bytes = min(up.tobytes(), (up.max() + up.min() - up).tobytes())
        return b"".join([b"order", there.tobytes(), order])
    return b"texts" + "\x00".join(
        "" if v is None else str(v) for v in look.trimmed.to_pylist()
    ).encode("utf-8", "surrogatepass")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, ties sharing their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return np.asarray((ends - (count - 1) / 2)[place])


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x * x).sum() * (y * y).sum()))
    # 0 where either side never varies.
    return float((x * y).sum()) / size if size else 0.0


def _auc(score: np.ndarray, positive: np.ndarray) -> float:
    # The Mann-Whitney statistic: ties count half.
    ranks = _ranks(score)
    yes = int(positive.sum())
    no = len(positive) - yes
    return (
        (float(ranks[positive == 1].sum()) - yes * (yes + 1) / 2) / (yes * no)
        if yes and no
        else 0.5
    )
