"""The version of a dataset without the rows that are meant: its parent's files less these rows.

Row ids, splits and the order of the other rows are the parent's. What is said of rows is said anew: counts,
reasons of the quarantine, the profile. Examples of what cleaners changed are left out, since they are values
of rows. What cleaners learnt of the training split stays, as the rows that are left were mended by it.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_ID, Engine
from penstock.core.identity import fingerprint
from penstock.core.store import Store, as_store_error
from penstock.core.wording import without_values
from penstock.pipeline.forget.conditions import Condition, Matched
from penstock.pipeline.forget.traces import blanked_data, own_alone, values_of
from penstock.prepare.clustering import lowest
from penstock.prepare.dataset import SPLITS, Dataset
from penstock.prepare.forgotten import remember_rows
from penstock.prepare.ledger import WITHHELD
from penstock.prepare.profile import profile
from penstock.prepare.subset import row_test

_MEMORY_BYTES = 1 << 30
_BATCH = 1_024
_SHORTEST = 4
"""Characters of a value of the condition that is looked for in the text of a row that could not be read."""
_OF_ROWS = ("facts", "contract", "changes", "overlap", "anonymity")
"""What a manifest says of its rows, and the child takes over."""
_OWN = ("format", "files", "created", "seconds")


def child_id(matched: Matched) -> str:
    """The id of the version without the rows: of the parent's and of the rows that stay, so that it says
    nothing of those that go.
    """
    parent = matched.dataset
    digests = []
    for split in SPLITS:
        gone = matched.row_ids[split]
        digest = 0
        for batch in parent.batches(split, columns=[]):
            ids = batch[ROW_ID].cast(pa.string())
            left = ids.filter(pc.invert(pc.is_in(ids, value_set=gone)))
            # A sum does not depend on how rows come in batches.
            digest = (digest + sum(int(id, 16) for id in left.to_pylist())) % 2**128
        digests.append(digest)
    left = parent.counts["quarantined"] - matched.quarantined
    return fingerprint("forget", parent.id, *map(str, digests), left)


def write_child(
    matched: Matched,
    condition: Condition,
    store: Store,
    *,
    id: str,
    facts: Mapping[str, Any],
) -> Dataset:
    """Write the version without the rows, unless it is there.

    Args:
        id: of `child_id`.
        facts: what its lineage says of the condition.

    Raises:
        StoreError: the store cannot be written.
    """
    parent = matched.dataset
    name = f"datasets/{parent.name}/{id}"
    if store.has(name) or store.finish(name):
        return Dataset.at(store, name=name)
    old = parent.manifest
    manifest = {word: value for word, value in old.items() if word not in _OWN}
    with store.draft(name, manifest=manifest) as folder, as_store_error(folder):
        reasons = _Reasons()
        with quarantine_test(matched, condition) as are_meant:
            for file in old["files"]:
                _write_file(matched, file, folder / file, are_meant, reasons)
        if "profile.json" in old["files"]:
            (folder / "profile.json").write_text(
                _json(_profile(folder, parent.cluster_by)), "utf-8"
            )
        # What was said of the parent's rows (what cleaners learnt, what rules found) may have a value of one.
        values = values_of(matched)
        of_rows = {word: manifest[word] for word in _OF_ROWS if word in manifest}
        alone = own_alone(matched, values.within(json.dumps(of_rows, ensure_ascii=False)))
        manifest |= blanked_data(of_rows, alone)
        manifest |= {
            "id": id,
            "counts": _counts(matched),
            "quarantine": reasons.entries(),
            "lineage": {
                **old["lineage"],
                "parent": parent.reference,
                "forgotten": {
                    "rows": matched.rows,
                    "quarantined": matched.quarantined,
                    "condition": dict(facts),
                },
            },
        }
    return Dataset.at(store, name=name)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _counts(matched: Matched) -> dict[str, int]:
    """As many rows came in; those that are meant count as filtered."""
    counts = dict(matched.dataset.counts)
    for split, rows in matched.rows.items():
        counts[split] -= rows
    counts["quarantined"] -= matched.quarantined
    counts["filtered"] = counts.get("filtered", 0) + matched.count + matched.quarantined
    return counts


@dataclass
class _Reasons:
    """Why rows are in a quarantine, counted as a preparation counts them."""

    rows: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        key = row["stage"], row["column"] or "", without_values(row["reason"] or "")
        self.rows[key] += 1
        self.first.setdefault(key, dict(row))

    def entries(self) -> list[dict[str, Any]]:
        entries = [
            {
                "stage": key[0],
                "column": self.first[key]["column"],
                "rows": rows,
                "example": self.first[key]["reason"],
            }
            for key, rows in self.rows.items()
        ]
        return sorted(
            entries,
            key=lambda e: (-e["rows"], e["stage"], e["column"] or "", e["example"]),
        )


def _write_file(
    matched: Matched, file: str, target: Path, are_meant: Test, reasons: _Reasons
) -> None:
    """Write one file of the child; its profile is made later, of its rows."""
    source = matched.dataset.file(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.startswith("rows/"):
        split = file.split("/")[1].removeprefix("split=")
        _rows_without(source, target, matched.row_ids[split])
    elif file.startswith("quarantine") and file.endswith(".parquet"):
        for row in _quarantine_without(source, target, are_meant):
            # Rows of joined sources, in folders of their own, are no rows of the dataset.
            if file.startswith("quarantine/"):
                reasons.add(row)
    elif file == "changes.json":
        changes = json.loads(source.read_text("utf-8"))
        target.write_text(_json(_without_examples(changes)), "utf-8")
    elif file != "profile.json":
        shutil.copyfile(source, target)


def _without_examples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            word: [] if word == "examples" else _without_examples(each)
            for word, each in value.items()
        }
    return (
        [_without_examples(each) for each in value] if isinstance(value, list) else value
    )


def _rows_without(source: Path, target: Path, gone: pa.Array) -> None:
    """A file of rows without some of them, laid out as it was."""
    with pq.ParquetFile(source) as file:
        metadata = file.metadata
        words = _dictionaries(metadata)
        with pq.ParquetWriter(
            target,
            file.schema_arrow,
            compression="zstd",
            compression_level=1,
            use_dictionary=words or False,
            write_statistics=True,
            store_schema=b"ARROW:schema" in (metadata.metadata or {}),
        ) as writer:
            # A row group is what a reader holds.
            for group in range(metadata.num_row_groups):
                table = file.read_row_group(group)
                ids = table[ROW_ID].cast(pa.string())
                left = table.filter(pc.invert(pc.is_in(ids, value_set=gone)))
                if len(left):
                    writer.write_table(left, row_group_size=len(left))


def _dictionaries(metadata: Any) -> list[str]:
    if not metadata.num_row_groups:
        return []
    group = metadata.row_group(0)
    chunks = map(group.column, range(group.num_columns))
    return [chunk.path_in_schema for chunk in chunks if chunk.has_dictionary_page]


def _quarantine_without(
    source: Path, target: Path, are_meant: Test
) -> Iterator[dict[str, Any]]:
    """Write a quarantine without the rows that are meant, and yield the others."""
    with (
        pq.ParquetFile(source) as file,
        pq.ParquetWriter(target, file.schema_arrow, compression="zstd") as writer,
    ):
        for batch in file.iter_batches(_BATCH):
            rows = batch.to_pylist()
            left = [not is_one for is_one in are_meant(rows)]
            if any(left):
                writer.write_batch(batch.filter(pa.array(left)))
            yield from (row for row, stays in zip(rows, left, strict=True) if stays)


Rows = Sequence[Mapping[str, Any]]
"""Rows of a quarantine."""
Test = Callable[[Rows], Sequence[bool]]


@contextmanager
def quarantine_test(matched: Matched, condition: Condition) -> Iterator[Test]:
    """A context with what says which rows of a quarantine are meant.

    A row that was read is judged by the condition, as far as its values are of its columns' types. Beside
    that, and for a row that could not be read, its text must not have a value of the condition as a whole
    word.
    """
    schema = matched.dataset.schema
    # A pseudonym's raw value is withheld in a quarantine, so only the text can tell.
    is_plain = matched.where == condition.text
    names = matched.subset().columns_used if is_plain else ()
    kinds = pa.schema([schema.field(name) for name in names])
    values = [re.escape(value) for value in condition.values() if len(value) >= _SHORTEST]
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(values)})(?!\w)") if values else None
    with ExitStack() as stack:
        test = stack.enter_context(row_test(matched.where, kinds)) if names else None

        def are_meant(rows: Rows) -> Sequence[bool]:
            cells = [_cells(row) for row in rows]
            columns = [
                pa.array([_cast(row.get(f.name), f.type) for row in cells], f.type)
                for f in kinds
            ]
            true = (
                [False] * len(rows)
                if test is None
                else test(pa.Table.from_arrays(columns, schema=kinds))
            )
            return [
                is_true or (pattern is not None and bool(pattern.search(_text(row))))
                for row, is_true in zip(rows, true, strict=True)
            ]

        yield are_meant


def _text(row: Mapping[str, Any]) -> str:
    return f"{row['row'] or ''}\n{row['reason'] or ''}"


def _cells(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a row that was read; none of another."""
    if row["stage"] == "read":
        return {}
    try:
        cells = json.loads(row["row"])
    except ValueError:
        return {}
    return cells if isinstance(cells, dict) else {}


def _cast(value: Any, kind: pa.DataType) -> Any:
    """A value of a quarantined row as its column's type; None where it is none."""
    try:
        return None if value is None else pa.scalar(value).cast(kind).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return None


def count_quarantined(matched: Matched, condition: Condition) -> int:
    """How many rows of a dataset's quarantine are meant."""
    return sum(1 for _ in _quarantined(matched, condition, "quarantine/"))


def remember(matched: Matched, condition: Condition, store: Store) -> None:
    """Note which rows are meant, so that no later version of the dataset has them.

    Raises:
        StoreError: the store cannot be written.
    """
    rows = list(_quarantined(matched, condition, "quarantine"))
    ids = [id for split in matched.row_ids.values() for id in split.to_pylist()]
    # A second row with a key has the id of the first, which may be another person's.
    ids += [row["row_id"] for row in rows if row["row_id"] and row["stage"] != "key"]
    texts = [row["row"] for row in rows if row["row"] and row["row"] != WITHHELD]
    remember_rows(store, matched.dataset.name, row_ids=ids, texts=texts)


def _quarantined(
    matched: Matched, condition: Condition, prefix: str
) -> Iterator[dict[str, Any]]:
    """The rows of a dataset's quarantines that are meant.

    Args:
        prefix: of the files that are read; joined sources have quarantines of their own.
    """
    dataset = matched.dataset
    with quarantine_test(matched, condition) as are_meant:
        for name in dataset.manifest["files"]:
            if name.startswith(prefix) and name.endswith(".parquet"):
                with pq.ParquetFile(dataset.file(name)) as file:
                    for batch in file.iter_batches(_BATCH):
                        rows = batch.to_pylist()
                        meant = zip(rows, are_meant(rows), strict=True)
                        yield from (row for row, is_meant in meant if is_meant)


def _profile(folder: Path, cluster_by: str | None) -> dict[str, Any]:
    train = sorted((folder / "rows" / "split=train").glob("*.parquet"))
    with (
        tempfile.TemporaryDirectory(prefix="penstock-forget-") as scratch,
        Engine.load("embedded").open(
            Path(scratch), memory_bytes=_MEMORY_BYTES, threads=2
        ) as session,
    ):
        some = lowest(cluster_by, session, train, Path(scratch))
        return profile(session, train, sampled=some)
