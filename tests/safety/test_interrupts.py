"""Ctrl-C, once and often, at every moment of a command: the sentence that says how to go on, and no
traceback.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.core.interrupts import FORCED_AFTER, Interrupts
from tests.parts.test_launchers import launched
from tests.safety.children import until
from tests.safety.pressing import SECONDS, Ended, press

QUICK = ["--set", "train.epochs=2", "--set", "evaluate.bootstrap=10"]
"""A training of a second."""

LONG = [pytest.mark.slow, pytest.mark.long]
BEFORE_A_RUN = [
    "penstock.cli:parser",
    "penstock.api:as_recipe",
    "penstock.pipeline.stages:prepare",
    "penstock.pipeline.stages:find_report",
    "penstock.pipeline.stages:write_feed",
    "penstock.pipeline.stages:write_feed!",
]
IN_A_RUN = [
    "penstock.run:Run.create!",
    "penstock.run:Run.begin",
    "penstock.train.supervisor:choose",
    "penstock.train.learner:Learner.__init__",
    "penstock.train.learner:Learner.step",
    "penstock.train.checkpoint_manager:CheckpointManager.write",
    "penstock.train.checkpoint_manager:CheckpointManager.interrupted",
    "penstock.train.checkpoint_manager:CheckpointManager.write_weights",
    "penstock.run:Run.finish",
]
AFTER_A_RUN = [
    "penstock.pipeline.stages:pack",
    "penstock.pipeline.reports:evaluate",
    "penstock.cli.commands:print_result",
]
QUICK_MOMENTS = [
    BEFORE_A_RUN[2],
    BEFORE_A_RUN[4],
    IN_A_RUN[0],
    IN_A_RUN[4],
    IN_A_RUN[8],
]
SLOW_MOMENTS = [
    moment
    for moment in (*BEFORE_A_RUN, *IN_A_RUN, *AFTER_A_RUN)
    if moment not in QUICK_MOMENTS
]
TIMES = (1, 2, 7)


def presses() -> Iterator[Any]:
    """Each moment with each number of signals. In the slow ring a moment has one of the numbers, and each
    number a third of the moments; the rest is in the long ring.
    """
    slow = pytest.mark.slow
    for moment in QUICK_MOMENTS:
        for times in TIMES:
            rest = [slow] if moment == IN_A_RUN[4] else LONG
            yield pytest.param(moment, times, marks=rest if times == 2 else [])
    for number, moment in enumerate(SLOW_MOMENTS):
        for place, times in enumerate(TIMES):
            is_its_own = place == number % len(TIMES)
            marks = [slow] if is_its_own else LONG
            yield pytest.param(moment, times, marks=marks)


@pytest.fixture
def place(people, tmp_path) -> Path:
    shutil.copytree(people, tmp_path / "people")
    return tmp_path


def command(place: Path, *words: str) -> list[str]:
    return [
        "run",
        str(place / "people" / "recipe.yaml"),
        "--store",
        str(place / "kept"),
        *QUICK,
        *words,
    ]


def unfinished(place: Path) -> list[str]:
    """The runs in the store that are not done."""
    folder = place / "kept" / "runs"
    return (
        [path.name for path in folder.iterdir() if not (path / "manifest.json").is_file()]
        if folder.is_dir()
        else []
    )


def holds(ended: Ended, place: Path) -> None:
    """What is always true of a command that was stopped."""
    assert ended.reached
    assert "Traceback" not in ended.errors and "Traceback" not in ended.output, (
        ended.errors
    )
    assert "KeyboardInterrupt" not in ended.errors, ended.errors
    assert ended.code == 130, ended
    last = ended.errors.strip().splitlines()[-1]
    assert last.startswith("penstock: "), ended.errors
    for run in unfinished(place):
        assert f"penstock resume {run} --store {place / 'kept'}" in last
        assert "Nothing incomplete" not in last
    if not unfinished(place):
        assert "Run the same command again" in last


@pytest.mark.parametrize(("moment", "times"), list(presses()))
def test_ctrl_c_at_any_moment_ends_in_the_sentence(place, moment, times):
    ended = press(command(place), place, moment=moment, times=times)
    if moment == "penstock.cli.commands:print_result" or (
        moment == "penstock.train.checkpoint_manager:CheckpointManager.interrupted"
        and not ended.reached
    ):
        assert "Traceback" not in ended.errors
        assert ended.code in (0, 130)
        return
    holds(ended, place)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=LONG)]
)
def test_what_was_stopped_goes_on_when_the_same_is_asked_for_again(place, number):
    ended = press(
        command(place),
        place,
        moment="penstock.train.learner:Learner.step",
        after=3,
        times=1,
        number=number,
    )
    holds(ended, place)
    (run,) = unfinished(place)
    assert "A checkpoint is saved" in ended.errors
    again = press(
        command(place, "--json"),
        place,
        moment="penstock.cli.commands:print_result",
        times=0,
    )
    assert again.code == 0, again.errors
    assert (
        f"Continuing {run}, which has the same recipe and data and was interrupted"
        in again.errors
    )
    assert json.loads(again.output)["run"] == run


def test_a_terminal_that_goes_stops_it_as_sigterm_does(place):
    ended = press(
        command(place),
        place,
        moment="penstock.train.learner:Learner.step",
        after=3,
        times=1,
        number=signal.SIGHUP,
    )
    holds(ended, place)
    assert unfinished(place) and "A checkpoint is saved" in ended.errors


@pytest.mark.slow
def test_the_end_of_a_terminal_is_ignored_under_nohup(place):
    ended = press(
        command(place),
        place,
        moment="penstock.train.learner:Learner.step",
        times=2,
        number=signal.SIGHUP,
        ignored=True,
    )
    assert ended.code == 0, ended.errors


@pytest.mark.slow
def test_the_real_end_of_a_terminal_saves_a_checkpoint(place):
    """What it says reaches nobody then: its standard streams are the terminal's, and fail."""
    ours, theirs = pty.openpty()
    words = [
        sys.executable,
        "-m",
        "penstock",
        *command(
            place,
            "--set",
            "train.epochs=100000",
            "--set",
            "train.early_stop=null",
            "--set",
            "train.checkpoint={every_steps: 5}",
        ),
    ]
    with subprocess.Popen(
        words,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=owns_its_terminal,
    ) as process:
        os.close(theirs)
        reading = threading.Thread(target=drained, args=(ours,), daemon=True)
        reading.start()
        try:
            until(
                lambda: list(
                    (place / "kept" / "runs").glob("*/checkpoints/step-*/manifest.json")
                ),
                seconds=SECONDS,
            )
            os.kill(
                process.pid, signal.SIGSTOP
            )  # nobody reads or writes while the terminal goes
            os.close(ours)
            os.kill(process.pid, signal.SIGCONT)
            assert process.wait(SECONDS) == 130
        finally:
            process.kill()
    (run,) = unfinished(place)
    assert (
        json.loads((place / "kept" / "runs" / run / "run.json").read_text("utf-8"))[
            "status"
        ]
        == "interrupted"
    )


def owns_its_terminal() -> None:
    """The child's terminal is its standard input, and tells it when it goes."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def drained(file: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(file, 4096):
            pass


def test_fresh_begins_a_new_run(place):
    press(
        command(place),
        place,
        moment="penstock.train.learner:Learner.step",
        after=3,
        times=1,
    )
    (run,) = unfinished(place)
    again = press(
        command(place, "--json", "--fresh"),
        place,
        moment="penstock.cli.commands:print_result",
        times=0,
    )
    assert again.code == 0, again.errors
    assert json.loads(again.output)["run"] != run
    assert unfinished(place) == [run]


@pytest.mark.slow
def test_a_run_that_failed_is_named_and_a_new_one_begins(place, monkeypatch):
    recipe = [*command(place), "--set", "train.on_nan=stop"]
    failed = press(
        [*recipe, "--set", "train.lr=1e30"],
        place,
        moment="penstock.cli.commands:print_result",
        times=0,
    )
    assert failed.code == 4, failed.errors
    (run,) = unfinished(place)
    again = press(
        [*recipe, "--set", "train.lr=1e30"],
        place,
        moment="penstock.cli.commands:print_result",
        times=0,
    )
    assert again.code == 4
    assert (
        f"{run}, with the same recipe and data, failed" in again.errors
        and f"penstock resume {run}" in again.errors
    )
    assert len(unfinished(place)) == 2


def test_ctrl_c_is_ignored_where_it_was_from_the_start_and_sigterm_is_not(place):
    moment = "penstock.train.learner:Learner.step"
    ended = press(command(place), place, moment=moment, times=2, ignored=True)
    assert ended.code == 0, ended.errors
    ended = press(
        [*command(place), "--set", "seed=2"],
        place,
        moment=moment,
        times=1,
        number=signal.SIGTERM,
        ignored=True,
    )
    holds(ended, place)


@pytest.mark.parametrize(
    "times",
    [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(7, marks=LONG)],
)
def test_ctrl_c_reaches_several_processes_and_leaves_none(place, times):
    two = [
        "--set",
        "launcher.processes=2",
        "--set",
        "train.epochs=5000",
        "--set",
        "train.early_stop=null",
    ]
    ended = press(
        command(place, *two),
        place,
        moment="penstock.parts.launchers.local:find_stall",
        after=10,
        times=times,
    )
    holds(ended, place)
    assert not launched()


def test_hashing_a_file_without_an_end_is_left_at_once(tmp_path):
    """A terabyte of holes: threads hash it, which nobody could wait for."""
    with open(tmp_path / "holes.csv", "wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "recipe.yaml").write_text(
        "name: holes\nsource: {type: files, path: holes.csv}\n", "utf-8"
    )
    ended = press(
        ["prepare", str(tmp_path / "recipe.yaml"), "--store", str(tmp_path / "kept")],
        tmp_path,
        moment="penstock.formats.file_hashes:digest_of",
        times=1,
    )
    holds(ended, tmp_path)


def test_json_has_the_sentence_too(place):
    ended = press(
        command(place, "--json"),
        place,
        moment="penstock.pipeline.stages:prepare",
        times=1,
    )
    said = json.loads(ended.output)
    assert said["error"] == "Interrupted"
    assert said["message"].startswith("Stopped. ")


# -- the policy itself, without signals ----------------------------------------------------------------------


def test_the_first_asks_the_second_insists_and_the_rest_are_ignored():
    mine = Interrupts()
    told = []
    with mine.installed(), mine.graceful(lambda: told.append("once")) as request:
        assert not request.is_made
        mine.receive(signal.SIGINT)
        assert request.is_made and told == ["once"]
        with pytest.raises(KeyboardInterrupt):
            mine.receive(signal.SIGINT)
        for _ in range(3 * FORCED_AFTER):  # a session of the user's own is never ended
            mine.receive(signal.SIGINT)
        assert told == ["once"]
        request.signals.clear()
    assert not mine.is_stopping


def test_a_wish_that_came_too_late_stops_before_the_next_stage():
    mine = Interrupts()
    with mine.installed(), mine.advice("Go on so."):
        with mine.graceful():
            mine.receive(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            mine.check()
        assert mine.sentence == "Stopped. Go on so."


def test_what_must_be_whole_is_finished_first():
    mine = Interrupts()
    steps = []

    def make():
        with mine.deferred():
            mine.receive(signal.SIGINT)
            steps.append("whole")

    with mine.installed(), pytest.raises(KeyboardInterrupt):
        make()
    assert steps == ["whole"]


def test_the_innermost_advice_at_the_moment_of_the_signal_is_shown():
    mine = Interrupts()
    with mine.installed(), mine.advice("outer"):
        with pytest.raises(KeyboardInterrupt), mine.advice("inner"):
            mine.receive(signal.SIGINT)
        assert mine.sentence == "Stopped. inner"


def test_handlers_are_given_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    mine = Interrupts()
    with mine.installed(), mine.graceful():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.slow
def test_a_run_may_be_stopped_again_after_it_went_on(place):
    """Stopped, gone on with, stopped again: one run."""
    for attempt in range(2):
        ended = press(
            command(place, "--set", "train.epochs=40"),
            place,
            moment="penstock.train.learner:Learner.step",
            after=3 + attempt,
            times=1,
        )
        holds(ended, place)
    assert len(unfinished(place)) == 1
    (run,) = unfinished(place)
    facts = json.loads((place / "kept" / "runs" / run / "run.json").read_text("utf-8"))
    assert facts["status"] == "interrupted"
