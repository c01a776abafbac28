"""A finished artefact: a folder whose manifest names every file with its size and checksum; and how one is
sealed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.core.bucket import Bucket
from penstock.core.errors import StoreError
from penstock.core.identity import sha256_file
from penstock.core.manifest import FORMAT, MANIFEST, read_manifest
from penstock.core.paths import below
from penstock.core.writing import atomic_write


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
            verify: read every file and compare its SHA-256 with the manifest; otherwise only sizes are
                compared.

        Raises:
            StoreError: there is no manifest, it is of a newer format, or a file is missing or changed.
        """
        # Also `manifest.json` goes through the gate: it may be a link that leads
        # elsewhere.
        file = below(path, MANIFEST, where=f"a file of {path}")
        if not file.is_file():
            raise StoreError(
                f"{path} has no {MANIFEST}: it was never finished, or is not an artefact of"
                " Penstock."
            )
        manifest = read_manifest(file.read_bytes(), str(path))
        # Names in a manifest are foreign input, so each passes the gate before it is
        # opened.
        for name, entry in manifest["files"].items():
            member = below(path, name, where=f"a file in the manifest of {path}")
            if not member.is_file():
                raise StoreError(
                    f"{path} lacks {name}, which its manifest names. Restore it, or make the artefact again."
                )
            # Sizes catch torn files at the cost of one stat; content is hashed only on
            # request.
            size = member.stat().st_size
            if size != entry["size_bytes"]:
                raise StoreError(
                    f"{member} has {size} bytes; its manifest says {entry['size_bytes']}. It was changed or"
                    " torn; make it again."
                )
            if verify and (digest := sha256_file(member)) != entry["sha256"]:
                raise StoreError(
                    f"{member} was changed: its SHA-256 is {digest[:16]}…, its manifest says"
                    f" {entry['sha256'][:16]}…."
                )
        return cls(path, manifest)


class _WrongContent(Exception):
    """What came has another checksum than the manifest says; it is caught here."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


@dataclass(frozen=True)
class Member:
    """A file of a finished artefact that lies in a bucket."""

    url: str
    size_bytes: int
    sha256: str
    _bucket: Bucket = field(repr=False, compare=False)
    _key: str = field(repr=False)

    def pieces(self) -> Iterator[bytes]:
        """Its bytes in order, as they come; checked against its size, not against its checksum.

        Raises:
            StoreError: the bucket refuses, or goes on failing until the bound.
        """
        return self._bucket.pieces(self._key, self.size_bytes)

    def range(self, start: int, stop: int) -> bytes:
        """Bytes [start, stop); `Raises` as `pieces`."""
        return self._bucket.range(self._key, start, stop)

    def damaged(self, digest: str) -> StoreError:
        """What is said when it came twice with the checksum `digest` instead of its manifest's."""
        return StoreError(
            f"{self.url} is damaged: its SHA-256 is {digest[:16]}…, but its manifest says"
            f" {self.sha256[:16]}… (fetched twice). Restore it, or delete the artefact so"
            " that it is made again."
        )

    def copy(self, path: Path) -> None:
        """Write it to a local file that is whole or absent.

        `Raises` as `pieces`; it is damaged; the disk is full.
        """
        # A checksum that fails once may be the network's doing; twice, it is the
        # object's.
        try:
            atomic_write(path, self._checked())
        except _WrongContent:
            try:
                atomic_write(path, self._checked())
            except _WrongContent as error:
                raise self.damaged(error.digest) from None

    def _checked(self) -> Iterator[bytes]:
        """Its pieces; wrong content is an error at their end, before the file gets its name."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
            yield piece
        if digest.hexdigest() != self.sha256:
            raise _WrongContent(digest.hexdigest())


def seal(
    path: Path,
    manifest: dict[str, Any],
    *,
    known: Mapping[str, dict[str, Any]] | None = None,
    elsewhere: Mapping[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Checksum every file below `path` and write the manifest, last. Returns the manifest as written.

    Args:
        known: entries of files that were checksummed while they were written: `size_bytes`, `sha256`.
        elsewhere: entries of files that are not below `path`: those of another artefact (`core.sharing`).
    """
    # Sorted, so that equal folders get equal manifests.
    files = {
        name: (known or {}).get(name)
        or {"size_bytes": member.stat().st_size, "sha256": sha256_file(member)}
        for member in sorted(path.rglob("*"))
        if member.is_file()
        and member.name != MANIFEST
        and (name := member.relative_to(path).as_posix())
    }
    for name in files:
        below(
            path, name, where=f"a file of {path}"
        )  # what a link brings in from elsewhere is no part of it
    # `files` comes last in the literal: a caller's manifest cannot replace the
    # checksums.
    files = dict(sorted({**files, **(elsewhere or {})}.items()))
    whole = {"format": FORMAT, **manifest, "files": files}
    atomic_write(path / MANIFEST, json.dumps(whole, indent=1, ensure_ascii=False))
    return whole
