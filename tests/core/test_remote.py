"""What passes is tried again within a bound; what does not is one sentence, at once."""

from __future__ import annotations

import errno
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.api import list_artefacts
from penstock.core import listeners, remote, retries
from penstock.core.errors import StoreError
from penstock.core.events import Event, Events
from penstock.core.listeners import in_silence, listening
from penstock.core.remote import read_pieces
from penstock.core.remote_errors import GaveUp, Torn, explain, transient
from penstock.core.retries import Patience, retry
from penstock.core.store import MANIFEST, Store
from tests.faults import FAULTS, Line, faulty_s3

QUICK = Patience(attempts=4, seconds=5, first_wait_seconds=0.001)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Line]:
    with faulty_s3(monkeypatch, tmp_path) as line:
        yield line


def _fails_once() -> Iterator[Exception | None]:
    yield ConnectionRefusedError("nobody is there")
    yield None


def test_housekeeping_in_a_thread_that_is_nobodys_tells_no_run_of_its_retries() -> None:
    told: list[Event] = []

    def ask(failures: Iterator[Exception | None]) -> None:
        failure = next(failures)
        if failure is not None:
            raise failure

    def keep_house() -> None:
        with in_silence():
            retry(
                lambda failures=_fails_once(): ask(failures),
                what="write a beat",
                patience=QUICK,
            )

    with listening(Events(told.append)):
        thread = threading.Thread(target=keep_house)
        thread.start()
        thread.join()
        assert not told
        failures = _fails_once()
        retry(lambda: ask(failures), what="write a row", patience=QUICK)
    assert len(told) == 1


def test_waiting_for_a_store_draws_nothing_from_the_programs_generator() -> None:
    before = random.getstate()
    assert len(list(QUICK.waits())) == 3
    assert random.getstate() == before


# -- patience ------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 20), st.floats(0.01, 5), st.floats(0.1, 60), st.floats(0, 1))
def test_waits_are_as_many_as_attempts_and_stay_within_their_bounds(
    attempts: int, first: float, longest: float, chance: float
) -> None:
    waits = list(
        Patience(
            attempts=attempts, first_wait_seconds=first, longest_wait_seconds=longest
        ).waits(lambda: chance)
    )
    assert len(waits) == attempts - 1
    assert all(
        0 <= w <= max(first * 2**i, 0) and w <= max(first, longest)
        for i, w in enumerate(waits)
    )


class Refusing:
    """An object store that refuses so many times before it answers."""

    def __init__(self, times: int) -> None:
        self.times, self.tries = times, 0

    def __call__(self) -> str:
        self.tries += 1
        if self.tries <= self.times:
            raise ConnectionResetError(errno.ECONNRESET, "gone")
        return "there"


def test_patience_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Patience.from_environment() == Patience()
    for word, value in (("ATTEMPTS", "3"), ("SECONDS", "9"), ("TIMEOUT", "2.5")):
        monkeypatch.setenv(f"PENSTOCK_REMOTE_{word}", value)
    assert Patience.from_environment() == Patience(3, 9.0, 2.5)
    monkeypatch.setenv("PENSTOCK_REMOTE_ATTEMPTS", "many")
    with pytest.raises(
        StoreError,
        match="PENSTOCK_REMOTE_ATTEMPTS must be a positive number; found 'many'",
    ):
        Patience.from_environment()


def test_a_training_goes_on_trying_for_all_the_seconds_unless_attempts_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alive: list[int] = []
    monkeypatch.setattr(retries.time, "sleep", lambda seconds: None)
    ask = Refusing(29)
    with listening(Events(), waiting=lambda: alive.append(ask.tries)):
        assert retry(ask, what="read x", is_read=True) == "there"
        assert alive == list(range(1, 30))
        with pytest.raises(
            GaveUp, match="after 8 attempts"
        ):  # what is written is sent again by others
            retry(Refusing(29), what="write x")
        assert len(alive) == 29
        monkeypatch.setenv("PENSTOCK_REMOTE_ATTEMPTS", "3")
        with pytest.raises(GaveUp, match="after 3 attempts"):
            retry(Refusing(29), what="read x", is_read=True)
    monkeypatch.delenv("PENSTOCK_REMOTE_ATTEMPTS")
    with pytest.raises(GaveUp, match="after 8 attempts"):
        retry(Refusing(29), what="read x", is_read=True)


def test_what_passes_is_tried_again_and_told_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listeners, "_last_told", {})
    told: list[Event] = []
    ask = Refusing(3)
    with listening(Events(told.append)):
        assert retry(ask, what="read x", patience=QUICK) == "there"
    assert ask.tries == 4 and [e.fields["text"] for e in told] == [
        "could not read x (gone); trying again"
    ]


def test_the_bound_holds_in_attempts_and_in_seconds() -> None:
    def ask() -> None:
        raise TimeoutError("slow")

    with pytest.raises(GaveUp, match=r"slow \(given up after 4 attempts"):
        retry(ask, what="read x", patience=QUICK)
    with pytest.raises(GaveUp) as caught:
        retry(
            ask,
            what="read x",
            patience=Patience(
                attempts=1000,
                seconds=0.05,
                first_wait_seconds=0.01,
                longest_wait_seconds=0.02,
            ),
        )
    assert int(re.search(r"after (\d+) attempt", str(caught.value))[1]) < 1000
    assert not transient(GaveUp("x")), "patience within patience does not multiply"


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (Torn("x"), True),
        (TimeoutError(), True),
        (BrokenPipeError(errno.EPIPE, "x"), True),
        (OSError(errno.EHOSTUNREACH, "x"), True),
        (FileNotFoundError("x"), False),
        (PermissionError("x"), False),
        (OSError(errno.EINVAL, "x"), False),
        (ValueError("x"), False),
        (OSError(errno.ENOSPC, "x"), False),
    ],
)
def test_what_passes(error: BaseException, passes: bool) -> None:
    assert transient(error) is passes


@pytest.mark.parametrize(
    ("status", "code", "passes"),
    [
        (500, "InternalError", True),
        (502, "502", True),
        (503, "SlowDown", True),
        (504, "x", True),
        (429, "TooManyRequests", True),
        (400, "RequestTimeout", True),
        (403, "AccessDenied", False),
        (404, "NoSuchKey", False),
        (404, "NoSuchBucket", False),
        (400, "InvalidArgument", False),
        (416, "InvalidRange", False),
    ],
)
def test_answers_of_a_cloud_are_judged_by_status_and_code(
    status: int, code: str, passes: bool
) -> None:
    class ClientError(Exception):
        response = {
            "ResponseMetadata": {"HTTPStatusCode": status},
            "Error": {"Code": code},
        }

    translated = OSError(errno.EIO, "as s3fs tells it")
    translated.__cause__ = ClientError()
    assert transient(translated) is passes


def test_what_is_final_says_what_to_do() -> None:
    class NoCredentialsError(Exception):
        pass

    assert "AWS_ACCESS_KEY_ID" in explain(
        NoCredentialsError("Unable to locate credentials"), "s3://team/x"
    )
    assert "GOOGLE_APPLICATION_CREDENTIALS" in explain(
        NoCredentialsError("none"), "gs://team/x"
    )

    def answered(code: str, status: int) -> BaseException:
        error = OSError("refused")
        error.response = {
            "ResponseMetadata": {"HTTPStatusCode": status},
            "Error": {"Code": code},
        }  # type: ignore[attr-defined]
        return error

    assert "are refused" in explain(answered("InvalidAccessKeyId", 403), "s3://team/x")
    assert "may not do that" in explain(answered("AccessDenied", 403), "s3://team/x")
    assert (
        explain(answered("NoSuchBucket", 404), "s3://team/x")
        == "there is no bucket 'team'. Create it, or correct the name."
    )


class Slow:
    """A file system of one object that is slow in a different way for each range."""

    def __init__(self, content: bytes) -> None:
        self.content, self.asked, self.lock, self.now, self.most = (
            content,
            [],
            threading.Lock(),
            0,
            0,
        )

    def cat_file(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        with self.lock:
            self.asked.append((start, end))
            self.now += 1
            self.most = max(self.most, self.now)
            again = self.asked.count((start, end))
        time.sleep(0.01 * (start % 3))
        with self.lock:
            self.now -= 1
        found = self.content[start:end]
        return found[:-1] if again == 1 and start % 2 else found


def test_a_large_object_comes_in_ranges_in_order_several_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PENSTOCK_REMOTE_ATTEMPTS", "3")
    slow = Slow(bytes(range(256)) * 4)
    assert (
        b"".join(read_pieces(slow, "x", 1024, what="read x", range_bytes=101))
        == slow.content
    )
    assert 1 < slow.most <= remote.RANGES_AT_ONCE and len(slow.asked) > 11, (
        "a range that came short is asked for again"
    )
    whole = Slow(b"abc")
    assert list(read_pieces(whole, "x", 3, what="read x")) == [
        b"abc"
    ] and whole.asked == [(0, None)]


# -- a store in a bucket -------------------------------------------------------------------------------------


def write(store: Store, name: str = "bundles/a", files: int = 5) -> None:
    with store.draft(name, manifest={"type": "bundle"}) as folder:
        for i in range(files):
            (folder / f"w{i}.bin").write_bytes(bytes([i]) * 4_000)


def elsewhere(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The same bucket, seen from a machine that has no copies."""
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path / f"elsewhere-{len(line.asked)}"))
    return Store(line.store)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_once_and_the_data_is_right(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault not in ("reset", "torn", "short"):
        line.fault(fault, on="PUT", match="w3.bin")
        line.fault(fault, on="HEAD", match=MANIFEST)
    write(Store(line.store))
    line.fault(fault, match="w2.bin")
    line.fault(fault, match=MANIFEST)
    there = elsewhere(line, tmp_path, monkeypatch)
    artefact = there.open("bundles/a", verify=True)
    assert (artefact.path / "w2.bin").read_bytes() == b"\x02" * 4_000
    assert all(rule[3] == 0 for rule in line.rules), "every fault was met"
    assert there.names("bundles") == ["bundles/a"]


@pytest.mark.parametrize("fault", ["500", "SlowDown", "reset", "torn", "short"])
def test_for_ever_is_one_sentence_within_the_bound(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    write(Store(line.store))
    line.fault(fault, match="w2.bin", times=float("inf"))
    before = line.count("GET", "w2.bin")
    with pytest.raises(
        StoreError,
        match=r"cannot read bundles/a/w2.bin from the store s3://.*given up after 4 attempts",
    ) as caught:
        elsewhere(line, tmp_path, monkeypatch).open("bundles/a")
    assert "\n" not in str(caught.value)
    assert line.count("GET", "w2.bin") - before == 4, (
        "s3fs' and botocore's own retries do not multiply ours"
    )


def test_a_stalled_connection_is_given_up(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(Store(line.store), files=1)
    monkeypatch.setenv("PENSTOCK_REMOTE_ATTEMPTS", "2")
    line.fault("stall", match="w0.bin", times=float("inf"))
    with pytest.raises(StoreError, match="given up after 2 attempts"):
        elsewhere(line, tmp_path, monkeypatch).open("bundles/a")


def test_damage_once_is_fetched_again_and_twice_is_named(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(Store(line.store))
    line.fault("corrupt", match="w1.bin")
    assert elsewhere(line, tmp_path, monkeypatch).open("bundles/a", verify=True)
    line.mend()
    line.fault("corrupt", match="w1.bin", times=float("inf"))
    with pytest.raises(
        StoreError,
        match=(
            r"w1.bin is damaged: its SHA-256 is [0-9a-f]{16}…, but its manifest says [0-9a-f]{16}…"
            r" \(fetched twice"
        ),
    ):
        elsewhere(line, tmp_path, monkeypatch).open("bundles/a")


def test_a_push_that_fails_leaves_no_manifest_and_goes_on(line: Line) -> None:
    store = Store(line.store)
    line.fault("403", on="PUT", match="w3.bin", times=float("inf"))
    with pytest.raises(
        StoreError, match=r"cannot write bundles/a to the store .*may not do that"
    ):
        write(store)
    assert not store.has("bundles/a") and line.count("PUT", MANIFEST) == 0
    line.mend()
    sent = {i: line.count("PUT", f"w{i}.bin") for i in range(5)}
    assert (
        store.finish("bundles/a")
        and store.has("bundles/a")
        and not store.finish("bundles/a")
    )
    assert [line.count("PUT", f"w{i}.bin") - sent[i] for i in range(3)] == [
        0,
        0,
        0,
    ], "what was sent is not sent again"
    assert line.count("PUT", "w3.bin") == sent[3] + 1
    assert [path for method, path in line.asked if method == "PUT"][-1].endswith(MANIFEST)


def test_what_changed_in_the_bucket_since_is_sent_again(line: Line) -> None:
    store = Store(line.store)
    line.fault("403", on="PUT", match="w4.bin", times=float("inf"))
    with pytest.raises(StoreError):
        write(store)
    line.mend()
    store._bucket.system.pipe_file(
        f"{store._bucket.root}/bundles/a/w0.bin", b"\x09" * 4_000
    )  # type: ignore[union-attr]
    before = line.count("PUT", "w0.bin")
    store.push("bundles/a")
    assert line.count("PUT", "w0.bin") == before + 1


def test_without_credentials_it_is_one_sentence(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    began = len(line.asked)
    with pytest.raises(
        StoreError,
        match=(
            r"needs credentials, and none were found .*AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
            r" AWS_PROFILE"
        ),
    ) as caught:
        Store(line.store).has("bundles/a")
    assert "\n" not in str(caught.value) and len(line.asked) == began


def test_a_refused_key_is_no_empty_store(line: Line) -> None:
    store = Store(line.store)
    write(store)
    for method in ("GET", "HEAD"):
        line.fault("403", on=method, times=float("inf"))
    for ask in (
        lambda: store.names("bundles"),
        lambda: store.folders("bundles"),
        lambda: store.has("bundles/b"),
        lambda: store._bucket.below("runs"),  # type: ignore[union-attr]
        lambda: list_artefacts("bundles", store=store),
        lambda: list_artefacts("runs", store=store),
    ):
        with pytest.raises(StoreError, match="may not do that"):
            ask()
    line.mend()
    assert (
        store.names("bundles") == ["bundles/a"]
        and not store.has("bundles/b")
        and store.names("feeds") == []
    )
    for ask in (
        lambda: Store("s3://nobody-has-it/store").names("bundles"),
        lambda: Store("s3://nobody-has-it/store").folders("runs"),
    ):
        with pytest.raises(StoreError, match="there is no bucket 'nobody-has-it'"):
            ask()


def test_no_such_bucket_is_one_sentence(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        StoreError,
        match=r"there is no bucket 'nobody-has-it'\. Create it, or correct the name",
    ):
        write(Store("s3://nobody-has-it/store"))


def test_a_manifest_and_one_file_are_read_without_the_rest(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(Store(line.store))
    there = elsewhere(line, tmp_path, monkeypatch)
    assert there.manifest("bundles/a")["type"] == "bundle" and not there.is_here(
        "bundles/a"
    )
    assert (
        there.file("bundles/a", file="w4.bin").read_bytes() == b"\x04" * 4_000
        and there.file("bundles/a", file="w4.bin").is_file()
    )
    assert [line.count("GET", f"w{i}.bin") for i in range(5)] == [0, 0, 0, 0, 1]
    with pytest.raises(StoreError, match="has no file nothing"):
        there.file("bundles/a", file="nothing")
    with pytest.raises(StoreError, match="bundles/b is not in the store"):
        there.manifest("bundles/b")


def test_an_unfinished_run_is_taken_over_from_another_machine(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(line.store)
    path = store.workspace("runs/run-1")
    (path / "deep").mkdir()
    (path / "deep" / "run.json").write_text(json.dumps({"a": 1}))
    store.push("runs/run-1")
    line.fault("torn", match="run.json")
    assert (
        elsewhere(line, tmp_path, monkeypatch).workspace("runs/run-1")
        / "deep"
        / "run.json"
    ).read_text() == '{"a": 1}'


@pytest.mark.parametrize("fault", ["503", "SlowDown", "reset", "torn", "stall"])
def test_a_source_in_a_bucket_is_read_through_faults(
    line: Line, tmp_path: Path, fault: str
) -> None:
    from penstock.formats.files import open_bytes, read_whole
    from penstock.formats.find_files import find
    from penstock.formats.places import filesystem

    text = b"a,b\n" + b"1,2\n" * 1_000
    system, path = filesystem(f"s3://{line.bucket}/lake/x.csv")
    system.pipe_file(path, text)
    found = find(f"s3://{line.bucket}/lake/*.csv", tmp_path)
    line.fault(fault, match="lake/x.csv")
    assert read_whole(found[0].url) == text
    line.fault(fault, match="lake/x.csv")
    with open_bytes(found[0].url) as file:
        assert file.read() == text
    assert all(rule[3] == 0 for rule in line.rules)
