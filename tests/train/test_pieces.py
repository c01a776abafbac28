"""The pure and the small: schedules, watches, decay, averages, gradients, checkpoints, the relay."""

import errno
import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from penstock.contracts.learn import GradientCompressor, World
from penstock.contracts.optim import Schedule
from penstock.core.errors import StoreError
from penstock.core.events import Events
from penstock.nn.gradients import Gradients
from penstock.recipe.schema import Train
from penstock.train import checkpoint as checkpoint_file
from penstock.train.checkpoint import (
    Checkpoint,
    Checkpoints,
    flatten_optimiser,
    read_tensors,
    restore_optimiser,
    write_tensors,
    write_weights,
)
from penstock.train.communicator import Communicator
from penstock.train.early_stopping import EarlyStopping
from penstock.train.event_forwarding import following, telling
from penstock.train.optim import MovingAverage, build_optimiser, decay_groups, total_steps
from tests.train.tiny import Heard


@settings(deadline=None)
@given(
    st.sampled_from(["constant", "cosine", "plateau"]),
    st.integers(1, 500),
    st.floats(0, 0.99),
    st.floats(0, 1),
)
def test_the_rate_rises_then_never_rises_and_keeps_its_bounds(type, total, warmup, floor):
    schedule = Schedule.load({"type": type, "warmup": warmup, "floor": floor})
    rates = [schedule.rate(step, total) for step in range(total)]
    warm = round(warmup * total)
    assert all(0 < r <= 1 + 1e-12 for r in rates if floor > 0)
    assert all(a < b for a, b in pairwise(rates[:warm]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[warm:]))
    if type == "cosine" and warm < total:
        assert rates[warm] == pytest.approx(1)
        assert min(rates[warm:]) >= floor - 1e-12


def test_total_steps():
    assert total_steps(Train(epochs=3), 10) == 30
    assert total_steps(Train(epochs=3, max_steps=7), 10) == 7


def test_a_watch_knows_the_best_and_when_to_end():
    watch = EarlyStopping("higher", patience=2, min_delta=0.1)
    assert [watch.see(i, v) for i, v in enumerate([0.5, 0.55, 0.7, 0.65])] == [
        True,
        False,
        True,
        False,
    ]
    assert not watch.is_over
    again = EarlyStopping("higher", patience=2, min_delta=0.1)
    again.recall(json.loads(json.dumps(watch.memory())))
    assert not again.see(4, float("nan"))
    assert again.is_over
    assert (again.best_epoch, again.best_value) == (2, 0.7)


def test_without_validation_the_latest_is_the_best():
    watch = EarlyStopping()
    assert watch.see(0, None)
    assert watch.see(1, None)
    assert watch.best_epoch == 1


@given(st.lists(st.floats(0, 10), max_size=30))
def test_a_plateau_lowers_the_rate_to_its_floor_only(losses):
    plateau = Schedule.load(
        {"type": "plateau", "factor": 0.5, "patience": 2, "floor": 0.2}
    ).follow()
    scales = [plateau.scale]
    for loss in losses:
        lowered = plateau.see(loss)
        assert lowered == (plateau.scale < scales[-1])
        scales.append(plateau.scale)
    assert min(scales) >= 0.2
    assert not plateau.see(None)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)
        self.bias = nn.Parameter(torch.zeros(3, 3))
        self.bias.no_decay = True

    def forward(self, index):
        return self.norm(self.linear(self.embedding(index))) @ self.bias


def test_biases_norms_and_embeddings_do_not_decay():
    model = Small()
    kept, free = decay_groups(model, model.parameters(), 0.1)
    assert [p.shape for p in kept["params"]] == [(3, 4)]
    assert (kept["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    assert len(free["params"]) == 5


@pytest.mark.parametrize("optimiser", ["adamw", "sgd", {"type": "sgd", "momentum": 0}])
def test_an_optimiser_remembers_through_a_file(tmp_path, optimiser):
    def make():
        torch.manual_seed(0)
        model = Small()
        return model, build_optimiser(
            Train(optimiser=optimiser, lr=0.1), model, list(model.parameters())
        )

    def steps(model, moving, count):
        for i in range(count):
            moving.zero_grad()
            model(
                torch.tensor([0, 1, (i + moving_seed[0]) % 5])
            ).square().sum().backward()
            moving.step()

    moving_seed = [0]
    model, moving = make()
    steps(model, moving, 3)
    names = {id(p): name for name, p in model.named_parameters()}
    write_tensors(
        tmp_path / "o.safetensors", flatten_optimiser(moving, names, "phase/one")
    )
    other, again = make()
    other.load_state_dict(model.state_dict())
    restore_optimiser(
        again,
        {id(p): name for name, p in other.named_parameters()},
        "phase/one",
        read_tensors(tmp_path / "o.safetensors"),
    )
    moving_seed[0] = 3
    steps(model, moving, 3)
    steps(other, again, 3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def test_a_moving_average_is_exchanged_and_put_back():
    model = Small()
    average = MovingAverage(model, 0.5)
    before = model.linear.weight.detach().clone()
    with torch.no_grad():
        model.linear.weight += 1
    average.update(100)
    with average.in_place():
        assert torch.allclose(model.linear.weight, before + 0.5)
    assert torch.allclose(model.linear.weight, before + 1)
    assert torch.allclose(average.tensors["linear.weight"], before + 0.5)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=5),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_flat_gradients_are_those_of_autograd(shapes, dtype):
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    gradients = Gradients(ours, Communicator(World()), torch.device("cpu"))
    for _ in range(2):
        gradients.clear()
        sum((p**3).sum() for p in ours).backward()
    sum((p**3).sum() for p in theirs).backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine.grad, other.grad)
    norm = gradients.norm()
    assert norm == pytest.approx(
        float(nn.utils.get_total_norm([p.grad for p in theirs])), rel=1e-6, abs=1e-12
    )
    gradients.clip(norm, 0.1)
    assert gradients.norm() <= 0.1 * (1 + 1e-5)


class TwoAlike:
    """A wire to one more rank, which has the same to say."""

    rank, size, sent_bytes = 0, 2, 0

    def add(self, tensor):
        tensor.mul_(2)


@pytest.mark.filterwarnings(
    "error"
)  # torch warns of a gradient that lies otherwise than its parameter
@pytest.mark.parametrize(
    "exchange", [None, {"type": "powersgd", "rank": 1, "warm_up": 0}]
)
def test_gradients_lie_in_memory_as_their_parameters_do(exchange):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 4, 3)).to(
        memory_format=torch.channels_last
    )
    theirs = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 4, 3))
    theirs.load_state_dict(ours.state_dict())
    pictures = torch.randn(5, 3, 9, 9)
    gradients = Gradients(
        list(ours.parameters()),
        TwoAlike(),
        torch.device("cpu"),
        GradientCompressor.load(exchange) if exchange else None,
    )
    gradients.clear()
    loss = ours(pictures.to(memory_format=torch.channels_last)).square().mean()
    loss.backward()
    gradients.reduce(loss.detach(), 5.0, (False, False), rows=None)
    theirs(pictures).square().mean().mul(2).backward()
    left = iter(gradients.exchanging.errors.values() if exchange else ())
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad.stride() == mine.stride()
        if (
            mine.dim() == 4 and exchange
        ):  # with what each of the two keeps it is all there was
            kept = next(left)  # as named, whatever lies where
            mine.grad.add_(2 * kept.view(mine.shape))
            assert float(kept.norm()) > 0
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)


def checkpoint(value, **state):
    return Checkpoint(
        {"at": value, **state},
        {"w": torch.full((3,), float(value))},
        {"p/w/step": torch.tensor(float(value))},
    )


def test_checkpoints_keep_the_last_and_the_best(tmp_path):
    found = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        found.write(step, checkpoint(step), best=1)
    assert [path.name[-1] for path in found.all()] == ["1", "3", "4"]
    read = Checkpoint.read(found.newest(Events()))
    assert read.state == {"at": 4}
    assert torch.equal(read.model["w"], torch.full((3,), 4.0))
    found.write(4, checkpoint(5), best=1)
    assert Checkpoint.read(found.path(4)).state == {"at": 5}
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("harm", ["changed", "torn", "half"])
def test_a_harmed_checkpoint_is_refused_aloud_and_the_one_before_it_used(tmp_path, harm):
    found = Checkpoints(tmp_path, keep=3)
    for step in (1, 2):
        found.write(step, checkpoint(step), best=None)
    weights = found.path(2) / "model.safetensors"
    if harm == "changed":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(bytes(data))
    elif harm == "torn":
        weights.write_bytes(weights.read_bytes()[:-1])
    else:
        (found.path(2) / "manifest.json").unlink()
    (tmp_path / ".step-0000000003.abc").mkdir()  # a draft of a process that was killed
    heard = Heard()
    assert found.newest(heard.events) == found.path(1)
    assert "step-0000000002 cannot be used" in heard.texts("warned")[0]
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    found = Checkpoints(tmp_path, keep=1)
    found.write(1, checkpoint(1), best=None)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_file, "write_tensors", full)
    with pytest.raises(StoreError, match="disk is full"):
        found.write(2, checkpoint(2), best=None)
    with pytest.raises(StoreError, match="disk is full"):
        write_weights(tmp_path / "w", {})
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000000001"]


def test_the_real_refusal_of_a_full_disk_is_understood():
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError) as caught:
        write_tensors(Path("/dev/full"), {"w": torch.zeros(1)})
    assert caught.value.errno == errno.ENOSPC


def test_tied_weights_and_views_are_written(tmp_path):
    base = torch.arange(6.0)
    write_tensors(
        tmp_path / "w", {"a": base, "b": base, "c": base[2:4], "d": torch.ones(2, 3).T}
    )
    found = read_tensors(tmp_path / "w")
    assert torch.equal(found["b"], base)
    assert torch.equal(found["c"], base[2:4])
    assert found["d"].shape == (3, 2)


def test_weights_that_are_no_weights(tmp_path):
    (tmp_path / "w").write_bytes(b"nothing of the kind")
    with pytest.raises(StoreError, match="cannot read the weights"):
        read_tensors(tmp_path / "w")


def test_what_is_told_elsewhere_is_heard_here(tmp_path):
    heard = Heard()
    with following(tmp_path / "relay", heard.events):
        there = telling(tmp_path / "relay")
        there.progress("train", 1, 2, "steps", loss=0.5)
        there.say("grüße\u2028")
    assert [(e.name, e.fields) for e in heard.all] == [
        (
            "progress",
            {"stage": "train", "done": 1, "total": 2, "unit": "steps", "loss": 0.5},
        ),
        ("said", {"text": "grüße\u2028"}),
    ]
    assert not (tmp_path / "relay").exists()


def test_a_listener_that_fails_is_heard_of(tmp_path):
    def fail(event):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), following(tmp_path / "relay", Events(fail)):
        telling(tmp_path / "relay").say("x")


def test_a_first_signal_asks_and_a_second_insists():
    code = (
        "import signal, sys\nfrom penstock.train.stop import Stop\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        "print('blocked', flush=True)\nsys.stdin.readline()\n"  # one comes now, and waits until we listen
        "with Stop() as stop:\n"
        "    try:\n        print(stop.asked, flush=True)\n        sys.stdin.readline()\n    except"
        " KeyboardInterrupt:\n        print('insists')\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline().strip() == "blocked"
    child.send_signal(signal.SIGTERM)
    child.stdin.write("\n")
    child.stdin.flush()
    assert child.stdout.readline().strip() == "True"
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=60)[0].strip() == "insists"


def test_a_plateau_takes_no_loss_for_the_best_that_is_not_finite():
    plateau = Schedule.load({"type": "plateau", "patience": 2})
    following = plateau.follow()
    lowered = [following.see(loss) for loss in (float("nan"), 1.0, 0.9, 0.8)]
    assert lowered == [False, False, False, False]
    assert following.best == 0.8
