"""Columns that alone give a near-perfect score on the split that was measured.

`init` judges a sample before anything is learnt. A recipe may be written by hand, or a column may be an input
in spite of what `init` says. So where a score is near perfect, every input is judged by the same rules
(`penstock.inspect.leaks`) on the rows that were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.evaluate.answers import Judged
from penstock.evaluate.compare import FEW
from penstock.inspect.leaks import judge_inputs
from penstock.inspect.raw_column import Look

if TYPE_CHECKING:
    from penstock.encode.encoding import Encoding

NEAR_PERFECT = {"accuracy": 0.995, "roc_auc": 0.998, "r2": 0.995}
"""From here on an answer is too good to be believed before somebody has looked."""
_UNDONE = 0.9
"""The share of the trivial answer's errors that is undone: where nearly all rows are of one class, any answer
is nearly always right.
"""
_MOST = 5
"""Columns that are named."""


def near_perfect(
    metrics: Mapping[str, Any], baseline: Mapping[str, Any], rows: int
) -> str:
    """Return the metric whose figure is too good to be believed; empty if there is none.

    Args:
        metrics: of a target.
        baseline: of the trivial answer; may be empty.
        rows: that were measured.
    """
    for name, least in NEAR_PERFECT.items():
        value, base = metrics.get(name), baseline.get(name)
        if not isinstance(value, (int, float)) or value < least or rows < FEW:
            continue
        undone = 1.0
        if name == "accuracy" and isinstance(base, (int, float)):
            # Where the trivial answer makes no errors, none can be undone.
            undone = (value - base) / (1 - base) if base < 1 else 0.0
        if undone >= _UNDONE:
            return name
    return ""


def giveaways(judged: Judged, encoding: Encoding) -> dict[str, list[dict[str, str]]]:
    """Return by target with a near-perfect score the inputs that alone give it, each as `column` and `why`.

    The list is empty where no input alone does. Targets whose score is not near perfect are left out.
    """
    metrics, baseline = judged.metrics(), judged.baseline()
    types = {name: encoding.inputs[name].type for name in judged.columns}
    by_target: dict[str, list[dict[str, str]]] = {}
    for name, kind in judged.kinds.items():
        if kind not in ("binary", "category", "number") or name in judged.broken:
            continue
        if not judged.sample_rows or not near_perfect(
            metrics[name], baseline.get(name, {}), judged.rows
        ):
            continue
        target = Look(name, _words(judged, name))
        why = judge_inputs(judged.columns, types, target, kind=kind)
        by_target[name] = [
            {"column": column, "why": text} for column, text in why.items()
        ]
    return by_target


def _words(judged: Judged, name: str) -> pa.Array:
    """Return a target's truth; classes by their names."""
    truth = judged.truth[name]
    classes = judged.classes.get(name)
    if judged.kinds[name] == "number" or not classes:
        return pa.array(truth)
    return pa.array([str(classes[int(i)]) if i >= 0 else None for i in truth])


def giveaway_sentence(result: Mapping[str, Any], target: str) -> str:
    """Name the inputs that alone give a target's score; or say what to look for."""
    inputs = (result.get("giveaways") or {}).get(target)
    if not inputs:
        alone = "" if inputs is None else " No single input does so."
        return (
            "So good a figure often means that an input gives the answer away; look for a column that is"
            f" known only after the fact.{alone}"
        )
    named = "; ".join(f"{each['column']} ({each['why']})" for each in inputs[:_MOST])
    more = f"; and {len(inputs) - _MOST} more" if len(inputs) > _MOST else ""
    return (
        f"This gives the answer away: {named}{more}. Leave it out of `inputs`, unless it is known before the"
        " answer is."
    )
