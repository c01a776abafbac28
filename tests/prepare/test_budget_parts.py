"""How rows are parted into what is worked on at once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.prepare.budget import BATCH_ROWS, even_part


@settings(deadline=None)
@given(st.integers(1, 200_000))
def test_parts_are_even(rows: int) -> None:
    part = even_part(rows)
    assert 1 <= part <= max(rows, 1) and (
        part == BATCH_ROWS or part * -(-BATCH_ROWS // part) - BATCH_ROWS < part
    )
