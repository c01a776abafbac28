"""What an archive says it holds is what comes of it, and a damaged one is told."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path

import pytest

from penstock.contracts.data import Source
from penstock.core.errors import SourceError
from penstock.parts.sources.files import Files
from penstock.parts.sources.folder import Folder
from tests.safety import specimens
from tests.safety.reading import read, tar_of


def zip_of(members: int, *, hide: str = "") -> bytearray:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(members):
            archive.writestr(f"d/{i:02}{hide}.txt", f"text number {i}")
    return bytearray(out.getvalue())


def test_a_zip_whose_directory_lost_members_is_told(tmp_path: Path) -> None:
    """40 members, and a directory that swallows some: a longer comment here, a shorter directory there."""
    whole = zip_of(40)
    start = whole.index(b"PK\x01\x02")
    end = whole.rindex(b"PK\x05\x06")
    entry = whole.index(b"PK\x01\x02", start + 4) - start
    swallowed = bytearray(whole)
    # the first entry's comment is the next three entries
    struct.pack_into("<H", swallowed, start + 32, 3 * entry)
    shorter = bytearray(whole)
    struct.pack_into("<L", shorter, end + 12, 37 * entry)
    struct.pack_into("<L", shorter, end + 16, start + 3 * entry)
    fewer = bytearray(whole)
    struct.pack_into("<HH", fewer, end + 8, 37, 37)
    for damaged in (swallowed, shorter, fewer):
        (tmp_path / "a.zip").write_bytes(damaged)
        with pytest.raises(SourceError, match=r"its directory has (37|40) members"):
            read(Folder(path=str(tmp_path / "a.zip")), tmp_path)


def test_a_zip_without_members_is_no_damaged_one(tmp_path: Path) -> None:
    """And one whose directory was emptied is told, though its members are there."""
    (tmp_path / "a.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(SourceError, match="it has no files"):
        read(Folder(path=str(tmp_path / "a.zip")), tmp_path)
    whole = zip_of(3)
    members = whole[: whole.index(b"PK\x01\x02")]
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, len(members), 0)
    (tmp_path / "a.zip").write_bytes(members + end)
    with pytest.raises(SourceError, match="it has no files"):
        read(Folder(path=str(tmp_path / "a.zip")), tmp_path)


def test_a_zip_of_64_bits_is_counted_too(tmp_path: Path) -> None:
    whole = zip_of(40)
    start, end = whole.index(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")

    def with_count(count: int) -> bytes:
        record = struct.pack(
            "<4sQ2H2L4Q",
            b"PK\x06\x06",
            44,
            45,
            45,
            0,
            0,
            count,
            count,
            end - start,
            start,
        )
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
        last = struct.pack(
            "<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0
        )
        return bytes(whole[:end]) + record + locator + last

    (tmp_path / "a.zip").write_bytes(with_count(40))
    assert len(read(Folder(path=str(tmp_path / "a.zip")), tmp_path).rows) == 40
    (tmp_path / "a.zip").write_bytes(with_count(41))
    with pytest.raises(SourceError, match="has 40 members, and its end record says 41"):
        read(Folder(path=str(tmp_path / "a.zip")), tmp_path)


def test_a_name_in_a_zips_directory_that_is_not_its_members(tmp_path: Path) -> None:
    """A name that became hidden, or another folder's, would have been left out without a word."""
    whole = zip_of(5)
    start = whole.index(b"PK\x01\x02")
    for other in (b".", b"\0", b"x"):
        damaged = bytearray(whole)
        place = whole.index(b"d/03.txt", start) + 2
        damaged[place : place + 1] = other
        (tmp_path / "a.zip").write_bytes(damaged)
        with pytest.raises(SourceError, match="its directory says"):
            read(Folder(path=str(tmp_path / "a.zip"), pattern="d/0*.txt"), tmp_path)
    damaged = bytearray(whole)
    damaged[whole.index(b"d/03.txt", start) + 3] = ord("7")
    (tmp_path / "a.zip").write_bytes(damaged)
    result = read(Folder(path=str(tmp_path / "a.zip"), pattern="d/0*.txt"), tmp_path)
    assert len(result.rows) == 4 and len(result.rejects) == 1


def test_an_empty_name_in_a_zip_is_a_reject(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo("x.txt"), "one")
        archive.writestr(zipfile.ZipInfo(""), "two")
    result = read(Folder(path=str(tmp_path / "a.zip")), tmp_path)
    assert len(result.rows) == 1 and "no name" in result.rejects[0]["reason"]


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("member", [3, 11])
@pytest.mark.parametrize("packing", ["", ".gz"])
def test_empty_blocks_within_a_tar_do_not_end_it(
    packing: str, member: int, blocks: int, tmp_path: Path
) -> None:
    data = tar_of()
    place = data.index(f"{member:02}.txt".encode())
    data[place : place + 512 * blocks] = bytes(512 * blocks)
    whole = bytes(data) if not packing else gzip.compress(data)
    (tmp_path / f"a.tar{packing}").write_bytes(whole)
    with pytest.raises(SourceError, match="empty block"):
        read(Folder(path=str(tmp_path / f"a.tar{packing}")), tmp_path)


@pytest.mark.parametrize("place", [-1, -4, -8, 30])
def test_a_wrong_sum_or_length_of_gzip_is_told(place: int, tmp_path: Path) -> None:
    for name, data in (
        ("a.csv.gz", specimens.csv()),
        ("a.jsonl.gz", specimens.jsonl()),
        ("a.tar.gz", bytes(tar_of()) + b"rubbish after it"),
    ):
        packed = bytearray(gzip.compress(data, mtime=0))
        packed[place] ^= 0x40
        (tmp_path / name).write_bytes(packed)
        source: Source = (
            Folder(path=str(tmp_path / name))
            if "tar" in name
            else Files(path=str(tmp_path / name))
        )
        with pytest.raises(SourceError, match=r"damaged|cannot be unpacked"):
            read(source, tmp_path)


def test_what_is_called_gz_and_is_not_is_told(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(specimens.csv()))
    packed[1] ^= 0xFF
    (tmp_path / "a.csv.gz").write_bytes(packed)
    with pytest.raises(SourceError, match="its name says gzip"):
        read(Files(path=str(tmp_path / "a.csv.gz")), tmp_path)
