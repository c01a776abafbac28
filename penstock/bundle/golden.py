"""Golden rows: a few rows that a bundle must answer alike for ever, and the proof that it does.

They are chosen among the first rows of the test split. The exported program must answer them as torch does
before a bundle is published; a bundle replays them whenever it opens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from penstock.bundle import export
from penstock.bundle.predictor import Admitted, Predictor
from penstock.bundle.rows import from_table
from penstock.contracts.tensors import joined
from penstock.core.errors import BundleError
from penstock.encode.encoding import Accepted, Encoding
from penstock.encode.series.sampled_dataset import SampledDataset
from penstock.prepare.dataset import Dataset

GOLDEN_ROWS = 64
FEWEST_GOLDEN = 4
GOLDEN_BYTES = 4 * 2**20
"""Golden rows are replayed whenever a bundle opens; with large pictures there are fewer of them."""
CHOSEN_AMONG = 8_192
"""Rows among which the golden ones are chosen."""


def choose_golden_rows(
    dataset: Dataset | SampledDataset,
    columns: list[str],
    predictor: Predictor,
    *,
    rows: Literal["raw", "prepared"] = "raw",
) -> pa.Table:
    """Choose up to 64 golden rows: some with missing values, the others evenly spread.

    Args:
        columns: those of raw rows, or of prepared ones.
        rows: which of both are kept.

    Raises:
        BundleError: no split has a row that the model accepts.
    """
    # The test split has the rows that nothing was chosen by.
    for split in ("test", "validation", "train"):
        # Only the first rows are read, however large the split is.
        size = predictor.encoding.rows_at_once(CHOSEN_AMONG)
        batch = next(iter(dataset.batches(split, columns=columns, rows=size)), None)
        if batch is None or not batch.num_rows:
            continue
        table = pa.Table.from_batches([batch]).select(columns)
        # A row that the features refuse has no answer to compare.
        admitted = _admit(predictor, table, rows)
        table = table.take(pa.array(admitted.places))
        if table.num_rows:
            return _small(table.take(pa.array(_spread(table)))).combine_chunks()
    raise BundleError(
        f"{dataset.reference} has no row that the model accepts, so its answers"
        " cannot be verified."
    )


def _admit(
    predictor: Predictor, table: pa.Table, rows: Literal["raw", "prepared"]
) -> Admitted:
    columns = (
        predictor.columns
        if rows == "raw"
        else dict.fromkeys(table.column_names, pa.null())
    )
    return predictor.admit(from_table(table, columns), rows=rows)


def _spread(table: pa.Table) -> np.ndarray:
    """Return the places of at most 64 rows, ascending: up to a quarter are the first
    with a missing value, the others evenly spread.
    """
    missing = np.zeros(table.num_rows, bool)
    for column in table.columns:
        missing |= np.asarray(column.is_null())
    lacking = np.flatnonzero(missing)[: GOLDEN_ROWS // 4]
    # Rows with missing values are rare, and take the paths of the encoding that others
    # do not.
    others = np.setdiff1d(np.arange(table.num_rows), lacking)
    if len(others):
        evenly = np.linspace(0, len(others) - 1, GOLDEN_ROWS - len(lacking)).astype(
            np.int64
        )
        # With few rows, evenly spread places coincide.
        others = others[np.unique(evenly)]
    return np.sort(np.concatenate([lacking, others]))


def _small(golden: pa.Table) -> pa.Table:
    """Drop every second row until the rows are small enough, or few."""
    while (
        golden.get_total_buffer_size() > GOLDEN_BYTES and golden.num_rows > FEWEST_GOLDEN
    ):
        golden = golden.take(pa.array(np.arange(0, golden.num_rows, 2)))
    return golden


def prove(
    golden: pa.Table,
    torch_alone: Predictor,
    runtime: Any,
    encoding: Encoding,
    *,
    rows: Literal["raw", "prepared"] = "raw",
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Compare the runtime's answers to the golden rows with torch's, in a batch and row
    by row.

    Returns:
        The answers (`<target>.<answer>` → `[rows, …]`), and what was measured: `difference` (the largest of
        both comparisons), `difference_row_alone`, `golden_rows`.

    Raises:
        BundleError: they differ by more than 1e-4.
    """
    # Both sides start at the same rows.
    expected = torch_alone.answers(golden, rows=rows)
    admitted = _admit(torch_alone, golden, rows)
    # Encoded once: the comparison by rows is about the program, not about the encoding.
    stored = encoding.encode(Accepted(golden.num_rows, admitted.columns))
    answers = runtime(encoding.collate(dict(stored)))
    in_batch = export.difference(answers, expected)
    # Row by row as well: a program whose batch axis was fixed by accident, or that mixes rows, shows here.
    alone = [
        runtime(
            encoding.collate(
                {name: values[row : row + 1] for name, values in stored.items()}
            )
        )
        for row in range(golden.num_rows)
    ]
    row_alone = export.difference(
        {name: joined([one[name] for one in alone]) for name in answers}, expected
    )
    worst = max(in_batch, row_alone)
    # Not `>`: a difference that is NaN must not pass.
    if not worst <= export.TOLERANCE:
        raise BundleError(
            "the exported program gives other answers than torch: the largest difference"
            f" over {golden.num_rows} golden rows is {worst:.2e}, allowed is"
            f" {export.TOLERANCE:g}. No bundle was made. Try precision: fp32 or simpler"
            " layers, and report it if the layers are Penstock's."
        )
    return answers, {
        "difference": worst,
        "difference_row_alone": row_alone,
        "golden_rows": golden.num_rows,
    }


def write_golden(path: Path, rows: pa.Table, answers: Mapping[str, np.ndarray]) -> None:
    """Write golden rows and their answers to an Arrow file of two struct columns, `row` and `answer`."""
    arrays = {name: _array(values) for name, values in answers.items()}
    # Structs keep the columns of rows and answers apart, whatever their names are.
    row = pa.StructArray.from_arrays(
        [column.combine_chunks() for column in rows.columns],
        fields=[rows.schema.field(i) for i in range(rows.num_columns)],
    )
    answer = pa.StructArray.from_arrays(list(arrays.values()), names=list(arrays))
    table = pa.table({"row": row, "answer": answer})
    with (
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)


def _array(values: np.ndarray) -> pa.Array:
    """`[rows]` as it is; `[rows, …]` as lists, one a row, flat."""
    flat = pa.array(values.reshape(-1))
    if values.ndim == 1:
        return flat
    width = int(np.prod(values.shape[1:]))
    # Offsets are multiples of one width, since every row's answer has the same shape.
    return pa.ListArray.from_arrays(
        pa.array(np.arange(len(values) + 1, dtype=np.int32) * width), flat
    )


__all__ = ["GOLDEN_ROWS", "choose_golden_rows", "prove", "write_golden"]
