"""What an older Penstock wrote, this one reads: one artefact of each kind, kept from its first day."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from penstock.bundle.bundle import Bundle
from penstock.core.store import Artefact, Store
from penstock.encode.feed import Feed
from penstock.prepare.dataset import Dataset
from penstock.run import Run
from tests.loader.flat import open_loader

STORES = sorted(Path(__file__).parent.glob("store-*"))


@pytest.fixture(params=STORES, ids=lambda p: p.name)
def golden(request, tmp_path):
    """A copy: a test may not touch the original."""
    shutil.copytree(request.param, tmp_path / "store")
    return Store(tmp_path / "store"), json.loads(
        (request.param / "expected.json").read_text("utf-8")
    )


def test_there_is_one():
    assert STORES


def test_every_manifest_holds(golden):
    store, _ = golden
    manifests = list(store.folder.rglob("manifest.json"))
    assert {p.relative_to(store.folder).parts[0] for p in manifests} == {
        "datasets",
        "feeds",
        "runs",
        "bundles",
        "reports",
    }
    for manifest in manifests:
        Artefact.open(manifest.parent, verify=True)


def test_a_dataset_is_read(golden):
    store, expected = golden
    dataset = Dataset.open(store, reference=expected["dataset"], verify=True)
    assert dataset.counts["in"] == expected["rows"]["in"]
    assert sum(
        dataset.table(split).num_rows for split in ("train", "validation", "test")
    ) == sum(expected["rows"][s] for s in ("train", "validation", "test"))


def test_a_feed_is_loaded(golden):
    store, expected = golden
    feed = Feed.open(store, id=expected["feed"])
    seen = sum(
        len(batch["weight"])
        for batch in open_loader(feed, "train", batch_size=16, numpy=True)
    )
    assert seen == expected["rows"]["train"]


def test_a_run_is_read(golden):
    store, expected = golden
    run = Run.open(store, reference=expected["run"])
    assert run.status == "done"
    assert run.recipe().name == "golden"


def test_a_bundle_answers_as_it_did(golden):
    store, expected = golden
    bundle = Bundle.open(expected["bundle"], store=store)
    answer = bundle.predict(expected["question"])
    assert answer["pay"] == expected["answer"]["pay"]
    for now, then in zip(
        answer["pay_probabilities"], expected["answer"]["pay_probabilities"], strict=True
    ):
        assert now == pytest.approx(then, abs=1e-5)
