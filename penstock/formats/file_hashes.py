"""The SHA-256 of files; one that has not changed since is not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from penstock.core.errors import SourceError, StoreError
from penstock.core.jsons import parsed
from penstock.core.redact import redacted_url
from penstock.core.store import atomic_write
from penstock.core.wanted import is_wanted
from penstock.formats.archive_names import carrier
from penstock.formats.files import FileInfo, look, open_bytes, read_whole, settle, spread
from penstock.formats.places import is_remote, plainly


def digest_of(url: str, size_bytes: int) -> str:
    """The SHA-256 of a file's content, now."""
    if size_bytes <= 1 << 20:
        return hashlib.sha256(read_whole(url, size_bytes)).hexdigest()
    sha = hashlib.sha256()
    with open_bytes(url) as stream, plainly(url):
        while chunk := stream.read(1 << 20):
            sha.update(chunk)
            if not is_wanted():  # an interrupt does not wait until a terabyte is hashed
                raise SourceError(
                    f"{url} was not hashed completely, because the command was stopped."
                )
    return sha.hexdigest()


def hashes(infos: list[FileInfo], memo: Path | None) -> list[str]:
    """The SHA-256 of each file; what `memo` knows of (url, size, stamp) is not read again.

    Raises:
        SourceError: a file changes while it is hashed.
    """
    known = _known(memo)
    # From here on an unchanged stamp proves an unchanged file.
    settle(infos)

    def digest(file: FileInfo) -> str:
        entry = known.get(redacted_url(file.url))
        # Where a place has no stamps, nothing tells a changed file, so it is hashed
        # each time.
        if (
            isinstance(entry, dict)
            and file.stamp
            and entry.get("size_bytes") == file.size_bytes
            and entry.get("stamp") == file.stamp
        ):
            return str(entry["sha256"])
        sha256 = digest_of(file.url, file.size_bytes)
        # What was written to while it was hashed has the digest of no version.
        if not is_remote(carrier(file.url)) and look(file.url).stamp != file.stamp:
            raise SourceError(
                f"{file.url} changed while it was being hashed. Run again when nothing writes"
                " to it."
            )
        return sha256

    # hashing lets go of Python's lock
    large = bool(infos) and (
        is_remote(infos[0].url) or sum(f.size_bytes for f in infos) > len(infos) << 20
    )
    portions = (
        ([f] for f in infos)
        if large
        # Tiny files come in portions: one alone takes too little time for `spread` to
        # measure.
        else (infos[i : i + 256] for i in range(0, len(infos), 256))
    )
    digests = [
        d
        for _, digests in spread(
            portions, lambda files: [digest(f) for f in files], workers=4, waits=large
        )
        for d in digests
    ]
    fresh = {
        # Redacted, so that no signature of a URL comes to lie in the store.
        redacted_url(f.url): {"size_bytes": f.size_bytes, "stamp": f.stamp, "sha256": d}
        for f, d in zip(infos, digests, strict=True)
    }
    if memo is not None and any(known.get(url) != entry for url, entry in fresh.items()):
        with contextlib.suppress(
            StoreError
        ):  # a store that may only be read: the memo only saves time
            # What other sources hashed stays in the memo.
            atomic_write(memo, json.dumps({**known, **fresh}))
    return digests


def _known(memo: Path | None) -> dict[str, Any]:
    if memo is None or not memo.is_file():
        return {}
    try:
        known = parsed(memo.read_text("utf-8"))
    except ValueError:
        return {}  # a memo only saves time: a torn one is written anew
    return known if isinstance(known, dict) else {}
