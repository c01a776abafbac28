"""The laws of summaries.

`check(MySummary, column)` judges a class of summaries over a column: halves merged equal the whole, in any
order, cut anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import pairwise

import pyarrow as pa

from penstock.contracts.summary import Summary, sample_keys

Make = Callable[[], Summary]
Law = Callable[[Make, pa.Array, pa.Array], None]


def ids(count: int, start: int = 0) -> pa.Array:
    """Row ids for so many rows."""
    return pa.array(
        [hashlib.md5(str(i).encode()).hexdigest() for i in range(start, start + count)],
        pa.string(),
    )


def _of(
    make: Make, column: pa.Array, row_ids: pa.Array, cuts: Sequence[int] = ()
) -> Summary:
    """One summary that has seen the column, cut into batches."""
    summary = make()
    edges = [0, *cuts, len(column)]
    for start, end in pairwise(edges):
        summary.update(
            column.slice(start, end - start), row_ids.slice(start, end - start)
        )
    return summary


def _told(summary: Summary) -> str:
    return json.dumps(summary.result(), sort_keys=True, default=str)


def is_plain(make: Make, column: pa.Array, row_ids: pa.Array) -> None:
    """The result is plain data, and asking for it changes nothing; nothing seen has a result too."""
    summary = _of(make, column, row_ids)
    assert json.loads(json.dumps(summary.result())) is not None
    assert _told(summary) == _told(summary), "is_plain: asked twice, it answers twice"
    json.dumps(make().result())


def batches_do_not_matter(make: Make, column: pa.Array, row_ids: pa.Array) -> None:
    """The same rows in other batches give the same."""
    whole = _told(_of(make, column, row_ids))
    for cuts in (
        [len(column) // 3],
        [1, len(column) // 2, len(column) - 1] if len(column) > 2 else [0],
    ):
        assert _told(_of(make, column, row_ids, sorted(cuts))) == whole, (
            f"batches_do_not_matter: cut at {cuts} it differs"
        )


def order_does_not_matter(make: Make, column: pa.Array, row_ids: pa.Array) -> None:
    """The same rows in another order give the same."""
    turned = pa.array(range(len(column) - 1, -1, -1), pa.int64())
    assert _told(_of(make, column.take(turned), row_ids.take(turned))) == _told(
        _of(make, column, row_ids)
    ), "order_does_not_matter: backwards it differs"


def halves_merged_equal_the_whole(
    make: Make, column: pa.Array, row_ids: pa.Array
) -> None:
    """Merging is associative and commutative, whatever the cut."""
    whole = _told(_of(make, column, row_ids))
    n = len(column)
    for cut in (0, n // 4, n // 2, n):
        left, right = (
            _of(make, column.slice(a, b - a), row_ids.slice(a, b - a))
            for a, b in ((0, cut), (cut, n))
        )
        left.merge(right)
        assert _told(left) == whole, (
            f"halves_merged_equal_the_whole: cut at {cut} it differs"
        )
    thirds = [(0, n // 3), (n // 3, 2 * n // 3), (2 * n // 3, n)]
    one, two, three = (
        _of(make, column.slice(a, b - a), row_ids.slice(a, b - a)) for a, b in thirds
    )
    three.merge(one)
    three.merge(two)
    assert _told(three) == whole, (
        "halves_merged_equal_the_whole: three parts in another order differ"
    )


def number_keys_do(make: Make, column: pa.Array, row_ids: pa.Array) -> None:
    """Sample keys (uint64) in the place of row ids give the same."""
    assert _told(_of(make, column, pa.array(sample_keys(row_ids), pa.uint64()))) == _told(
        _of(make, column, row_ids)
    ), "number_keys_do: it differs"


LAWS: tuple[Law, ...] = (
    is_plain,
    batches_do_not_matter,
    order_does_not_matter,
    halves_merged_equal_the_whole,
    number_keys_do,
)


def check(make: Make, column: pa.Array, row_ids: pa.Array | None = None) -> None:
    """Judge a summary by every law.

    Raises:
        AssertionError: names the law and the difference.
    """
    for law in LAWS:
        law(make, column, ids(len(column)) if row_ids is None else row_ids)
