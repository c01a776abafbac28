"""One maker at a time: who would make the same waits, says for whom, and uses what was made."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.core import lease as lease_room
from penstock.core.errors import StoreError
from penstock.core.events import Event, Events
from penstock.core.lease import FOLDER
from penstock.core.making import made_once, making
from penstock.core.store import Store
from penstock.pipeline import stages
from tests.safety.children import SECONDS, child, say, until

MAKER = """
import os, sys
from penstock.core.events import Events
from penstock.core.making import made_once
from penstock.core.store import Store

def make():
    print("making", flush=True)
    word = sys.stdin.readline().strip()
    if word != "finish":
        raise ValueError(word)
    with store.draft("feeds/a", manifest={}) as folder:
        (folder / "x").write_text(str(os.getpid()))
    return str(os.getpid())

store = Store(sys.argv[1])
found = lambda: store.open("feeds/a").path.joinpath("x").read_text() if store.has("feeds/a") else None
events = Events(lambda event: print(event.fields["text"], flush=True))
print("made by", made_once(store, "feeds/a", "feed a", events, find=found, make=make), flush=True)
sys.stdin.read()
"""


def leases(store: str) -> list[str]:
    return (
        sorted(Store(store).leased("x").shelf.below(FOLDER))
        if "://" in store
        else sorted(
            path.relative_to(store).as_posix()
            for path in (Path(store) / FOLDER).rglob("*")
            if path.is_file()
        )
    )


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_maker_says_whom_it_waits_for_and_uses_what_was_made(
    shared_store: str,
) -> None:
    with child(MAKER, shared_store) as first, child(MAKER, shared_store) as second:
        # `child` has read the first line of each: "making" of the first, and what the second waits for
        assert say(first, "finish") == f"made by {first.pid}"
        assert (
            heard(second)
            == f"process {first.pid} on {os.uname().nodename} is no longer making feed a"
        )
        assert heard(second) == "Using feed a, which the other process made"
        assert heard(second) == f"made by {first.pid}"
    assert not leases(shared_store)


def test_the_words_of_the_waiting_name_host_process_and_moment(tmp_path: Path) -> None:
    texts: list[str] = []
    with child(MAKER, tmp_path / "store") as first, ThreadPoolExecutor(1) as pool:
        second = pool.submit(wanted, tmp_path / "store", texts)
        until(lambda: texts)
        assert (
            f"process {first.pid} on {os.uname().nodename} has been making feed a since 20"
            in texts[0]
        )
        assert "Waiting for its result" in texts[0] and "Ctrl-C" in texts[0]
        say(first, "finish")
        assert second.result(SECONDS) == str(first.pid)


def wanted(folder: Path | str, texts: list[str], *, waits: bool = True) -> str:
    """What this process gets of the feed `a`: its maker's number, or `here`."""
    store = Store(folder)

    def found() -> str | None:
        return (
            store.open("feeds/a").path.joinpath("x").read_text()
            if store.has("feeds/a")
            else None
        )

    events = Events(lambda event: texts.append(event.fields["text"]))
    return made_once(
        store, "feeds/a", "feed a", events, find=found, make=lambda: "here", waits=waits
    )


@pytest.mark.parametrize("end", ["killed", "failed"])
def test_a_maker_that_was_killed_or_failed_is_taken_over(
    end: str, shared_store: str
) -> None:
    texts: list[str] = []
    with child(MAKER, shared_store) as first, ThreadPoolExecutor(1) as pool:
        second = pool.submit(wanted, shared_store, texts)
        until(lambda: texts)
        if end == "killed":
            first.kill()
        else:
            first.communicate("fail\n", SECONDS)
        assert second.result(SECONDS) == "here"
    assert texts[-1].endswith("is no longer making feed a")
    assert not leases(shared_store)


def test_a_maker_elsewhere_is_watched_and_taken_over_when_its_count_stands_still(
    shared_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_LEASE_SECONDS", "1.5")
    texts: list[str] = []
    with child(MAKER, shared_store) as first, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(lease_room, "boot", lambda: "another kernel")
        second = pool.submit(wanted, shared_store, texts)
        until(lambda: any("has been making" in text for text in texts))
        first.send_signal(signal.SIGSTOP)
        assert second.result(SECONDS) == "here"
        first.send_signal(
            signal.SIGCONT
        )  # what it makes now is published beside nobody's
        assert say(first, "finish") == f"made by {first.pid}"
    assert any(
        "Waiting up to 2 s to see whether it is still running" in text for text in texts
    )
    assert wanted(shared_store, []) == str(first.pid)


def test_who_does_not_wait_says_so_and_makes_it_beside(tmp_path: Path) -> None:
    texts: list[str] = []
    with child(MAKER, tmp_path) as first:
        assert wanted(tmp_path, texts, waits=False) == "here"
        assert texts == [
            f"process {first.pid} on {os.uname().nodename} is making feed a as well; this process does"
            " not wait for it"
        ]
        assert say(first, "finish") == f"made by {first.pid}"


def test_of_many_at_once_one_makes_it(tmp_path: Path) -> None:
    """Threads of one process, each with its own store object: they come, fail, go and come again."""
    inside, most, fails = [0], [0], [0]

    def work(number: int) -> None:
        for turn in range(12):
            try:
                with making(Store(tmp_path), "feeds/a", "feed a", Events()):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
                    if (number + turn) % 3 == 0:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                fails[0] += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert most == [1] and fails == [16]
    with making(Store(tmp_path), "feeds/b", "feed b", Events()):
        pass
    assert not leases(str(tmp_path))


def test_a_lease_of_a_killed_maker_is_swept_by_whoever_makes_something_else(
    tmp_path: Path,
) -> None:
    with (
        child(MAKER, tmp_path) as killed,
        child(MAKER.replace("feeds/a", "feeds/c"), tmp_path),
    ):
        killed.kill()
        killed.wait()
        assert len(leases(str(tmp_path))) == 4
        with making(Store(tmp_path), "feeds/b", "feed b", Events()):
            assert len(leases(str(tmp_path))) == 4  # the living one's, and ours
        assert len(leases(str(tmp_path))) == 2


def test_a_lease_that_was_let_go_for_good_between_two_looks_is_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens begin anew then; who has counted on from the old ones withdraws."""
    leased = Store(tmp_path).leased("making-x")
    first = lease_room.Lease.acquire(leased)
    first.release()
    others: list[lease_room.Lease] = []
    create = leased.shelf.create

    def late(key: str, data: bytes) -> bool:
        # between its look and its writing the lease ends, and another takes it from the beginning
        if not others:
            others.append(None)  # type: ignore[arg-type]
            first._drop(first.token, "json", "beat", "lock")
            others[0] = lease_room.Lease.acquire(Store(tmp_path).leased("making-x"))
        return create(key, data)

    monkeypatch.setattr(leased.shelf, "create", late)
    with pytest.raises(lease_room.Held):
        lease_room.Lease.acquire(leased)
    assert others[0].token == 1 and leased.top() == 1
    others[0].end()


def test_a_link_leads_no_lease_out_of_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (store.folder / FOLDER).symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(StoreError, match="a link leads it out"),
        making(store, "feeds/a", "feed a", Events()),
    ):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


# -- two runs of one recipe ----------------------------------------------------------------------------------


@pytest.fixture
def place(people: Path, tmp_path: Path) -> Path:
    shutil.copytree(people, tmp_path / "people")
    return tmp_path


QUICK = ["train.epochs=2", "evaluate.bootstrap=10"]


def test_two_trainings_of_one_recipe_at_once_are_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads, as two processes would be; the first one's training stands still until the second waits
    for it.
    """
    waits, trainings = threading.Event(), [0]
    texts: list[str] = []
    train_into = stages.train_into

    def standing(*positional: Any, **words: Any) -> Any:
        trainings[0] += 1
        assert waits.wait(SECONDS)
        return train_into(*positional, **words)

    def hear(event: Event) -> None:
        texts.append(event.fields.get("text", ""))
        if "has been making the training of 'people'" in texts[-1]:
            waits.set()

    def trained(_: int) -> penstock.Run:
        return penstock.train(
            place / "people" / "recipe.yaml",
            overrides=QUICK[:1],
            store=place / "kept",
            events=Events(hear),
        )

    monkeypatch.setattr(stages, "train_into", standing)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(trained, range(2))
    assert trainings == [1] and first.id == second.id
    for shelf in ("runs", "feeds", "datasets/people"):
        assert len(list((place / "kept" / shelf).iterdir())) == 1
    assert "Using the training of 'people', which the other process made" in texts
    assert not leases(str(place / "kept"))


def command(place: Path, *words: str) -> subprocess.Popen[str]:
    settings = [word for setting in QUICK for word in ("--set", setting)]
    line = [
        sys.executable,
        "-m",
        "penstock",
        "run",
        str(place / "people" / "recipe.yaml"),
        "--store",
        str(place / "kept"),
        "--json",
        *settings,
        *words,
    ]
    return subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hears_interrupts,
    )


def hears_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_two_commands_at_once_end_in_one_of_each(place: Path) -> None:
    both = [command(place), command(place)]
    ended = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    first, second = (json.loads(output) for output, _ in ended)
    for word in ("dataset", "run", "bundle", "metrics"):
        assert first[word] == second[word]
    for shelf in ("runs", "bundles", "feeds", "reports"):
        assert len(list((place / "kept" / shelf).iterdir())) == 1
    assert any(
        " has been making " in errors or " was making " in errors for _, errors in ended
    )


@pytest.mark.slow
def test_a_command_that_waits_is_stopped_by_ctrl_c_at_once(place: Path) -> None:
    first = command(
        place, "--set", "train.epochs=100000", "--set", "train.early_stop=null"
    )
    second = None
    try:
        runs = place / "kept" / "runs"
        until(lambda: runs.is_dir() and list(runs.glob("*/events.jsonl")), seconds=120)
        second = command(
            place, "--set", "train.epochs=100000", "--set", "train.early_stop=null"
        )
        assert second.stderr is not None
        assert any(
            "Waiting for its result" in line for line in iter(second.stderr.readline, "")
        )
        second.send_signal(signal.SIGINT)
        output, errors = second.communicate(timeout=SECONDS)
        assert second.returncode == 130, errors
        said = json.loads(output)
        assert (
            said["error"] == "Interrupted"
            and "Run the same command again" in said["message"]
            and "Traceback" not in errors
        )
        assert first.poll() is None and len(list(runs.iterdir())) == 1
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.communicate()


@pytest.mark.slow
def test_the_training_of_a_command_that_was_killed_is_gone_on_with_by_the_one_that_waits(
    place: Path,
) -> None:
    words = (
        "--set",
        "train.epochs=60",
        "--set",
        "train.early_stop=null",
        "--set",
        "train.checkpoint={every_steps: 1}",
    )
    first, second = command(place, *words), None
    try:
        runs = place / "kept" / "runs"
        until(lambda: list(runs.glob("*/checkpoints/step-*/manifest.json")), seconds=120)
        second = command(place, *words)
        assert second.stderr is not None
        lines = iter(second.stderr.readline, "")
        assert any("Waiting for its result" in line for line in lines)
        first.kill()
        output, errors = second.communicate(timeout=240)
        assert second.returncode == 0, errors
        (run,) = runs.iterdir()
        assert json.loads(output)["run"] == run.name
        assert (
            f"Continuing {run.name}, which has the same recipe and data and was interrupted"
            in errors
        )
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.communicate()
