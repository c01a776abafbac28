from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.ragged import Ragged

ROWS = st.lists(st.integers(0, 9) | st.sampled_from([0, 0, 300]), max_size=20)


def made(lengths: list[int], seed: int = 0) -> tuple[Ragged, list[list[int]]]:
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, 60_000, n).astype(np.uint16) for n in lengths]
    return Ragged.of(rows) if rows else Ragged(
        np.empty(0, np.uint16), np.zeros(1, np.int64)
    ), [row.tolist() for row in rows]


def listed(ragged: Ragged) -> list[list[int]]:
    return [row.tolist() for row in ragged]


@settings(deadline=None)
@given(lengths=ROWS, data=st.data())
def test_it_is_a_list_of_rows(lengths: list[int], data: st.DataObject) -> None:
    ragged, rows = made(lengths)
    assert (
        listed(ragged) == rows
        and len(ragged) == len(rows)
        and ragged.lengths.tolist() == lengths
    )
    start, stop = data.draw(st.integers(-25, 25)), data.draw(st.integers(-25, 25))
    assert (
        listed(ragged[start:stop]) == rows[start:stop]
        and listed(ragged[start:stop:3]) == rows[start:stop:3]
    )
    if rows:
        places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=30))
        assert listed(ragged[np.array(places, np.int64)]) == [rows[i] for i in places]
        assert ragged[places[0]].tolist() == rows[places[0]] if places else True
        chosen = np.array(
            data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
        )
        assert listed(ragged[chosen]) == [
            row for row, kept in zip(rows, chosen, strict=True) if kept
        ]
    assert [row.tolist() for row in ragged.objects()] == rows


@settings(deadline=None)
@given(lengths=ROWS, cut=st.integers(0, 20))
def test_padded_it_is_the_rows_side_by_side(lengths: list[int], cut: int) -> None:
    whole, rows = made(lengths)
    ragged, rows = whole[cut:], rows[cut:]
    values, mask = ragged.padded("int64")
    assert values.dtype == np.int64 and values.shape == mask.shape == (
        len(rows),
        max([len(row) for row in rows], default=0) or 1,
    )
    assert [
        v[m].tolist() for v, m in zip(values, mask, strict=True)
    ] == rows and not values[~mask].any()
    assert mask.sum(1).tolist() == [len(row) for row in rows] and all(
        (np.diff(m.astype(int)) <= 0).all() for m in mask
    )


@settings(deadline=None)
@given(
    lengths=st.lists(ROWS.filter(bool), min_size=1, max_size=4),
    picks=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 19)), max_size=30),
)
def test_rows_of_several_are_taken_in_the_order_asked_for(
    lengths: list[list[int]], picks: list[tuple[int, int]]
) -> None:
    several = [made(n, seed) for seed, n in enumerate(lengths)]
    places = [
        (source % len(several), row % len(several[source % len(several)][1]))
        for source, row in picks
    ]
    sources = []
    for number in sorted({source for source, _ in places}):
        mine = np.array([i for i, (source, _) in enumerate(places) if source == number])
        ragged = several[number][0].compact()
        sources.append(
            (ragged.values, ragged.offsets, np.array([places[i][1] for i in mine]), mine)
        )
    assert listed(Ragged.taken(sources, len(places))) == [
        several[source][1][row] for source, row in places
    ]
