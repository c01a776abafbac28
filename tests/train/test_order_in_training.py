"""`train.order` really acts in training: other rows, other steps, and it is gone on with exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from penstock.core.events import Event, Events
from penstock.core.store import Store
from penstock.pipeline.keys import train_key
from penstock.run import Run
from penstock.train.supervisor import train
from tests.loader.flat import open_loader
from tests.train.tiny import tiny_feed, tiny_recipe

torch.set_num_threads(1)


def trained(
    folder: Path, *, rows: int = 300, holes: list[int] | None = None, **words: Any
) -> tuple[dict[str, Any], list[Event]]:
    recipe = tiny_recipe(folder, **{"epochs": 2, **words})
    store = Store(folder / "store")
    feed = tiny_feed(store, recipe, rows=rows)
    if holes is not None:
        file = feed.path / "manifest.json"
        file.write_text(
            json.dumps({**json.loads(file.read_text()), "holes": {"train": holes}})
        )
    seen: list[Event] = []
    run = Run.create(store, recipe=recipe, dataset=feed.dataset, feed=feed.id, key="k")
    return train(recipe, feed, run, Events(seen.append)), seen


@pytest.mark.parametrize(
    ("order", "steps"),
    [
        ("stored", 5),
        ("blocks", 5),
        ({"last": "drop"}, 4),
        ({"last": "wrap"}, 5),
        ({"fraction": 0.25}, 2),
        ({"balance": "y"}, 5),
        ({"replacement": True, "epoch_rows": 640}, 10),
    ],
)
def test_an_order_decides_the_steps_and_the_weights(
    tmp_path: Path, order: Any, steps: int
) -> None:
    plain, _ = trained(tmp_path / "plain")
    other, events = trained(tmp_path / "other", order=order)
    assert other["steps"] == 2 * steps and plain["steps"] == 10
    assert other["train_loss"] != plain["train_loss"]
    if order != "stored":
        said = next(
            e.fields["text"]
            for e in events
            if e.name == "said" and "parameters on" in e.fields["text"]
        )
        assert f"{2 * steps} steps" in said


def test_rows_that_were_taken_out_are_not_trained_on(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole")
    less, _ = trained(tmp_path / "less", holes=list(range(0, 300, 3)))
    assert less["steps"] == whole["steps"] and less["train_loss"] != whole["train_loss"]
    nobody, _ = trained(tmp_path / "nobody", order="stored", holes=list(range(64, 128)))
    assert (
        nobody["steps"] == whole["steps"] and nobody["train_loss"] == nobody["train_loss"]
    )


def test_an_order_enters_the_key_of_a_training_and_the_usual_one_does_not(
    tmp_path: Path,
) -> None:
    recipe = tiny_recipe(tmp_path)
    feed = tiny_feed(Store(tmp_path / "store"), recipe)
    usual = train_key(recipe, feed)
    assert usual == train_key(tiny_recipe(tmp_path, order="auto"), feed)
    assert (
        usual
        == train_key(recipe, feed)
        != train_key(tiny_recipe(tmp_path, order="stored"), feed)
    )


def test_a_state_from_before_there_were_words_still_loads(tmp_path: Path) -> None:
    feed = tiny_feed(Store(tmp_path / "store"), tiny_recipe(tmp_path))
    loader = open_loader(feed, batch_size=64, seed=3)
    old = {
        "epoch": 1,
        "position": 2,
        "feed": feed.id,
        "split": "train",
        "rows": 500,
        "batch_size": 64,
        "seed": 3,
        "shuffle": True,
    }
    loader.load_state_dict(old)
    assert (loader.epoch, loader.position) == (1, 2)
