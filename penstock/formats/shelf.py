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
    name = PurePosixPath(path).name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return endings().get(PurePosixPath(name).suffix, "")


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
