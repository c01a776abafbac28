"""Texts, sets and sequences from raw files to answers over HTTP: thresholds decided, nothing skewed, padding
without effect.
"""

from __future__ import annotations

import csv
import json
import random
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import penstock
from penstock.bundle.bundle import Bundle
from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve.server import Serving

MOODS = {
    "joy": ["happy", "glad", "yay 😀"],
    "anger": ["furious", "mad", "grr"],
    "fear": ["scared", "afraid", "ünruhig"],
}
TAGS = {"the": "D", "cat": "N", "sat": "V", "dog": "N", "ran": "V", "a": "D", "zzz": "X"}
ODD = [
    {"text": None, "genres": None, "dna": None, "phrase": "the cat sat"},
    {"text": "", "genres": "", "dna": "", "phrase": ""},
    {
        "text": "😀 ünruhig e\u0301 日本語 " + "word " * 300,
        "genres": "rock,unheard of",
        "dna": "ACGTN" * 50,
        "phrase": "the " * 40,
    },
]


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    found = []
    for i in range(count):
        moods = [
            mood
            for mood, share in (("joy", 0.5), ("anger", 0.3), ("fear", 0.08))
            if chance.random() < share
        ]
        words = [chance.choice(MOODS[mood]) for mood in moods] + chance.choices(
            ["today", "it", "is", "what", f"n{i % 50}"], k=chance.randint(0, 12)
        )
        chance.shuffle(words)
        phrase = chance.choices(list(TAGS), k=chance.randint(1, 9))
        found.append(
            {
                "id": i,
                "text": " ".join(words),
                "genres": ",".join(
                    chance.sample(["rock", "pop", "jazz"], chance.randint(0, 2))
                ),
                "dna": "".join(chance.choices("ACGT", k=chance.randint(1, 12))),
                "phrase": " ".join(phrase),
                "moods": "|".join(moods),
                "tags": " ".join(TAGS[word] for word in phrase),
                "score": len(moods) + chance.gauss(0, 0.1),
            }
        )
    found[3]["tags"] = "D"  # too few labels for its steps
    found[3]["phrase"] = "the cat"
    return found


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Bundle]:
    folder = tmp_path_factory.mktemp("words")
    made = rows(900, 1)
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(made[0]))
        writer.writeheader()
        writer.writerows(made)
    (folder / "moods.txt").write_text("joy\nanger\nfear\n", "utf-8")
    recipe = {
        "name": "words",
        "seed": 3,
        "source": {"type": "files", "path": "rows.csv"},
        "trackers": [],
        "launcher": {"processes": 1, "threads": 1},
        "inputs": {
            "text": {"type": "text", "grams": {"characters": [3], "buckets": 512}},
            "genres": {"type": "set", "empty": "none"},
            "dna": {"type": "sequence", "unit": "characters"},
            "phrase": {"type": "sequence"},
        },
        "targets": {
            "moods": {
                "type": "set",
                "delimiter": "|",
                "empty": "none",
                "names": {"lines_of": "moods.txt"},
            },
            "tags": {"type": "sequence", "over": "phrase"},
            "score": "number",
        },
        "model": {
            "encoders": {
                "text": {"type": "textcnn", "embedding": 16, "channels": 8},
                "dna": {"type": "rnn", "cell": "gru", "embedding": 8, "hidden": 8},
                "phrase": {"type": "rnn", "embedding": 16, "hidden": 8},
                "genres": {"type": "bag", "width": 8},
            },
            "combiner": {"type": "mlp", "width": 32, "depth": 1},
        },
        "train": {"epochs": 12, "batch_size": 32, "lr": 5e-3},
        "evaluate": {"bootstrap": 20},
    }
    (folder / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    outcome = penstock.run(folder / "recipe.json").to_dict()
    return outcome, Bundle.open(outcome["bundle"], store=folder / "store")


def test_it_learns_and_every_row_is_accounted_for(journey: Any) -> None:
    outcome, bundle = journey
    found = outcome["metrics"]["test"]
    assert (
        found["moods"]["f1_macro"] > 0.8
        and found["moods"]["label_ranking_average_precision"] > 0.9
    )
    assert found["tags"]["accuracy"] > 0.9 and found["score"]["r2"] > 0.5
    assert outcome["baseline"]["moods"]["average_precision"] is not None
    low, high = outcome["intervals"]["tags"]["accuracy"]
    assert low <= found["tags"]["accuracy"] <= high
    assert (
        outcome["classical"]["models"]["moods"] == "TF-IDF and a linear model"
        and outcome["classical"]["moods"]["f1_macro"] > 0.5
    )
    assert (
        set(bundle.decision["moods"]["thresholds"]) == {"joy", "anger", "fear"}
        and "3 thresholds" in bundle.card
    )
    assert bundle.encoding.targets["moods"].to_dict()["names"] == ["joy", "anger", "fear"]


def test_a_row_with_too_few_labels_is_quarantined(journey: Any) -> None:
    (manifest,) = (
        json.loads(path.read_text("utf-8"))
        for path in (journey[1].path.parents[1] / "feeds").glob("*/manifest.json")
    )
    assert manifest["reasons"] == {"tags: has 1 labels for the 2 steps of 'phrase'": 1}


def test_http_answers_as_a_batch_does(journey: Any) -> None:
    """No skew, odd rows among them, in requests of many sizes."""
    bundle = journey[1]
    records: list[dict[str, Any]] = [
        {word: row[word] for word in ("text", "genres", "dna", "phrase")}
        for row in rows(200, 2)
    ] + ODD * 3
    random.Random(5).shuffle(records)
    expected = bundle.predict(records)
    assert any(len(row["moods"]) > 1 for row in expected) and {
        mood for row in expected for mood in row["moods"]
    } == set(MOODS)
    with Serving(bundle, Serve(port=0), Events()) as server:
        found: list[dict[str, Any]] = []
        start, size = 0, 1
        while start < len(records):
            body = json.dumps({"records": records[start : start + size]}).encode()
            with urllib.request.urlopen(
                urllib.request.Request(f"{server.url}/predict", data=body), timeout=60
            ) as response:
                found += json.load(response)["predictions"]
            start, size = start + size, size * 5 % 41 + 1
        request = urllib.request.Request(
            f"{server.url}/predict",
            data=b'{"records": [{"text": "\\ud83d", "genres": null, "dna": null, "phrase": "a"}]}',
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60)
        with refused.value:
            assert refused.value.code in (400, 422), refused.value.read()
    for one, other in zip(found, expected, strict=True):
        assert (
            one["moods"] == other["moods"]
            and one["tags"] == other["tags"]
            and len(one["tags"]) == len(one["tags_probabilities"])
        )
        assert one["moods_probabilities"] == pytest.approx(
            other["moods_probabilities"], abs=1e-5
        )
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)


def test_a_row_is_answered_alone_as_beside_long_ones(journey: Any) -> None:
    """Padding has no effect: model outputs within 1e-5, or so much of a value above 1, whatever else is in
    the batch.
    """
    predictor = journey[1].predictor()
    table = pa.Table.from_pylist(
        [
            {word: row[word] for word in ("text", "genres", "dna", "phrase")}
            for row in rows(40, 4)
        ]
        + ODD
    )
    together = predictor.answers(table, rows="raw")
    for row in range(table.num_rows):
        alone = predictor.answers(table.slice(row, 1), rows="raw")
        for name, values in alone.items():
            beside = together[name][row : row + 1]
            if values.ndim == 3:
                assert not beside[:, values.shape[1] :].any()
                beside = beside[:, : values.shape[1]]
            np.testing.assert_allclose(values, beside, rtol=1e-5, atol=1e-5)
    assert [len(row["tags"]) for row in journey[1].predict(table.to_pylist()[:40])] == [
        len(text.split()) for text in table["phrase"].to_pylist()[:40]
    ]
