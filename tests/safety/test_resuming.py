"""What was stopped goes on: after the training, among several runs, and where the data has changed since."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.core.errors import StoreError, UserError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.run import Run
from tests.safety.pressing import Ended, press

STEP = "penstock.train.learner:Learner.step"
SETTINGS = ["--set", "train.epochs=2", "--set", "evaluate.bootstrap=10"]


@pytest.fixture
def place(people: Path, tmp_path: Path) -> Path:
    shutil.copytree(people, tmp_path / "people")
    return tmp_path


def command(
    place: Path,
    *words: str,
    moment: str = "penstock.cli.commands:print_result",
    times: int = 0,
    after: int = 1,
) -> Ended:
    return press(
        [*words, "--store", str(place / "kept"), "--json"],
        place,
        moment=moment,
        times=times,
        after=after,
    )


def run(place: Path, *words: str, verb: str = "run", **pressed: Any) -> Ended:
    return command(
        place, verb, str(place / "people" / "recipe.yaml"), *SETTINGS, *words, **pressed
    )


def runs(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "kept" / "runs").iterdir())


@pytest.mark.parametrize(
    "moment",
    [
        "penstock.pipeline.stages:pack",
        pytest.param("penstock.pipeline.reports:evaluate", marks=pytest.mark.slow),
    ],
)
def test_a_run_whose_training_has_ended_is_packed_and_evaluated_by_resume(
    place: Path, moment: str
) -> None:
    stopped = run(place, moment=moment, times=1)
    assert stopped.code == 130 and stopped.reached
    (id,) = runs(place)
    resumed = command(place, "resume", id)
    assert resumed.code == 0, resumed.errors
    said = json.loads(resumed.output)
    assert (
        said["run"] == id
        and said["bundle"]
        and said["metrics"]
        and said["skipped"]["train"]
        and runs(place) == [id]
    )
    again = command(place, "resume", id)
    assert (
        again.code == 2
        and "nothing is left to resume" in json.loads(again.output)["message"]
    )


@pytest.mark.slow
def test_a_run_that_was_only_trained_is_packed_though_another_of_its_key_is_newer(
    place: Path,
) -> None:
    first = run(place, moment=STEP, after=3, times=1)
    assert first.code == 130
    (old,) = runs(place)
    newer = run(place, "--fresh", verb="train")
    assert newer.code == 0
    assert command(place, "resume", old).code == 0
    store = Store(place / "kept")
    bundles = [store.manifest(name) for name in store.names("bundles")]
    assert [Run.open(store, reference=id).status for id in runs(place)] == [
        "done",
        "done",
    ] and len(bundles) == 1
    card = penstock.show(
        f"bundle-{store.names('bundles')[0].split('/')[1]}", store=place / "kept"
    )
    assert old in json.dumps(card.to_dict())


@pytest.mark.slow
def test_of_two_interrupted_runs_the_newer_goes_on_and_the_other_is_named(
    place: Path,
) -> None:
    for words in ((), ("--fresh",)):
        assert run(place, *words, moment=STEP, after=3, times=1).code == 130
    older, newer = runs(place)
    third = run(place, verb="train")
    assert third.code == 0, third.errors
    assert json.loads(third.output)["run"] == newer
    assert (
        f"Continuing {newer}, which has the same recipe and data and was interrupted. 1 more such runs can be"
        f" continued; the next is {older}: penstock resume {older}" in third.errors
    )
    assert (
        runs(place) == [older, newer]
        and Run.open(Store(place / "kept"), reference=older).status == "interrupted"
    )


@pytest.mark.slow
def test_a_run_that_was_interrupted_before_the_data_changed_is_named_and_may_go_on(
    place: Path,
) -> None:
    assert run(place, moment=STEP, after=3, times=1).code == 130
    (old,) = runs(place)
    part = place / "people" / "lake" / "part-0.csv"
    part.write_text(part.read_text("utf-8") + "9999,33,Oslo,2026-01-02,high\n", "utf-8")
    anew = run(place, verb="train")
    assert anew.code == 0, anew.errors
    assert (
        f"{old} of 'people' was interrupted, but the data or the recipe has changed since, so this is a"
        " new run" in anew.errors
    )
    assert (
        f"penstock resume {old}" in anew.errors and json.loads(anew.output)["run"] != old
    )
    resumed = command(place, "resume", old)
    assert resumed.code == 0, resumed.errors
    assert (
        json.loads(resumed.output)["run"] == old
        and json.loads(resumed.output)["rows"]["in"] == 601
    )


def test_what_a_run_has_learnt_from_is_not_replaced_by_other_data(place: Path) -> None:
    store, recipe = place / "kept", place / "people" / "recipe.yaml"
    trained = penstock.train(recipe, overrides=["train.epochs=1"], store=store)
    shutil.rmtree(store / "datasets")
    part = place / "people" / "lake" / "part-0.csv"
    part.write_text(part.read_text("utf-8") + "9999,33,Oslo,2026-01-02,high\n", "utf-8")
    with pytest.raises(
        StoreError,
        match=f"{trained.id} was trained on the dataset {trained.dataset}, which is no longer in the store",
    ):
        penstock.resume(trained.id, store=store, events=Events())
    with pytest.raises(UserError, match="There is no run"):
        penstock.resume("run-none", store=store)
