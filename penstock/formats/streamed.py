"""A file whose format gives row after row (`contracts.reading.RowReader`): a user's own, mostly.

What every format owes is done here, so that such a reader knows nothing of it: columns that are found on the
way, their names and types, missing values, looks, and bad rows. The file is read twice, once to know its
columns and once for its rows; nothing is held in between.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa

from penstock.contracts.reading import Reject, Row, RowReader, TableFile
from penstock.core.errors import PenstockError, SourceError
from penstock.core.regular import refuse_special
from penstock.formats.columnar import flattened
from penstock.formats.groups import pieces_of
from penstock.formats.places import is_remote, plainly
from penstock.formats.reader import (
    COMMAS,
    LINE,
    Context,
    FileReader,
    Input,
    Naming,
    mended_texts,
)
from penstock.formats.shelf import unpacked_path
from penstock.formats.sound import odd_rows, shown, validated, without
from penstock.formats.texts import (
    LONGEST_LINE,
    TextStream,
    encoding_of,
    head,
    opened,
    undecodable,
)
from penstock.formats.typed import TextTypes, canonical, unite, with_comma

_MOST_ROWS = 8_192
"""Rows that become columns at once."""
_VALUE_BYTES = 64
"""Of a value as Python has it, beside the bytes of a text."""
_READ_BYTES = 1 << 20


class _File(TableFile):
    """One file, as the reader gets it."""

    def __init__(
        self, input: Input, context: Context, say: Any, reject: Callable[[Reject], bool]
    ) -> None:
        """
        Args:
            say: something of the file, to the user.
            reject: puts a row aside; returns whether a sample has enough of it.
        """
        self.path = input.path
        self.is_sample = context.limit is not None
        self.most_bytes = context.value_bytes
        self._input = input
        self._context = context
        self._say = say
        self._reject_row = reject
        self._encoding: str | None = None

    def say(self, text: str, *, warn: bool = False) -> None:
        self._say(text, warn=warn)

    def open(self) -> AbstractContextManager[BinaryIO]:
        return opened(self._input.url)

    def lines(self) -> Iterator[tuple[int, str]]:
        if self._encoding is None:
            # Of a sample, so much is looked at as may be read of it.
            most = self._input.most_bytes
            if self._context.limit is not None:
                most = self._context.limit_bytes
            declared = self._input.reading.encoding
            self._encoding = encoding_of(
                self._input.url, declared, self._say, most_bytes=most
            )
        number, rest = 1, b""
        with TextStream(self._input.url, self._encoding) as text:
            while True:
                more = text.read(_READ_BYTES)
                # The last piece may be half a line; it waits for what follows.
                *lines, rest = (rest + more).split(b"\n")
                # At the file's end a last line needs no line end.
                if not more and rest:
                    lines, rest = [rest], b""
                for line in lines:
                    decoded = self._decoded(line.removesuffix(b"\r"), number)
                    # A line that is not text costs itself alone; only a sample stops
                    # where it has too many of them.
                    if isinstance(decoded, str):
                        yield number, decoded
                    elif self._reject_row(decoded):
                        return
                    number += 1
                if not more:
                    return
                if len(rest) > LONGEST_LINE:
                    raise SourceError(
                        f"{self.path}, line {number}: the line is longer than {LONGEST_LINE >> 20} MiB, the"
                        " most that a row of text may have. Is this a file of lines? If so, split that one,"
                        " or take it out."
                    )

    def _decoded(self, line: bytes, number: int) -> str | Reject:
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            reason = undecodable(line, error.start)
            return Reject(number, reason, line.decode("utf-8", "backslashreplace"))

    @contextmanager
    def local(self) -> Iterator[Path]:
        url = self._input.url.removeprefix("file://")
        # Packed or remote bytes have no path that a library could open.
        if not is_remote(url) and not _is_packed(url):
            refuse_special(url)
            yield Path(url)
            return
        # The ending of what is in it: by `.gz`, a library would unpack the copy once more.
        suffix = Path(unpacked_path(self.path)).suffix
        copy = self._context.scratch / f"copy-{id(self):x}{suffix}"
        try:
            with plainly(url), opened(url) as packed, open(copy, "wb") as target:
                shutil.copyfileobj(packed, target, _READ_BYTES)
            yield copy
        finally:
            copy.unlink(missing_ok=True)


def _is_packed(url: str) -> bool:
    # Bytes that differ from what lies on the disk were unpacked on the way.
    return head(url, 4) != _raw_head(url)


def _raw_head(url: str) -> bytes:
    with open(url, "rb") as file:
        return file.read(4)


class Streamed(FileReader):
    """Reads one file by a `RowReader`."""

    fields_vary: ClassVar[bool] = True

    def __init__(self, reader: RowReader, input: Input, context: Context) -> None:
        super().__init__(input, context)
        self._reader = reader
        self._file = _File(input, context, self.say, self._reject)
        self._names: dict[str, str] = {}
        """By name in the file: the final one."""
        self._naming = Naming(input)
        self._names_so_far: dict[str, str] = {}
        self._commas: frozenset[str] = frozenset()
        """By their names in the file: columns of text whose numbers have a decimal comma."""
        """The same, as far as columns have been met: in the first pass, words speak of them by these."""
        self._is_first = True
        """Whether this pass puts bad rows aside."""
        self._count = self._rejected_bytes = 0
        """Of this pass: rows that came, good and bad; and the bytes of the bad ones."""

    def scan(self) -> None:
        kinds: dict[str, pa.DataType] = {}
        texts: dict[str, TextTypes] = {}
        given = 0
        for batch in self._batches(is_first=True):
            given += batch.num_rows
            for name, array in zip(batch.schema.names, batch.columns, strict=True):
                if name == LINE:
                    continue
                if self._is_cell(array):
                    texts.setdefault(name, TextTypes()).observe(array)
                    # `null` unless another batch has a type that is no text; then the
                    # column is united with text.
                    kinds.setdefault(name, pa.null())
                else:
                    kinds[name] = self._united(
                        name, kinds.get(name, pa.null()), canonical(array.type)
                    )
        self._settle_columns(kinds, texts)
        with self._in_words():
            # Asked behind the rows: a format may know it only by then.
            declared = self._reader.declared_rows(self._file)
        # Where the format says nothing, what was seen in the first pass is held against
        # the second.
        self.declared = given + self.rejected if declared is None else declared

    def _is_cell(self, array: pa.Array) -> bool:
        """Whether the type of a column of texts follows from its texts."""
        return not self._reader.typed and bool(pa.types.is_string(array.type))

    def _united(self, name: str, before: pa.DataType, kind: pa.DataType) -> pa.DataType:
        united = unite(before, kind)
        if united is None:
            raise SourceError(
                f"{self.input.path}: the column {name!r} is {before} in some rows and {kind}"
                " in others. Bytes cannot be combined with another type. The reader"
                f" {self._reader.type!r} must give one of them."
            )
        return united

    def _settle_columns(
        self, kinds: Mapping[str, pa.DataType], texts: Mapping[str, TextTypes]
    ) -> None:
        chosen = self.input.reading.columns
        for raw, name in zip(kinds, self.final_names(list(kinds)), strict=True):
            self._names[raw] = name
            if chosen and name not in chosen:
                continue
            if raw not in texts:
                self.columns[name] = kinds[raw]
            elif pa.types.is_null(kinds[raw]):
                # What all files say of a column of this name is known in one place.
                shared = self.context.text(name)
                shared.narrow(texts[raw])
                self.columns[name] = shared
            else:
                # some of its values are texts, and others are not
                self.columns[name] = self._united(raw, kinds[raw], pa.string())
        self.check_width(len(self.columns))

    def batches(self, kinds: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        self._commas = frozenset(
            raw for raw, name in self._names.items() if kinds.get(name) == COMMAS
        )
        for batch in self._batches(is_first=False):
            arrays: list[pa.Array] = []
            names: list[str] = []
            for raw, array in zip(batch.schema.names, batch.columns, strict=True):
                name = LINE if raw == LINE else self._names.get(raw)
                if name is None:
                    raise SourceError(
                        f"{self.input.path}: the reader {self._reader.type!r} returns the column"
                        f" {raw!r} on the second reading but not on the first. It must return the same"
                        " each time."
                    )
                if name == LINE or name in kinds:
                    arrays.append(array)
                    names.append(name)
            yield pa.RecordBatch.from_arrays(arrays, names=names)

    # -- rows to columns -------------------------------------------------------------------------------------

    def _batches(self, *, is_first: bool) -> Generator[pa.RecordBatch, None, None]:
        """The good rows as columns under their names in the file, with their `LINE`.

        Args:
            is_first: bad rows are put aside; the second time they are left out only.
        """
        # Each pass counts anew, or lines of the second would go on where the first
        # ended.
        given = size = self._rejected_bytes = self._count = 0
        self._is_first = is_first
        context = self.context
        # Closed in any case, so that the user's generator lets go of its file.
        with closing(self._read()) as batches:
            for whole in batches:
                for batch in pieces_of(whole, context.batch_bytes):
                    for piece in self._sound(batch):
                        yield self._mended(piece)
                    # By what came, not by what was good: a sample of bad rows ends as
                    # well.
                    given += batch.num_rows
                    size += batch.nbytes
                    if context.limit is not None and (
                        given >= context.limit or size >= context.limit_bytes
                    ):
                        return
                    most = self.input.most_bytes
                    if most is not None and size >= most:
                        return

    def _read(self) -> Generator[pa.RecordBatch, None, None]:
        """What the reader gives, as batches with their `LINE`; rejects are put aside on the way."""
        rows: list[Row] = []
        size = 0
        most_rows = min(_MOST_ROWS, self.context.limit or _MOST_ROWS)
        items = self._items()
        while True:
            with self._in_words():
                # Here the user's code runs: its faults are told as those of the reader.
                item = next(items, None)
            if isinstance(item, Row):
                rows.append(item)
                size += _bytes_of(item)
                if len(rows) < most_rows and size < self.context.block_bytes:
                    continue
            if rows:
                self._count += len(rows)
                with self._in_words():
                    batch = _columns(rows, self._commas)
                yield batch
                rows, size = [], 0
            # Behind the rows that are still held: those before the end of the file.
            if item is None or self._is_enough():
                return
            if isinstance(item, Reject):
                self._reject(item)
            # Neither row nor reject: a batch of the reader's own.
            elif not isinstance(item, Row):
                with self._in_words():
                    batch = _numbered(item, self._count)
                self._count += batch.num_rows
                yield batch

    def _items(self) -> Iterator[Any]:
        yield from self._reader.read(self._file)

    def _reject(self, bad: Reject, *, is_counted: bool = True) -> bool:
        """Put a row aside, in the first pass alone.

        Args:
            is_counted: it is no row of a batch, where it has been counted.

        Returns:
            Whether a sample's bad rows alone are as much as it may be: a file of nothing else is not read to
            its end for a look.
        """
        with self._in_words():
            bad = _plain(bad)
        self._rejected_bytes += len(bad.row)
        self._count += is_counted
        if self._is_first:
            self.reject(bad)
        return self._is_enough()

    def _is_enough(self) -> bool:
        most = self.input.most_bytes
        if self.context.limit is not None:
            most = self.context.limit_bytes
        return most is not None and self._rejected_bytes >= most

    def _sound(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The rows whose values can be held."""
        with self._in_words():
            judged = [validated(column) for column in batch.columns]
        odd: dict[int, tuple[str, str]] = {}
        for name, array, is_text in zip(
            batch.schema.names, batch.columns, judged, strict=True
        ):
            for row, reason in odd_rows(array, texts=not is_text).items():
                odd.setdefault(row, (name, reason))
        for row, (name, reason) in sorted(odd.items()):
            # Shown however broken they are: `as_py` may fail for just these values.
            values = {
                n: shown(array, row)
                for n, array in zip(batch.schema.names, batch.columns, strict=True)
            }
            line = values.pop(LINE)
            text = json.dumps(values, ensure_ascii=False, default=str)
            # The row was counted with its batch, and would shift the lines of those
            # behind it.
            self._reject(Reject(int(line), reason, text, name), is_counted=False)
        yield from without(batch, odd)

    def _mended(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Apply `na` and `trim_end` to the columns of text."""
        reading = self.input.reading
        arrays = []
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if name != LINE and name not in self._names_so_far:
                self._names_so_far[name] = self._naming.name(name).final
            if pa.types.is_large_string(array.type) or pa.types.is_string_view(
                array.type
            ):
                array = array.cast(pa.string())
            if pa.types.is_string(array.type):
                array = mended_texts(
                    array,
                    self._names_so_far[name],
                    reading,
                    empty_is_missing=not self._reader.typed,
                )
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn any error within a user's reader into a `SourceError` of one sentence."""
        try:
            yield
        except PenstockError:
            raise
        # Anything may come out of code that is not ours; what is ours passes above in
        # its own words.
        except Exception as error:
            reason = (
                str(error).strip().splitlines()[0][:300]
                if str(error).strip()
                else "no reason given"
            )
            raise SourceError(
                f"{self.input.url} cannot be read by {self._reader.type!r}"
                f" ({type(error).__name__}: {reason}). If the file is intact, the reader is at"
                " fault: it must return a row that it cannot read as a `Reject`."
            ) from error


def _plain(bad: Reject) -> Reject:
    """A reject as the quarantine can hold it, whatever somebody's reader made it of.

    Raises:
        TypeError, ValueError, OverflowError: its line is no whole number of 64 bits.
    """
    line = pa.scalar(int(bad.line), pa.int64()).as_py()
    column = None if bad.column is None else _text(bad.column)
    return Reject(line, _text(bad.reason), _text(bad.row), column)


def _text(value: Any) -> str:
    """Anything as text that UTF-8 can hold: what is none in bytes, and lone surrogates, by backslashes."""
    if value is None:
        return ""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "backslashreplace")
    return str(value).encode("utf-8", "backslashreplace").decode()


def _bytes_of(row: Row) -> int:
    return sum(
        _VALUE_BYTES + (len(value) if isinstance(value, (str, bytes)) else 0)
        for value in row.values.values()
    )


def _columns(rows: list[Row], commas: frozenset[str]) -> pa.RecordBatch:
    """Rows as columns, in the order in which their names come first; a row that lacks one has a missing
    value.

    Args:
        commas: columns whose numbers have a decimal comma, should they become texts.
    """
    names = dict.fromkeys(name for row in rows for name in row.values)
    arrays = [
        _array([row.values.get(name) for row in rows], comma=name in commas)
        for name in names
    ]
    lines = pa.array([row.line for row in rows], pa.int64())
    return _flat([*names], arrays, lines)


def _array(values: list[Any], *, comma: bool = False) -> pa.Array:
    """Values as an array; as texts, where they have several types: numbers and nested values as JSON."""
    try:
        return pa.array(values)
    # Several types in one column: all of its values as texts.
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        texts = [
            value
            if value is None or isinstance(value, str)
            else with_comma(value)
            if comma and isinstance(value, float)
            else _json(value)
            for value in values
        ]
        return pa.array(texts, pa.string())


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _numbered(batch: Any, before: int) -> pa.RecordBatch:
    """A reader's own batch with its rows' numbers, `before` of the file being before it.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(batch, pa.RecordBatch):
        raise TypeError(
            f"`read` must give `Row`, `Reject` or `pyarrow.RecordBatch`, and gave {type(batch).__name__}"
        )
    lines = pa.array(np.arange(before + 1, before + batch.num_rows + 1))
    return _flat(batch.schema.names, batch.columns, lines)


def _flat(names: list[str], arrays: list[pa.Array], lines: pa.Array) -> pa.RecordBatch:
    """Columns without structs, and the rows' lines."""
    pairs = [
        pair
        for name, array in zip(names, arrays, strict=True)
        for pair in flattened(name, array)
    ]
    return pa.RecordBatch.from_arrays(
        [*(array for _, array in pairs), lines],
        names=[*(name for name, _ in pairs), LINE],
    )
