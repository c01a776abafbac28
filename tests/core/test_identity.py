"""Fingerprints, seeds and ids."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.identity import (
    canonical,
    derive_seed,
    fingerprint,
    new_ulid,
    sha256_file,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(), x, max_size=4),
    max_leaves=12,
)


@given(plain)
def test_a_fingerprint_is_a_function_of_the_value(value):
    assert fingerprint(value) == fingerprint(value)
    assert len(fingerprint(value)) == 16


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_words_does_not_matter(value):
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))


def test_infinities_have_a_spelling_and_strange_things_have_none():
    assert canonical(float("inf")) != canonical("inf")
    with pytest.raises(TypeError):
        canonical(object())


def test_seeds_are_derived_by_name_and_do_not_move():
    assert derive_seed(7, "shuffle", 0) == derive_seed(7, "shuffle", 0)
    assert len({derive_seed(7, "shuffle", epoch) for epoch in range(1000)}) == 1000
    assert (
        derive_seed(0, "a")
        == int.from_bytes(hashlib.sha256(b"0/a").digest()[:8], "big") >> 1
    )
    assert 0 <= derive_seed(3, "x") < 2**63


def test_ulids_sort_by_time():
    ids = [new_ulid() for _ in range(50)]
    assert len(set(ids)) == 50
    assert all(len(i) == 26 for i in ids)


def test_a_file_is_hashed_by_its_content(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()
