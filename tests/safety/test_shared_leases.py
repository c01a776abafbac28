"""Leases, and the mirrors of a bucket: one process at a time works on a run, and every machine sees it as it
is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import penstock
import penstock.api
from penstock.core import lease as lease_room
from penstock.core.bucket import Bucket
from penstock.core.errors import LeaseLost, UserError
from penstock.core.events import Events
from penstock.core.shelf import FolderShelf
from penstock.core.store import Store, seal
from penstock.run import Run
from penstock.train.supervisor import train
from tests.faults import Line, faulty_s3
from tests.safety.children import child, say, until
from tests.train.tiny import tiny_feed, tiny_recipe, tiny_run

# -- leases --------------------------------------------------------------------------------------------------

BEGIN = """
import sys
from pathlib import Path
from penstock.core.store import Store
from penstock.run import Run
from tests.train.tiny import tiny_recipe
store = Store(sys.argv[1])
if len(sys.argv) > 3:
    run = Run.open(store, reference=sys.argv[3])
    try:
        run.begin()
    except Exception as error:
        print("refused", type(error).__name__, error, flush=True)
        sys.exit()
else:
    run = Run.create(store, recipe=tiny_recipe(Path(sys.argv[2])), dataset="d@0", feed="f", key="k")
print(run.id, flush=True)
for line in sys.stdin:
    try:
        exec(line)
        print("done", flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From here on this process, and its children, are another machine: another kernel, another mirror."""
    monkeypatch.setattr(lease_room, "boot", lambda: "another kernel")
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / "another machine"))


def a_run(store: Store, folder: Path, key: str = "k" * 16) -> Run:
    return Run.create(
        store,
        recipe=tiny_recipe(folder),
        dataset="tiny@0123456789abcdef",
        feed="f" * 16,
        key=key,
    )


def test_of_many_that_begin_a_run_at_once_one_does(
    shared_store: str, tmp_path: Path
) -> None:
    store = Store(shared_store)
    run = a_run(store, tmp_path)
    run.record({"status": "interrupted"})
    words = [sys.executable, "-c", BEGIN, shared_store, str(tmp_path), run.id]
    started = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        answers = [
            process.stdout.readline().strip()
            for process in started
            if process.stdout is not None
        ]
        assert sorted(answer == run.id for answer in answers) == [False, False, True]
        assert all(
            "refused UserError" in answer for answer in answers if answer != run.id
        )
        assert Run.open(store, reference=run.id).status == "running"
    finally:
        for process in started:
            process.kill()
            process.communicate()
    again = Run.open(store, reference=run.id)
    assert again.status == "interrupted"
    again.begin()
    assert again.token == 3
    again.finish({})
    assert not store.leased(run.id).top()


def test_a_conditional_create_has_one_winner(shared_store: str, tmp_path: Path) -> None:
    shelf = Store(shared_store).leased("x").shelf
    with ThreadPoolExecutor(8) as pool:
        made = list(
            pool.map(lambda number: shelf.create("a/b", str(number).encode()), range(8))
        )
    assert made.count(True) == 1
    assert shelf.read("a/b") == str(made.index(True)).encode()


def test_a_bucket_that_does_not_heed_conditions_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.core.bucket._SETTLE_SECONDS", 0.2)
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    bucket = Bucket(f"memory://{tmp_path.name}")
    put = bucket.system.pipe_file
    monkeypatch.setattr(
        bucket.system, "pipe_file", lambda path, data, mode="": put(path, data)
    )
    with ThreadPoolExecutor(4) as pool:
        made = list(
            pool.map(lambda number: bucket.create("a", str(number).encode()), range(4))
        )
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
        assert Run.open(store, reference=id).status == "running"
        with pytest.raises(
            UserError, match=rf"being trained by process {process.pid} on"
        ):
            Run.open(store, reference=id).begin()
        process.send_signal(signal.SIGSTOP)  # it lives, and its count stands still
        run = Run.open(store, reference=id)
        until(lambda: begun(run))  # it may have moved a moment ago
        assert run.token == 2
        process.send_signal(signal.SIGCONT)
        said = say(process, "run.record({'status': 'failed'})")
        assert said.startswith("LeaseLost") and "token 2 after 1" in said
        assert say(process, "run.finish({})").startswith("LeaseLost")
        assert Run.open(store, reference=id).status == "running"
        run.finish({"epochs": 1})
        assert Run.open(Store(shared_store), reference=id).status == "done"


def test_the_death_of_a_run_elsewhere_is_watched_once(
    shared_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_LEASE_SECONDS", "1.5")
    with child_run(shared_store, tmp_path) as (process, id):
        process.kill()
        process.wait()
    assert (
        Run.open(Store(shared_store), reference=id).status == "interrupted"
    )  # the kernel says so
    elsewhere(monkeypatch, tmp_path)
    assert Run.open(Store(shared_store), reference=id).status == "interrupted"
    monkeypatch.setattr(
        lease_room.time, "sleep", lambda seconds: pytest.fail("it was watched again")
    )
    assert Run.open(Store(shared_store), reference=id).status == "interrupted"


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
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_stale_trainer_writes_no_checkpoint(tmp_path: Path) -> None:
    recipe, store = (
        tiny_recipe(tmp_path, checkpoint={"every_steps": 1}),
        Store(tmp_path / "store"),
    )
    feed = tiny_feed(store, recipe)
    run = tiny_run(store, recipe, feed)
    begin, after = Run.begin, store.leased(run.id)

    def usurped(self: Run, events: Events | None = None) -> None:
        begin(self, events)
        after.shelf.create(after.key(self.token + 1, "json"), b"{}")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Run, "begin", usurped)
        with pytest.raises(LeaseLost, match="was taken over by"):
            train(recipe, feed, run, Events())
    assert not list(run.checkpoints.glob("step-*"))
    assert not run.weights.exists()


def test_two_trainings_of_one_run_in_one_process(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    run = a_run(store, tmp_path)
    with run.at_work(), pytest.raises(UserError, match="being trained"):
        Run.open(store, reference=run.id).begin()
    again = Run.open(store, reference=run.id)
    again.begin()
    with pytest.raises(LeaseLost):
        run.record({"status": "failed"})


# -- the mirror ----------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setenv("PENSTOCK_LEASE_SECONDS", "1.5")
    with faulty_s3(monkeypatch, tmp_path) as line:
        yield line


def test_a_mirror_made_while_a_run_was_in_progress_is_renewed(
    bucket: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Store(bucket.store)
    run = a_run(here, tmp_path)
    checkpoint = run.checkpoints / "step-0000000001"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"one")
    seal(checkpoint, {"type": "checkpoint"})
    here.push(f"runs/{run.id}")
    with monkeypatch.context() as patched:
        elsewhere(patched, tmp_path)
        there = Run.open(Store(bucket.store), reference=run.id)
        assert (
            there.status == "running"
            and (there.checkpoints / checkpoint.name / "model.safetensors").read_bytes()
            == b"one"
        )
    run.weights.write_bytes(b"weights")
    run.finish({"epochs": 1})
    elsewhere(monkeypatch, tmp_path)
    store = Store(bucket.store)
    bucket.asked.clear()
    assert penstock.api.list_artefacts("runs", store=store)[0]["status"] == "done"
    assert not bucket.count("GET", "safetensors") and not bucket.count(
        "GET", "checkpoints"
    )
    found = Run.find(store, key="k" * 16)
    assert (
        found is not None
        and found.summary == {"epochs": 1}
        and not bucket.count("GET", "safetensors")
    )
    assert (
        found.verified().read_bytes() == b"weights"
        and bucket.count("GET", "step-0000000001") == 0
    )
    assert found.weights.read_bytes() == b"weights"


def test_a_run_goes_on_here_from_what_another_machine_left(
    bucket: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun here, gone on with there, and taken up here again: the older checkpoints of here are not taken
    for the newest.
    """

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
        there = Run.open(Store(bucket.store), reference=run.id)
        there.begin()
        checkpoint(there, 5, b"five")
        there.record({"status": "interrupted"})
    again = Run.open(Store(bucket.store), reference=run.id)
    again.begin()
    assert [path.name[-1] for path in sorted(again.checkpoints.glob("step-*"))] == [
        "1",
        "5",
    ]
    assert again.token == 3


def test_what_was_written_here_last_is_kept_though_the_bucket_never_got_it(
    bucket: Line, tmp_path: Path
) -> None:
    run = a_run(Store(bucket.store), tmp_path)
    run.record({"status": "interrupted"})
    (run.checkpoints / "step-0000000009").mkdir(parents=True)
    (run.checkpoints / "step-0000000009" / "x").write_bytes(b"never pushed")
    again = Run.open(Store(bucket.store), reference=run.id)
    again.begin()
    assert (again.checkpoints / "step-0000000009" / "x").exists()


def test_listing_and_finding_read_small_files_only_and_each_once(
    bucket: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Store(bucket.store)
    for number in range(6):
        run = a_run(here, tmp_path, key=f"key-{number}")
        run.weights.write_bytes(b"w")
        run.finish({})
    elsewhere(monkeypatch, tmp_path)
    bucket.asked.clear()
    assert [
        row["status"]
        for row in penstock.api.list_artefacts("runs", store=Store(bucket.store))
    ] == ["done"] * 6
    assert (
        bucket.count("GET", "run.json") == 6
        and not bucket.count("GET", "manifest.json")
        and not bucket.count("GET", "safetensors")
    )
    bucket.asked.clear()
    found = Run.find(Store(bucket.store), key="key-3")
    assert found is not None and found.key == "key-3"
    assert bucket.count("GET", "run.json") == 1 and not bucket.count(
        "GET", "manifest.json"
    )
    assert Run.find(Store(bucket.store), key="key-33") is None


def test_runs_without_markers_are_found_and_marked(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for key in ("a", "b", "a key with spaces / and slashes"):
        a_run(store, tmp_path, key=key).finish({})
    shutil.rmtree(tmp_path / "store" / "index")
    (tmp_path / "store" / "runs" / "run-torn").mkdir()
    for key in ("b", "a key with spaces / and slashes"):
        found = Run.find(store, key=key)
        assert found is not None and found.key == key
    assert len(list((tmp_path / "store" / "index" / "runs").iterdir())) == 3
    assert len(penstock.api.list_artefacts("runs", store=store)) == 3


@pytest.mark.slow
def test_the_mirror_is_bounded_and_loses_nothing_that_is_needed(
    bucket: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Store(bucket.store)
    for name in "abcd":
        with here.draft(f"bundles/{name}", manifest={}) as folder:
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
        assert kept() == [
            "b",
            "c",
            "d",
            "unsent",
        ]  # a was used by nobody; the bucket lacks `unsent`
    with child(code, bucket.store, "a"):
        assert kept() == ["a", "unsent"]


def test_what_one_user_of_a_store_keeps_others_may_read(tmp_path):
    (tmp_path / "leases").mkdir(mode=0o775)
    (tmp_path / "leases").chmod(0o775)
    shelf = FolderShelf(tmp_path)
    assert shelf.create("leases/a", b"1")
    shelf.write("leases/b", b"2")
    modes = {
        path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "leases").iterdir()
    }
    assert modes == {"a": 0o664, "b": 0o664}
