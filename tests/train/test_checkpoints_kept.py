"""Keeping: spacing, snapshots, rankings, threads that write, pulses, troubles made plain."""

import itertools
import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from penstock.contracts.learn import World
from penstock.core import heartbeat as pulse_file
from penstock.core.errors import RankLost, RecipeError, StoreError, TrainingError
from penstock.core.heartbeat import Heartbeat, Reading, prepare, read
from penstock.recipe.schema import CheckpointPolicy
from penstock.train import checkpoint as checkpoint_file
from penstock.train.checkpoint import Snapshot, write_tensors
from penstock.train.checkpoint_manager import (
    LEAST_SECONDS,
    MOST_SECONDS,
    OVERHEAD,
    Spacing,
)
from penstock.train.errors import explain
from penstock.train.nonfinite import MOST_IN_ROW, NotFinite, leave_out
from penstock.train.state import TrainState, ranked
from penstock.train.supervisor import train
from tests.train.tiny import Heard, tiny_feed, tiny_recipe, tiny_run

# -- when ----------------------------------------------------------------------------------------------------


@given(
    pause=st.floats(0, 1000), steps=st.lists(st.floats(0.01, 50), min_size=5, max_size=60)
)
@settings(deadline=None)
def test_pauses_stay_under_their_share(pause, steps):
    spacing, now, taken = Spacing(CheckpointPolicy(), now=0.0, step=0), 0.0, 0
    at = [0.0]
    for step, seconds in enumerate(steps):
        now += seconds
        if spacing.is_due(now=now, step=step):
            now += pause
            spacing.note(now=now, step=step, pause=pause)
            taken += 1
            at.append(now)
    assert spacing.seconds == pytest.approx(
        min(max(spacing._pause / OVERHEAD, LEAST_SECONDS), MOST_SECONDS)
    )
    assert all(
        later - earlier >= LEAST_SECONDS for earlier, later in itertools.pairwise(at)
    )
    if (
        pause < MOST_SECONDS * OVERHEAD and taken > 1
    ):  # the first one's price is not known before
        assert (taken - 1) * pause <= OVERHEAD * now + 1e-6


@given(every=st.integers(1, 9), steps=st.integers(1, 60))
@settings(deadline=None)
def test_by_steps_alone(every, steps):
    spacing, found = Spacing(CheckpointPolicy(every_steps=every), now=0.0, step=0), []
    for step in range(1, steps + 1):
        if spacing.is_due(now=1e9 * step, step=step):
            spacing.note(now=1e9 * step, step=step, pause=5.0)
            found.append(step)
    assert found == list(range(every, steps + 1, every))
    assert spacing.seconds is None
    assert not spacing.is_dear(now=1e12)


def test_by_steps_and_seconds_whichever_comes_first():
    spacing = Spacing(CheckpointPolicy(every_steps=10, every_seconds=5), now=0.0, step=0)
    assert spacing.is_due(now=5.0, step=1)
    assert spacing.is_due(now=0.1, step=10)
    assert not spacing.is_due(now=4.9, step=9)


def test_ends_of_short_epochs_are_spared_when_they_cost_too_much():
    spacing = Spacing(CheckpointPolicy(), now=0.0, step=0)
    spacing.note(now=5.0, step=1, pause=0.3)
    assert not spacing.is_dear(now=9.0)  # nobody minds yet
    assert spacing.is_dear(now=11.0)
    assert not spacing.is_dear(now=16.0)


def test_the_best_are_ranked():
    place = TrainState()
    for step, value in enumerate((0.5, 0.9, float("nan"), 0.7, None, 0.9), 1):
        place.step = step
        place.ranking = ranked(place, value, higher=True, keep=3)
    assert place.ranking == [[0.9, 2], [0.9, 6], [0.7, 4]]
    place.step = 7
    assert ranked(place, 0.1, higher=False, keep=1) == [[0.1, 7]]


# -- copying and writing -------------------------------------------------------------------------------------


def test_a_snapshot_keeps_its_memory_and_is_not_moved_by_training():
    snapshot, weights = Snapshot(), {"w": torch.arange(4.0), "n": torch.tensor(3)}
    first = snapshot.take({"m": weights})
    weights["w"].add_(1)
    assert first["m"]["w"].tolist() == [0, 1, 2, 3]
    second = snapshot.take({"m": weights, "o": {"s": torch.zeros(2)}})
    assert second["m"]["w"].data_ptr() == first["m"]["w"].data_ptr()
    assert second["m"]["w"].tolist() == [1, 2, 3, 4]
    third = snapshot.take({"m": {"w": torch.zeros(7)}})
    assert third["m"]["w"].shape == (7,)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(map(str, checkpoint_file._TYPES))),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        max_size=6,
    )
)
@settings(deadline=None, max_examples=40)
def test_whatever_is_written_is_read_back(tmp_path_factory, declared):
    path = tmp_path_factory.mktemp("w") / "w.safetensors"
    types = {str(t): t for t in checkpoint_file._TYPES}
    tensors = {
        f"t{i}": torch.randint(0, 2, shape).to(types[word])
        for i, (word, shape) in enumerate(declared)
    }
    entry = write_tensors(path, tensors)
    found = load_file(path)
    assert entry["size_bytes"] == path.stat().st_size
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()
    }
    assert all(
        torch.equal(found[name].to(torch.complex64), tensor.to(torch.complex64))
        for name, tensor in tensors.items()
    )


@pytest.fixture
def one(tmp_path):
    from penstock.core.store import Store

    def go(**words):
        recipe = tiny_recipe(tmp_path, **words)
        store = Store(tmp_path / "store")
        feed = tiny_feed(store, recipe)
        run, heard = tiny_run(store, recipe, feed), Heard()
        return run, train(recipe, feed, run, heard.events), heard

    return go


def test_in_a_thread_or_at_once_the_same_is_kept(one):
    (first, summary, heard), (second, _, _) = (
        one(checkpoint={"every_steps": 3, "keep": 9, "background": word})
        for word in (True, False)
    )
    assert sorted(p.name for p in first.checkpoints.iterdir()) == sorted(
        p.name for p in second.checkpoints.iterdir()
    )
    for name in ("step-0000000003", "step-0000000024"):
        for file in ("model.safetensors", "optimiser.safetensors"):
            assert (first.checkpoints / name / file).read_bytes() == (
                second.checkpoints / name / file
            ).read_bytes()
    assert summary["checkpoints"]["count"] == 9  # 3 6 8 11 14 16 19 22 24
    assert summary["checkpoints"]["write_seconds"] > 0
    assert (
        len([f for f in heard.fields("measured") if "checkpoint_pause_seconds" in f]) == 9
    )


def test_the_best_epochs_are_kept(one):
    run, _, heard = one(
        epochs=6, lr=0.3, schedule="constant", checkpoint={"keep": 1, "keep_best": 3}
    )
    values = {
        f["step"]: f["validation_loss"]
        for f in heard.fields("measured")
        if "validation_loss" in f
    }
    best = sorted(values, key=lambda step: values[step])[:3]
    assert {int(path.name[5:]) for path in run.checkpoints.glob("step-*")} == {
        *best,
        max(values),
    }


def test_the_loop_does_not_wait_for_a_slow_disk(one, monkeypatch):
    write, names = checkpoint_file.write_tensors, []

    def slowly(path, tensors):
        names.append(threading.current_thread().name)
        time.sleep(0.02)
        return write(path, tensors)

    monkeypatch.setattr(checkpoint_file, "write_tensors", slowly)
    _, summary, _ = one(epochs=1, checkpoint={"every_seconds": 1e-3})
    assert "penstock-checkpoint" in names
    assert summary["steps"] == 8
    assert 1 <= summary["checkpoints"]["count"] <= 8


def test_a_defect_in_the_thread_is_not_swallowed(one, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(checkpoint_file, "write_tensors", broken)
    with pytest.raises((ZeroDivisionError, TrainingError), match="a defect"):
        one()


# -- pulses --------------------------------------------------------------------------------------------------


def test_a_pulse_is_read_as_it_is_written(tmp_path, monkeypatch):
    path = tmp_path / "pulse"
    prepare(path)
    assert read(path) == Reading()
    heartbeat = Heartbeat(str(path))
    heartbeat.progress()
    heartbeat.progress(7)
    assert (read(path).moves, read(path).step) == (2, 7)
    monkeypatch.setattr(pulse_file, "BEAT_SECONDS", 0.005)
    heartbeat.start()
    until = time.monotonic() + 5
    while read(path).beats < 3:
        assert time.monotonic() < until
        time.sleep(0.005)
    heartbeat._map = None  # the thread ends
    assert read(tmp_path / "none") == Reading()
    Heartbeat(None).start().progress(3)  # nobody looks


# -- troubles ------------------------------------------------------------------------------------------------


def raised(function):
    try:
        function()
    except Exception as error:  # noqa: BLE001 - what is judged
        return error
    raise AssertionError


def test_an_error_of_ours_stays_as_it_is(tmp_path):
    recipe = tiny_recipe(tmp_path)
    for error in (RecipeError("no", ()), StoreError("no"), KeyboardInterrupt()):
        assert explain(error, recipe, World(), 32) is error


def test_the_users_line_is_named(tmp_path):
    def of_mine():
        return torch.zeros(2) @ torch.zeros(3)

    found = explain(raised(of_mine), tiny_recipe(tmp_path), World(rank=1, size=2), 32)
    assert isinstance(found, TrainingError)
    assert "test_checkpoints_kept.py:" in str(found)
    assert "in of_mine in training process 1" in str(found)
    assert "return torch.zeros(2) @ torch.zeros(3)" in str(found)
    assert "Traceback" in found.traceback


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(1 << 58),
        lambda: (_ for _ in ()).throw(MemoryError()),
        lambda: (_ for _ in ()).throw(
            torch.OutOfMemoryError("CUDA out of memory. Tried")
        ),
    ],
)
def test_memory_that_is_out_names_what_to_try(make, tmp_path):
    text = str(
        explain(
            raised(make), tiny_recipe(tmp_path, accumulate=2), World(rank=0, size=2), 64
        )
    )
    assert "batches of 64 rows over 2 processes in 2 pieces" in text
    assert "train.accumulate: 4" in text and "activation_checkpointing" in text


def test_a_vanished_peer_is_somebody_elses_end(tmp_path):
    code = compile(
        "raise RuntimeError('[pair.cc:534] Connection closed by peer [127.0.0.1]:1')",
        "/x/torch/distributed/distributed_c10d.py",
        "exec",
    )
    error = raised(lambda: exec(code))
    assert isinstance(
        explain(error, tiny_recipe(tmp_path), World(rank=0, size=2), 64), RankLost
    )
    assert not isinstance(explain(error, tiny_recipe(tmp_path), World(), 64), RankLost)


def test_batches_that_are_left_out_have_a_bound(tmp_path):
    heard, place = Heard(), TrainState()
    recipe = tiny_recipe(tmp_path, on_nan="skip")
    for step in range(MOST_IN_ROW):
        leave_out(
            NotFinite("no", step=step, culprits=("a",), batch=("a", "b")),
            place,
            recipe,
            heard.events,
        )
    assert place.left_out == list(range(MOST_IN_ROW))
    assert heard.fields("nan")[0]["rows"] == ["a"]
    with pytest.raises(NotFinite, match="10 batches in a row"):
        leave_out(NotFinite("no", step=10), place, recipe, heard.events)
    with pytest.raises(NotFinite, match="no"):
        leave_out(
            NotFinite("no", step=1), TrainState(), tiny_recipe(tmp_path), heard.events
        )
