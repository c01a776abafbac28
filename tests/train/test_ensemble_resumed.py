"""An ensemble that is killed goes on to the same weights, and may start from one network's."""

import os
import signal

import pytest
import torch

from penstock.nn.weights import read_tensors
from penstock.run import Run
from penstock.train.supervisor import train
from tests.train.test_resumed import await_checkpoint, start_slowly
from tests.train.tiny import NO_CHANCE, TWO, Heard, weights

MLP = {"type": "mlp", "width": 16, "depth": 2, "dropout": 0.1}


@pytest.mark.slow
@pytest.mark.parametrize("share", [False, True], ids=["separate", "shared"])
def test_killed_and_resumed_is_as_if_nothing_had_happened(
    store, tmp_path, trained, share
):
    model = {"combiner": MLP, "ensemble": {"members": 3, "share": share}}
    early_stop = {"metric": "y.roc_auc", "patience": 3}
    words = {"model": model, "early_stop": early_stop, "ema": 0.9}
    whole, first, _ = trained(**words)
    recipe, feed, run, pid = start_slowly(
        store, tmp_path, checkpoint={"every_seconds": 0.12, "keep": 2}, **words
    )
    await_checkpoint(run, "step-0000000009", pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    again = Run.open(store, reference=run.id)
    second = train(recipe, feed, again, Heard().events, resume=True)
    assert weights(again) == weights(whole)
    assert second["validation"] == first["validation"]


def test_every_member_starts_from_one_networks_weights(trained):
    first, summary, _ = trained(model={"combiner": MLP}, epochs=1)
    first.finish(summary)
    start = {"weights": first.id, "only": ["a", "b"]}
    run, _, heard = trained(
        **{
            "model": {"combiner": MLP, "ensemble": 2},
            "from": start,
            "freeze": ["a", "b"],
            "max_steps": 1,
        }
    )
    theirs, ours = read_tensors(first.weights), read_tensors(run.weights)
    frozen = [name for name in theirs if "piecewise" in name]
    assert frozen and set(ours) == {
        f"members.{i}.{name}" for i in (0, 1) for name in theirs
    }
    for name in frozen:
        for i in (0, 1):
            torch.testing.assert_close(
                ours[f"members.{i}.{name}"], theirs[name], rtol=0, atol=0
            )
    assert any("start from" in text for text in heard.texts())


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param("ddp", marks=pytest.mark.slow),
        pytest.param("fsdp", marks=pytest.mark.long),
    ],
)
def test_two_processes_train_the_same_ensemble(trained, strategy):
    model = {**NO_CHANCE["model"], "ensemble": 3}
    words = {**NO_CHANCE, "model": model, "epochs": 2, "batch_size": 33}
    _, one, _ = trained(**words)
    _, two, _ = trained(launcher=TWO, parallel={"strategy": strategy}, **words)
    assert two["processes"] == 2
    assert two["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-4)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
