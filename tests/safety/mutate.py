"""A small seeded mutator of bytes: the same data and seed give the same damage on every machine.

What a disk, a wire, a broken writer or an attacker does to a file: bits and bytes change, the end or a middle
is lost, something is put in or comes twice, pieces change places, and fields of length, count or offset say
something else.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

_LENGTHS = (
    0,
    1,
    2,
    7,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
_TOKENS = (
    b"\0",
    b"\n",
    b"\r",
    b'"',
    b",",
    b"{",
    b"[[[[",
    b"\xff\xff\xff\xff",
    b"\xed\xa0\x80",
    b"PK\x01\x02",
    b"\x1f\x8b",
)


def _flip(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _flips(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(2, 8)):
        _flip(data, chance)


def _set(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] = chance.choice(
        (0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256))
    )


def _cut_end(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _cut_middle(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    del data[start : start + chance.choice((1, 2, 4, 8, 64, 512))]


def _insert(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data) + 1)
    data[start:start] = (
        chance.choice(_TOKENS)
        if chance.random() < 0.5
        else chance.randbytes(chance.randint(1, 32))
    )


def _repeat(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    piece = data[start : start + chance.choice((1, 4, 16, 64, 512))]
    data[start:start] = piece


def _swap(data: bytearray, chance: random.Random) -> None:
    size = min(chance.choice((1, 4, 8, 64, 512)), len(data) // 2)
    first, second = sorted(
        (chance.randrange(len(data) - size + 1), chance.randrange(len(data) - size + 1))
    )
    if size and first + size <= second:
        data[first : first + size], data[second : second + size] = (
            data[second : second + size],
            data[first : first + size],
        )


def _zero(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    size = min(chance.choice((4, 16, 64, 512, 1024)), len(data) - start)
    data[start : start + size] = bytes(size)


def _length(data: bytearray, chance: random.Random) -> None:
    """A field of 2, 4 or 8 bytes, near an edge of the file half of the time, gets another number."""
    form = chance.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(form)
    if len(data) < size:
        return
    last = len(data) - size
    place = chance.randint(0, last)
    if chance.random() < 0.5:
        near = chance.randint(0, min(last, 128))
        place = near if chance.random() < 0.5 else last - near
    (value,) = struct.unpack_from(form, data, place)
    other = chance.choice(
        (*_LENGTHS, value + 1, max(value - 1, 0), value * 2, value // 2)
    )
    struct.pack_into(form, data, place, other & (256**size - 1))


KINDS: dict[str, Callable[[bytearray, random.Random], None]] = {
    "flip": _flip,
    "flips": _flips,
    "set": _set,
    "cut end": _cut_end,
    "cut middle": _cut_middle,
    "insert": _insert,
    "repeat": _repeat,
    "swap": _swap,
    "zero": _zero,
    "length": _length,
}
"""What is done, by name."""


def mutate(data: bytes, seed: int, *, other: bytes = b"") -> bytes:
    """`data` with one kind of damage (two, one time in eight), which `seed` decides.

    Args:
        other: a second file; one time in sixteen, the tail of it takes the place of the tail of `data`.
    """
    chance = random.Random(f"{seed}")
    damaged = bytearray(data)
    for _ in range(2 if chance.random() < 0.125 else 1):
        if not damaged:
            break
        if other and chance.random() < 1 / 16:
            damaged[chance.randrange(len(damaged)) :] = other[
                chance.randrange(len(other)) :
            ]
            continue
        KINDS[chance.choice(sorted(KINDS))](damaged, chance)
    return bytes(damaged)


def mutations(
    data: bytes, count: int, *, seed: int = 0, other: bytes = b""
) -> Iterator[tuple[int, bytes]]:
    """`count` damaged copies, each with the seed that gives it again."""
    for number in range(seed, seed + count):
        yield number, mutate(data, number, other=other)
