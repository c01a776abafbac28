"""Parquet and Arrow (IPC files and streams), streamed; structs flattened to `a.b`, lists of structs to parallel lists, as
JSON lines are. Values come in the types they are stored in; `typed.convert` makes the canonical ones of them."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.core.errors import SourceError
from penstock.formats.places import is_remote, open_bytes
from penstock.formats.reader import LINE, Context, Input, Reader, mended_texts
from penstock.formats.texts import opened
from penstock.formats.typed import canonical, pieces, rebuild

_MOST_ROWS = 65_536
_MEASURED_ROWS = 64


def flattened(name: str, array: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """An array as columns without structs."""
    t = pa.types
    if isinstance(array.type, pa.BaseExtensionType):
        yield from flattened(name, array.storage)
    elif t.is_dictionary(array.type):
        yield from flattened(name, array.dictionary_decode())
    elif t.is_struct(array.type):
        for field, child in zip(array.type, array.flatten(), strict=True):
            yield from flattened(f"{name}.{field.name}", child)
    elif (t.is_list(array.type) or t.is_large_list(array.type) or t.is_fixed_size_list(array.type)) and t.is_struct(array.type.value_type):
        sizes, values = pieces(array)
        for child_name, child in flattened(name, values):
            yield child_name, rebuild(sizes, child)
    else:
        yield name, array


def _missing_vectors(file: pq.ParquetFile) -> bool:
    """Whether a list of a fixed size may be missing somewhere."""
    fixed = {f.name for f in file.schema_arrow if _has_fixed(f.type)}
    if not fixed:
        return False
    groups = [file.metadata.row_group(g) for g in range(file.num_row_groups)]
    chunks = [c for g in groups for c in map(g.column, range(g.num_columns)) if c.path_in_schema.split(".")[0] in fixed]
    return any(c.statistics is None or not c.statistics.has_null_count or c.statistics.null_count for c in chunks)


def _has_fixed(kind: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(kind):
        return True
    return any(_has_fixed(kind.field(i).type) for i in range(kind.num_fields))


class Columnar(Reader):
    """Reads one Parquet or Arrow file."""

    def __init__(self, input: Input, context: Context, format: str) -> None:
        super().__init__(input, context)
        self._format = format
        self._names: dict[str, str] = {}

    def scan(self) -> None:
        with self._told():
            schema = self._schema()
        flat = [(path, array.type) for field in schema for path, array in flattened(field.name, pa.array([], field.type))]
        names = self.final_names([path for path, _ in flat])
        self._names = {}
        chosen = self.input.reading.columns
        for i, ((_, kind), name) in enumerate(zip(flat, names, strict=True)):
            self._names[str(i)] = name
            if not chosen or name in chosen:
                self.columns[name] = canonical(kind)
                self._tell_change(name, kind)

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
        except (pa.ArrowException, OSError, ValueError) as error:
            what = {"parquet": "Parquet", "arrow": "Arrow"}[self._format]
            reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
            raise SourceError(f"{self.input.url} cannot be read as {what}: it is corrupt, cut short, or something else ({reason}). Fetch or write it again, or take it out of `path`.") from None

    def _schema(self) -> pa.Schema:
        if self._format == "parquet":
            with self._parquet() as file:
                return file.schema_arrow
        with self._arrow() as reader:
            return reader.schema

    @contextmanager
    def _parquet(self) -> Iterator[pq.ParquetFile]:
        # Buffered, not memory-mapped whole or pre-buffered: a row group may be larger than the memory that is ours.
        with open_bytes(self.input.url) as raw:
            source: Any = raw if is_remote(self.input.url) else pa.memory_map(self.input.url.removeprefix("file://"))
            with pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True) as file:
                yield file

    @contextmanager
    def _arrow(self) -> Iterator[Any]:
        with opened(self.input.url) as raw:
            magic = raw.read(6)
        if magic == b"ARROW1":
            with open_bytes(self.input.url) as raw:
                yield pa.ipc.open_file(raw if is_remote(self.input.url) else pa.memory_map(self.input.url.removeprefix("file://")))
        else:
            with opened(self.input.url) as raw:
                yield pa.ipc.open_stream(raw)

    def _raw_batches(self) -> Iterator[pa.RecordBatch]:
        if self._format == "parquet":
            with self._parquet() as file:
                if _missing_vectors(file):
                    yield from self._by_duckdb(file.schema_arrow)
                    return
                widest = max((file.metadata.row_group(g).total_byte_size / max(file.metadata.row_group(g).num_rows, 1) for g in range(file.num_row_groups)), default=1)
                # A dictionary makes long texts look small, so some rows are looked at as well.
                head = next(file.iter_batches(batch_size=_MEASURED_ROWS), None)
                widest = max(widest, head.nbytes / max(head.num_rows, 1) if head is not None else 1)
                rows = int(min(_MOST_ROWS, max(_MEASURED_ROWS, self.context.block_bytes * 2 / max(widest, 1))))
                yield from file.iter_batches(batch_size=min(rows, self.context.limit or rows), use_threads=True)
            return
        with self._arrow() as reader:
            whole = (reader.get_batch(i) for i in range(reader.num_record_batches)) if hasattr(reader, "num_record_batches") else iter(reader)
            for batch in whole:
                for start in range(0, batch.num_rows, _MOST_ROWS):
                    yield batch.slice(start, _MOST_ROWS)

    def _by_duckdb(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Arrow (25) writes missing lists of a fixed size to Parquet and cannot read them back; DuckDB can."""
        import duckdb

        path = self.input.url.removeprefix("file://")
        copy = self.context.scratch / f"copy-{id(self):x}.parquet"
        if is_remote(self.input.url):
            with open_bytes(self.input.url) as raw, open(copy, "wb") as file:
                shutil.copyfileobj(raw, file, 1 << 20)
            path = str(copy)
        try:
            with duckdb.connect(config={"threads": 1, "preserve_insertion_order": True}) as connection:
                reader = connection.execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [glob.escape(path)]).to_arrow_reader(_MOST_ROWS // 8)
                for batch in reader:
                    arrays = [a.cast(f.type) if pa.types.is_duration(f.type) else a for a, f in zip(batch.columns, schema, strict=True)]  # DuckDB has no durations
                    yield pa.RecordBatch.from_arrays(arrays, names=schema.names)
        except duckdb.Error as error:
            raise ValueError(str(error)) from None
        finally:
            copy.unlink(missing_ok=True)

    def batches(self, kinds: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        done = 0
        raw = self._raw_batches()
        while True:
            with self._told():
                batch = next(raw, None)
            if batch is None:
                return
            arrays: list[pa.Array] = []
            names: list[str] = []
            flat = (pair for name, column in zip(batch.schema.names, batch.columns, strict=True) for pair in flattened(name, column))
            for i, (_, array) in enumerate(flat):
                name = self._names[str(i)]
                if name in kinds:
                    arrays.append(self._mended(array, name))
                    names.append(name)
            names.append(LINE)
            arrays.append(pa.array(np.arange(done + 1, done + batch.num_rows + 1)))
            done += batch.num_rows
            yield pa.RecordBatch.from_arrays(arrays, names=names)
            if self.context.limit is not None and done >= self.context.limit:
                raw.close()  # type: ignore[attr-defined]
                return

    def _mended(self, array: pa.Array, name: str) -> pa.Array:
        reading = self.input.reading
        if pa.types.is_timestamp(array.type) and array.type.unit == "ns":
            return self._microseconds(array, name)
        if not (reading.na or name in reading.trim_end):
            return array
        if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
            array = array.cast(pa.string())
        return mended_texts(array, name, reading, empty_is_missing=False) if pa.types.is_string(array.type) else array

    def _microseconds(self, array: pa.Array, name: str) -> pa.Array:
        kind = pa.timestamp("us", array.type.tz)
        try:
            return array.cast(kind)
        except pa.ArrowInvalid:
            self.say(f"has the column {name!r} in nanoseconds; it is cut to microseconds.", warn=True)
            return pc.cast(array, kind, safe=False)


