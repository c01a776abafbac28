"""The second pass of an extract: every row is written once, in the columns that all files have together.

Here is the one place where rows are counted against what a file says it has (`_reconcile`), whatever its
format.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_FILE, ROW_NUMBER
from penstock.contracts.reading import Reject
from penstock.core.errors import SourceError
from penstock.formats.column_plan import ColumnPlan, Partition
from penstock.formats.draw import CELL_BYTES
from penstock.formats.groups import RowGroups, ahead, pieces_of
from penstock.formats.learnt import MISFIT, fit
from penstock.formats.reader import LINE, Context, FileReader, Input
from penstock.formats.rejects import Rejects
from penstock.formats.sound import odd_rows, shown
from penstock.formats.steady import check
from penstock.formats.typed import Widen, convert, force, to_text

_MOST_STEPS = 200
"""How often progress is told in a pass over the files."""


@dataclass(frozen=True)
class Written:
    """What the second pass gave."""

    files: list[Path]
    rows: int
    late: Rejects
    """Rows whose values are not of a forced type."""
    cut: bool
    """Whether a sample has fewer rows than it was asked for since they are wide."""


def write_rows(
    readers: Sequence[FileReader],
    partitions: Sequence[Partition],
    plan: ColumnPlan,
    context: Context,
    block: int,
) -> Written:
    """Write the rows of all files as Parquet; again with a column as text, where its type proves too narrow.

    Args:
        block: bytes of a batch, by which row groups are measured.

    Raises:
        SourceError: a file has changed, has other rows than it says, or a row is bad and its `on_bad_row` is
        `fail`.
    """
    while True:
        rejects = Rejects(context.scratch / "rejects-by-type.parquet")
        # Each pass finds them anew.
        plan.misfits.clear()
        if context.draw is not None:
            context.draw.begin()
        writer = RowGroups(context.scratch, _with_places(plan.written()), block)
        cut = False
        try:
            for index, (reader, partition) in enumerate(
                zip(readers, partitions, strict=True)
            ):
                file = _FileRows(index, reader, partition, plan, context, rejects)
                cut = file.write(writer) or cut
                if is_told(index + 1, len(readers)):
                    context.events.progress(
                        "extract",
                        (len(readers) + index + 1) / 2,
                        len(readers),
                        "files",
                        rows=writer.rows,
                    )
            return Written(writer.close(), writer.rows, rejects, cut)
        # Also interrupts: half-written files must not stay.
        except BaseException as error:
            # What a failed pass wrote is no row: the next pass writes files of the same names.
            writer.abandon()
            for path in rejects.close():
                path.unlink()
            if not isinstance(error, Widen):
                raise
            name = error.column
            # Text is the last resort: where that fails as well, nothing would end the
            # loop.
            if pa.types.is_string(plan.kinds[name]):
                raise SourceError(
                    f"the column {name!r} has no type that fits all files, not even text."
                ) from None
            context.events.warn(
                f"the column {name!r} has values that {plan.kinds[name]} cannot hold exactly."
                " It is read as text."
            )
            # One more column is text from pass to pass, so the passes come to an end.
            plan.kinds[name] = pa.string()


def is_told(done: int, total: int) -> bool:
    """Whether to report progress after `done` of `total` files: a few hundred times in
    a pass are enough.
    """
    return done % max(1, total // _MOST_STEPS) == 0 or done == total


def unchanged(input: Input) -> None:
    """Refuse a file that is not the one that the snapshot saw. Raises SourceError."""
    check(input.url, input.size_bytes, input.stamp, input.sha256)


@dataclass
class _FileRows:
    """The rows of one file on their way into the columns of all."""

    index: int
    reader: FileReader
    partition: Partition
    plan: ColumnPlan
    context: Context
    rejects: Rejects

    def write(self, writer: RowGroups) -> bool:
        """Write them all; returns whether those of a sample are cut short for their bytes."""
        input = self.reader.input
        number, late, size, fail = 0, 0, 0, input.reading.on_bad_row == "fail"
        batches = self.reader.batches(self.plan.wanted(self.reader))
        pieces = (
            piece
            for batch in batches
            for piece in pieces_of(batch, self.context.batch_bytes)
        )
        is_full = False
        # The next piece is read while this one is converted and written.
        for whole in ahead(pieces, 1):
            good, bad = self._finish(whole, number)
            for reject in bad:
                self.rejects.add(input.path, reject, fail=fail)
            if self.context.limit is not None:
                good, size, is_full = _within(good, size, self.context)
            number += good.num_rows
            draw = self.context.draw
            writer.add(good if draw is None else draw.take(good, path=input.path))
            late += len(bad)
            if is_full:
                break
        # Asked again behind the last row: what changed while it was read is in no dataset.
        unchanged(input)
        # A look that reads no more than parts stops early, so its rows cannot be those that the file states.
        if self.context.limit is None and input.most_bytes is None:
            _reconcile(self.reader, number + late)
        return is_full and number < (self.context.limit or 0)

    def _finish(
        self, batch: pa.RecordBatch, number: int
    ) -> tuple[pa.RecordBatch, list[Reject]]:
        """A reader's batch in the final columns, without rows whose values are not of a forced type.

        Args:
            number: how many rows of the file are before it.
        """
        plan = self.plan
        # By the final spelling: the place of the column in this batch.
        here = {
            plan.spelling[n.lower()]: i
            for i, n in enumerate(batch.schema.names)
            if n != LINE
        }
        # What folders say is the same for each row of the file.
        constants = {plan.spelling[n.lower()]: v for n, v in self.partition.items()}
        arrays: list[pa.Array] = []
        beside: dict[str, pa.Array] = {}
        wrong: dict[int, tuple[str, str]] = {}
        missing: dict[pa.DataType, pa.Array] = {}
        for name, kind in plan.kinds.items():
            if name in here:
                array = batch.column(here[name])
            elif constants.get(name) is not None:
                array = pa.repeat(pa.scalar(constants[name]), batch.num_rows)
            else:
                if (
                    kind not in missing
                ):  # one for all columns of a type: a wide table may lack thousands
                    missing[kind] = pa.nulls(batch.num_rows, kind)
                arrays.append(missing[kind])
                continue
            array = self._respelt(array, name, kind)
            if name in plan.learnt:
                array, other = fit(array, kind, comma=name in plan.commas)
                # What does not fit a learnt type is text in a column of its own, and no
                # reject.
                if other is not None:
                    beside[name] = other
                    plan.misfits.add(name)
            else:
                if name in plan.forced:
                    # A reader's numbers go by way of text, so that each format forces
                    # alike.
                    array, bad = force(to_text(array), plan.forced[name])
                    for row, reason in bad.items():
                        wrong.setdefault(row, (name, reason))
                array = convert(array, kind, name)
            arrays.append(array)
            # Conversion may have made moments that no engine holds.
            if _has_moments(kind):
                for row, reason in odd_rows(array).items():
                    wrong.setdefault(row, (name, reason))
        written = plan.written()
        # A column of misfits is there whether this batch has any or not.
        arrays += [
            beside.get(n.removeprefix(MISFIT), pa.nulls(batch.num_rows, pa.string()))
            for n in written.names[len(arrays) :]
        ]
        rejects = [_reject(batch, row, *why) for row, why in sorted(wrong.items())]
        if wrong:
            keep = pa.array([i not in wrong for i in range(batch.num_rows)])
            arrays = [array.filter(keep) for array in arrays]
        # Good rows alone are numbered, so that numbers have no gaps.
        rows = batch.num_rows - len(wrong)
        file = pa.repeat(pa.scalar(self.index, pa.int32()), rows)
        arrays += [file, pa.array(np.arange(number, number + rows))]
        return pa.RecordBatch.from_arrays(arrays, schema=_with_places(written)), rejects

    def _respelt(self, array: pa.Array, name: str, kind: pa.DataType) -> pa.Array:
        """Texts in plain spelling, where the recipe says how they are written and they are to be read."""
        plan = self.plan
        is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
        if not is_text or pa.types.is_string(kind):
            return array
        if (
            name not in plan.respelt
            and name not in plan.learnt
            and name not in plan.forced
        ):
            return array
        respelling = self.reader.input.reading.respelling(name)
        return array if respelling is None else respelling.plain(array.cast(pa.string()))


def _reject(batch: pa.RecordBatch, row: int, column: str, reason: str) -> Reject:
    """A row of a reader's batch as a reject, with its values as the reader gave them."""
    values = {
        name: shown(array, row)
        for name, array in zip(batch.schema.names, batch.columns, strict=True)
        if name != LINE
    }
    text = json.dumps(values, ensure_ascii=False, default=str)
    return Reject(batch.column(LINE)[row].as_py(), reason, text, column)


def _within(
    batch: pa.RecordBatch, taken: int, context: Context
) -> tuple[pa.RecordBatch, int, bool]:
    """The rows of a sample's batch that it has room for, the bytes taken with them, and whether it is
    full.
    """
    # Missing values count as well, since they take room in a wide table.
    size = batch.nbytes + batch.num_rows * batch.num_columns * CELL_BYTES
    room = context.limit_bytes - taken
    if size < room or not batch.num_rows:
        return batch, taken + size, False
    # A single row is taken however large, or a sample of wide rows would be empty.
    return (
        batch.slice(0, max(batch.num_rows * room // size, 0 if taken else 1)),
        taken + size,
        True,
    )


def _reconcile(reader: FileReader, given: int) -> None:
    """Check that the rows and rejects of a file are as many as it says it has.

    Raises:
        SourceError: it is not.
    """
    came = given + reader.rejected
    if reader.declared is not None and came != reader.declared:
        raise SourceError(
            f"{reader.input.url} has {reader.declared:,} rows according to its metadata,"
            f" but {came:,} could be read ({given:,} good, {reader.rejected:,} bad). It is"
            " damaged, or changed while it was read. Fetch or write it again; nothing was"
            " saved."
        )


def _has_moments(kind: pa.DataType) -> bool:
    return (
        _has_moments(kind.value_type)
        if pa.types.is_list(kind)
        else bool(pa.types.is_timestamp(kind))
    )


def _with_places(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field(ROW_FILE, pa.int32())).append(
        pa.field(ROW_NUMBER, pa.int64())
    )
