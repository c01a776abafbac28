"""MinHash: short signatures of texts, equal in about as many places as the texts have shingles in common.

A shingle is a run of `width` characters. Each shingle is hashed once; its hash says which of `PLACES` places
of the signature it belongs to, and the least hash stays in each (one permutation hashing, Li, Owen and Zhang
2012). A place without any takes the value of another one, by a fixed sequence of places that is the same for
all texts (Shrivastava 2017, Optimal densification). So a text costs as many hashes as it has characters,
whatever the length of the signature.

Places are cut into bands; two texts whose places in one band are all equal are candidates (Broder 1997; Indyk
and Motwani 1998). `bands_for` chooses so many places a band that a pair at the threshold is hardly missed:
whoever compares the candidates themselves loses no precision by it.

Pure: texts in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PLACES = 128
"""Of a signature."""
MOST_TEXTS = 1 << 16
"""At once."""
_RECALL = 0.995
"""Of pairs that are just as alike as the threshold."""
_VALUE_BITS = 40
_EMPTY = np.uint64(2**64 - 1)


def normal(text: str) -> str:
    """A text without case, and with one blank for each run of white space."""
    return " ".join(text.casefold().split())


def shingles(text: str, width: int) -> frozenset[str]:
    """The runs of `width` characters in a text; a shorter text is one."""
    return frozenset(
        text[i : i + width] for i in range(max(len(text) - width, 0) + 1) if text
    )


def jaccard(one: str, other: str, width: int) -> float:
    """The share of their shingles that two texts have in common; 0 without any."""
    if one == other:
        return float(bool(one))
    ours, theirs = shingles(one, width), shingles(other, width)
    both = len(ours & theirs)
    return both / max(len(ours) + len(theirs) - both, 1)


def bands_for(threshold: float) -> tuple[int, int]:
    """How many bands, and places in each."""
    for rows in range(PLACES, 0, -1):
        bands = PLACES // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return PLACES, 1


def signatures(texts: Sequence[str], width: int) -> np.ndarray:
    """uint64 `[len(texts), PLACES]`.

    Args:
        texts: none empty, at most `MOST_TEXTS`.
    """
    # A short text is filled up, so that it is one shingle.
    padded = [text.ljust(width, "\0") for text in texts]
    lengths = np.array([len(text) for text in padded])
    letters = np.frombuffer(
        "".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32
    ).astype(np.uint64)
    runs = len(letters) - width + 1
    hashes = np.zeros(runs, np.uint64)
    for i in range(width):
        hashes = hashes * np.uint64(0x100000001B3) + letters[i : i + runs]
    owner = np.repeat(np.arange(len(texts)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(letters))
    # A run that begins in one text and ends in the next belongs to none.
    whole = left[:runs] >= width
    hashes = mixed(hashes[whole])
    places = hashes & np.uint64(PLACES - 1)
    values = hashes >> np.uint64(64 - _VALUE_BITS)
    keys = owner[:runs][whole].astype(np.uint64) * np.uint64(PLACES) + places
    packed = np.sort((keys << np.uint64(_VALUE_BITS)) | values)
    keys = packed >> np.uint64(_VALUE_BITS)
    first = np.concatenate([[True], keys[1:] != keys[:-1]])
    signature = np.full(len(texts) * PLACES, _EMPTY)
    signature[keys[first]] = packed[first] & np.uint64(2**_VALUE_BITS - 1)
    return _densified(signature.reshape(-1, PLACES))


def band_keys(signature: np.ndarray, threshold: float) -> np.ndarray:
    """int64 `[texts, bands]`: of two texts, equal keys in one column make a pair of candidates."""
    bands, rows = bands_for(threshold)
    keys = np.empty((len(signature), bands), np.uint64)
    for band in range(bands):
        # The band's number is in the key, so that keys of all bands may lie in one table.
        key = np.full(len(signature), band + 1, np.uint64)
        for i in range(band * rows, (band + 1) * rows):
            key = mixed(key * np.uint64(0x9E3779B97F4A7C15) + signature[:, i])
        keys[:, band] = key
    return keys.view(np.int64)


def mixed(values: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of the value (splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


def _densified(signature: np.ndarray) -> np.ndarray:
    """With a value in every place."""
    texts, places = np.nonzero(signature == _EMPTY)
    dense = signature.copy()
    for turn in range(PLACES):
        if not len(texts):
            break
        # Every place asks the others in an order of its own, and comes to all of them.
        others = _ORDERS[places, turn]
        values = signature[texts, others]
        known = values != _EMPTY
        dense[texts[known], places[known]] = values[known]
        texts, places = texts[~known], places[~known]
    return dense


def _orders() -> np.ndarray:
    chance = mixed(np.arange(1, PLACES * PLACES + 1, dtype=np.uint64))
    return np.argsort(chance.reshape(PLACES, PLACES), axis=1, kind="stable")


_ORDERS = _orders()
"""By place: the places that it asks, one after another."""
