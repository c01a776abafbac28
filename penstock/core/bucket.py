"""A bucket as the store uses it: keys below a root, read and written with patience (`core.retries`), several
at once.

It has no rename, so an artefact goes up with its manifest last. A push that was interrupted goes on: what was
sent is noted beside the local copy (checksum, and the stamp that the bucket gave it), and is not sent again
while both stand.

What this file refuses to know: which keys make an artefact.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.core import objects
from penstock.core.encryption import ENCRYPTION
from penstock.core.errors import StoreError
from penstock.core.jsons import parsed
from penstock.core.listeners import as_here, notify
from penstock.core.paths import below, reason, shown
from penstock.core.remote import RANGE_BYTES, reach, read_pieces, read_range
from penstock.core.remote_errors import Torn, explain, is_taken, refusals
from penstock.core.retries import retry

_SETTLE_SECONDS, _SETTLE_TIMES = 2.0, 3.0
"""How long a created object is left before it is read back, and how many times longer than its writing
took.
"""
AT_ONCE = 4
"""Files on their way up or down in one call."""
_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
}
"""What pip must be asked for, by what a URL begins with."""
# What object stores call the mark of an object's version; the first that is found
# counts.
_STAMPS = (
    "ETag",
    "etag",
    "md5Hash",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
    "updated",
)


class Bucket:
    """Keys below `url`, which names a bucket or a folder in one.

    Raises:
        StoreError: there is no such protocol, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._is_conditional: bool | None = None
        """Whether its conditional put holds; None before it was tried."""
        self._is_encrypting = False
        """Whether an object that was written was seen to be encrypted as asked."""
        try:
            self.system, self.root = reach(url)
        # fsspec imports a protocol's package only when it is asked for.
        except ImportError as error:
            scheme = url.split("://")[0]
            how = (
                f"Install it with:  pip install 'penstock[{_EXTRAS[scheme]}]'"
                if scheme in _EXTRAS
                else str(error)
            )
            raise StoreError(
                f"cannot open the store {url}: the package that reaches {scheme}:// is not installed. {how}"
            ) from None
        except ValueError as error:
            raise StoreError(f"cannot open the store {url}: {error}") from None
        except refusals() as error:  # of what holds it: an archive far away
            raise StoreError(
                f"cannot open the store {url}: {explain(error, url)}"
            ) from None

    @contextmanager
    def reaching(self, what: str) -> Iterator[None]:
        """Turn a bucket's refusal or silence into a `StoreError` whose sentence begins
        with `what`.
        """
        try:
            yield
        except refusals() as error:
            raise StoreError(
                f"cannot {what} the store {self.url}: {explain(error, self.url)}"
            ) from None

    def path(self, key: str) -> str:
        """The object's name as the file system of the bucket takes it: its root, then `key`."""
        return f"{self.root}/{key}"

    # -- reading ---------------------------------------------------------------------------------------------

    def exists(self, key: str) -> bool:
        """Whether there is an object at `key`. Raises StoreError where the bucket refuses or stays silent."""
        with self.reaching(f"read {key} from"):
            return retry(
                lambda: objects.is_file(self.system, self.path(key)),
                what=f"read {self.url}/{key}",
            )

    def read(self, key: str, *, json_whole: bool = False) -> bytes | None:
        """A small object, or None where there is none.

        `json_whole`: it is JSON, and counts as torn where it cannot be read as such (the size of a manifest
        is written nowhere).
        """

        def ask() -> bytes:
            content = bytes(self.system.cat_file(self.path(key)))
            if json_whole:
                # A body cut short is no error to many clients; parsing turns it into
                # one that is retried.
                try:
                    parsed(content)
                except ValueError as error:
                    raise Torn(f"it is no whole JSON: {error}") from None
            return content

        with self.reaching(f"read {key} from"):
            try:
                return retry(ask, what=f"read {self.url}/{key}", is_read=True)
            except FileNotFoundError as error:
                # Some clients say FileNotFoundError for a missing bucket too, which
                # must not read as "no object".
                if objects.is_absent(error):
                    return None
                raise

    def pieces(self, key: str, size_bytes: int) -> Iterator[bytes]:
        """An object of known size, in pieces, in order."""
        with self.reaching(f"read {key} from"):
            yield from read_pieces(
                self.system, self.path(key), size_bytes, what=f"read {self.url}/{key}"
            )

    def range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of an object."""
        with self.reaching(f"read {key} from"):
            return read_range(
                self.system, self.path(key), start, stop, what=f"read {self.url}/{key}"
            )

    def folders(self, shelf: str) -> set[str]:
        """Keys of the folders in `shelf`."""
        with self.reaching(f"list {shelf} of"):
            # Listings are remembered by some file systems; other machines write here,
            # so each try asks anew.
            def ask() -> list[dict[str, Any]]:
                self.system.invalidate_cache()
                return objects.entries(self.system, self.path(shelf))

            entries = retry(ask, what=f"list {self.url}/{shelf}")
        keys = (
            self._key(entry["name"]) for entry in entries if entry["type"] == "directory"
        )
        return {key for key in keys if key is not None}

    def holding(self, shelf: str, file: str) -> list[str]:
        """Keys of the folders in `shelf` that have a file of this name, in order."""
        folders = sorted(self.folders(shelf))
        # One key a thread, so the dictionary needs no lock.
        there: dict[str, bool] = {}

        def one(folder: str) -> None:
            there[folder] = self.exists(f"{folder}/{file}")

        _all(one, folders)
        return [folder for folder in folders if there[folder]]

    def below(self, folder: str) -> dict[str, int]:
        """Every object below `folder`: key → size in bytes."""
        with self.reaching(f"list {folder} of"):

            def ask() -> dict[str, dict[str, Any]]:
                self.system.invalidate_cache()
                return objects.below(self.system, self.path(folder))

            entries = retry(ask, what=f"list {self.url}/{folder}")
        keys = (
            (self._key(name), entry)
            for name, entry in entries.items()
            if entry["type"] == "file"
        )
        return {key: int(entry["size"]) for key, entry in keys if key is not None}

    def _key(self, name: Any) -> str | None:
        """The key of what a listing names.

        It becomes a path, so one that does not lie below the root, or is spelt so that it would lead
        elsewhere, is left out, and that is said: whoever may write to the bucket must not hide its
        neighbours.
        """
        # File systems disagree about slashes at the ends.
        text, root = str(name).strip("/"), self.root.strip("/")
        # A prefix without its slash would also match a neighbour such as
        # `penstock-old`.
        if root and not text.startswith(f"{root}/"):
            why = f"it does not lie below {root}; the bucket's service answers otherwise than was asked"
        else:
            text = text[len(root) :].strip("/")
            why = reason(text) or ""
        if not why:
            return text
        notify(
            f"{self.url} lists {shown(text)}, and that is left out: {why}. Whoever wrote it there did not do"
            " so with Penstock; remove it.",
            key=shown(text),
        )
        return None

    def get(self, sizes: dict[str, int], folder: Path, strip: str) -> None:
        """Copy objects (key → size) to a local folder, several at once, under their keys less `strip`."""

        def one(key: str) -> None:
            # Keys are foreign input: one with `..` must not write outside of `folder`.
            target = below(
                folder,
                key.removeprefix(strip).lstrip("/"),
                where=f"a key in the store {self.url}",
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as file:
                # Piece by piece, so that a large object never is in memory whole.
                for piece in self.pieces(key, sizes[key]):
                    file.write(piece)

        _all(one, list(sizes))

    # -- writing ---------------------------------------------------------------------------------------------

    def write(self, key: str, data: bytes) -> None:
        """Put `data` at `key`, whole or not at all; what was there is replaced. Raises StoreError."""
        with self.reaching(f"write {key} to"):
            retry(
                lambda: self.system.pipe_file(self.path(key), data),
                what=f"write {self.url}/{key}",
            )
            self._check_encrypted(key)

    def drop(self, key: str) -> None:
        """Remove an object, if it is there."""
        # Gone already is what was asked for.
        with self.reaching(f"remove {key} from"), contextlib.suppress(FileNotFoundError):
            retry(
                lambda: self.system.rm_file(self.path(key)),
                what=f"remove {self.url}/{key}",
            )

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object that must not be there yet. Returns False if it is
        there.

        `data` must differ from what any other process writes: reading it back tells who
        was first.

        Of two processes that create the same key at once, one gets True. Where the
        object store knows no conditional put (it is asked once), the protocol of
        Fischer stands in: look, write, wait for longer than a write takes, and read
        back; the writer whose data stands has created it.
        """
        with self.reaching(f"write {key} to"):
            if self._heeds_conditions():
                # an answer may be lost, and asked for again
                return self._put_new(key, data) or self.read(key) == data
            if self.read(key) is not None:
                return False
            # Fischer's wait must exceed the slowest write; the measured one, tripled,
            # stands for it.
            began = time.monotonic()
            self.write(key, data)
            time.sleep(max(_SETTLE_SECONDS, _SETTLE_TIMES * (time.monotonic() - began)))
            return self.read(key) == data

    def _heeds_conditions(self) -> bool:
        """Whether the store refuses a conditional put when the object is there: some
        servers accept the condition and ignore it.
        """
        if self._is_conditional is None:
            # A random name: a probe left by a killed process must not decide the
            # answer.
            probe = f".leases/probe-{secrets.token_hex(8)}"
            self._is_conditional = (
                # The first put must succeed and the second fail; a server that ignores
                # the condition fails here.
                bool(_conditional(self.system))
                and self._put_new(probe, b"1")
                and not self._put_new(probe, b"2")
            )
            self.drop(probe)
        return self._is_conditional

    def _put_new(self, key: str, data: bytes) -> bool:
        """Put an object unless it is there. Returns whether it was put."""
        words = _conditional(self.system)
        try:
            retry(
                lambda: self.system.pipe_file(self.path(key), data, **words),
                what=f"write {self.url}/{key}",
            )
            self._check_encrypted(key)
        except FileExistsError:
            return False
        except refusals() as error:
            # Stores word the refusal differently (412, 409, PreconditionFailed).
            if is_taken(error):
                return False
            raise
        return True

    def put(
        self,
        name: str,
        files: list[Path],
        folder: Path,
        *,
        last: str,
        checksums: dict[str, str] | None = None,
        memo: Path | None = None,
    ) -> None:
        """Send local files to the folder `name`, several at once, the one called `last` after all others.

        Args:
            checksums: by path below `folder`, of files that never change; with `memo`, what was sent before
                is not sent again.
        """
        sent: dict[str, list[Any]] = {}
        if memo is not None and memo.is_file():
            sent = _sent(memo)
        # Guards the memo: two threads' lines must not mix.
        writing = threading.Lock()

        def one(file: Path) -> None:
            below = file.relative_to(folder).as_posix()
            key, checksum = f"{name}/{below}", (checksums or {}).get(below)
            # The checksum is compared first, since the stamp costs a request.
            if (
                checksum is not None
                and sent.get(below, [])[:1] == [checksum]
                and sent[below][1:] == self._stamp(key)
            ):
                return
            # in parts, which bounds memory
            more = {"chunksize": RANGE_BYTES} if self.url.startswith("s3") else {}
            retry(
                lambda: self.system.put_file(str(file), self.path(key), **more),
                what=f"write {self.url}/{key}",
            )
            self._check_encrypted(key)
            if memo is not None and checksum is not None:
                # Asked after the put: it is the store's word that this very object has
                # arrived.
                stamp = self._stamp(key)
                # Without the memo a push is only not resumed.
                with writing, contextlib.suppress(OSError):
                    memo.parent.mkdir(parents=True, exist_ok=True)
                    # A line a file: to write all of it after each of many files would
                    # take the square of their number. The line begins anew, since a
                    # kill may have torn the one before.
                    with open(memo, "a", encoding="utf-8") as journal:
                        journal.write("\n" + json.dumps([below, checksum, *stamp]))

        with self.reaching(f"write {name} to"):
            # Two rounds: the manifest must not become visible before the last of the
            # files.
            _all(one, [file for file in files if file.name != last])
            _all(one, [file for file in files if file.name == last])
        # Its absence tells `Store.finish` that nothing is left to send.
        if memo is not None:
            memo.unlink(missing_ok=True)

    def _check_encrypted(self, key: str) -> None:
        """See once whether the store encrypts as it is asked to: some take the words and ignore them.

        Raises:
            StoreError: it does not; the object is removed.
        """
        asked = getattr(self.system, "s3_additional_kwargs", None) or {}
        wanted = asked.get("ServerSideEncryption")
        if self._is_encrypting or wanted is None:
            return
        bucket, _, name = self.path(key).partition("/")
        head = retry(
            lambda: self.system.call_s3("head_object", Bucket=bucket, Key=name),
            what=f"read {self.url}/{key}",
        )
        got = head.get("ServerSideEncryption")
        if got != wanted:
            self.drop(key)
            raise StoreError(
                f"the store {self.url} was asked to encrypt objects with {wanted} ({ENCRYPTION}), and"
                f" {f'encrypts with {got}' if got else 'does not encrypt them'}. The object was removed. Set"
                " up encryption in the store, or ask for what it does."
            )
        self._is_encrypting = True

    def remove(self, folder: str) -> None:
        """Remove all below a folder; its manifest, which means that it is whole, first."""
        keys = self.below(folder)
        with self.reaching(f"remove {folder} from"):
            # `False` sorts first: from the first removal on, nothing there looks
            # finished.
            for key in sorted(keys, key=lambda key: not key.endswith("/manifest.json")):
                remove = functools.partial(self.system.rm_file, self.path(key))
                retry(remove, what=f"remove {self.url}/{key}")

    def _stamp(self, key: str) -> list[Any]:
        """Size, and what changes when the object does; empty where there is none."""
        try:
            info = retry(
                lambda: self.system.info(self.path(key)), what=f"read {self.url}/{key}"
            )
        except FileNotFoundError as error:
            if not objects.is_absent(error):
                raise
            return []
        return [
            int(info.get("size") or 0),
            next((str(info[word]) for word in _STAMPS if info.get(word)), ""),
        ]


def _conditional(system: Any) -> dict[str, Any]:
    """The arguments that make a file system's `pipe_file` refuse an existing object;
    empty where it has none.
    """
    from fsspec.asyn import AsyncFileSystem
    from fsspec.spec import AbstractFileSystem

    # The class is asked, not the instance: asynchronous file systems hide it behind a
    # wrapper.
    put = getattr(type(system), "_pipe_file", None) or type(system).pipe_file
    # The base classes' own promise nothing for two writers at once.
    if put is AbstractFileSystem.pipe_file or put is AsyncFileSystem._pipe_file:
        return {}
    known = inspect.signature(put).parameters
    return (
        {"mode": "create"}
        if "mode" in known
        else {"overwrite": False}
        if "overwrite" in known
        else {}
    )


def _all(work: Any, items: list[Any]) -> None:
    """Call `work(item)` for each item, a few at once. After a failure no more begin,
    and the failure is raised once those under way have ended.
    """
    # One item needs no pool, and raises in the caller's own frames.
    if len(items) <= 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(min(AT_ONCE, len(items)), "penstock-bucket") as pool:
        # `as_here` carries the caller's listeners into the threads.
        futures = [pool.submit(as_here(work), item) for item in items]
        try:
            for future in futures:
                future.result()
        # Leaving the `with` waits for those under way; the others must not begin.
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def _sent(memo: Path) -> dict[str, list[Any]]:
    """What a push has sent before it was broken off, by path: checksum, and what the store said of it. A line
    that cannot be read only costs sending its file again.
    """
    sent: dict[str, list[Any]] = {}
    for line in memo.read_text("utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            entry = parsed(line)
            if isinstance(entry, list) and entry and isinstance(entry[0], str):
                sent[entry[0]] = entry[1:]
    return sent
