"""Tables in a zip or tar: each member a file of the source, read where it lies, whole or not at all."""

from __future__ import annotations

import gzip
import io
import sqlite3
import tarfile
import zipfile
from contextlib import closing
from dataclasses import replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.formats.archive_names import archive_within, member_place, member_url
from penstock.formats.files import open_bytes
from penstock.formats.folders import holds_no_tables
from penstock.parts.sources.files import Files


def _parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"id": [100, 101], "x": ["p", "q"]}), out)
    return out.getvalue()


def _sqlite() -> bytes:
    with closing(sqlite3.connect(":memory:")) as base:
        base.execute("CREATE TABLE a (id INTEGER, x TEXT)")
        base.execute("INSERT INTO a VALUES (200, 'r')")
        base.commit()
        return base.serialize()


MEMBERS = {
    "README.md": b"# A shop",
    ".DS_Store": b"x",
    "__MACOSX/._a.csv": b"x",
    "train/a.csv": b"id,x\n1,a\n2,b\n",
    "train/b.csv.gz": gzip.compress(b"id,x\n3,a\n4\n", mtime=0),
    "test/c.parquet": _parquet(),
    "test/d.json": b'[{"id": 7, "x": "u"}]',
    "test/e.sqlite": _sqlite(),
}
PATHS = sorted(name for name in MEMBERS if name.startswith("t"))


def zipped(members=MEMBERS, packing=zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


ARCHIVES = {
    "shop.zip": zipped(),
    "bare.zip": zipped(packing=zipfile.ZIP_STORED),
    "shop.tar": tarred("w"),
    "shop.tar.gz": tarred("w:gz"),
    "shop.tar.zst": pa.Codec("zstd").compress(tarred("w"), asbytes=True),
    "shop.txz": tarred("w:xz"),
}


def everything(source, folder):
    """The snapshot's paths, the rows by file, the rejects and what was said."""
    said: list[str] = []
    snapshot = source.snapshot(folder)
    events = Events(lambda event: said.append(str(event.fields.get("text", ""))))
    scratch = folder / "scratch"
    made = source.extract(snapshot, scratch, memory_bytes=1 << 28, events=events)
    rows = pq.read_table(made.parquet).to_pylist()
    rejects = [r for path in made.rejects for r in pq.read_table(path).to_pylist()]
    paths = [file.path for file in snapshot.files]
    ids = [(paths[row["__file"]], row["id"]) for row in rows]
    return paths, ids, rejects, "\n".join(said)


@pytest.mark.parametrize("name", ARCHIVES)
def test_each_member_is_a_file_of_the_source(tmp_path, name):
    (tmp_path / name).write_bytes(ARCHIVES[name])
    paths, ids, rejects, said = everything(Files(path=name), tmp_path)
    assert paths == [f"{name}/{path}" for path in PATHS]
    assert sorted(id for _, id in ids) == [1, 2, 3, 7, 100, 101, 200]
    assert (f"{name}/test/d.json", 7) in ids
    assert [(r["file"], r["line"]) for r in rejects] == [(f"{name}/train/b.csv.gz", 3)]
    assert f"left out of {name}: 1 members" in said and "README.md" in said
    again = Files(path=name).snapshot(tmp_path)
    assert again == Files(path=name).snapshot(tmp_path)
    assert Files(path=name).sample(again, 3).table.num_rows >= 3


def test_a_bucket(tmp_path):
    system = fsspec.filesystem("memory")
    system.pipe("/lake/shop.zip", ARCHIVES["shop.zip"])
    source = Files(path="memory://lake/shop.zip")
    paths, ids, _, _ = everything(source, tmp_path)
    assert len(paths) == len(PATHS) and len(ids) == 7


def test_a_path_leads_into_an_archive(tmp_path):
    (tmp_path / "shop.zip").write_bytes(zipped())
    source = Files(
        train="shop.zip/train/*", test=["shop.zip/test", "shop.zip/train/a.csv"]
    )
    with pytest.raises(SourceError, match="under both train and test"):
        source.snapshot(tmp_path)
    source = Files(train="shop.zip/train/*", test="shop.zip/**/d.json")
    files = source.snapshot(tmp_path).files
    assert [(f.path, f.split) for f in files] == [
        ("shop.zip/test/d.json", "test"),
        ("shop.zip/train/a.csv", "train"),
        ("shop.zip/train/b.csv.gz", "train"),
    ]
    with pytest.raises(SourceError, match=r"no member that 'tran/\*' matches; it holds"):
        Files(path="shop.zip/tran/*").snapshot(tmp_path)


def test_a_changed_archive_is_refused(tmp_path):
    file = tmp_path / "shop.zip"
    file.write_bytes(zipped())
    snapshot = Files(path="shop.zip").snapshot(tmp_path)
    file.write_bytes(zipped({**MEMBERS, "train/a.csv": b"id,x\n1,a\n2,c\n"}))
    with pytest.raises(SourceError, match="changed"):
        Files(path="shop.zip").extract(
            snapshot, tmp_path / "s", memory_bytes=1 << 28, events=Events()
        )
    stale = replace(snapshot.files[-1], stamp="")
    with open_bytes(stale.url) as stream:
        assert stream.read() == MEMBERS["train/b.csv.gz"]


def test_a_damaged_member_is_refused_by_its_name(tmp_path):
    whole = bytearray(zipped())
    whole[whole.find(b"train/a.csv") + 14] ^= 0xFF
    (tmp_path / "shop.zip").write_bytes(whole)
    with pytest.raises(SourceError, match=r"its member 'train/a.csv' cannot be read"):
        everything(Files(path="shop.zip"), tmp_path)
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("a.csv", "a\n1\n")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.csv", "a\n2\n")
    (tmp_path / "twice.zip").write_bytes(twice.getvalue())
    with pytest.raises(SourceError, match=r"two members called 'a.csv'"):
        Files(path="twice.zip").snapshot(tmp_path)
    (tmp_path / "texts.zip").write_bytes(zipped({"a.png": b"x"}))
    with pytest.raises(SourceError, match="no member whose ending names a table"):
        Files(path="texts.zip").snapshot(tmp_path)


def test_what_an_archive_holds_decides_what_its_rows_are(tmp_path):
    for name, members, expected in (
        ("tables.zip", MEMBERS, False),
        (
            "pictures.zip",
            {f"cat/{i}.png": b"x" for i in range(5)} | {"n.csv": b"a\n1\n"},
            True,
        ),
        ("texts.zip", {f"spam/{i}.txt": b"x" for i in range(5)}, True),
    ):
        (tmp_path / name).write_bytes(zipped(members))
        assert holds_no_tables(name, tmp_path) is expected, name
    with pytest.raises(SourceError, match=r"there is no .*gone\.zip"):
        holds_no_tables("gone.zip", tmp_path)


def test_places_of_members():
    url = member_url("s3://b/shop.tar.gz", "a!/b.csv")
    assert member_place(url) == ("s3://b/shop.tar.gz", "a!/b.csv")
    assert member_place("/data!/a.csv") is None
    assert archive_within("d/shop.zip/a/*.csv") == ("d/shop.zip", "a/*.csv")
    assert archive_within("d/shop.zip") is None is archive_within("shop.zip/")
