"""The diary of one attempt."""

import importlib
import json
import os
import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock
from penstock.core.bucket import Bucket
from penstock.core.errors import Interrupted, StoreError, UserError
from penstock.core.events import Events
from penstock.core.store import Artefact, Store
from penstock.core.world import world_now
from penstock.recipe.read import parse_yaml
from penstock.recipe.text import Dumper
from penstock.run import Run
from tests.train.tiny import tiny_recipe


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def make(store, tmp_path, **words):
    return Run.create(
        store,
        recipe=tiny_recipe(tmp_path),
        **{
            "dataset": "tiny@0123456789abcdef",
            "feed": "f" * 16,
            "key": "k" * 16,
            **words,
        },
    )


def test_a_run_remembers_what_was_declared_and_where(store, tmp_path):
    recipe = tiny_recipe(tmp_path)
    run = Run.create(
        store,
        recipe=recipe,
        dataset="tiny@0123456789abcdef",
        feed="f" * 16,
        key="k" * 16,
        parent="run-x",
    )
    again = Run.open(store, reference=run.id)
    assert again.recipe().to_dict() == recipe.to_dict()
    assert again.recipe().base == recipe.base
    assert (
        again.status,
        again.dataset,
        again.feed,
        again.key,
        again.parent,
        again.name,
    ) == (
        "running",
        "tiny@0123456789abcdef",
        "f" * 16,
        "k" * 16,
        "run-x",
        "tiny",
    )
    assert again.summary is None
    world = again.world()
    assert world["packages"]["torch"]
    assert world["hardware"]["cores"] >= 1


def test_find_returns_the_newest_finished_run_of_a_key(store, tmp_path):
    first, second, other = (
        make(store, tmp_path),
        make(store, tmp_path),
        make(store, tmp_path, key="o" * 16),
    )
    make(store, tmp_path)  # never finished
    assert Run.find(store, key="k" * 16) is None
    for run in (first, second, other):
        run.finish({"epochs": 3})
    found = Run.find(store, key="k" * 16)
    assert found is not None
    assert found.id == second.id
    assert (found.status, found.summary) == ("done", {"epochs": 3})
    Artefact.open(found.path, verify=True)


def test_a_finished_run_is_not_edited(store, tmp_path):
    run = make(store, tmp_path)
    run.finish({})
    with pytest.raises(StoreError, match="finished"):
        run.record({"status": "failed"})
    with pytest.raises(UserError, match="nothing is left to resume"):
        Run.open(store, reference=run.id).begin()


def test_an_unknown_run_is_answered_with_those_there_are(store, tmp_path):
    with pytest.raises(UserError, match="no runs"):
        Run.open(store, reference="run-x")
    run = make(store, tmp_path)
    with pytest.raises(UserError, match=run.id):
        Run.open(store, reference="run-x")


def test_a_run_whose_process_died_is_interrupted(store, tmp_path):
    code = (
        "import sys; from pathlib import Path; from penstock.core.store import Store; from penstock.run"
        " import Run; from tests.train.tiny import tiny_recipe;r = Run.create(Store(sys.argv[1]),"
        " recipe=tiny_recipe(Path(sys.argv[2])), dataset='d@0', feed='f', key='k'); print(r.id, r.status)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said[1] == "running"
    run = Run.open(store, reference=said[0])
    assert run.status == "interrupted"
    run.begin()
    assert Run.open(store, reference=said[0]).status == "running"


def test_a_run_in_other_hands_is_left_alone(store, tmp_path):
    run = make(store, tmp_path)
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        import psutil

        run.record(
            {
                "process": {
                    **run.facts()["process"],
                    "pid": sleeper.pid,
                    "started": psutil.Process(sleeper.pid).create_time(),
                }
            }
        )
        assert run.status == "running"
        with pytest.raises(UserError, match=f"process {sleeper.pid}"):
            run.begin()
    finally:
        sleeper.communicate(b"\n")
    assert run.status == "interrupted"


def test_a_silent_run_on_another_machine_is_taken_for_dead(store, tmp_path):
    run = make(store, tmp_path)
    run.record({"process": {"pid": 1, "started": 0.0, "host": "elsewhere"}})
    assert run.status == "running"
    os.utime(run.path / "run.json", (0, 0))
    assert run.status == "interrupted"


def test_passwords_in_urls_stay_out_of_the_diary(store, tmp_path):
    recipe = tiny_recipe(tmp_path).model_copy(
        update={"store": "s3://user:hunter2@host/bucket"}
    )
    run = Run.create(store, recipe=recipe, dataset="d@0", feed="f", key="k")
    text = "".join(p.read_text() for p in run.path.glob("*.*"))
    assert "hunter2" not in text
    assert "s3://user:***@host/bucket" in text


def test_a_torn_record_is_a_sentence(store, tmp_path):
    run = make(store, tmp_path)
    (run.path / "run.json").write_text("{")
    with pytest.raises(StoreError, match=r"run\.json cannot be read"):
        Run.open(store, reference=run.id)


def test_what_was_chosen_is_kept(store, tmp_path):
    run = make(store, tmp_path)
    run.choose({"processes": 2, "threads": 1})
    assert Run.open(store, reference=run.id).world()["chosen"] == {
        "processes": 2,
        "threads": 1,
    }


def test_verified_weights(store, tmp_path):
    run = make(store, tmp_path)
    with pytest.raises(StoreError, match="penstock resume"):
        run.verified()
    run.weights.write_bytes(b"abc")
    run.finish({})
    assert run.verified() == run.weights
    run.weights.write_bytes(b"abd")
    with pytest.raises(StoreError, match="was changed"):
        run.verified()


def test_runs_in_a_bucket(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "here"))
    run = make(Store("memory://bucket-of-runs"), tmp_path)
    run.record({"status": "interrupted"})
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "there"))
    elsewhere = Store("memory://bucket-of-runs")
    again = Run.open(elsewhere, reference=run.id)
    assert again.status == "interrupted"
    again.finish({"epochs": 1})
    found = Run.find(elsewhere, key="k" * 16)
    assert found is not None
    assert found.summary == {"epochs": 1}


def test_the_code_is_named_inside_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert world_now()["code"] is None
    for words in (
        ["init", "-q"],
        [
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@example.org",
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "x",
        ],
    ):
        subprocess.run(["git", *words], check=True)
    code = world_now()["code"]
    assert len(code["commit"]) == 40
    assert code["diff_sha256"] is None
    (tmp_path / "a.py").write_text("1")
    subprocess.run(["git", "add", "a.py"], check=True)
    assert world_now()["code"]["diff_sha256"]


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
    | st.sampled_from(
        [
            "1e3",
            "1e-3",
            "yes",
            "on",
            "null",
            "~",
            "2024-01-01",
            "0x1f",
            "1_000",
            ".inf",
            "true",
            "12:30",
            "=",
            "<<",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.sampled_from("abcxyz19e."), min_size=1, max_size=4),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=50)
@given(plain)
def test_what_is_written_as_yaml_is_read_back(data):
    assert json.dumps(
        parse_yaml(
            yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True), where="x"
        )
    ) == json.dumps(data)


# -- a bucket that refuses at the end ------------------------------------------------------------------------


@pytest.fixture
def late(tmp_path, monkeypatch):
    """A recipe, a store in a bucket, and how to have the bucket refuse what belongs to runs."""
    (tmp_path / "t.csv").write_text(
        "a,y\n" + "".join(f"{i % 7},{i % 2}\n" for i in range(120))
    )
    recipe = {
        "name": "late",
        "source": {"type": "files", "path": str(tmp_path / "t.csv")},
        "inputs": {"a": "number"},
        "targets": {"y": "binary"},
        "train": {"epochs": 1},
        "launcher": {"type": "local", "processes": 1, "threads": 1},
        "evaluate": {"baselines": False, "bootstrap": 0},
    }
    put = Bucket.put

    def refuse(self, name, *arguments, **words):
        if name.startswith("runs/"):
            raise StoreError("the bucket refuses.")
        put(self, name, *arguments, **words)

    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    return recipe, f"memory://{tmp_path.name}", refuse


@pytest.mark.parametrize("again", ["train", "resume"])
def test_a_training_that_is_done_is_sent_once_its_bucket_answers(
    late, again, monkeypatch
):
    recipe, url, refuse = late
    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "put", refuse)
        with pytest.raises(
            StoreError,
            match=r"the bucket refuses\. The training is complete on this machine",
        ):
            penstock.train(recipe, store=url)
        with pytest.raises(StoreError, match="the bucket refuses"):
            penstock.train(recipe, store=url)
    store = Store(url)
    (id,) = [name.split("/")[1] for name in store.folders("runs")]
    assert not store.has(f"runs/{id}")
    monkeypatch.setattr(
        importlib.import_module("penstock.train.supervisor"),
        "train",
        lambda *_, **__: pytest.fail("it was trained anew"),
    )
    if again == "train":
        penstock.train(recipe, store=url)
    else:
        assert penstock.resume(id, store=url).bundle is not None
        with pytest.raises(UserError, match="nothing is left to resume"):
            penstock.resume(id, store=url)
    assert store.has(f"runs/{id}") and store.folders("runs") == [f"runs/{id}"]


def test_a_bucket_that_refuses_does_not_hide_how_a_training_ended(late, monkeypatch):
    recipe, url, refuse = late

    def stopped(*_, **__):
        raise Interrupted("stopped after step 3")

    monkeypatch.setattr(
        importlib.import_module("penstock.train.supervisor"), "train", stopped
    )
    monkeypatch.setattr(Bucket, "put", refuse)
    said = []
    with pytest.raises(Interrupted, match="stopped after step 3"):
        penstock.train(recipe, store=url, events=Events(said.append))
    assert any(
        "the bucket refuses" in event.fields["text"]
        for event in said
        if event.name == "warned"
    )
