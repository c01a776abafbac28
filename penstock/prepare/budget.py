"""How `resources` are shared out: threads, and the rows that may be in memory at once under the ceiling.

The ceiling is of the process tree's anonymous and shared memory. A process of ours holds `BASE_BYTES` before
it holds a row (the interpreter, Arrow, numpy, DuckDB; measured 200–280 MiB; torch adds `TORCH_BYTES`); what
is left is shared out by row bytes, which are measured on rows, since files do not tell them (a dictionary
makes a text look small).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.contracts.data import ROW_ID
from penstock.core.cores import usable_cores

if TYPE_CHECKING:
    from penstock.encode.encoding import Encoding
    from penstock.prepare.dataset import Dataset
    from penstock.recipe.schema import Recipe

BASE_BYTES = 300 * 2**20
TORCH_BYTES = 150 * 2**20
BATCH_ROWS = 65_536
"""The most rows of a batch: larger ones are no faster."""
LEAST_ROWS = 1
"""Of a batch, where one row nearly fills what is free."""
_SAMPLED = 512
_COPIES = 4
"""Forms of a row at once while it is encoded: as read, decoded, canonical, stored."""
_WRITING_BYTES = 96 * 2**20
"""A shard in the making, and what the allocator keeps."""


def threads_of(recipe: Recipe) -> int:
    """The number of threads: `resources.threads` of the recipe, or all cores that this process may
    use.
    """
    if recipe.resources.threads:
        return recipe.resources.threads
    return usable_cores()


def batch_rows(file: Any, most_bytes: int, *, least: int = 1, most: int) -> int:
    """How many rows of an open Parquet file have about `most_bytes`, by its widest row group."""
    # An average over the file would let one group of wide rows go over the bound.
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    widest = max(
        (group.total_byte_size // max(group.num_rows, 1) for group in groups), default=1
    )
    return int(min(max(most_bytes // max(widest, 1), least), most))


def rows_within(
    dataset: Dataset, encoding: Encoding, *, memory_bytes: int, num_workers: int
) -> int:
    """How many rows a batch may have so that `num_workers + 2` batches, each in all its forms, fit
    into `memory_bytes`.
    """
    free = max(memory_bytes - BASE_BYTES - _WRITING_BYTES, 16 * 2**20) // 2
    per_row = row_bytes(dataset, encoding.columns(targets=True)) * _COPIES
    fits = max(free // (num_workers + 2) // max(per_row, 1), LEAST_ROWS)
    # Bounded twice: by rows as they are read, and by what a feature makes of them.
    return min(encoding.rows_at_once(BATCH_ROWS), even_part(fits))


def even_part(rows: int, of: int = BATCH_ROWS) -> int:
    """The largest even part of a row group of `of` rows that has at most `rows`: a group is then read in
    equal pieces.
    """
    # As few pieces as keep each within `rows`.
    return of if rows >= of else max(of // -(-of // max(rows, 1)), 1)


def row_bytes(dataset: Dataset, columns: list[str]) -> int:
    """About how many bytes a row has in memory: the mean of some rows of the training split, which are in the
    order of a hash and so a fair sample.
    """
    # Without rows any width does.
    if not dataset.counts.get("train"):
        return 1
    first = next(iter(dataset.batches("train", columns=columns, rows=_SAMPLED)), None)
    if first is None or not first.num_rows:
        return 1
    large = sum(
        -(-first.column(name).nbytes // first.num_rows) for name in [ROW_ID, *columns]
    )
    return int(large) + 16 * len(columns)
