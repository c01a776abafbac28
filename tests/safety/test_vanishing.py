"""Files that the system makes up, and files that vanish, shrink or grow between listing and reading or in the
middle of reading: each ends in one sentence. No traceback, no wait, no lost row.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.core import regular
from penstock.core.errors import PenstockError, RecipeError, SourceError
from penstock.core.events import Events
from penstock.core.regular import open_regular, read_regular
from penstock.formats.files import read_whole
from penstock.formats.find_files import find
from penstock.formats.folders import walk
from penstock.parts.sources.files import Files
from penstock.recipe.read import include, read_recipe
from tests.safety.reading import read
from tests.safety.test_changed_sources import CHANGED, lake_of

STATUS = Path("/proc/self/status")
needs_proc = pytest.mark.skipif(
    not STATUS.exists(), reason="there is no /proc on this system"
)

# -- made up by the system -----------------------------------------------------------------------------------

WAYS: dict[str, Callable[[str], Any]] = {
    "source": lambda path: find(path, Path("/")),
    "opened": lambda path: open_regular(path),
    "read whole": lambda path: read_whole(path),
    "content_of": lambda path: include({"content_of": path}, Path("/")),
    "recipe": lambda path: read_recipe(Path(path)),
}


@needs_proc
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "name", ["/proc/self/status", "/proc/self/mem", "/proc/kmsg", "/proc/self/environ"]
)
def test_what_the_system_makes_up_is_no_file(way: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "link.yaml").symlink_to(name)
    for path in (name, str(tmp_path / "link.yaml")):
        with pytest.raises(
            (SourceError, RecipeError), match=r"made up by the system|cannot be read"
        ):
            WAYS[way](path)


@needs_proc
@pytest.mark.parametrize("way", ["opened", "read whole", "content_of", "recipe"])
def test_a_file_without_a_size_that_gives_bytes_is_refused_on_any_file_system(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regular, "_made_up_systems", dict)  # a system that is on no list
    with pytest.raises((SourceError, RecipeError), match="has no size, and gives bytes"):
        WAYS[way](str(STATUS))


def test_a_file_that_waits_for_its_content_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").write_bytes(b"")

    def waits(*_: int) -> bytes:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(regular.os, "pread", waits)
    with pytest.raises(SourceError, match="has no size, and waits"):
        read_regular(tmp_path / "log", most_bytes=10)


# -- links and permissions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("a.csv", "leads in a circle"),
        ("b.csv", "leads in a circle"),
        ("nowhere.csv", "is a link to nowhere.csv, which cannot be reached"),
        ("rows.csv/below", "is a link to rows.csv/below, which cannot be reached"),
    ],
)
def test_a_link_that_cannot_be_followed_says_where_it_leads(
    target: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "a.csv").symlink_to(target)
    (tmp_path / "b.csv").symlink_to("a.csv")
    with pytest.raises(SourceError, match=sentence):
        find("a.csv", tmp_path)
    odd = walk(".", tmp_path)
    assert odd.odd == ["a.csv", "b.csv"] and [path for path, _ in odd.files] == [
        "rows.csv"
    ]
    with pytest.raises(
        SourceError, match=r"[ab]\.csv"
    ):  # none of a folder of tables is left out in silence
        find(".", tmp_path)


@pytest.mark.parametrize(
    "look", [lambda folder: find(".", folder), lambda folder: walk(".", folder)]
)
def test_a_folder_that_may_not_be_read_is_a_sentence(
    look: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    scandir = os.scandir

    def denied(path: Any = ".") -> Any:  # root may read everything
        if str(path).endswith("sub"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(SourceError, match="cannot be read"):
        look(tmp_path)


# -- vanishing, shrinking, growing ---------------------------------------------------------------------------


def _vanish(path: Path) -> None:
    path.unlink()


def _shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(path.read_bytes())


def _become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _become_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _lose_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


CHANGES = [
    _vanish,
    _shrink,
    _empty,
    _grow,
    _become_folder,
    _become_pipe,
    _become_circle,
    _lose_folder,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", CHANGED)
def test_a_source_that_vanishes_after_it_was_listed_is_a_sentence(
    kind: str, change: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "lake"
    folder.mkdir()
    source, path = lake_of(kind, folder)
    snapshot = source.snapshot(folder)
    change(path)
    with pytest.raises(SourceError) as told:
        source.extract(
            snapshot, tmp_path / "scratch", memory_bytes=256 << 20, events=Events()
        )
    assert str(folder) in told.value.message


def _large(kind: str, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {"a": range(60_000), "b": [f"text number {i}" for i in range(60_000)]}
    )
    if kind == "csv":
        path.write_text(
            "a,b\n" + "".join(f"{i},text number {i}\n" for i in range(60_000))
        )
    elif kind == "jsonl":
        path.write_text(
            "".join(f'{{"a": {i}, "b": "text number {i}"}}\n' for i in range(60_000))
        )
    elif kind == "parquet":
        pq.write_table(table, path, row_group_size=5_000)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, 5_000)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "arrow"])
def test_a_source_that_vanishes_in_the_middle_of_reading_is_a_sentence(
    kind: str,
    change: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After the first rows of the last pass: nothing is kept, whatever could still be read."""
    from penstock.formats.groups import RowGroups

    (tmp_path / "lake").mkdir()
    path = tmp_path / "lake" / f"rows.{kind}"
    _large(kind, path)
    source = Files(path=str(path))
    snapshot = source.snapshot(tmp_path)
    add, changed = RowGroups.add, []

    def once(writer: RowGroups, batch: Any) -> None:
        add(writer, batch)
        if not changed:
            changed.append(True)
            change(path)

    monkeypatch.setattr(RowGroups, "add", once)
    with pytest.raises(SourceError) as told:
        source.extract(
            snapshot, tmp_path / "scratch", memory_bytes=24 << 20, events=Events()
        )
    assert changed and path.name in told.value.message


@pytest.mark.parametrize("change", [_vanish, _shrink, _grow, _become_circle])
def test_a_source_that_changes_while_it_is_hashed_is_a_sentence(
    change: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from penstock.formats import file_hashes

    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")

    def settled(found: Any) -> None:
        change(path)

    monkeypatch.setattr(file_hashes, "settle", settled)
    with pytest.raises(SourceError, match=r"rows\.csv"):
        Files(path=str(path)).snapshot(tmp_path)


def test_a_file_that_is_empty_is_still_that(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"")
    with pytest.raises(PenstockError, match="is empty"):
        read(Files(path=str(tmp_path / "rows.csv")), tmp_path)
