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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa

from penstock.contracts.data import ROW_FILE, ROW_NUMBER, Extract, SourceFile
from penstock.contracts.reading import Reject
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.core.store import as_store_error
from penstock.formats.archive import Archive, DamagedMember, Entry, open_archive
from penstock.formats.files import is_remote, spread
from penstock.formats.groups import RowGroups, ahead
from penstock.formats.path_pattern import (
    ParentFolder,
    Pattern,
    decoded,
    hidden,
    is_text,
    safe,
)
from penstock.formats.rejects import Rejects
from penstock.formats.steady import check_file, whole

PATH, CONTENT = "path", "content"
# Tiny files would make batches of millions of rows, if bytes alone were the limit.
_BATCH_ROWS = 8_192
# Files that a thread reads in one go: handing over each small one would cost more than
# reading it.
_PORTION_FILES = 256
_SHOWN = 3


@dataclass(frozen=True)
class Gathering:
    """How files become rows."""

    pattern: Pattern | None = None
    """None: every file, and the folder it is in."""
    content: Literal["auto", "bytes", "text"] = "auto"
    encoding: str = "utf-8"
    max_bytes: int = 64 << 20
    fail: bool = False
    """Whether a file that cannot be a row ends the run."""


@dataclass
class Names:
    """What the names of all files tell: how many there are, in folders and of text, and
    their bytes.
    """

    files: int = 0
    in_folders: int = 0
    texts: int = 0
    size_bytes: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, path: str, size_bytes: int) -> None:
        """Count the file at `path`; the first few are shown to the user by name."""
        self.files += 1
        self.in_folders += "/" in path
        self.texts += is_text(path)
        self.size_bytes += size_bytes
        if len(self.shown) < _SHOWN:
            self.shown.append(path)


@dataclass(frozen=True)
class Some:
    """A sample: `wanted` of `files`, spread evenly."""

    wanted: int
    files: int

    def has(self, line: int) -> bool:
        """Whether the file number `line`, from 1, is one of them."""
        # The whole part of `line * wanted / files` grows by one exactly `wanted` times,
        # evenly spread.
        return line * self.wanted // self.files > (line - 1) * self.wanted // self.files


@dataclass(frozen=True)
class Shape:
    """The columns of the rows: those of the pattern, and whether content is text or
    bytes.
    """

    pattern: Pattern | ParentFolder
    text: bool

    def schema(self) -> pa.Schema:
        """The schema of a table of files: path, the pattern's columns, content as text or bytes."""
        content = pa.string() if self.text else pa.binary()
        return pa.schema(
            [
                (PATH, pa.string()),
                *((name, pa.string()) for name in self.pattern.columns),
                (CONTENT, content),
            ]
        )


@dataclass
class LeftOut:
    """Counts the files that are no rows, by kind, with the first of each kind."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, path: str) -> None:
        """Count the file at `path` as left out. `what`: what such files are called in the sentence."""
        self.counts[what] += 1
        self.first.setdefault(what, path)

    def say(self, where: str, events: Events) -> None:
        """Say in one sentence how many files of each kind were left out of `where`, if there are any."""
        if self.counts:
            told = "; ".join(
                f"{n:,} {what}, such as {self.first[what]}"
                for what, n in sorted(self.counts.items())
            )
            events.say(f"left out of {where}: {told}.")


@dataclass(slots=True)
class Item:
    """A file that is a row, or cannot be one."""

    file: int
    """Index into the snapshot's files."""
    line: int
    """From 1, among the files of an archive that are meant."""
    path: str
    values: Mapping[str, str | None]
    content: bytes | str | None
    reason: str | None
    size_bytes: int = 0


# -- what is known before ------------------------------------------------------------------------------------


def shape_of(how: Gathering, names: Names | None, events: Events | None = None) -> Shape:
    """Decide on the columns, and on text or bytes; tell the user what was chosen.

    Raises:
        SourceError: an encoding is given for files that are no texts.
    """
    events = events or Events()
    pattern: Pattern | ParentFolder
    if how.pattern is not None:
        pattern = how.pattern
    else:
        assert names is not None
        pattern = ParentFolder(folders=names.in_folders > 0)
        if names.in_folders:
            events.say(
                "each file is a row; its `label` is the name of the folder it is in (say otherwise with"
                " `pattern`)."
            )
    if how.content != "auto":
        text = how.content == "text"
    elif pattern.ending:
        # `x` stands for a name: a bare `.txt` would be a hidden file without an ending.
        text = is_text(f"x{pattern.ending}")
    else:
        assert names is not None
        # Without any file there is no evidence of text, hence the zero on the left.
        text = 0 < names.texts == names.files
        if 0 < names.texts < names.files:
            events.warn(
                f"{names.texts:,} of {names.files:,} files have an ending of text, the others not; all are"
                " read as bytes. Narrow `pattern`, or set `content`."
            )
    if not text and how.encoding != "utf-8":
        raise SourceError(
            f"source.encoding: {how.encoding} is given, but the files are read as bytes (their endings name"
            " no text). Set `content: text`, or leave `encoding` out."
        )
    return Shape(pattern, text)


def needs_names(how: Gathering) -> bool:
    """Whether the names of all files must be known before the first is read."""
    return how.pattern is None or (how.content == "auto" and not how.pattern.ending)


def index(
    files: Sequence[SourceFile], how: Gathering, *, within: int | None = None
) -> Names:
    """Count the files in archives by their names, from indexes or headers.

    Args:
        within: of a compressed tar look at so many bytes only.
    """
    names = Names()
    # Without folders it matches every file, so all are counted.
    pattern = how.pattern or ParentFolder(folders=False)
    for file in files:
        with open_archive(file.url) as archive:
            for entry in _entries(archive, within):
                path, _ = safe(entry.name)
                if (
                    # What is odd becomes a reject, so it is a file that is meant; links
                    # and devices are left out.
                    entry.type in ("file", "odd")
                    and not hidden(path)
                    and pattern.match(path) is not None
                ):
                    names.add(path, entry.size_bytes)
    return names


def _warn_of(events: Events, path: str, text: str) -> None:
    events.warn(f"{path} {text}")


def _entries(archive: Archive, within: int | None) -> Iterator[Entry]:
    for entry in archive.entries():
        # A compressed tar has no index: every member further on costs the unpacking of
        # all before it.
        if within is not None and not archive.in_any_order and entry.offset > within:
            return
        yield entry


# -- items ---------------------------------------------------------------------------------------------------


def _judge(
    data: bytes | None, size: int, shape: Shape, how: Gathering
) -> tuple[bytes | str | None, str | None, bool]:
    """Decode a file's bytes. Returns its content, or the reason why there is none, and
    whether the encoding was guessed.
    """
    if data is None:
        return (
            None,
            f"has {size:,} bytes, more than `max_bytes` ({how.max_bytes:,})",
            False,
        )
    if not shape.text:
        # An empty text is a value; empty bytes are no picture.
        return (data, None, False) if data else (None, "is empty", False)
    try:
        text, guessed = decoded(data, how.encoding)
    except ValueError as error:
        return None, str(error), False
    return text, None, guessed


def archive_items(
    index: int,
    archive: Archive,
    shape: Shape,
    how: Gathering,
    left: LeftOut,
    guessed: LeftOut,
    *,
    some: Some | None = None,
    within: int | None = None,
) -> Iterator[Item]:
    """The rows of one archive, in its order; links, devices and what the pattern does not mean are left out,
    counted.
    """
    # Hashes take less memory than a million names; a collision costs a wrong notice,
    # never a row.
    seen: set[int] = set()
    line = 0
    for entry in _entries(archive, within):
        path, unsafe = safe(entry.name)
        values = (
            None if entry.type == "folder" or hidden(path) else shape.pattern.match(path)
        )
        # What is passed over for its name or kind is held against its own header: a
        # damaged entry must not lose a row in silence.
        if values is None or entry.type in ("link", "device"):
            archive.check(entry)
        if entry.type == "folder" or hidden(path):
            continue
        if values is None:
            left.add("files that `pattern` does not match", path)
            continue
        if entry.type in ("link", "device"):
            left.add(f"{entry.type}s", path)
            continue
        # Counted before a sample leaves it out, so that a reject has the same line in a
        # sample and in a full read.
        line += 1
        if some is not None and not some.has(line):
            continue
        if hash(path) in seen:
            left.add("second files of one name (which are rows all the same)", path)
        seen.add(hash(path))
        reason, content, guess = unsafe or entry.problem, None, False
        if reason is None:
            try:
                # By the size that the archive states: a member that is too large is
                # never held.
                data = archive.read(entry) if entry.size_bytes <= how.max_bytes else None
                content, reason, guess = _judge(data, entry.size_bytes, shape, how)
            except DamagedMember as error:
                reason = str(error)
        if guess:
            guessed.add(
                "files that are not UTF-8, read as Latin-1 (set `encoding` if letters look wrong)",
                path,
            )
        yield Item(
            index,
            line,
            path,
            values,
            content,
            None if reason is None else f"{path}: {reason}",
            entry.size_bytes,
        )


def file_items(
    files: Sequence[tuple[int, SourceFile]],
    shape: Shape,
    how: Gathering,
    guessed: LeftOut,
    block: int,
) -> Iterator[Item]:
    """The rows of files that lie in a folder, read by several threads, in order."""
    for (i, file), data in read_ahead(files, how.max_bytes, block):
        values = shape.pattern.match(file.path)
        if values is None:
            raise AssertionError(
                f"{file.path} is in the snapshot, but the pattern does not match it"
            )
        content, reason, guess = _judge(data, file.size_bytes, shape, how)
        if guess:
            guessed.add(
                "files that are not UTF-8, read as Latin-1 (set `encoding` if letters look wrong)",
                file.path,
            )
        yield Item(i, 1, file.path, values, content, reason, file.size_bytes)


def read_ahead(
    files: Sequence[tuple[int, SourceFile]], max_bytes: int, block: int
) -> Iterator[tuple[tuple[int, SourceFile], bytes | None]]:
    """Each file's bytes (None where there are more than `max_bytes`), in order, a few portions ahead.

    Raises:
        SourceError: a file is gone or has changed since the snapshot.
    """
    if not files:
        return
    # The files of one folder lie in one place, so the first speaks for all.
    remote = is_remote(files[0][1].url)
    for portion, contents in spread(
        # Half a block each, since several portions are in memory at once.
        _portions(files, block // 2),
        lambda portion: _read_portion(portion, max_bytes),
        workers=16 if remote else 4,
        waits=remote,
    ):
        yield from zip(portion, contents, strict=True)


def _portions(
    files: Iterable[tuple[int, SourceFile]], most_bytes: int
) -> Iterator[list[tuple[int, SourceFile]]]:
    held: list[tuple[int, SourceFile]] = []
    size = 0
    for pair in files:
        held.append(pair)
        size += pair[1].size_bytes
        if len(held) >= _PORTION_FILES or size >= most_bytes:
            yield held
            held, size = [], 0
    if held:
        yield held


def _read_portion(
    portion: list[tuple[int, SourceFile]], max_bytes: int
) -> list[bytes | None]:
    # None stands for a file above the limit, which is never opened.
    return [None if file.size_bytes > max_bytes else whole(file) for _, file in portion]


# -- rows ----------------------------------------------------------------------------------------------------


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
        held: list[Item] = []
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
            held.append(item)
            numbers.append(number)
            number += 1
            # 64 bytes stand for what a row takes beside its content and path.
            size += item.size_bytes + len(item.path) + 64
            if size >= self._block or len(held) >= _BATCH_ROWS:
                yield self._batch(held, numbers)
                held, size, numbers = [], 0, []
        if held:
            yield self._batch(held, numbers)

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
                made = groups.close()
            except BaseException:
                groups.abandon()
                raise
            finally:
                # Also on failure: the Parquet file of rejects is open until then.
                rejects = self.rejects.close()
            return Extract(
                list(made), self._shape.schema(), rejects, groups.rows, self.rejects.count
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
    made = Writer(shape, files, scratch, block=block, fail=how.fail).write(
        file_items(list(enumerate(files)), shape, how, guessed, block),
        events,
        files=len(files),
    )
    _reconcile(files, len(files), made)
    _tell(made, guessed, events)
    return made


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
                f"{streams[0]}{f' and {len(streams) - 1} more' if len(streams) > 1 else ''}: a compressed tar"
                " has no index, so it is read twice: names first, then files. Give `pattern` with an ending"
                " (such as '**/*.jpg') to have it read once."
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

    made = Writer(shape, files, scratch, block=_block(memory_bytes), fail=how.fail).write(
        items(), events, files=len(files)
    )
    where = files[0].path if len(files) == 1 else f"{len(files)} archives"
    # Rejects alone are an answer as well: files were meant, and the reasons are told.
    if not made.rows and not made.rejected:
        other = left.first.get("files that `pattern` does not match")
        wanted = (
            f"nothing in it matches `pattern` {how.pattern.text!r}; it has files such as {other!r}"
            if how.pattern is not None and other
            else "it has no files"
        )
        raise SourceError(f"{files[0].url if len(files) == 1 else where}: {wanted}.")
    _reconcile(files, members, made)
    left.say(where, events)
    _tell(made, guessed, events)
    return made


def _reconcile(files: Sequence[SourceFile], members: int, made: Extract) -> None:
    """Check that every file that is meant is a row or a reject.

    Raises:
        SourceError: some are neither.
    """
    if made.rows + made.rejected != members:
        where = (
            f"{files[0].url}{f' and {len(files) - 1:,} more' if len(files) > 1 else ''}"
        )
        raise SourceError(
            f"{where}: {members:,} files are meant, and {made.rows + made.rejected:,} came of them"
            f" ({made.rows:,} rows, {made.rejected:,} bad): something changed while they were read. Run"
            " again; nothing was kept."
        )


def _tell(made: Extract, guessed: LeftOut, events: Events) -> None:
    for what, count in guessed.counts.items():
        events.warn(f"{count:,} {what}, such as {guessed.first[what]}.")


def _block(memory_bytes: int) -> int:
    # Portions, batches and row groups hold many blocks at once, so one block is a 96th
    # of the memory: 256 KiB to 8 MiB.
    return min(8 << 20, max(256 << 10, memory_bytes // 96))


def _in_any_order(file: SourceFile) -> bool:
    with open_archive(file.url) as archive:
        return archive.in_any_order
