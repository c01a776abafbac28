"""Permutations of [0, n) that can be asked at any place, forwards and backwards, in constant memory.

A Feistel network (Luby and Rackoff 1988) over the smallest power of two that holds n, and for a value that
falls outside [0, n) the network again until it falls inside (cycle walking, Black and Rogaway 2002).
Backwards it is the same walk with the rounds undone, so the place of a value is as cheap as the value at a
place.

One seed for all values, or a seed of its own for each: windows, periods and epochs of small groups are then
many permutations of one size in one call.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from penstock.contracts.chance import mix

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15
_PIECE = 16384
"""Values permuted at once: what lies between the rounds then stays in a core's own cache, and the system is
not asked for pages.
"""

Seed = int | np.ndarray
"""One seed, or one a value (uint64 `[k]`)."""
Permutation = Callable[[np.ndarray, int, Seed], np.ndarray]
"""`permute`, or `unpermute`."""


def permute(values: np.ndarray, n: int, seed: Seed) -> np.ndarray:
    """A permutation of [0, n), chosen by `seed`, at `values` (uint64 `[k]`, each below `n`)."""
    return _walk(_feistel, values, n, seed)


def unpermute(values: np.ndarray, n: int, seed: Seed) -> np.ndarray:
    """The reverse of `permute`: the value at which `permute` gives each of `values`."""
    return _walk(_unfeistel, values, n, seed)


def many(seed: int, numbers: np.ndarray) -> np.ndarray:
    """A seed for each of `numbers` (from 0): uint64 `[k]`."""
    # From 1 on, so that the number 0 does not leave the seed as it is.
    return mix(
        np.uint64(seed) + (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    )


def permute_each(values: np.ndarray, n: int, seeds: np.ndarray) -> np.ndarray:
    """Permutations of [0, n), one for each of `seeds` (uint64 `[m]`), each applied to its row of
    `values` (uint64 `[m, k]`).
    """
    # Six keys for each seed, uint64 `[rounds, m]`, from one hash of round and seed.
    keys = mix(
        np.arange(1, _ROUNDS + 1, dtype=np.uint64)[:, None] * np.uint64(_GOLDEN) ^ seeds
    )
    width = values.shape[1]
    # As many rows at once as have about a piece of values.
    together = max(_PIECE // max(width, 1), 1)
    permuted = np.empty(values.shape, np.uint64)
    for start in range(0, len(values), together):
        rows = slice(start, start + together)
        permuted[rows] = _feistel(values[rows], _bits(n), keys[:, rows, None])
    # A view: what is walked on below is written into `permuted`.
    flat = permuted.reshape(-1)
    # A value's row has its seed.
    _walk_on(_feistel, flat, n, lambda outside: keys[:, outside // width])
    return permuted


def _bits(n: int) -> int:
    # At least two bits, so that each half has one.
    return max((n - 1).bit_length(), 2)


def _walk(
    step: Callable[[np.ndarray, int, np.ndarray], np.ndarray],
    values: np.ndarray,
    n: int,
    seed: Seed,
) -> np.ndarray:
    # A Weyl sequence: the rounds of one seed get keys that lie far apart.
    numbers = np.arange(1, _ROUNDS + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    own = isinstance(seed, np.ndarray)
    keys = (
        mix(numbers[:, None] ^ seed)
        if isinstance(seed, np.ndarray)
        else mix(numbers ^ np.uint64(seed))
    )
    permuted = np.empty(len(values), np.uint64)
    # Piece by piece, so that the arrays between the rounds stay in a core's cache.
    for start in range(0, len(values), _PIECE):
        piece = slice(start, start + _PIECE)
        permuted[piece] = step(values[piece], _bits(n), keys[:, piece] if own else keys)
    _walk_on(step, permuted, n, lambda outside: keys[:, outside] if own else keys)
    return permuted


def _walk_on(
    step: Callable[[np.ndarray, int, np.ndarray], np.ndarray],
    walked: np.ndarray,
    n: int,
    keys: Callable[[np.ndarray], np.ndarray],
) -> None:
    """Apply `step` again, in place, to every value outside [0, n), until none is."""
    # A power of two is filled exactly, and nothing falls outside.
    if n == 1 << _bits(n):
        return
    outside = np.flatnonzero(walked >= n)
    # The walk ends: the network is a bijection, so it comes back into [0, n). At most
    # half of the numbers lie outside, from n = 2 on, so few walks are long.
    while len(outside):
        again = step(walked[outside], _bits(n), keys(outside))
        walked[outside] = again
        outside = outside[again >= n]


def _feistel(values: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """A permutation of [0, 2^bits).

    The halves differ by one bit if `bits` is odd; they change places in each round.
    """
    low_bits, high_bits = bits // 2, bits - bits // 2
    # The high half has the odd bit.
    high, low = values >> np.uint64(low_bits), values & np.uint64((1 << low_bits) - 1)
    for key in keys:  # an even number of rounds, so that the halves end where they began
        noise = _noise(low, key, high_bits)
        noise ^= high
        high, low = low, noise
        # The halves have changed places, and their widths with them.
        low_bits, high_bits = high_bits, low_bits
    return (high << np.uint64(low_bits)) | low


def _unfeistel(values: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    low_bits, high_bits = bits // 2, bits - bits // 2
    high, low = values >> np.uint64(low_bits), values & np.uint64((1 << low_bits) - 1)
    # The same rounds backwards, each undone by the very noise that made it.
    for key in keys[::-1]:
        low_bits, high_bits = high_bits, low_bits
        noise = _noise(high, key, high_bits)
        noise ^= low
        high, low = noise, high
    return (high << np.uint64(low_bits)) | low


def _noise(half: np.ndarray, key: np.ndarray, bits: int) -> np.ndarray:
    # Sums and products of uint64 wrap around, which is what a hash wants.
    noise: np.ndarray = half + key
    noise ^= noise >> np.uint64(32)
    # one multiplication, and the product's upper bits: enough within six rounds
    noise *= np.uint64(0xD6E8FEB86659FD93)
    # The upper bits: in a product they depend on all bits of the factor.
    noise >>= np.uint64(64 - bits)
    return noise
