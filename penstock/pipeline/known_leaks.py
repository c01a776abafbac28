"""Inputs that `init` would have left out, since they give the target away: told before anything is trained.

A recipe may be written by hand, or a column may be put back that `init` had left out. Rows of the training
split are asked by the same rules (`penstock.inspect.leaks`); what is found is a warning, since only the user
knows whether a column is known before the answer is.
"""

from __future__ import annotations

from itertools import islice

import pyarrow as pa

from penstock.inspect.findings import leaks_in
from penstock.prepare.dataset import Dataset
from penstock.recipe.schema import Recipe

_ROWS = 5_000
"""Rows that are asked at most."""
_CELLS = 2_000_000
"""Of a wide table fewer rows are asked, so that the question takes seconds."""
_KINDS = ("binary", "category", "number")


def leak_warnings(recipe: Recipe, dataset: Dataset) -> list[str]:
    """Return a sentence for each input that gives a target away, with the evidence.

    Steps of a series are not asked: what comes before may well foretell what comes after.
    """
    if recipe.samples is not None:
        return []
    of_column = {
        column: name
        for name, feature in recipe.inputs.items()
        for column in feature.columns(name)
    }
    warnings = []
    for name, feature in recipe.targets.items():
        columns = feature.columns(name)
        if feature.type not in _KINDS or len(columns) != 1 or not of_column:
            continue
        table = _rows(dataset, list(dict.fromkeys([*of_column, *columns])))
        for column, why in leaks_in(table, columns[0]).items():
            warnings.append(
                f"inputs.{of_column[column]} gives the target {name!r} away: {why}. Leave it out of `inputs`,"
                " unless it is known before the answer is."
            )
    return warnings


def _rows(dataset: Dataset, columns: list[str]) -> pa.Table:
    """The first rows of the training split."""
    rows = min(_ROWS, max(_CELLS // len(columns), 500))
    batches = dataset.batches("train", columns=columns, rows=rows)
    first = list(islice(batches, 1))
    if not first:
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    return pa.Table.from_batches(first).select(columns)
