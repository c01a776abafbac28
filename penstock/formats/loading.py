"""Files that rows name: a column of paths or URLs becomes a column of the files' bytes, or texts.

A row whose file is not there, may not be read, is empty or too large is put aside with the reason; a row that
names none (a missing value) has none. A name that leads out of its root is refused, whoever wrote the table.
What is read is what the snapshot saw: a file that has changed since ends the run.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_FILE, ROW_NUMBER, Extract, SourceFile
from penstock.contracts.reading import Reject
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.core.store import as_store_error
from penstock.formats.archive import (
    Archive,
    DamagedMember,
    Entry,
    is_archive,
    open_archive,
)
from penstock.formats.file_columns import UNREAD, FileColumn, owners, prefix
from penstock.formats.groups import RowGroups, ahead
from penstock.formats.learnt import MISFIT
from penstock.formats.path_pattern import decoded, safe
from penstock.formats.places import is_remote
from penstock.formats.rejects import Rejects
from penstock.formats.steady import check_file, whole
from penstock.formats.tars import Tar

_BATCH_ROWS = 4_096
_LOOK_BYTES = 256 << 20
"""How much of a compressed tar is gone through for a look."""


# -- where files are read ------------------------------------------------------------------------------------


class _Place(ABC):
    """Where the files of one column are read from."""

    def __init__(self, load: FileColumn) -> None:
        self.load = load

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""

    def problem(self, name: str) -> str | None:
        """Why a file that is there cannot be read."""
        return None

    @abstractmethod
    def read(self, names: list[str], pool: ThreadPoolExecutor) -> list[bytes | str]:
        """The contents, in the order of `names`; for a file that cannot be read, the
        reason as a text.
        """


class _Loose(_Place):
    def __init__(self, load: FileColumn, files: Mapping[str, SourceFile]) -> None:
        super().__init__(load)
        self._files = files

    def size(self, name: str) -> int | None:
        file = self._files.get(name)
        return None if file is None else file.size_bytes

    def problem(self, name: str) -> str | None:
        # The snapshot has no hash where it could not read the file.
        return "may not be read" if self._files[name].sha256 == UNREAD else None

    def read(self, names: list[str], pool: ThreadPoolExecutor) -> list[bytes | str]:
        def portion(some: list[str]) -> list[bytes | str]:
            files = [self._files[name] for name in some]
            # a server may tell no size
            return [
                whole(file, sized=bool(file.size_bytes) or not self.load.urls)
                for file in files
            ]

        return [
            data
            # 32 files a task: one for each costs more than a small file's reading.
            for part in pool.map(
                portion, [names[i : i + 32] for i in range(0, len(names), 32)]
            )
            for data in part
        ]


class _Packed(_Place):
    """Files in an archive that is read by offset."""

    def __init__(self, load: FileColumn, archive: Archive) -> None:
        super().__init__(load)
        self._archive = archive
        self._entries: dict[str, Entry] = {}
        for entry in archive.entries():
            if entry.type in ("file", "odd"):
                name, unsafe = safe(entry.name)
                # A name that leads out of the archive can be named by no row.
                if unsafe is None:
                    self._entries[name] = (
                        entry  # as when unpacking, the last of one name counts
                    )

    def size(self, name: str) -> int | None:
        entry = self._entries.get(name)
        return None if entry is None else entry.size_bytes

    def problem(self, name: str) -> str | None:
        problem = self._entries[name].problem
        return None if problem is None else f"cannot be read: {problem}"

    def read(self, names: list[str], pool: ThreadPoolExecutor) -> list[bytes | str]:
        contents: dict[str, bytes | str] = {}
        # By their places: an archive on a disk or in a bucket is read from its beginning to its end.
        for name in sorted(names, key=lambda n: self._entries[n].offset):
            try:
                contents[name] = self._archive.read(self._entries[name])
            except DamagedMember as error:
                contents[name] = f"cannot be read: {error}"
        # In the order of `names`, with which the caller's rows go.
        return [contents[name] for name in names]


class _Held(_Place):
    """Files held in memory: what a look found in the beginning of a compressed tar."""

    def __init__(
        self, load: FileColumn, archive: Archive, wanted: set[str], most_bytes: int
    ) -> None:
        super().__init__(load)
        self._held: dict[str, bytes] = {}
        size = 0
        for entry in archive.entries():
            name, unsafe = safe(entry.name)
            if (
                entry.type == "file"
                and unsafe is None
                and name in wanted
                and entry.size_bytes <= load.max_bytes
            ):
                self._held[name] = archive.read(entry)
                size += entry.size_bytes
            # A look ends after enough bytes, and also where a long stretch of the tar
            # has nothing that is wanted.
            if size >= most_bytes or entry.offset >= _LOOK_BYTES:
                break

    def size(self, name: str) -> int | None:
        return len(self._held[name]) if name in self._held else None

    def read(self, names: list[str], pool: ThreadPoolExecutor) -> list[bytes | str]:
        return [self._held[name] for name in names]


def _place(
    column: str,
    load: FileColumn,
    start: str,
    files: Sequence[SourceFile],
    extract: Extract,
    scratch: Path,
    stack: ExitStack,
    events: Events,
    most_bytes: int | None,
) -> _Place:
    mine = {f.path.removeprefix(start): f for f in files if f.path.startswith(start)}
    if load.urls or not is_archive(load.root):
        return _Loose(load, mine)
    # An archive is one file of the snapshot, whatever it holds.
    file = next(iter(mine.values()))
    check_file(file)
    stack.callback(check_file, file)  # at the end, when all was read
    archive = stack.enter_context(
        open_archive(file.url, warn=lambda text: events.warn(f"{file.path} {text}"))
    )
    if archive.in_any_order:
        return _Packed(load, archive)
    # A look unpacks nothing: it keeps what is wanted as the tar passes.
    if most_bytes is not None:
        values = (
            pa.concat_tables(
                [pq.read_table(path, columns=[column]) for path in extract.parquet]
            )[column]
            .unique()
            .to_pylist()
        )
        return _Held(
            load,
            archive,
            {name for v in values if v is not None and (name := load.named(v)[0])},
            most_bytes,
        )
    assert isinstance(archive, Tar)
    events.say(
        f"{load.root} is a compressed tar, which can only be read from beginning to"
        " end, so it is unpacked to a temporary plain tar. A zip or plain tar needs"
        " no copy."
    )
    # In hex, since a column's name may have any character; cut, since a file's name may
    # have 255 bytes.
    copy = scratch / f"unpacked-{column.encode().hex()[:100]}.tar"
    with as_store_error(copy), open(copy, "wb") as target:
        archive.copy_to(target)
    # The stack is undone in reverse: the archive is closed before its copy is removed.
    stack.callback(copy.unlink)
    return _Packed(load, stack.enter_context(open_archive(str(copy))))


# -- rows ----------------------------------------------------------------------------------------------------


def load_columns(
    old: Extract,
    loads: Mapping[str, FileColumn],
    files: Sequence[SourceFile],
    scratch: Path,
    *,
    memory_bytes: int,
    events: Events,
    fails: Callable[[int], bool],
    most_bytes: int | None = None,
) -> Extract:
    """Read the files that the rows of an extract name, into a new extract.

    Args:
        old: what `extract` gave; its files are removed.
        loads: by column.
        files: the snapshot's, tables and loaded files.
        fails: whether a bad row of the table with this index ends the run.
        most_bytes: stop when so much was loaded (for a look); later rows are not there.

    Raises:
        SourceError: a file has changed since the snapshot, an archive is damaged, or columns do not fit.
    """
    schema = _schema(old.schema, loads)
    rejects = Rejects(scratch / "rejects-by-load.parquet")
    with as_store_error(scratch), ExitStack() as stack:
        scratch.mkdir(parents=True, exist_ok=True)
        # A network answers many requests at once; a disk is as fast with few.
        workers = 16 if any(is_remote(f.url) for f in files) else 4
        pool = stack.enter_context(
            ThreadPoolExecutor(workers, thread_name_prefix="penstock-load")
        )
        places = {}
        for owner, columns in owners(loads).items():
            for column in columns:
                places[column] = _place(
                    column,
                    loads[column],
                    prefix(owner),
                    files,
                    old,
                    scratch,
                    stack,
                    events,
                    most_bytes,
                )
        large = [load.as_ or column for column, load in loads.items()]
        # As in `file_rows`: many blocks are in memory at once.
        block = min(8 << 20, max(256 << 10, memory_bytes // 96))
        groups = RowGroups(scratch, _written(schema, old.misfits), block, large=large)
        try:
            # By table: how many of its rows were put aside so far.
            lost: dict[int, int] = {}
            loaded = 0
            for batch in ahead(_small_batches(old.parquet, places, block), 1):
                good = _loaded(
                    batch, places, groups.schema, pool, rejects, files, fails, lost
                )
                groups.add(good)
                loaded += good.nbytes
                events.progress("load", groups.rows + rejects.count, old.rows, "rows")
                if most_bytes is not None and loaded >= most_bytes:
                    break
            written = groups.close()
        except BaseException:
            groups.abandon()
            raise
        finally:
            reject_files = rejects.close()
    return _finished(old, written, schema, groups.rows, rejects, reject_files, events)


def _finished(
    old: Extract,
    written: Sequence[Path],
    schema: pa.Schema,
    rows: int,
    rejects: Rejects,
    reject_files: Sequence[Path],
    events: Events,
) -> Extract:
    """The new extract, in the place of `old`, whose files are removed."""
    # Only now: a run that fails before leaves what it was given.
    for path in old.parquet:
        Path(path).unlink()
    if rejects.count and not rows:
        events.warn(
            f"none of the {rejects.count:,} rows has its file. The first:"
            f" {rejects.first}. Check `load.root`."
        )
    return Extract(
        list(written),
        schema,
        [*old.rejects, *reject_files],
        rows,
        old.rejected + rejects.count,
        old.misfits,
    )


def _written(schema: pa.Schema, misfits: frozenset[str]) -> pa.Schema:
    """The columns as they are written: with texts that are not of a learnt type, and each row's place."""
    beside = [
        pa.field(MISFIT + name, pa.string()) for name in schema.names if name in misfits
    ]
    places = [pa.field(ROW_FILE, pa.int32()), pa.field(ROW_NUMBER, pa.int64())]
    return pa.schema([*schema, *beside, *places])


def _schema(schema: pa.Schema, loads: Mapping[str, FileColumn]) -> pa.Schema:
    for column, load in loads.items():
        kind = schema.field(column).type
        if not (
            pa.types.is_string(kind)
            # Names such as `17` are read as whole numbers.
            or pa.types.is_integer(kind)
            or pa.types.is_null(kind)
        ):
            raise SourceError(
                f"source.load.{column}: the column is {kind}, but it must hold texts or whole"
                " numbers that name files."
            )
        column_field = pa.field(
            load.as_ or column, pa.string() if load.text else pa.binary()
        )
        if load.as_ is None:
            schema = schema.set(schema.get_field_index(column), column_field)
        # Columns are united whatever the case of their letters, so a name must differ
        # by more.
        elif load.as_.lower() in {n.lower() for n in schema.names}:
            raise SourceError(
                f"source.load.{column}.as: there is a column {load.as_!r} already; choose another name, or"
                f" leave `as` out to replace {column!r}."
            )
        else:
            schema = schema.append(column_field)
    return schema


def _small_batches(
    parquet: Sequence[Path | str], places: Mapping[str, _Place], block: int
) -> Iterator[pa.RecordBatch]:
    """The rows, in batches whose files have about `block` bytes together."""
    for path in parquet:
        # Pre-buffering would read a whole row group ahead, which may be larger than the
        # memory that is ours.
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                named = [
                    (place, batch.column(column).to_pylist())
                    for column, place in places.items()
                ]
                start = size = 0
                for row in range(batch.num_rows):
                    for place, values in named:
                        name = (
                            None
                            if values[row] is None
                            else place.load.named(values[row])[0]
                        )
                        file_bytes = 0 if name is None else place.size(name) or 0
                        # A file above the limit is rejected unread, so it takes no
                        # room.
                        size += file_bytes if file_bytes <= place.load.max_bytes else 0
                    if size >= block:
                        yield batch.slice(start, row + 1 - start)
                        start, size = row + 1, 0
                if start < batch.num_rows:
                    yield batch.slice(start)


def _loaded(
    batch: pa.RecordBatch,
    places: Mapping[str, _Place],
    schema: pa.Schema,
    pool: ThreadPoolExecutor,
    rejects: Rejects,
    files: Sequence[SourceFile],
    fails: Callable[[int], bool],
    lost: dict[int, int],
) -> pa.RecordBatch:
    wrong: dict[int, tuple[str, str]] = {}
    contents: dict[str, list[bytes | str | None]] = {}
    for column, place in places.items():
        values, reasons = _contents(batch.column(column).to_pylist(), place, pool)
        contents[place.load.as_ or column] = values
        for row, reason in reasons.items():
            # A row that fails in several columns has the reason of the first.
            wrong.setdefault(row, (column, reason))
    file_of, number_of = (
        batch.column(ROW_FILE).to_pylist(),
        batch.column(ROW_NUMBER).to_pylist(),
    )
    numbers: list[int] = []
    for row in range(batch.num_rows):
        file = file_of[row]
        if row in wrong:
            column, reason = wrong[row]
            # The row as its table has it: with the name of its file, not the content.
            raw = batch.slice(row, 1).drop_columns([ROW_FILE, ROW_NUMBER]).to_pylist()[0]
            reject = Reject(
                # Rejects count lines from 1, rows are numbered from 0.
                number_of[row] + 1,
                reason,
                json.dumps(raw, ensure_ascii=False, default=str),
                column,
            )
            rejects.add(files[file].path, reject, fail=fails(file))
            lost[file] = lost.get(file, 0) + 1
        else:
            # Rows are numbered without gaps: who comes later counts them so.
            numbers.append(number_of[row] - lost.get(file, 0))
    arrays = [
        pa.array(contents[f.name], f.type) if f.name in contents else batch.column(f.name)
        for f in schema
        if f.name != ROW_NUMBER
    ]
    if wrong:
        # Contents and columns are equally long, so one mask drops the same rows from
        # all.
        keep = pa.array([row not in wrong for row in range(batch.num_rows)])
        arrays = [a.filter(keep) for a in arrays]
    return pa.RecordBatch.from_arrays(
        [*arrays, pa.array(numbers, pa.int64())], schema=schema
    )


def _contents(
    values: list[Any], place: _Place, pool: ThreadPoolExecutor
) -> tuple[list[bytes | str | None], dict[int, str]]:
    load = place.load
    contents: list[bytes | str | None] = [None] * len(values)
    reasons: dict[int, str] = {}
    rows: dict[int, str] = {}
    for row, value in enumerate(values):
        if value is None:
            continue
        name, refused = load.named(value)
        if name is None:
            reasons[row] = str(refused)
            continue
        size = place.size(name)
        if size is None:
            reasons[row] = f"its file {load.shown(name)} is not there"
        elif problem := place.problem(name):
            reasons[row] = f"its file {load.shown(name)} {problem}"
        elif size > load.max_bytes:
            reasons[row] = (
                f"its file {load.shown(name)} has {size:,} bytes, more than `max_bytes` ({load.max_bytes:,})"
            )
        else:
            rows[row] = name
    for (row, name), data in zip(
        rows.items(), place.read(list(rows.values()), pool), strict=True
    ):
        shown = load.shown(name)
        # A text is the reason why there is no content, which is always bytes.
        if isinstance(data, str):
            reasons[row] = f"its file {shown} {data}"
        elif len(data) > load.max_bytes:  # a server may tell no size
            reasons[row] = (
                f"its file {shown} has {len(data):,} bytes, more than `max_bytes` ({load.max_bytes:,})"
            )
        elif not load.text:
            # An empty text is a value; empty bytes are no picture.
            if data:
                contents[row] = data
            else:
                reasons[row] = f"its file {shown} is empty"
        else:
            try:
                contents[row] = decoded(data, load.encoding)[0]
            except ValueError as error:
                reasons[row] = f"its file {shown} {error}"
    return contents, reasons
