"""State that many share: a store, a bucket, a port, a process. Nothing that one of them does, or dies of, misleads another."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import penstock
import penstock.api
from penstock.core import drafts
from penstock.core import lease as lease_room
from penstock.core.bucket import Bucket
from penstock.core.errors import LeaseLost, StoreError, UserError
from penstock.core.events import Event, Events
from penstock.core.remote import Patience, as_here, heard, persist, tell
from penstock.core.store import MANIFEST, Store, atomic_write, seal
from penstock.parts.launchers import _door
from penstock.parts.launchers._door import Door, dial
from penstock.run import Run
from penstock.train import afar
from penstock.train.afar import Pusher
from penstock.train.relay import following
from penstock.train.trainer import train
from tests.faults import Line, faulty_s3
from tests.train.tiny import tiny_feed, tiny_recipe, tiny_run

SECONDS = 30.0
"""Whatever takes longer hangs."""


@contextlib.contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has printed one line, and waits for its input to end; killed at the end of the body."""
    words = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip()
            yield process
        finally:
            process.kill()


def until(condition: Any) -> None:
    """Wait for something that must come."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


# -- what a killed process leaves ----------------------------------------------------------------------------------------

DRAFTS = """
import sys
from penstock.core.store import Store
store = Store(sys.argv[1])
with store.scratch("scratch-") as scratch, store.draft("bundles/a", {}) as folder:
    (scratch / "rows").write_text("x")
    (folder / "weights").write_text("x")
    print("drafting", flush=True)
    sys.stdin.read()
"""


def staged(store: Path) -> list[str]:
    folder = store / ".staging"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_drafts_of_a_killed_process_are_swept_and_those_of_a_living_one_are_not(tmp_path: Path) -> None:
    with child(DRAFTS, tmp_path) as living, child(DRAFTS, tmp_path) as killed:
        killed.kill()
        killed.wait()
        assert len(staged(tmp_path)) == 8
        with Store(tmp_path).draft("bundles/b", {}) as folder:
            assert len(staged(tmp_path)) == 6  # two folders and their locks are the living one's, one pair is ours
            (folder / "w").write_text("y")
        living.communicate("", SECONDS)
        assert living.returncode == 0
    assert Store(tmp_path).names("bundles") == ["bundles/a", "bundles/b"]
    assert not (tmp_path / ".staging").exists()


def test_a_draft_of_another_machine_stays_until_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = tmp_path / ".staging"
    monkeypatch.setattr(drafts, "machine", lambda: "0" * 6)
    there = drafts.Draft(staging, "scratch-")
    (there.path / "rows").write_text("x")
    there._lock.close()  # its file system carries no locks to us
    monkeypatch.undo()
    drafts.Draft(staging).close()
    assert there.path.is_dir()
    old = time.time() - 2 * 24 * 3600
    for path in (*staging.rglob("*"), there.path):
        os.utime(path, (old, old))
    drafts.Draft(staging).close()
    assert not staging.exists()


def test_staging_of_an_earlier_version_is_swept_once_it_is_old(tmp_path: Path) -> None:
    left = tmp_path / ".staging" / "scratch-abc"
    left.mkdir(parents=True)
    foreign = tmp_path / ".staging" / "notes"
    foreign.mkdir()
    with Store(tmp_path).scratch():
        assert left.is_dir()
    for path in (left, foreign):
        os.utime(path, (0, 0))
    with Store(tmp_path).scratch():
        assert not left.exists() and foreign.is_dir()


def test_half_a_file_of_a_killed_writer_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from penstock.core.store import atomic_write
os.replace = lambda *_: (print("written", flush=True), sys.stdin.read())
atomic_write(Path(sys.argv[1]) / "run.json", "{}")
"""
    with child(code, tmp_path), child(code, tmp_path) as killed:
        killed.kill()
        killed.wait()
        atomic_write(tmp_path / ".mine.abcdefgh", "of the user")
        assert len([path for path in tmp_path.iterdir() if ".penstock-" in path.name]) == 1
    drafts._swept.clear()
    atomic_write(tmp_path / "run.json", "{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.abcdefgh", "run.json"]


# -- events of other processes -------------------------------------------------------------------------------------------


def test_events_may_be_read_in_the_middle_of_a_character(tmp_path: Path) -> None:
    heard_events: list[Event] = []
    line = Event("said", 1.0, {"text": "Tromsø 例"}).line().encode() + b"\n"
    with following(tmp_path / ".events", Events(heard_events.append)), open(tmp_path / ".events", "ab", buffering=0) as file:
        for place in range(len(line)):
            file.write(line[place : place + 1])
            if line[place] >= 0x80:
                time.sleep(0.25)  # at least one look of the reader at each half of a character
        file.write(b'{"time": 1, "eve\nnull\n')
        file.write(line)
    assert [event.fields["text"] for event in heard_events if event.name == "said"] == ["Tromsø 例"] * 2
    assert len([event for event in heard_events if event.name == "warned"]) == 2


class Stubborn:
    """A store in a bucket whose pushes fail as a plan says."""

    def __init__(self, folder: Path, failures: list[Exception]) -> None:
        self.folder, self.failures, self.pushed = folder, failures, []
        for step in (1, 2):
            checkpoint = folder / "runs" / "run-x" / "checkpoints" / f"step-{step}"
            checkpoint.mkdir(parents=True)
            (checkpoint / MANIFEST).write_text("{}")

    def at(self, name: str) -> Path:
        return self.folder / name

    def push(self, name: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.pushed.append(name.split("/")[-1])


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), StoreError("refused."), ZeroDivisionError("a defect")], ids=lambda e: type(e).__name__)
def test_an_uploader_reports_what_fails_and_goes_on(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(afar, "_FIRST_WAIT", 0.01)
    store = Stubborn(tmp_path, [error, error])
    pusher = Pusher(store, "runs/run-x")  # type: ignore[arg-type]
    pusher.push()
    until(lambda: len(store.pushed) == 2)
    pusher.close()
    texts = pusher.heard()
    assert [is_trouble for is_trouble, _ in texts] == [True, False]
    assert str(error) in texts[0][1] and "after 2 refusals" in texts[1][1]


def test_what_never_reached_the_bucket_is_reported_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(afar, "_FIRST_WAIT", 0.01)
    pusher = Pusher(Stubborn(tmp_path, [OSError(5, "Input/output error")] * 10_000), "runs/run-x")  # type: ignore[arg-type]
    pusher.push()
    pusher.close()
    is_trouble, text = pusher.heard()[-1]
    assert is_trouble and "step-1, step-2" in text and "not in the bucket" in text


# -- two trainings in one process ----------------------------------------------------------------------------------------


def test_two_trainings_in_one_process_hear_each_of_its_own() -> None:
    texts: dict[str, list[str]] = {"a": [], "b": []}
    waited: dict[str, int] = {"a": 0, "b": 0}
    both = threading.Barrier(2, timeout=SECONDS)

    def read(name: str) -> None:
        tries = iter([TimeoutError(f"{name} is slow"), None])

        def ask() -> None:
            if (error := next(tries)) is not None:
                raise error

        persist(ask, what=f"read {name}", patience=Patience(first_wait_seconds=0.001), is_read=True)
        tell(f"{name} was read")

    def training(name: str) -> None:
        def count() -> None:
            waited[name] += 1

        with heard(Events(lambda event: texts[name].append(event.fields["text"])), waiting=count):
            both.wait()
            read(name)
            helper = threading.Thread(target=as_here(read), args=(name,))
            helper.start()
            helper.join()
            both.wait()

    threads = [threading.Thread(target=training, args=(name,)) for name in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    for name, heard_texts in texts.items():
        assert heard_texts == [f"could not read {name} ({name} is slow); trying again", f"{name} was read", f"{name} was read"]
    assert waited == {"a": 2, "b": 2}


def test_a_thread_without_a_listener_is_heard_by_the_only_one_there_is() -> None:
    texts: list[str] = []
    with heard(Events(lambda event: texts.append(event.fields["text"]))):
        thread = threading.Thread(target=tell, args=("hello",))
        thread.start()
        thread.join()
    assert texts == ["hello"]


# -- a launcher's line ---------------------------------------------------------------------------------------------------


@pytest.fixture
def door() -> Iterator[tuple[Door, list[Any]]]:
    """A door whose key is `key`, and who has come in."""
    inside: list[Any] = []
    made = Door("127.0.0.1", b"key", backlog=8, welcome=inside.append)
    try:
        yield made, inside
    finally:
        made.close()
        for connection in inside:
            connection.close()


def test_callers_that_say_nothing_keep_nobody_waiting(door: tuple[Door, list[Any]]) -> None:
    listening, inside = door
    with contextlib.ExitStack() as stack:
        for greeting in (b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", b"\x7f\xff\xff\xff"):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", listening.port)))
            silent.sendall(greeting)
        with pytest.raises(Exception, match="digest"):
            dial("127.0.0.1", listening.port, b"another key")
        stack.enter_context(dial("127.0.0.1", listening.port, b"key"))
        until(lambda: len(inside) == 1)


def test_a_caller_has_so_long_and_no_longer(door: tuple[Door, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_door, "HANDSHAKE_SECONDS", 0.2)
    listening, inside = door
    with socket.create_connection(("127.0.0.1", listening.port), timeout=SECONDS) as slow, contextlib.suppress(ConnectionError):
        while slow.recv(4096):  # its challenge, then nothing: it has hung up
            pass
    assert not inside


def test_a_crowd_at_the_door_pushes_nobody_out_for_good(door: tuple[Door, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_door, "_CALLERS", 4)
    listening, inside = door
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.1", listening.port)))
        stack.enter_context(dial("127.0.0.1", listening.port, b"key"))
        until(lambda: len(inside) == 1)
        assert len(listening._callers) <= 4


def test_closing_the_door_ends_its_thread() -> None:
    listening = Door("127.0.0.1", b"key", backlog=1, welcome=lambda connection: None)
    waiting = socket.create_connection(("127.0.0.1", listening.port), timeout=SECONDS)
    closing = threading.Thread(target=listening.close)
    closing.start()
    closing.join(SECONDS)
    assert not closing.is_alive() and not listening._thread.is_alive()
    with waiting, contextlib.suppress(OSError):
        while waiting.recv(4096):
            pass


def test_a_rank_does_not_wait_for_a_silent_launcher_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_door, "HANDSHAKE_SECONDS", 0.1)
    monkeypatch.setattr(_door, "_DIAL_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(OSError, match="does not answer"):
        dial("127.0.0.1", silent.getsockname()[1], b"key")


# -- leases --------------------------------------------------------------------------------------------------------------

BEGIN = """
import sys
from pathlib import Path
from penstock.core.store import Store
from penstock.run import Run
from tests.train.tiny import tiny_recipe
store = Store(sys.argv[1])
if len(sys.argv) > 3:
    run = Run.open(store, sys.argv[3])
    try:
        run.begin()
    except Exception as error:
        print("refused", type(error).__name__, error, flush=True)
        sys.exit()
else:
    run = Run.create(store, tiny_recipe(Path(sys.argv[2])), dataset="d@0", feed="f", key="k")
print(run.id, flush=True)
for line in sys.stdin:
    try:
        exec(line)
        print("done", flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""


def say(process: subprocess.Popen[str], line: str) -> str:
    """What a `BEGIN` child answers to a line of Python."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def shared_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty store that child processes see, too."""
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "cache"))
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    with faulty_s3(monkeypatch, tmp_path) as line:
        yield line.store


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From here on this process, and its children, are another machine: another kernel, another mirror."""
    monkeypatch.setattr(lease_room, "boot", lambda: "another kernel")
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "another machine"))


def a_run(store: Store, folder: Path, key: str = "k" * 16) -> Run:
    return Run.create(store, tiny_recipe(folder), dataset="tiny@0123456789abcdef", feed="f" * 16, key=key)


def test_of_many_that_begin_a_run_at_once_one_does(shared_store: str, tmp_path: Path) -> None:
    store = Store(shared_store)
    run = a_run(store, tmp_path)
    run.record({"status": "interrupted"})
    words = [sys.executable, "-c", BEGIN, shared_store, str(tmp_path), run.id]
    started = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        answers = [process.stdout.readline().strip() for process in started if process.stdout is not None]
        assert sorted(answer == run.id for answer in answers) == [False, False, True]
        assert all("refused UserError" in answer for answer in answers if answer != run.id)
        assert Run.open(store, run.id).status == "running"
    finally:
        for process in started:
            process.kill()
            process.communicate()
    again = Run.open(store, run.id)
    assert again.status == "interrupted"
    again.begin()
    assert again.token == 3
    again.finish({})
    assert not store.leased(run.id).top()


def test_a_conditional_create_has_one_winner(shared_store: str, tmp_path: Path) -> None:
    shelf = Store(shared_store).leased("x").shelf
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: shelf.create("a/b", str(number).encode()), range(8)))
    assert made.count(True) == 1
    assert shelf.read("a/b") == str(made.index(True)).encode()


def test_a_bucket_that_does_not_heed_conditions_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.core.bucket._SETTLE_SECONDS", 0.2)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    bucket = Bucket(f"memory://{tmp_path.name}")
    put = bucket.system.pipe_file
    monkeypatch.setattr(bucket.system, "pipe_file", lambda path, data, mode="": put(path, data))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda number: bucket.create("a", str(number).encode()), range(4)))
    assert made.count(True) == 1 and not bucket._is_conditional
    assert not bucket.create("a", b"later")
    assert bucket.read("a") == str(made.index(True)).encode()


def test_a_run_of_another_machine_lives_while_its_count_moves_whatever_clocks_say(
    shared_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_LEASE_SECONDS", "1.5")
    with child_run(shared_store, tmp_path) as (process, id):
        elsewhere(monkeypatch, tmp_path)
        for path in (tmp_path / "store").rglob("*"):
            os.utime(path, (0, 0))
        store = Store(shared_store)
        assert Run.open(store, id).status == "running"
        with pytest.raises(UserError, match=rf"being trained right now by process {process.pid} on"):
            Run.open(store, id).begin()
        process.send_signal(signal.SIGSTOP)  # it lives, and its count stands still
        run = Run.open(store, id)
        until(lambda: begun(run))  # it may have moved a moment ago
        assert run.token == 2
        process.send_signal(signal.SIGCONT)
        said = say(process, "run.record({'status': 'failed'})")
        assert said.startswith("LeaseLost") and "token 2 after 1" in said
        assert say(process, "run.finish({})").startswith("LeaseLost")
        assert Run.open(store, id).status == "running"
        run.finish({"epochs": 1})
        assert Run.open(Store(shared_store), id).status == "done"


def test_the_death_of_a_run_elsewhere_is_watched_once(shared_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_LEASE_SECONDS", "1.5")
    with child_run(shared_store, tmp_path) as (process, id):
        process.kill()
        process.wait()
    assert Run.open(Store(shared_store), id).status == "interrupted"  # the kernel says so
    elsewhere(monkeypatch, tmp_path)
    assert Run.open(Store(shared_store), id).status == "interrupted"
    monkeypatch.setattr(lease_room.time, "sleep", lambda seconds: pytest.fail("it was watched again"))
    assert Run.open(Store(shared_store), id).status == "interrupted"


def begun(run: Run) -> bool:
    """Whether the run could be begun."""
    try:
        run.begin()
    except UserError:
        return False
    return True


@contextlib.contextmanager
def child_run(store: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that has begun a run, and its id."""
    words = [sys.executable, "-c", BEGIN, store, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_stale_trainer_writes_no_checkpoint(tmp_path: Path) -> None:
    recipe, store = tiny_recipe(tmp_path, checkpoint={"every_steps": 1}), Store(tmp_path / "store")
    feed = tiny_feed(store, recipe)
    run = tiny_run(store, recipe, feed)
    begin, after = Run.begin, store.leased(run.id)

    def usurped(self: Run, events: Events | None = None) -> None:
        begin(self, events)
        after.shelf.create(after.key(self.token + 1, "json"), b"{}")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Run, "begin", usurped)
        with pytest.raises(LeaseLost, match="in other hands"):
            train(recipe, feed, run, Events())
    assert not list(run.checkpoints.glob("step-*"))
    assert not run.weights.exists()


def test_two_trainings_of_one_run_in_one_process(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    run = a_run(store, tmp_path)
    with run.at_work(), pytest.raises(UserError, match="being trained right now"):
        Run.open(store, run.id).begin()
    again = Run.open(store, run.id)
    again.begin()
    with pytest.raises(LeaseLost):
        run.record({"status": "failed"})


# -- the mirror ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setenv("PENSTOCK_LEASE_SECONDS", "1.5")
    with faulty_s3(monkeypatch, tmp_path) as line:
        yield line


def test_a_mirror_made_while_a_run_was_in_progress_is_renewed(bucket: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Store(bucket.store)
    run = a_run(here, tmp_path)
    checkpoint = run.checkpoints / "step-0000000001"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"one")
    seal(checkpoint, {"type": "checkpoint"})
    here.push(f"runs/{run.id}")
    with monkeypatch.context() as patched:
        elsewhere(patched, tmp_path)
        there = Run.open(Store(bucket.store), run.id)
        assert there.status == "running" and (there.checkpoints / checkpoint.name / "model.safetensors").read_bytes() == b"one"
    run.weights.write_bytes(b"weights")
    run.finish({"epochs": 1})
    elsewhere(monkeypatch, tmp_path)
    store = Store(bucket.store)
    bucket.asked.clear()
    assert penstock.api.list_artefacts("runs", store=store)[0]["status"] == "done"
    assert not bucket.count("GET", "safetensors") and not bucket.count("GET", "checkpoints")
    found = Run.find(store, "k" * 16)
    assert found is not None and found.summary == {"epochs": 1} and not bucket.count("GET", "safetensors")
    assert found.verified().read_bytes() == b"weights" and bucket.count("GET", "step-0000000001") == 0
    assert found.weights.read_bytes() == b"weights"


def test_a_run_goes_on_here_from_what_another_machine_left(bucket: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun here, gone on with there, and taken up here again: the older checkpoints of here are not taken for the newest."""
    def checkpoint(run: Run, step: int, content: bytes) -> None:
        folder = run.checkpoints / f"step-{step:010d}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(content)
        seal(folder, {"type": "checkpoint"})

    run = a_run(Store(bucket.store), tmp_path)
    checkpoint(run, 1, b"one")
    run.record({"status": "interrupted"})
    checkpoint(run, 9, b"never pushed")
    with monkeypatch.context() as patched:
        elsewhere(patched, tmp_path)
        there = Run.open(Store(bucket.store), run.id)
        there.begin()
        checkpoint(there, 5, b"five")
        there.record({"status": "interrupted"})
    again = Run.open(Store(bucket.store), run.id)
    again.begin()
    assert [path.name[-1] for path in sorted(again.checkpoints.glob("step-*"))] == ["1", "5"]
    assert again.token == 3


def test_what_was_written_here_last_is_kept_though_the_bucket_never_got_it(bucket: Line, tmp_path: Path) -> None:
    run = a_run(Store(bucket.store), tmp_path)
    run.record({"status": "interrupted"})
    (run.checkpoints / "step-0000000009").mkdir(parents=True)
    (run.checkpoints / "step-0000000009" / "x").write_bytes(b"never pushed")
    again = Run.open(Store(bucket.store), run.id)
    again.begin()
    assert (again.checkpoints / "step-0000000009" / "x").exists()


def test_listing_and_finding_read_small_files_only_and_each_once(bucket: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Store(bucket.store)
    for number in range(6):
        run = a_run(here, tmp_path, key=f"key-{number}")
        run.weights.write_bytes(b"w")
        run.finish({})
    elsewhere(monkeypatch, tmp_path)
    bucket.asked.clear()
    assert [row["status"] for row in penstock.api.list_artefacts("runs", store=Store(bucket.store))] == ["done"] * 6
    assert bucket.count("GET", "run.json") == 6 and not bucket.count("GET", "manifest.json") and not bucket.count("GET", "safetensors")
    bucket.asked.clear()
    found = Run.find(Store(bucket.store), "key-3")
    assert found is not None and found.key == "key-3"
    assert bucket.count("GET", "run.json") == 1 and not bucket.count("GET", "manifest.json")
    assert Run.find(Store(bucket.store), "key-33") is None


def test_runs_without_markers_are_found_and_marked(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for key in ("a", "b", "a key with spaces / and slashes"):
        a_run(store, tmp_path, key=key).finish({})
    shutil.rmtree(tmp_path / "store" / "index")
    (tmp_path / "store" / "runs" / "run-torn").mkdir()
    for key in ("b", "a key with spaces / and slashes"):
        found = Run.find(store, key)
        assert found is not None and found.key == key
    assert len(list((tmp_path / "store" / "index" / "runs").iterdir())) == 3
    assert len(penstock.api.list_artefacts("runs", store=store)) == 3


@pytest.mark.slow
def test_the_mirror_is_bounded_and_loses_nothing_that_is_needed(bucket: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Store(bucket.store)
    for name in "abcd":
        with here.draft(f"bundles/{name}", {}) as folder:
            (folder / "w").write_bytes(name.encode() * 40_000)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "another machine"))
    code = """
import sys
from penstock.core.store import Store
store = Store(sys.argv[1], cache_bytes=100_000)
for name in sys.argv[2]:
    store.open(f"bundles/{name}", verify=True)
print("opened", flush=True)
sys.stdin.read()
"""
    mirror = Store(bucket.store).folder

    def kept() -> list[str]:
        return sorted(path.name for path in (mirror / "bundles").iterdir())

    with child(code, bucket.store, "ab"):
        pass
    unsent = mirror / "bundles" / "unsent"
    unsent.mkdir()
    (unsent / "w").write_bytes(b"u" * 40_000)
    seal(unsent, {})
    with child(code, bucket.store, "b"), child(code, bucket.store, "cd"):
        assert kept() == ["b", "c", "d", "unsent"]  # a was used by nobody; the bucket lacks `unsent`
    with child(code, bucket.store, "a"):
        assert kept() == ["a", "unsent"]


# -- a store that may only be read ---------------------------------------------------------------------------------------


def test_a_run_with_nothing_to_do_needs_no_writing(people: Path, tmp_path: Path) -> None:
    shutil.copytree(people, tmp_path / "people")
    recipe, store = tmp_path / "people" / "recipe.yaml", tmp_path / "store"
    penstock.run(recipe, store=store)
    skipped = "penstock.run(sys.argv[1], store=sys.argv[2]).skipped"
    listed = "[row['status'] for row in penstock.api.list_artefacts('runs', store=sys.argv[2])]"
    everything = dict.fromkeys(("prepare", "encode", "train", "pack", "evaluate"), True)
    assert as_reader(f"({skipped}, {listed})", tmp_path, recipe, store) == str((everything, ["done"]))


def as_reader(expression: str, folder: Path, *arguments: object) -> str:
    """What a Python expression is for a process that may read everything below `folder`, and write nothing of it."""
    code = f"""
import os, sys
import penstock, penstock.api
try:
    open(os.path.join(sys.argv[2], "probe"), "w")
except PermissionError:
    print({expression})
else:
    sys.exit("the store can be written")
"""
    modes = {path: path.stat().st_mode for path in (*folder.rglob("*"), folder)}
    for path in modes:
        path.chmod(0o555 if path.is_dir() else 0o444)
    environment = {**os.environ, "PENSTOCK_CACHE": "/proc/none"}
    words = [sys.executable, "-c", code, *map(str, arguments)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False, env=environment, preexec_fn=without_override)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def without_override() -> None:
    """What is executed from here on may not pass over the modes of files, even where it is root's."""
    drop_from_bounding_set, may_override = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, may_override, 0, 0, 0)
