"""The store: a folder, or a bucket, of immutable artefacts.

An artefact is a folder that is written once. It is drafted in a staging folder beside the store's own
folders, every file is checksummed, `manifest.json` is written last, and one rename makes it visible; so its
manifest's existence means that the rest is whole. A run is the exception that proves it: it is written where
it lies, appended to, and its manifest closes it.

A bucket (any fsspec URL) has no rename: files go up first and the manifest last (`core.bucket`). What is
small is copied to a local mirror, once, since artefacts never change; what is large (feeds, rows) is read
where it lies, file by file, through `members`.

What this room refuses to know: what the artefacts mean.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.core import mirror, sharing
from penstock.core.artefact import Artefact as Artefact
from penstock.core.artefact import Member as Member
from penstock.core.artefact import seal as seal
from penstock.core.bucket import Bucket
from penstock.core.caches import cache_folder as cache_folder
from penstock.core.credentials import address
from penstock.core.drafts import Draft, draft_folder
from penstock.core.errors import StoreError
from penstock.core.identity import fingerprint, sha256_file
from penstock.core.lease import FOLDER as LEASES
from penstock.core.lease import Leased, mine
from penstock.core.manifest import FORMAT as FORMAT
from penstock.core.manifest import MANIFEST as MANIFEST
from penstock.core.manifest import read_manifest
from penstock.core.paths import below, plain, step
from penstock.core.redact import redacted_url
from penstock.core.regular import refuse_nul
from penstock.core.remote_errors import refusals as refusals
from penstock.core.shelf import FolderShelf, Shelf
from penstock.core.writing import as_store_error as as_store_error
from penstock.core.writing import atomic_write as atomic_write

STAGING = ".staging"
"""The folder of a store for what is being written."""
_TRIES = 100
"""How often what others are doing at the same moment is tried around."""
CACHE_BYTES = 20 * 2**30
"""The most that copies of a bucket's large files take on this machine's disk, over all processes and runs."""


class Store:
    """A folder or bucket of artefacts.

    Args:
        url: a local path, or any fsspec URL (`s3://team/penstock`, `gs://…`, `memory://…`).
        cache_bytes: for a bucket, the most that copies of its large files take on this machine (see
            `shards.cache`).
    """

    def __init__(self, url: str | Path, *, cache_bytes: int = CACHE_BYTES) -> None:
        text = str(url)
        # A NUL would surface later, as a ValueError from deep within `os`.
        refuse_nul(text, error=StoreError)
        self.url = text.rstrip("/") or "/"
        self.cache_bytes = cache_bytes
        self._bucket: Bucket | None = None
        if "://" in text and not text.startswith("file://"):
            # `memory://` is one store for the process and needs no bucket's name.
            if not text.partition("://")[2].strip("/") and not text.startswith("memory:"):
                raise StoreError(
                    f"{text} names no bucket. A store in one is {text.partition('://')[0]}://BUCKET/FOLDER,"
                    " such as s3://team/penstock."
                )
            self._bucket = Bucket(self.url)
            # `address` has no credentials in it, so a rotated key finds the same
            # mirror.
            self.folder = cache_folder() / "mirror" / fingerprint(address(self.url))
        else:
            self.folder = Path(text.removeprefix("file://")).expanduser().absolute()
            with as_store_error(self.folder):
                # The nearest ancestor that exists decides: the store's own folder may
                # not be made yet.
                there = next(
                    (
                        part
                        for part in (self.folder, *self.folder.parents)
                        if part.exists()
                    ),
                    self.folder,
                )
            if there.exists() and not there.is_dir():
                raise StoreError(
                    f"a store is a folder or a bucket, and {there} is a file. Choose a folder with --store."
                )

    @property
    def is_remote(self) -> bool:
        """Whether the store is a bucket; a folder otherwise."""
        return self._bucket is not None

    def __repr__(self) -> str:
        return f"Store({redacted_url(self.url)!r})"

    # -- names -----------------------------------------------------------------------------------------------

    def at(self, name: str) -> Path:
        """Where `name` (of an artefact, of a shelf, of a file in one) lies on this machine, or would.

        Raises:
            StoreError: the name, or a link on the way, leads out of the store.
        """
        return below(self.folder, name, where=f"a name in the store {self.url}")

    def _plain(self, name: str) -> str:
        return plain(name, where=f"a name in the store {self.url}")

    @property
    def shelf(self) -> Shelf:
        """Its small files under keys: a folder and a bucket give leases and the audit log the same
        operations.
        """
        return FolderShelf(self.folder) if self._bucket is None else self._bucket

    # -- reading ---------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether the artefact `name` (such as `bundles/0123456789abcdef`) is there and finished.

        Of a bucket, the bucket says so: the mirror may hold what could never be copied up.
        """
        if self._bucket is None:
            return self.is_here(name)
        return self._bucket.exists(f"{self._plain(name)}/{MANIFEST}")

    def is_here(self, name: str) -> bool:
        """Whether a whole copy of the artefact `name` lies on this machine.

        If it does, it stays while this process lives.
        """
        manifest = self.at(f"{name}/{MANIFEST}")
        if self._bucket is not None and manifest.is_file():
            # The lock first, the look after it: an eviction may fall between the two.
            mirror.use(self.folder, name)
        return manifest.is_file()

    def leased(self, name: str) -> Leased:
        """The lease on `name`: see `core.lease`."""
        last = step(name.rsplit("/", 1)[-1], where=f"a name in the store {self.url}")
        # For its check alone: a link under the leases must not lead out of the store.
        self.at(f"{LEASES}/{last}")
        return Leased(self.shelf, self.folder, last, self.url)

    def read(self, name: str, *, file: str) -> bytes | None:
        """A small file of an artefact, finished or not, as the store has it now; None where there is none.

        Nothing else is read.

        Of a bucket the mirror's is taken only where the artefact is finished, or this process works on it.
        """
        path = self.at(f"{name}/{file}")
        # A holder's own copy is newer than the bucket's, which lags behind by a push.
        if (
            self._bucket is None
            or self.is_here(name)
            or mine(self.leased(name)) is not None
        ):
            return path.read_bytes() if path.is_file() else None
        content = self._bucket.read(self._plain(f"{name}/{file}"))
        # A bucket that lacks it may still lag behind this machine's copy.
        return path.read_bytes() if content is None and path.is_file() else content

    def manifest(self, name: str) -> dict[str, Any]:
        """What the artefact `name` says of itself; nothing else of it is read.

        Raises:
            StoreError: it is not there, unfinished, or of a newer format.
        """
        if self._bucket is None or self.is_here(name):
            content = (
                self.at(f"{name}/{MANIFEST}").read_bytes() if self.is_here(name) else None
            )
        # A manifest's size is written nowhere, so only parsing tells a torn one from a
        # whole one.
        else:
            content = self._bucket.read(f"{name}/{MANIFEST}", json_whole=True)
        if content is None:
            raise StoreError(f"{name} is not in the store {self.url}.")
        return read_manifest(content, f"{self.url}/{name}")

    def members(
        self, name: str, *, manifest: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Member]]:
        """An artefact in a bucket, to be read where it lies: its manifest, and its files by their paths in
        it.

        Args:
            manifest: what it says of itself, where that is known; it is read otherwise.

        Raises:
            StoreError: it is not there, unfinished, or of a newer format; the store is no bucket.
        """
        if self._bucket is None:
            raise StoreError(
                f"{name} lies in the folder {self.folder}; only a bucket has members."
            )
        manifest = manifest or self.manifest(name)
        keys = {
            file: f"{sharing.owner_of(name, entry)}/{file}"
            for file, entry in manifest["files"].items()
        }
        return manifest, {
            file: Member(
                f"{self.url}/{keys[file]}",
                entry["size_bytes"],
                entry["sha256"],
                self._bucket,
                keys[file],
            )
            for file, entry in manifest["files"].items()
        }

    def open(self, name: str, *, verify: bool = False) -> Artefact:
        """The artefact `name`, copied to the local mirror first if the store is a bucket.

        Raises:
            StoreError: it is not there, unfinished, torn or changed.
        """
        # The bucket is asked even if the mirror has a copy: a deleted artefact must not
        # live on here.
        if not self.has(name):
            raise StoreError(f"{name} is not in the store {self.url}.")
        self._fetch(name)
        return Artefact.open(self.at(name), verify=verify)

    def names(self, shelf: str) -> list[str]:
        """The names of finished artefacts under `shelf` (`datasets/adult`, `runs`), oldest first by name."""
        if self._bucket is None:
            return sorted(
                p.parent.relative_to(self.folder).as_posix()
                for p in self.at(shelf).glob(f"*/{MANIFEST}")
            )
        self._plain(shelf)
        return self._bucket.holding(shelf, MANIFEST)

    def folders(self, shelf: str) -> list[str]:
        """The names of folders under `shelf`, finished or not (runs may be unfinished)."""
        base = self.at(shelf)
        # A bucket has folders that are not here, and the mirror some that are not sent
        # yet: both count.
        names = (
            {p.relative_to(self.folder).as_posix() for p in base.iterdir() if p.is_dir()}
            if base.is_dir()
            else set()
        )
        if self._bucket is not None:
            names |= self._bucket.folders(shelf)
        return sorted(names)

    def file(
        self, name: str, *, file: str, manifest: dict[str, Any] | None = None
    ) -> Path:
        """One file of the artefact `name`, on this machine: of a bucket a copy, made if there is none,
        without the rest.

        Args:
            manifest: what the artefact says of itself, where that is known; it is read otherwise.

        Raises:
            StoreError: it is not there, or cannot be read.
        """
        if self._bucket is None or self.is_here(name):
            path = below(self.at(name), file, where=f"a file of {name}")
        else:
            path = self.at(f".files/{name}/{file}")
            # In use before the look, so that no eviction takes the file between look
            # and return.
            mirror.use(self.folder, f".files/{name}")
            if not path.is_file():
                _, members = self.members(name, manifest=manifest)
                if file not in members:
                    raise StoreError(f"{self.url}/{name} has no file {file}.")
                members[file].copy(path)
        return path

    def _fetch(self, name: str) -> None:
        """Copy an artefact to the mirror, each file checked; one that is not what its manifest says is
        fetched again once.
        """
        if self._bucket is None or self.is_here(name):
            return
        manifest, members = self.members(name)
        # Files land in a draft first: a torn download never has the artefact's name.
        with self._draft_folder() as draft, as_store_error(self.at(name)):
            # The second round fetches only what did not match.
            wrong = members
            for last in (False, True):
                self._get(name, manifest, list(wrong), draft)
                wrong = {
                    file: member
                    for file, member in wrong.items()
                    if sha256_file(draft / file) != member.sha256
                }
                if wrong and last:
                    file, member = next(iter(wrong.items()))
                    raise member.damaged(sha256_file(draft / file))
                if not wrong:
                    break
            # Written last: a draft without its manifest counts as torn.
            atomic_write(
                draft / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False)
            )
            self._settle(draft, name)
        self._bound(name)

    def _get(
        self, name: str, manifest: dict[str, Any], files: list[str], draft: Path
    ) -> None:
        """Copy files of an artefact from the bucket, shared ones from where they lie."""
        assert self._bucket is not None
        by_owner: dict[str, dict[str, int]] = {}
        for file in files:
            entry = manifest["files"][file]
            owner = sharing.owner_of(name, entry)
            by_owner.setdefault(owner, {})[f"{owner}/{file}"] = entry["size_bytes"]
        for owner, sizes in by_owner.items():
            self._bucket.get(sizes, draft, owner)

    def _bound(self, name: str) -> None:
        """Keep the mirror within its bound; `name`, which has just come, is in use."""
        if self._bucket is not None and self.is_here(name):
            # An artefact that is not in the bucket exists only here, and stays.
            mirror.evict(self.folder, self.cache_bytes, is_in_bucket=self._is_sent)

    def _is_sent(self, name: str) -> bool:
        try:
            return self.has(name)
        except StoreError:
            return False  # what cannot be known stays

    # -- writing ---------------------------------------------------------------------------------------------

    @contextmanager
    def draft(
        self,
        name: str | Callable[[Path], str],
        *,
        manifest: dict[str, Any],
        shared: Mapping[str, sharing.SharedFile] | None = None,
    ) -> Iterator[Path]:
        """Write the artefact `name`: yields an empty local folder; leaving it whole seals and publishes it.

        `name` may be what names the whole folder, called when it has been written; `manifest` may be filled
        in until then. If the body raises, nothing is kept. If another process published the same name
        meanwhile, theirs stands (equal names have equal content).

        Raises:
            StoreError: the disk is full or the store may not be written.
        """
        with self._draft_folder() as folder:
            yield folder
            # Names computed from content (a bundle's id) are known only now.
            if callable(name):
                name = name(folder)
            with as_store_error(self.at(name)):
                # What the caller has put there stands.
                manifest.setdefault(
                    "created", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                )
                if shared and self._bucket is not None:
                    self._put_sharing(name, folder, manifest, shared)
                    return
                known = {file: other.entry for file, other in (shared or {}).items()}
                sharing.link(self.at, shared or {}, folder)
                # Seal, then rename: readers see the whole artefact or none.
                seal(folder, manifest, known=known)
                self._settle(folder, name)
            if not (self.is_remote and self.has(name)):  # another's, which stands
                self.push(name)
            self._bound(name)

    def _put_sharing(
        self,
        name: str,
        folder: Path,
        manifest: dict[str, Any],
        shared: Mapping[str, sharing.SharedFile],
    ) -> None:
        """Send a draft to the bucket. It is not whole on this machine, so the mirror does not get it."""
        assert self._bucket is not None
        seal(folder, manifest, elsewhere=sharing.entries(shared))
        if not self.has(name):
            files = sorted(member for member in folder.rglob("*") if member.is_file())
            self._bucket.put(name, files, folder, last=MANIFEST)

    def finish(self, name: str) -> bool:
        """Send what an interrupted push of the artefact `name` left to be sent.

        Whether there was such a one: nothing needs to be made anew then.
        """
        # The memo exists only while a push is unfinished; `Bucket.put` removes it at
        # the end.
        if (
            self._bucket is None
            or not self.is_here(name)
            or not self._memo(name).is_file()
        ):
            return False
        self.push(name)
        return True

    def _memo(self, name: str) -> Path:
        return self.at(f".pushed/{fingerprint(name)}.json")

    @contextmanager
    def _draft_folder(self) -> Iterator[Path]:
        with (
            as_store_error(self.folder / STAGING),
            draft_folder(self.at(STAGING)) as draft,
        ):
            yield draft

    @contextmanager
    def scratch(self, prefix: str = "") -> Iterator[Path]:
        """An empty folder on the store's own disk, removed at the end; those of processes that were killed
        are removed, too.

        Raises:
            StoreError: the disk is full or the store may not be written.
        """
        # Only the making is translated: errors of the body are the caller's own.
        with as_store_error(self.folder / STAGING):
            draft = Draft(self.at(STAGING), prefix)
        with contextlib.closing(draft):
            yield draft.path

    def _settle(self, draft: Path, name: str) -> None:
        """Give a sealed draft its name, unless another has it by now. Others may be doing the same."""
        # `.torn` beside the draft, so that a sweep of dead drafts finds it too.
        target, torn = self.at(name), draft.with_name(f"{draft.name}.torn")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            for _ in range(_TRIES):
                # Equal names have equal content, so the first to publish wins and this
                # draft goes.
                if (target / MANIFEST).is_file():
                    return
                # what is there without a manifest is torn; it leaves at once, not file by file
                with contextlib.suppress(FileNotFoundError):
                    os.rename(target, torn)
                # another's, published between our look and our rename, stands
                whole = torn if (torn / MANIFEST).is_file() else draft
                try:
                    os.rename(whole, target)
                    return
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                shutil.rmtree(torn, ignore_errors=True)
            # Only reached if others win the race a hundred times.
            raise FileExistsError(
                errno.EEXIST, "other processes keep writing there", str(target)
            )
        finally:
            shutil.rmtree(torn, ignore_errors=True)

    def workspace(self, name: str, *, was_here: bool | None = None) -> Path:
        """The local folder of an artefact that grows in the open (a run), as the store has it now.

        In a bucket's mirror a copy of what is not finished is renewed, unless it is this machine's own: what
        was written here last is newer than what has reached the bucket. What is finished in the bucket is
        fetched whole.

        Args:
            was_here: whether it was worked on last by this machine, in this folder; found out by its lease
                unless given.

        Raises:
            StoreError: it cannot be read.
        """
        path = self.at(name)
        # A finished copy never changes, so it is never renewed.
        if self._bucket is not None and not self.is_here(name):
            self._renew(name, path, was_here)
        if not path.is_dir():
            with as_store_error(path):
                path.mkdir(parents=True, exist_ok=True)
        return path

    def _renew(self, name: str, path: Path, was_here: bool | None) -> None:
        assert self._bucket is not None
        leased = self.leased(name)
        # This process holds the lease, so nobody else can have written since.
        if was_here is None and mine(leased) is not None:
            return
        # Finished elsewhere: the copy here, whatever its state, is replaced by the
        # whole.
        if f"{name}/{MANIFEST}" in self._bucket.below(name):
            self._fetch(name)
            return
        # Whoever wrote last has the newest state; the lock file says whether that was
        # this machine.
        top = leased.top()
        is_own = leased.was_here(top) if was_here is None else was_here
        is_old = (
            top == 0 and path.exists()
        )  # begun by a Penstock without leases: nobody knows which is newer
        if is_old:
            return
        # Own and present: only what is missing is fetched, since what is here is newer.
        with self._draft_folder() as draft, as_store_error(path):
            if is_own and path.exists():
                mirror.complete(self._bucket, name, path, draft)
            else:
                mirror.renew(self._bucket, name, path, draft)

    def push(self, name: str) -> None:
        """Copy the local folder `name` to the bucket, its manifest last. Nothing to do for a local store.

        What a finished artefact's interrupted push sent is not sent again.
        """
        if self._bucket is None:
            return
        folder = self.at(name)
        # Links are left out: their targets may lie outside of the artefact.
        members = sorted(
            m for m in folder.rglob("*") if m.is_file() and not m.is_symlink()
        )
        # Without a manifest files may still change, so nothing may be skipped on a
        # later push.
        checksums = None
        if (folder / MANIFEST).is_file():
            checksums = {
                file: entry["sha256"]
                for file, entry in read_manifest(
                    (folder / MANIFEST).read_bytes(), str(folder)
                )["files"].items()
            }
        self._bucket.put(
            name,
            members,
            folder,
            last=MANIFEST,
            checksums=checksums,
            memo=self._memo(name),
        )

    def forget(self, name: str) -> None:
        """Remove the copy of the local folder `name` from the bucket. Nothing to do for a local store."""
        if self._bucket is not None:
            self._bucket.remove(self._plain(name))

    def texts(self, folder: str) -> set[str]:
        """The names of the small files in a folder (see `write_text`), here and in the bucket."""
        base = self.at(folder)
        names = {entry.name for entry in os.scandir(base)} if base.is_dir() else set()
        if self._bucket is not None:
            names |= {key.rsplit("/", 1)[-1] for key in self._bucket.below(folder)}
        return names

    def write_text(self, name: str, *, text: str) -> None:
        """Write or replace a small file that is not part of an artefact (an alias, a memo)."""
        # Here first: a bucket that refuses leaves the caller's own machine with the
        # text.
        atomic_write(self.at(name), text)
        if self._bucket is not None:
            self._bucket.write(name, text.encode())

    def read_text(self, name: str) -> str | None:
        """A small file written with `write_text`, or None."""
        # The bucket is the truth for aliases, which other machines may move.
        if self._bucket is not None:
            content = self._bucket.read(self._plain(name))
            return None if content is None else content.decode()
        path = self.at(name)
        return path.read_text("utf-8") if path.is_file() else None

    def drop_text(self, name: str) -> None:
        """Remove a small file written with `write_text`, here and in the bucket, if it is there."""
        if self._bucket is not None:
            self._bucket.drop(self._plain(name))
        self.at(name).unlink(missing_ok=True)
