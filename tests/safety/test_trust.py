"""Trust: code runs only if this process was given it by its user, or told to trust that very thing.

A module that leaves a marker when it is run is planted wherever an artefact can name code; nothing may leave
it. What was changed after it was made is refused, since an id is that of the content.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import api
from penstock.bundle.bundle import Bundle
from penstock.cli import main
from penstock.contracts.data import Feature
from penstock.contracts.foreign import is_loaded, no_foreign_code
from penstock.core import mine
from penstock.core.errors import (
    BundleError,
    PenstockError,
    RecipeError,
    StoreError,
    UserError,
)
from penstock.core.events import Event, Events
from penstock.core.store import MANIFEST, Store, seal
from penstock.encode.feed import Feed
from penstock.encode.reuse_fitted import reuse_fitted
from penstock.model import build_network
from penstock.pipeline.stages import Pipeline
from penstock.recipe.bundled import check_bundle
from penstock.recipe.code import source_digest
from penstock.recipe.schema import load_recipe
from penstock.run import Run
from penstock.train.warm_start import weights_of
from tests.bundle import made

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "store-1"
PLANTED = "planted_by_test_trust"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text("utf-8"))


@pytest.fixture(autouse=True)
def no_marker(tmp_path, monkeypatch) -> Iterator[Path]:
    """A file that planted code makes; the test fails where it is there at the end, unless the test has taken
    it away.
    """
    marker = tmp_path / "marker"
    monkeypatch.setenv("PENSTOCK_STATE", str(tmp_path / "state"))
    before = set(sys.modules), list(sys.path)
    yield marker
    for name in set(sys.modules) - before[0]:
        if name.startswith(("planted_", "acme_of_")):
            del sys.modules[name]
    sys.path[:] = before[1]
    assert not marker.exists(), "planted code was run"


def code(marker: Path) -> str:
    return f"from pathlib import Path\nPath({str(marker)!r}).write_text('it ran')\n"


def plant(folder: Path, marker: Path, *, name: str = PLANTED) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(code(marker))
    (folder / f"{name}_package").mkdir(exist_ok=True)
    (folder / f"{name}_package" / "__init__.py").write_text(code(marker))
    (folder / f"{name}_package" / "part.py").write_text(code(marker))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a recipe, its data, and a store in which all is done, of a user who has no code of their
    own.
    """
    folder = tmp_path_factory.mktemp("finished")
    # the golden store's own data, so that its dataset and run are found
    with open(folder / "t.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "age", "city", "seen", "pay"])
        for i in range(120):
            age = 18 + i * 7 % 60 if i % 11 else ""
            writer.writerow(
                [
                    i,
                    age,
                    ("Oslo", "Bergen", "Tromsø")[i % 3],
                    f"2026-01-{1 + i % 28:02d}",
                    "high" if (i * 7 % 60) > 25 else "low",
                ]
            )
        file.write("torn\n")
    shutil.copytree(GOLDEN, folder / "store")
    shutil.copyfile(
        folder / "store" / "runs" / EXPECTED["run"] / "recipe.yaml",
        folder / "recipe.yaml",
    )
    outcome = api.run(folder / "recipe.yaml", store=folder / "store")
    assert outcome.skipped["prepare"] and not outcome.skipped["pack"]
    (folder / "bundle").write_text(outcome.bundle.id)
    return folder


@pytest.fixture
def home(finished, tmp_path) -> tuple[Path, Store, str]:
    """A copy, to be tampered with: its folder, its store, and the id of its bundle."""
    folder = Path(shutil.copytree(finished, tmp_path / "home"))
    return folder, Store(folder / "store"), (folder / "bundle").read_text("utf-8")


def change(file: Path, **words: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **words}), "utf-8")


def tampered(bundle: Path, marker: Path, how: str) -> None:
    """Put code into a bundle; its checksums and its id are another's business."""
    (bundle / "source").mkdir()
    (bundle / "source" / f"{PLANTED}.py").write_text(code(marker))
    facts = json.loads((bundle / "bundle.json").read_text("utf-8"))
    facts["source"] = {PLANTED: f"source/{PLANTED}.py"}
    if how == "feature":
        facts["encoding"]["inputs"]["age"] = {"type": f"{PLANTED}.x"}
    elif how == "runtime":
        facts["runtime"] = {"type": "torch"}
        facts["programs"]["main"] |= {
            "file": f"source/{PLANTED}.py",
            "class": "Net",
            "arguments": {},
            "given": [],
            "specs": {},
            "targets": {},
            "weights": "weights.safetensors",
            "prefix": "",
            "decoders": {},
        }
    elif how == "cleaner":
        facts["steps"]["clean"] = [{"cleaner": {"type": PLANTED + ".x"}, "facts": {}}]
    (bundle / "bundle.json").write_text(json.dumps(facts))


HOWS = ["source", "feature", "runtime", "cleaner"]
QUICK = [
    how if how in ("feature", "runtime") else pytest.param(how, marks=pytest.mark.slow)
    for how in HOWS
]
"""Those that pack a run take seconds."""


# -- plan and run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", QUICK)
def test_plan_and_run_do_not_run_a_resealed_bundle(how, home, no_marker):
    folder, store, id = home
    path = store.folder / "bundles" / id
    tampered(path, no_marker, how)
    manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    # its id is kept
    seal(
        path,
        {
            word: value
            for word, value in manifest.items()
            if word not in ("format", "files")
        },
    )
    plan = api.plan(folder / "recipe.yaml", store=store)
    assert [stage["done"] for stage in plan["stages"]] == [True] * 5
    with pytest.raises(BundleError, match="it was changed after it was packed"):
        api.run(folder / "recipe.yaml", store=store)


@pytest.mark.parametrize("how", QUICK)
def test_plan_and_run_do_not_run_a_bundle_that_was_put_in_its_place(how, home, no_marker):
    """Whoever can write to the store may also point to a bundle of their own, whose id holds."""
    folder, store, id = home
    other = Path(
        shutil.copytree(store.folder / "bundles" / id, store.folder / "bundles" / "other")
    )
    tampered(other, no_marker, how)
    evil = made.reseal(other)
    other.rename(other.with_name(evil))
    (memo,) = (
        path
        for path in (store.folder / "index").iterdir()
        if path.name.startswith("bundle-")
    )
    memo.write_text(f"bundle-{evil}")
    api.plan(folder / "recipe.yaml", store=store)
    heard: list[Event] = []
    outcome = api.run(folder / "recipe.yaml", store=store, events=Events(heard.append))
    assert outcome.bundle.id == (
        evil if how == "source" else id
    )  # unused code in a bundle is dead weight
    if how != "source":
        assert any(
            event.name == "warned" and "is not used" in event.fields["text"]
            for event in heard
        )


@pytest.mark.parametrize(
    "text",
    [
        "bundle-../../x",
        "../bundles/x",
        "bundle-0123",
        "/etc/passwd",
        "bundle-0123456789abcdef\nbundle-x",
        "{}",
    ],
)
def test_what_an_index_says_is_no_path(text, home):
    folder, store, _ = home
    (memo,) = (
        path
        for path in (store.folder / "index").iterdir()
        if path.name.startswith("bundle-")
    )
    memo.write_text(text)
    for verb in (api.plan, api.run):
        with pytest.raises(StoreError, match="which is no bundle"):
            verb(folder / "recipe.yaml", store=store)


def test_what_is_done_is_not_done_again(home):
    folder, store, _ = home
    assert all(api.run(folder / "recipe.yaml", store=store).skipped.values())


# -- resume --------------------------------------------------------------------------------------------------


def interrupted(store: Store, base: Path, **words: Any) -> str:
    """The golden run as if it were of another machine and had been interrupted, its recipe changed."""
    folder = store.folder / "runs" / EXPECTED["run"]
    (folder / MANIFEST).unlink(missing_ok=True)
    change(folder / "run.json", status="interrupted", base=str(base))
    recipe = Run.open(store, reference=EXPECTED["run"]).recipe().to_dict()
    (folder / "recipe.yaml").write_text(json.dumps({**recipe, **words}))
    return EXPECTED["run"]


FOREIGN: dict[str, dict[str, Any]] = {
    "encoder": {"model": {"encoders": {"age": {"type": f"{PLANTED}_package.part"}}}},
    "combiner": {"model": {"combiner": {"type": f"{PLANTED}_package.part"}}},
    "feature": {"inputs": {"age": f"{PLANTED}_package.part"}},
    "source": {"source": {"type": f"{PLANTED}_package.part"}},
    "cleaner": {"clean": [f"{PLANTED}_package.part"]},
    "engine": {"engine": f"{PLANTED}_package.part"},
    "tracker": {"trackers": [f"{PLANTED}_package.part"]},
    "launcher": {"launcher": {"type": f"{PLANTED}_package.part"}},
    "model": {"model": {"type": f"{PLANTED}:Net"}},
    "model in a package": {"model": {"type": f"{PLANTED}_package.part:Net"}},
    "a cluster of Ray's": {
        "launcher": {"type": "ray", "address": "ray://198.51.100.1:10001"}
    },
    "a cluster of Spark's": {
        "launcher": {"type": "spark", "master": "spark://198.51.100.1:7077"}
    },
    "an engine's cluster": {
        "engine": {"type": "spark", "master": "spark://198.51.100.1:7077"}
    },
    "programs in settings": {
        "engine": {"type": "spark", "options": {"spark.pyspark.python": "/tmp/evil"}}
    },
}


@pytest.mark.parametrize("what", FOREIGN)
def test_resume_runs_no_code_of_a_run_from_elsewhere(
    what, home, no_marker, tmp_path, capsys
):
    _, store, _ = home
    plant(tmp_path / "base", no_marker)
    run = interrupted(store, tmp_path / "base", **FOREIGN[what])
    path = list(sys.path)
    assert main(["resume", run, "--store", store.url]) == 2
    said = capsys.readouterr().err
    assert f"penstock resume {run} --trust" in said and "Traceback" not in said
    with pytest.raises(UserError, match="--trust"):
        api.resume(run, store=store)
    for words in (["list", "runs"], ["show", run]):
        assert main([*words, "--store", store.url]) == 0
    assert sys.path == path
    assert PLANTED not in sys.modules


def test_with_trust_it_runs(home, no_marker, tmp_path):
    _, store, _ = home
    plant(tmp_path / "base", no_marker)
    run = interrupted(
        store,
        tmp_path / "base",
        model={"encoders": {"age": {"type": f"{PLANTED}_package.part"}}},
    )
    with pytest.raises(RecipeError, match="must define exactly one encoder"):
        api.resume(run, store=store, trust=True)
    assert no_marker.read_text("utf-8") == "it ran"
    no_marker.unlink()


def test_a_recipe_from_elsewhere_stays_one(home, no_marker, tmp_path):
    """Overrides, and a network built of it, do not make it the user's own."""
    _, store, _ = home
    plant(tmp_path / "base", no_marker)
    sys.path.insert(0, str(tmp_path / "base"))
    recipe = Run.open(
        store,
        reference=interrupted(store, tmp_path / "base", model={"type": f"{PLANTED}:Net"}),
    ).recipe()
    encoding = Feed.open(store, id=EXPECTED["feed"]).encoding
    for one in (recipe, api.as_recipe(recipe, overrides=["seed=4"])):
        assert not one.is_given
        with pytest.raises(RecipeError, match="--trust"):
            build_network(one, encoding, seed=1)
    with pytest.raises(RecipeError, match="--trust"):
        api.as_recipe(recipe, overrides=[f"clean=[{PLANTED}_package.part]"])


# -- one's own -----------------------------------------------------------------------------------------------

OWN = """
from penstock.contracts.learn import Encoder


class Own(Encoder):
    def reads(self, spec):
        return None

    def build(self, features, width):
        return None
"""


@pytest.fixture
def own(tmp_path) -> tuple[Store, Run, Path]:
    """A run that this user has begun with an encoder of their own, beside the recipe."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "acme_of_trust").mkdir()
    (folder / "acme_of_trust" / "__init__.py").write_text("")
    (folder / "acme_of_trust" / "enc.py").write_text(OWN)
    (folder / "recipe.yaml").write_text(
        json.dumps(
            {
                "name": "own",
                "source": {"type": "files", "path": "x.csv"},
                "inputs": {"a": "number"},
                "targets": {"y": "binary"},
                "model": {"encoders": {"a": {"type": "acme_of_trust.enc"}}},
            }
        )
    )
    store = Store(folder / "store")
    run = Run.create(
        store,
        recipe=load_recipe(folder / "recipe.yaml"),
        dataset="own@0123456789abcdef",
        feed="0123456789abcdef",
        key="k",
    )
    run.record({"status": "interrupted"})
    return store, run, folder


def forget_modules() -> None:
    for name in [name for name in sys.modules if name.startswith("acme_of_trust")]:
        del sys.modules[name]


def test_one_s_own_run_needs_no_flag(own):
    store, run, _ = own
    forget_modules()
    recipe = api.recipe_of(run.id, store=store)
    assert recipe.is_given and recipe.model.encoders["a"].type == "acme_of_trust.enc"
    state = mine.state_folder()
    assert not state.stat().st_mode & 0o077 and all(
        not file.stat().st_mode & 0o077 for file in state.iterdir()
    )
    assert not list(store.folder.rglob("*.py"))


@pytest.mark.parametrize(
    "what",
    [
        "recipe",
        "base",
        "store",
        "code",
        "no code",
        "no record",
        "a record that others may write",
        "a record of another",
        "a record that is a link",
    ],
)
def test_what_is_not_what_it_was_needs_trust(what, own, tmp_path):
    store, run, folder = own
    forget_modules()
    (record,) = mine.state_folder().iterdir()
    if what == "recipe":
        (run.path / "recipe.yaml").write_text(
            (run.path / "recipe.yaml").read_text("utf-8") + "\n"
        )
    elif what == "base":
        shutil.copytree(folder, tmp_path / "elsewhere")
        change(run.path / "run.json", base=str(tmp_path / "elsewhere"))
    elif what == "store":
        store = Store(shutil.copytree(store.folder, tmp_path / "copied"))
    elif what == "code":
        (folder / "acme_of_trust" / "enc.py").write_text(OWN + "\n")
    elif what == "no code":
        (folder / "acme_of_trust" / "enc.py").unlink()
    elif what == "no record":
        record.unlink()
    elif what == "a record that others may write":
        record.chmod(0o666)
    elif what == "a record of another":
        record.write_text(
            json.dumps(
                {"store": store.url, "base": str(folder), "recipe": "0" * 64, "code": {}}
            )
        )
    else:
        record.rename(tmp_path / "record")
        record.symlink_to(tmp_path / "record")
    with pytest.raises(UserError, match=f"penstock resume {run.id} --trust"):
        api.recipe_of(run.id, store=store)
    assert not is_loaded("acme_of_trust.enc")
    if what != "no code":
        assert api.recipe_of(run.id, store=store, trust=True).is_given


def test_looking_for_code_runs_none(tmp_path, no_marker):
    plant(tmp_path / "base", no_marker)
    assert source_digest(f"{PLANTED}_package.part", str(tmp_path / "base"))
    assert source_digest(f"{PLANTED}_package.absent", str(tmp_path / "base")) is None
    assert source_digest(f"{PLANTED}_package.part.deeper", str(tmp_path / "base")) is None


def test_a_state_folder_that_cannot_be_written_is_no_trouble(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PENSTOCK_STATE", str(tmp_path / "file" / "state"))
    mine.remember("run", "x", {"a": 1})
    assert mine.recall("run", "x") is None


def test_a_bundle_with_code_of_one_s_own_is_noted(tmp_path):
    declared = {
        "name": "own",
        "seed": 5,
        "source": {"type": "files", "path": "lake"},
        "inputs": {"age": "number"},
        "targets": {"pay": {"type": "binary", "positive": "high"}, "kind": "category"},
        "model": {
            "type": "tests.bundle.net_of_test_pack:Stubborn",
            "arguments": {"width": 3},
        },
    }
    bundle, store, _ = made.make(tmp_path, declared)
    assert mine.recall("bundle", bundle.id) == {"id": bundle.id}
    with pytest.raises(
        BundleError, match="--trust"
    ):  # to be served, it is still asked for
        Bundle.open(bundle.reference, store=store)
    for words in ({"class": "os"}, {"class": "load"}, {"class": "Plain.forward"}):
        other = Path(shutil.copytree(bundle.path, tmp_path / f"other-{words['class']}"))
        facts = json.loads((other / "bundle.json").read_text("utf-8"))
        facts["programs"]["main"] |= words
        (other / "bundle.json").write_text(json.dumps(facts))
        assert mine.recall("bundle", made.reseal(other)) is None
        with pytest.raises(BundleError, match="cannot be built"):
            Bundle.open(other, trust=True)


# -- opening, listing, showing, serving ----------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS[1:])
def test_nothing_runs_where_a_bundle_is_opened(how, home, no_marker, tmp_path, capsys):
    folder, store, id = home
    plant(tmp_path / "near", no_marker)
    sys.path.insert(0, str(tmp_path / "near"))  # even where the module could be found
    other = Path(
        shutil.copytree(store.folder / "bundles" / id, store.folder / "bundles" / "other")
    )
    tampered(other, no_marker, how)
    evil = made.reseal(other)
    other = other.rename(other.with_name(evil))
    url = store.url
    for words in (
        ["show", f"bundle-{evil}"],
        ["evaluate", f"bundle-{evil}"],
        ["predict", str(other), str(folder / "t.csv"), "-o", str(tmp_path / "o.csv")],
        ["serve", f"bundle-{evil}", "--port", "0"],
    ):
        assert main([*words, "--store", url]) == 2, words
        assert "--trust" in capsys.readouterr().err
    for shelf in ("bundles", "runs", "datasets", "feeds", "reports"):
        assert main(["list", shelf, "--store", url]) == 0
    with pytest.raises(BundleError):
        Bundle.open(other, replay=False)


@pytest.mark.parametrize("how", HOWS)
def test_weights_and_features_are_not_taken_from_a_changed_bundle(how, home, no_marker):
    _, store, id = home
    path = store.folder / "bundles" / id
    tampered(path, no_marker, how)
    manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    seal(
        path,
        {
            word: value
            for word, value in manifest.items()
            if word not in ("format", "files")
        },
    )
    with pytest.raises(StoreError, match="it was changed after it was packed"):
        weights_of(f"bundle-{id}", store)
    age = Feature.load({"type": "number", "fitted_from": f"bundle-{id}"})
    with pytest.raises(StoreError, match="it was changed after it was packed"):
        reuse_fitted({"age": age}, "inputs", store, where="x")


def test_a_feed_runs_nothing(home, no_marker, tmp_path):
    _, store, _ = home
    plant(tmp_path / "near", no_marker)
    sys.path.insert(0, str(tmp_path / "near"))
    path = store.folder / "feeds" / EXPECTED["feed"]
    fitted = json.loads((path / "fitted.json").read_text("utf-8"))
    fitted["inputs"]["age"] = {"type": f"{PLANTED}_package.part"}
    (path / "fitted.json").write_text(json.dumps(fitted))
    manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    seal(
        path,
        {
            word: value
            for word, value in manifest.items()
            if word not in ("format", "files")
        },
    )
    with pytest.raises(StoreError, match="did not come with Penstock"):
        _ = Feed.open(store, id=EXPECTED["feed"]).encoding


def test_a_guard_is_never_widened(tmp_path, no_marker):
    plant(tmp_path / "near", no_marker)
    sys.path.insert(0, str(tmp_path / "near"))
    with (
        no_foreign_code(),
        no_foreign_code(but=lambda module: True),
        pytest.raises(RecipeError, match="--trust"),
    ):
        Feature.find(f"{PLANTED}_package.part")


@pytest.mark.parametrize("name", ["simplejpeg", "tensorboard_of_nobody", "sitecustomize"])
def test_a_file_beside_a_recipe_stands_in_for_no_package(name, tmp_path, no_marker):
    """The recipe's folder is looked into only for the code that the recipe names."""
    plant(tmp_path / "base", no_marker, name=f"planted_{name}")
    (tmp_path / "base" / "recipe.yaml").write_text(
        json.dumps({"name": "x", "source": {"type": "files", "path": "x.csv"}})
    )
    load_recipe(tmp_path / "base" / "recipe.yaml")
    with pytest.raises(ModuleNotFoundError):
        __import__(f"planted_{name}")


# -- an id is that of the content ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "id", [None, "", 7, "0" * 16, "x" * 16, "../../x", ["a"], "0123456789ABCDEF"]
)
def test_an_id_that_is_not_the_content_s(id, home):
    _, store, known = home
    path = store.folder / "bundles" / known
    change(path / MANIFEST, id=id)
    for ask in (
        lambda: Bundle.open(f"bundle-{known}", store=store),
        lambda: Bundle.open(path),
        lambda: api.show(f"bundle-{known}", store=store),
    ):
        with pytest.raises(BundleError, match=r"says (its id|it) is"):
            ask()


def test_an_early_bundle_is_checked_too(home):
    """The golden bundle's id is of what was declared and learnt; nothing of that can be changed."""
    _, store, _ = home
    path = store.folder / "bundles" / EXPECTED["bundle"].removeprefix("bundle-")
    Bundle.open(path)
    for name, word in (
        ("decision.json", {"pay": {"threshold": 0.1}}),
        ("fitted.json", {"age": {}}),
        ("recipe.yaml", {"source": {}}),
        ("bundle.json", {"dataset": "x@y"}),
    ):
        copy = Path(shutil.copytree(path, path.parent / f"copy-{name}"))
        text = (copy / name).read_text("utf-8")
        changed = {**json.loads(text), **word} if name.endswith("json") else word
        (copy / name).write_text(json.dumps(changed))
        manifest = json.loads((copy / MANIFEST).read_text("utf-8"))
        seal(
            copy,
            {w: value for w, value in manifest.items() if w not in ("format", "files")},
        )
        with pytest.raises(BundleError, match="it was changed after it was packed"):
            Bundle.open(copy)


def test_no_new_bundle_passes_for_an_early_one(home):
    _, store, id = home
    path = store.folder / "bundles" / id
    for words in ({"identity": None}, {"identity": 1}, {"identity": 3}):
        change(path / "bundle.json", **words)
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        seal(
            path,
            {w: value for w, value in manifest.items() if w not in ("format", "files")},
        )
        with pytest.raises(BundleError, match="it was changed after it was packed"):
            Bundle.open(path)
    recipe = (
        (path / "recipe.yaml").read_text("utf-8").replace("t.csv", "s3://key:***@x/t.csv")
    )
    (path / "recipe.yaml").write_text(recipe)
    seal(
        path, {w: value for w, value in manifest.items() if w not in ("format", "files")}
    )
    with pytest.raises(BundleError, match="packed by an early Penstock"):
        Bundle.open(path, trust=True)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for place, item in enumerate(value):
            yield from leaves(item, (*path, place))
    else:
        yield path


def put(data: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


def test_every_resealed_edit_is_seen(home):
    """Any value of any file of a bundle, changed and resealed under its id, is refused; but for which run it
    was, and how long it took.
    """
    _, store, id = home
    chance = random.Random(7)
    path = store.folder / "bundles" / id
    manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    rest = {w: value for w, value in manifest.items() if w not in ("format", "files")}
    edits = 0
    for name in sorted(manifest["files"]):
        before = (path / name).read_bytes()
        for _ in range(13):
            if name.endswith(".json"):
                data = json.loads(before)
                where = chance.choice(
                    [
                        found
                        for found in leaves(data)
                        if found and found[0] not in ("run", "measured")
                    ]
                )
                put(
                    data,
                    where,
                    chance.choice(["x", -17, 1e300, {"type": f"{PLANTED}.x"}, "../../x"]),
                )
                (path / name).write_text(json.dumps(data))
            else:
                place = chance.randrange(len(before))
                (path / name).write_bytes(
                    before[:place]
                    + bytes([before[place] ^ 1 << chance.randrange(7)])
                    + before[place + 1 :]
                )
            if name == "recipe.yaml":  # words that say where it ran are not the bundle's
                (path / name).write_bytes(
                    before.replace(b"seed: 1", b"seed: %d" % chance.randrange(2, 99))
                )
            seal(path, rest)
            edits += 1
            with pytest.raises(PenstockError) as refused:
                Bundle.open(path)
            assert refused.value.exit_code == 2
        (path / name).write_bytes(before)
    seal(path, rest)
    assert check_bundle(store.open(f"bundles/{id}", verify=True)) == id
    assert edits >= 100


@pytest.mark.skipif(os.name != "posix", reason="ownership is asked of POSIX systems")
def test_records_are_private(tmp_path):
    mine.remember("bundle", "x", {"id": "x"})
    assert (
        mine.recall("bundle", "x") == {"id": "x"}
        and mine.recall("bundle", "y") is None
        and mine.recall("run", "x") is None
    )
    mine.state_folder().chmod(0o777)
    assert mine.recall("bundle", "x") is None


def test_the_pipeline_s_stages_know_no_trust(home):
    """Another process of the same command is told whether the bundle was packed by it."""
    folder, store, _ = home
    outcome = Pipeline(load_recipe(folder / "recipe.yaml"), store, Events()).until(
        "evaluate"
    )
    assert outcome.named()["is_trusted"] is False
