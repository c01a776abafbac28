"""The laws of sources.

`check_source(Source.load({"type": "acme.lake", …}), base)` judges a declared source by all of them.

`base` is a folder that the laws may write in: one file of the source is changed by a byte and mended again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.data import (
    PLACE,
    REJECT_SCHEMA,
    ROW_FILE,
    ROW_NUMBER,
    Extract,
    Snapshot,
    Source,
)
from penstock.core.events import Events

MEMORY_BYTES = 1 << 30
Law = Callable[[Source, Path], None]


def _extracted(
    source: Source, snapshot: Snapshot, scratch: str
) -> tuple[Extract, pa.Table, pa.Table]:
    extracted = source.extract(
        snapshot, Path(scratch), memory_bytes=MEMORY_BYTES, events=Events()
    )
    rows = pa.concat_tables(
        [pq.read_table(p) for p in extracted.parquet], promote_options="default"
    )
    rejects = (
        pa.concat_tables([pq.read_table(p) for p in extracted.rejects])
        if extracted.rejects
        else REJECT_SCHEMA.empty_table()
    )
    return extracted, rows, rejects


def declared_is_loaded(source: Source, base: Path) -> None:
    """Declared → loaded → declared is the identity, and equal declarations are equal sources."""
    again = Source.load(source.to_dict())
    assert again == source, f"loading what {source!r} declares gives {again!r}"
    assert again.to_dict() == source.to_dict()


def snapshot_is_stable(source: Source, base: Path) -> None:
    """Two looks at the same files see the same, in one order, with and without a memo."""
    with tempfile.TemporaryDirectory() as scratch:
        memo = Path(scratch) / "memo.json"
        first = source.snapshot(base)
        assert first.files, (
            "a snapshot of nothing: a source that finds nothing raises SourceError"
        )
        assert len({f.url for f in first.files}) == len(first.files), (
            "a file is in the snapshot twice"
        )
        assert len({f.path for f in first.files}) == len(first.files), (
            "two files have one relative path"
        )
        for look in ("without a memo", "that writes a memo", "that reads a memo"):
            again = source.snapshot(base, None if look == "without a memo" else memo)
            assert again == first, f"a second look {look} differs"


def snapshot_sees_a_changed_byte(source: Source, base: Path) -> None:
    """A byte changed in a file changes what the snapshot declares, memo or not."""
    with tempfile.TemporaryDirectory() as scratch:
        memo = Path(scratch) / "memo.json"
        before = source.snapshot(base, memo)
        local = [
            Path(f.url)
            for f in before.files
            if "://" not in f.url and Path(f.url).is_relative_to(base)
        ]
        if not local:
            return
        file, times = local[0], os.stat(local[0])
        content = file.read_bytes()
        try:
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1_000_000))
            after = source.snapshot(base, memo)
        finally:
            file.write_bytes(content)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert after.to_dict() != before.to_dict(), (
            f"a byte of {file} changed and the snapshot did not"
        )


def every_row_is_somewhere(source: Source, base: Path) -> None:
    """The counts are those of the files written; each row has its place; each reject its file, line and
    reason.
    """
    snapshot = source.snapshot(base)
    with tempfile.TemporaryDirectory() as scratch:
        extracted, rows, rejects = _extracted(source, snapshot, scratch)
    assert rows.num_rows == extracted.rows, (
        f"{rows.num_rows} rows were written, {extracted.rows} declared"
    )
    assert rejects.num_rows == extracted.rejected, (
        f"{rejects.num_rows} rejects were written, {extracted.rejected} declared"
    )
    assert extracted.rows + extracted.rejected > 0
    assert (
        rows.schema.field(ROW_FILE).type == pa.int32()
        and rows.schema.field(ROW_NUMBER).type == pa.int64()
    )
    assert {n for n in rows.column_names if n not in (ROW_FILE, ROW_NUMBER)} <= set(
        extracted.schema.names
    )
    for index in pc.unique(rows[ROW_FILE]).to_pylist():
        assert 0 <= index < len(snapshot.files), (
            f"{ROW_FILE} {index} is no file of the snapshot"
        )
        numbers = rows.filter(pc.equal(rows[ROW_FILE], index))[ROW_NUMBER].to_pylist()
        assert sorted(numbers) == list(range(len(numbers))), (
            f"the rows of {snapshot.files[index].path} are not numbered 0, 1, 2, …"
        )
    assert rejects.schema.equals(REJECT_SCHEMA), (
        f"rejects have the schema {rejects.schema}"
    )
    for reject in rejects.to_pylist():
        assert reject["file"] in {f.path for f in snapshot.files}, (
            f"a reject of no file: {reject}"
        )
        assert (
            reject["line"] >= 1
            and reject["stage"] == "read"
            and reject["reason"]
            and reject["row"] is not None
        ), f"a reject without its place or reason: {reject}"


def extract_is_repeatable(source: Source, base: Path) -> None:
    """Two extracts of one snapshot have the same rows in the same order, and the same rejects."""
    snapshot = source.snapshot(base)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        first, second = (
            _extracted(source, snapshot, one),
            _extracted(source, snapshot, two),
        )
    assert first[0].schema.equals(second[0].schema)
    # As text, since NaN is unlike itself.
    assert str(first[1].to_pylist()) == str(second[1].to_pylist()), (
        "the second extract has other rows"
    )
    assert first[2].equals(second[2]), "the second extract has other rejects"


def sample_has_the_columns(source: Source, base: Path) -> None:
    """A sample has columns of the extract, each row's place, and some rows; a preview gives the same as a
    snapshot.
    """
    snapshot = source.snapshot(base)
    with tempfile.TemporaryDirectory() as scratch:
        extracted = _extracted(source, snapshot, scratch)[0]
    preview = source.preview(base)
    assert [f.path for f in preview.files] == [f.path for f in snapshot.files], (
        "a preview has other files than a snapshot"
    )
    sample = source.sample(preview, 10)
    # As text, since NaN is unlike itself.
    assert str(sample.table.to_pylist()) == str(
        source.sample(snapshot, 10).table.to_pylist()
    ), "a preview gives another sample than a snapshot, or a second look than the first"
    columns = sample.plain().column_names
    assert set(columns) <= set(extracted.schema.names), (
        f"a sample of {columns}, an extract of {extracted.schema.names}"
    )
    assert set(PLACE) <= set(sample.table.column_names), "its rows have no places"
    assert sample.table.num_rows > 0 or extracted.rows == 0


LAWS: tuple[Law, ...] = (
    declared_is_loaded,
    snapshot_is_stable,
    snapshot_sees_a_changed_byte,
    every_row_is_somewhere,
    extract_is_repeatable,
    sample_has_the_columns,
)


def check_source(source: Source, base: Path) -> None:
    """Judge a source by every law.

    Raises:
        AssertionError: naming the law and the difference.
    """
    for law in LAWS:
        try:
            law(source, base)
        except AssertionError as error:
            raise AssertionError(
                f"{type(source).__name__} breaks the law {law.__name__!r}: {error}"
            ) from error
