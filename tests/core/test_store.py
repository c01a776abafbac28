"""Artefacts are whole or absent, and a change is noticed."""

import errno
import fcntl
import hashlib
import json
import os
import threading
import tracemalloc

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from penstock.api import list_artefacts
from penstock.core import mirror, objects
from penstock.core import store as store_room
from penstock.core.artefact import Member
from penstock.core.bucket import Bucket
from penstock.core.errors import SourceError, StoreError
from penstock.core.store import MANIFEST, Artefact, Store, atomic_write
from penstock.formats.find_files import find
from penstock.prepare.dataset import Dataset


def _answered(status, code=None):
    error = OSError("no")
    error.response = {
        "ResponseMetadata": {"HTTPStatusCode": status},
        "Error": {"Code": code or str(status)},
    }
    return error


def _caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setenv("PENSTOCK_REMOTE_ATTEMPTS", "2")


@pytest.fixture(params=["folder", "bucket"])
def store(request, tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    if request.param == "folder":
        return Store(tmp_path / "store")
    return Store(f"memory://store-{tmp_path.name}")


def write(store, name="bundles/a", content=b"weights"):
    with store.draft(name, manifest={"type": "bundle"}) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "w.bin").write_bytes(content)


def test_what_is_drafted_can_be_opened_and_listed(store):
    write(store)
    artefact = store.open("bundles/a", verify=True)
    assert (artefact.path / "deep" / "w.bin").read_bytes() == b"weights"
    assert artefact.manifest["format"] == store_room.FORMAT
    assert store.names("bundles") == ["bundles/a"]
    assert store.has("bundles/a") and not store.has("bundles/b")


def test_a_bucket_is_read_from_another_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "one"))
    url = f"memory://team-{tmp_path.name}"
    write(Store(url))
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "other"))
    other = Store(url)
    assert other.names("bundles") == ["bundles/a"]
    assert (
        other.open("bundles/a", verify=True).path / "deep" / "w.bin"
    ).read_bytes() == b"weights"
    assert other.folders("bundles") == ["bundles/a"]


def test_a_draft_that_fails_leaves_nothing(store):
    def half(folder):
        (folder / "x").write_text("half")
        raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        store.draft("bundles/a", manifest={}) as folder,
    ):
        half(folder)
    assert not store.has("bundles/a")
    assert not list(store.folder.rglob("x"))


def test_the_first_to_publish_stands(tmp_path):
    store = Store(tmp_path)
    write(store, content=b"first")
    write(store, content=b"second")
    assert (store.open("bundles/a").path / "deep" / "w.bin").read_bytes() == b"first"


def test_many_may_publish_the_same_at_once(tmp_path):
    store = Store(tmp_path)
    threads = [threading.Thread(target=write, args=(store,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.open("bundles/a", verify=True)
    assert not (tmp_path / ".staging").exists()


def test_a_torn_artefact_is_replaced(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "bundles" / "a").mkdir(parents=True)
    (tmp_path / "bundles" / "a" / "half").write_text("")
    assert not store.has("bundles/a")
    write(store)
    assert store.open("bundles/a", verify=True)


@pytest.mark.parametrize("verify", [True, False])
def test_a_changed_size_is_noticed(tmp_path, verify):
    store = Store(tmp_path)
    write(store)
    with open(tmp_path / "bundles/a/deep/w.bin", "ab") as file:
        file.write(b"!")
    with pytest.raises(StoreError, match="changed or torn"):
        store.open("bundles/a", verify=verify)


def test_a_changed_byte_is_noticed_when_verifying(tmp_path):
    store = Store(tmp_path)
    write(store)
    (tmp_path / "bundles/a/deep/w.bin").write_bytes(b"weighty")
    with pytest.raises(StoreError, match="was changed"):
        store.open("bundles/a", verify=True)


def test_a_missing_member_a_newer_format_and_no_manifest_are_told(tmp_path):
    store = Store(tmp_path)
    write(store)
    folder = tmp_path / "bundles" / "a"
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(StoreError, match="Upgrade"):
        store.open("bundles/a")
    (folder / MANIFEST).write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        store.open("bundles/a")
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / "deep/w.bin").unlink()
    with pytest.raises(StoreError, match="lacks"):
        store.open("bundles/a")
    with pytest.raises(StoreError, match="never finished"):
        Artefact.open(tmp_path)
    with pytest.raises(StoreError, match="not in the store"):
        store.open("bundles/zzz")


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_room, "seal", full)
    with pytest.raises(StoreError, match="disk is full") as caught:
        write(store)
    assert "--store" in str(caught.value)
    assert not store.has("bundles/a")


def test_an_atomic_write_keeps_the_old_content_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "alias"
    atomic_write(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="disk is full"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["alias"]


def test_an_unknown_protocol_is_a_sentence():
    with pytest.raises(StoreError, match="cannot open the store"):
        Store("nosuchthing://x/y")


def test_a_bucket_whose_package_is_not_there_names_the_extra(monkeypatch):
    def absent(url: str) -> None:
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr("penstock.core.bucket.reach", absent)
    with pytest.raises(
        StoreError,
        match=r"gs:// is not installed\. Install it with:  pip install 'penstock\[gcs\]'",
    ):
        Store("gs://team/penstock")


def test_small_files_beside_artefacts(store):
    assert store.read_text("index/a") is None
    store.write_text("index/a", text="bundle-1")
    assert store.read_text("index/a") == "bundle-1"


def test_a_workspace_grows_in_the_open_and_is_pushed(store, tmp_path, monkeypatch):
    path = store.workspace("runs/run-1")
    (path / "events.jsonl").write_text("{}\n")
    store.push("runs/run-1")
    assert store.folders("runs") == ["runs/run-1"]
    if store.is_remote:
        monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "other"))
        other = Store(store.url)
        assert (other.workspace("runs/run-1") / "events.jsonl").read_text() == "{}\n"


def test_what_could_not_be_copied_to_the_bucket_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    store = Store("memory://flaky-bucket/x")
    put = store._bucket.system.put_file

    def refused(*_, **__):
        raise ConnectionRefusedError("no route")

    monkeypatch.setattr(store._bucket.system, "put_file", refused)
    with pytest.raises(
        StoreError,
        match="cannot write bundles/a to the store memory://flaky-bucket/x: no route",
    ):
        write(store)
    assert not store.has("bundles/a") and store.names("bundles") == []
    monkeypatch.setattr(store._bucket.system, "put_file", put)
    write(store)
    assert store.has("bundles/a")
    assert store._bucket.system.exists(f"{store._bucket.root}/bundles/a/{MANIFEST}")


def test_a_bucket_that_does_not_answer_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    store = Store("memory://silent-bucket/x")

    def refused(*_, **__):
        raise ConnectionRefusedError("no route")

    for name in ("exists", "info", "glob", "ls", "find", "cat_file"):
        monkeypatch.setattr(store._bucket.system, name, refused)
    for ask in (
        lambda: store.has("bundles/a"),
        lambda: store.names("bundles"),
        lambda: store.folders("runs"),
        lambda: store.read_text("index/a"),
        lambda: store.open("bundles/a"),
        lambda: store.workspace("runs/x"),
        lambda: store._bucket.below("runs"),
        lambda: store.manifest("bundles/a"),
        lambda: list_artefacts("bundles", store=store),
        lambda: list_artefacts("runs", store=store),
        lambda: Dataset.open(store, reference="people"),
    ):
        with pytest.raises(StoreError, match="no route"):
            ask()


class Refusing(AbstractFileSystem):
    """A file system as fsspec's own base makes it: its `exists` says no, and its `find` nothing, whatever is
    wrong.
    """

    protocol = "refusing"

    def ls(self, path, detail=True, **_):
        raise PermissionError("the key is refused")

    def info(self, path, **_):
        raise PermissionError("the key is refused")


def test_a_refusal_is_no_empty_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    assert not Refusing().exists("x") and Refusing().find("x") == [], (
        "this is what fsspec says of it"
    )
    store = Store("refusing://bucket/x")
    for ask in (
        lambda: store.has("bundles/a"),
        lambda: store.names("bundles"),
        lambda: store.folders("runs"),
        lambda: store._bucket.below("runs"),
        lambda: store.workspace("runs/x"),
    ):
        with pytest.raises(StoreError, match="the key is refused"):
            ask()
    for pattern in (
        "refusing://bucket/rows.csv",
        "refusing://bucket/folder",
        "refusing://bucket/*.csv",
        "refusing://bucket/**/*.csv",
    ):
        with pytest.raises(SourceError, match="the key is refused"):
            find(pattern, tmp_path)


@pytest.mark.parametrize(
    ("error", "is_absent"),
    [
        (FileNotFoundError("x"), True),
        (PermissionError("x"), False),
        (OSError("x"), False),
        (_caused(FileNotFoundError("x"), _answered(404)), True),
        (_caused(FileNotFoundError("x"), _answered(401)), False),
        (_caused(FileNotFoundError("x"), _answered(404, "NoSuchBucket")), False),
        (_caused(FileNotFoundError("x"), ConnectionRefusedError("x")), False),
    ],
)
def test_what_is_absent(error, is_absent):
    assert objects.is_absent(error) is is_absent


def test_a_store_that_can_be_none_is_said_at_once(tmp_path):
    (tmp_path / "rows.csv").write_text("a")
    for place, text in (
        (tmp_path / "rows.csv", "is a file"),
        (tmp_path / "rows.csv" / "deeper", "is a file"),
        (tmp_path / ("a" * 300), "too long"),
    ):
        with pytest.raises(StoreError, match=text):
            Store(place)
    with pytest.raises(StoreError, match="not UTF-8"):
        Store("memory://\udcff/x")
    for place in ("s3://", "gs:///"):
        with pytest.raises(StoreError, match="names no bucket"):
            Store(place)


class _Pieces:
    """A bucket with one large object."""

    def pieces(self, key, size_bytes):
        yield from (bytes(1 << 20) for _ in range(size_bytes >> 20))


def test_a_large_file_of_a_bucket_is_never_in_memory_whole(tmp_path):
    size = 32 << 20
    checksum = hashlib.sha256(bytes(size)).hexdigest()
    tracemalloc.start()
    try:
        Member("u", size, checksum, _Pieces(), "k").copy(tmp_path / "a")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a").stat().st_size == size and peak < size // 4
    with pytest.raises(StoreError, match="is damaged"):
        Member("u", size, "0" * 64, _Pieces(), "k").copy(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_push_of_many_files_notes_each_once(tmp_path):
    folder, memo = tmp_path / "a", tmp_path / "memo"
    folder.mkdir()
    names = [f"{i}.bin" for i in range(8)]
    for name in names:
        (folder / name).write_bytes(name.encode())
    bucket = Bucket(f"memory://{tmp_path.name}")
    put, written = bucket.system.put_file, []

    def failing(here, there, **more):
        if here.endswith("7.bin"):
            raise PermissionError("no")
        written.append(here)
        return put(here, there, **more)

    # The instance is fsspec's own, shared by all stores in memory.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bucket.system, "put_file", failing)
        words = {
            "last": MANIFEST,
            "memo": memo,
            "checksums": {name: f"sum of {name}" for name in names},
        }
        with pytest.raises(StoreError):
            bucket.put("a", sorted(folder.iterdir()), folder, **words)
        lines = [json.loads(line) for line in memo.read_text().split("\n")[1:]]
        assert sorted(line[0] for line in lines) == names[:7]
        # A line that a kill has torn, and lines that mean nothing, cost one file each.
        torn = memo.read_text()[:-3] + "\n[]\n{}\n3\n[7]"
        memo.write_text(torn)
        written.clear()
        with pytest.raises(StoreError):
            bucket.put("a", sorted(folder.iterdir()), folder, **words)
        assert len(written) == 1 and memo.read_text().startswith(torn)


def test_a_lock_that_was_not_had_is_not_taken_for_had(tmp_path, monkeypatch):
    asked = []

    def refusing(file, how):
        asked.append(how)
        raise answers[len(asked) - 1]

    answers = [KeyboardInterrupt(), OSError(errno.ENOLCK, "none")]
    monkeypatch.setattr(fcntl, "flock", refusing)
    with pytest.raises(KeyboardInterrupt):
        mirror.use(tmp_path, "runs/a")
    # Asked again; and where there are no locks at all, not a third time.
    for _ in range(2):
        mirror.use(tmp_path, "runs/a")
    assert len(asked) == 2
