"""Many files → one set of columns in plain Parquet, and rejects. Told top to bottom in `extract`.

Two passes: every file is scanned; the columns are united by name (first spelling wins; a column that a file
lacks is missing there) and typed by all the data; then every row is written once, with `ROW_FILE` and
`ROW_NUMBER`. Where a type proves too narrow (`Widen`), the second pass begins again with that column as text,
and says so.

Folders called `name=value` below the root (Hive's layout) give a column `name`, unless the file has one.

Memory: blocks of bytes in flight × workers, one row group in the writer; nothing grows with the data but the
scratch folder, which holds CSV cells as compressed Arrow between the passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from penstock.contracts.data import Extract
from penstock.contracts.learnt import Learnt
from penstock.contracts.reading import Reader, RowReader
from penstock.core.cores import usable_cores
from penstock.core.errors import NoRows, SourceError
from penstock.core.events import Events
from penstock.core.store import as_store_error
from penstock.formats.column_plan import ColumnPlan, Partition, plan_columns
from penstock.formats.draw import Draw
from penstock.formats.excerpts import excerpt
from penstock.formats.extract_rows import Written, is_told, unchanged, write_rows
from penstock.formats.groups import GROUP_BYTES
from penstock.formats.reader import Context, FileReader, Input, ScannedReader
from penstock.formats.rejects import Rejects
from penstock.formats.shelf import readers as built_in
from penstock.formats.shelf import readers_of
from penstock.formats.streamed import Streamed
from penstock.formats.texts import format_of

_SAMPLE_WHOLE_BYTES = 1 << 30
"""Of a batch that a file holds in one piece, where a sample of it is read."""
SAMPLE_BYTES = 64 << 20
"""Of a sample, whatever rows it was asked for: values as columns, and some bytes for each, be it missing."""
_LOOK_BYTES = 128 << 10
"""A block of a sample: it ends early, so that large blocks would be read for nothing."""


def extract(
    inputs: Sequence[Input],
    scratch: Path,
    *,
    memory_bytes: int,
    events: Events,
    limit: int | None = None,
    limit_bytes: int = SAMPLE_BYTES,
    learnt: Learnt | None = None,
    draw: Draw | None = None,
) -> Extract:
    """Read every row of the files into Parquet under `scratch`; put bad rows aside.

    Args:
        inputs: in the order of the snapshot: `ROW_FILE` is an index into them.
        memory_bytes: what all of it may take.
        limit: read about so many rows of each file only, and
        limit_bytes: with `limit`, about so many bytes of each: fewer rows where they are wide, which
            `Extract.cut` says.
        learnt: the types that columns have, whatever these files look like; what is not of its column's type
            is a text in a column `MISFIT` + name, for the columns in the extract's `misfits`.
        draw: write those rows alone that it draws.

    Raises:
        SourceError: a file cannot be read as a whole, or a row is bad and its `on_bad_row` is `fail`.
    """
    # Blocks in flight are held several times over (bytes, cells, columns), by each worker: hence the divisor.
    workers = min(4, usable_cores())
    block = min(8 << 20, max(256 << 10, memory_bytes // (96 * workers)))
    with as_store_error(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        rejects = Rejects(scratch / "rejects.parquet")
        context = Context(
            scratch,
            rejects,
            events,
            block if limit is None else _LOOK_BYTES,
            workers,
            limit,
            limit_bytes,
            batch_bytes=min(GROUP_BYTES, max(4 << 20, memory_bytes // 24)),
            value_bytes=max(64 << 20, memory_bytes // 4),
            whole_bytes=memory_bytes // 2
            if limit is None and draw is None
            else max(memory_bytes, _SAMPLE_WHOLE_BYTES),
            draw=draw,
        )
        readers: list[FileReader] = []
        try:
            for input in inputs:
                # Each once before it is read, and again behind its last row: what is
                # read is what was hashed.
                unchanged(input)
                readers.append(_open(input, context))
            plan, partitions = _first_pass(readers, events, learnt)
            written = write_rows(readers, partitions, plan, context, block)
            return _extracted(inputs, readers, plan, written, rejects, events)
        # In any case: scratch files and the spool are gone also where a file is
        # refused.
        finally:
            rejects.close()
            for reader in readers:
                reader.close()
            context.spool.close()


def _open(input: Input, context: Context) -> FileReader:
    """The reader of one file: by the format that the recipe names, else by the file itself."""
    declared = input.reading.format
    if declared != "auto" and input.size_bytes == 0:
        raise SourceError(f"{input.url} is empty: it has no rows and no columns.")
    # `auto` looks at the file itself: its first bytes may prove another format than its
    # ending.
    reader = built_in()[format_of(input.url)] if declared == "auto" else declared
    if isinstance(reader, ScannedReader):
        file = reader.open(input, context)
        part = excerpt(file, context.scratch) if "encoding" in reader.words else None
        if part is not None:
            file = reader.open(part, context)
            file.is_part = True
    elif isinstance(reader, RowReader):
        file = Streamed(reader, input, context)
    else:
        raise _no_rows_in(input, reader)
    file.words = reader.words
    return file


def _no_rows_in(input: Input, reader: Reader) -> SourceError:
    return SourceError(
        f"{input.path}: the reader {reader.type!r} can recognise files but not read"
        " them. Derive it from `RowReader` (penstock.contracts.reading), with a"
        " method `read`."
    )


def _first_pass(
    readers: list[FileReader], events: Events, learnt: Learnt | None
) -> tuple[ColumnPlan, list[Partition]]:
    """Look over every file, then decide on the columns that all have together."""
    # By class, since files of one format decide together on headers and delimiters.
    by_class: dict[type[FileReader], list[FileReader]] = {}
    for reader in readers:
        by_class.setdefault(type(reader), []).append(reader)
    for kind, files in by_class.items():
        kind.agree(files)
    for i, reader in enumerate(readers):
        reader.scan()
        if is_told(i + 1, len(readers)):
            # Two passes: scanning is the first half of each file.
            events.progress("extract", (i + 1) / 2, len(readers), "files")
    # Once all are scanned: columns of JSON follow from the values of all files.
    for reader in readers:
        reader.settle()
    if not readers:
        raise SourceError("the source has no files.")
    _refuse_idle_words(readers)
    partitions = [_partitions(reader) for reader in readers]
    return plan_columns(readers, partitions, events, learnt), partitions


def _extracted(
    inputs: Sequence[Input],
    readers: list[FileReader],
    plan: ColumnPlan,
    written: Written,
    rejects: Rejects,
    events: Events,
) -> Extract:
    """What came of it, in words and numbers."""
    # Rows of a wrong type, found in the second pass, are counted with those that could
    # not be read.
    rejected = rejects.count + written.late.count
    if not written.rows and not rejected:
        raise _no_rows(inputs, readers, plan.schema())
    if not written.rows:
        events.warn(
            f"none of the {rejected} rows could be read. The first:"
            f" {rejects.first or written.late.first}."
        )
    return Extract(
        parquet=list(written.files),
        schema=plan.schema(),
        rejects=[*rejects.close(), *written.late.close()],
        rows=written.rows,
        rejected=rejected,
        misfits=frozenset(plan.misfits),
        cut=written.cut,
        declared=_declared(readers),
    )


def _declared(readers: Sequence[FileReader]) -> int | None:
    """How many rows all files say they have, the bad ones among them; None where one says nothing."""
    known = [None if reader.is_part else reader.declared for reader in readers]
    return None if None in known else sum(filter(None, known))


def _no_rows(
    inputs: Sequence[Input], readers: list[FileReader], schema: pa.Schema
) -> NoRows:
    is_headed = any(reader.columns for reader in readers)
    error = NoRows(
        f"{_all(inputs)} no rows: only {'headers' if is_headed else 'blank lines'}. Name files with data in"
        " them."
    )
    error.schema = schema if is_headed else None
    return error


def _all(inputs: Sequence[Input]) -> str:
    return (
        f"{inputs[0].url} has"
        if len(inputs) == 1
        else f"{inputs[0].path} and {len(inputs) - 1} more files have"
    )


def _refuse_idle_words(readers: list[FileReader]) -> None:
    """Refuse words that none of the files they are said of understands: they would be ignored.

    Raises:
        SourceError: naming the words and the formats that they are for.
    """
    by_words: dict[tuple[str, ...], list[FileReader]] = {}
    for reader in readers:
        given = [
            word
            for word in reader.input.reading.for_some()
            # Inherited words are no demand of the user's.
            if word not in reader.input.inherited
        ]
        by_words.setdefault(tuple(given), []).append(reader)
    for words, members in by_words.items():
        understood = {word for member in members for word in member.words}
        idle = [word for word in words if word not in understood]
        if not idle:
            continue
        # Words for other formats than the first one's are told next time: a sentence is of one thing.
        formats = readers_of(idle[0])
        idle = [word for word in idle if readers_of(word) == formats]
        is_one = len(idle) == 1
        raise SourceError(
            f"source: {', '.join(idle)} {'is' if is_one else 'are'} for {', '.join(formats)}, but"
            f" {members[0].input.path} is of another format; leave {'it' if is_one else 'them'} out, or set"
            " `format`."
        )


def _partitions(reader: FileReader) -> Partition:
    partition: Partition = {}
    names = {n.lower() for n in reader.columns}
    chosen = reader.input.reading.columns
    for step in reader.input.path.split("/")[:-1]:
        name, equals, value = step.partition("=")
        name = reader.input.reading.rename.get(name, name)
        if (
            equals
            and name
            # The file's own column wins over what a folder's name says.
            and name.lower() not in names
            and (not chosen or name in chosen)
        ):
            reader.raw_names.add(step.partition("=")[0])
            partition[name] = (
                # Hive's word for a missing value; other values are escaped as in URLs.
                None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
            )
    return partition
