"""What is changed in a network before it is trained, and what the recipe may ask of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from penstock.contracts.learn import World
from penstock.core.errors import RecipeError
from penstock.core.store import Store
from penstock.pipeline.keys import train_key
from penstock.train.blocks import blocks_of, compute_again, sync_norms
from penstock.train.checkpoint import Checkpoint, read_tensors
from penstock.train.communicator import Communicator
from penstock.train.learner import Learner
from penstock.train.state_dict import StateDict, restore
from penstock.train.supervisor import train
from tests.loader.flat import open_loader
from tests.train.tiny import Heard, tiny_feed, tiny_recipe, tiny_run


class Block(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(6, 6),
            nn.BatchNorm1d(6) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(0.3),
        )
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x + self.inner(x)


def stack(norm: bool) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 6),
        nn.ModuleDict({"a": nn.Linear(6, 6)})["a"],
        Block(norm),
        Block(norm),
        nn.Linear(6, 1),
    )


@pytest.mark.parametrize("norm", [False, True])
def test_computing_again_changes_nothing_but_the_work(norm):
    plain, again = stack(norm), stack(norm)
    blocks = blocks_of(again)
    assert blocks == [again[2], again[3]]
    for block in blocks:
        compute_again(block)
    x = torch.randn(8, 6)
    for _ in range(2):
        for network in (plain, again):
            torch.manual_seed(1)
            network.zero_grad()
            network(x).square().mean().backward()
    assert [block.calls for block in blocks] == [4, 4]
    assert plain[2].calls == 2
    for one, other in zip(plain.parameters(), again.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    for (name, one), (_, other) in zip(
        plain.named_buffers(), again.named_buffers(), strict=True
    ):
        assert torch.equal(one, other), name
    assert plain.state_dict().keys() == again.state_dict().keys()
    again.eval()
    again(x)
    assert [block.calls for block in blocks] == [5, 5]


@pytest.mark.parametrize(
    "options", [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}]
)
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_on_one_rank_it_is_batchnorm(kind, options):
    shape = (7, 4) if kind is nn.BatchNorm1d else (7, 4, 3, 2)
    plain, ours = nn.Sequential(kind(4, **options)), nn.Sequential(kind(4, **options))
    names = list(ours.state_dict())
    assert len(sync_norms(ours, Communicator(World()))) == 1
    assert list(ours.state_dict()) == names
    for seed in range(3):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1
        results = []
        for network in (plain, ours):
            network.zero_grad()
            given = x.clone().requires_grad_()
            out = network(given)
            (out.sin() * torch.arange(out.numel()).view(shape)).sum().backward()
            results.append(
                [
                    out,
                    given.grad,
                    *(p.grad for p in network.parameters()),
                    *network.buffers(),
                ]
            )
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)
    plain.eval(), ours.eval()
    torch.testing.assert_close(ours(x), plain(x))


def test_computing_again_trains_the_same(tmp_path):
    store = Store(tmp_path / "store")
    weights = []
    for asked in (False, True):
        model = {
            "combiner": {"type": "attention", "width": 16, "depth": 2, "dropout": 0.2}
        }
        recipe = tiny_recipe(
            tmp_path, model=model, parallel={"activation_checkpointing": asked}
        )
        feed = tiny_feed(store, recipe)
        learner = Learner(recipe, feed, World())
        learner.to_train()
        for position, batch in open_loader(feed, "train", batch_size=64, seed=3).batches(
            0
        ):
            learner.step(
                batch, rows=len(batch["row_id"]), step=position, total=8, scale=1.0
            )
        weights.append(learner.network.state_dict())
        assert learner.depends() == []
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    recipe = tiny_recipe(tmp_path, parallel={"activation_checkpointing": True})
    assert (
        "finds no blocks"
        in Learner(recipe, tiny_feed(store, recipe), World()).depends()[0]
    )


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"strategy": "ddp", "every": 4}, r"parallel\.every: is for local_sgd"),
        (
            {"strategy": "fsdp", "gradients": "fp16"},
            r"parallel\.gradients: is for ddp and local_sgd",
        ),
        ({"strategy": "local_sgd", "batchnorm": "sync"}, r"parallel\.batchnorm"),
        (
            {"strategy": "local_sgd", "outer": {"type": "average", "lr": 0.1}},
            r"parallel\.outer\.lr: has no effect with `average`",
        ),
        ({"gradients": "fp8"}, r"no gradient compressor is called 'fp8'"),
        ({"gradients": {"type": "powersgd", "rnk": 2}}, r"Did you mean 'rank'"),
        ({"strategy": "dpp"}, r"Did you mean 'ddp'"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, words, match):
    with pytest.raises(RecipeError, match=match):
        tiny_recipe(tmp_path, parallel=words)


def test_apart_workers_cannot_skip_together(tmp_path):
    with pytest.raises(RecipeError, match=r"train\.on_nan.*finds it alone"):
        tiny_recipe(tmp_path, on_nan="skip", parallel={"strategy": "local_sgd"})


def test_a_run_from_before_there_was_the_word_keeps_its_key(tmp_path):
    feed = tiny_feed(Store(tmp_path / "store"), tiny_recipe(tmp_path))
    plain, same, other = (
        train_key(tiny_recipe(tmp_path, parallel=words), feed)
        for words in ({}, {"strategy": "ddp"}, {"strategy": "local_sgd"})
    )
    assert plain == same != other


def test_two_processes_report_what_they_sent(tmp_path):
    store = Store(tmp_path / "store")
    recipe = tiny_recipe(
        tmp_path,
        launcher={"type": "local", "processes": 2, "threads": 1},
        parallel={"strategy": "local_sgd", "every": 4, "gradients": "bf16"},
    )
    feed, heard = tiny_feed(store, recipe), Heard()
    summary = train(recipe, feed, tiny_run(store, recipe, feed), heard.events)
    assert summary["communication"]["ratio"] == pytest.approx(8, rel=0.1)
    assert summary["validation"]["y"]["roc_auc"] > 0.6
    assert any("communication_ratio" in fields for fields in heard.fields("measured"))
    assert (
        len([text for text in heard.texts("warned") if "4 steps on its own part" in text])
        == 1
    )


def test_a_sharded_run_is_stopped_resumed_by_one_and_whole(tmp_path):
    store = Store(tmp_path / "store")
    two = {"type": "local", "processes": 2, "threads": 1}
    model = {
        "encoders": {"c": {"type": "embedding", "forget": 0.0}},
        "combiner": {
            "type": "residual",
            "width": 16,
            "depth": 2,
            "dropout": 0.0,
            "residual_dropout": 0.0,
        },
    }
    words = {
        "model": model,
        "rows": 97,
        "ema": 0.9,
        "batch_size": 32,
        "optimiser": "sgd",
        "epochs": 4,
    }
    rows = words.pop("rows")
    plain = tiny_recipe(tmp_path, **words)
    feed = tiny_feed(store, plain, rows=rows, validation=65)
    whole = tiny_run(store, plain, feed)
    train(plain, feed, whole, Heard().events)
    sharded = tiny_recipe(tmp_path, launcher=two, parallel={"strategy": "fsdp"}, **words)
    run = tiny_run(store, sharded, feed)
    summary = train(sharded, feed, run, Heard().events)
    assert summary["validation"]["y"]["roc_auc"] > 0.5
    for name, tensor in read_tensors(whole.weights).items():
        torch.testing.assert_close(
            read_tensors(run.weights)[name], tensor, rtol=1e-3, atol=1e-5
        )
    checkpoint = Checkpoint.read(sorted(run.checkpoints.glob("step-*"))[0])
    learner = Learner(plain, feed, World())
    assert (
        restore(
            learner,
            StateDict(
                checkpoint.model,
                checkpoint.optimiser,
                checkpoint.average,
                checkpoint.extra,
            ),
            None,
        )
        == []
    )
