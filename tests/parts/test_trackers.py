"""TensorBoard shows what was measured."""

import importlib.util

import pytest

from penstock.contracts.learn import Tracker
from penstock.core.errors import MissingPackage
from penstock.core.events import Events
from penstock.testing.laws import trackers as laws


def test_measured_numbers_become_event_files_at_once(tmp_path):
    events = Events(Tracker.load("tensorboard").sink(tmp_path))
    events.emit(
        "measured",
        step=1,
        epoch=1,
        loss=0.5,
        is_best=True,
        word="x",
        nothing=None,
        **{"validation.y.roc_auc": 0.75},
    )
    events.emit("measured", step=2, epoch=1, loss=float("nan"))
    events.emit("measured", loss=0.1)  # no step
    events.say("hello")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "validation/y/roc_auc"}
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(1, 0.5)]


def test_nothing_is_imported_or_written_before_the_first_number(tmp_path):
    Tracker.load("tensorboard").sink(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_absent_package_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=r"penstock\[train\].*trackers: \[\]"):
        Tracker.load("tensorboard").sink(tmp_path)


@pytest.mark.parametrize("type", Tracker.types())
@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
def test_laws(type, law):
    law(Tracker.load(type))
