"""The store: a folder, or a bucket, of immutable artefacts.

An artefact is a folder that is written once. It is drafted in a staging folder beside the store's own folders, every
file is checksummed, `manifest.json` is written last, and one rename makes it visible; so its manifest's existence means
that the rest is whole. A run is the exception that proves it: it is written where it lies, appended to, and its
manifest closes it.

A bucket (any fsspec URL) has no rename: files go up first and the manifest last. What is read from a bucket is copied
to a local mirror, once, since artefacts never change.

What this room refuses to know: what the artefacts mean.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.core.errors import StoreError
from penstock.core.identity import fingerprint, sha256_file

FORMAT = 1
MANIFEST = "manifest.json"


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never half of it."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    with told_plainly(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, path.parent.stat().st_mode & 0o666)  # mkstemp makes it private; a store is shared as its folders are
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextmanager
def told_plainly(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals (full, read-only, forbidden) into a `StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"the disk is full while writing {path} ({_free(path)} free). Nothing half-written was kept. "
                f"Free some space, or put the store elsewhere with --store."
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(f"cannot write {path}: {error.strerror}. Choose a folder you may write to with --store.") from None
        raise


def refusals() -> tuple[type[BaseException], ...]:
    """OSError, and what the clouds' packages raise beside it (only of those already imported)."""
    found: list[type[BaseException]] = [OSError]
    for module, name in (("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError"), ("google.auth.exceptions", "GoogleAuthError"),
                         ("azure.core.exceptions", "AzureError"), ("aiohttp", "ClientError")):
        error = getattr(sys.modules.get(module), name, None)
        if error is not None:
            found.append(error)
    return tuple(found)


def _free(path: Path) -> str:
    while not path.exists() and path != path.parent:
        path = path.parent
    return f"{shutil.disk_usage(path).free / 2**20:.1f} MiB"


class Artefact:
    """A finished artefact: a local folder and its manifest."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> Artefact:
        """Open the artefact in a local folder.

        Args:
            path: the folder.
            verify: read every file and compare its SHA-256 with the manifest; otherwise only sizes are compared.

        Raises:
            StoreError: there is no manifest, it is of a newer format, or a file is missing or changed.
        """
        file = path / MANIFEST
        if not file.is_file():
            raise StoreError(f"{path} has no {MANIFEST}: it was never finished, or is no artefact of Penstock.")
        try:
            manifest: dict[str, Any] = json.loads(file.read_text("utf-8"))
            files: dict[str, dict[str, Any]] = manifest["files"]
        except (ValueError, KeyError, TypeError):
            raise StoreError(f"{file} is not a manifest that can be read; it was changed after it was written.") from None
        if manifest.get("format", 0) > FORMAT:
            raise StoreError(f"{path} has format {manifest['format']}; this Penstock reads formats up to {FORMAT}. Upgrade Penstock.")
        for name, entry in files.items():
            member = path / name
            if not member.is_file():
                raise StoreError(f"{path} lacks {name}, which its manifest names. Restore it, or make the artefact again.")
            size = member.stat().st_size
            if size != entry["size_bytes"]:
                raise StoreError(f"{member} has {size} bytes; its manifest says {entry['size_bytes']}. It was changed or torn; make it again.")
            if verify and (found := sha256_file(member)) != entry["sha256"]:
                raise StoreError(f"{member} was changed: its SHA-256 is {found[:16]}…, its manifest says {entry['sha256'][:16]}….")
        return cls(path, manifest)


def seal(path: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Checksum every file below `path` and write the manifest, last. Returns the manifest as written."""
    files = {
        member.relative_to(path).as_posix(): {"size_bytes": member.stat().st_size, "sha256": sha256_file(member)}
        for member in sorted(path.rglob("*"))
        if member.is_file() and member.name != MANIFEST
    }
    whole = {"format": FORMAT, **manifest, "files": files}
    atomic_write(path / MANIFEST, json.dumps(whole, indent=1, ensure_ascii=False))
    return whole


class Store:
    """A folder or bucket of artefacts.

    Args:
        url: a local path, or any fsspec URL (`s3://team/penstock`, `gs://…`, `memory://…`).
    """

    def __init__(self, url: str | Path) -> None:
        text = str(url)
        self.url = text.rstrip("/") or "/"
        self._filesystem: Any = None
        if "://" in text and not text.startswith("file://"):
            import fsspec

            try:
                self._filesystem, self._root = fsspec.core.url_to_fs(self.url)
            except (ImportError, ValueError) as error:
                raise StoreError(f"cannot open the store {self.url}: {error}") from None
            cache = Path(os.environ.get("PENSTOCK_CACHE", Path.home() / ".cache" / "penstock"))
            self.folder = cache / "mirror" / fingerprint(self.url)
        else:
            self.folder = Path(text.removeprefix("file://")).expanduser().absolute()

    @property
    def is_remote(self) -> bool:
        return self._filesystem is not None

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    # -- reading -----------------------------------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether the artefact `name` (such as `bundles/0123456789abcdef`) is there and finished. Of a bucket, the bucket
        says so: the mirror may hold what could never be copied up."""
        if not self.is_remote:
            return (self.folder / name / MANIFEST).is_file()
        with self._reaching(f"read {name} from"):
            return bool(self._filesystem.exists(f"{self._root}/{name}/{MANIFEST}"))

    def open(self, name: str, *, verify: bool = False) -> Artefact:
        """The artefact `name`, copied to the local mirror first if the store is a bucket.

        Raises:
            StoreError: it is not there, unfinished, torn or changed.
        """
        if not self.has(name):
            raise StoreError(f"{name} is not in the store {self.url}.")
        self._fetch(name)
        return Artefact.open(self.folder / name, verify=verify)

    def names(self, shelf: str) -> list[str]:
        """The names of finished artefacts under `shelf` (`datasets/adult`, `runs`), oldest first by name."""
        if not self.is_remote:
            return sorted(p.parent.relative_to(self.folder).as_posix() for p in (self.folder / shelf).glob(f"*/{MANIFEST}"))
        with self._reaching(f"list {shelf} of"):
            keys = self._filesystem.glob(f"{self._root}/{shelf}/*/{MANIFEST}")
        return sorted(str(k)[len(self._root) :].strip("/").removesuffix(f"/{MANIFEST}") for k in keys)

    def folders(self, shelf: str) -> list[str]:
        """The names of folders under `shelf`, finished or not (runs may be unfinished)."""
        base = self.folder / shelf
        found = {p.relative_to(self.folder).as_posix() for p in base.iterdir() if p.is_dir()} if base.is_dir() else set()
        if self.is_remote:
            with self._reaching(f"list {shelf} of"):
                self._filesystem.invalidate_cache()
                if self._filesystem.exists(f"{self._root}/{shelf}"):
                    found |= {str(k["name"])[len(self._root) :].strip("/") for k in self._filesystem.ls(f"{self._root}/{shelf}", detail=True) if k["type"] == "directory"}
        return sorted(found)

    @contextmanager
    def _reaching(self, what: str) -> Iterator[None]:
        """A bucket that is not there, forbids or does not answer, in one sentence."""
        try:
            yield
        except refusals() as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise StoreError(f"cannot {what} the store {self.url}: {said[0][:300]}") from None

    def _fetch(self, name: str) -> None:
        if not self.is_remote or (self.folder / name / MANIFEST).is_file():
            return
        with self._draft_folder() as draft:
            with self._reaching(f"read {name} from"):
                self._filesystem.get(f"{self._root}/{name}/", f"{draft}/", recursive=True)
            self._settle(draft, name)

    # -- writing -----------------------------------------------------------------------------------------------------

    @contextmanager
    def draft(self, name: str, manifest: dict[str, Any]) -> Iterator[Path]:
        """Write the artefact `name`: yields an empty local folder; leaving it whole seals and publishes it.

        `manifest` may be filled in while the folder is written. If the body raises, nothing is kept. If another process
        published the same name meanwhile, theirs stands (equal names have equal content).

        Raises:
            StoreError: the disk is full or the store may not be written.
        """
        with self._draft_folder() as folder:
            yield folder
            with told_plainly(self.folder / name):
                manifest.setdefault("created", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
                seal(folder, manifest)
                self._settle(folder, name)
            self.push(name)

    @contextmanager
    def _draft_folder(self) -> Iterator[Path]:
        staging = self.folder / ".staging"
        draft = staging / uuid.uuid4().hex
        with told_plainly(draft):
            for _ in range(100):
                try:
                    draft.mkdir(parents=True)
                    break
                except FileNotFoundError:
                    continue  # another removed the empty staging folder between its making and ours
            try:
                yield draft
            finally:
                shutil.rmtree(draft, ignore_errors=True)
                with contextlib.suppress(OSError):
                    staging.rmdir()  # only if nobody else drafts there: another's draft must never go with it

    def _settle(self, draft: Path, name: str) -> None:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (target / MANIFEST).is_file():
            return
        if target.exists():  # torn: it has no manifest
            shutil.rmtree(target)
        try:
            os.rename(draft, target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not (target / MANIFEST).is_file():
                raise

    def workspace(self, name: str) -> Path:
        """A local folder in which an artefact grows in the open (a run). Close it with `seal`, then `push`."""
        path = self.folder / name
        if self.is_remote and not path.exists():
            with self._reaching(f"read {name} from"):
                if self._filesystem.exists(f"{self._root}/{name}"):
                    path.mkdir(parents=True)
                    self._filesystem.get(f"{self._root}/{name}/", f"{path}/", recursive=True)
        with told_plainly(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def push(self, name: str) -> None:
        """Copy the local folder `name` to the bucket, its manifest last. Nothing to do for a local store."""
        if not self.is_remote:
            return
        folder = self.folder / name
        members = sorted((m for m in folder.rglob("*") if m.is_file()), key=lambda m: (m.name == MANIFEST, m.as_posix()))
        with self._reaching(f"write {name} to"):
            for member in members:
                self._filesystem.put_file(str(member), f"{self._root}/{name}/{member.relative_to(folder).as_posix()}")

    def write_text(self, name: str, text: str) -> None:
        """Write or replace a small file that is not part of an artefact (an alias, a memo)."""
        atomic_write(self.folder / name, text)
        if self.is_remote:
            with self._reaching(f"write {name} to"):
                self._filesystem.pipe_file(f"{self._root}/{name}", text.encode())

    def read_text(self, name: str) -> str | None:
        """A small file written with `write_text`, or None."""
        if self.is_remote:
            with self._reaching(f"read {name} from"):
                try:
                    return bytes(self._filesystem.cat_file(f"{self._root}/{name}")).decode()
                except FileNotFoundError:
                    return None
        path = self.folder / name
        return path.read_text("utf-8") if path.is_file() else None
