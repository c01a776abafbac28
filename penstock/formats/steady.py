"""What is read is what was hashed: a source that changes while it is prepared never enters the cache under
its old hash.

A snapshot has each file's SHA-256 and its stamp: what the file system, or the store, says of the version that
was there before it was hashed. Reading is believed if the stamp is still the same afterwards. Where there is
no stamp, or it is another (a file that was touched, a listing that words it otherwise), the content itself is
hashed again.
"""

from __future__ import annotations

import hashlib
import os

from penstock.contracts.data import SourceFile
from penstock.core.errors import SourceError
from penstock.formats.file_hashes import digest_of
from penstock.formats.files import look, read_whole, stamp_of
from penstock.formats.places import is_remote


def changed(url: str, what: str) -> SourceError:
    """The error for a file that has changed; `what` says how that is known."""
    return SourceError(
        f"{url} changed while it was being prepared: {what}. Run again when nothing"
        " writes to it; nothing was saved."
    )


def check(url: str, size_bytes: int | None, stamp: str, sha256: str) -> None:
    """Refuse a file that is not the one that the snapshot saw. Asked before a file is read, and after.

    Args:
        size_bytes: as it was; None: nothing is known of it, and nothing is checked.
        stamp: as it was; empty where the place has none.
        sha256: of the content; empty where it was not hashed.

    Raises:
        SourceError: it has changed.
    """
    if size_bytes is None:
        return
    now = look(url)
    if now.size_bytes != size_bytes:
        raise changed(url, f"it had {size_bytes} bytes, now {now.size_bytes}")
    # The stamp is enough: hashing all content again would double the reading.
    if stamp and now.stamp == stamp:
        return
    # Without a hash the stamp is all there is to go by.
    if not sha256:
        if stamp:
            raise changed(url, "it was written anew")
        return
    if digest_of(url, size_bytes) != sha256:
        raise changed(url, "its content is another")


def check_file(file: SourceFile) -> None:
    """`check` of a snapshot's file."""
    check(file.url, file.size_bytes, file.stamp, file.sha256)


def whole(file: SourceFile, *, sized: bool = True) -> bytes:
    """Read all of a snapshot's file, and check that it is what was hashed.

    Args:
        sized: the snapshot knows the size; a server may tell none.

    Raises:
        SourceError: it is gone, or has changed.
    """
    data = read_whole(file.url, file.size_bytes if sized else None)
    if sized and len(data) != file.size_bytes:
        raise changed(file.url, f"it had {file.size_bytes} bytes, now {len(data)}")
    if (
        file.sha256
        and not _at_rest(file)
        and hashlib.sha256(data).hexdigest() != file.sha256
    ):
        raise changed(file.url, "its content is another")
    return data


def _at_rest(file: SourceFile) -> bool:
    """Whether a local file's stamp is still the same; what comes over a network is hashed."""
    if is_remote(file.url) or not file.stamp:
        return False
    try:
        return stamp_of(os.stat(file.url.removeprefix("file://"))) == file.stamp
    except OSError:
        return False
