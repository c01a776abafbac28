"""A node's cache: fetched once by whoever comes first, below its limit, and never in the way."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import StoreError
from penstock.core.events import Event, Events
from penstock.core.listeners import listening
from penstock.core.store import Member
from penstock.shards import cache as cache_room
from penstock.shards.cache import Cache
from penstock.shards.remote_files import RemoteFiles, read_whole


class Shelf:
    """Objects far away: what is asked of them is counted, and can be made to go wrong."""

    def __init__(self, sizes: list[int]) -> None:
        self.contents = {f"f{i}": bytes([i % 251]) * size for i, size in enumerate(sizes)}
        self.asked: list[str] = []
        self.corrupt: dict[str, int] = {}
        self.wait = 0.0

    def pieces(self, key: str, size_bytes: int) -> Iterator[bytes]:
        self.asked.append(key)
        content = self.contents[key]
        if self.corrupt.get(key, 0):
            self.corrupt[key] -= 1
            content = content[:-1] + b"\xff"
        for start in range(0, len(content), 1000):
            time.sleep(self.wait)
            yield content[start : start + 1000]

    @property
    def members(self) -> list[Member]:
        bucket: Any = self
        return [
            Member(f"s3://team/{k}", len(c), hashlib.sha256(c).hexdigest(), bucket, k)
            for k, c in self.contents.items()
        ]


def held(cache: Cache) -> int:
    return sum(p.stat().st_size for p in cache.folder.iterdir())


def copies(cache: Cache) -> int:
    return len([p for p in cache.folder.iterdir() if len(p.name) == 64])


@pytest.fixture
def told() -> Iterator[list[str]]:
    said: list[str] = []

    def sink(event: Event) -> None:
        said.append(event.fields["text"])

    with listening(Events(sink)):
        yield said


def test_a_copy_is_made_once_and_read_from_then_on(tmp_path: Path) -> None:
    shelf = Shelf([3000, 0])
    cache = Cache(10_000, tmp_path)
    for _ in range(3):
        for member in shelf.members:
            content = cache.open(member)
            assert (
                content is not None
                and content.to_pybytes() == shelf.contents[member._key]
            )
    assert shelf.asked == ["f0", "f1"] and copies(cache) == 2
    assert (
        Cache(10_000, tmp_path).open(shelf.members[0]) is not None
        and len(shelf.asked) == 2
    ), "another run shares it"


def test_threads_fetch_each_once(tmp_path: Path) -> None:
    shelf = Shelf([2000] * 6)
    shelf.wait = 0.01
    cache = Cache(20_000, tmp_path)

    def work() -> None:
        for member in shelf.members:
            assert cache.open(member) is not None

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(shelf.asked) == [f"f{i}" for i in range(6)]
    assert sorted(p.name for p in cache.folder.iterdir()) == sorted(
        ["lock", *(m.sha256 for m in shelf.members)]
    )


def test_the_least_recently_used_goes_first_and_a_mapping_outlives_its_file(
    tmp_path: Path,
) -> None:
    shelf = Shelf([1000] * 4)
    cache = Cache(3000, tmp_path)
    mapped = [cache.open(m) for m in shelf.members[:3]]
    for place, member in enumerate(shelf.members[:3]):
        os.utime(tmp_path / member.sha256, (1e9 + place, 2e9 + place))
    os.utime(tmp_path / shelf.members[0].sha256, (3e9, 3e9))  # used last
    assert cache.open(shelf.members[3]) is not None
    assert not (tmp_path / shelf.members[1].sha256).exists() and copies(cache) == 3
    assert mapped[1] is not None and mapped[1].to_pybytes() == shelf.contents["f1"]


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=12),
    st.integers(500, 6000),
    st.data(),
)
def test_it_stays_below_its_limit_whatever_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    limit: int,
    data: st.DataObject,
) -> None:
    cache = Cache(limit, tmp_path_factory.mktemp("cache"))
    shelf = Shelf(sizes)
    with listening(Events()):
        for place in data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=30)):
            content = cache.open(shelf.members[place])
            assert (content is None) == (sizes[place] > limit)
            assert content is None or content.to_pybytes() == shelf.contents[f"f{place}"]
            assert not cache.folder.exists() or held(cache) <= limit


def test_many_readers_stay_below_the_limit_together(tmp_path: Path) -> None:
    shelf = Shelf([1000] * 12)
    cache, most = Cache(4000, tmp_path), 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            total = 0
            with cache_room.locked(tmp_path / "lock", wait=True):
                total = sum(entry.stat().st_size for entry in os.scandir(tmp_path))
            most = max(most, total)

    def work(step: int) -> None:
        for turn in range(36):
            member = shelf.members[turn * step % 12]
            content = cache.open(member)
            assert content is None or content.to_pybytes() == shelf.contents[member._key]

    watcher = threading.Thread(target=watch)
    watcher.start()
    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert held(cache) <= 4000 and most <= 4000


def test_damage_once_is_fetched_again_and_twice_is_named(tmp_path: Path) -> None:
    shelf = Shelf([1500])
    shelf.corrupt["f0"] = 1
    cache = Cache(10_000, tmp_path)
    assert cache.open(shelf.members[0]).to_pybytes() == shelf.contents["f0"]  # type: ignore[union-attr]
    assert len(shelf.asked) == 2
    (tmp_path / shelf.members[0].sha256).unlink()
    shelf.corrupt["f0"] = 9
    expected = shelf.members[0].sha256[:16]
    with pytest.raises(
        StoreError,
        match=(
            rf"s3://team/f0 is damaged: its SHA-256 is [0-9a-f]{{16}}…, but its manifest says {expected}…"
            r" \(fetched twice"
        ),
    ):
        cache.open(shelf.members[0])
    assert not list(tmp_path.glob("*.part")) and not copies(cache)
    shelf.corrupt["f0"] = 9
    with pytest.raises(StoreError, match="is damaged"):
        read_whole(shelf.members[0])


def test_a_copy_that_is_not_whole_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf([1500])
    cache, path = Cache(10_000, tmp_path), tmp_path / shelf.members[0].sha256
    path.write_bytes(b"half")
    assert cache.open(shelf.members[0]).to_pybytes() == shelf.contents["f0"]  # type: ignore[union-attr]
    path.write_bytes(b"\1" * 1500)  # as a machine that lost its power may leave it
    monkeypatch.setattr(cache_room, "_boot_time", lambda: time.time() + 100)
    assert cache.open(shelf.members[0]).to_pybytes() == shelf.contents["f0"]  # type: ignore[union-attr]
    assert len(shelf.asked) == 2


def test_a_file_larger_than_the_limit_is_read_without_being_kept(
    tmp_path: Path, told: list[str]
) -> None:
    shelf = Shelf([1500, 1600, 100])
    cache = Cache(1000, tmp_path)
    assert [cache.open(m) is None for m in shelf.members] == [True, True, False]
    assert (
        len(told) == 1
        and "may hold 1,000 bytes, and s3://team/f0 alone has 1,500" in told[0]
        and "resources.cache" in told[0]
    )
    assert Cache(0, tmp_path).open(shelf.members[2]) is None


# -- a disk that is full -------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk to fill")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_degrades_to_streaming_and_says_so_once(
    small_disk: Path, told: list[str]
) -> None:
    (small_disk / "others").write_bytes(b"x" * 900_000)
    shelf = Shelf([60_000, 200_000, 200_000])
    cache = Cache(2**30, small_disk / "cache")
    far = RemoteFiles(
        shelf.members,
        cache,
        lambda member, content: content.to_pybytes(),
        memory_bytes=300_000,
    )
    assert [far.get(i) for i in (0, 1, 2)] == list(shelf.contents.values())
    assert (
        len(told) == 1 and "the disk is full" in told[0] and "PENSTOCK_CACHE" in told[0]
    )
    assert not cache.is_on and not list((small_disk / "cache").glob("*.part"))
    assert far._taken[True] <= 300_000


def test_on_a_full_disk_our_own_copies_make_room_first(
    small_disk: Path, told: list[str]
) -> None:
    shelf = Shelf([300_000] * 6)
    cache = Cache(2**30, small_disk / "cache")
    for member in shelf.members:
        content = cache.open(member)
        assert content is not None and content.to_pybytes() == shelf.contents[member._key]
        del content
    assert not told and cache.is_on and copies(cache) == 3


# -- processes -----------------------------------------------------------------------------------------------

_HOLDER = """
import sys, time
from pathlib import Path
from tests.shards.test_cache import Shelf
from penstock.shards.cache import Cache
shelf = Shelf([3000])
def stuck(key, size):
    yield shelf.contents[key][:1000]
    print("holding", flush=True)
    time.sleep(60)
shelf.pieces = stuck
Cache(10_000, Path(sys.argv[1])).open(shelf.members[0])
"""


def test_a_killed_process_leaves_no_lock_and_no_rest(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "holding\n"
        shelf = Shelf([3000])
        assert list(tmp_path.glob("*.part"))
        found: list[Any] = []
        waiter = threading.Thread(
            target=lambda: found.append(Cache(10_000, tmp_path).open(shelf.members[0]))
        )
        waiter.start()
        time.sleep(0.2)
        assert not found and not shelf.asked, "it waits for the process that has the lock"
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    waiter.join(20)
    assert found[0].to_pybytes() == shelf.contents["f0"] and shelf.asked == ["f0"]
    assert not list(tmp_path.glob("*.part"))


def test_the_rest_of_a_dead_process_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / f"{'0' * 64}.part").write_bytes(b"x" * 900)
    cache = Cache(1000, tmp_path)
    assert cache.open(Shelf([500]).members[0]) is not None
    assert not list(tmp_path.glob("*.part"))


def test_a_stuck_process_is_not_waited_for_for_ever(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_room, "_STUCK_SECONDS", 0.1)
    shelf = Shelf([500])
    with cache_room.locked(tmp_path / f"{shelf.members[0].sha256}.part"):
        assert Cache(1000, tmp_path).open(shelf.members[0]) is None
        assert Cache(1000, tmp_path).open(shelf.members[0], stopped=lambda: True) is None
    assert any("without getting further" in text for text in told)


# -- ahead of need -------------------------------------------------------------------------------------------


def far_of(shelf: Shelf, cache: Cache, **words: Any) -> RemoteFiles[bytes]:
    return RemoteFiles(
        shelf.members, cache, lambda member, content: content.to_pybytes(), **words
    )


def idle(far: RemoteFiles[bytes]) -> None:
    """Until no thread fetches ahead."""
    limit = time.monotonic() + 20
    while far._workers:
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_what_is_wanted_is_fetched_ahead_and_no_thread_stays(tmp_path: Path) -> None:
    shelf = Shelf([1000] * 8)
    far = far_of(shelf, Cache(100_000, tmp_path))
    far.want([5, 2, 7])
    idle(far)
    assert sorted(shelf.asked) == ["f2", "f5", "f7"] and shelf.asked[0] in (
        "f5",
        "f2",
        "f7",
    )
    assert [far.get(i) for i in (5, 2, 7)] == [
        shelf.contents[f"f{i}"] for i in (5, 2, 7)
    ] and len(shelf.asked) == 3
    assert not [t for t in threading.enumerate() if t.name == "penstock-far"]


def test_fetching_ahead_leaves_room_for_what_is_in_use(tmp_path: Path) -> None:
    shelf = Shelf([1000] * 10)
    far = far_of(shelf, Cache(4000, tmp_path))
    far.want(range(10))
    idle(far)
    assert len(shelf.asked) == 2, "half of what the cache may hold"
    for i in range(10):
        assert far.get(i) == shelf.contents[f"f{i}"]
    idle(far)
    assert sorted(shelf.asked) == [f"f{i}" for i in range(10)], "and each once"


def test_an_error_ahead_is_raised_where_it_is_needed_and_tried_anew(
    tmp_path: Path,
) -> None:
    shelf = Shelf([1000] * 2)
    shelf.corrupt["f1"] = 2
    far = far_of(shelf, Cache(0, tmp_path))
    far.want([0, 1])
    idle(far)
    assert far.get(1) == shelf.contents["f1"], "what failed ahead of need is tried anew"
    shelf.corrupt["f0"] = 4
    other = far_of(shelf, Cache(0, tmp_path))
    with pytest.raises(StoreError, match="damaged"):
        other.get(0)


def test_memory_holds_what_the_cache_cannot_within_its_bound(
    tmp_path: Path, told: list[str]
) -> None:
    shelf = Shelf([1000] * 6)
    far = far_of(shelf, Cache(0, tmp_path), memory_bytes=2500)
    for _ in range(2):
        for i in range(6):
            assert far.get(i) == shelf.contents[f"f{i}"]
            assert far._taken[True] <= 2500
    assert len(told) == 1 and "fetched more than once" in told[0]
    tiny = far_of(shelf, Cache(0, tmp_path), memory_bytes=1)
    assert tiny.get(3) == shelf.contents["f3"], "one file is always held"


def test_many_threads_get_what_they_ask_for(tmp_path: Path) -> None:
    shelf = Shelf([700] * 9)
    far = far_of(shelf, Cache(3000, tmp_path))
    wrong: list[int] = []

    def work(step: int) -> None:
        for turn in range(60):
            place = turn * step % 9
            if turn % 10 == 0:
                far.want([(place + i) % 9 for i in range(4)])
            if turn % 7 == 0:
                with far.using([place, (place + 1) % 9]):
                    if far.get((place + 1) % 9) != shelf.contents[f"f{(place + 1) % 9}"]:
                        wrong.append(place)
            if far.get(place) != shelf.contents[f"f{place}"]:
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 2, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    idle(far)
    assert not wrong and held(far.cache) <= 3000


def test_a_member_is_read_by_ranges() -> None:
    from penstock.shards.remote_files import Ranges

    content = bytes(range(200))
    member: Any = SimpleNamespace(
        size_bytes=200, range=lambda start, stop: content[start:stop]
    )
    file = Ranges(member)
    assert (
        file.seek(-5, 2) == 195
        and file.read(100) == content[195:]
        and file.read(1) == b""
    )
    assert (
        file.seek(10) == 10
        and file.read(3) == content[10:13]
        and file.tell() == 13
        and file.seek(2, 1) == 15
        and file.read() == content[15:]
    )
