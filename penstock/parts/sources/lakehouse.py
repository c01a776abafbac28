"""`lakehouse`: the rows of a Delta Lake or Iceberg table, at a version or as of a moment.

    source: {type: lakehouse, format: delta, path: lake/orders}                    # the newest version
    source: {type: lakehouse, format: delta, path: lake/orders, version: 12}
    source: {type: lakehouse, format: iceberg, path: wh/shop/orders, as_of: "2026-01-31 12:00:00+00:00"}
    source: {type: lakehouse, format: iceberg, catalog: prod, table: shop.orders, version: 5781…}

A snapshot is the version's data files by their content, what is deleted of them, and the columns: the files
are hashed where they lie (once: what has not changed since is known), so a version that was rewritten with
other files is another snapshot, and the table's own number of it is noted and identifies nothing. Files that
are the rows as they stand are read where they lie; where a version has deleted rows, partitions or columns
that some files lack, the rows of one file after another are written to scratch in the table's own columns,
and only those columns that are wanted.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BeforeValidator, PrivateAttr, model_validator

from penstock.contracts.data import Extract, Snapshot, Source, SourceFile
from penstock.contracts.learnt import Learnt
from penstock.contracts.part import mistakes
from penstock.contracts.sample import SAMPLE_FILE_BYTES, Sample
from penstock.core.errors import Problem, SourceError
from penstock.core.events import Events
from penstock.core.near import did_you_mean
from penstock.core.redact import redacted_url
from penstock.formats.delta import DeltaLake
from penstock.formats.file_hashes import hashes
from penstock.formats.files import look, stamp_of
from penstock.formats.iceberg import IcebergLake
from penstock.formats.lake import Lake, LakeFile
from penstock.formats.options import one_or_many
from penstock.formats.steady import check_file
from penstock.parts.sources.files import Files

_COLUMNS = "_columns"
"""What a snapshot calls the table's columns, which are beside its files."""
_DELETED = "_deleted"
Names = Annotated[tuple[str, ...], BeforeValidator(one_or_many)]


class Lakehouse(Source):
    """Rows of a table of a lakehouse, at one version of it."""

    whereabouts: ClassVar[frozenset[str]] = frozenset(
        {"path", "table", "catalog", "version", "as_of"}
    )

    format: Literal["delta", "iceberg"]
    """Needs `penstock[lakehouse]`."""
    path: str | None = None
    """The table's folder, relative to the recipe's, or a URL; for Iceberg a metadata file, too."""
    table: str | None = None
    """Iceberg: `namespace.name` of a catalogue, instead of `path`."""
    catalog: str = "default"
    """Iceberg: the catalogue's name, as pyiceberg is configured."""
    version: int | None = None
    """The number of a version (Delta) or the id of a snapshot (Iceberg); the newest unless given."""
    as_of: datetime | None = None
    """Instead of `version`: the version that was the newest at this moment; UTC unless it has a zone."""
    columns: Names = ()
    """The only ones to read; all unless given."""

    _files: Files | None = PrivateAttr(None)
    """How the files are read, where something was learnt."""

    @model_validator(mode="after")
    def _sensible(self) -> Lakehouse:
        problems: list[Problem] = []
        if (self.path is None) == (self.table is None):
            problems.append(
                Problem(("path",), "or `table` is needed, and one of them alone")
            )
        if self.format == "delta" and self.table is not None:
            problems.append(Problem(("table",), "is for Iceberg; give `path`"))
        if self.version is not None and self.as_of is not None:
            problems.append(
                Problem(
                    ("as_of",), "and `version` are two ways to say one thing; give one"
                )
            )
        if problems:
            raise mistakes(*problems)
        return self

    def needs_trust(self) -> str | None:
        if self.table is None:
            return None
        return f"asks this user's catalogue {self.catalog} for a table"

    def _open(self, base: Path, version: int | None = None) -> Lake:
        as_of = self.as_of
        if as_of is not None and as_of.tzinfo is None:
            as_of = as_of.replace(tzinfo=UTC)
        if version is not None:
            as_of = None
        wanted = self.version if version is None else version
        if self.format == "delta":
            return DeltaLake(str(self.path), base, version=wanted, as_of=as_of)
        return IcebergLake(
            base,
            path=self.path,
            table=self.table,
            catalog=self.catalog,
            version=wanted,
            as_of=as_of,
        )

    def snapshot(self, base: Path, memo: Path | None = None) -> Snapshot:
        lake = self._open(base)
        infos = [look(file.url) for file in (*lake.files, *lake.deletes)]
        return self._snapshot(base, lake, hashes(infos, memo))

    def preview(self, base: Path) -> Snapshot:
        lake = self._open(base)
        return self._snapshot(base, lake, [""] * len(lake.files + lake.deletes))

    def _snapshot(self, base: Path, lake: Lake, digests: Sequence[str]) -> Snapshot:
        listed = (*lake.files, *lake.deletes)
        files = [
            _source_file(file, sha) for file, sha in zip(listed, digests, strict=True)
        ]
        shown, about = (
            redacted_url(lake.location),
            f"{self.format} version {lake.version}",
        )
        if deleted := lake.deleted():
            files.append(SourceFile(_DELETED, f"{shown}#{_DELETED}", 0, deleted))
        # Last, since rows name their file by its place.
        text = "\n".join(f"{f.name}\0{f.type}" for f in lake.schema)
        digest = hashlib.sha256(text.encode()).hexdigest()
        # What is read later is this very version, from this very base.
        pin = f"{lake.version}\0{base}\0{len(lake.files)}"
        files.append(
            SourceFile(
                _COLUMNS,
                f"{shown}#{_COLUMNS}",
                len(text),
                digest,
                stamp=pin,
                position=about,
            )
        )
        return Snapshot(tuple(files))

    def like(self, learnt: Learnt) -> Self:
        copy = self.model_copy()
        copy._files = self._plain().like(learnt)
        return copy

    def typed(self, columns: pa.Schema) -> Self:
        copy = self.model_copy()
        copy._files = self._plain().typed(columns)
        return copy

    def _plain(self) -> Files:
        return self._files or Files.model_validate(
            {"path": "lake.parquet", "format": "parquet", "columns": self.columns}
        )

    def _pinned(self, snapshot: Snapshot) -> tuple[Lake, tuple[SourceFile, ...]]:
        """The version of a snapshot, opened again, and its data files."""
        version, base, number = snapshot.files[-1].stamp.split("\0")
        lake = self._open(Path(base), int(version))
        data = snapshot.files[: int(number)]
        if [file.path for file in lake.files] != [file.path for file in data]:
            raise SourceError(
                f"{lake.location}: version {version} has other files than it had. Run again."
            )
        return lake, data

    def _wanted(self, lake: Lake) -> list[str]:
        names = lake.schema.names
        for name in self.columns:
            if name not in names:
                raise SourceError(
                    f"source.columns: {lake.location} has no column {name!r} at version {lake.version}."
                    f"{did_you_mean(name, names)} There are: {', '.join(names[:20])}."
                )
        return list(self.columns) or names

    def extract(
        self, snapshot: Snapshot, scratch: Path, *, memory_bytes: int, events: Events
    ) -> Extract:
        lake, data = self._pinned(snapshot)
        columns = self._wanted(lake)
        if not lake.files:
            raise SourceError(f"{lake.location} has no rows at version {lake.version}.")
        if lake.in_place():
            inner = data
        else:
            inner = _spooled(lake, data, columns, scratch / "lake", None)
        return self._plain().extract(
            Snapshot(inner), scratch, memory_bytes=memory_bytes, events=events
        )

    def sample(
        self, snapshot: Snapshot, rows: int, *, file_bytes: int = SAMPLE_FILE_BYTES
    ) -> Sample:
        lake, data = self._pinned(snapshot)
        columns = self._wanted(lake)
        if lake.in_place():
            sample = self._plain().sample(Snapshot(data), rows, file_bytes=file_bytes)
            return replace(sample, files=snapshot.files)
        is_small = sum(file.size_bytes for file in data) <= file_bytes
        most = None if is_small else max(1, -(-rows // len(data)))
        with tempfile.TemporaryDirectory(prefix="penstock-lake-") as folder:
            inner = _spooled(lake, data, columns, Path(folder), most)
            sample = self._plain().sample(Snapshot(inner), rows, file_bytes=file_bytes)
        sample = replace(sample, files=snapshot.files)
        if is_small:
            return sample
        return replace(sample, rows=None, complete=False, duplicates=None)


def _source_file(file: LakeFile, digest: str) -> SourceFile:
    info = look(file.url)
    return SourceFile(file.path, file.url, info.size_bytes, digest, stamp=info.stamp)


def _spooled(
    lake: Lake,
    data: Sequence[SourceFile],
    columns: Sequence[str],
    folder: Path,
    most_rows: int | None,
) -> tuple[SourceFile, ...]:
    """The rows of each data file in the table's own columns, as a file of scratch.

    Args:
        most_rows: of each file; all unless given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([lake.schema.field(name) for name in columns])
    inner = []
    for place, file in enumerate(data):
        # Before and behind: what is read is what was hashed.
        check_file(file)
        path, rows = folder / f"{place:06}.parquet", 0
        with pq.ParquetWriter(str(path), schema, compression="lz4") as out:
            for batch in lake.batches(place, columns):
                room = batch.num_rows if most_rows is None else most_rows - rows
                out.write_batch(batch.slice(0, room).cast(schema))
                rows += batch.num_rows
                if most_rows is not None and rows >= most_rows:
                    break
        check_file(file)
        info = path.stat()
        inner.append(
            SourceFile(file.path, str(path), info.st_size, "", stamp=stamp_of(info))
        )
    return tuple(inner)
