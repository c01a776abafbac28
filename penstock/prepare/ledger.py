"""The ledger of a preparation: every row that comes in is written down under exactly one heading.

rows in = train + validation + test + quarantined + duplicates + filtered. A quarantined row is kept with its
reason, its file and row, and its values as JSON, so that it can be mended and replayed.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import re
import uuid
from bisect import bisect_right
from collections.abc import Iterable, Sequence, Set
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import (
    PLACE,
    REJECT_SCHEMA,
    ROW_FILE,
    ROW_ID,
    ROW_NUMBER,
    EngineSession,
    SourceFile,
    is_wide,
)
from penstock.contracts.judge import COLUMN, REASON
from penstock.core.errors import ContractError, PenstockError
from penstock.core.events import Events
from penstock.core.store import as_store_error
from penstock.core.wording import counted, without_values
from penstock.prepare.blob_store import BlobStore
from penstock.prepare.budget import batch_rows
from penstock.prepare.forgotten import ForgottenRows

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from penstock.prepare.checks import Check

HEADINGS = ("train", "validation", "test", "quarantined", "duplicates", "filtered")
RULES = "__p_rules"
"""The numbers of all rules that a row breaks, each with a blank behind it."""
DROPPED = "__p_dropped"
"""Whether a row is dropped by a rule, and put aside by none."""
QUARANTINE_SCHEMA = pa.schema(
    [
        *REJECT_SCHEMA,
        (
            "rules",
            pa.list_(
                pa.struct(
                    [
                        ("column", pa.string()),
                        ("rule", pa.string()),
                        ("expected", pa.string()),
                    ]
                )
            ),
        ),
        ("row_group", pa.int64()),
        ("offset", pa.int64()),
    ]
)
"""A quarantined row of a dataset: as a reader rejects it, with every rule that it breaks (`column` and
`reason` are of the first), and of a row of a Parquet file its row group and its place there, from 0.
"""
_JSON_ROWS = 8_192
_JSON_CELLS = 1 << 19
"""Values that are plain Python at once."""
_REJECT_BYTES = 16 << 20
_LARGE_ROWS = 32
"""At once, where rows have pictures."""
_OWN = (ROW_ID, *PLACE)
_QUOTED = re.compile(r"['\"].*['\"]", re.DOTALL)
WITHHELD = "[private]"
"""What a quarantined row, and a message, has in the place of a private value."""
_WHYS = 5
"""Reasons of the quarantine that one sentence gives."""
MOST_REASONS = 200
"""So many different reasons are counted apart; what comes later is counted by column."""
_ROW_SHOWN = 120
"""Characters of an example row."""


class Ledger:
    """Counts of rows by heading, and the writer of the quarantine file."""

    def __init__(self, folder: Path, files: Sequence[SourceFile]) -> None:
        """
        Args:
            folder: where `part-0.parquet` of the quarantine goes; made when the first row comes.
            files: the source's, by `ROW_FILE`.
        """
        self.counts = dict.fromkeys(HEADINGS, 0)
        self.reasons: dict[tuple[str, str, str], dict[str, Any]] = {}
        """By stage, column and reason (without the row's own value): the rows, and the first one's reason."""
        self._rows: dict[tuple[str, str, str], str] = {}
        """By the same: the first row, for a message alone. A manifest holds no row's values."""
        self.blobs: BlobStore | None = None
        """Where values wait that a row has stand-ins for; a quarantined row is kept with the values
        themselves.
        """
        self.withheld: frozenset[str] = frozenset()
        """Columns whose values a quarantined row is kept without: private ones, until they are hidden."""
        self.is_private = False
        """Whether rows that could not be read are kept without their text: nobody knows where in it a
        private column stands.
        """
        self.forgotten: ForgottenRows | None = None
        """Rows that are not kept, since they were forgotten; they count as filtered."""
        self._folder = folder
        self._paths = [file.path for file in files]
        self._groups = GroupIndex(files)
        self._writer: Any = None
        self._first: dict[tuple[str, str, str], tuple[int, int]] = {}
        """By reason: the place of its example."""

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *problem: object) -> None:
        if self._writer is not None:
            with as_store_error(self._folder):
                self._writer.close()

    def rejects(
        self, files: Iterable[Path], mended: Set[tuple[str, int]] = frozenset()
    ) -> int:
        """Write the rows that the source could not read to the quarantine; returns how many there
        were.

        Args:
            mended: file and line of those that are not written, since they were mended.
        """
        taken = 0
        for path in files:
            with pq.ParquetFile(path) as file:
                # A rejected row may be a whole line of any length.
                for batch in file.iter_batches(
                    batch_rows(file, _REJECT_BYTES, most=_JSON_ROWS)
                ):
                    rows = (
                        pa.Table.from_batches([batch])
                        .select(REJECT_SCHEMA.names)
                        # To the very types of the quarantine: each reader writes its
                        # rejects by itself.
                        .cast(REJECT_SCHEMA)
                    )
                    if mended:
                        places = zip(
                            rows["file"].to_pylist(),
                            rows["line"].to_pylist(),
                            strict=True,
                        )
                        rows = rows.filter(pa.array([p not in mended for p in places]))
                    self._write(_with_stages(self._without_text(rows)))
                    taken += len(rows)
        return taken

    def _without_text(self, rejects: pa.Table) -> pa.Table:
        if not self.is_private:
            return rejects
        reasons = [without_private(reason) for reason in rejects["reason"].to_pylist()]
        hidden = {
            "reason": pa.array(reasons, pa.string()),
            "row": pa.array([WITHHELD] * len(rejects), pa.string()),
        }
        for name, values in hidden.items():
            place = rejects.schema.get_field_index(name)
            rejects = rejects.set_column(place, rejects.schema.field(name), values)
        return rejects

    def sift(
        self,
        session: EngineSession,
        table: ir.Table,
        stage: str,
        marking: Sequence[Check] = (),
    ) -> ir.Table:
        """Write the rows of `table` that have a `REASON` to the quarantine; returns the others,
        without `COLUMN`, `REASON` and `RULES`.

        Args:
            marking: what the numbers in `RULES` mean, where the table has that column.

        The table is computed twice (once where no row has a reason), which is cheaper than keeping it.
        """
        # Both halves are filters of one table, so no row is in both or in neither.
        bad = table.filter(table[REASON].notnull())
        if not is_wide(table):
            # In the order of places, so that the first example is the same on every
            # engine.
            bad = bad.order_by(list(PLACE))
        # A quarantined row is written with its pictures, so few are held at once.
        most = (
            _LARGE_ROWS if self.blobs is not None and self.blobs.columns else _JSON_ROWS
        )
        # A batch becomes Python objects, so its cells are bounded as well as its rows.
        for batch in session.batches(
            bad, min(most, max(_JSON_CELLS // len(table.columns), 1))
        ):
            rows = pa.Table.from_batches([batch])
            # Places come along, since the rows of a wide table are not in order.
            self._write(self._told(rows, stage, marking), rows.select(PLACE))
        own = [name for name in (COLUMN, REASON, RULES) if name in table.columns]
        return table.filter(table[REASON].isnull()).drop(*own)

    def _told(self, rows: pa.Table, stage: str, marking: Sequence[Check]) -> pa.Table:
        own = (*_OWN, COLUMN, REASON, RULES, DROPPED)
        values = rows.drop_columns(
            # The row as it was given: without what Penstock has put to it.
            [name for name in own if name in rows.column_names]
        )
        numbers = rows[ROW_NUMBER].to_pylist()
        files = rows[ROW_FILE].to_pylist()
        spots = [self._groups.at(*place) for place in zip(files, numbers, strict=True)]
        rejects = pa.table(
            {
                "row_id": (
                    rows[ROW_ID].cast(pa.string())
                    if ROW_ID in rows.column_names
                    else pa.nulls(len(rows), pa.string())
                ),
                "file": [self._paths[i] for i in files],
                # People count from 1.
                "line": [number + 1 for number in numbers],
                "stage": [stage] * len(rows),
                "column": rows[COLUMN].cast(pa.string()),
                "reason": self._reasons(rows),
                "row": [
                    json.dumps(
                        plain(self._shown_values(row)),
                        ensure_ascii=False,
                    )
                    for row in values.to_pylist()
                ],
            },
            schema=REJECT_SCHEMA,
        )
        if RULES not in rows.column_names:
            return _with_stages(rejects, spots)
        broken = [_rules(numbers, marking) for numbers in rows[RULES].to_pylist()]
        return _whole(rejects, broken, spots)

    def _shown_values(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row's values, whole; private ones are withheld."""
        # Whole values: who mends the row has no use for a digest.
        whole = self.blobs.whole(row) if self.blobs else row
        return {
            name: WITHHELD if name in self.withheld and value is not None else value
            for name, value in whole.items()
        }

    def _reasons(self, rows: pa.Table) -> pa.Array:
        """Why each row is put aside; of a private column without its value."""
        reasons = rows[REASON].cast(pa.string()).to_pylist()
        if self.withheld:
            columns = rows[COLUMN].cast(pa.string()).to_pylist()
            reasons = [
                without_private(reason) if column in self.withheld else reason
                for column, reason in zip(columns, reasons, strict=True)
            ]
        return pa.array(reasons, pa.string())

    def _write(self, rows: pa.Table, places: pa.Table | None = None) -> None:
        """
        Args:
            places: of the rows, where they do not come in their order: a reason's example is of the first row
                that has it.
        """
        if self.forgotten is not None:
            stays = [not self.forgotten.has_text(t) for t in rows["row"].to_pylist()]
            self.counts["filtered"] += stays.count(False)
            rows = rows.filter(pa.array(stays, pa.bool_()))
            places = (
                None if places is None else places.filter(pa.array(stays, pa.bool_()))
            )
        if not len(rows):
            return
        with as_store_error(self._folder):
            # With the first row, so that there is no empty quarantine.
            if self._writer is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(
                    self._folder / "part-0.parquet",
                    QUARANTINE_SCHEMA,
                    compression="zstd",
                )
            self._writer.write_table(rows)
        self.counts["quarantined"] += len(rows)
        # Rejects have no place of their own; the reader gives them in order.
        spots = (
            list(zip(*(places[name].to_pylist() for name in PLACE), strict=True))
            if places is not None
            else [None] * len(rows)
        )
        entries = zip(
            rows["stage"].to_pylist(),
            rows["column"].to_pylist(),
            rows["reason"].to_pylist(),
            map(_shown, rows.select(("file", "line", "row")).to_pylist()),
            spots,
            strict=True,
        )
        for stage, column, reason, row, spot in entries:
            key = self._key(stage, column or "", reason)
            entry = self.reasons.setdefault(
                key,
                {"stage": stage, "column": column, "rows": 0, "example": reason},
            )
            self._rows.setdefault(key, row)
            entry["rows"] += 1
            # The example is that of the first row in the source, so that it does not
            # depend on the engine.
            if spot is not None and spot <= self._first.setdefault(key, spot):
                self._first[key], self._rows[key] = spot, row
                entry["example"] = reason

    def _key(self, stage: str, column: str, reason: str) -> tuple[str, str, str]:
        """What rows are counted together under: with too many reasons, the column alone."""
        key = (stage, column, without_values(reason))
        is_counted = key in self.reasons or len(self.reasons) < MOST_REASONS
        return key if is_counted else (stage, column, "")

    def why(self) -> str:
        """The commonest reasons in words, each with its first row."""
        often = sorted(self.reasons.items(), key=lambda item: -item[1]["rows"])
        lines = [
            f"{counted(entry['rows'], 'row')} at {entry['stage']}"
            f" ({entry['column'] + ': ' if entry['column'] else ''}{entry['example']})"
            f", such as {self._rows[key]}"
            for key, entry in often[:_WHYS]
        ]
        rest = len(often) - len(lines)
        more = f"; and {counted(rest, 'more reason')}" if rest else ""
        return "; ".join(lines) + more if lines else "none were"

    def warn(self, events: Events) -> None:
        """Say how many rows are in quarantine, and why; nothing where none is."""
        rows = self.counts["quarantined"]
        if rows:
            events.warn(
                f"{counted(rows, 'row')} {'is' if rows == 1 else 'are'} in quarantine: {self.why()}",
                rows=rows,
            )

    def balance(self, rows_in: int) -> dict[str, int]:
        """The counts, with `in`.

        Raises:
            PenstockError: they do not add up; a row was lost, which is a defect of ours.
        """
        # Every row has one heading; a sum that differs means that one was lost or
        # doubled.
        if sum(self.counts.values()) != rows_in:
            raise PenstockError(
                f"rows do not add up: {rows_in:,} came in, but {self.sentence()} makes"
                f" {sum(self.counts.values()):,}. This is a defect of Penstock; nothing was written."
            )
        return {"in": rows_in, **self.counts}

    def sentence(self) -> str:
        """All counts as one sum, for messages: `30,000 train + 2 quarantined`."""
        return " + ".join(
            f"{count:,} {heading}" for heading, count in self.counts.items()
        )


def _rules(numbers: str, marking: Sequence[Check]) -> list[dict[str, Any]]:
    """The rules that a row breaks, by their numbers."""
    checks = [marking[int(number)] for number in numbers.split()]
    return [
        {"column": check.column, "rule": check.what, "expected": check.expected}
        for check in checks
    ]


Spot = tuple[int | None, int | None]
"""A row group, and the row's place in it, where they are known."""


def _with_stages(rows: pa.Table, spots: Sequence[Spot] | None = None) -> pa.Table:
    """Rows that no rule of the contract put aside: what they break is the stage itself."""
    pairs = zip(rows["column"].to_pylist(), rows["stage"].to_pylist(), strict=True)
    broken = [[{"column": c, "rule": s, "expected": None}] for c, s in pairs]
    return _whole(rows, broken, spots or [(None, None)] * len(rows))


def _whole(
    rows: pa.Table, broken: Sequence[Sequence[dict[str, Any]]], spots: Sequence[Spot]
) -> pa.Table:
    kinds = [QUARANTINE_SCHEMA.field(n).type for n in ("rules", "row_group", "offset")]
    return pa.Table.from_arrays(
        [
            *rows.columns,
            pa.array(broken, kinds[0]),
            pa.array([group for group, _ in spots], kinds[1]),
            pa.array([offset for _, offset in spots], kinds[2]),
        ],
        schema=QUARANTINE_SCHEMA,
    )


class GroupIndex:
    """Where rows of Parquet files stand: their row groups are read once a row is asked for."""

    def __init__(self, files: Sequence[SourceFile]) -> None:
        self._files = files
        self._starts: dict[int, list[int]] = {}

    def at(self, file: int, row: int) -> Spot:
        """The row group of a row, and its place there; nothing of files of other formats, or far away."""
        if file not in self._starts:
            self._starts[file] = self._read(self._files[file])
        starts = self._starts[file]
        if len(starts) < 2 or not 0 <= row < starts[-1]:
            return None, None
        group = bisect_right(starts, row) - 1
        return group, row - starts[group]

    @staticmethod
    def _read(file: SourceFile) -> list[int]:
        path = Path(file.url.removeprefix("file://"))
        if path.suffix.lower() not in (".parquet", ".pq") or not path.is_file():
            return []
        try:
            groups = pq.read_metadata(path)
        except pa.ArrowException:
            return []
        rows = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
        return [0, *accumulate(rows)]


def _shown(reject: dict[str, Any]) -> str:
    """Where a quarantined row stands in the source, and its beginning."""
    place = "" if reject["line"] is None else f"line {reject['line']:,} of "
    text = reject["row"] or ""
    row = text if len(text) <= _ROW_SHOWN else f"{text[:_ROW_SHOWN]} …"
    return f"{place}{reject['file'] or 'the source'}: {row}"


def without_private(reason: str) -> str:
    """A reason without any part of the row's values, even where they have quotes in them."""
    return without_values(_QUOTED.sub("…", reason))


def plain(value: Any) -> Any:
    """A row's value as JSON has it, nothing lost: exact decimals and times as text, bytes as base64."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        # JSON has no word for NaN and infinity.
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (decimal.Decimal, datetime.timedelta, uuid.UUID)):
        return str(value)
    raise ContractError(
        f"a value of type {type(value).__name__} cannot be written to the quarantine"
    )
