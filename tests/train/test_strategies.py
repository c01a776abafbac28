"""Strategies on several processes against one: what must be equal is, and what differs says so."""

from __future__ import annotations

import pytest
import torch

from penstock.contracts.learn import World
from penstock.core.store import Store
from tests.train.across import Case, launched, walk_all
from tests.train.tiny import tiny_feed, tiny_recipe

STILL = {
    "model": {
        "encoders": {"c": {"type": "embedding", "forget": 0.0}},
        "combiner": {"type": "mlp", "width": 16, "depth": 2, "dropout": 0.0},
    },
    "schedule": "constant",
}
QUIET = {
    "model": {
        "encoders": {"c": {"type": "embedding", "forget": 0.0}},
        "combiner": {
            "type": "attention",
            "width": 16,
            "depth": 2,
            "dropout": 0.0,
            "attention_dropout": 0.0,
        },
    },
    "schedule": "constant",
    "optimiser": "sgd",
    "lr": 0.05,
}
NORMED = {
    "model": {"type": "tests.train.across:Normed"},
    "schedule": "constant",
    "optimiser": "sgd",
    "lr": 0.1,
}
THREE = pytest.param(3, marks=pytest.mark.slow)
SGD = {
    "optimiser": {"type": "sgd", "momentum": 0.0, "nesterov": False},
    "lr": 0.1,
    "clip": None,
}


class Walks(dict):
    """By name and number of processes: what each case came to. Three processes are launched when a test first
    asks for them, which only slow ones do.
    """

    on_three: dict[str, Case]

    def __missing__(self, key):
        if key[1] != 3:
            raise KeyError(key)
        three = launched(self.on_three, 3)
        self.update({(name, 3): result for name, result in three.items()})
        return self[key]


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """Every case on one process and on two, some on three. 97 rows in batches of 32: the last has one row."""
    folder = tmp_path_factory.mktemp("across")
    store = Store(folder / "store")

    def case(
        *, steps=12, pause=None, begin=None, weight=None, rows=97, clocks=None, **words
    ):
        recipe = tiny_recipe(folder, weight=weight, **words)
        return Case(
            recipe,
            store.url,
            tiny_feed(store, recipe, rows=rows, validation=65).id,
            steps,
            pause=pause,
            begin=begin,
            clocks=clocks,
        )

    def local(every, **outer):
        return {
            "parallel": {
                "strategy": "local_sgd",
                "every": every,
                **({"outer": outer} if outer else {}),
            }
        }

    def sent(*, parallel=None, **words):
        return {"parallel": {"gradients": words, **(parallel or {})}}

    both = {
        "plain": case(steps=200, **STILL),
        "weighted": case(weight="w", **STILL),
        "accumulate": case(accumulate=3, **STILL),
        "fp16": case(precision="fp16", **STILL),
        "fsdp": case(weight="w", parallel={"strategy": "fsdp"}, ema=0.9, **STILL),
        "fsdp plain": case(weight="w", ema=0.9, **STILL),
        "fsdp blocks": case(
            parallel={"strategy": "fsdp", "activation_checkpointing": True},
            accumulate=3,
            pause=5,
            **QUIET,
        ),
        "fsdp fp16": case(parallel={"strategy": "fsdp"}, precision="fp16", **STILL),
        "fsdp clocks": case(
            parallel={"strategy": "fsdp"}, clip=None, clocks=(0,), on_nan="stop", **STILL
        ),
        "sgd": case(weight="w", **{**STILL, **SGD}),
        "local 1": case(weight="w", **local(1), **{**STILL, **SGD}),
        "local 3": case(**local(3), **STILL),
        "local 3 paused": case(**local(3), pause=6, **STILL),
        "local nesterov": case(**local(3, type="nesterov"), pause=6, ema=0.9, **STILL),
        "local topk": case(
            **sent(
                type="topk", share=0.2, parallel={"strategy": "local_sgd", "every": 2}
            ),
            pause=6,
            **STILL,
        ),
        "norms": case(parallel={"batchnorm": "sync"}, rows=98, **NORMED),
        "norms each": case(rows=96, **NORMED),
        "norms accumulate": case(
            parallel={"batchnorm": "sync"}, accumulate=2, rows=96, **NORMED
        ),
        "norms fsdp": case(
            parallel={
                "batchnorm": "sync",
                "strategy": "fsdp",
                "activation_checkpointing": True,
            },
            rows=98,
            **NORMED,
        ),
        "bf16 sent": case(**sent(type="bf16"), **STILL),
        "fp16 sent": case(**sent(type="fp16"), **STILL),
        "fp16 both": case(**sent(type="topk", share=1.0), precision="fp16", **STILL),
        "topk all": case(weight="w", **sent(type="topk", share=1.0), **STILL),
        "topk": case(weight="w", **sent(type="topk", share=0.1, warm_up=2), **STILL),
        "topk paused": case(
            weight="w", pause=6, **sent(type="topk", share=0.1, warm_up=2), **STILL
        ),
        "powersgd full": case(
            weight="w", **sent(type="powersgd", rank=16, warm_up=0), **STILL
        ),
        "powersgd": case(weight="w", **sent(type="powersgd", rank=1, warm_up=3), **STILL),
        "powersgd paused": case(
            weight="w", pause=6, **sent(type="powersgd", rank=1, warm_up=3), **STILL
        ),
    }
    two = launched(both, 2)
    walks = Walks({(name, 2): result for name, result in two.items()})
    on = {  # from two processes to one and to three
        name: case(**words, begin=(6, two[name].paused))
        for name, words in {
            "powersgd paused": {
                "weight": "w",
                **sent(type="powersgd", rank=1, warm_up=3),
                **STILL,
            },
            "local nesterov": {**local(3, type="nesterov"), "ema": 0.9, **STILL},
            "local topk": {
                **sent(
                    type="topk", share=0.2, parallel={"strategy": "local_sgd", "every": 2}
                ),
                **STILL,
            },
        }.items()
    }
    on["fsdp blocks"] = case(
        begin=(5, two["fsdp blocks"].paused),
        parallel={"strategy": "fsdp", "activation_checkpointing": True},
        accumulate=3,
        **QUIET,
    )
    again = {f"{name} on": one for name, one in on.items()}
    few = {
        name: both[name]
        for name in ("plain", "fsdp", "norms", "topk all", "local 1", "powersgd full")
    }
    walks.on_three = {**few, **again}
    walks |= {
        (name, 1): result for name, result in walk_all(World(), {**both, **again}).items()
    }
    return walks, few


@pytest.fixture(scope="module")
def walked(trials):
    return trials[0]


@pytest.fixture(scope="module")
def four(trials):
    return launched(trials[1], 4)


def near(one, other, *, rtol=1e-4, atol=2e-6):
    for name, tensor in one.held.model.items():
        torch.testing.assert_close(
            other.held.model[name],
            tensor,
            rtol=rtol,
            atol=atol,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def same(one, other):
    for mine, theirs in (
        (one.held.model, other.held.model),
        (one.held.optimiser, other.held.optimiser),
        (one.held.average, other.held.average),
    ):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("processes", [2, THREE])
def test_the_loss_is_the_same_on_any_number_of_processes(walked, processes):
    one, more = walked["plain", 1], walked["plain", processes]
    assert len(one.losses) == 200
    assert more.losses == pytest.approx(one.losses, rel=1e-4)
    assert more.agree
    assert more.said == []


@pytest.mark.parametrize(
    "name",
    [
        "weighted",
        "accumulate",
        "norms",
        "norms fsdp",
        "fsdp",
        "fsdp blocks",
        "local 1",
        "topk all",
        "powersgd full",
    ],
)
def test_what_promises_the_same_answer_gives_it(walked, name):
    near(walked[name, 1], walked[name, 2])
    assert walked[name, 2].losses == pytest.approx(walked[name, 1].losses, rel=1e-4)
    assert walked[name, 2].judged == pytest.approx(walked[name, 1].judged, rel=1e-4)
    if name not in ("fsdp blocks", "local 1"):
        assert walked[name, 2].norms == pytest.approx(walked[name, 1].norms, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["fsdp", "norms", "topk all", "local 1", "powersgd full"]
)
def test_and_on_three(walked, name):
    near(walked[name, 1], walked[name, 3])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["plain", "fsdp", "norms", "topk all", "local 1", "powersgd full"]
)
def test_and_on_four(walked, four, name):
    near(walked[name, 1], four[name], rtol=5e-4, atol=2e-5)
    assert four[name].losses == pytest.approx(walked[name, 1].losses, rel=1e-4)


@pytest.mark.parametrize("processes", [1, 2, THREE])
def test_sharded_is_as_not_sharded(walked, processes):
    near(walked["fsdp plain", 1], walked["fsdp", processes])
    for name, tensor in walked["fsdp plain", 1].held.average.items():
        torch.testing.assert_close(
            walked["fsdp", processes].held.average[name], tensor, rtol=1e-4, atol=2e-6
        )


def test_sharded_is_divided(walked):
    whole, parts = walked["fsdp", 1].local, walked["fsdp", 2].local
    assert sum(parts.values()) <= 0.6 * sum(whole.values())


def test_ranks_of_divided_weights_compute_the_norm_that_one_clock_asks_for(walked):
    """It is a sum over ranks: a rank that left it out would be waited for, or add another number to it."""
    assert walked["fsdp clocks", 2].norms == pytest.approx(
        walked["fsdp clocks", 1].norms, rel=1e-3
    )
    near(walked["fsdp clocks", 1], walked["fsdp clocks", 2])


def test_fp16_scales_alike(walked):
    for name in ("fsdp fp16", "fp16 both"):
        near(walked["fp16", 2], walked[name, 2], rtol=2e-2, atol=2e-3)
    near(walked["fp16", 1], walked["fp16", 2], rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("processes", [2, THREE])
def test_one_step_of_sgd_between_averages_is_summing_gradients(walked, processes):
    near(walked["sgd", 1], walked["local 1", processes])


def test_apart_workers_agree_when_they_must(walked):
    one = walked["local 3", 2]
    assert one.agree
    assert (
        len(one.losses) == 3 * 2
    )  # epochs of four steps: at the third and at the last of each
    assert one.sent["ratio"] == pytest.approx(2, rel=0.1)
    assert any("3 steps on its own part" in text for text in one.said)


@pytest.mark.parametrize(
    ("whole", "paused"),
    [
        ("local 3", "local 3 paused"),
        ("topk", "topk paused"),
        ("powersgd", "powersgd paused"),
    ],
)
def test_taken_up_by_as_many_it_goes_on_to_the_bit(walked, whole, paused):
    pause, plain = walked[paused, 2], walked[whole, 2]
    if (
        whole == "local 3"
    ):  # the end of an epoch is an average as well, so six steps are one
        assert pause.held.extra["ranks"].keys() == plain.held.extra["ranks"].keys()
    same(plain, pause)
    for file, tensors in plain.held.extra.items():
        assert all(
            torch.equal(pause.held.extra[file][name], tensor)
            for name, tensor in tensors.items()
        )


@pytest.mark.parametrize("processes", [1, THREE])
def test_what_was_not_sent_goes_on_with_other_processes(walked, processes):
    kept = walked["powersgd paused", 2].paused.extra["exchange"]
    assert (
        sum(float(t.abs().sum()) for name, t in kept.items() if "shared" not in name) > 0
    )
    on = walked["powersgd paused on", processes]
    assert any("none of it is lost" in text for text in on.said)
    assert on.losses[-1] < 0.75
    on = walked["local nesterov on", processes]
    assert any("mean of the optimisers' moments" in text for text in on.said)
    assert walked["local topk on", processes].agree


@pytest.mark.parametrize("processes", [1, THREE])
def test_a_sharded_checkpoint_is_whole(walked, processes):
    near(walked["fsdp blocks", 1], walked["fsdp blocks on", processes])


@pytest.mark.parametrize(
    ("name", "ratio"),
    [
        ("bf16 sent", 2),
        ("fp16 sent", 2),
        ("topk", 3),
        ("powersgd", 2),
        ("fsdp", 1),
        ("fsdp blocks", 0.36),
    ],
)
def test_bytes_are_counted(walked, name, ratio):
    assert walked[name, 2].sent["ratio"] == pytest.approx(ratio, rel=0.35)
    assert walked[name, 1].sent == {"bytes_per_step": 0.0, "ratio": None}


@pytest.mark.parametrize(
    "name", ["bf16 sent", "fp16 sent", "topk", "powersgd", "local nesterov", "local topk"]
)
def test_fewer_bytes_still_learn(walked, name):
    assert walked[name, 2].agree
    assert walked[name, 2].losses[-1] < walked[name, 2].losses[0]


def test_what_depends_on_processes_is_said_with_the_reason(walked):
    assert any(
        "BatchNorm sees each process's own rows" in text
        for text in walked["norms each", 2].said
    )
    assert walked["norms", 2].said == []
    assert any("product of low rank" in text for text in walked["powersgd", 2].said)
    assert any(
        "chooses which of its own gradients" in text for text in walked["topk", 2].said
    )
    assert walked["topk", 1].said == [
        "parallel.gradients topk is how processes send, and there is one: nothing is sent"
    ]
    assert any(
        "local_sgd averages what several processes learn, and there is one: only its outer optimiser"
        in text
        for text in walked["local nesterov", 1].said
    )
    assert any("there is one" in text for text in walked["fsdp", 1].said)
