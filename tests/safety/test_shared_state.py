"""State that many share: a store, a bucket, a port, a process.

Nothing that one of them does, or dies of, misleads another.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
import penstock.api
from penstock.core import drafts
from penstock.core.errors import StoreError
from penstock.core.events import Event, Events
from penstock.core.listeners import as_here, listening, notify
from penstock.core.retries import Patience, retry
from penstock.core.store import MANIFEST, Store, atomic_write
from penstock.parts.launchers import _door
from penstock.parts.launchers._door import Door, dial
from penstock.train import checkpoint_uploader
from penstock.train.checkpoint_uploader import CheckpointUploader
from penstock.train.event_forwarding import following
from tests.safety.children import SECONDS, child, until

# -- what a killed process leaves ----------------------------------------------------------------------------

DRAFTS = """
import sys
from penstock.core.store import Store
store = Store(sys.argv[1])
with store.scratch("scratch-") as scratch, store.draft("bundles/a", manifest={}) as folder:
    (scratch / "rows").write_text("x")
    (folder / "weights").write_text("x")
    print("drafting", flush=True)
    sys.stdin.read()
"""


def staged(store: Path) -> list[str]:
    folder = store / ".staging"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_drafts_of_a_killed_process_are_swept_and_those_of_a_living_one_are_not(
    tmp_path: Path,
) -> None:
    with child(DRAFTS, tmp_path) as living, child(DRAFTS, tmp_path) as killed:
        killed.kill()
        killed.wait()
        assert len(staged(tmp_path)) == 8
        with Store(tmp_path).draft("bundles/b", manifest={}) as folder:
            # two folders and their locks are the living one's, one pair is ours
            assert len(staged(tmp_path)) == 6
            (folder / "w").write_text("y")
        living.communicate("", SECONDS)
        assert living.returncode == 0
    assert Store(tmp_path).names("bundles") == ["bundles/a", "bundles/b"]
    assert not (tmp_path / ".staging").exists()


def test_a_draft_of_another_machine_stays_until_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_half_a_file_of_a_killed_writer_is_swept_and_a_living_ones_is_not(
    tmp_path: Path,
) -> None:
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
        assert (
            len([path for path in tmp_path.iterdir() if ".penstock-" in path.name]) == 1
        )
    drafts._swept.clear()
    atomic_write(tmp_path / "run.json", "{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".mine.abcdefgh",
        "run.json",
    ]


# -- events of other processes -------------------------------------------------------------------------------


def test_events_may_be_read_in_the_middle_of_a_character(tmp_path: Path) -> None:
    heard_events: list[Event] = []
    line = Event("said", 1.0, {"text": "Tromsø 例"}).line().encode() + b"\n"
    with (
        following(tmp_path / ".events", Events(heard_events.append)),
        open(tmp_path / ".events", "ab", buffering=0) as file,
    ):
        for place in range(len(line)):
            file.write(line[place : place + 1])
            if line[place] >= 0x80:
                time.sleep(
                    0.25
                )  # at least one look of the reader at each half of a character
        file.write(b'{"time": 1, "eve\nnull\n')
        file.write(line)
    assert [event.fields["text"] for event in heard_events if event.name == "said"] == [
        "Tromsø 例"
    ] * 2
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


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        StoreError("refused."),
        ZeroDivisionError("a defect"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_uploader_reports_what_fails_and_goes_on(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_uploader, "_FIRST_WAIT", 0.01)
    store = Stubborn(tmp_path, [error, error])
    pusher = CheckpointUploader(store, "runs/run-x")  # type: ignore[arg-type]
    pusher.push()
    until(lambda: len(store.pushed) == 2)
    pusher.close()
    texts = pusher.heard()
    assert [is_trouble for is_trouble, _ in texts] == [True, False]
    assert str(error) in texts[0][1] and "after 2 refusals" in texts[1][1]


def test_what_never_reached_the_bucket_is_reported_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_uploader, "_FIRST_WAIT", 0.01)
    pusher = CheckpointUploader(
        Stubborn(tmp_path, [OSError(5, "Input/output error")] * 10_000), "runs/run-x"
    )  # type: ignore[arg-type]
    pusher.push()
    pusher.close()
    is_trouble, text = pusher.heard()[-1]
    assert is_trouble and "step-1, step-2" in text and "not in the bucket" in text


# -- two trainings in one process ----------------------------------------------------------------------------


def test_two_trainings_in_one_process_hear_each_of_its_own() -> None:
    texts: dict[str, list[str]] = {"a": [], "b": []}
    waited: dict[str, int] = {"a": 0, "b": 0}
    both = threading.Barrier(2, timeout=SECONDS)

    def read(name: str) -> None:
        tries = iter([TimeoutError(f"{name} is slow"), None])

        def ask() -> None:
            if (error := next(tries)) is not None:
                raise error

        retry(
            ask,
            what=f"read {name}",
            patience=Patience(first_wait_seconds=0.001),
            is_read=True,
        )
        notify(f"{name} was read")

    def training(name: str) -> None:
        def count() -> None:
            waited[name] += 1

        with listening(
            Events(lambda event: texts[name].append(event.fields["text"])), waiting=count
        ):
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
        assert heard_texts == [
            f"could not read {name} ({name} is slow); trying again",
            f"{name} was read",
            f"{name} was read",
        ]
    assert waited == {"a": 2, "b": 2}


def test_a_thread_without_a_listener_is_heard_by_the_only_one_there_is() -> None:
    texts: list[str] = []
    with listening(Events(lambda event: texts.append(event.fields["text"]))):
        thread = threading.Thread(target=notify, args=("hello",))
        thread.start()
        thread.join()
    assert texts == ["hello"]


# -- a launcher's line ---------------------------------------------------------------------------------------


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


def test_callers_that_say_nothing_keep_nobody_waiting(
    door: tuple[Door, list[Any]],
) -> None:
    listening, inside = door
    with contextlib.ExitStack() as stack:
        for greeting in (b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", b"\x7f\xff\xff\xff"):
            silent = stack.enter_context(
                socket.create_connection(("127.0.0.1", listening.port))
            )
            silent.sendall(greeting)
        with pytest.raises(Exception, match="digest"):
            dial("127.0.0.1", listening.port, b"another key")
        stack.enter_context(dial("127.0.0.1", listening.port, b"key"))
        until(lambda: len(inside) == 1)


def test_a_caller_has_so_long_and_no_longer(
    door: tuple[Door, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_door, "HANDSHAKE_SECONDS", 0.2)
    listening, inside = door
    with (
        socket.create_connection(("127.0.0.1", listening.port), timeout=SECONDS) as slow,
        contextlib.suppress(ConnectionError),
    ):
        while slow.recv(4096):  # its challenge, then nothing: it has hung up
            pass
    assert not inside


def test_a_crowd_at_the_door_pushes_nobody_out_for_good(
    door: tuple[Door, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_rank_does_not_wait_for_a_silent_launcher_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_door, "HANDSHAKE_SECONDS", 0.1)
    monkeypatch.setattr(_door, "_DIAL_SECONDS", 0.3)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(OSError, match="does not answer"),
    ):
        dial("127.0.0.1", silent.getsockname()[1], b"key")


# -- a store that may only be read ---------------------------------------------------------------------------


def test_a_store_that_may_only_be_read_is_read(
    people: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`run` with nothing to do, `list`, `show`, `predict`; and what must write says that it cannot."""
    shutil.copytree(people, tmp_path / "people")
    recipe, store = tmp_path / "people" / "recipe.yaml", tmp_path / "store"
    made = penstock.run(recipe, store=store)
    assert made.run is not None and made.bundle is not None and made.dataset is not None
    references = {
        "runs": made.run.id,
        "bundles": made.bundle.reference,
        "datasets": made.dataset.reference,
    }
    answers = tmp_path_factory.mktemp("answers") / "answers.csv"
    part = str(tmp_path / "people" / "lake" / "part-0.csv")
    bundle, named = made.bundle.reference, list(references.values())
    expression = f"""json.dumps([
        penstock.run(sys.argv[1], store=sys.argv[2]).skipped,
        [
            penstock.api.list_artefacts(shelf, store=sys.argv[2])[0]["reference"]
            for shelf in {list(references)}
        ],
        [penstock.api.show(reference, store=sys.argv[2])["reference"] for reference in {named}],
        penstock.predict({bundle!r}, source={part!r}, output={str(answers)!r}, store=sys.argv[2]).predicted,
        refusal(lambda: penstock.run(sys.argv[1], store=sys.argv[2], overrides=["seed=9"])),
        refusal(lambda: penstock.resume({made.run.id!r}, store=sys.argv[2])),
    ])"""
    skipped, listed, shown, predicted, refused, nothing = json.loads(
        as_reader(expression, tmp_path, recipe, store)
    )
    assert skipped == dict.fromkeys(
        ("prepare", "encode", "train", "pack", "evaluate"), True
    )
    assert listed == shown == list(references.values())
    assert predicted == 200 and len(answers.read_text("utf-8").splitlines()) == 201
    assert refused.startswith("StoreError: cannot write") and "--store" in refused
    assert nothing.startswith("UserError: ") and "nothing is left to resume" in nothing


def as_reader(expression: str, folder: Path, *arguments: object) -> str:
    """What a Python expression is for a process that may read everything below `folder`, and write nothing of
    it.
    """
    code = f"""
import json, os, sys
import penstock, penstock.api

def refusal(ask):
    try:
        ask()
    except penstock.PenstockError as error:
        return f"{{type(error).__name__}}: {{error}}"

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
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env=environment,
            preexec_fn=without_override,
        )
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def without_override() -> None:
    """What is executed from here on may not pass over the modes of files, even where it is root's."""
    drop_from_bounding_set, may_override = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, may_override, 0, 0, 0)
