"""What verbs answer, and how nouns show themselves: short, and enough to know which one it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import api
from penstock.core.store import Store
from penstock.parts.features.number import Number
from penstock.pipeline.answers import Answer, Plan, Predictions, Report
from penstock.pipeline.outcome import Outcome

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "store-1"
NAMES: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text("utf-8"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    shutil.copytree(GOLDEN, tmp_path / "store")
    return Store(tmp_path / "store")


def test_an_answer_is_read_by_name_by_word_and_as_json() -> None:
    facts = {
        "metrics": {"y": {"rows": "many", "accuracy": 0.75, "loss": 0.5}},
        "path": "reports/a/report.md",
    }
    report = Report(facts)
    assert report["metrics"] is report.metrics and report == facts and {**report} == facts
    plain = report.to_dict()
    plain["metrics"]["y"]["loss"] = 9.0
    assert json.loads(json.dumps(report.to_dict())) == facts, "a copy changes nothing"
    assert repr(report) == "Report(y.accuracy=0.75, path='reports/a/report.md')"
    stages = [{"stage": "prepare", "done": True}, {"stage": "train", "done": False}]
    assert (
        repr(Plan({"name": "people", "stages": stages, "notes": []}))
        == "Plan('people', to_do=['train'])"
    )
    counts = {"rows": 5, "predicted": 3, "refused": 1, "unreadable": 1}
    predictions = Predictions({**counts, "output": "a.csv", "bundle": "bundle-0"})
    assert (
        repr(predictions)
        == "Predictions('a.csv', rows=5, predicted=3, refused=1, unreadable=1)"
    )
    assert {word: getattr(predictions, word) for word in counts} == counts
    assert repr(Answer({"a": 1, "b": 2})) == "Answer(a, b)"


def test_what_a_store_holds_is_described(store: Store) -> None:
    for reference in (NAMES["dataset"], NAMES["run"], NAMES["bundle"], NAMES["feed"]):
        shown = api.show(reference, store=store)
        assert shown.reference == reference and "path" in shown
        assert (
            repr(shown).startswith(f"Description({reference!r}, words=[")
            and len(repr(shown)) < 300
        )
        json.dumps(shown.to_dict())
    (listed,) = api.list_artefacts("datasets", store=store)
    assert listed.reference == NAMES["dataset"] and json.dumps(listed.to_dict())


def test_nouns_show_which_one_they_are(store: Store) -> None:
    dataset = penstock.Dataset.open(store, reference=NAMES["dataset"])
    feed = penstock.Feed.open(store, id=NAMES["feed"])
    run = penstock.Run.open(store, reference=NAMES["run"])
    loader = penstock.Loader(feed, batch_size=16, shuffle=False)
    bundle = penstock.Bundle.open(NAMES["bundle"], store=store, trust=False, replay=False)
    recipe = penstock.Recipe.load(
        {
            "source": {"type": "files", "path": "a.csv"},
            "inputs": {"age": "number"},
            "targets": {"y": "binary"},
        }
    )
    shown = {
        repr(dataset): NAMES["dataset"],
        repr(feed): NAMES["feed"],
        repr(run): NAMES["run"],
        repr(bundle): NAMES["bundle"],
        repr(
            loader
        ): f"Loader({NAMES['feed']!r}, split='train', batch_size=16, batches={len(loader)}",
        repr(store): str(store.folder),
        repr(
            Outcome(dataset=dataset, run=run)
        ): f"Outcome(Dataset({NAMES['dataset']!r}), Run(",
        repr(recipe): "inputs=['age'], targets=['y'])",
        repr(Number()): "Number()",
    }
    for text, part in shown.items():
        assert part in text and len(text) < 300, text
