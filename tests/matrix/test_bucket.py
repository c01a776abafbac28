"""A run whose store is a bucket: one that refuses for a while, and a machine that is gone for ever."""

from __future__ import annotations

import threading
import time

import pytest

from penstock.core.identity import sha256_file
from penstock.core.store import Store
from penstock.encode.feed import Feed
from penstock.run import Run
from penstock.train import checkpoint_uploader
from penstock.train.learner import Learner
from penstock.train.supervisor import train
from tests.faults import faulty_s3
from tests.train.tiny import Heard, tiny_feed, tiny_recipe, tiny_run


@pytest.fixture
def line(monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint_uploader, "_FIRST_WAIT", 0.1)
    with faulty_s3(monkeypatch, tmp_path, attempts=2) as line:
        yield line


def recipe_in(folder):
    return tiny_recipe(folder, checkpoint={"every_steps": 3, "keep": 2})


def weights_without(folder):
    store = Store(folder / "local")
    feed = tiny_feed(store, recipe_in(folder))
    run = tiny_run(store, recipe_in(folder), feed)
    train(recipe_in(folder), feed, run, Heard().events)
    return sha256_file(run.weights)


def slowly(monkeypatch, seconds, *, until=None):
    step = Learner.step

    def slow(self, batch, **words):
        time.sleep(seconds)
        if until is not None and words["step"] == until:
            raise ZeroDivisionError("the machine is gone")
        return step(self, batch, **words)

    monkeypatch.setattr(Learner, "step", slow)


@pytest.mark.faults
def test_a_bucket_that_refuses_for_a_while(line, tmp_path, monkeypatch):
    whole = weights_without(tmp_path)
    recipe, store = recipe_in(tmp_path), Store(line.store)
    feed = tiny_feed(store, recipe)
    run, heard = tiny_run(store, recipe, feed), Heard()
    line.fault("refuse", on="PUT", match="checkpoints", times=10_000)

    def mend(event):
        if event.name == "warned" and "do not reach the bucket" in event.fields["text"]:
            line.mend()

    heard.events.attach(mend)
    slowly(monkeypatch, 0.1)
    summary = train(recipe, feed, run, heard.events)
    assert (
        len(
            [
                text
                for text in heard.texts("warned")
                if "do not reach the bucket, and are kept here until they do" in text
            ]
        )
        == 1
    )
    assert any("the bucket takes checkpoints again" in text for text in heard.texts())
    run.finish(summary)
    assert sha256_file(run.weights) == whole
    line.mend()
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "another machine"))
    there = Run.open(Store(line.store), reference=run.id)
    assert there.status == "done"
    assert sha256_file(there.verified()) == whole


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [10, pytest.param(60, marks=pytest.mark.long)])
def test_a_bucket_that_refuses_for_long(seconds, line, tmp_path, monkeypatch):
    """Neither what is read nor what is written gets through for ten seconds, or for a whole minute, with the
    patience that users have.
    """
    recipe = tiny_recipe(
        tmp_path,
        checkpoint={"every_steps": 3, "keep": 2},
        order={"shuffle": "blocks", "window": 1},
    )
    local, bucket = Store(tmp_path / "local"), Store(line.store)
    near = tiny_feed(local, recipe, shard_rows=64)
    whole = tiny_run(local, recipe, near)
    train(recipe, near, whole, Heard().events)
    id = tiny_feed(bucket, recipe, shard_rows=64).id
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "another machine"))
    for word in ("ATTEMPTS", "SECONDS"):
        monkeypatch.delenv(f"PENSTOCK_REMOTE_{word}")
    monkeypatch.setattr("penstock.core.retries._jitter.random", lambda: 0.5)
    store = Store(line.store)
    feed = Feed.open(store, id=id)
    run, heard = tiny_run(store, recipe, feed), Heard()
    line.fault("refuse", on="GET", match="train-00005", times=10_000)
    line.fault("refuse", on="PUT", match="checkpoints", times=10_000)
    began: list[float] = []

    def mend(event):
        if event.name == "warned" and "train-00005" in event.fields["text"] and not began:
            began.append(time.monotonic())
            threading.Timer(seconds, line.mend).start()

    heard.events.attach(mend)
    summary = train(recipe, feed, run, heard.events)
    assert time.monotonic() - began[0] > seconds
    assert any(
        "could not read" in text and "train-00005" in text and "trying again" in text
        for text in heard.texts("warned")
    )
    run.finish(summary)
    assert sha256_file(run.weights) == sha256_file(whole.weights)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "a third machine"))
    assert sha256_file(
        Run.open(Store(line.store), reference=run.id).verified()
    ) == sha256_file(whole.weights)


@pytest.mark.faults
def test_a_machine_that_is_gone_for_ever(line, tmp_path, monkeypatch):
    whole = weights_without(tmp_path)
    recipe, store = recipe_in(tmp_path), Store(line.store)
    feed = tiny_feed(store, recipe)
    run = tiny_run(store, recipe, feed)
    with monkeypatch.context() as patched:
        slowly(patched, 0.05, until=17)
        with pytest.raises(Exception, match="the machine is gone"):
            train(recipe, feed, run, Heard().events)
    kept = {
        name.split("/")[-2]
        for _, name in line.asked
        if "checkpoints/step-" in name and name.endswith("manifest.json")
    }
    assert kept
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "another machine"))
    store = Store(line.store)
    again = Run.open(store, reference=run.id)
    again.record({"status": "interrupted"})
    heard = Heard()
    train(
        again.recipe(), Feed.open(store, id=again.feed), again, heard.events, resume=True
    )
    assert any("Continuing from step-00000000" in text for text in heard.texts())
    assert sha256_file(again.weights) == whole
    left = {path.name for path in again.checkpoints.glob("step-*")}
    assert len(left) <= 3
