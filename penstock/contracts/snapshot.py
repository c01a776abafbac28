"""What a source would be read from, and what came of reading it: plain records."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

ROW_FILE = "__file"
"""int32: index into `Snapshot.files`."""
ROW_NUMBER = "__row"
"""int64: the row's ordinal within its file, from 0, rejected rows not counted."""

PLACE = (ROW_FILE, ROW_NUMBER)
"""Where a row of the source stands: no two rows of a preparation have the same."""


@dataclass(frozen=True)
class SourceFile:
    """One file of a snapshot."""

    path: str
    """Relative to the source's root, with `/`: what lineage and row ids name."""
    url: str
    """Where it is read: an absolute local path or a URL."""
    size_bytes: int
    sha256: str
    split: str | None = None
    """`train`, `validation` or `test` where the recipe splits by files."""
    stamp: str = ""
    """What its place says of the version that was hashed; empty where it says nothing.

    No part of any identity.
    """
    position: str = field(default="", compare=False)
    """Where a server said it stood when it was read, for lineage; no part of any identity."""


@dataclass(frozen=True)
class Snapshot:
    """The files that a source would be read from now."""

    files: tuple[SourceFile, ...]

    def to_dict(self) -> list[dict[str, Any]]:
        """What of it enters a dataset's identity: content and names, not places or times."""
        # A file that was moved or touched, with the same content and name, makes the
        # same dataset.
        return [
            {"path": f.path, "sha256": f.sha256, "split": f.split} for f in self.files
        ]


@dataclass
class Extract:
    """A source's rows as plain Parquet."""

    parquet: list[Path | str]
    """Files whose columns are the source's, united by name, and `ROW_FILE` and `ROW_NUMBER`."""
    schema: pa.Schema
    """The source's own columns, without those two."""
    rejects: list[Path] = field(default_factory=list)
    """Parquet files of `REJECT_SCHEMA`."""
    rows: int = 0
    """Rows in `parquet`."""
    rejected: int = 0
    """Rows in `rejects`."""
    misfits: frozenset[str] = frozenset()
    """Columns read as something `Learnt` says, in which some values are not of their type: these are texts in
    a column beside.
    """
    cut: bool = False
    """Of a sample: rows are fewer than were asked for since they are wide."""
    declared: int | None = None
    """Rows that the files say they have, or were seen to have, the bad ones among them; None where that is
    not known of each.
    """
