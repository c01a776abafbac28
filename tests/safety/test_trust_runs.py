"""A run is resumed without trust only where this user began it here, with the very same code."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock import api
from penstock.bundle.bundle import Bundle
from penstock.cli import main
from penstock.contracts.foreign import is_loaded
from penstock.core import mine
from penstock.core.errors import (
    BundleError,
    RecipeError,
    UserError,
)
from penstock.core.store import MANIFEST, Store
from penstock.encode.feed import Feed
from penstock.model import build_network
from penstock.recipe.code import source_digest
from penstock.recipe.schema import load_recipe
from penstock.run import Run
from tests.bundle import made
from tests.safety.trusting import EXPECTED, PLANTED, change, plant

pytestmark = pytest.mark.usefixtures("no_marker")


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
