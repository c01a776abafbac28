"""The files of a folder or an archive, one after another, each with what is its row: the values that its path
tells, and its content, or the reason why it cannot be one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from penstock.contracts.data import SourceFile
from penstock.core.events import Events
from penstock.formats.archive import Archive, DamagedMember
from penstock.formats.draw import keys_of, seed_of
from penstock.formats.files import spread
from penstock.formats.path_pattern import decoded, hidden, safe
from penstock.formats.places import is_remote
from penstock.formats.row_shape import REST, Gathering, Shape, entries_of, folder_of
from penstock.formats.steady import whole

# Files that a thread reads in one go: handing over each small one would cost more than
# reading it.
_PORTION_FILES = 256


class Some:
    """A sample: about `wanted` files, of each folder its part, and one at the least.

    A folder's files are cut into runs of equal length, and of each run one is taken, by a hash: whatever the
    order of the files, none of it is left out, and nothing that comes again and again in it decides.

    Args:
        wanted: how many.
        folders: by folder: how many files it has.
    """

    def __init__(self, wanted: int, folders: Mapping[str, int]) -> None:
        self.files = sum(folders.values())
        self.wanted = max(1, min(wanted, self.files))
        # With more folders than rows not each can have one.
        self._least = 1 if len(folders) <= self.wanted else 0
        self._folders = folders
        self._quotas: dict[str, int] = {}
        self._seen: Counter[str] = Counter()
        before = 0
        for folder, files in folders.items():
            # Rounded so that all together are `wanted`.
            quota = (before + files) * self.wanted // self.files - (
                before * self.wanted // self.files
            )
            self._quotas[folder] = max(quota, self._least)
            before += files

    def has(self, path: str) -> bool:
        """Whether this file is one of them. Asked once of each file, in order."""
        folder = folder_of(path)
        if folder not in self._folders:
            folder = REST
        files, quota = self._folders.get(folder, 0), self._quotas.get(folder, 0)
        number, self._seen[folder] = self._seen[folder], self._seen[folder] + 1
        if not quota or number >= files:
            return False
        run = (number * quota) // files
        # The files of a run: those whose `run` this is.
        first, end = -(-run * files // quota), -(-(run + 1) * files // quota)
        chosen = int(keys_of(seed_of(folder), np.array([run]))[0])
        return number == first + chosen % (end - first)


@dataclass
class LeftOut:
    """Counts the files that are no rows, by kind, with the first of each kind."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, path: str) -> None:
        """Count the file at `path` as left out. `what`: what such files are called in the sentence."""
        self.counts[what] += 1
        self.first.setdefault(what, path)

    def say(self, where: str, events: Events) -> None:
        """Say in one sentence how many files of each kind were left out of `where`, if there are any."""
        if self.counts:
            counted = "; ".join(
                f"{n:,} {what}, such as {self.first[what]}"
                for what, n in sorted(self.counts.items())
            )
            events.say(f"left out of {where}: {counted}.")


@dataclass(slots=True)
class Item:
    """A file that is a row, or cannot be one."""

    file: int
    """Index into the snapshot's files."""
    line: int
    """From 1, among the files of an archive that are meant."""
    path: str
    values: Mapping[str, str | None]
    content: bytes | str | None
    reason: str | None
    size_bytes: int = 0


def _judge(
    data: bytes | None, size: int, shape: Shape, how: Gathering
) -> tuple[bytes | str | None, str | None, bool]:
    """Decode a file's bytes. Returns its content, or the reason why there is none, and
    whether the encoding was guessed.
    """
    if data is None:
        return (
            None,
            f"has {size:,} bytes, more than `max_bytes` ({how.max_bytes:,})",
            False,
        )
    if not shape.text:
        # An empty text is a value; empty bytes are no picture.
        return (data, None, False) if data else (None, "is empty", False)
    try:
        text, guessed = decoded(data, how.encoding)
    except ValueError as error:
        return None, str(error), False
    return text, None, guessed


def archive_items(
    index: int,
    archive: Archive,
    shape: Shape,
    how: Gathering,
    left: LeftOut,
    guessed: LeftOut,
    *,
    some: Some | None = None,
    within: int | None = None,
) -> Iterator[Item]:
    """The rows of one archive, in its order; links, devices and what the pattern does not mean are left out,
    counted.
    """
    # Hashes take less memory than a million names; a collision costs a wrong notice,
    # never a row.
    hashed_paths: set[int] = set()
    line = 0
    for entry in entries_of(archive, within):
        path, unsafe = safe(entry.name)
        values = (
            None if entry.type == "folder" or hidden(path) else shape.pattern.match(path)
        )
        # What is passed over for its name or kind is held against its own header: a
        # damaged entry must not lose a row in silence.
        if values is None or entry.type in ("link", "device"):
            archive.check(entry)
        if entry.type == "folder" or hidden(path):
            continue
        if values is None:
            left.add("files that `pattern` does not match", path)
            continue
        if entry.type in ("link", "device"):
            left.add(f"{entry.type}s", path)
            continue
        # Counted before a sample leaves it out, so that a reject has the same line in a
        # sample and in a full read.
        line += 1
        if some is not None and not some.has(path):
            continue
        if hash(path) in hashed_paths:
            left.add("second files of one name (which are rows all the same)", path)
        hashed_paths.add(hash(path))
        reason, content, guess = unsafe or entry.problem, None, False
        if reason is None:
            try:
                # By the size that the archive states: a member that is too large is
                # never held.
                data = archive.read(entry) if entry.size_bytes <= how.max_bytes else None
                content, reason, guess = _judge(data, entry.size_bytes, shape, how)
            except DamagedMember as error:
                reason = str(error)
        if guess:
            guessed.add(
                "files that are not UTF-8, read as Latin-1 (set `encoding` if letters look wrong)",
                path,
            )
        yield Item(
            index,
            line,
            path,
            values,
            content,
            None if reason is None else f"{path}: {reason}",
            entry.size_bytes,
        )


def file_items(
    files: Sequence[tuple[int, SourceFile]],
    shape: Shape,
    how: Gathering,
    guessed: LeftOut,
    block: int,
) -> Iterator[Item]:
    """The rows of files that lie in a folder, read by several threads, in order."""
    for (i, file), data in read_ahead(files, how.max_bytes, block):
        values = shape.pattern.match(file.path)
        if values is None:
            raise AssertionError(
                f"{file.path} is in the snapshot, but the pattern does not match it"
            )
        content, reason, guess = _judge(data, file.size_bytes, shape, how)
        if guess:
            guessed.add(
                "files that are not UTF-8, read as Latin-1 (set `encoding` if letters look wrong)",
                file.path,
            )
        yield Item(i, 1, file.path, values, content, reason, file.size_bytes)


def read_ahead(
    files: Sequence[tuple[int, SourceFile]], max_bytes: int, block: int
) -> Iterator[tuple[tuple[int, SourceFile], bytes | None]]:
    """Each file's bytes (None where there are more than `max_bytes`), in order, a few portions ahead.

    Raises:
        SourceError: a file is gone or has changed since the snapshot.
    """
    if not files:
        return
    # The files of one folder lie in one place, so the first speaks for all.
    remote = is_remote(files[0][1].url)
    for portion, contents in spread(
        # Half a block each, since several portions are in memory at once.
        _portions(files, block // 2),
        lambda portion: _read_portion(portion, max_bytes),
        workers=16 if remote else 4,
        waits=remote,
    ):
        yield from zip(portion, contents, strict=True)


def _portions(
    files: Iterable[tuple[int, SourceFile]], most_bytes: int
) -> Iterator[list[tuple[int, SourceFile]]]:
    portion: list[tuple[int, SourceFile]] = []
    size = 0
    for pair in files:
        portion.append(pair)
        size += pair[1].size_bytes
        if len(portion) >= _PORTION_FILES or size >= most_bytes:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _read_portion(
    portion: list[tuple[int, SourceFile]], max_bytes: int
) -> list[bytes | None]:
    # None stands for a file above the limit, which is never opened.
    return [None if file.size_bytes > max_bytes else whole(file) for _, file in portion]
