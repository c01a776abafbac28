"""Files that an artefact shares with an older one: a version of a dataset that has all rows of another.

A shared file has the same name in both. In a folder it is one file with two names (a hard link), so either
artefact may go and the other stays whole. A bucket has no links: there the manifest says of each shared file
whose it is (`from`), and whoever takes an artefact out of a bucket asks first who shares its files
(`sharers`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class SharedFile:
    """A file of another artefact of the same store."""

    owner: str
    """The artefact's name: `datasets/people/3f2a91c04b7d8e15`."""
    size_bytes: int
    sha256: str

    @property
    def entry(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return {"size_bytes": self.size_bytes, "sha256": self.sha256}


def shared_of(name: str, manifest: Mapping[str, Any], file: str) -> SharedFile:
    """A file of the artefact `name`, to be shared; one that it shares itself stays its owner's."""
    entry = manifest["files"][file]
    return SharedFile(entry.get("from", name), entry["size_bytes"], entry["sha256"])


def link(
    at: Callable[[str], Path], files: Mapping[str, SharedFile], folder: Path
) -> None:
    """Give files of artefacts in a local store second names below `folder`.

    Args:
        at: where a name of the store lies.

    Raises:
        OSError: one is gone, the disk is full, or the folder cannot be written.
    """
    for file, shared in files.items():
        source, target = at(f"{shared.owner}/{file}"), folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            # A file system without links: a copy is the same file, and takes room.
            target.unlink(missing_ok=True)
            shutil.copyfile(source, target)


def entries(files: Mapping[str, SharedFile]) -> dict[str, dict[str, Any]]:
    """What a manifest in a bucket says of shared files: whose they are, too."""
    return {
        name: {**shared.entry, "from": shared.owner} for name, shared in files.items()
    }


def owner_of(name: str, entry: Mapping[str, Any]) -> str:
    """Which artefact has a file that the manifest of the artefact `name` names."""
    return str(entry.get("from", name))


def sharers(
    manifests: Mapping[str, Mapping[str, Any]], gone: Collection[str]
) -> list[str]:
    """The artefacts that would lack files if those in `gone` went.

    Args:
        manifests: of all artefacts that may share files, by name.
    """
    leaving = set(gone)
    return [
        name
        for name, manifest in manifests.items()
        if name not in leaving
        and any(entry.get("from") in leaving for entry in manifest["files"].values())
    ]
