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
        """List the members, in the archive's own order.

        Raises:
            SourceError: it is damaged, naming where.
        """

    @abstractmethod
    def read(self, entry: Entry) -> bytes:
        """Read the content of a file.

        Raises:
            SourceError: the archive is damaged.
            DamagedMember: this member is, and the others are not concerned.
        """

    def check(self, entry: Entry) -> None:
        """Check that a member that is not read is what the archive's directory says of
        it. Where names come from the members themselves, there is nothing to check.

        Raises:
            SourceError: it is not: the archive is damaged.
        """
        return

    @abstractmethod
    def close(self) -> None:
        """Close the archive's file. Its entries cannot be read any more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


class DamagedMember(Exception):
    """A member that cannot be read, though the archive can."""


def reason(error: BaseException) -> str:
    """The first line of an error's text: at most 200 characters, without its full stop."""
    return (str(error) or type(error).__name__).strip().splitlines()[0][:200].rstrip(".")
