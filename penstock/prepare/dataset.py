"""Dataset: one immutable version of clean, split rows, in Parquet, with lineage.

    datasets/<name>/<id>/
        rows/split=train/part-0.parquet …   in the order of row_id; `prepare.runs` says what run-01-… is
        quarantine/part-0.parquet           rows put aside, with their reasons
        profile.json                        each column of the training split, summarised
        manifest.json                       counts, lineage, schema, facts, checksums; written last

One in a bucket is opened by its manifest; `batches` streams its rows from where they lie, and `files` copies
them here.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID, Engine
from penstock.core.errors import StoreError, UserError
from penstock.core.listeners import notify
from penstock.core.near import did_you_mean
from penstock.core.page import facts_page
from penstock.core.paths import below
from penstock.core.sound import sound
from penstock.core.store import Artefact, Member, Store
from penstock.prepare.runs import merged, runs_of, write_merged
from penstock.prepare.tags import listed_tags, tagged, tags_of
from penstock.shards.cache import Cache
from penstock.shards.remote_files import RangeMemory, Ranges, read_whole

SPLITS = ("train", "validation", "test")
WHOLE_BYTES = 256 * 2**20
"""A file in a bucket up to this size is fetched whole, checked and kept in the cache; a larger one is read by
ranges.
"""
_SHORTEST_ID = 4
"""Characters of an id that may stand for a longer one."""
_DIFF_BYTES = 2**30
_DIFF_SHOWN = 20
_BATCH_BYTES = 64 * 2**20
_MEASURED_ROWS = 256


class Dataset:
    """One immutable version of a dataset: its manifest, counts, schema and rows.

    Args:
        artefact: its folder and manifest.
        store: the store it is of; the one around its folder unless given.
        far: whether it lies in that store, a bucket, and its rows are not in the folder.
    """

    def __init__(
        self, artefact: Artefact, *, store: Store | None = None, far: bool = False
    ) -> None:
        # `datasets/<name>/<id>` lies three folders below its store.
        self.store = store or Store(artefact.path.parent.parent.parent)
        self._far = self.store if far else None
        self.path = artefact.path
        self.manifest = artefact.manifest
        # A manifest that was damaged lacks words; that is told as such, not as a
        # KeyError.
        with self._sound():
            self.name: str = artefact.manifest["name"]
            self.id: str = artefact.manifest["id"]

    @classmethod
    def open(cls, store: Store, *, reference: str, verify: bool = False) -> Dataset:
        """The version `name@id` or `name@tag`, or the newest one called `name`; of the id its beginning is
        enough where no other version begins so.

        Raises:
            StoreError: it is not there, or was changed.
        """
        name, _, id = reference.partition("@")
        shelf = f"datasets/{name}"
        if not id:
            return cls.at(store, name=_newest(store, name), verify=verify)
        if not store.has(f"{shelf}/{id}"):
            if (version := tagged(store, name, id)) is not None:
                if not store.has(f"{shelf}/{version}"):
                    raise StoreError(
                        f"{reference} stands for {name}@{version}, which is not in the store {store.url}."
                        " Restore it, or move the tag with `penstock tag`."
                    )
                return cls.at(store, name=f"{shelf}/{version}", verify=verify)
            near = [
                each for each in store.names(shelf) if each.startswith(f"{shelf}/{id}")
            ]
            if len(id) >= _SHORTEST_ID and len(near) == 1:
                return cls.at(store, name=near[0], verify=verify)
            if len(id) >= _SHORTEST_ID and near:
                raise StoreError(
                    f"{reference} is the beginning of {len(near)} datasets in the store {store.url}:"
                    f" {', '.join(f'{name}@{each[len(shelf) + 1 :]}' for each in near[:10])}."
                    " Give more of it."
                )
            raise StoreError(
                f"the store {store.url} has no dataset {reference}.{_near(store, name, id)}"
            )
        return cls.at(store, name=f"{shelf}/{id}", verify=verify)

    @classmethod
    def at(cls, store: Store, *, name: str, verify: bool = False) -> Dataset:
        """The version `datasets/<name>/<id>`; of one in a bucket only the manifest is read, unless it is to
        be verified.

        Raises:
            StoreError: it is not there, or was changed.
        """
        # In a bucket the manifest alone is read: rows come when they are asked for.
        if store.is_remote and not verify and not store.is_here(name):
            return cls(
                Artefact(store.at(name), store.manifest(name)), store=store, far=True
            )
        return cls(store.open(name, verify=verify), store=store)

    @property
    def _name(self) -> str:
        return f"datasets/{self.name}/{self.id}"

    @property
    def cluster_by(self) -> str | None:
        """The column that the rows of a split are sorted by; None where they are in the order of ids."""
        with self._sound():
            declared = self.manifest.get("lineage", {}).get("declared", {})
            column: str | None = declared.get("cluster_by")
            return column

    @property
    def is_far(self) -> bool:
        """Whether its rows lie in a bucket."""
        return self._far is not None

    def file(self, name: str) -> Path:
        """The path of one of its files on this machine; of a dataset in a bucket it is fetched."""
        if self._far is not None:
            return self._far.file(self._name, file=name, manifest=self.manifest)
        return below(self.path, name, where=f"a file of the dataset {self.reference}")

    def __repr__(self) -> str:
        return f"Dataset({self.reference!r})"

    def _repr_html_(self) -> str:
        facts = {
            "rows": self.counts,
            "columns": ", ".join(self.schema.names),
            "folder": self.path,
        }
        return facts_page(self.reference, facts)

    @property
    def reference(self) -> str:
        """`NAME@ID`, as commands and recipes take it."""
        return f"{self.name}@{self.id}"

    @property
    def counts(self) -> dict[str, int]:
        """Rows: `in`, and the headings that add up to it: train, validation, test, quarantined, duplicates,
        filtered.
        """
        with self._sound():
            return {
                str(word): int(rows) for word, rows in self.manifest["counts"].items()
            }

    @property
    def facts(self) -> dict[int, dict[str, Any]]:
        """What fitted cleaners learnt, by their places in the recipe."""
        with self._sound():
            return {
                int(place): dict(facts) for place, facts in self.manifest["facts"].items()
            }

    @property
    def raw_types(self) -> dict[str, pa.DataType]:
        """The types of its private columns before they were hidden, dropped ones included."""
        with self._sound():
            private = self.manifest.get("private")
            if private is None:
                return {}
            raw = base64.b64decode(private["raw_schema"])
            return {f.name: f.type for f in pa.ipc.read_schema(pa.py_buffer(raw))}

    @cached_property
    def schema(self) -> pa.Schema:
        """`row_id`, then the columns."""
        with self._sound():
            # The footer of the first file has the schema; no row is decoded.
            first = next(self._opened(self._rows("train", self.manifest["files"])), None)
            if first is None:
                raise LookupError("its manifest names no rows to train on")
            return pq.read_schema(first()).remove_metadata()

    def _sound(self) -> AbstractContextManager[None]:
        """A context in which errors of a damaged manifest or file become one error that says what
        to do.
        """
        return sound(
            f"the dataset {self.path}",
            advice="Fetch it again, or delete it and prepare it again",
        )

    def files(self, split: str) -> list[Path]:
        """The Parquet files of a split, for a reader that does not heed the order of rows (others ask for
        `ordered_files`). A dataset in a bucket is copied here for it, whole.
        """
        _check_split(split)
        if self._far is not None:
            # From here on it is a local one: the copy is whole.
            self._far.open(self._name)
            self._far = None
        return [self.file(name) for name in self._rows(split, self.manifest["files"])]

    def ordered_files(self, split: str, scratch: Path) -> list[Path]:
        """The Parquet files of a split; their rows in the order of the files' names are in the order of
        `row_id`, or of `cluster_by` and then of `row_id`.

        Args:
            scratch: where rows of several runs are written as one file.
        """
        files = self.files(split)
        if len(runs_of(map(str, files))) < 2:
            return files
        target = scratch / f"{split}.parquet"
        return [write_merged(self.batches(split), self.schema, target)]

    def _rows(self, split: str, files: Iterable[str]) -> list[str]:
        """The Parquet files of a split that the manifest names, sorted; other files in the folder
        are ignored.
        """
        return sorted(
            # Sorted names are the order of rows.
            name
            for name in files
            if name.startswith(f"rows/split={split}/") and name.endswith(".parquet")
        )

    def _runs(self, split: str) -> list[list[str]]:
        """The names of a split's files, by runs: within each, rows are in order."""
        _check_split(split)
        return runs_of(self._rows(split, self.manifest["files"]))

    def _opened(self, names: Sequence[str]) -> Iterator[Callable[[], Any]]:
        """For each of some files, a function that opens it for a Parquet reader.

        From a bucket they come through the node's cache, or by ranges if they are large, since often only
        their beginning is wanted.
        """
        if self._far is None:
            yield from (partial(Path, self.file(name)) for name in names)
            return
        cache = Cache(self._far.cache_bytes)
        _, members = self._far.members(self._name, manifest=self.manifest)
        for name in names:
            member = members[name]
            # Of a large file often the footer and a few row groups are wanted.
            if member.size_bytes > WHOLE_BYTES:
                yield partial(ranged, member)
                continue
            content = cache.open(member)
            # No room in the cache: the file is held in memory while it is read.
            whole = read_whole(member) if content is None else content
            yield partial(pa.BufferReader, whole)

    def batches(
        self,
        split: str,
        *,
        columns: Sequence[str] | None = None,
        rows: int = 65_536,
        coded: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """A split's rows, streamed in stored order.

        Args:
            split: `train`, `validation` or `test`.
            columns: all unless given; `row_id` always comes first.
            rows: the most in one batch; fewer where rows are wide, so that a batch is 64 MiB at most or so.
            coded: text columns that are stored with a dictionary come as Arrow dictionaries, which is many
                times faster to read.

        Raises:
            UserError: there is no such split or column.
        """
        wanted = self._columns(columns)
        batches = self._batches(split, wanted, rows, coded)
        while True:
            # Only the reading is within: an error of whoever takes the batch is no
            # defect of the dataset.
            with self._sound():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _batches(
        self, split: str, wanted: list[str], rows: int, coded: bool
    ) -> Iterator[pa.RecordBatch]:
        runs = [
            self._run_batches(names, wanted, rows, coded) for names in self._runs(split)
        ]
        yield from merged(runs, rows) if len(runs) > 1 else chain.from_iterable(runs)

    def _run_batches(
        self, names: Sequence[str], wanted: list[str], rows: int, coded: bool
    ) -> Iterator[pa.RecordBatch]:
        for source in self._opened(names):
            with pq.ParquetFile(
                source(),
                # Read ahead, all columns of a row group would be in memory at once.
                pre_buffer=False,
                # Opened once more: which columns have a dictionary stands in the
                # footer.
                read_dictionary=_coded(source(), wanted) if coded else None,
            ) as file:
                for batch in file.iter_batches(rows, columns=wanted):
                    # Parquet gives columns in the file's order.
                    yield batch.select(wanted)

    def table(self, split: str, *, columns: Sequence[str] | None = None) -> pa.Table:
        """A whole split in memory."""
        wanted = self._columns(columns)
        # A split without rows has no batch to take the schema from.
        fields = pa.schema([self.schema.field(name) for name in wanted])
        with self._sound():
            return pa.Table.from_batches(
                self.batches(split, columns=columns), schema=fields
            )

    def _columns(self, columns: Sequence[str] | None) -> list[str]:
        known = self.schema.names
        for name in columns or ():
            if name not in known:
                raise UserError(
                    f"the dataset {self.reference} has no column {name!r}.{did_you_mean(name, known)}"
                    f" Columns: {', '.join(known)}."
                )
        # The id first, and each column once.
        return list(dict.fromkeys([ROW_ID, *(known if columns is None else columns)]))

    def diff(self, other: Dataset) -> dict[str, Any]:
        """Compare this version with `other`: columns, counts, and rows added or removed, by row id.

        Rows are compared by id alone, on disk, so versions larger than memory can be compared.
        """
        ours, theirs = ({f.name: str(f.type) for f in d.schema} for d in (self, other))
        with (
            tempfile.TemporaryDirectory(prefix="penstock-diff-") as scratch,
            Engine.load("embedded").open(
                Path(scratch), memory_bytes=_DIFF_BYTES, threads=2
            ) as session,
        ):
            # Ids alone: versions are compared by them, however wide their rows are.
            here, there = (
                session.read([p for split in SPLITS for p in d.files(split)]).select(
                    ROW_ID
                )
                for d in (self, other)
            )
            rows = {}
            for word, some, others in (("added", there, here), ("removed", here, there)):
                # Kept, since it is counted and then shown.
                only = session.keep(some.anti_join(others, ROW_ID))
                rows[word] = {
                    "count": session.count(only),
                    "first": [
                        row[ROW_ID]
                        # Ordered, so that the same rows are shown each time.
                        for row in session.rows(only.order_by(ROW_ID).limit(_DIFF_SHOWN))
                    ],
                }
        return {
            "from": self.reference,
            "to": other.reference,
            "columns": {
                "added": sorted(theirs.keys() - ours.keys()),
                "removed": sorted(ours.keys() - theirs.keys()),
                "changed": {
                    name: [ours[name], theirs[name]]
                    for name in ours
                    if name in theirs and ours[name] != theirs[name]
                },
            },
            "counts": {
                heading: [count, other.counts[heading]]
                for heading, count in self.counts.items()
            },
            "rows": rows,
        }


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise UserError(
            f"There is no split {split!r}; expected train, validation or"
            f" test.{did_you_mean(split, list(SPLITS))}"
        )


def ranged(member: Member, memory: RangeMemory | None = None) -> pa.PythonFile:
    """A file of a bucket, to be read by ranges."""
    return pa.PythonFile(Ranges(member, memory), "r")


def _coded(source: Any, names: Sequence[str]) -> list[str]:
    """The text columns that the file's first row group stores with a dictionary."""
    with pq.ParquetFile(source) as file:
        # An empty split has a file without row groups.
        if not file.num_row_groups:
            return []
        group, schema = file.metadata.row_group(0), file.schema_arrow
        chunks = {
            chunk.path_in_schema: chunk
            for chunk in map(group.column, range(group.num_columns))
        }
    # A column without a dictionary page would have to be coded while it is read.
    return [
        n
        for n in names
        if pa.types.is_string(schema.field(n).type)
        and n in chunks
        and chunks[n].has_dictionary_page
    ]


def _newest(store: Store, name: str) -> str:
    """The newest readable version called `name`; a notice names those that cannot be read.

    Raises:
        StoreError: there is none.
    """
    readable: list[tuple[str, str]] = []
    problems: dict[str, str] = {}
    for version in store.names(f"datasets/{name}"):
        try:
            readable.append((str(store.manifest(version).get("created", "")), version))
        except StoreError as error:
            problems[f"{name}@{version.rsplit('/', 1)[1]}"] = error.message
    if not readable and problems:
        explained = " ".join(
            f"{reference}: {problem}" for reference, problem in problems.items()
        )
        raise StoreError(
            f"the store {store.url} has no version of the dataset {name!r} that can be read. {explained}"
        )
    if not readable:
        raise StoreError(
            f"the store {store.url} has no dataset called {name!r}.{_near(store, name)}"
        )
    # Times are written in ISO 8601, which sorts as time does.
    newest = max(readable)[1]
    for reference, problem in problems.items():
        notify(
            f"{reference} cannot be read and is left aside ({problem.rstrip('.')});"
            f" {name}@{newest.rsplit('/', 1)[1]} is taken",
            version=reference,
        )
    return newest


def _near(store: Store, name: str, tag: str = "") -> str:
    names = [folder.removeprefix("datasets/") for folder in store.folders("datasets")]
    versions = (
        [f"{name}@{n.rsplit('/', 1)[1]}" for n in store.names(f"datasets/{name}")]
        if name in names
        else []
    )
    if versions:
        tags = [each.tag for each in tags_of(store, name)]
        return f"{did_you_mean(tag, tags)} Versions: {', '.join(versions)}.{listed_tags(tags)}"
    return did_you_mean(name, names) or (
        f" Datasets: {', '.join(names)}."
        if names
        else " It has none yet; `penstock prepare RECIPE` makes one."
    )
