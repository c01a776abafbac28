"""Names from elsewhere: what a manifest, a listing, a recipe or a request calls a file never leads out of its
root.

Every way in gets the same bad names; a folder beside the root is watched, and so is what the error says.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from penstock import api, cli
from penstock.bundle.bundle import Bundle
from penstock.contracts.learn import Runtime, Tracker
from penstock.core.bucket import Bucket
from penstock.core.errors import (
    BundleError,
    PenstockError,
    RecipeError,
    StoreError,
    UserError,
)
from penstock.core.events import Event, Events
from penstock.core.listeners import listening
from penstock.core.making import making
from penstock.core.paths import Inside, below, plain_all, reason, step
from penstock.core.store import MANIFEST, Artefact, Store, seal
from penstock.encode.feed import Feed
from penstock.prepare.dataset import Dataset
from penstock.recipe import names
from penstock.recipe.schema import load_recipe
from penstock.run import Run
from penstock.train.checkpoint import Checkpoints
from penstock.train.warm_start import weights_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "store-1"
OUTSIDE = [
    "../planted",
    "../../planted",
    "a/../../planted",
    "a/b/../../../planted",
    "..",
    "../",
    "/tmp/planted-absolute",
    "//tmp/planted",
    "~/../../planted\0",
    "..\\planted",
    "a\\..\\..\\planted",
    "C:\\planted",
    "C:/planted",
    "c:planted",
    "\\\\host\\share\\planted",
]
"""Names that lead out, here or on another system."""
ODD = [
    "",
    ".",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "a\0b",
    "a\nb",
    "a\x1b[2Jb",
    "\udcff",
    "x" * 300,
    "a/" * 2_500 + "b",
    "\u2028",
]
"""Names that are not spelt in the one normal way."""
BAD = OUTSIDE + ODD
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


@pytest.fixture(autouse=True)
def nothing_outside(tmp_path, monkeypatch) -> Iterator[Path]:
    """The roots lie in `inside`; whatever appears beside it, or changes there, has escaped."""
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "inside" / "cache"))
    monkeypatch.setenv("PENSTOCK_REMOTE_ATTEMPTS", "1")
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.txt").write_text("secret")

    def seen() -> dict[str, str]:
        files = [
            path
            for path in tmp_path.rglob("*")
            if tmp_path / "inside" not in (path, *path.parents)
        ]
        return {
            str(path): path.read_text("utf-8") if path.is_file() else "" for path in files
        }

    before = seen()
    yield tmp_path / "inside"
    assert seen() == before
    assert not Path("/tmp/planted-absolute").exists()


def entry(content: bytes) -> dict[str, object]:
    return {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def ids(name: str) -> str:
    return ascii(name)[:30]


# -- the gate ------------------------------------------------------------------------------------------------


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


# -- manifests -----------------------------------------------------------------------------------------------


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
    told = capsys.readouterr().out
    if shelf == "bundles":
        with pytest.raises(BundleError) as raised:
            api.show("bundle-eeeeeeeeeeeeeeee", store=store)
        assert "bundle-" + "0" * 16 in str(raised.value) and "\x1b" not in str(
            raised.value
        )
    assert (
        told.count("cannot be read: ") == len(names)
        and "\x1b" not in told
        and "0" * 16 in told
    )


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
    with pytest.raises(StoreError, match="not a manifest that can be read"):
        Artefact.open(folder)


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


# -- names in a store ----------------------------------------------------------------------------------------


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


# -- recipes and references ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *[n for n in BAD if n],
        "a/b",
        ".hidden",
        "...",
        "a b",
        "Ⅷ",
        "a\u0301",
        "x" * 101,
        "a\n",
    ],
    ids=ids,
)
def test_a_recipe_s_name_is_one_folder(name):
    with pytest.raises(RecipeError, match="name"):
        load_recipe({"name": name, "source": {"type": "files", "path": "x"}})


@pytest.mark.parametrize(
    "name",
    [
        "CON",
        "nul",
        "Aux",
        "prn",
        "COM1",
        "lpt9",
        "con.csv",
        "NUL.tar.gz",
        "a.",
        "a...",
        "a ",
    ],
)
def test_a_recipe_s_name_can_be_held_by_every_system(name, nothing_outside, capsys):
    recipe = nothing_outside / "recipe.yaml"
    recipe.write_text(
        json.dumps({"name": name, "source": {"type": "files", "path": "x"}}), "utf-8"
    )
    assert cli.main(["check", str(recipe)]) == 2
    told = capsys.readouterr().err
    assert "name: " in told and "Traceback" not in told


def test_a_dataset_is_found_by_its_name_beside_a_version_that_cannot_be_read(
    nothing_outside, capsys
):
    store = Store(nothing_outside / "store")
    shelf = store.folder / "datasets" / "people"
    for id, created in (
        ("0" * 16, "2026-01-01"),
        ("1" * 16, "2026-01-02"),
        ("2" * 16, "2026-01-03"),
    ):
        with store.draft(
            f"datasets/people/{id}",
            manifest={
                "type": "dataset",
                "id": id,
                "name": "people",
                "created": created,
                "counts": {"in": 0},
            },
        ) as draft:
            (draft / "profile.json").write_text("{}")
    (shelf / ("2" * 16) / MANIFEST).write_bytes(b"{")
    with pytest.warns(
        RuntimeWarning,
        match="people@2222222222222222 cannot be read .*people@1111111111111111 is taken",
    ):
        assert Dataset.open(store, reference="people").id == "1" * 16
    with pytest.raises(StoreError):
        Dataset.open(store, reference="people@" + "2" * 16)
    for id in "01":
        (shelf / (id * 16) / MANIFEST).write_bytes(b"[]")
    with pytest.raises(
        StoreError, match="has no version of the dataset 'people' that can be read"
    ) as raised:
        Dataset.open(store, reference="people")
    assert all(f"people@{id * 16}" in str(raised.value) for id in "012")


@pytest.mark.parametrize(
    "name",
    [
        "adult-income",
        "a.b",
        "A_1",
        "-x",
        "x" * 100,
        "concert",
        "nullable",
        "com10",
        "a.con",
    ],
)
def test_a_usual_name_stays(name):
    assert (
        load_recipe({"name": name, "source": {"type": "files", "path": "x"}}).name == name
    )


TRACKED = [
    *[n for n in BAD if n != "."],
    ".",
    "checkpoints",
    "checkpoints/x",
    "manifest.json",
    "events.jsonl",
    "run.json",
    "model.safetensors",
    "report",
]


@pytest.mark.parametrize("name", TRACKED, ids=ids)
def test_a_tracker_s_folder_is_below_the_run(name):
    with pytest.raises(RecipeError, match=r"below the run's|half of a surrogate pair"):
        load_recipe(
            {
                "name": "x",
                "source": {"type": "files", "path": "x"},
                "trackers": [{"type": "tensorboard", "folder": name}],
            }
        )


def test_a_tracker_s_folder_that_is_a_link(tmp_path, nothing_outside):
    (nothing_outside / "tensorboard").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="a link leads it out"):
        Tracker.load("tensorboard").sink(nothing_outside)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(shutil.copytree(GOLDEN, tmp_path_factory.mktemp("golden") / "store"))


@pytest.mark.parametrize(
    "name",
    [
        *BAD,
        "reference://",
        "reference://x",
        "file:///etc/passwd",
        "*",
        "[a-z]*",
        "golden@*",
        "%2e%2e/x",
    ],
    ids=ids,
)
def test_a_reference(name, store):
    for ask in (
        lambda: api.show(name, store=store),
        lambda: api.show(f"run-{name}", store=store),
        lambda: api.show(f"bundle-{name}", store=store),
        lambda: api.show(f"{name}@0123456789abcdef", store=store),
        lambda: api.show(f"golden@{name}x", store=store),
        lambda: Bundle.open(f"bundle-{name}", store=store),
        lambda: Dataset.open(store, reference=f"{name}@{name}"),
        lambda: Run.open(store, reference=f"run-{name}"),
        lambda: Feed.open(store, id=f"{name}/x"),
        lambda: weights_of(f"bundle-{name}", store),
        lambda: weights_of(f"run-{name}", store),
        lambda: api.resume(f"run-{name}", store=store),
        lambda: api.evaluate(f"bundle-{name}", store=store),
    ):
        with pytest.raises(PenstockError) as refused:
            ask()
        assert refused.value.exit_code == 2


# -- artefacts from elsewhere --------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(nothing_outside) -> tuple[Store, dict]:
    shutil.copytree(GOLDEN, nothing_outside / "store")
    return Store(nothing_outside / "store"), json.loads(
        (GOLDEN / "expected.json").read_text("utf-8")
    )


def change(folder: Path, **words: object) -> None:
    """Change the manifest, as who repacks by hand would."""
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    (folder / MANIFEST).write_text(json.dumps({**manifest, **words}))


@pytest.mark.parametrize(
    "name",
    ["../../../../secret.txt", "/etc/passwd", "fitted.json/../../x", "not-there.arrow"],
)
def test_a_feed_s_shards(name, elsewhere):
    store, expected = elsewhere
    change(store.folder / "feeds" / expected["feed"], shards={"train": [name]})
    with pytest.raises(StoreError, match="in its manifest"):
        Feed.open(store, id=expected["feed"]).shards("train")


def test_rows_beside_a_dataset_are_not_read(elsewhere, tmp_path):
    store, expected = elsewhere
    dataset = Dataset.open(store, reference=expected["dataset"])
    rows = dataset.path / "rows" / "split=train"
    shutil.copyfile(rows / "part-0.parquet", rows / "part-1.parquet")
    (rows / "part-2.parquet").symlink_to(tmp_path / "secret.txt")
    assert (
        Dataset.open(store, reference=expected["dataset"]).table("train").num_rows
        == expected["rows"]["train"]
    )


@pytest.mark.parametrize(
    "name",
    [
        "events.jsonl",
        "checkpoints",
        "run.json",
        "world.json",
        "recipe.yaml",
        "model.safetensors",
    ],
)
def test_a_run_with_links(name, elsewhere, tmp_path):
    store, expected = elsewhere
    folder = store.folder / "runs" / expected["run"]
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret.txt" if "." in name else tmp_path)

    def read() -> list[Path]:
        run = Run.open(store, reference=expected["run"])
        run.recipe()
        run.world()
        return [run.events_path, run.checkpoints, run.weights]

    with pytest.raises(StoreError, match="a link leads it out"):
        read()


def test_a_run_that_says_it_is_another(elsewhere):
    store, expected = elsewhere
    file = store.folder / "runs" / expected["run"] / "run.json"
    facts = json.loads(file.read_text("utf-8"))
    for wrong in (
        {"id": "run-../../x"},
        {"id": None},
        {"feed": ["x"]},
        {"base": 3},
        {"key": None},
    ):
        file.write_text(json.dumps({**facts, **wrong}))
        with pytest.raises(StoreError, match="is not the record of"):
            Run.open(store, reference=expected["run"])
    file.write_text(json.dumps({**facts, "feed": "../../../x", "dataset": "../../x@y"}))
    run = Run.open(store, reference=expected["run"])
    for ask in (
        lambda: Feed.open(store, id=run.feed),
        lambda: Dataset.open(store, reference=run.dataset),
    ):
        with pytest.raises(StoreError, match="leads out of its folder"):
            ask()


def test_checkpoints_are_named_by_their_step(elsewhere, tmp_path):
    store, expected = elsewhere
    run = Run.open(store, reference=expected["run"])
    checkpoints = Checkpoints(run.checkpoints, 1)
    (whole,) = checkpoints.all()
    (run.checkpoints / "step-0000000009").symlink_to(tmp_path)
    (run.checkpoints / "step-x").mkdir()
    assert checkpoints.all() == [whole]
    with pytest.raises(StoreError, match="a link leads it out"):
        checkpoints.whole(9)


def test_a_value_that_names_a_link_out_of_its_root(tmp_path, nothing_outside):
    (nothing_outside / "texts").mkdir()
    (nothing_outside / "texts" / "a.txt").write_text("fine")
    (nothing_outside / "texts" / "b.txt").symlink_to(tmp_path / "secret.txt")
    (nothing_outside / "texts" / "c").symlink_to(tmp_path)
    (nothing_outside / "t.csv").write_text(
        "file,y\na.txt,1\nb.txt,2\nc/secret.txt,3\n../../secret.txt,4\n/etc/passwd,5\na.txt/../../../secret.txt,6\n"
    )
    recipe = load_recipe(
        {
            "name": "x",
            "source": {
                "type": "files",
                "path": "t.csv",
                "load": {"file": {"root": "texts", "text": True}},
            },
            "split": {"train": 1.0, "validation": 0, "test": 0},
        },
        base=nothing_outside,
    )
    dataset = api.prepare(recipe, store=nothing_outside / "store")
    assert dataset.table("train")["file"].to_pylist() == ["fine"]
    assert dataset.counts["quarantined"] == 5


@pytest.mark.parametrize("name", ["../secret.bin", "{outside}/secret.bin", "link.bin"])
def test_a_program_s_own_files_lie_beside_it(name, tmp_path, nothing_outside):
    """An ONNX program that keeps values in files beside it is refused: no manifest vouches for them."""
    (nothing_outside / "secret.bin").write_bytes(b"\0\0\xe0@")
    folder = nothing_outside / "programs"
    folder.mkdir()
    (folder / "link.bin").symlink_to(nothing_outside / "secret.bin")
    weight = onnx.TensorProto(
        name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL
    )
    weight.external_data.add(key="location", value=name.format(outside=nothing_outside))
    given, answer = (
        onnx.helper.make_tensor_value_info(word, 1, ["r"]) for word in ("a", "y")
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["a", "w"], ["y"])],
        "g",
        [given],
        [answer],
        [weight],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    (folder / "main.onnx").write_bytes(model.SerializeToString())
    entries = [{"name": word, "dtype": "float32", "shape": []} for word in ("a", "y")]
    with pytest.raises(BundleError, match="has values in files beside it"):
        Runtime.load("onnx").open(
            folder,
            {"file": "main.onnx", "inputs": entries[:1], "outputs": entries[1:]},
            threads=1,
        )


# -- names that not every system can hold --------------------------------------------------------------------


def _named(name: str, folder: Path) -> dict[str, object]:
    rows = "".join(f"{i % 17},{'yes' if i % 17 > 8 else 'no'}\n" for i in range(80))
    (folder / "rows.csv").write_text("a,y\n" + rows)
    return {
        "name": name,
        "source": {"type": "files", "path": str(folder / "rows.csv")},
        "inputs": {"a": "number"},
        "targets": {"y": "category"},
        "train": {"epochs": 1},
        "evaluate": {"bootstrap": 10},
    }


@pytest.mark.parametrize("name", ["con", "a.", "NUL.csv", "lpt1"])
def test_a_name_that_not_every_system_holds_is_refused_where_something_is_made(
    name: str, nothing_outside: Path
) -> None:
    recipe = _named(name, nothing_outside)
    load_recipe(recipe)  # whoever only opens what was made is not asked
    for make in (
        lambda: api.check(recipe),
        lambda: api.check(recipe, data=False),
        lambda: api.plan(recipe, store=nothing_outside / "store"),
        lambda: api.prepare(recipe, store=nothing_outside / "store"),
        lambda: api.launch(recipe, scheduler="slurm", store="/mnt/store"),
    ):
        with pytest.raises(RecipeError, match="names a folder of the store"):
            make()


@pytest.mark.parametrize("name", ["con", "a."])
@pytest.mark.slow
def test_what_an_earlier_version_made_under_such_a_name_opens(
    name: str, nothing_outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = nothing_outside / "store"
    with monkeypatch.context() as earlier:
        earlier.setattr(names, "unportable", lambda name: None)
        outcome = api.run(_named(name, nothing_outside), store=root)
    store = Store(root)
    assert Dataset.open(store, reference=f"{name}@{outcome.dataset.id}").name == name
    assert Run.open(store, reference=outcome.run.id).recipe().name == name
    bundle = Bundle.open(f"bundle-{outcome.bundle.id}", store=store)
    assert bundle.recipe().name == name
    rows, answers = nothing_outside / "rows.csv", nothing_outside / "answers.csv"
    api.predict(bundle.path, source=rows, output=answers, store=root)
    assert (nothing_outside / "answers.csv").read_text().count("\n") == 81
    api.evaluate(bundle.path, store=root)
    assert cli.main(["list", "bundles", "--store", str(root)]) == 0
    with pytest.raises(UserError, match="there is nothing to resume"):
        api.resume(outcome.run.id, store=root)
    for reference in (
        outcome.run.id,
        f"bundle-{outcome.bundle.id}",
        f"{name}@{outcome.dataset.id}",
    ):
        assert cli.main(["show", reference, "--store", str(root)]) == 0
