"""Many files, of a folder or inside archives → rows: a file is a row of `path`, what the path tells, and
`content`.

One pass over the bytes. What must be known before it (whether all files hold text, whether they lie in
subfolders) comes from the names alone: of a folder, of an archive's index, or, where a compressed tar has no
index and the recipe does not say, from a pass of its own over the tar's headers.

Rows of an archive are numbered in the archive's order, which its hash fixes.

Memory: files are read in portions of bytes, a few ahead; rows go to Parquet in batches of so many bytes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from penstock.contracts.data import ROW_FILE, ROW_NUMBER, Extract, SourceFile
from penstock.contracts.reading import Reject
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.core.store import as_store_error
from penstock.formats.archive import open_archive
from penstock.formats.file_items import Item, LeftOut, Some, archive_items, file_items
from penstock.formats.groups import RowGroups, ahead
from penstock.formats.rejects import Rejects
from penstock.formats.row_shape import (
    CONTENT,
    PATH,
    Gathering,
    Names,
    Shape,
    index,
    needs_names,
    shape_of,
)
from penstock.formats.steady import check_file

# Tiny files would make batches of millions of rows, if bytes alone were the limit.
_BATCH_ROWS = 8_192


def _warn_of(events: Events, path: str, text: str) -> None:
    events.warn(f"{path} {text}")


class Writer:
    """Writes items as Parquet, and those that cannot be rows as rejects, in bounded
    batches.
    """

    def __init__(
        self,
        shape: Shape,
        files: Sequence[SourceFile],
        scratch: Path,
        *,
        block: int,
        fail: bool,
    ) -> None:
        self._shape = shape
        self._files = files
        self._scratch = scratch
        self._block = block
        self._fail = fail
        schema = shape.schema()
        self.schema = schema.append(pa.field(ROW_FILE, pa.int32())).append(
            pa.field(ROW_NUMBER, pa.int64())
        )
        self.rejects = Rejects(scratch / "rejects.parquet")

    def batches(self, items: Iterable[Item]) -> Iterator[pa.RecordBatch]:
        """Good items as batches; the others go to the rejects."""
        portion: list[Item] = []
        size, file, number, numbers = 0, -1, 0, []
        for item in items:
            # Numbers begin at 0 in each file, and rejects take none, so that they have
            # no gaps.
            if item.file != file:
                file, number = item.file, 0
            if item.reason is not None:
                row = json.dumps({PATH: item.path, **item.values}, ensure_ascii=False)
                self.rejects.add(
                    self._files[item.file].path,
                    Reject(item.line, item.reason, row),
                    fail=self._fail,
                )
                continue
            portion.append(item)
            numbers.append(number)
            number += 1
            # 64 bytes stand for what a row takes beside its content and path.
            size += item.size_bytes + len(item.path) + 64
            if size >= self._block or len(portion) >= _BATCH_ROWS:
                yield self._batch(portion, numbers)
                portion, size, numbers = [], 0, []
        if portion:
            yield self._batch(portion, numbers)

    def _batch(self, items: list[Item], numbers: list[int]) -> pa.RecordBatch:
        text = pa.string()
        columns = [
            pa.array([i.values[name] for i in items], text)
            for name in self._shape.pattern.columns
        ]
        return pa.RecordBatch.from_arrays(
            [
                pa.array([i.path for i in items], text),
                *columns,
                pa.array([i.content for i in items], self.schema.field(CONTENT).type),
                pa.array([i.file for i in items], pa.int32()),
                pa.array(numbers, pa.int64()),
            ],
            schema=self.schema,
        )

    def write(self, items: Iterable[Item], events: Events, *, files: int) -> Extract:
        """Write all items, and return an extract of them."""
        with as_store_error(self._scratch):
            self._scratch.mkdir(parents=True, exist_ok=True)
            groups = RowGroups(
                self._scratch, self.schema, self._block, large=(PATH, CONTENT)
            )
            try:
                for batch in ahead(self.batches(items), 1):
                    groups.add(batch)
                    events.progress(
                        "extract",
                        # Rows come in the order of files, so the last row's file says
                        # how many are done.
                        batch.column(ROW_FILE)[-1].as_py() + 1,
                        files,
                        "files",
                        rows=groups.rows,
                    )
                parquet = groups.close()
            except BaseException:
                groups.abandon()
                raise
            finally:
                # Also on failure: the Parquet file of rejects is open until then.
                rejects = self.rejects.close()
            return Extract(
                list(parquet),
                self._shape.schema(),
                rejects,
                groups.rows,
                self.rejects.count,
            )


def gather_files(
    files: Sequence[SourceFile],
    how: Gathering,
    scratch: Path,
    *,
    memory_bytes: int,
    events: Events,
    named: Sequence[SourceFile] | None = None,
) -> Extract:
    """A row for each file of a folder. `ROW_FILE` is an index into `files`.

    Args:
        named: the files whose names decide what the rows look like, if not these.

    Raises:
        SourceError: a file cannot be read, or cannot be a row while `fail` is set.
    """
    names = Names()
    for file in named or files:
        names.add(file.path, file.size_bytes)
    shape = shape_of(how, names, events)
    block, guessed = _block(memory_bytes), LeftOut()
    extracted = Writer(shape, files, scratch, block=block, fail=how.fail).write(
        file_items(list(enumerate(files)), shape, how, guessed, block),
        events,
        files=len(files),
    )
    _reconcile(files, len(files), extracted)
    _tell(extracted, guessed, events)
    return extracted


def gather_archives(
    files: Sequence[SourceFile],
    how: Gathering,
    scratch: Path,
    *,
    memory_bytes: int,
    events: Events,
    names: Names | None = None,
    some: Some | None = None,
    within: int | None = None,
) -> Extract:
    """A row for each file in archives. `ROW_FILE` is an index into `files`.

    Args:
        names: what is in them, if it is known.
        some: take these only.
        within: of a compressed tar read so many bytes only.

    Raises:
        SourceError: an archive is damaged, holds nothing that is meant, or a file cannot be a row while
            `fail` is set.
    """
    # Once before the index is trusted, and again behind the last member: what is read
    # is what was hashed.
    for file in files:
        check_file(file)
    if names is None and needs_names(how):
        names = index(files, how)
        streams = [f.path for f in files if not _in_any_order(f)]
        if streams:
            events.say(
                f"{streams[0]}{(f' and {len(streams) - 1} more' if len(streams) > 1 else '')}:"
                " a compressed tar has no index, so it is read twice: first for names, then"
                " for files. Give `pattern` an ending (such as '**/*.jpg') to read it once."
            )
    shape = shape_of(how, names, events)
    left, guessed = LeftOut(), LeftOut()
    members = 0

    # Counted apart from the writer, so that `_reconcile` compares two independent
    # numbers.
    def items() -> Iterator[Item]:
        nonlocal members
        for i, file in enumerate(files):
            with open_archive(
                file.url, warn=functools.partial(_warn_of, events, file.path)
            ) as archive:
                for item in archive_items(
                    i, archive, shape, how, left, guessed, some=some, within=within
                ):
                    members += 1
                    yield item
            check_file(file)

    extracted = Writer(
        shape, files, scratch, block=_block(memory_bytes), fail=how.fail
    ).write(items(), events, files=len(files))
    where = files[0].path if len(files) == 1 else f"{len(files)} archives"
    # Rejects alone are an answer as well: files were meant, and the reasons are told.
    if not extracted.rows and not extracted.rejected:
        other = left.first.get("files that `pattern` does not match")
        wanted = (
            f"nothing in it matches `pattern` {how.pattern.text!r}; it has files such as {other!r}"
            if how.pattern is not None and other
            else "it has no files"
        )
        raise SourceError(f"{files[0].url if len(files) == 1 else where}: {wanted}.")
    _reconcile(files, members, extracted)
    left.say(where, events)
    _tell(extracted, guessed, events)
    return extracted


def _reconcile(files: Sequence[SourceFile], members: int, extracted: Extract) -> None:
    """Check that every file that is meant is a row or a reject.

    Raises:
        SourceError: some are neither.
    """
    if extracted.rows + extracted.rejected != members:
        where = (
            f"{files[0].url}{f' and {len(files) - 1:,} more' if len(files) > 1 else ''}"
        )
        raise SourceError(
            f"{where}: {members:,} files were expected, but {extracted.rows + extracted.rejected:,}"
            f" were read ({extracted.rows:,} rows, {extracted.rejected:,} bad): something changed"
            " while they were read. Run again; nothing was saved."
        )


def _tell(extracted: Extract, guessed: LeftOut, events: Events) -> None:
    for what, count in guessed.counts.items():
        events.warn(f"{count:,} {what}, such as {guessed.first[what]}.")


def _block(memory_bytes: int) -> int:
    # Portions, batches and row groups hold many blocks at once, so one block is a 96th
    # of the memory: 256 KiB to 8 MiB.
    return min(8 << 20, max(256 << 10, memory_bytes // 96))


def _in_any_order(file: SourceFile) -> bool:
    with open_archive(file.url) as archive:
        return archive.in_any_order
