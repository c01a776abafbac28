"""A manifest as it is read: what an artefact says of itself, judged before anything in it is believed."""

from __future__ import annotations

import re
from typing import Any

from penstock.core.errors import StoreError
from penstock.core.jsons import parsed
from penstock.core.paths import plain_all

FORMAT = 1
MANIFEST = "manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_manifest(content: bytes, path: str) -> dict[str, Any]:
    """A manifest as data, every name and entry in it judged: what follows may join them to paths.

    Raises:
        StoreError: it cannot be read, is of a newer format, or names what no manifest names.
    """
    unread = StoreError(
        f"{path}/{MANIFEST} cannot be read; it was changed after it was written."
    )
    try:
        manifest: dict[str, Any] = parsed(content)
        files = manifest["files"]
        # A format that is no number raises TypeError here, and reads as damaged.
        newer = manifest.get("format", 0) > FORMAT
    # RecursionError: nesting as deep as an attacker likes.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise unread from None
    if newer:
        raise StoreError(
            f"{path} has format {str(manifest['format'])[:40]}; this Penstock reads formats up to {FORMAT}."
            " Upgrade Penstock."
        )
    # Sizes and checksums are used without further checks from here on.
    if not isinstance(files, dict) or not all(map(_is_entry, files.values())):
        raise unread
    plain_all(files, where=f"a file in the manifest of {path}")
    owners = {entry["from"] for entry in files.values() if "from" in entry}
    plain_all(owners, where=f"an artefact that the manifest of {path} shares files of")
    # Case is folded: on some file systems `Manifest.json` would replace it.
    if any(name.rpartition("/")[2].casefold() == MANIFEST for name in files):
        raise StoreError(
            f"the manifest of {path} names a {MANIFEST} among its files, which no manifest does; it was"
            " changed after it was written."
        )
    return manifest


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    size, digest = entry.get("size_bytes"), entry.get("sha256")
    return (
        # `type`, since True is an int, too.
        type(size) is int
        and size >= 0
        and isinstance(digest, str)
        and _SHA256.fullmatch(digest) is not None
        # Of a file that another artefact has: which one.
        and isinstance(entry.get("from", ""), str)
    )
