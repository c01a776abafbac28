"""Training whole: the same weights whatever happens on the way."""

import json
import threading

import numpy as np
import pytest
import torch

from penstock.contracts.learn import World
from penstock.core.errors import (
    Outgrown,
    RankLost,
    RecipeError,
    StoreError,
    TrainingError,
    UserError,
)
from penstock.model import build_network
from penstock.train import autotune as measure_file
from penstock.train import checkpoint as checkpoint_file
from penstock.train.checkpoint import Checkpoint, read_tensors
from penstock.train.learner import Learner
from penstock.train.supervisor import train
from tests.loader.flat import open_loader
from tests.train.tiny import (
    NO_CHANCE,
    TWO,
    Heard,
    tiny_feed,
    tiny_recipe,
    tiny_run,
    tiny_table,
    weights,
)

# -- it learns, and says what it does ------------------------------------------------------------------------


def test_it_learns_and_sums_up(trained):
    run, summary, heard = trained(epochs=6)
    assert summary["steps"] == 48
    assert summary["validation"]["y"]["roc_auc"] > 0.85
    assert set(summary) == {
        "epochs",
        "steps",
        "best_epoch",
        "ended",
        "validation_loss",
        "validation",
        "train_loss",
        "parameters",
        "seconds",
        "examples_per_second",
        "processes",
        "threads",
        "communication",
        "checkpoints",
        "left_out",
        "slow",
        "stages",
        "restarts",
        "taken_in",
    }
    assert (summary["processes"], summary["threads"], summary["ended"]) == (
        1,
        1,
        "epochs",
    )
    assert run.world()["chosen"]["threads"] == 1
    assert len([f for f in heard.fields("measured") if "validation_loss" in f]) == 6
    last = heard.fields("progress")[-1]
    assert (last["stage"], last["done"], last["unit"], last["epoch"]) == (
        "train",
        48,
        "steps",
        6,
    )
    recipe = run.recipe()
    feed_weights = read_tensors(run.weights)
    network = build_network(recipe, tiny_feed(run.store, recipe).encoding, seed=0)
    network.load_state_dict(feed_weights)
    json.dumps(summary)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"ema": 0.9},
        {
            "optimiser": "sgd",
            "lr": 0.1,
            "schedule": {"type": "plateau", "patience": 1},
            "clip": None,
        },
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"accumulate": 3, "schedule": {"type": "constant"}},
        {"class_weights": {"y": "balanced"}},
    ],
)
def test_two_trainings_give_the_same_bytes(trained, words):
    (one, first, _), (two, second, _) = (
        trained(epochs=2, **words),
        trained(epochs=2, **words),
    )
    assert weights(one) == weights(two)
    assert first["validation"] == second["validation"]
    assert first["validation"]["y"]["roc_auc"] > 0.6


def test_another_seed_gives_others(trained):
    assert weights(trained(epochs=1)[0]) != weights(trained(epochs=1, seed=4)[0])


def test_several_targets(trained):
    _, summary, _ = trained(
        epochs=2,
        targets={"y": "binary", "z": "number", "c2": {"type": "category", "column": "y"}},
    )
    assert set(summary["validation"]) == {"y", "z", "c2"}
    assert summary["validation"]["z"]["rmse"] > 0


def test_the_best_epoch_is_kept_and_waiting_ends_it(trained):
    run, summary, heard = trained(
        epochs=30,
        lr=0.3,
        early_stop={"patience": 2, "metric": "y.roc_auc"},
        schedule="constant",
    )
    assert summary["ended"] == "early_stop"
    assert summary["epochs"] == summary["best_epoch"] + 2
    values = [
        f["validation.y.roc_auc"]
        for f in heard.fields("measured")
        if "validation_loss" in f
    ]
    assert summary["validation"]["y"]["roc_auc"] == max(values)
    best = Checkpoint.read(run.checkpoints / f"step-{8 * summary['best_epoch']:010d}")
    assert all(
        torch.equal(best.model[name], tensor)
        for name, tensor in read_tensors(run.weights).items()
    )
    assert any("Stopped after epoch" in text for text in heard.texts())


def test_a_metric_that_cannot_be_watched(trained):
    with pytest.raises(
        RecipeError, match=r"train\.early_stop\.metric.*Did you mean 'y\.roc_auc'"
    ):
        trained(early_stop={"metric": "y.rocauc"})


def test_without_validation_rows_the_last_epoch_counts(trained):
    _, summary, heard = trained(validation=0, epochs=2, early_stop={"patience": 1})
    assert (summary["best_epoch"], summary["validation_loss"], summary["validation"]) == (
        2,
        None,
        {},
    )
    assert any("no early stopping" in text for text in heard.texts("warned"))


def test_max_steps_may_end_within_an_epoch(trained):
    _, summary, _ = trained(max_steps=11)
    assert (summary["steps"], summary["epochs"], summary["ended"]) == (11, 2, "max_steps")


def test_the_average_is_what_is_judged_and_kept(trained):
    run, _, _ = trained(epochs=2, ema=0.9)
    last = Checkpoint.read(run.checkpoints / "step-0000000016")
    kept = read_tensors(run.weights)
    assert all(torch.equal(kept[name], tensor) for name, tensor in last.average.items())
    assert not all(torch.equal(kept[name], tensor) for name, tensor in last.model.items())


# -- exact, whatever the cut ---------------------------------------------------------------------------------


def plain_steps(feed, recipe, count):
    """The same training by hand: one process, whole batches, torch's own weighted mean, clipping and
    optimiser.
    """
    network = build_network(recipe, feed.encoding, seed=recipe.seed).train()
    free = [
        p
        for n, p in network.named_parameters()
        if p.ndim <= 1 or getattr(p, "no_decay", False) or "embedding" in n
    ]
    kept = [p for p in network.parameters() if not any(p is f for f in free)]
    groups = [
        {"params": kept, "weight_decay": recipe.train.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    moving = torch.optim.SGD(groups, lr=recipe.train.lr, momentum=0.9, nesterov=True)
    for position, batch in open_loader(
        feed, "train", batch_size=64, seed=recipe.seed
    ).batches(0):
        if position == count:
            break
        moving.zero_grad()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            network(batch)["y"], batch["y.label"], reduction="none"
        )
        ((losses * batch["weight"]).sum() / batch["weight"].sum()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        moving.step()
    return network.state_dict()


@pytest.mark.parametrize("accumulate", [1, 3, 100])
def test_a_step_is_the_weighted_mean_however_it_is_cut(store, tmp_path, accumulate):
    recipe = tiny_recipe(tmp_path, weight="w", accumulate=accumulate, **NO_CHANCE)
    feed = tiny_feed(store, recipe)
    learner = Learner(recipe, feed, World())
    learner.network.train()
    for position, batch in open_loader(
        feed, "train", batch_size=64, seed=recipe.seed
    ).batches(0):
        learner.step(
            batch, rows=len(batch["row_id"]), step=position, total=100, scale=1.0
        )
    for name, tensor in plain_steps(feed, recipe, 8).items():
        torch.testing.assert_close(
            learner.network.state_dict()[name], tensor, rtol=1e-4, atol=1e-6
        )


def test_a_strategy_must_say_that_its_processes_step_alone(store, tmp_path, monkeypatch):
    recipe = tiny_recipe(tmp_path, **NO_CHANCE)
    # What would make processes wait for each other is refused by this word alone.
    monkeypatch.setattr(type(recipe.parallel.strategy), "steps_alone", True)
    with pytest.raises(UserError, match="both must say so"):
        Learner(recipe, tiny_feed(store, recipe), World())


def test_two_processes_take_the_same_way_as_one(trained):
    # 97 rows in batches of 32: the last batch has one row, so that one rank's slice is empty.
    same = {
        "rows": 97,
        "validation": 31,
        "batch_size": 32,
        "epochs": 2,
        "weight": "w",
        **NO_CHANCE,
    }
    one, first, _ = trained(**same)
    two, second, heard = trained(launcher=TWO, **same)
    assert (second["processes"], second["steps"]) == (2, first["steps"])
    for name, tensor in read_tensors(one.weights).items():
        torch.testing.assert_close(
            read_tensors(two.weights)[name], tensor, rtol=1e-4, atol=1e-6
        )
    assert second["validation_loss"] == pytest.approx(first["validation_loss"], rel=1e-4)
    assert second["validation"]["y"]["accuracy"] == first["validation"]["y"]["accuracy"]
    assert [f["step"] for f in heard.fields("measured") if "validation_loss" in f] == [
        4,
        8,
    ]
    assert not any("number of processes" in text for text in heard.texts("warned"))


def test_chance_that_depends_on_the_number_of_processes_is_told_once(trained):
    _, _, heard = trained(launcher=TWO, epochs=2)  # dropout 0.1
    told = [
        text for text in heard.texts("warned") if "number of processes (now 2)" in text
    ]
    assert len(told) == 1 and "each draws its own chance for its rows (dropout" in told[0]
    assert not any(
        "number of processes" in text for text in trained(epochs=1)[2].texts("warned")
    )


# -- what goes wrong -----------------------------------------------------------------------------------------


def spoil(stored):
    stored["y.label"][[13, 400]] = np.nan


@pytest.mark.parametrize(
    "launcher",
    [
        {"type": "local", "processes": 1, "threads": 1},
        pytest.param(TWO, marks=pytest.mark.slow),
    ],
)
def test_a_loss_that_is_not_finite_names_step_and_rows(trained, launcher):
    ids = tiny_table(500)["row_id"].to_pylist()
    with pytest.raises(TrainingError, match=r"not finite at step \d+, row") as caught:
        trained(change=spoil, launcher=launcher)
    assert any(ids[i] in str(caught.value) for i in (13, 400))
    assert "train.lr" in str(caught.value)


def test_a_rank_that_dies_is_named_and_the_checkpoint_too(store, tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text(
        "import os, signal\nimport torch\nclass Net(torch.nn.Module):\n    def __init__(self):\n       "
        " super().__init__()\n        self.w = torch.nn.Linear(2, 1)\n        self.calls = 0\n    def"
        " forward(self, batch):\n        self.calls += self.training\n        if os.environ.get('RANK') =="
        " '1' and self.calls > 12:\n            os.kill(os.getpid(), signal.SIGKILL)\n        return {'y':"
        " self.w(torch.stack([batch['a.value'], batch['b.value']], 1))[:, 0]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = tiny_recipe(
        tmp_path, launcher={**TWO, "restarts": 0}, model={"type": "deadly:Net"}
    )
    feed = tiny_feed(store, recipe)
    run = tiny_run(store, recipe, feed)
    with pytest.raises(
        TrainingError,
        match=(
            r"process 1 .*was killed by SIGKILL.*step-0000000008 is kept; go on from it with: penstock"
            rf" resume {run.id}"
        ),
    ):
        train(recipe, feed, run, Heard().events)


def test_a_full_disk_stops_no_training(trained, monkeypatch):
    whole, _, _ = trained()

    def full(self, *_, **__):
        raise StoreError("the disk is full")

    monkeypatch.setattr(checkpoint_file.Checkpoints, "write", full)
    run, _, heard = trained()
    assert weights(run) == weights(whole)
    assert (
        len(
            [
                t
                for t in heard.texts("warned")
                if "training continues without it: the disk is full" in t
            ]
        )
        == 3
    )


def test_no_rows_is_a_sentence(store, tmp_path):
    recipe = tiny_recipe(tmp_path)
    feed = tiny_feed(store, recipe)
    feed.rows = {**feed.rows, "train": 0}
    with pytest.raises(TrainingError, match="no rows"):
        train(recipe, feed, tiny_run(store, recipe, feed), Heard().events)


def test_compile_without_a_compiler_is_a_sentence(trained, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"C\+\+ compiler"):
        trained(compile=True)


def test_a_last_epoch_that_taught_nothing_is_an_error(trained):
    with pytest.raises(
        TrainingError,
        match=r"epoch 2: every batch gave values that are not finite.*Lower train\.lr \(now 1e\+38\)",
    ):
        trained(
            rows=200,
            epochs=2,
            lr=1e38,
            on_nan="skip",
            schedule="constant",
            early_stop=None,
        )


@pytest.mark.slow
# torch's compiler imports what torch deprecates
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
def test_compiled_learns_alike(trained):
    _, plain, _ = trained(**NO_CHANCE)
    run, compiled, _ = trained(compile=True, **NO_CHANCE)
    assert compiled["validation_loss"] == pytest.approx(
        plain["validation_loss"], rel=1e-3
    )
    assert not any(name.startswith("_orig_mod") for name in read_tensors(run.weights))


# -- starting from another run -------------------------------------------------------------------------------


def test_starting_from_earlier_weights_says_what_fits(trained):
    first, summary, _ = trained(epochs=2)
    first.finish(summary)
    run, _, heard = trained(
        **{
            "from": first.id,
            "max_steps": 1,
            "lr": 1e-12,
            "weight_decay": 0.0,
            "targets": {"y": "binary", "z": "number"},
        }
    )
    said = next(text for text in heard.texts() if "start from" in text)
    assert "these start anew" in said and "z" in said
    ours, theirs = read_tensors(run.weights), read_tensors(first.weights)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-9)


def test_starting_from_nothing_that_fits_is_refused(trained):
    first, summary, _ = trained(epochs=1)
    first.finish(summary)
    path = first.weights
    other, _, _ = trained(
        epochs=1, model={"combiner": {"type": "mlp", "width": 16, "depth": 2}}
    )
    checkpoint_file.write_weights(other.weights, {"alien": torch.zeros(3)})
    with pytest.raises(UserError, match="nothing could be taken over"):
        trained(**{"from": other.id})
    with pytest.raises(UserError, match="no run"):
        trained(**{"from": "run-none"})
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(StoreError, match="was changed"):
        trained(**{"from": first.id})


# -- choosing ------------------------------------------------------------------------------------------------


def test_threads_are_measured_said_and_recorded(trained, monkeypatch):
    monkeypatch.setattr(measure_file, "usable_cores", lambda: 2)
    monkeypatch.setattr(measure_file, "_TRY_SECONDS", 0.05)
    before = torch.get_num_threads()
    run, summary, heard = trained(launcher="local", epochs=1)
    assert torch.get_num_threads() == before
    said = heard.texts()[0]
    assert "1 process × 1 thread:" in said and "examples/s" in said
    chosen = run.world()["chosen"]
    assert (chosen["processes"], chosen["threads"]) == (
        summary["processes"],
        summary["threads"],
    )
    assert chosen["examples_per_second"]["1x1"] > 0


def test_long_trainings_try_more_processes(store, tmp_path, monkeypatch):
    recipe = tiny_recipe(tmp_path, launcher="local", epochs=100_000)
    feed = tiny_feed(store, recipe)
    monkeypatch.setattr(measure_file, "usable_cores", lambda: 2)
    monkeypatch.setattr(measure_file, "speed", lambda world, *_: 1000.0 / world.threads)
    local = type(recipe.launcher)

    def found(speed):
        heard = Heard()

        def launch(self, function, arguments, *, processes, threads):
            assert (function, processes, threads) == (measure_file._trial, 2, 1)
            if speed is None:
                raise TrainingError("no room")
            return speed

        monkeypatch.setattr(local, "launch", launch)
        chosen = measure_file.choose(recipe, feed, store.url, heard.events)
        assert chosen.threads == 1
        return chosen.processes, heard

    assert found(1500.0)[0] == 2
    assert found(1100.0)[0] == 1  # too little to be worth it
    one, heard = found(None)
    assert one == 1
    assert "no room" in heard.texts("warned")[0]
    short = tiny_recipe(tmp_path, launcher="local", epochs=3)
    assert "2x1" not in measure_file.choose(short, feed, store.url, Heard().events).speeds


def test_those_that_were_there_go_on_where_more_do_not_come(store, tmp_path, monkeypatch):
    recipe = tiny_recipe(
        tmp_path, launcher={"type": "local", "processes": [1, 2], "threads": 1}
    )
    feed = tiny_feed(store, recipe)
    story = iter(
        [
            RankLost("one is gone.", (1,), 3, 2),
            Outgrown("there is room", 2, 1, -1),
            UserError("there was none."),
        ]
    )
    started, heard = [], Heard()

    def launch(self, function, arguments, *, processes, threads, grows):
        started.append((processes, grows.to))
        if (ends := next(story, None)) is not None:
            raise ends
        return {"done": True}

    monkeypatch.setattr(type(recipe.launcher), "launch", launch)
    summary = train(recipe, feed, tiny_run(store, recipe, feed), heard.events)
    assert started == [(2, 2), (1, 2), (2, 2), (1, 2)]
    assert summary == {"done": True, "restarts": 1, "taken_in": 1}
    assert (
        heard.texts("warned")[-1]
        == "there was none. More processes could not join; continuing from step 0 with 1 process, as"
        " before."
    )
    assert "there is room: continuing from step 0 with 2 processes" in heard.texts()


def test_a_mistake_that_no_growth_explains_ends_it(store, tmp_path, monkeypatch):
    recipe = tiny_recipe(
        tmp_path, launcher={"type": "local", "processes": [1, 2], "threads": 1}
    )
    feed = tiny_feed(store, recipe)
    monkeypatch.setattr(
        type(recipe.launcher),
        "launch",
        lambda self, *_, **__: (_ for _ in ()).throw(UserError("no such store.")),
    )
    with pytest.raises(UserError, match="no such store"):
        train(recipe, feed, tiny_run(store, recipe, feed), Heard().events)


def test_a_trial_is_real_steps(store, tmp_path):
    recipe = tiny_recipe(tmp_path)
    feed = tiny_feed(store, recipe)
    assert measure_file._trial(World(), recipe, store.url, feed.id, 0.05) > 100


def test_declared_numbers_are_obeyed_and_resume_keeps_the_choice(store, tmp_path):
    recipe = tiny_recipe(tmp_path, launcher={"type": "local", "processes": 2})
    feed = tiny_feed(store, recipe)
    chosen = measure_file.choose(recipe, feed, store.url, Heard().events)
    assert chosen.processes == 2
    earlier = {"processes": 3, "threads": 5}
    free = tiny_recipe(tmp_path, launcher="local")
    again = measure_file.choose(free, feed, store.url, Heard().events, earlier=earlier)
    assert (again.processes, again.threads) == (3, 5)


def test_measuring_leaves_no_trace_in_the_weights(trained, monkeypatch):
    monkeypatch.setattr(measure_file, "usable_cores", lambda: 2)
    monkeypatch.setattr(measure_file, "_TRY_SECONDS", 0.02)
    speeds = iter([100.0, 1.0])
    real = measure_file.speed
    monkeypatch.setattr(
        measure_file, "speed", lambda *arguments: (real(*arguments), next(speeds))[1]
    )
    measured, _, _ = trained(launcher="local", epochs=1)
    declared, _, _ = trained(epochs=1)
    assert weights(measured) == weights(declared)


def test_training_in_a_thread_takes_no_signals(trained):
    found = []
    thread = threading.Thread(target=lambda: found.append(trained(epochs=1)[1]["steps"]))
    thread.start()
    thread.join()
    assert found == [8]
