"""Training killed, stopped and resumed: the same weights as if nothing had happened."""

import os
import signal
import time

import pytest
import torch

from penstock.core.errors import Interrupted, StoreError, UserError
from penstock.core.interrupts import interrupts
from penstock.run import Run
from penstock.train.checkpoint import Checkpoint, read_tensors
from penstock.train.learner import Learner
from penstock.train.supervisor import train
from tests.parts.test_launchers import launched
from tests.train.tiny import (
    NO_CHANCE,
    TWO,
    Heard,
    tiny_feed,
    tiny_recipe,
    tiny_run,
    weights,
)


def start_slowly(store, tmp_path, **words):
    """Train in a process of its own (a fork, which is there at once), 50 ms a step; it ends with the error's
    exit code.
    """
    recipe = tiny_recipe(tmp_path, **words)
    feed = tiny_feed(store, recipe)
    run = tiny_run(store, recipe, feed)
    run.record({"status": "interrupted"})  # free for another process to take
    pid = os.fork()
    if pid:
        return recipe, feed, run, pid
    code = 1
    try:
        step = Learner.step

        def slowly(self, batch, **words):
            time.sleep(0.05)
            return step(self, batch, **words)

        Learner.step = slowly
        train(recipe, feed, run, Heard().events)
    except Interrupted as error:
        run.record({"status": "interrupted", "error": str(error)})
        code = error.exit_code
    finally:
        os._exit(code)


def await_checkpoint(run, name, pid):
    until = time.monotonic() + 60
    while not any(path.name >= name for path in run.checkpoints.glob("step-*")):
        assert time.monotonic() < until
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it ended by itself"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("every", "words"),
    [(60.0, {}), (0.12, {"ema": 0.9, "accumulate": 2, "precision": "fp16"})],
    ids=["at an epoch's end", "within an epoch"],
)
def test_killed_and_resumed_is_as_if_nothing_had_happened(
    store, tmp_path, trained, every, words
):
    whole, first, _ = trained(**words)
    recipe, feed, run, pid = start_slowly(
        store, tmp_path, checkpoint={"every_seconds": every, "keep": 2}, **words
    )
    await_checkpoint(run, "step-0000000008" if every == 60.0 else "step-0000000009", pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert Run.open(store, reference=run.id).status == "interrupted"
    again, heard = Run.open(store, reference=run.id), Heard()
    second = train(recipe, feed, again, heard.events, resume=True)
    went_on = int(heard.texts()[0].split("step-")[1])
    assert (went_on % 8 == 0) == (every == 60.0)
    assert weights(again) == weights(whole)
    assert {
        w: second[w]
        for w in (
            "steps",
            "epochs",
            "best_epoch",
            "validation",
            "validation_loss",
            "train_loss",
        )
    } == {
        w: first[w]
        for w in (
            "steps",
            "epochs",
            "best_epoch",
            "validation",
            "validation_loss",
            "train_loss",
        )
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(store, tmp_path, trained, number):
    whole, _, _ = trained()
    recipe, feed, run, pid = start_slowly(store, tmp_path)
    await_checkpoint(run, "step-0000000008", pid)
    os.kill(pid, number)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert (
        f"A checkpoint is saved; resume with: penstock resume {run.id}"
        in Run.open(store, reference=run.id).facts()["error"]
    )
    train(recipe, feed, Run.open(store, reference=run.id), Heard().events, resume=True)
    assert weights(run) == weights(whole)


def interrupt_after(steps, monkeypatch):
    """What a Ctrl-C causes, after so many steps; no signal is sent to the process of the tests."""
    step = Learner.step

    def counted(self, batch, **words):
        done = step(self, batch, **words)
        if words["step"] + 1 == steps:
            interrupts.receive(signal.SIGINT)
        return done

    monkeypatch.setattr(Learner, "step", counted)


@pytest.mark.parametrize("steps", [1, 7, 8, 15, 23, 24])
def test_stopped_anywhere_and_resumed(trained, monkeypatch, steps):
    whole, _, _ = trained()
    recipe = whole.recipe()
    feed = tiny_feed(whole.store, recipe)
    run = tiny_run(whole.store, recipe, feed)
    with monkeypatch.context() as patched:
        interrupt_after(steps, patched)
        with pytest.raises(Interrupted, match="penstock resume"):
            train(recipe, feed, run, Heard().events)
    summary = train(
        recipe, feed, Run.open(run.store, reference=run.id), Heard().events, resume=True
    )
    assert summary["steps"] == 24
    assert weights(run) == weights(whole)


def test_resumed_on_another_number_of_processes_takes_the_same_way(
    trained, monkeypatch, tmp_path
):
    whole, _, _ = trained(**NO_CHANCE)
    recipe = tiny_recipe(tmp_path, **NO_CHANCE)
    feed = tiny_feed(whole.store, recipe)
    run = tiny_run(whole.store, recipe, feed)
    with monkeypatch.context() as patched:
        interrupt_after(10, patched)
        with pytest.raises(Interrupted):
            train(recipe, feed, run, Heard().events)
    heard = Heard()
    train(
        tiny_recipe(tmp_path, launcher=TWO, **NO_CHANCE),
        feed,
        run,
        heard.events,
        resume=True,
    )
    assert any(
        "instead of 1 process × 1 thread" in text for text in heard.texts("warned")
    )
    for name, tensor in read_tensors(whole.weights).items():
        torch.testing.assert_close(
            read_tensors(run.weights)[name], tensor, rtol=1e-4, atol=1e-6
        )


def test_a_wish_to_stop_ends_all_processes_after_a_checkpoint(store, tmp_path):
    recipe = tiny_recipe(tmp_path, launcher=TWO, epochs=5000)
    feed = tiny_feed(store, recipe)
    run = tiny_run(store, recipe, feed)
    heard = Heard()
    pressed = []

    def press(event):  # told twice where an epoch ends at that step
        if event.name == "measured" and event.fields["step"] == 8 and not pressed:
            pressed.append(event)
            interrupts.receive(signal.SIGINT)

    heard.events.attach(press)
    with pytest.raises(Interrupted, match="A checkpoint is saved"):
        train(recipe, feed, run, heard.events)
    assert Checkpoint.read(max(run.checkpoints.glob("step-*"))).state["processes"] == 2
    assert not launched()


def test_a_finished_run_is_not_resumed(trained):
    run, summary, _ = trained()
    run.finish(summary)
    with pytest.raises(UserError, match="is finished"):
        trained(run=run, resume=True)


def test_resume_without_a_checkpoint_starts_anew_aloud(trained):
    whole, _, _ = trained()
    recipe = whole.recipe()
    feed = tiny_feed(whole.store, recipe)
    run, heard = tiny_run(whole.store, recipe, feed), Heard()
    train(recipe, feed, run, heard.events, resume=True)
    assert "no checkpoint" in heard.texts()[0]
    assert weights(run) == weights(whole)


def test_lost_best_weights_are_said_and_others_taken(store, tmp_path, monkeypatch):
    recipe = tiny_recipe(tmp_path, epochs=4)
    feed = tiny_feed(store, recipe)
    run, heard = tiny_run(store, recipe, feed), Heard()
    with monkeypatch.context() as patched:
        interrupt_after(20, patched)
        with pytest.raises(Interrupted):
            train(recipe, feed, run, heard.events)
    best = (
        max(run.checkpoints.glob("step-*")).parent
        / f"step-{Checkpoint.read(max(run.checkpoints.glob('step-*'))).state['place']['best_step']:010d}"
    )
    (best / "model.safetensors").write_bytes(b"")
    heard = Heard()
    summary = train(recipe, feed, run, heard.events, resume=True)
    assert any("The best weights so far" in text for text in heard.texts("warned"))
    assert summary["best_epoch"] > 2


def test_a_checkpoint_of_another_model_is_a_sentence(store, tmp_path, monkeypatch):
    recipe = tiny_recipe(tmp_path)
    feed = tiny_feed(store, recipe)
    run = tiny_run(store, recipe, feed)
    with monkeypatch.context() as patched:
        interrupt_after(3, patched)
        with pytest.raises(Interrupted):
            train(recipe, feed, run, Heard().events)
    other = tiny_recipe(
        tmp_path, model={"combiner": {"type": "mlp", "width": 8, "depth": 2}}
    )
    with pytest.raises(StoreError, match=r"another model.*world"):
        train(other, feed, run, Heard().events, resume=True)
    with pytest.raises(UserError, match="batch_size was 64 and is 32"):
        train(
            tiny_recipe(tmp_path, batch_size=32), feed, run, Heard().events, resume=True
        )
