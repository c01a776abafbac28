"""Trust: code runs only if this process was given it by its user, or told to trust that very thing.

A module that leaves a marker when it is run is planted wherever an artefact can name code; nothing may leave
it. What was changed after it was made is refused, since an id is that of the content."""

from __future__ import annotations

import json
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
from penstock.contracts.foreign import no_foreign_code
from penstock.core.errors import (
    BundleError,
    PenstockError,
    RecipeError,
    StoreError,
)
from penstock.core.events import Event, Events
from penstock.core.store import MANIFEST, seal
from penstock.encode.feed import Feed
from penstock.encode.reuse_fitted import reuse_fitted
from penstock.pipeline.stages import Pipeline
from penstock.recipe.bundled import check_bundle
from penstock.recipe.schema import load_recipe
from penstock.train.warm_start import weights_of
from tests.bundle import made
from tests.safety.trusting import EXPECTED, PLANTED, change, code, plant

pytestmark = pytest.mark.usefixtures("no_marker")


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
        with pytest.raises(StoreError, match="which is not a bundle"):
            verb(folder / "recipe.yaml", store=store)


def test_what_is_done_is_not_done_again(home):
    folder, store, _ = home
    assert all(api.run(folder / "recipe.yaml", store=store).skipped.values())


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
    with pytest.raises(StoreError, match="not part of Penstock"):
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
        with pytest.raises(BundleError, match=r"(says (its id|it) is|has the id)"):
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


def test_the_pipeline_s_stages_know_no_trust(home):
    """Another process of the same command is told whether the bundle was packed by it."""
    folder, store, _ = home
    outcome = Pipeline(load_recipe(folder / "recipe.yaml"), store, Events()).until(
        "evaluate"
    )
    assert outcome.named()["is_trusted"] is False
