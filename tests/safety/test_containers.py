"""Packed files and archives: what is cut, damaged, joined, listed twice or not listed is told, or every
member is accounted for.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.contracts.data import Source
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.formats.file_rows import Writer
from penstock.parts.sources.files import Files
from penstock.parts.sources.folder import Folder
from tests.safety import specimens
from tests.safety.reading import Read, read, tar_of
from tests.safety.test_archives import zip_of

PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "zst": specimens.zstd,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
PACKED = [
    *((name, packing) for name in ("a.csv", "a.jsonl") for packing in ("gz", "zst")),
    *(("a.tar", packing) for packing in PACKINGS),
]


def opened(name: str, data: bytes, folder: Path) -> Read:
    (folder / name).write_bytes(data)
    is_archive = "tar" in name or "zip" in name
    source: Source = (
        Folder(path=str(folder / name)) if is_archive else Files(path=str(folder / name))
    )
    return read(source, folder)


def _refusal(name: str, data: bytes, folder: Path) -> str:
    try:
        opened(name, data, folder)
    except SourceError as error:
        return error.message
    return "none"


def halves(name: str) -> tuple[bytes, bytes]:
    data = {
        "a.csv": specimens.csv(),
        "a.jsonl": specimens.jsonl(),
        "a.tar": bytes(tar_of()),
    }[name]
    middle = data.index(b"\n", len(data) // 2) + 1 if name != "a.tar" else len(data) // 2
    return data[:middle], data[middle:]


@pytest.mark.parametrize(("name", "packing"), PACKED)
def test_packed_in_several_streams_is_one_file(
    name: str, packing: str, tmp_path: Path
) -> None:
    pack, (first, second) = PACKINGS[packing], halves(name)
    rows = 12 if name == "a.tar" else specimens.ROWS
    for data in (
        pack(first + second),
        pack(first) + pack(second),
        pack(first) + pack(second[:9]) + pack(second[9:]),
    ):
        assert len(opened(f"{name}.{packing}", data, tmp_path).rows) == rows


@pytest.mark.parametrize(("name", "packing"), PACKED)
def test_packed_and_damaged_is_told(name: str, packing: str, tmp_path: Path) -> None:
    """Cut anywhere, followed by rubbish, or with a second stream that is damaged from its first byte to its
    last.
    """
    pack, (first, second) = PACKINGS[packing], halves(name)
    whole, one, two = pack(first + second), pack(first), pack(second)
    damaged = {
        f"cut by {n}": whole[:-n] for n in (1, 4, 8, 9, len(whole) // 2, len(whole) - 9)
    }
    damaged |= {
        "rubbish": whole + b"rubbish!",
        "much rubbish": whole + b"rubbish!" * 9_000,
        "second cut": one + two[:-1],
        "second cut to its head": one + two[:3],
    }
    damaged["second without its mark"] = one + b"\x00" + two[1:]
    damaged["whole, and another without its mark"] = whole + b"\x01" + whole[1:]
    if packing == "gz":
        for place in (-1, -5, -8):
            for part, label in ((0, "first"), (1, "second")):
                parts = [bytearray(one), bytearray(two)]
                parts[part][place] ^= 0x10
                damaged[f"{label}, byte {place}"] = bytes(parts[0] + parts[1])
    for label, data in damaged.items():
        assert "damaged" in _refusal(f"{name}.{packing}", data, tmp_path), label


def test_zeros_behind_xz_are_its_padding(tmp_path: Path) -> None:
    first, second = halves("a.tar")
    data = lzma.compress(first) + bytes(8) + lzma.compress(second) + bytes(70_000)
    assert len(opened("a.tar.xz", data, tmp_path).rows) == 12


# -- zip -----------------------------------------------------------------------------------------------------


class _Pipe(io.RawIOBase):
    """Takes a zip that cannot go back: sizes and sums stand behind the members."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def _directory(data: bytes) -> list[int]:
    """Where the entries of a zip's directory begin."""
    places, at = [], data.find(b"PK\x01\x02")
    while at >= 0:
        places.append(at)
        at = data.find(b"PK\x01\x02", at + 4)
    return places


def test_members_that_a_zip_does_not_list_are_told(tmp_path: Path) -> None:
    whole = bytes(zip_of(5))
    entries, end = _directory(whole), whole.rindex(b"PK\x05\x06")
    size = entries[1] - entries[0]
    for gone in range(5):
        shorter = bytearray(whole[: entries[gone]] + whole[entries[gone] + size :])
        struct.pack_into("<HHL", shorter, end - size + 8, 4, 4, 4 * size)
        result = opened("a.zip", bytes(shorter), tmp_path)
        assert len(result.rows) == 4 and any(
            f"does not list, in 1 place, such as 'd/0{gone}.txt'" in text
            for text in result.said
        )
    joined = opened("a.zip", whole + bytes(zip_of(3)), tmp_path)
    assert len(joined.rows) == 3 and any(
        "several zips were joined" in text for text in joined.said
    )


def test_a_member_that_a_zip_lists_twice_is_told(tmp_path: Path) -> None:
    """Else one would be two rows, and another none."""
    whole = zip_of(5)
    first, second = _directory(bytes(whole))[:2]
    whole[second : second + second - first] = whole[first:second]
    with pytest.raises(SourceError, match="another member at the same place"):
        opened("a.zip", bytes(whole), tmp_path)


def test_zips_as_writers_leave_them_are_whole_and_quiet(tmp_path: Path) -> None:
    pipe, wide, padded = _Pipe(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for i in range(5):
            archive.writestr(f"{i}.txt", f"text {i}")
    with zipfile.ZipFile(wide, "w") as archive:
        for i in range(5):
            with archive.open(f"{i}.txt", "w", force_zip64=True) as file:
                file.write(b"text")
    with zipfile.ZipFile(padded, "w") as archive:
        for i in range(5):
            info = zipfile.ZipInfo(f"{i}.txt")
            # an aligned zip, with a strange filling
            info.extra = b"\x35\xd9" + struct.pack("<H", 200) + b"PK\x03\x04" * 50
            archive.writestr(info, f"text {i}")
    for data in (
        pipe.data,
        wide.getvalue(),
        padded.getvalue(),
        bytes(zip_of(5)) + b"behind it",
    ):
        result = opened("a.zip", bytes(data), tmp_path)
        assert len(result.rows) == 5 and not result.rejects
        assert not any("does not list" in text for text in result.said)


def test_encrypted_and_twice_named_members_are_accounted_for(tmp_path: Path) -> None:
    whole = zip_of(5)
    whole[_directory(bytes(whole))[2] + 8] |= 1
    result = opened("a.zip", bytes(whole), tmp_path)
    assert len(result.rows) == 4 and [r["reason"] for r in result.rejects] == [
        "d/02.txt: it is encrypted"
    ]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("same.txt", "text 0")
        for i in (1, 2):
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr("same.txt", f"text {i}")
    result = opened("a.zip", out.getvalue(), tmp_path)
    assert [r["content"] for r in result.rows] == ["text 0", "text 1", "text 2"]
    assert any(
        "2 second files of one name (which are rows all the same)" in text
        for text in result.said
    )


@pytest.mark.parametrize(("offset", "label"), [(16, "sum"), (24, "size")])
def test_a_member_that_is_not_what_the_directory_says_is_a_reject(
    offset: int, label: str, tmp_path: Path
) -> None:
    for change in (1, 8, 255):
        whole = zip_of(5)
        place = _directory(bytes(whole))[1] + offset
        whole[place] = (whole[place] + change) % 256
        result = opened("a.zip", bytes(whole), tmp_path)
        assert len(result.rows) == 4 and "d/01.txt: it" in result.rejects[0]["reason"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "folder"])
def test_files_that_are_neither_row_nor_reject_end_the_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason is."""
    (tmp_path / "a.zip").write_bytes(zip_of(5))
    (tmp_path / "a.tar").write_bytes(tar_of(5))
    (tmp_path / "folder").mkdir()
    for i in range(5):
        (tmp_path / "folder" / f"{i}.txt").write_text("text")
    whole = Writer.batches
    monkeypatch.setattr(
        Writer,
        "batches",
        lambda self, items: (batch.slice(1) for batch in whole(self, items)),
    )
    with pytest.raises(SourceError, match="5 files were expected, but 4 were read"):
        read(Folder(path=str(tmp_path / name)), tmp_path)


# -- what may not be read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.csv.gz", "a.jsonl", "a.parquet", "a.arrow", "a.zip", "a.tar", "texts"],
)
def test_a_file_that_may_not_be_read_is_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the tests: root reads everything."""
    made = {
        "a.csv": specimens.csv(),
        "a.csv.gz": gzip.compress(specimens.csv()),
        "a.jsonl": specimens.jsonl(),
        "a.parquet": specimens.parquet(),
        "a.arrow": specimens.arrow(),
        "a.zip": bytes(zip_of(3)),
        "a.tar": bytes(tar_of(3)),
    }
    path = tmp_path / name
    if name == "texts":
        path.mkdir()
        (path / "a.txt").write_text("text")
    else:
        path.write_bytes(made[name])
    source: Source = (
        Folder(path=str(path))
        if name in ("a.zip", "a.tar", "texts")
        else Files(path=str(path))
    )
    snapshot = source.snapshot(tmp_path)

    def refused(place: object, *how: object, **words: object) -> object:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr("penstock.formats.files.open_regular", refused)
    monkeypatch.setattr("penstock.formats.files.os.open", refused)
    for ask in (
        lambda: source.snapshot(tmp_path),
        lambda: source.extract(
            snapshot, tmp_path / "scratch", memory_bytes=256 << 20, events=Events()
        ),
    ):
        with pytest.raises(
            SourceError, match=r"cannot be read|permission|Permission|allowed"
        ):
            ask()
