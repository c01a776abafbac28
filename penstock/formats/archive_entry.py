"""What an archive is to its readers: members in an order, each readable or not, for a reason."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of an archive."""

    name: str
    """As the archive has it (surrogates where it is not UTF-8)."""
    type: str
    """`file`, `folder`, `link`, `device`, or `odd`: a file that cannot be read, for the reason in
    `problem`.
    """
    size_bytes: int
    """Of its content, unpacked, as the archive says."""
    offset: int
    """Where its bytes begin; in a compressed tar, of the unpacked stream."""
    problem: str | None = None
    handle: Any = None


class Archive(ABC):
    """An open archive. Use as a context manager."""

    in_any_order: bool
    """Whether `read` takes entries in any order, at any time."""

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Its members, in its order.

        Raises:
            SourceError: it is damaged, naming where.
        """

    @abstractmethod
    def read(self, entry: Entry) -> bytes:
        """A file's content.

        Raises:
            SourceError: the archive is damaged.
            DamagedMember: this member is, and the others are not concerned.
        """

    def check(self, entry: Entry) -> None:
        """That an entry that is not read is what the archive's directory says of it; where names come from
        the members themselves, it is.

        Raises:
            SourceError: it is not: the archive is damaged.
        """
        return

    @abstractmethod
    def close(self) -> None:
        """Let go of the archive's file. Entries cannot be read any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


class DamagedMember(Exception):
    """A member that cannot be read, though the archive can."""


def said(error: BaseException) -> str:
    """An error's first line."""
    return (str(error) or type(error).__name__).strip().splitlines()[0][:200].rstrip(".")
