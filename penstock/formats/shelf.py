"""Which formats there are, and by what a file is known for one of them: all of it is asked of the readers
themselves (`penstock/parts/readers`), so that a new format is one new file.
"""

from __future__ import annotations

from functools import cache
from pathlib import PurePosixPath

from penstock.contracts.reading import Reader

PACKED = (".gz", ".zst", ".zstd")
"""Endings of files that are packed as a whole; the ending before them says what is in them."""


@cache
def readers() -> dict[str, Reader]:
    """By name, the built-in formats, each without options of its own."""
    return {name: Reader.find(name)() for name in Reader.types()}


@cache
def endings() -> dict[str, str]:
    """By ending, the built-in format that it names."""
    return {
        ending: name for name, reader in readers().items() for ending in reader.endings
    }


def ending(path: str) -> str:
    """The built-in format that a file's ending names, or nothing."""
    return endings().get(PurePosixPath(unpacked_path(path)).suffix.lower(), "")


def unpacked_path(path: str) -> str:
    """A path as its file would be called if it were not packed: `a.kv` of `a.kv.gz`."""
    for packed in PACKED:
        if path.lower().endswith(packed):
            path = path[: -len(packed)]
    return path


def is_of(path: str, own: tuple[str, ...]) -> bool:
    """Whether a file's ending, that of its packing apart, is one of a reader's own endings."""
    return unpacked_path(path).lower().endswith(own)


def is_table(path: str, own: tuple[str, ...] = ()) -> bool:
    """Whether a file's ending names a format: a built-in one, or that of a reader with the endings `own`."""
    return bool(ending(path)) or is_of(path, own)


def by_magic(start: bytes) -> str:
    """The format that a file's first bytes prove, or nothing."""
    return next(
        (name for name, reader in readers().items() if start.startswith(reader.magic)), ""
    )


def by_looks(start: bytes) -> str:
    """The format that a file's first bytes look like, or nothing."""
    return next(
        (name for name, reader in readers().items() if reader.resembles(start)), ""
    )


def readers_of(word: str) -> list[str]:
    """The built-in formats that understand a word of the recipe."""
    return [name for name, reader in readers().items() if word in reader.words]
