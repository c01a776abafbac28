"""Buckets: rows of like length in one batch, so that less of a batch is padding (as in Khomenko et al. 2016).
Position in, position out.

The order is cut into spans of so many global batches. Within a span rows are sorted by length and dealt to
its batches one run after another, and the batches then come in an order of chance. So every row stays in its
span, the span's rows are those of the order beneath, and an epoch has the rows it had, each as often. It is a
function of seed, epoch, span and lengths alone: a world of any size and a resumed run see the same. A batch
that is not full stays the epoch's last, of rows of a length chosen by chance.

What this file refuses to know: where lengths come from, shards, tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from penstock.contracts.chance import mix
from penstock.core.identity import derive_seed
from penstock.order.samplers import Drawn, Draws, around

SPAN = 32
"""Global batches of a span, unless told otherwise: most of what sorting all rows would save, and batches
still of rows from anywhere.
"""

Lengths = Callable[[Drawn], np.ndarray]
"""The length of each row drawn, int64 `[k]`."""


def dealt(lengths: np.ndarray, batch_size: int, key: int) -> np.ndarray:
    """The order of the rows of one span: a permutation of [0, n), int64 `[n]`.

    Args:
        lengths: of each row of the span `[n]`.
        batch_size: rows of a batch; the last has what is left.
        key: decides the order of the batches, and which rows the last has if it is not full.
    """
    rows = len(lengths)
    full, left = divmod(rows, batch_size)
    # Stable: rows of one length keep the order of chance beneath them.
    ranked = np.argsort(lengths, kind="stable").astype(np.int64)
    # One number for each full batch, and one for where the rest is cut out.
    chance = mix(np.arange(1, full + 2, dtype=np.uint64) + np.uint64(key))
    # The rows of a last batch that is not full are cut out at a batch's edge by chance;
    # at the end they would always be the longest.
    gap = int(chance[full] % np.uint64(full + 1)) * batch_size if left else 0
    # Runs of neighbours in length: each is a batch.
    runs = np.concatenate([ranked[:gap], ranked[gap + left :]]).reshape(full, batch_size)
    return np.concatenate(
        [
            # The order of the batches is chance again, or an epoch would go from short
            # to long.
            runs[np.argsort(chance[:full], kind="stable")].reshape(-1),
            ranked[gap : gap + left],
        ]
    )


class Bucketed:
    """Draws whose rows are put into batches of like length, span by span.

    Args:
        draws: the order beneath.
        batch_size: rows of a global batch.
        span: global batches of a span.
        lengths: of the rows drawn.
    """

    def __init__(
        self, draws: Draws, *, batch_size: int, span: int, seed: int, lengths: Lengths
    ) -> None:
        self._draws, self._batch_size, self._seed, self._lengths = (
            draws,
            batch_size,
            seed,
            lengths,
        )
        self._span_rows = batch_size * span
        self._last: tuple[tuple[int, int], np.ndarray] | None = None
        """The span that was asked for last, and how its rows come: most questions go on where the last one
        ended.
        """

    @property
    def rows(self) -> int:
        """The number of positions of an epoch."""
        return self._draws.rows

    def draw(self, epoch: int, positions: np.ndarray) -> Drawn:
        """The rows at `positions`, int64 `[k]`, after rows of like length were put together."""
        # Positions beyond the epoch are those of its beginning again, a turn later.
        turn, positions = around(np.asarray(positions, np.int64), self.rows)
        moved = np.empty(len(positions), np.int64)
        span = positions // self._span_rows
        # A batch lies in one span, or in two where `wrap` or a request crosses them.
        for number in np.unique(span).tolist():
            mine = np.flatnonzero(span == number)
            start = number * self._span_rows
            moved[mine] = start + self._order(epoch, number)[positions[mine] - start]
        # Beneath, a turn is told by the position itself.
        return self._draws.draw(epoch, moved + turn * self.rows)

    def _order(self, epoch: int, span: int) -> np.ndarray:
        last = self._last
        if last is not None and last[0] == (epoch, span):
            return last[1]
        start = span * self._span_rows
        # The last span may be short.
        drawn = self._draws.draw(
            epoch, np.arange(start, min(start + self._span_rows, self.rows))
        )
        dealt_order = dealt(
            # Lengths are read from offsets, for a whole span at once.
            self._lengths(drawn),
            self._batch_size,
            derive_seed(self._seed, "bucket", epoch, span),
        )
        self._last = (epoch, span), dealt_order
        return dealt_order

    def empty(self, epoch: int) -> np.ndarray | None:
        """None: rows that were taken out are found only by drawing."""
        return None
