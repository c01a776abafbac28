"""`train.budget`: fewer epochs where all would take longer, and the same ones when it is resumed."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.contracts.amounts import parse_seconds
from penstock.core.errors import PenstockError, RecipeError, StoreError
from penstock.pipeline.keys import train_key
from penstock.run import Run
from penstock.train import budget
from penstock.train.loop import Loop
from penstock.train.pace import Pace, fitted
from penstock.train.supervisor import train
from tests.train.tiny import Heard, tiny_feed, tiny_recipe, tiny_run, weights

AMOUNTS = st.floats(1e-3, 1e4)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10min", 600),
        ("1.5 hours", 5400),
        ("2d", 172_800),
        (7, 7),
        (0.5, 0.5),
    ],
)
def test_times_are_read_as_people_write_them(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["10", "ten minutes", "-3s", "10 mins", "0s", True, "9999999999999999h", 0]
)
def test_what_is_no_time_is_refused(tmp_path, text):
    with pytest.raises(RecipeError, match="budget"):
        tiny_recipe(tmp_path, budget=text)


@given(
    st.integers(1, 50),
    st.none() | st.integers(1, 500),
    AMOUNTS,
    AMOUNTS,
    AMOUNTS,
    st.integers(1, 100),
)
def test_what_is_planned_ends_within_the_budget_and_is_never_more_than_was_declared(
    epochs, most, seconds, training, judging, steps
):
    pace = fitted(
        epochs,
        most,
        budget=seconds,
        training_seconds=training,
        judging_seconds=judging,
        steps=steps,
    )
    assert 1 <= pace.epochs <= epochs
    assert (pace.max_steps or 1) >= 1
    taken = min(pace.epochs * steps, pace.max_steps or 10**9)
    took = taken / steps * training + math.ceil(taken / steps) * judging
    # One step and one judging there must be.
    assert took <= seconds or taken == 1
    if pace.epochs < epochs and most is None and pace.max_steps is None:
        # One more would not have fitted what is planned with.
        assert (pace.epochs + 1) * (training + judging) > 0.9 * seconds * (1 - 1e-9)
    assert Pace.of(json.loads(json.dumps(pace.to_dict()))) == pace


def slow_machine(monkeypatch, training, host="here"):
    """Training makes so many examples a second, and judging takes no time."""
    monkeypatch.setattr(budget, "speeds", lambda *_: (training, 1e12))
    monkeypatch.setattr(budget.socket, "gethostname", lambda: host)


def test_it_is_the_training_of_so_many_epochs_and_resumed_elsewhere_it_is_too(
    store, tmp_path, trained, monkeypatch
):
    slow_machine(monkeypatch, 100.0)
    three, _, _ = trained(epochs=3)
    fits, summary, heard = trained(epochs=9, budget="20s")
    assert summary["ended"] == "epochs" and summary["epochs"] == 3
    assert weights(fits) == weights(three)
    assert any(
        "3 of the declared 9 epochs fit into the budget of 20 s" in t
        for t in heard.texts()
    )
    assert fits.world()["chosen"]["budget"]["epochs"] == 3

    # Interrupted, and taken up by a machine where only one epoch would fit.
    recipe = tiny_recipe(tmp_path, epochs=9, budget="20s")
    feed = tiny_feed(store, recipe)
    run = tiny_run(store, recipe, feed)
    judged = Loop._judge_epoch

    def stopped(self):
        judged(self)
        raise PenstockError("stopped here")

    monkeypatch.setattr(Loop, "_judge_epoch", stopped)
    with pytest.raises(PenstockError):
        train(recipe, feed, run, Heard().events)
    monkeypatch.setattr(Loop, "_judge_epoch", judged)
    slow_machine(monkeypatch, 30.0, host="elsewhere")
    heard = Heard()
    again = Run.open(store, reference=run.id)
    summary = train(recipe, feed, again, heard.events, resume=True)
    assert summary["epochs"] == 3 and weights(again) == weights(three)
    assert any("It goes on with the 3 epochs" in text for text in heard.texts())


def test_less_than_an_epoch_is_so_many_steps(trained, monkeypatch):
    slow_machine(monkeypatch, 100.0)
    _, summary, heard = trained(epochs=9, budget="2s")
    # 1.8 s of the 5 s that the 8 steps of 64 rows would take.
    assert (summary["ended"], summary["steps"]) == ("max_steps", 2)
    assert any("not one fits into the budget" in text for text in heard.texts())


def test_a_machine_that_became_slow_begins_no_epoch_that_ends_late(trained, monkeypatch):
    monkeypatch.setattr(Loop, "_elapsed", lambda self: 400.0 * self._state.epoch)
    _, summary, heard = trained(epochs=9, budget="10min")
    assert (summary["ended"], summary["epochs"]) == ("budget", 1)
    assert any("after the budget of 10 min" in text for text in heard.texts())


@pytest.mark.slow
def test_really_measured_on_two_processes(trained):
    run, summary, _ = trained(
        epochs=2, budget="10min", launcher={"type": "local", "processes": 2, "threads": 1}
    )
    assert (summary["epochs"], summary["processes"]) == (2, 2)
    assert 0 < run.world()["chosen"]["budget"]["epoch_seconds"] < 60


@pytest.mark.parametrize(
    "facts",
    [{}, [], 3, {"epochs": -1, "max_steps": None, "epoch_seconds": 1, "host": ""}],
)
def test_a_run_that_says_nonsense_of_it_is_refused(store, tmp_path, facts):
    recipe = tiny_recipe(tmp_path, epochs=9, budget="20s")
    feed = tiny_feed(store, recipe)
    run = tiny_run(store, recipe, feed)
    run.choose({"processes": 1, "threads": 1, "budget": facts or {"epochs": "x"}})
    with pytest.raises(StoreError, match=r"chosen\.budget"):
        train(recipe, feed, run, Heard().events, resume=True)


def test_without_the_word_keys_are_as_they_were(store, tmp_path):
    plain, timed = tiny_recipe(tmp_path), tiny_recipe(tmp_path, budget="1h")
    feed = tiny_feed(store, plain)
    assert "budget" in plain.to_dict()["train"]
    assert train_key(plain, feed) != train_key(timed, feed)
