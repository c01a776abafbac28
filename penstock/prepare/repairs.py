"""Mended rows of the quarantine, in the places of those that were put aside.

A row is known by the file and line that the quarantine gives for it, so a mended one has the id that the
broken one had, and its split by hash is what it would have been. Columns that the file of repairs lacks stay
as they were read; joined and derived ones are worked out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import pyarrow as pa

from penstock.contracts.data import (
    PLACE,
    ROW_FILE,
    ROW_NUMBER,
    EngineSession,
    Extract,
    SourceFile,
)
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.core.wording import counted
from penstock.formats.learnt import MISFIT
from penstock.prepare.row_ids import read_extract

if TYPE_CHECKING:
    import ibis.expr.types as ir

FILE, LINE, STAGE = "quarantine_file", "quarantine_line", "quarantine_stage"
"""Columns of a file of repairs that say which row of the quarantine a row mends."""
WHY, RAW = "quarantine_reason", "quarantine_row"
"""Columns that only people read: why it was put aside, and its text where it could not be read."""
_AFTER = 1 << 39
"""Rows that could not be read have no number in their file: mended ones are numbered from here, by line."""


@dataclass
class Repaired:
    """Rows with the mended ones among them."""

    table: ir.Table
    lines: set[tuple[str, int]] = field(default_factory=set)
    """Of rows that could not be read and are mended: they leave the rejects."""


def repair(
    table: ir.Table,
    extract: Extract,
    files: Sequence[SourceFile],
    session: EngineSession,
    events: Events,
) -> Repaired:
    """Put mended rows in the places of those that were put aside.

    Args:
        table: the source's rows as they were read, with `PLACE`.
        extract: of the repairs, read with the types of the source's columns.
        files: the source's, by `ROW_FILE`.

    Raises:
        SourceError: a mended row names no row of the source, or two name the same one.
    """
    import ibis

    mended = _placed(read_extract(session, extract), extract, files, session, events)
    columns = [n for n in table.columns if n not in PLACE and n in mended.columns]
    read = session.keep(mended.filter(mended[STAGE] != "read"))
    # A row without any value is as it was exported: nobody mended it.
    has_values = reduce(or_, [mended[n].notnull() for n in columns], ibis.literal(False))
    unread = session.keep(mended.filter((mended[STAGE] == "read") & has_values))
    _refuse_unknown(table, read, session)
    ours = read.select(
        **{f"__p_m{name}": read[name] for name in PLACE},
        **{f"__p_v{i}": read[name] for i, name in enumerate(columns)},
        __p_mended=ibis.literal(True),
    )
    joined = table.left_join(ours, [table[n] == ours[f"__p_m{n}"] for n in PLACE])
    is_mended = joined["__p_mended"].notnull()
    values = {
        name: is_mended.ifelse(joined[f"__p_v{i}"].cast(table[name].type()), joined[name])
        for i, name in enumerate(columns)
    }
    whole = joined.select(**{n: values.get(n, joined[n]) for n in table.columns})
    more = unread.select(
        **{
            name: unread[name].cast(kind)
            if name in (*columns, *PLACE)
            else ibis.null(kind)
            for name, kind in table.schema().items()
        }
    )
    lines = {
        (row[FILE], int(row[LINE])) for row in session.rows(unread.select(FILE, LINE))
    }
    # Kept: row ids, joins and counts read it again and again.
    return Repaired(session.keep(whole.union(more) if lines else whole), lines)


def _placed(
    mended: ir.Table,
    extract: Extract,
    files: Sequence[SourceFile],
    session: EngineSession,
    events: Events,
) -> ir.Table:
    """Mended rows with their places; those with a value of another type than its column's are left out."""
    if lacking := [name for name in (FILE, LINE, STAGE) if name not in mended.columns]:
        raise SourceError(
            f"the repairs have no column {', '.join(map(repr, lacking))}, so nobody knows which rows they"
            " mend. Export rows with `penstock quarantine show REFERENCE -o FILE`, and leave these columns as"
            " they are."
        )
    unfit = [
        mended[MISFIT + n].notnull()
        for n in extract.misfits
        if MISFIT + n in mended.columns
    ]
    if unfit:
        is_unfit = unfit[0]
        for other in unfit[1:]:
            is_unfit = is_unfit | other
        if bad := session.count(mended.filter(is_unfit)):
            events.warn(
                f"{counted(bad, 'row')} of the repairs {'has' if bad == 1 else 'have'} a value of another"
                " type than its column's; they stay in quarantine",
                rows=bad,
            )
        mended = mended.filter(~is_unfit)
    if extract.rejected:
        events.warn(
            f"{counted(extract.rejected, 'row')} of the repairs could not be read; they stay in quarantine",
            rows=extract.rejected,
        )
    names = session.table(
        pa.table(
            {
                "__p_path": [file.path for file in files],
                "__p_index": pa.array(range(len(files)), pa.int32()),
            }
        )
    )
    own = mended.drop(*(name for name in PLACE if name in mended.columns))
    placed = own.inner_join(names, own[FILE] == names["__p_path"]).drop("__p_path")
    line = placed[LINE].cast("int64")
    number = (placed[STAGE] == "read").ifelse(line + _AFTER, line - 1)
    placed = session.keep(
        placed.mutate(**{ROW_FILE: placed["__p_index"], ROW_NUMBER: number})
    )
    total = session.count(mended)
    if session.count(placed) != total:
        raise SourceError(
            f"{counted(total - session.count(placed), 'row')} of the repairs name a file that the source does"
            f" not have; `{FILE}` and `{LINE}` must stay as they were exported."
        )
    if session.count(placed.select(*PLACE).distinct()) != total:
        raise SourceError(
            f"two rows of the repairs mend the same row: each `{FILE}` and `{LINE}` may come once."
        )
    return placed


def _refuse_unknown(table: ir.Table, read: ir.Table, session: EngineSession) -> None:
    lost = read.anti_join(table, [read[name] == table[name] for name in PLACE])
    if count := session.count(lost):
        raise SourceError(
            f"{counted(count, 'row')} of the repairs name a line that its file does not have; `{FILE}` and"
            f" `{LINE}` must stay as they were exported."
        )


def refuse_unnamed(lines: set[tuple[str, int]], left: int) -> None:
    """Check that every repair of a row that could not be read names one.

    Args:
        lines: file and line of the repairs.
        left: rejects that were left out for them.

    Raises:
        SourceError: one names no reject.
    """
    if len(lines) != left:
        raise SourceError(
            f"of {len(lines):,} repairs of rows that could not be read, only {left:,} name one of the"
            f" quarantine; `{FILE}` and `{LINE}` must stay as they were exported."
        )
