"""Names from elsewhere: what a manifest, a listing, a recipe or a request calls a file never leads out of its
root.

Every way in gets the same bad names; a folder beside the root is watched, and so is what the error says."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from penstock import api, cli
from penstock.bundle.bundle import Bundle
from penstock.core.errors import (
    BundleError,
    StoreError,
    UserError,
)
from penstock.core.events import Events
from penstock.core.making import making
from penstock.core.paths import Inside, below, plain_all, reason, step
from penstock.core.store import MANIFEST, Artefact, Store, seal
from penstock.recipe.schema import load_recipe
from penstock.run import Run
from tests.safety.bad_names import BAD, entry, ids

pytestmark = pytest.mark.usefixtures("nothing_outside")


GOOD = [
    "a",
    "a/b.parquet",
    "rows/split=train/part-0.parquet",
    "Ærø/雪.txt",
    "..a",
    "a..",
    "a..b/..c",
    "-x",
    ".staging",
    "a b",
    "con",
    "x" * 255,
]


@pytest.mark.parametrize("name", [*BAD, None, 7, ["a"], b"a"], ids=ascii)
def test_the_gate_refuses(name, tmp_path):
    assert reason(name)
    with pytest.raises(StoreError) as refused:
        below(tmp_path, name, where="a file of the test")
    assert (
        str(refused.value).startswith("a file of the test is ")
        and len(str(refused.value)) < 500
    )
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", GOOD, ids=ids)
def test_the_gate_lets_through(name, tmp_path):
    assert reason(name) is None
    assert below(tmp_path, name, where="") == tmp_path / name


def test_one_step_is_one_step():
    assert step("a.b", where="x") == "a.b"
    with pytest.raises(StoreError, match="more than one step"):
        step("a/b", where="x")


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b/c", "a"], ["a/b/c", "a/b"]])
def test_a_file_is_no_folder_of_another(names):
    with pytest.raises(StoreError, match="which is a file"):
        plain_all(names, where="x")
    plain_all(["a/b", "a/c", "ab", "a.b"], where="x")


def test_links_are_followed_within_their_root_alone(tmp_path, nothing_outside):
    root = nothing_outside / "root"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "file").write_text("x")
    (root / "near").symlink_to(root / "deep")
    (root / "out").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    (root / "null").symlink_to("/dev/null")
    assert below(root, "near/file", where="x").read_text("utf-8") == "x"
    for name in ("out", "out/secret.txt", "out/new", "null"):
        with pytest.raises(StoreError, match="a link leads it out"):
            below(root, name, where="x")
    with pytest.raises(StoreError, match="a device, a socket or a pipe"):
        below(root, "pipe", where="x")
    assert not below(root, "loop", where="x").exists()
    is_below = Inside(str(root))
    assert [
        is_below(str(root / name))
        for name in ("deep/file", "near/file", "absent", "out/secret.txt", "null")
    ] == [True, True, True, False, False]
    (nothing_outside / "alias").symlink_to(root)
    # the root itself may be a link
    assert (
        below(nothing_outside / "alias", "deep/file", where="x").read_text("utf-8") == "x"
    )


@pytest.mark.parametrize(
    "name", [*BAD, MANIFEST, "deep/manifest.json", "MANIFEST.JSON"], ids=ids
)
def test_a_manifest_in_a_folder(name, nothing_outside):
    folder = nothing_outside / "store" / "bundles" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text(
        json.dumps(
            {
                "format": 1,
                "type": "bundle",
                "id": folder.name,
                "files": {name: entry(b"secret")},
            }
        )
    )
    store = Store(nothing_outside / "store")
    for ask in (
        lambda: Artefact.open(folder),
        lambda: store.open(f"bundles/{folder.name}"),
        lambda: store.manifest(f"bundles/{folder.name}"),
    ):
        with pytest.raises(StoreError):
            ask()
    for verb in (
        lambda: api.show(f"bundle-{folder.name}", store=store),
        lambda: Bundle.open(folder),
    ):
        with pytest.raises(UserError):
            verb()
    (row,) = api.list_artefacts("bundles", store=store)
    assert row["reference"] == f"bundle-{folder.name}" and row["problem"]


def _hostile(shelf: Path, good: bytes) -> list[str]:
    """Artefacts that cannot be read, beside one that can; what each is called where it is told of."""
    odd = {"created": {"a": [1]}, "name": "\x1b[2J", "counts": 3}
    contents = {
        "1" * 16: b"{",
        "2" * 16: b"[]",
        "3" * 16: b"\xff",
        "4" * 16: b"[" * 100_000,
        "5\x1b[2J": good,
        "6\\6": good,
        "7" * 16: json.dumps(
            {**json.loads(good), "files": {"../x": entry(b"x")}}
        ).encode(),
        **{
            digit * 16: json.dumps({**json.loads(good), word: value}).encode()
            for digit, (word, value) in zip("89a", odd.items(), strict=True)
        },
    }
    for name, content in contents.items():
        (shelf / name).mkdir(parents=True)
        (shelf / name / MANIFEST).write_bytes(content)
    (shelf / "b" / MANIFEST).mkdir(parents=True)
    (shelf / "c").mkdir()
    os.mkfifo(shelf / "c" / MANIFEST)
    return [
        "1111",
        "2222",
        "3333",
        "4444",
        r"5\x1b[2J",
        r"6\\6",
        "7777",
        "8888",
        "9999",
        "aaaa",
        "b",
        "c",
    ]


@pytest.mark.parametrize("shelf", ["bundles", "feeds", "reports", "datasets"])
def test_what_cannot_be_read_is_named_and_hides_nothing(shelf, nothing_outside, capsys):
    store = nothing_outside / "store"
    folder = store / shelf / "people" if shelf == "datasets" else store / shelf
    good = json.dumps(
        {
            "format": 1,
            "id": "0" * 16,
            "created": "2026-01-01",
            "name": "people",
            "files": {},
        }
    ).encode()
    names = _hostile(folder, good)
    (folder / ("0" * 16)).mkdir()
    (folder / ("0" * 16) / MANIFEST).write_bytes(good)
    first, *others = api.list_artefacts(shelf, store=store)
    assert "0" * 16 in first["reference"] and "problem" not in first
    assert len(others) == len(names) and all(row["problem"] for row in others)
    assert all(any(name in row["reference"] for row in others) for name in names)
    assert cli.main(["list", shelf, "--store", str(store)]) == 0
    screen = capsys.readouterr().out
    # A screen breaks its lines between words.
    text = " ".join(screen.split())
    if shelf == "bundles":
        with pytest.raises(BundleError) as raised:
            api.show("bundle-eeeeeeeeeeeeeeee", store=store)
        assert "bundle-" + "0" * 16 in str(raised.value) and "\x1b" not in str(
            raised.value
        )
    assert text.count("cannot be read: ") == len(names)
    # A list shows the beginning of an id.
    assert "\x1b" not in screen and "0" * 8 in text


def test_a_run_that_cannot_be_read_is_named_and_hides_nothing(nothing_outside):
    store = Store(nothing_outside / "store")
    recipe = load_recipe(
        {"name": "x", "source": {"type": "files", "path": "none"}}, base=nothing_outside
    )
    run = Run.create(store, recipe=recipe, dataset="a@b", feed="c", key="d")
    facts = json.loads((run.path / "run.json").read_text("utf-8"))
    bad = {
        "run-1": b"{",
        "run-2": b"[]",
        "run-3": json.dumps({**facts, "id": "run-4"}).encode(),
        "run-\x1b5": json.dumps(facts).encode(),
        "run-6": json.dumps({**facts, "id": "run-6", "process": 3}).encode(),
        "run-7": json.dumps({**facts, "id": "run-7", "name": "\x1b[2J"}).encode(),
    }
    for name, content in bad.items():
        (store.folder / "runs" / name).mkdir()
        (store.folder / "runs" / name / "run.json").write_bytes(content)
    (
        store.folder / "runs" / "run-0"
    ).mkdir()  # torn at its birth: nothing is lost, and nothing is said
    first, *others = api.list_artefacts("runs", store=store)
    assert first["reference"] == run.id and "problem" not in first
    assert sorted(row["reference"] for row in others) == sorted(
        repr(name) if "\x1b" in name else name for name in bad
    )
    assert all(row["problem"] for row in others)
    with pytest.raises(UserError) as raised:
        api.show("run-nowhere", store=store)
    assert "run-7" in str(raised.value) and "\x1b" not in str(raised.value)
    assert (
        Run.find(store, key="d") is None
    )  # it is not done; and those that are hostile are no obstacle


def sealed(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("secret")
    seal(folder, {"type": "thing"})
    return folder


def test_a_member_that_is_a_link_or_a_device(tmp_path, nothing_outside):
    folder = sealed(nothing_outside / "thing")
    for make in (
        lambda path: path.symlink_to(tmp_path / "secret.txt"),
        lambda path: path.symlink_to("/dev/zero"),
        os.mkfifo,
    ):
        (folder / "a.txt").unlink()
        make(folder / "a.txt")
        with pytest.raises(StoreError, match=r"a link leads it out|a device"):
            Artefact.open(folder, verify=True)
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(StoreError, match="a link leads it out"):
        seal(folder, {"type": "thing"})


def test_a_folder_or_manifest_that_is_a_link(tmp_path, nothing_outside):
    folder = nothing_outside / "thing"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "secret.txt").write_text("secret")
    seal(folder, {"type": "thing"})
    shutil.rmtree(folder / "deep")
    (folder / "deep").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="a link leads it out"):
        Artefact.open(folder)
    other = sealed(nothing_outside / "other")
    (other / MANIFEST).rename(nothing_outside / "m.json")
    (other / MANIFEST).symlink_to(nothing_outside / "m.json")
    with pytest.raises(StoreError, match="a link leads it out"):
        Artefact.open(other)


@pytest.mark.parametrize("kind", ["folder", "bucket"])
@pytest.mark.parametrize("name", BAD, ids=ids)
def test_a_name_in_a_store(kind, name, nothing_outside):
    store = (
        Store(nothing_outside / "store")
        if kind == "folder"
        else Store(f"memory://names-{nothing_outside.parent.name}")
    )
    asked = [
        lambda: store.has(f"bundles/{name}"),
        lambda: store.manifest(name),
        lambda: store.open(f"runs/{name}"),
        lambda: store.names(f"datasets/{name}"),
        lambda: store.folders(name),
        lambda: store.file(f"runs/{name}", file="a"),
        lambda: store.workspace(f"runs/{name}"),
        lambda: store.write_text(f"index/{name}", text="planted"),
        lambda: store.read_text(f"index/{name}"),
        lambda: store.is_here(f"runs/{name}"),
    ]
    for ask in asked:
        with pytest.raises(StoreError):
            ask()
    with pytest.raises(StoreError), store.draft(f"bundles/{name}", manifest={}):
        pass
    if kind == "bucket":
        for ask in (
            lambda: store.forget(f"runs/{name}"),
            lambda: store.push(f"runs/{name}"),
        ):
            with pytest.raises(StoreError):
                ask()


def test_a_link_in_a_store_leads_nowhere(tmp_path, nothing_outside):
    """A store that was unpacked from an archive may hold links where Penstock writes."""
    store = Store(nothing_outside / "store")
    store.folder.mkdir()
    for name in ("runs", ".staging", ".leases", "index", "bundles"):
        (store.folder / name).symlink_to(tmp_path)
    recipe = load_recipe(
        {"name": "x", "source": {"type": "files", "path": "none"}}, base=nothing_outside
    )
    for ask in (
        lambda: store.workspace("runs/run-x"),
        lambda: store.write_text("index/a", text="planted"),
        lambda: store.names("bundles"),
        lambda: Run.create(store, recipe=recipe, dataset="a@b", feed="c", key="d"),
    ):
        with pytest.raises(StoreError, match="a link leads it out"):
            ask()
    with (
        pytest.raises(StoreError, match="a link leads it out"),
        store.draft("feeds/a", manifest={}),
    ):
        pass
    with (
        pytest.raises(StoreError, match="a link leads it out"),
        making(store, "feeds/a", "feed a", Events()),
    ):
        pass
