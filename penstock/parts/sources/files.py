"""`files`: rows from files of any readable format, local or at any fsspec URL.

    source: data/*.parquet                                    # inside a recipe: {type: files, path: …}
    source: {type: files, train: adult.data, test: {path: adult.test, skip_rows: 1}, names: […], na: "?"}

How bytes become rows is decided in `penstock.formats`; here, only which files, and with which words each is read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BeforeValidator, model_validator

from penstock.contracts.data import ROW_FILE, Extract, Snapshot, Source, SourceFile
from penstock.contracts.part import mistakes
from penstock.core.errors import Problem, SourceError
from penstock.core.events import Events
from penstock.formats.extract import extract
from penstock.formats.options import FilesAs, Names, Reading
from penstock.formats.places import Found, find, hashes, relative
from penstock.formats.reader import Input

_SAMPLED_FILES = 16


def _as_files(value: Any) -> Any:
    return {"path": value} if isinstance(value, (str, list, tuple)) else value


Split = Annotated[FilesAs | None, BeforeValidator(_as_files)]


class Files(Source, Reading):
    """Rows from files: a path, a glob, a folder or a list of them; or a path for each split."""

    path: Names = ()
    """Relative to the recipe's folder, or a URL (s3://, gs://, abfs://, hdfs://, memory://). A folder gives the files below
    it whose ending names a format."""
    train: Split = None
    """Files of the training split, for `split: {by: files}`; a mapping has reading options of its own beside `path`."""
    validation: Split = None
    test: Split = None

    @model_validator(mode="after")
    def _one_way(self) -> Files:
        splits = [s for s in ("train", "validation", "test") if getattr(self, s) is not None]
        if self.path and splits:
            raise mistakes(Problem((), f"has `path` and {', '.join(splits)}; give either `path`, or a path for each split"))
        if not self.path and not splits:
            raise mistakes(Problem(("path",), "is required but missing (or `train` and `test`)"))
        if splits and self.train is None:
            raise mistakes(Problem(("train",), f"is required beside {', '.join(splits)}"))
        return self

    def _groups(self) -> Iterator[tuple[str | None, tuple[str, ...], Reading]]:
        """Split, paths and how to read them."""
        if self.path:
            yield None, self.path, self.plain()
        for split in ("train", "validation", "test"):
            own: FilesAs | None = getattr(self, split)
            if own is not None:
                yield split, own.path, own.over(self)

    def snapshot(self, base: Path, memo: Path | None = None) -> Snapshot:
        found: dict[str, tuple[Found, str | None]] = {}
        for split, paths, reading in self._groups():
            for entry in paths:
                for file in find(entry, base, format=reading.format):
                    other = found.setdefault(file.url, (file, split))[1]
                    if other != split:
                        raise SourceError(f"{file.url} is named under both {other} and {split}; a row cannot be in two splits.")
        files = [file for file, _ in found.values()]
        names = relative(files)
        known = zip(files, hashes(files, memo), strict=True)
        made = [SourceFile(names[f.url], f.url, f.size_bytes, sha, found[f.url][1]) for f, sha in known]
        return Snapshot(tuple(sorted(made, key=lambda f: (f.path, f.url))))

    def _inputs(self, files: tuple[SourceFile, ...]) -> list[Input]:
        how = {split: reading for split, _, reading in self._groups()}
        return [Input(f.path, f.url, how[f.split], f.size_bytes) for f in files]

    def extract(self, snapshot: Snapshot, scratch: Path, *, memory_bytes: int, events: Events) -> Extract:
        return extract(self._inputs(snapshot.files), scratch, memory_bytes=memory_bytes, events=events)

    def sample(self, snapshot: Snapshot, rows: int) -> pa.Table:
        step = max(1, len(snapshot.files) // _SAMPLED_FILES)
        files = snapshot.files[::step][:_SAMPLED_FILES]
        each = max(1, -(-rows // len(files)))
        with tempfile.TemporaryDirectory(prefix="penstock-sample-") as scratch:
            made = extract(self._inputs(files), Path(scratch), memory_bytes=256 << 20, events=Events(), limit=each)
            whole = pa.concat_tables([pq.read_table(path) for path in made.parquet])
            pieces = [whole.filter(pa.compute.equal(whole[ROW_FILE], i)).slice(0, each) for i in range(len(files))]
            return pa.concat_tables(pieces).select(made.schema.names)
