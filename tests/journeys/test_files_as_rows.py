"""A model that learnt from a folder of texts answers one text, a folder of them, and a later labelled one."""

from __future__ import annotations

import csv
import random

import pytest

import penstock
from penstock.cli import main

RECIPE = """
name: letters
seed: 1
source: {type: folder, path: letters}
inputs: {content: {type: text, length: 8}}
targets: {label: category}
split: {train: 0.6, validation: 0.2, test: 0.2}
train: {epochs: 3, batch_size: 16}
model: {combiner: {type: mlp, width: 8, depth: 1}}
evaluate: {bootstrap: 0}
launcher: {type: local, processes: 1, threads: 1}
"""

pytestmark = pytest.mark.slow


def write(folder, count, seed):
    chance = random.Random(seed)
    words = {"glad": ["sun", "joy", "song"], "sad": ["rain", "tear", "loss"]}
    for label, some in words.items():
        (folder / label).mkdir(parents=True)
        for i in range(count):
            text = " ".join(chance.choices([*some, "the", "a"], k=5))
            (folder / label / f"{i}.txt").write_text(text, "utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("letters")
    write(folder / "letters", 60, 1)
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    return folder


@pytest.fixture(scope="module")
def reference(folder):
    outcome = penstock.run(folder / "recipe.yaml", store=folder / "store")
    assert outcome.bundle is not None
    return outcome.bundle.reference


def test_one_text_is_answered_on_the_screen(folder, reference, tmp_path, capsys):
    (tmp_path / "new.txt").write_text("sun and song", "utf-8")
    argv = ["predict", reference, str(tmp_path / "new.txt")]
    assert main([*argv, "--store", str(folder / "store")]) == 0
    out = capsys.readouterr().out
    assert "new.txt" in out and "label_probabilities.glad" in out


def test_a_folder_is_answered_with_the_path_of_each_file(folder, reference, tmp_path):
    write(tmp_path / "more", 3, 2)
    found = penstock.predict(
        reference,
        source=tmp_path / "more",
        output=tmp_path / "answers.csv",
        store=folder / "store",
    )
    assert found.predicted == 6
    rows = list(csv.DictReader((tmp_path / "answers.csv").read_text().splitlines()))
    assert {row["path"] for row in rows} >= {"glad/0.txt", "sad/2.txt"}


def test_a_later_folder_is_measured(folder, reference, tmp_path):
    write(tmp_path / "later", 10, 3)
    (tmp_path / "later" / "angry").mkdir()
    (tmp_path / "later" / "angry" / "0.txt").write_text("no", "utf-8")
    report = penstock.evaluate(
        reference, source=tmp_path / "later", store=folder / "store"
    )
    assert (report["rows"], report["refused"], report["later"]["in"]) == (20, 1, 21)
    assert report["metrics"]["later"]["label"]["accuracy"] >= 0.5
