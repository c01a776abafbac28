"""A store and a tiny training, for tests of trainings whole."""

from __future__ import annotations

import pytest

from penstock.core.store import Store
from penstock.train.supervisor import train
from tests.train.tiny import Heard, tiny_feed, tiny_recipe, tiny_run


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def trained(store, tmp_path):
    """Train a tiny recipe; returns (run, summary, what was heard)."""

    def go(*, rows=500, validation=200, change=None, run=None, resume=False, **words):
        recipe = tiny_recipe(tmp_path, **words)
        feed = tiny_feed(store, recipe, rows=rows, validation=validation, change=change)
        run = run or tiny_run(store, recipe, feed)
        heard = Heard()
        return run, train(recipe, feed, run, heard.events, resume=resume), heard

    return go
