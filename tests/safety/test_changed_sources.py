"""What is read is what was hashed: a source that changes is refused."""

from __future__ import annotations

import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from penstock.contracts.data import Source
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.parts.sources.files import Files
from penstock.parts.sources.folder import Folder
from penstock.prepare.prepare import prepare
from penstock.recipe.schema import load_recipe
from tests.safety import specimens
from tests.safety.reading import tar_of


def _other(data: bytes) -> bytes:
    """As many bytes, other content, still a file of its format."""
    return data.replace(b"Bergen", b"Agerbn").replace(b"text 1 ", b"text 9 ")


def _change(path: Path) -> None:
    """In place, at the same size, with the same time of its content."""
    before = path.stat()
    data = _other(path.read_bytes())
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (
        path.stat().st_size == before.st_size
        and path.stat().st_mtime_ns == before.st_mtime_ns
    )


CHANGED = ["a.csv", "a.jsonl", "a.parquet", "a.arrow", "a.tar", "texts", "load"]


def lake_of(kind: str, folder: Path) -> tuple[Source, Path]:
    """A source, and the file of it that will change."""
    if kind == "texts":
        (folder / "texts").mkdir()
        (folder / "texts" / "a.txt").write_bytes(b"text 1 ")
        return Folder(path=str(folder / "texts")), folder / "texts" / "a.txt"
    if kind == "load":
        (folder / "files").mkdir()
        (folder / "files" / "a.txt").write_bytes(b"text 1 ")
        (folder / "a.csv").write_text("n,f\n1,a.txt\n")
        return (
            Files.model_validate(
                {
                    "path": str(folder / "a.csv"),
                    "load": {"f": {"root": str(folder / "files"), "text": True}},
                }
            ),
            folder / "files" / "a.txt",
        )
    path = folder / kind
    if kind == "a.tar":
        path.write_bytes(tar_of())
        return Folder(path=str(path)), path
    plain = io.BytesIO()
    pq.write_table(
        specimens.table().drop_columns(["in"]),
        plain,
        compression="none",
        use_dictionary=False,
    )
    makers = {
        "a.csv": specimens.csv,
        "a.jsonl": specimens.jsonl,
        "a.parquet": plain.getvalue,
        "a.arrow": specimens.arrow,
    }
    path.write_bytes(makers[kind]())
    return Files(path=str(path)), path


@pytest.mark.parametrize("kind", CHANGED)
def test_a_source_that_changes_after_it_was_hashed_is_refused(
    kind: str, tmp_path: Path
) -> None:
    source, path = lake_of(kind, tmp_path)
    snapshot = source.snapshot(tmp_path)
    _change(path)
    with pytest.raises(SourceError, match="changed while it was being prepared"):
        source.extract(
            snapshot, tmp_path / "scratch", memory_bytes=256 << 20, events=Events()
        )


@pytest.mark.parametrize("kind", ["a.csv", "a.jsonl", "a.parquet", "a.arrow"])
def test_a_source_that_changes_while_it_is_read_is_refused(
    kind: str, tmp_path: Path
) -> None:
    source, path = lake_of(kind, tmp_path)
    snapshot = source.snapshot(tmp_path)
    changed: list[bool] = []

    def between_the_passes(event: Any) -> None:
        if event.name == "progress" and not changed:
            changed.append(True)
            _change(path)

    with pytest.raises(SourceError, match="changed while it was being prepared"):
        source.extract(
            snapshot,
            tmp_path / "scratch",
            memory_bytes=256 << 20,
            events=Events(between_the_passes),
        )
    assert changed


@pytest.mark.parametrize("kind", CHANGED)
def test_the_memo_of_hashes_sees_a_change_at_the_same_size_and_time(
    kind: str, tmp_path: Path
) -> None:
    source, path = lake_of(kind, tmp_path)
    memo = tmp_path / "memo.json"
    first = source.snapshot(tmp_path, memo)
    assert source.snapshot(tmp_path, memo) == first
    _change(path)
    second = source.snapshot(tmp_path, memo)
    assert second.to_dict() != first.to_dict()
    source.extract(second, tmp_path / "scratch", memory_bytes=256 << 20, events=Events())


def test_a_file_that_is_only_touched_is_no_other_file(tmp_path: Path) -> None:
    source, path = lake_of("a.csv", tmp_path)
    snapshot = source.snapshot(tmp_path)
    os.utime(path, ns=(1, 1))
    assert (
        source.extract(
            snapshot, tmp_path / "scratch", memory_bytes=256 << 20, events=Events()
        ).rows
        == specimens.ROWS
    )


def test_a_far_source_that_changes_is_refused() -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/lost/a.csv", specimens.csv())
    source = Files(path="memory://lost/a.csv")
    snapshot = source.snapshot(Path("/"))
    memory.pipe_file("/lost/a.csv", _other(specimens.csv()))
    try:
        with (
            tempfile.TemporaryDirectory() as scratch,
            pytest.raises(SourceError, match="changed while"),
        ):
            source.extract(
                snapshot, Path(scratch), memory_bytes=256 << 20, events=Events()
            )
    finally:
        memory.rm("/lost", recursive=True)


def test_a_dataset_is_not_made_of_what_was_not_hashed(tmp_path: Path) -> None:
    """A joined source changes while the main one is read: neither enters the cache under the old hash."""
    (tmp_path / "a.csv").write_text("k,v\n" + "".join(f"{i},{i}\n" for i in range(40)))
    (tmp_path / "b.csv").write_text(
        "k,w\n" + "".join(f"{i},{i + 100}\n" for i in range(40))
    )
    recipe = {
        "name": "lost",
        "source": {"type": "files", "path": "a.csv"},
        "join": [{"source": {"type": "files", "path": "b.csv"}, "on": ["k"]}],
        "split": {"train": 1, "validation": 0, "test": 0},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    changed: list[bool] = []

    def once(event: Any) -> None:
        if (
            event.name == "progress"
            and event.fields.get("stage") == "extract"
            and not changed
        ):
            changed.append(True)
            before = (tmp_path / "b.csv").stat()
            data = (tmp_path / "b.csv").read_bytes().replace(b",100\n", b",999\n")
            with open(tmp_path / "b.csv", "r+b") as file:
                file.write(data)
            os.utime(tmp_path / "b.csv", ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(SourceError, match=r"b\.csv changed while it was being prepared"):
        prepare(
            load_recipe(tmp_path / "recipe.yaml"), Store(tmp_path / "store"), Events(once)
        )
    assert changed
    again = prepare(
        load_recipe(tmp_path / "recipe.yaml"), Store(tmp_path / "store"), Events()
    )
    assert 999 in [
        row["w"] for batch in again.batches("train") for row in batch.to_pylist()
    ]
