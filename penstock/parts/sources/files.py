"""`files`: rows from files of any readable format, local or at any fsspec URL.

    source: data/*.parquet                                    # inside a recipe: {type: files, path: …}
    source: {type: files, train: adult.data, test: {path: adult.test, skip_rows: 1}, names: […], na: "?"}

    # a column that names pictures
    source: {type: files, path: styles.csv, load: {image: {root: images, ending: .jpg}}}

How bytes become rows is decided in `penstock.formats`; here, only which files, and with which words each is
read.

A snapshot's files are the tables, then the files that their rows name; to know these, the columns in `load`
are read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BeforeValidator, Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from penstock.contracts.data import (
    PLACE,
    Extract,
    Snapshot,
    Source,
    SourceFile,
)
from penstock.contracts.foreign import may_import
from penstock.contracts.learnt import Learnt
from penstock.contracts.part import mistakes
from penstock.contracts.reading import Reader
from penstock.contracts.sample import SAMPLE_FILE_BYTES, Sample
from penstock.core.errors import Problem, SourceError
from penstock.core.events import Events
from penstock.formats.extract import SAMPLE_BYTES, extract
from penstock.formats.file_columns import FileColumn, owners, prefix, survey
from penstock.formats.file_hashes import hashes
from penstock.formats.files import FileInfo
from penstock.formats.find_files import find, relative
from penstock.formats.loading import load_columns
from penstock.formats.members import tell
from penstock.formats.options import (
    CSV_WORDS,
    SPELLING,
    FilesAs,
    Names,
    Reading,
    load_format,
)
from penstock.formats.proposed import proposed_reading
from penstock.formats.reader import Input
from penstock.formats.sampling import sample_files, unread
from penstock.formats.shelf import ending, is_of, readers

_TABLE_WORDS = frozenset({"na", "trim_end", "rename", "types"})
"""What is learnt of how files are read, whatever their format; a reader's own words come to them."""
_SAMPLE_BYTES = 64 << 20
"""Of files that rows name."""


def _as_files(value: Any) -> Any:
    return {"path": value} if isinstance(value, (str, list, tuple)) else value


Split = Annotated[FilesAs | None, BeforeValidator(_as_files)]


@dataclass(frozen=True)
class _NotLoaded:
    """A reader that something names, and that cannot be had here."""

    name: str
    reason: str
    """Nothing, where it is foreign code that is not trusted."""

    @classmethod
    def of(cls, declared: Any, error: PydanticCustomError) -> _NotLoaded:
        name = str(declared.get("type") if isinstance(declared, Mapping) else declared)
        if "." in name and not may_import(name):
            return cls(name, "")
        problems: tuple[Problem, ...] = (error.context or {})["problems"]
        texts = [p.text if p.path == ("type",) else str(p) for p in problems]
        reason = "; ".join(texts).rstrip(".")
        return cls(name, reason if reason.endswith("?") else f"{reason}.")


class Files(Source, Reading):
    """Rows from files: a path, a glob, a folder or a list of them; or a path for each split."""

    path: Names = ()
    """Relative to the recipe's folder, or a URL (s3://, gs://, abfs://, hdfs://, memory://).

    A folder gives the files below it whose ending names a format.
    """
    train: Split = None
    """Files of the training split, for `split: {by: files}`; a mapping has reading options of its own beside
    `path`.
    """
    validation: Split = None
    test: Split = None
    load_: dict[str, FileColumn] = Field({}, alias="load")
    """By column: its values name files, and what is in them is the value: `{image: {root: images}}`."""

    _learnt: Learnt | None = PrivateAttr(None)
    _learnt_format: Reader | _NotLoaded | None = PrivateAttr(None)
    """What read the data that something was learnt from."""
    _types: pa.Schema | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _one_way(self) -> Files:
        splits = [
            s for s in ("train", "validation", "test") if getattr(self, s) is not None
        ]
        if self.path and splits:
            raise mistakes(
                Problem(
                    (),
                    f"has `path` and {', '.join(splits)}; give either `path`, or a path for each split",
                )
            )
        if not self.path and not splits:
            raise mistakes(
                Problem(("path",), "is required but missing (or `train` and `test`)")
            )
        if splits and self.train is None:
            raise mistakes(Problem(("train",), f"is required beside {', '.join(splits)}"))
        for _, _, reading in self._groups():
            if missing := [
                column
                for column in self.load_
                if reading.columns and column not in reading.columns
            ]:
                raise mistakes(
                    *(
                        Problem(
                            ("load", column),
                            f"is not among the `columns` read: {', '.join(reading.columns)}",
                        )
                        for column in missing
                    )
                )
        file_columns_made = [
            load.as_.lower() for load in self.load_.values() if load.as_ is not None
        ]
        if len(file_columns_made) > len(set(file_columns_made)):
            raise mistakes(
                Problem(("load",), "makes one column twice; each `as` must differ")
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        whole = super().to_dict()
        if not self.load_:
            del whole[
                "load"
            ]  # so that datasets made before there was this word keep their ids
        return {k: v for k, v in whole.items() if k not in SPELLING or v is not None}

    def _groups(self) -> Iterator[tuple[str | None, tuple[str, ...], Reading]]:
        """Split, paths and how to read them."""
        if self.path:
            yield None, self.path, self.plain()
        for split in ("train", "validation", "test"):
            own: FilesAs | None = getattr(self, split)
            if own is not None:
                yield split, own.path, own.over(self)

    def snapshot(self, base: Path, memo: Path | None = None) -> Snapshot:
        return self._snapshot(base, lambda files: hashes(files, memo), memo)

    def preview(self, base: Path) -> Snapshot:
        return self._snapshot(base, lambda files: [""] * len(files), None)

    def _snapshot(
        self,
        base: Path,
        digests: Callable[[list[FileInfo]], list[str]],
        memo: Path | None,
    ) -> Snapshot:
        """What would be read now; files that rows name are hashed whatever `digests` does with tables."""
        by_url: dict[str, tuple[FileInfo, str | None]] = {}
        learnt = self._learnt_format
        own = learnt.endings if isinstance(learnt, Reader) else ()
        for split, paths, reading in self._groups():
            for entry in paths:
                for file in find(
                    entry,
                    base,
                    any_ending=reading.format != "auto",
                    own=own,
                    within=True,
                ):
                    other = by_url.setdefault(file.url, (file, split))[1]
                    if other != split:
                        raise SourceError(
                            f"{file.url} is listed under both {other} and {split}, but a row cannot be in"
                            " two splits."
                        )
        files = [file for file, _ in by_url.values()]
        names = relative(files)
        known = zip(files, digests(files), strict=True)
        source_files = [
            SourceFile(names[f.url], f.url, f.size_bytes, sha, by_url[f.url][1], f.stamp)
            for f, sha in known
        ]
        # Sorted: the order of paths in a recipe makes no other snapshot.
        tables = tuple(sorted(source_files, key=lambda f: (f.path, f.url)))
        return Snapshot((*tables, *self._named(tables, base, memo)))

    def _named(
        self, tables: tuple[SourceFile, ...], base: Path, memo: Path | None
    ) -> list[SourceFile]:
        """The files that rows name."""
        if not self.load_:
            return []
        inputs = [
            replace(i, reading=_only(i.reading, tuple(self.load_)))
            for i in self._inputs(tables)
        ]
        with tempfile.TemporaryDirectory(prefix="penstock-look-") as scratch:
            try:
                extracted = extract(
                    inputs, Path(scratch), memory_bytes=256 << 20, events=Events()
                )
            # `load` chose these columns, so it is the word to tell the user of.
            except SourceError as error:
                raise SourceError(
                    error.message.replace("source.columns:", "source.load:")
                ) from None
            values = {
                column: (
                    pa.chunked_array(
                        [
                            pq.read_table(path, columns=[column])[column].combine_chunks()
                            for path in extracted.parquet
                        ]
                    )
                    .unique()
                    .drop_null()
                    .to_pylist()
                )
                for column in self.load_
            }
        taken = {file.url for file in tables}
        rows_files: list[SourceFile] = []
        for owner, columns in owners(self.load_).items():
            mine = survey(
                owner,
                {column: (self.load_[column], values[column]) for column in columns},
                base,
                memo,
            )
            if twice := [f.url for f in mine if f.url in taken]:
                raise SourceError(
                    f"source.load.{owner}: {twice[0]} is read already, as a table or below another root. Give"
                    " columns whose files lie together one `root`."
                )
            taken |= {file.url for file in mine}
            rows_files += mine
        return rows_files

    def typed(self, columns: pa.Schema) -> Self:
        """These files with some columns in given types; all else is found by looking, as it is without."""
        copy = self.model_copy()
        copy._types = columns
        return copy

    def _by_types(self) -> Learnt | None:
        return (
            Learnt(self._types)
            if self._learnt is None and self._types is not None
            else self._learnt
        )

    def like(self, learnt: Learnt) -> Self:
        """These files, read as the data was that something was learnt from.

        Words that are said of them stand. Where a reader of the user's own is not to be trusted here, that is
        told once a file is met that needs it.
        """
        copy = self.model_copy()
        copy._learnt = learnt
        declared = learnt.reading.get("format", "auto")
        try:
            format = load_format(declared)
            copy._learnt_format = None if format == "auto" else format
        # No error yet: a file whose ending names its format needs no reader of the
        # user's own.
        except PydanticCustomError as error:
            copy._learnt_format = _NotLoaded.of(declared, error)
        return copy

    def _learnt_input(self, input: Input) -> Input:
        """The input with the words that were learnt and make sense for its format, and the names that tell a
        header.
        """
        learnt = self._learnt
        if learnt is None:
            return input
        declared = input.reading.format
        format = self._format_of(input) if declared == "auto" else declared
        # Of a file that nothing names a format for, it is not known yet which words it will need.
        fits = _TABLE_WORDS.union(CSV_WORDS if format is None else format.words)
        # A word that is said of these files wins over the learnt one.
        given = {
            field.alias or name
            for name, field in type(self).model_fields.items()
            if name in self.model_fields_set
        }
        words = {
            word: value
            for word, value in learnt.reading.items()
            if word in fits and word not in given
        }
        if declared == "auto" and format is not None and format is self._learnt_format:
            words["format"] = format
        rename = words.get("rename") or {}
        # A header may have the name in the file or the one that the recipe makes of it.
        known = {name.lower() for name in (*learnt.schema.names, *rename)}
        reading = Reading.model_validate({**input.reading.options(), **words})
        return replace(
            input,
            reading=reading,
            known=frozenset(known),
            learnt=learnt.schema,
            inherited=frozenset(words),
        )

    def _format_of(self, input: Input) -> Reader | None:
        """What reads a file of which the recipe does not say it: by its ending, else as the learnt data was
        read.

        Raises:
            SourceError: that reader is somebody's own and not to be trusted here, or cannot be loaded.
        """
        named, learnt = ending(input.url), self._learnt_format
        if isinstance(learnt, Reader):
            is_own = is_of(input.url, learnt.endings)
            return learnt if is_own or not named else readers()[named]
        if named or learnt is None:
            return readers()[named] if named else None
        if learnt.reason:
            raise SourceError(
                f"{input.path}: the data that the model learnt from was read by the reader"
                f" {learnt.name!r}, which cannot be loaded: {learnt.reason} Correct that, or"
                " set `format`."
            )
        raise SourceError(
            f"{input.path}: the data that the model learnt from was read by"
            f" {learnt.name!r}, a reader that did not come with Penstock, and so would"
            " this file be. If you trust where the model came from, give --trust"
            " (trust=True); or set `format`."
        )

    def _tables(self, snapshot: Snapshot) -> tuple[SourceFile, ...]:
        # The files that rows name are known by their prefix, which no table's path has.
        starts = tuple(map(prefix, self.load_))
        return tuple(
            f for f in snapshot.files if not (starts and f.path.startswith(starts))
        )

    def _inputs(self, files: tuple[SourceFile, ...]) -> list[Input]:
        how = {split: reading for split, _, reading in self._groups()}
        return [
            self._learnt_input(
                Input(f.path, f.url, how[f.split], f.size_bytes, f.stamp, f.sha256)
            )
            for f in files
        ]

    def extract(
        self, snapshot: Snapshot, scratch: Path, *, memory_bytes: int, events: Events
    ) -> Extract:
        tables = self._tables(snapshot)
        tell(((file.path, file.url, file.stamp) for file in tables), events)
        if not self.load_:
            return extract(
                self._inputs(tables),
                scratch,
                memory_bytes=memory_bytes,
                events=events,
                learnt=self._by_types(),
            )
        inputs = self._inputs(tables)
        # In a folder of their own: rows with their files are written under the same
        # names.
        extracted = extract(
            inputs,
            scratch / "tables",
            memory_bytes=memory_bytes,
            events=events,
            learnt=self._by_types(),
        )
        return load_columns(
            extracted,
            self.load_,
            snapshot.files,
            scratch,
            memory_bytes=memory_bytes,
            events=events,
            fails=lambda i: inputs[i].reading.on_bad_row == "fail",
        )

    def sample(
        self, snapshot: Snapshot, rows: int, *, file_bytes: int = SAMPLE_FILE_BYTES
    ) -> Sample:
        tables = self._tables(snapshot)
        named: tuple[SourceFile, ...] = ()
        if self.load_:
            named = snapshot.files[len(tables) :]
            rows = min(rows, _that_fit(named))
        with tempfile.TemporaryDirectory(prefix="penstock-sample-") as folder:
            scratch = Path(folder)
            sample = sample_files(
                tables,
                self._inputs(tables),
                scratch / "tables",
                rows=rows,
                file_bytes=file_bytes,
                most_bytes=SAMPLE_BYTES,
            )
            return self._with_files(sample, named, scratch) if self.load_ else sample

    def proposed(self, snapshot: Snapshot) -> dict[str, Any]:
        """How text files are to be read: encoding, delimiter, header, where it is not said."""
        own = [getattr(self, s) for s in ("train", "validation", "test")]
        given = set(self.model_fields_set).union(*(o.model_fields_set for o in own if o))
        inputs = self._inputs(self._tables(snapshot))
        return proposed_reading(inputs, frozenset(given))

    def _with_files(
        self, sample: Sample, named: tuple[SourceFile, ...], scratch: Path
    ) -> Sample:
        """The sample with what its rows name in `load`."""
        chosen = scratch / "chosen.parquet"
        pq.write_table(sample.table, chosen)
        loaded = load_columns(
            Extract([chosen], sample.plain().schema),
            self.load_,
            (*sample.files, *named),
            scratch,
            memory_bytes=256 << 20,
            events=Events(),
            # A look never ends because of a bad row.
            fails=lambda i: False,
            most_bytes=_SAMPLE_BYTES,
        )
        table = pq.read_table(loaded.parquet, columns=[*loaded.schema.names, *PLACE])
        return replace(
            sample,
            table=table,
            complete=sample.complete and table.num_rows == sample.rows,
            head=None,
            # A row whose file cannot be had is known for those that were drawn alone.
            unread={**unread(loaded.rejects), **sample.unread},
            cut=sample.cut or loaded.cut,
        )


def _that_fit(files: tuple[SourceFile, ...]) -> int:
    """How many rows that name such files a sample has room for."""
    each = sum(file.size_bytes for file in files) / max(len(files), 1)
    return max(16, int(_SAMPLE_BYTES / max(each, 1)))


def _only(reading: Reading, columns: tuple[str, ...]) -> Reading:
    """The same, for some columns alone; bad rows are told of when all columns are read."""
    options = reading.options()
    chosen = {
        word: {name: value for name, value in options[word].items() if name in columns}
        for word in ("types", "trim_end", *SPELLING)
        if isinstance(options[word], dict)
    }
    return Reading.model_validate(
        {**options, **chosen, "columns": columns, "on_bad_row": "quarantine"}
    )
