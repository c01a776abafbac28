"""Files that say they are a terabyte, and whose beginnings are all that `init` and `check` may look at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import api
from penstock.core.errors import PenstockError, SourceError
from penstock.formats import file_hashes, tars
from penstock.parts.sources.files import Files
from penstock.parts.sources.folder import Folder
from tests.safety.reading import read, tar_of

TERABYTE = 1 << 40
ROWS = b"a,b\n" + b"".join(b"%d,x%d\n" % (i, i % 3) for i in range(300_000))


@pytest.fixture(autouse=True)
def nothing_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    digest_of = file_hashes.digest_of

    def hashed(url: str, size_bytes: int) -> str:
        # The copy of what was looked at is rehearsed, and is small.
        if "penstock-rehearsal-" in url:
            return digest_of(url, size_bytes)
        raise AssertionError(f"{url} was hashed for its first rows")

    monkeypatch.setattr(file_hashes, "digest_of", hashed)


def _holed(path: Path, start: bytes) -> str:
    path.write_bytes(start)
    os.truncate(path, TERABYTE)
    return str(path)


LOOKS: dict[str, Callable[[str], Any]] = {
    "init": lambda path: api.init(path),
    "check": lambda path: api.check({"source": {"type": "files", "path": path}}),
}


@pytest.mark.parametrize("look", LOOKS)
def test_rows_before_a_hole_are_looked_at(look: str, tmp_path: Path) -> None:
    assert LOOKS[look](_holed(tmp_path / "rows.csv", ROWS))


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("rows.csv", b""),
        ("rows.csv", b"a,b\n1,2\n"),
        ("rows.jsonl", b'{"a": 1}\n{"a": 2}\n'),
        ("rows.parquet", b""),
        ("rows.parquet", b"PAR1"),
        ("rows.arrow", b"ARROW1\0\0"),
        ("rows.csv", b'a,b\n1,"2\n'),
    ],
)
def test_a_hole_ends_in_a_sentence(
    look: str, name: str, start: bytes, tmp_path: Path
) -> None:
    with pytest.raises(PenstockError, match="rows"):
        LOOKS[look](_holed(tmp_path / name, start))


def test_of_lines_that_are_all_bad_a_look_reads_no_more_than_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample that counted good rows only would read a file without any to its end."""
    from penstock.formats import excerpts
    from penstock.formats.texts import TextStream

    monkeypatch.setattr(excerpts, "_ENOUGH_BYTES", 1 << 20)
    (tmp_path / "rows.csv").write_bytes(b"a,b\n1,2\n3,4\n" + b"1,2,3,4,5,6\n" * 1_000_000)
    taken: list[int] = []
    plain = TextStream.read

    def counted(self: TextStream, size: int) -> bytes:
        found = plain(self, size)
        taken.append(len(found))
        return found

    monkeypatch.setattr(TextStream, "read", counted)
    source = Files.model_validate({"path": str(tmp_path / "rows.csv"), "header": True})
    sample = source.sample(source.preview(tmp_path), 100, file_bytes=2 << 20)
    assert sample.table.num_rows == 2 and sample.unread_rows > 10_000
    assert sum(taken) < 4 << 20


def test_an_encoding_is_judged_by_a_beginning(tmp_path: Path) -> None:
    path = _holed(tmp_path / "rows.csv", ROWS + b"\n" * (70 << 20))
    assert api.init({"type": "files", "path": path, "encoding": "auto"})


def test_a_tar_of_zeros_ends_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # a whole reading hashes
    monkeypatch.setattr(tars, "_PADDING_BYTES", 1 << 20)
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(tar_of()) + bytes(1 << 19))
    rows = read(Folder(path=str(path)), tmp_path).rows
    assert rows
    for start in (b"", bytes(tar_of())):
        _holed(path, start)
        with pytest.raises(SourceError, match="of zeros behind"):
            Folder(path=str(path)).sample(Folder(path=str(path)).preview(tmp_path), 10)
