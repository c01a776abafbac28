"""How archives and their members are named: `shop.zip`, and `shop.zip!/train/a.csv` for a member as a place
that can be opened.
"""

from __future__ import annotations

from typing import NamedTuple

ARCHIVES = (
    ".tar",
    ".tar.gz",
    ".tgz",
    ".tar.zst",
    ".tzst",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
    ".zip",
)
"""File endings that name an archive."""
_WITHIN = "!/"


class MemberPlace(NamedTuple):
    """Where a member lies."""

    archive: str
    """A path or URL."""
    name: str
    """Its path in the archive."""


def is_archive(path: str) -> bool:
    """Whether a path's ending names an archive."""
    return path.lower().endswith(ARCHIVES)


def member_url(archive: str, name: str) -> str:
    """The place of a member, as one text."""
    return f"{archive}{_WITHIN}{name}"


def member_place(url: str) -> MemberPlace | None:
    """The member that a place is; None where it is a file by itself."""
    start = url.find(_WITHIN)
    while start >= 0:
        if is_archive(url[:start]):
            return MemberPlace(url[:start], url[start + len(_WITHIN) :])
        start = url.find(_WITHIN, start + 1)
    return None


def carrier(url: str) -> str:
    """The file whose bytes a place is made of: the archive of a member, else the file itself."""
    place = member_place(url)
    return url if place is None else place.archive


def shown_path(path: str) -> str:
    """A member's place as people read it: `shop.zip/train/a.csv`."""
    place = member_place(path)
    return path if place is None else f"{place.archive}/{place.name}"


def archive_within(path: str) -> tuple[str, str] | None:
    """A path that leads into an archive: the archive, and the rest, which may be a pattern; None where no
    step but the last names one.
    """
    start = path.find("/")
    while start >= 0:
        if is_archive(path[:start]) and path[start + 1 :]:
            return path[:start], path[start + 1 :]
        start = path.find("/", start + 1)
    return None
