"""Archives against the standard library's writers: every format, every packing, and every kind of damage."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import SourceError
from penstock.formats.archive import DamagedMember, is_archive, open_archive
from penstock.formats.zips import Zip

PACKERS = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
    ".tar.zst": lambda b: pa.compress(b, "zstd", asbytes=True),
}
NAMES = st.lists(
    st.text(
        st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=90
    ),
    min_size=1,
    max_size=4,
).map("/".join)
MEMBERS = st.dictionaries(
    NAMES.filter(lambda n: not n.endswith("/") and ".." not in n.split("/")),
    st.binary(max_size=1500),
    min_size=1,
    max_size=6,
)


def tar_of(members: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, encoding="utf-8") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zip_of(members: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return file.getvalue()


def contents(path: Path | str, said: list[str] | None = None) -> dict[str, bytes]:
    with open_archive(
        str(path), warn=(said if said is not None else []).append
    ) as archive:
        return {e.name: archive.read(e) for e in archive.entries() if e.type == "file"}


def at(tmp_path: Path, data: bytes, name: str = "a.tar") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("archives")


@settings(deadline=None, max_examples=40)
@given(
    MEMBERS,
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.sampled_from(list(PACKERS)),
)
def test_a_tar_is_what_was_packed(scratch, members, format, packing):
    path = at(scratch, PACKERS[packing](tar_of(members, format)), f"a{packing}")
    assert contents(path) == members and list(contents(path)) == list(members)


@settings(deadline=None, max_examples=25)
@given(
    MEMBERS,
    st.sampled_from(
        [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    ),
)
def test_a_zip_is_what_was_packed(scratch, members, packing):
    assert contents(at(scratch, zip_of(members, packing), "a.zip")) == members


@settings(deadline=None, max_examples=15)
@given(MEMBERS, st.randoms())
def test_by_offset_in_any_order(scratch, members, random):
    for path in (at(scratch, tar_of(members)), at(scratch, zip_of(members), "a.zip")):
        with open_archive(str(path)) as archive:
            entries = list(archive.entries())
            random.shuffle(entries)
            assert {e.name: archive.read(e) for e in entries} == members


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_tar_cut_anywhere_is_refused(scratch, data):
    members = {"a/1.bin": b"x" * 700, "a/2.bin": b"", "b/3.bin": b"y" * 512}
    whole = tar_of(members, tarfile.USTAR_FORMAT)
    end = 512 + 1024 + 512 + 512 + 512
    cut = data.draw(st.integers(0, end + 511))
    with pytest.raises(SourceError, match=r"cut short|is empty|not an archive"):
        contents(at(scratch, whole[:cut]))
    packed = gzip.compress(whole)
    with pytest.raises(
        SourceError, match=r"damaged or cut short|cut short|is empty|not an archive"
    ):
        contents(
            at(scratch, packed[: data.draw(st.integers(0, len(packed) - 9))], "a.tgz")
        )


def test_where_a_tar_is_cut_is_told(tmp_path):
    whole = tar_of({"a/1.bin": b"x" * 700, "b/2.bin": b"y" * 512}, tarfile.USTAR_FORMAT)
    with pytest.raises(
        SourceError,
        match=(
            r"a\.tar is cut short: it ends within 'b/2\.bin' at byte 2,148, after 'a/1\.bin'\. Fetch it again"
        ),
    ):
        contents(at(tmp_path, whole[:2148]))
    with pytest.raises(SourceError, match="without the two empty blocks"):
        contents(at(tmp_path, whole[:2560]))


def test_a_torn_header_is_told_with_its_place(tmp_path):
    whole = bytearray(tar_of({"a": b"x" * 10, "b": b"y"}, tarfile.USTAR_FORMAT))
    whole[1024 + 3] ^= 1
    with pytest.raises(
        SourceError, match=r"damaged: at byte 1,024, after 'a', there is no header"
    ):
        contents(at(tmp_path, bytes(whole)))


def test_a_flipped_byte_in_a_packed_tar_is_told(tmp_path):
    packed = bytearray(
        gzip.compress(tar_of({f"{i}": bytes([i]) * 3000 for i in range(50)}))
    )
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(SourceError, match=r"damaged"):
        contents(at(tmp_path, bytes(packed), "a.tgz"))


def test_tars_joined_end_to_end_are_all_read(tmp_path):
    said: list[str] = []
    assert contents(at(tmp_path, tar_of({"a": b"1"}) + tar_of({"b": b"2"})), said) == {
        "a": b"1",
        "b": b"2",
    }
    assert "joined" in said[0]
    said.clear()
    assert contents(at(tmp_path, tar_of({"a": b"1"}) + b"rubbish" * 100), said) == {
        "a": b"1"
    }
    assert "no tar" in said[0]
    # as pigz writes
    assert contents(
        at(
            tmp_path,
            gzip.compress(tar_of({"a": b"1"})[:512])
            + gzip.compress(tar_of({"a": b"1"})[512:]),
            "b.tgz",
        )
    ) == {"a": b"1"}


def test_links_devices_and_sparse_files_are_told_apart(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", encoding="utf-8") as tar:
        for name, type in (
            ("folder", tarfile.DIRTYPE),
            ("link", tarfile.SYMTYPE),
            ("hard", tarfile.LNKTYPE),
            ("pipe", tarfile.FIFOTYPE),
            ("tty", tarfile.CHRTYPE),
            ("what", b"?"),
            ("plain", tarfile.REGTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type = type
            tar.addfile(info)
    with open_archive(str(at(tmp_path, file.getvalue()))) as archive:
        assert {e.name: e.type for e in archive.entries()} == {
            "folder": "folder",
            "link": "link",
            "hard": "link",
            "pipe": "device",
            "tty": "device",
            "what": "odd",
            "plain": "file",
        }
    sparse = tarfile.TarInfo("holes")
    sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8"
    ) as tar:
        tar.addfile(sparse)
    with open_archive(str(at(tmp_path, file.getvalue()))) as archive:
        entry = next(archive.entries())
    assert entry.type == "odd" and "sparse" in str(entry.problem)


def test_long_names_and_names_that_are_not_utf8(tmp_path):
    long = "/".join(["folder" * 10] * 6) + "/æøå.txt"
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        assert contents(at(tmp_path, tar_of({long: b"x"}, format))) == {long: b"x"}
    raw = tar_of({"caf\udce9.txt": b"x"}, tarfile.GNU_FORMAT)
    assert list(contents(at(tmp_path, raw))) == ["caf\udce9.txt"]


def test_a_zip_with_a_damaged_member_gives_the_others(tmp_path):
    raw = bytearray(
        zip_of({"a.bin": b"A" * 100, "b.bin": b"B" * 100}, zipfile.ZIP_STORED)
    )
    raw[raw.index(b"B" * 100) + 5] ^= 1
    with open_archive(str(at(tmp_path, bytes(raw), "a.zip"))) as archive:
        first, second = archive.entries()
        assert archive.read(first) == b"A" * 100
        with pytest.raises(DamagedMember, match="CRC"):
            archive.read(second)


def test_a_disk_that_fails_is_no_damage_of_a_member(monkeypatch):
    raw = zip_of({"a.bin": bytes(range(256)) * 40}, zipfile.ZIP_BZIP2)
    changed = bytearray(raw)
    changed[60:80] = bytes(20)
    packed = Zip("a.zip", io.BytesIO(bytes(changed)))
    (entry,) = packed.entries()
    with pytest.raises(DamagedMember):
        packed.read(entry)
    file = io.BytesIO(raw)
    packed = Zip("a.zip", file)
    (entry,) = packed.entries()
    monkeypatch.setattr(packed._zip, "fp", _Failing(raw))
    with pytest.raises(SourceError, match=r"cannot read a\.zip.*Input/output error"):
        packed.read(entry)


class _Failing(io.BytesIO):
    def read(self, *_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


def test_a_zip_cut_short_or_emptied_is_refused(tmp_path):
    raw = zip_of({"a.bin": b"A" * 100})
    for cut in (len(raw) - 5, 60, 4):
        with pytest.raises(SourceError, match="cannot be read as a zip"):
            contents(at(tmp_path, raw[:cut], "a.zip"))
    with pytest.raises(SourceError, match="is empty"):
        contents(at(tmp_path, b"", "a.zip"))
    with pytest.raises(SourceError, match="neither a tar nor a zip"):
        contents(at(tmp_path, b"hello" * 300, "a.zip"))


def test_a_zip_that_lies_about_a_size_is_not_believed(tmp_path):
    raw = bytearray(zip_of({"bomb": bytes(1 << 20)}))
    place = raw.rindex(b"PK\x01\x02")
    raw[place + 24 : place + 28] = struct.pack("<I", 1000)
    with open_archive(str(at(tmp_path, bytes(raw), "a.zip"))) as archive:
        (entry,) = archive.entries()
        assert entry.size_bytes == 1000
        with pytest.raises(DamagedMember):
            archive.read(entry)


def test_zips_of_other_systems(tmp_path):
    raw = zip_of({"blåbær/1.txt": b"x"})
    flagged = bytearray(raw)
    # as some writers: UTF-8, and no flag that says so
    for mark, field in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = flagged.index(mark) + field
        flagged[place : place + 2] = struct.pack(
            "<H", struct.unpack("<H", flagged[place : place + 2])[0] & ~0x800
        )
    assert list(contents(at(tmp_path, bytes(flagged), "a.zip"))) == ["blåbær/1.txt"]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        info = zipfile.ZipInfo("cat\\1.txt")
        info.create_system = 0
        made.writestr(info, b"x")
        link = zipfile.ZipInfo("link")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        made.writestr(link, "cat")
        made.mkdir("dog")
    with open_archive(str(at(tmp_path, file.getvalue(), "b.zip"))) as archive:
        assert {e.name: e.type for e in archive.entries()} == {
            "cat/1.txt": "file",
            "link": "link",
            "dog/": "folder",
        }


def test_an_encrypted_member_is_odd(tmp_path):
    raw = bytearray(zip_of({"a": b"x"}, zipfile.ZIP_STORED))
    for mark, field in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + field] |= 1
    with open_archive(str(at(tmp_path, bytes(raw), "a.zip"))) as archive:
        (entry,) = archive.entries()
    assert entry.type == "odd" and entry.problem == "it is encrypted"


def test_archives_at_a_url():
    system = fsspec.filesystem("memory")
    for name, data in (
        ("x.tar", tar_of({"a": b"1", "b": b"2" * 9999})),
        ("x.tgz", gzip.compress(tar_of({"a": b"1", "b": b"2" * 9999}))),
        ("x.zip", zip_of({"a": b"1", "b": b"2" * 9999})),
    ):
        system.pipe_file(f"/archives-test/{name}", data)
        assert contents(f"memory://archives-test/{name}") == {"a": b"1", "b": b"2" * 9999}
    system.rm("/archives-test", recursive=True)


def test_the_endings_of_archives():
    assert all(
        map(
            is_archive,
            ["a.tar", "x/A.TAR.GZ", "a.tgz", "a.tar.zst", "a.zip", "s3://b/a.tar.xz"],
        )
    ) and not any(map(is_archive, ["a.gz", "tar", "a.csv.gz", "a.tar/b"]))
