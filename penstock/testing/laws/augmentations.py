"""The laws of augmentations.

`check(Augmentation.load({"type": "acme.blur"}))` judges one over pictures of several shapes; give `rows`
(arrays `[n, …]`) for one that changes something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from penstock.contracts.data import Augmentation

Law = Callable[[Augmentation, np.ndarray], None]


def pictures() -> list[np.ndarray]:
    """Noise, a plain picture and a gradient: colour and grey, square and not, down to one pixel."""
    rng = np.random.default_rng(0)
    specimens = []
    for shape in ((40, 12, 16, 3), (6, 9, 7, 1), (3, 1, 1, 3)):
        values = rng.integers(0, 256, shape, np.uint8)
        values[0] = 77
        values[1] = (
            np.linspace(0, 255, values[1].size).reshape(shape[1:]).astype(np.uint8)
        )
        specimens.append(values)
    return specimens


def keys(rows: int, seed: int = 0) -> np.ndarray:
    """Keys as the loader gives them: uint64 `[n]`, none like another."""
    return np.random.default_rng(seed).integers(0, 2**64, rows, np.uint64)


def declared_and_back(augmentation: Augmentation, rows: np.ndarray) -> None:
    """Declared → loaded → declared is the identity, and is JSON."""
    again = Augmentation.load(json.loads(json.dumps(augmentation.to_dict())))
    assert again == augmentation and again.to_dict() == augmentation.to_dict(), (
        f"declared_and_back: {augmentation.to_dict()} became {again.to_dict()}"
    )


def keeps_shape(augmentation: Augmentation, rows: np.ndarray) -> None:
    """Shape and dtype are kept, for many rows, for one and for none; a row's array is the caller's own."""
    for count in (len(rows), 1, 0):
        changed = augmentation.apply_all(rows[:count], keys(count))
        assert changed.shape == rows[:count].shape and changed.dtype == rows.dtype, (
            f"keeps_shape: {rows[:count].shape} {rows.dtype} became {changed.shape} {changed.dtype}"
        )
    alone = augmentation.apply(rows[0], 5)
    assert alone.shape == rows[0].shape and alone.dtype == rows.dtype, (
        f"keeps_shape: one row {rows[0].shape} became {alone.shape} {alone.dtype}"
    )
    assert alone.flags.writeable and not np.shares_memory(alone, rows), (
        "keeps_shape: the result must not be a view of what came in"
    )


def leaves_what_came(augmentation: Augmentation, rows: np.ndarray) -> None:
    """What came in is left as it was, also when it may not be written to."""
    before, given = rows.copy(), rows.copy()
    given.flags.writeable = False
    augmentation.apply_all(given, keys(len(given)))
    augmentation.apply(given[0], 9)
    assert np.array_equal(given, before), (
        "leaves_what_came: the rows that came in were changed"
    )


def key_decides(augmentation: Augmentation, rows: np.ndarray) -> None:
    """A row's change is a function of the row and its key: alone as in a batch, in any order, whatever chance
    was drawn before.
    """
    own = keys(len(rows))
    whole = augmentation.apply_all(rows, own)
    np.random.seed(1)
    for row in range(len(rows)):
        alone = augmentation.apply(rows[row], int(own[row]))
        assert np.array_equal(alone, whole[row]), (
            f"key_decides: row {row} is changed otherwise alone than in a batch"
        )
    turned = augmentation.apply_all(rows[::-1], own[::-1])
    assert np.array_equal(turned[::-1], whole), (
        "key_decides: another order of rows gives other changes"
    )


def does_something(augmentation: Augmentation, rows: np.ndarray) -> None:
    """Some keys change a row of noise, and two keys may change it differently."""
    noise = rows[[-1] * 64]
    if noise[0].size < 16:
        return
    changed = augmentation.apply_all(noise, keys(64, seed=2))
    assert len(np.unique(changed.reshape(64, -1), axis=0)) > 1, (
        "does_something: 64 keys gave one and the same picture"
    )


LAWS: tuple[Law, ...] = (
    declared_and_back,
    keeps_shape,
    leaves_what_came,
    key_decides,
    does_something,
)


def check(augmentation: Augmentation, rows: Sequence[np.ndarray] | None = None) -> None:
    """Judge one augmentation by every law.

    Raises:
        AssertionError: names the law and the difference.
    """
    for some in pictures() if rows is None else rows:
        for law in LAWS:
            law(augmentation, some)


__all__ = ["LAWS", "check", "keys", "pictures"]
