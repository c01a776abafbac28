"""What a bucket lists or gives never leads out of the folder that it is copied to."""

from __future__ import annotations

import json

import pytest

from penstock import api
from penstock.core.bucket import Bucket
from penstock.core.errors import (
    StoreError,
    UserError,
)
from penstock.core.events import Event, Events
from penstock.core.listeners import listening
from penstock.core.store import MANIFEST, Artefact, Store
from penstock.encode.feed import Feed
from tests.safety.bad_names import BAD, entry, ids

pytestmark = pytest.mark.usefixtures("nothing_outside")


@pytest.mark.parametrize("name", [*BAD, MANIFEST], ids=ids)
def test_a_manifest_in_a_bucket(name, nothing_outside):
    url = f"memory://names-{nothing_outside.parent.name}"
    store = Store(url)
    for shelf in (
        "bundles/0123456789abcdef",
        "feeds/0123456789abcdef",
        "datasets/people/0123456789abcdef",
        "runs/run-01hzzzzzzzzzzzzzzzzzzzzzzz",
    ):
        manifest = {
            "format": 1,
            "type": "x",
            "id": "0123456789abcdef",
            "name": "people",
            "files": {name: entry(b"planted")},
            "shard_rows": {},
        }
        store._bucket.write(f"{shelf}/{MANIFEST}", json.dumps(manifest).encode())
        store._bucket.write(
            f"{shelf}/{name.encode('utf-8', 'replace').decode()}", b"planted"
        )
        for ask in (
            lambda s=shelf: store.open(s),
            lambda s=shelf: store.members(s),
            lambda s=shelf: store.file(s, file=name),
        ):
            with pytest.raises(StoreError):
                ask()
    for reference in (
        "bundle-0123456789abcdef",
        "people@0123456789abcdef",
        "0123456789abcdef",
    ):
        with pytest.raises(UserError):
            api.show(reference, store=store)
    with pytest.raises(StoreError):
        Feed.open(store, id="0123456789abcdef")


@pytest.mark.parametrize(
    "wrong",
    [
        {"size_bytes": 3},
        {"sha256": "0" * 64},
        {"size_bytes": -1, "sha256": "0" * 64},
        {"size_bytes": True, "sha256": "0" * 64},
        {"size_bytes": 1.5, "sha256": "0" * 64},
        {"size_bytes": 1, "sha256": "../../planted"},
        {"size_bytes": 1, "sha256": "A" * 64},
        {"size_bytes": 1, "sha256": 3},
        None,
        [],
        "x",
    ],
    ids=ascii,
)
def test_an_entry_names_the_cache_s_copy(wrong, nothing_outside):
    """The cache keeps a file under its digest, so a digest is a name too."""
    folder = nothing_outside / "thing"
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "files": {"a": wrong}}))
    with pytest.raises(StoreError, match="cannot be read"):
        Artefact.open(folder)


HOSTILE = [
    "runs/run-x/../../../planted",
    "../planted",
    "runs/run-x/a\\..\\..\\planted",
    "runs/run-x//a",
    "runs/run-x/\x1b[2J",
    "runs/run-x/a\0b",
    "elsewhere/planted",
]


@pytest.mark.parametrize("key", HOSTILE, ids=ids)
def test_a_key_that_a_bucket_lists(key, nothing_outside, monkeypatch):
    """It is left out and said; its neighbours are listed, and nothing leaves the mirror."""
    store = Store(f"memory://names-{nothing_outside.parent.name}")
    root = store._bucket.root
    listed, good = (
        f"/{key}" if key.startswith("elsewhere") else f"{root}/{key}",
        f"{root}/runs/run-x/good",
    )
    monkeypatch.setattr(
        type(store._bucket.system),
        "find",
        lambda self, path, detail=True, **_: {
            name: {"name": name, "size": 7, "type": "file"} for name in (listed, good)
        },
    )
    monkeypatch.setattr(
        type(store._bucket.system),
        "info",
        lambda self, path: {"name": path, "type": "file", "size": 1},
    )
    monkeypatch.setattr(
        type(store._bucket.system),
        "ls",
        lambda self, path, detail=True: [
            {"name": name, "type": "directory"}
            for name in (listed, f"{root}/{path[len(root) :].strip('/')}/good")
        ],
    )
    monkeypatch.setattr(Bucket, "pieces", lambda self, key, size: iter([b"planted"]))
    heard_here: list[Event] = []
    with listening(Events(heard_here.append)):
        assert store.names("bundles") == ["bundles/good"] and store.folders(
            "bundles"
        ) == ["bundles/good"]
        assert list(store._bucket.below("runs/run-x")) == ["runs/run-x/good"]
    assert heard_here and all(
        event.fields["text"].startswith("memory://")
        and "is left out" in event.fields["text"]
        for event in heard_here
    )
    assert all(
        "\x1b" not in event.fields["text"] and "\0" not in event.fields["text"]
        for event in heard_here
    )
    rows = api.list_artefacts("bundles", store=store)
    assert (
        any(row["reference"] == "bundle-good" for row in rows)
        and sum("is left out" in row.get("problem", "") for row in rows) == 1
    )
    with pytest.warns(RuntimeWarning, match="left out"):
        assert sorted(path.name for path in store.workspace("runs/run-x").iterdir()) == [
            "good"
        ]


@pytest.mark.parametrize(
    "name", ["../planted", "/tmp/planted-absolute", "a/../../planted"]
)
def test_what_a_bucket_gives_lies_below_the_draft(name, nothing_outside, monkeypatch):
    monkeypatch.setattr(Bucket, "pieces", lambda self, key, size: iter([b"planted"]))
    (nothing_outside / "draft").mkdir()
    with pytest.raises(StoreError):
        Bucket("memory://x").get(
            {
                f"runs/x/{name}"
                if not name.startswith("/")
                else f"runs/x/{name[1:]}/../..": 7
            },
            nothing_outside / "draft",
            "runs/x",
        )
