"""`.npz`: several arrays in a zip. Those of one length are the columns of a table.

Where the names of all arrays end in the names of splits (`x_train`, `y_train`, `x_test`, `y_test`), the
splits follow each other as rows, with their name in the column `split`. The zip's directory and check sums
are held to, as those of any zip.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

import pyarrow as pa

from penstock.contracts.reading import TableFile
from penstock.core.errors import SourceError
from penstock.formats.archive_entry import DamagedMember, Entry
from penstock.formats.array_header import read_header
from penstock.formats.arrays import ArrayStream, batches
from penstock.formats.zips import Zip

_ENDING = ".npy"
SPLIT = "split"
_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}
_SPLIT = re.compile(rf"(?:(.+)_({'|'.join(_SPLITS)})|({'|'.join(_SPLITS)})_(.+))", re.I)


@dataclass(frozen=True)
class _Member:
    """An array of the file."""

    name: str
    entry: Entry
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """Arrays of one length."""

    split: str | None
    """Of which split they are, where their names say it."""
    columns: dict[str, _Member]
    """By the name of the column."""

    @property
    def rows(self) -> int:
        """How many rows each of them has."""
        return next(iter(self.columns.values())).shape[0]


@contextmanager
def opened(file: TableFile) -> Iterator[Zip]:
    """The zip of a file, with what is odd about it told."""
    with (
        file.local() as path,
        open(path, "rb") as raw,
        Zip(
            file.path, cast(BinaryIO, raw), lambda text: file.say(text, warn=True)
        ) as packed,
    ):
        yield packed


def parts(file: TableFile, packed: Zip, chosen: tuple[str, ...]) -> list[Part]:
    """The arrays of a file that are its table, by splits where it has some.

    Args:
        chosen: the arrays to be read; all of them where there is none.

    Raises:
        SourceError: they do not make a table.
    """
    members = _members(file, packed)
    if missing := [name for name in chosen if name not in members]:
        raise SourceError(
            f"source.format: {file.path} has no array {missing[0]!r}. Its arrays:"
            f" {_listed(members.values())}."
        )
    wanted = [members[name] for name in chosen or members]
    single = [member.name for member in wanted if not member.shape]
    if single:
        file.say(f"has single values, which are no columns: {', '.join(single)}.")
    arrays = [member for member in wanted if member.shape]
    if not arrays:
        raise SourceError(f"{file.path} holds no array that has rows.")
    if len({member.shape[0] for member in arrays}) == 1:
        return [Part(None, {member.name: member for member in arrays})]
    splits = _by_split(arrays)
    if splits is None:
        raise SourceError(
            f"{file.path} holds arrays of several lengths, which are no columns of one table:"
            f" {_listed(arrays)}. Name those that belong together, for example:"
            f" `format: {{type: npz, arrays: [{arrays[0].name}]}}`."
        )
    return splits


def _members(file: TableFile, packed: Zip) -> dict[str, _Member]:
    members: dict[str, _Member] = {}
    other: list[str] = []
    for entry in packed.entries():
        if entry.type != "file" or not entry.name.endswith(_ENDING):
            other.append(entry.name)
            continue
        name = entry.name.removesuffix(_ENDING)
        if name in members:
            raise SourceError(f"{file.path} holds two arrays called {name!r}.")
        with _whole(file, name), packed.stream(entry) as stream:
            header = read_header(stream, f"{file.path}: the array {name!r}")
        members[name] = _Member(name, entry, header.shape)
    if other:
        file.say(
            f"holds what is no array and is not read: {', '.join(other[:5])}.", warn=True
        )
    if not members:
        raise SourceError(
            f"{file.path} holds no arrays (members whose names end in .npy)."
        )
    return members


def _by_split(arrays: list[_Member]) -> list[Part] | None:
    """The arrays by the splits that their names end or begin with; None where they do not make one table."""
    split: dict[str, dict[str, _Member]] = {}
    for member in arrays:
        match = _SPLIT.fullmatch(member.name)
        if match is None:
            return None
        name, word = (match[1], match[2]) if match[1] else (match[4], match[3])
        columns = split.setdefault(_SPLITS[word.lower()], {})
        if name.lower() == SPLIT or name in columns:
            return None
        columns[name] = member
    parts = [Part(word, columns) for word, columns in split.items()]
    are_alike = len({frozenset(part.columns) for part in parts}) == 1
    are_even = all(len({m.shape[0] for m in p.columns.values()}) == 1 for p in parts)
    return parts if are_alike and are_even else None


def rows(file: TableFile, packed: Zip, part: Part) -> Iterator[pa.RecordBatch]:
    """The rows of some arrays, side by side.

    Raises:
        SourceError: an array is damaged.
    """
    with ExitStack() as stack, _whole(file, ", ".join(part.columns)):
        arrays = []
        for name, member in part.columns.items():
            stream = stack.enter_context(packed.stream(member.entry))
            what = f"{file.path}: the array {member.name!r}"
            arrays.append(
                ArrayStream(
                    name,
                    stream,
                    what,
                    size=member.entry.size_bytes,
                    most_bytes=file.most_bytes,
                )
            )
        for batch in batches(arrays, part.rows):
            if part.split is not None:
                word = pa.array([part.split] * batch.num_rows, pa.string())
                batch = batch.append_column(SPLIT, word)
            yield batch


@contextmanager
def _whole(file: TableFile, name: str) -> Iterator[None]:
    """Damage of a member is damage of the file: its other columns would have no values beside it."""
    try:
        yield
    except DamagedMember as error:
        raise SourceError(
            f"{file.path}: the array {name!r} cannot be read: {error}. Fetch or write the file again."
        ) from None


def _listed(members: Iterable[_Member]) -> str:
    some = list(members)
    shown = ", ".join(f"{m.name} {list(m.shape)}" for m in some[:8])
    return f"{shown} …" if len(some) > 8 else shown
