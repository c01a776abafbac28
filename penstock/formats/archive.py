"""Archives read where they lie: tar (plain, gzip, Zstandard, bzip2, xz) and zip, local or at any fsspec URL.

Nothing is unpacked to disk, so no name in an archive can harm; an `Entry` says what each member is, and
whoever reads decides. A plain tar and a zip are indexed by offset and read in any order; a compressed tar is
one stream, so an entry is read while it passes, or not at all. Entries come in the archive's own order, which
its hash fixes; it is also the order in which disks and networks are fast.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.core.errors import SourceError
from penstock.formats.archive_entry import Archive, DamagedMember, Entry
from penstock.formats.archive_names import ARCHIVES, is_archive
from penstock.formats.places import open_bytes, plainly
from penstock.formats.tars import Tar
from penstock.formats.zips import Zip

__all__ = ["ARCHIVES", "Archive", "DamagedMember", "Entry", "is_archive", "open_archive"]

# How packed streams begin. What begins otherwise is a plain tar, or nothing that is
# known.
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\0", "xz"),
)


def open_archive(url: str, *, warn: Callable[[str], None] | None = None) -> Archive:
    """Open an archive by its first bytes.

    Args:
        warn: told of oddities, each in one sentence about the archive; some are looked for only if it is
            given.

    Raises:
        SourceError: it is no archive known here, or is damaged at its very beginning.
    """
    raw = open_bytes(url)
    try:
        with plainly(url):
            magic = raw.read(6)
            raw.seek(0)
        if not magic:
            raise SourceError(f"{url} is empty, so it is not an archive. Fetch it again.")
        # The second is the end record of a zip without members.
        if magic[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            return Zip(url, raw, warn)
        packing = next((name for start, name in _MAGIC if magic.startswith(start)), None)
        return Tar(url, raw, packing, warn or (lambda text: None))
    except BaseException:
        raw.close()
        raise
