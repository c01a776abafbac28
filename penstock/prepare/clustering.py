"""Rows of a split in the order of a column (`cluster_by`), so that a condition on it reads few row groups.

Parquet says of each row group what its least and greatest values are; where equal and near values lie
together, a subset by that column passes over all other groups. Groups are smaller than usual here (`_GROUPS`
to a split), since a group is the least that is read. Equal values are in the order of their row ids, so the
order is the same on every engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID, EngineSession, is_wide
from penstock.core.errors import Problem, RecipeError
from penstock.core.near import did_you_mean, listed
from penstock.prepare.profile import SAMPLE
from penstock.recipe.schema import Recipe

if TYPE_CHECKING:
    import ibis.expr.types as ir

_GROUPS = 128
"""Row groups of a split: enough for a subset of a hundredth to touch three hundredths at most."""
_LEAST, _MOST = 1_024, 65_536
"""Rows of a group: fewer cost more to describe than to read."""
_GROUP_BYTES = 64 * 2**20
"""A group ends early where rows are so wide."""


def write_splits(
    recipe: Recipe,
    session: EngineSession,
    table: ir.Table,
    by: str,
    folders: Mapping[str, Path],
    *,
    rows: int,
) -> dict[str, int]:
    """`EngineSession.write_parts`, in the order of the recipe's `cluster_by`, if it has one, and then of row
    ids.

    Args:
        rows: how many there are in all.

    Raises:
        RecipeError: the column is not written, its values have no order, or rows are too wide to be sorted.
    """
    if (column := recipe.cluster_by) is None:
        return session.write_parts(table, by, folders, rows=rows)
    _refuse_unordered(table.drop(by), column, recipe.name)
    # The names alone: a split may have no row, and its file has the schema all the same.
    schema = next(session.batches(table.drop(by).limit(1))).schema
    written: dict[str, int] = {}
    for name, folder in folders.items():
        chosen = table.filter(table[by] == name).drop(by)
        group_rows = min(max(session.count(chosen) // _GROUPS, _LEAST), _MOST)
        ordered = chosen.order_by([column, ROW_ID])
        folder.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(
            folder / "part-0.parquet", schema, compression="zstd", compression_level=1
        ) as writer:
            written[name] = 0
            for group in _groups(session.batches(ordered, group_rows), group_rows):
                writer.write_table(group, row_group_size=group_rows)
                written[name] += group.num_rows
    return written


def _groups(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Tables of about so many rows each; fewer where rows are wide."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        count = sum(each.num_rows for each in waiting)
        if count >= rows or sum(each.nbytes for each in waiting) >= _GROUP_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def lowest(
    column: str | None, session: EngineSession, files: list[Path], scratch: Path
) -> list[Path]:
    """Files that begin with the rows of the lowest ids, which are a sample, of files in the order of `column`
    or, without it, of ids.
    """
    if column is None:
        return files
    rows = session.read(files).order_by(ROW_ID).limit(SAMPLE)
    folder = scratch / "lowest"
    session.write(rows, folder, order=[ROW_ID])
    return sorted(folder.glob("*.parquet"))


def _refuse_unordered(table: ir.Table, column: str, recipe: str) -> None:
    schema = table.schema()
    if column not in schema:
        known = [name for name in schema if name != ROW_ID]
        text = (
            f"there is no column {column!r} in the rows that are written."
            f"{did_you_mean(column, known)} Columns: {listed(known)}."
        )
    elif schema[column].is_nested() or schema[column].is_binary():
        text = (
            f"{column!r} has values of the type {schema[column]}, which have no order. Name another"
            " column."
        )
    elif is_wide(table):
        text = (
            f"rows of {len(schema):,} columns are too wide to be sorted. Leave `cluster_by` out: a sample"
            " reads few row groups without it."
        )
    else:
        return
    raise RecipeError.of([Problem(("cluster_by",), text)], where=f"the recipe {recipe!r}")
