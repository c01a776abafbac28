"""What a table of a lakehouse gives the source `lakehouse`: one version of it, as files and their rows.

opened at a version → its data files → the rows of each, in the table's columns, without what was deleted
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class LakeFile:
    """A file of a version: it never changes, and a version is a set of them."""

    path: str
    """Relative to the table."""
    url: str


class Lake(ABC):
    """A table at one version."""

    version: str
    """As the table calls it: a number of Delta, the id of a snapshot of Iceberg."""
    location: str
    """Where the table lies."""
    schema: pa.Schema
    """At that version."""
    files: tuple[LakeFile, ...]
    """With rows, sorted by path."""
    deletes: tuple[LakeFile, ...] = ()
    """Files that say which rows of others are deleted."""

    def deleted(self) -> str:
        """What identifies deleted rows that no file of `deletes` has; empty where there are none."""
        return ""

    def in_place(self) -> bool:
        """Whether the data files by themselves are the rows, all of them, with all columns."""
        return False

    @abstractmethod
    def batches(self, place: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows of `files[place]` that are not deleted, in the types of `schema`, streamed."""
