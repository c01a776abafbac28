"""Parquet and Arrow (IPC files and streams), streamed; structs flattened to `a.b`, lists of structs to
parallel lists, as JSON lines are. Values come in the types they are stored in; `typed.convert` makes the
canonical ones of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.reading import Reject
from penstock.core.errors import SourceError
from penstock.formats.files import open_bytes
from penstock.formats.frames import Frames, walk
from penstock.formats.groups import pieces_of
from penstock.formats.pages import check_pages
from penstock.formats.places import is_remote, plainly
from penstock.formats.reader import LINE, Context, FileReader, Input, mended_texts
from penstock.formats.sound import odd_rows, shown, validated, without
from penstock.formats.texts import head, opened
from penstock.formats.typed import canonical, pieces, rebuild
from penstock.formats.vectors import missing_vectors, with_units, without_sizes

# Rows of a batch, at most.
_MOST_ROWS = 65_536
# So many rows are read to see what one takes; fewer make a batch of a wide table dear.
_MEASURED_ROWS = 64
# Row groups that a look reads of a large file.
_LOOKED_AT_GROUPS = 64
# Rows of an Arrow file that it reads one behind another.
_LOOKED_AT_ROWS = 1_024
# Bytes of a bucket's file that are copied at once.
_PIECE_BYTES = 4 << 20
_MOST_DIGITS = {32: 9, 64: 18, 128: 38, 256: 76}
"""Of decimals, by their bits."""
_MAPPED_BYTES = 128 << 20
"""A record batch of an Arrow file that is larger is mapped, not read: it need not fit into memory."""


def _of_structs(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(
        (t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))
        and t.is_struct(kind.value_type)
    )


def flattened(name: str, array: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """Turn an array into columns without structs; `flat_types` gives their names and
    types.
    """
    t = pa.types
    if isinstance(array.type, pa.BaseExtensionType):
        yield from flattened(name, array.storage)
    elif t.is_dictionary(array.type):
        yield from flattened(name, array.dictionary_decode())
    elif t.is_run_end_encoded(array.type):
        yield from flattened(name, pc.run_end_decode(array))
    # `flatten` and not the fields themselves: a missing struct has missing fields.
    elif t.is_struct(array.type):
        for field, child in zip(array.type, array.flatten(), strict=True):
            yield from flattened(f"{name}.{field.name}", child)
    elif _of_structs(array.type):
        # Lengths are kept once, and each field of the elements becomes a list of these
        # lengths.
        sizes, values = pieces(array)
        for child_name, child in flattened(name, values):
            yield child_name, rebuild(sizes, child)
    else:
        yield name, array


def flat_types(name: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """The names and types of the columns that `flattened` makes of an array of this type."""
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        yield from flat_types(name, kind.storage_type)
    elif t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        yield from flat_types(name, kind.value_type)
    elif t.is_struct(kind):
        for field in kind:
            yield from flat_types(f"{name}.{field.name}", field.type)
    elif _of_structs(kind):
        for child_name, child in flat_types(name, kind.value_type):
            yield child_name, pa.list_(child)
    else:
        yield name, kind


def _check_type(name: str, kind: pa.DataType) -> None:
    """Refuse a type that only a damaged file has: Arrow reads the type, and fails on
    its values.

    Raises:
        ValueError: naming the column.
    """
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        _check_type(name, kind.storage_type)
    elif t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        _check_type(name, kind.value_type)
    # A scale may be negative as well, hence `abs`.
    elif t.is_decimal(kind) and abs(kind.scale) > _MOST_DIGITS[kind.bit_width]:
        raise ValueError(f"its column {name!r} has decimals with {kind.scale:,} places")
    elif t.is_timestamp(kind):
        _ = kind.tz  # whose name may be no text, which is a ValueError
    for i in range(kind.num_fields):
        _check_type(name, kind.field(i).type)


def _spread(groups: int) -> list[int]:
    """Which of a file's row groups a look reads, where it reads no whole file: evenly spread."""
    return list(range(0, groups, -(-groups // _LOOKED_AT_GROUPS) or 1))


class Columnar(FileReader):
    """Reads one Parquet or Arrow file."""

    def __init__(self, input: Input, context: Context, format: str) -> None:
        super().__init__(input, context)
        self._format = format
        self._names: dict[str, str] = {}
        self._rejected_lines: set[int] = set()
        self._frames = Frames(0, 0, 0)
        self._copy: Path | None = None
        """Where a Parquet file of a bucket lies while its rows are given."""

    def scan(self) -> None:
        with self._told():
            schema = self._schema()
            for field in schema:
                _check_type(field.name, field.type)
            flat = [
                pair for field in schema for pair in flat_types(field.name, field.type)
            ]
        names = self.final_names([path for path, _ in flat])
        self._names = {}
        chosen = self.input.reading.columns
        for i, ((_, kind), name) in enumerate(zip(flat, names, strict=True)):
            # By place, not by name: two columns of a file may have one name.
            self._names[str(i)] = name
            # Types of columns that nobody chose are not told of.
            if not chosen or name in chosen:
                self.columns[name] = canonical(kind)
                self._tell_change(name, kind)
        self.check_width(len(self.columns))

    def _tell_change(self, name: str, kind: pa.DataType) -> None:
        if pa.types.is_decimal(kind) and kind.scale:
            self.say(f"has the column {name!r} as {kind}; it is read as float64.")
        elif pa.types.is_duration(kind):
            self.say(f"has the column {name!r} as a duration; it is read as seconds.")
        elif pa.types.is_map(kind) or pa.types.is_union(kind):
            self.say(f"has the column {name!r} as {kind}; it is read as JSON text.")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (
            pa.ArrowException,
            OSError,
            ValueError,
            OverflowError,
            MemoryError,
            RecursionError,
        ) as error:
            what = {"parquet": "Parquet", "arrow": "Arrow"}[self._format]
            reason = (
                str(error).strip().splitlines()[0][:300]
                if str(error).strip()
                else type(error).__name__
            )
            raise SourceError(
                f"{self.input.url} cannot be read as {what}: it is damaged, cut short, or in another"
                f" format ({reason}). Fetch or write it again, or remove it from `path`."
            ) from None

    def _schema(self) -> pa.Schema:
        """Read the columns, and note how many rows the file says it has."""
        if self._format == "parquet":
            with self._parquet() as file:
                groups = sum(
                    file.metadata.row_group(g).num_rows
                    for g in range(file.num_row_groups)
                )
                # A footer that contradicts itself is damage, and rows would be missing
                # in silence.
                if groups != file.metadata.num_rows:
                    raise ValueError(
                        f"it declares {file.metadata.num_rows:,} rows, but its row groups have"
                        f" {groups:,}"
                    )
                self.declared = file.metadata.num_rows
                # Headers of pages are scattered over the file: from a bucket each would
                # be a request.
                if not is_remote(self.input.url):  # see `_nearby`
                    with open_bytes(self.input.url) as raw:
                        check_pages(raw, file.metadata)
                return file.schema_arrow
        # Before Arrow opens it: Arrow believes lengths, and may ask the system for
        # terabytes.
        # Asked before: in some places (memory://) all that open a file share one position.
        is_file = self._is_file()
        with opened(self.input.url) as raw:
            self._frames = walk(raw, file=is_file)
        self._refuse_large(self._frames.largest_unpacked_bytes)
        self.declared = self._frames.rows
        with self._arrow() as reader:
            # A stream has no index, so it is what its messages say.
            indexed = getattr(reader, "num_record_batches", self._frames.batches)
            if indexed != self._frames.batches:
                raise ValueError(
                    f"its index names {indexed:,} batches of rows, and it has {self._frames.batches:,}"
                )
            return reader.schema

    def _refuse_large(self, unpacked_bytes: int) -> None:
        """Refuse a batch that would not fit, before Arrow decompresses it: it is held whole.

        What is not packed is mapped instead, where it lies as a file.
        """
        most = self.context.whole_bytes
        # What is not compressed has the same size in memory, and can be mapped from a
        # file.
        is_packed = unpacked_bytes > self._frames.largest_bytes
        if (
            most is None
            or unpacked_bytes <= most
            or not (is_packed or not self._is_file())
        ):
            return
        raise SourceError(
            f"{self.input.url} has a batch of rows with {unpacked_bytes >> 20:,} MiB unpacked; the limit is"
            f" {most >> 20:,} MiB. Raise resources.memory, or write in smaller batches (`max_chunksize`)."
        )

    def _local(self, *, mapped: bool = False) -> Any:
        """Open a local file for Arrow.

        A map is for what is too large to hold: a file that is cut while it is mapped ends the process.
        """
        path = self.input.url.removeprefix("file://")
        return pa.memory_map(path) if mapped else pa.OSFile(path)

    def _is_file(self) -> bool:
        # A stream begins otherwise; both have the same ending.
        return head(self.input.url, 6) == b"ARROW1"

    @contextmanager
    def _parquet(self, *, sizes: bool = True) -> Iterator[pq.ParquetFile]:
        """Open the Parquet file. Without `sizes`, lists of a fixed size are read as
        lists of any length.
        """
        # Buffered, not memory-mapped whole or pre-buffered: a row group may be larger than the memory that is
        # ours.
        url = self.input.url if self._copy is None else str(self._copy)
        with open_bytes(url) as raw:
            metadata = None if sizes else without_sizes(raw)
            source: Any = (
                raw if is_remote(url) else pa.OSFile(url.removeprefix("file://"))
            )
            with pq.ParquetFile(
                source,
                metadata=metadata,
                pre_buffer=False,
                buffer_size=1 << 20,
                page_checksum_verification=True,
            ) as file:
                yield file

    @contextmanager
    def _arrow(self) -> Iterator[Any]:
        if self._is_file():
            with open_bytes(self.input.url) as raw:
                # A map is the smaller evil for a batch that is too large to hold.
                large = self._frames.largest_bytes > _MAPPED_BYTES
                yield pa.ipc.open_file(
                    raw if is_remote(self.input.url) else self._local(mapped=large)
                )
        else:
            with opened(self.input.url) as raw:
                yield pa.ipc.open_stream(raw)

    def _raw_batches(self) -> Iterator[pa.RecordBatch]:
        if self._format == "parquet":
            yield from self._raw_parquet()
            return
        with self._arrow() as reader:
            # A file is read by index, a stream only forward.
            whole = (
                (reader.get_batch(i) for i in range(reader.num_record_batches))
                if hasattr(reader, "num_record_batches")
                else iter(reader)
            )
            part = self._part()
            rows = _MOST_ROWS if part == 1.0 else _LOOKED_AT_ROWS
            slices = (
                batch.slice(start, rows)
                for batch in whole
                for start in range(0, batch.num_rows, rows)
            )
            for i, one in enumerate(slices):
                # Of a look those at which the sum of parts goes over a whole number: evenly spread.
                if i == 0 or int((i + 1) * part) > int(i * part):
                    yield one

    def _part(self) -> float:
        """Which part of the file's rows is wanted: all, but of a look."""
        most, size = self.input.most_bytes, self.input.size_bytes
        return 1.0 if most is None or not size else min(1.0, most / size)

    def _raw_parquet(self) -> Iterator[pa.RecordBatch]:
        with self._parquet() as file:
            # Only where a vector is missing: without Arrow's schema durations must be
            # cast back.
            if not missing_vectors(file):
                yield from self._portions(file)
                return
            schema = file.schema_arrow
        with self._parquet(sizes=False) as file:
            for batch in self._portions(file):
                arrays = [
                    with_units(array, field.type)
                    for array, field in zip(batch.columns, schema, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=schema.names)

    def _portions(self, file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
        # The worst row group decides: memory must suffice for each.
        groups = [file.metadata.row_group(g) for g in range(file.num_row_groups)]
        widest = max(
            (group.total_byte_size / max(group.num_rows, 1) for group in groups),
            default=1,
        )
        # A dictionary makes long texts look small, so some rows are looked at as well.
        # One row first, since 64 may already be too large to hold.
        for some in (1, _MEASURED_ROWS):
            if (
                some * widest <= self.context.batch_bytes
                and (head := next(file.iter_batches(batch_size=some), None)) is not None
            ):
                widest = max(widest, head.nbytes / max(head.num_rows, 1))
        # About two blocks of bytes a batch, by the widest rows.
        rows = int(min(_MOST_ROWS, max(1, self.context.block_bytes * 2 / max(widest, 1))))
        if widest * _MEASURED_ROWS <= self.context.batch_bytes:
            # a batch costs some work for each column: few rows of a wide table are dear
            rows = max(rows, _MEASURED_ROWS)
        # Of a sample no more rows are decoded than it may have.
        rows = min(rows, self.context.limit or rows)
        if (part := self._part()) == 1.0:
            yield from file.iter_batches(batch_size=rows, use_threads=True)
            return
        chosen = _spread(len(groups))
        for group in chosen:
            # So many that all groups together give the part that is wanted.
            wanted = max(
                1, int(groups[group].num_rows * part * len(groups) / len(chosen))
            )
            for batch in file.iter_batches(
                batch_size=min(rows, wanted), row_groups=[group]
            ):
                yield batch.slice(0, wanted)
                wanted -= batch.num_rows
                if wanted <= 0:
                    break

    def _fetch(self, copy: Path) -> None:
        with open_bytes(self.input.url) as raw, open(copy, "wb") as file:
            while True:
                # Only the reading is told as the source's fault; a full disk is the
                # scratch folder's.
                with plainly(self.input.url):
                    piece = raw.read(_PIECE_BYTES)
                if not piece:
                    return
                file.write(piece)

    @contextmanager
    def _nearby(self) -> Iterator[None]:
        """Keep a copy of a remote Parquet file in scratch while its rows are read, so
        that every page can be checked first. Of a sample, the pages with its rows are
        checked where they lie.
        """
        if self._format != "parquet" or not is_remote(self.input.url):
            yield
            return
        limit = self.context.limit
        # A sample ends early: to copy the whole file for it would cost more than it
        # saves.
        if limit is not None or self._part() < 1.0:
            with self._told(), plainly(self.input.url), open_bytes(self.input.url) as raw:
                metadata = pq.read_metadata(raw)
                # Only the row groups that the sample's rows lie in.
                some = _spread(metadata.num_row_groups) if limit is None else None
                check_pages(raw, metadata, rows=limit, groups=some)
            yield
            return
        copy = self.context.scratch / f"copy-{id(self):x}.parquet"
        try:
            self._fetch(copy)
            with self._told(), open(copy, "rb") as raw:
                check_pages(raw, pq.read_metadata(raw))
            self._copy = copy
            yield
        # The copy goes also where the reader stops early: a generator's `finally` runs
        # at its closing.
        finally:
            self._copy = None
            copy.unlink(missing_ok=True)

    def batches(self, kinds: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        with self._nearby():
            yield from self._all_batches(kinds)

    def _all_batches(self, kinds: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        done = 0
        raw = self._raw_batches()
        while True:
            with self._told():
                batch = next(raw, None)
                if batch is None:
                    return
                # Before anything is computed: a wrong offset would read memory that is
                # not the file's.
                judged = [validated(column) for column in batch.columns]
                # Parquet comes in portions already; a batch of an Arrow file has the
                # size its writer gave it.
                parts = (
                    list(pieces_of(batch, self.context.batch_bytes))
                    if self._format == "arrow"
                    else [batch]
                )
            for part in parts:
                with self._told():
                    whole = self._flat(part, kinds, done)
                yield from self._sifted(whole, texts=not all(judged))
                # Counted before bad rows are taken out, so that lines are those of the
                # file.
                done += part.num_rows
            if self.context.limit is not None and done >= self.context.limit:
                raw.close()  # type: ignore[attr-defined]
                return

    def _flat(
        self, batch: pa.RecordBatch, kinds: Mapping[str, pa.DataType], done: int
    ) -> pa.RecordBatch:
        """The columns asked for, without structs, and each row's number in the file;
        `done` rows come before these.
        """
        arrays: list[pa.Array] = []
        names: list[str] = []
        flat = (
            pair
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
            for pair in flattened(name, column)
        )
        for i, (_, array) in enumerate(flat):
            name = self._names[str(i)]
            if name in kinds:
                # Nothing is computed for columns that were not chosen.
                arrays.append(array)
                names.append(name)
        names.append(LINE)
        # Lines are counted from 1.
        arrays.append(pa.array(np.arange(done + 1, done + batch.num_rows + 1)))
        return pa.RecordBatch.from_arrays(arrays, names=names)

    def _sifted(self, batch: pa.RecordBatch, *, texts: bool) -> Iterator[pa.RecordBatch]:
        """Yield the rows whose values can be held, with their texts mended; put the
        others aside.

        `texts`: whether some may not be UTF-8.
        """
        odd: dict[int, tuple[str, str]] = {}
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            for row, reason in odd_rows(array, texts=texts).items():
                # One reason a row: the first column's.
                odd.setdefault(row, (name, reason))
        for row, (name, reason) in sorted(odd.items()):
            self._put_aside(batch, row, name, reason)
        for piece in without(batch, odd):
            arrays = [
                array if name == LINE else self._mended(array, name)
                for name, array in zip(piece.schema.names, piece.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=piece.schema.names)

    def _put_aside(self, batch: pa.RecordBatch, row: int, name: str, reason: str) -> None:
        line = batch.column(LINE)[row].as_py()
        if line in self._rejected_lines:
            return  # rows are given a second time where a column's type proves too narrow
        self._rejected_lines.add(line)
        values = {
            n: shown(array, row)
            for n, array in zip(batch.schema.names, batch.columns, strict=True)
            if n != LINE
        }
        self.reject(
            Reject(
                line, reason, json.dumps(values, ensure_ascii=False, default=str), name
            )
        )

    def _mended(self, array: pa.Array, name: str) -> pa.Array:
        reading = self.input.reading
        if pa.types.is_timestamp(array.type) and array.type.unit == "ns":
            return self._microseconds(array, name)
        if not (reading.na or name in reading.trim_end):
            return array
        if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
            array = array.cast(pa.string())
        return (
            mended_texts(array, name, reading, empty_is_missing=False)
            if pa.types.is_string(array.type)
            else array
        )

    def _microseconds(self, array: pa.Array, name: str) -> pa.Array:
        kind = pa.timestamp("us", array.type.tz)
        try:
            return array.cast(kind)
        except pa.ArrowInvalid:
            self.say(
                f"has the column {name!r} in nanoseconds; it is cut to microseconds.",
                warn=True,
            )
            # Unsafe: what is cut off is told above.
            return pc.cast(array, kind, safe=False)
