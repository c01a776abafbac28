"""Order: who comes when, as pure functions of (seed, epoch, position). Numbers in, numbers out: no data, no clock, no state.

The shuffle is a permutation of [0, n) that can be asked at any position in constant memory: a Feistel network (Luby and
Rackoff 1988) over the smallest power of two that holds n, and for a position that falls outside [0, n) the network again
until it falls inside (cycle walking, Black and Rogaway 2002). So a loader's whole state is a position, a thousand
processes agree without a word, and a billion rows need no index.

A global batch is a run of positions; a process takes its contiguous share of it. The sequence of global batches is
therefore the same for any number of processes, and uneven ends are exact: nothing is dropped or repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.contracts.chance import mix
from penstock.core.identity import derive_seed

_ROUNDS = 6
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Order:
    """The order of `rows` slots in one epoch."""

    rows: int
    seed: int = 0
    epoch: int = 0
    shuffle: bool = True
    """False: slots in stored order, every epoch alike."""

    def slots(self, positions: np.ndarray) -> np.ndarray:
        """The slot at each position, int64 `[k]`; over all positions each slot comes exactly once.

        Raises:
            IndexError: a position is outside [0, rows).
        """
        positions = np.asarray(positions, np.int64)
        if len(positions) and (positions.min() < 0 or positions.max() >= self.rows):
            raise IndexError(f"positions must be from 0 to {self.rows - 1}; found {positions.min()} to {positions.max()}")
        if not self.shuffle or self.rows < 2:
            return positions
        return permute(positions.astype(np.uint64), self.rows, derive_seed(self.seed, "order", self.epoch)).astype(np.int64)


def permute(values: np.ndarray, n: int, seed: int) -> np.ndarray:
    """A permutation of [0, n), chosen by `seed`, at `values` (uint64 `[k]`, each below `n`)."""
    bits = max((n - 1).bit_length(), 2)
    keys = mix(np.arange(1, _ROUNDS + 1, dtype=np.uint64) * np.uint64(_GOLDEN) ^ np.uint64(seed))
    found = _feistel(values, bits, keys)
    outside = np.flatnonzero(found >= n)
    while len(outside):
        again = _feistel(found[outside], bits, keys)
        found[outside] = again
        outside = outside[again >= n]
    return found


def _feistel(values: np.ndarray, bits: int, keys: np.ndarray) -> np.ndarray:
    """A permutation of [0, 2^bits). The halves differ by one bit if `bits` is odd; they change places in each round."""
    low_bits, high_bits = bits // 2, bits - bits // 2
    high, low = values >> np.uint64(low_bits), values & np.uint64((1 << low_bits) - 1)
    for key in keys:  # an even number of rounds, so that the halves end where they began
        noise = low + key
        noise ^= noise >> np.uint64(32)
        noise *= np.uint64(0xD6E8FEB86659FD93)  # one multiplication, and the product's upper bits: enough within six rounds
        noise >>= np.uint64(64 - high_bits)
        noise ^= high
        high, low = low, noise
        low_bits, high_bits = high_bits, low_bits
    return (high << np.uint64(low_bits)) | low


@dataclass(frozen=True)
class Batches:
    """An epoch's positions in global batches."""

    rows: int
    batch_size: int
    """Rows of a global batch; the last one has what is left."""

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def bounds(self, batch: int) -> tuple[int, int]:
        """The first position of a global batch, and the first one after it."""
        if not 0 <= batch < len(self):
            raise IndexError(f"there are {len(self)} batches an epoch, numbered from 0; found {batch}")
        return batch * self.batch_size, min((batch + 1) * self.batch_size, self.rows)


def share(start: int, stop: int, index: int, count: int) -> tuple[int, int]:
    """The `index`-th of `count` near-equal contiguous parts of [start, stop), possibly empty; together they are all of it."""
    rows = stop - start
    return start + rows * index // count, start + rows * (index + 1) // count


def augmentation_keys(seed: int, epoch: int, row_id: np.ndarray, occurrence: int = 0) -> np.ndarray:
    """One uint64 a row that decides its augmentation: the same for a row wherever and in whatever batch it is drawn.

    Args:
        row_id: the two halves of each row's md5, int64 `[n, 2]`.
        occurrence: which time in this epoch the row is drawn, from 0.
    """
    key = np.uint64(derive_seed(seed, "augment", epoch, occurrence))
    halves = np.ascontiguousarray(row_id).view(np.uint64)
    return mix(mix(halves[:, 0] ^ key) + halves[:, 1])
