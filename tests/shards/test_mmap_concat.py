"""Pieces of files as one array: the same values as one by one, or None; and shards written so that they can
be laid so.
"""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.shards.mmap_concat import PAGE_BYTES, Piece, mmap_concat
from penstock.shards.shards import Shards
from penstock.shards.writer import ShardWriter


def written(folder: Path, sizes: list[int], offset: int = 0) -> tuple[list[Piece], bytes]:
    rng = np.random.default_rng(len(sizes))
    pieces, whole = [], b""
    for i, size in enumerate(sizes):
        content = rng.bytes(size)
        (folder / f"{i}").write_bytes(b"x" * offset + content)
        pieces.append(Piece(str(folder / f"{i}"), offset, size))
        whole += content
    return pieces, whole


def test_pieces_are_one_array(tmp_path: Path):
    pieces, whole = written(
        tmp_path, [PAGE_BYTES * 3, PAGE_BYTES, PAGE_BYTES * 2 + 40], offset=PAGE_BYTES
    )
    found = mmap_concat(pieces, np.dtype("int64"), 1)
    assert found is not None
    assert found.tobytes() == whole
    part = found[5:90]
    del found
    gc.collect()
    assert part.tobytes() == whole[40:720], "a part keeps the mapping alive"
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 1


def test_a_last_piece_may_begin_anywhere(tmp_path: Path):
    pieces, whole = written(tmp_path, [PAGE_BYTES * 2], offset=0)
    (tmp_path / "last").write_bytes(b"head" + bytes(range(80)))
    found = mmap_concat(
        [*pieces, Piece(str(tmp_path / "last"), 4, 80)], np.dtype("uint8"), 16
    )
    assert found is not None
    assert found.shape == (PAGE_BYTES * 2 // 16 + 5, 16)
    assert found.tobytes() == whole + bytes(range(80))


def test_what_cannot_be_laid_so_is_none(tmp_path: Path):
    pieces, _ = written(tmp_path, [PAGE_BYTES, PAGE_BYTES])
    assert mmap_concat([], np.dtype("uint8"), 1) is None
    assert (
        mmap_concat([Piece(pieces[0].file, 8, 80), pieces[1]], np.dtype("uint8"), 1)
        is None
    ), "begins within a page"
    assert (
        mmap_concat([Piece(pieces[0].file, 0, 80), pieces[1]], np.dtype("uint8"), 1)
        is None
    ), "ends within a page"
    assert (
        mmap_concat(
            [pieces[0], Piece(pieces[1].file, 0, PAGE_BYTES * 2)], np.dtype("uint8"), 1
        )
        is None
    ), "the file is shorter"
    assert mmap_concat(pieces, np.dtype("float64"), 3) is None, "no whole rows"


@settings(deadline=None, max_examples=15)
@given(
    rows=st.integers(1, 20_000),
    shard_bytes=st.integers(50_000, 400_000),
    ragged=st.booleans(),
    seed=st.integers(0, 99),
)
def test_shards_are_gathered_as_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    shard_bytes: int,
    ragged: bool,
    seed: int,
):
    rng = np.random.default_rng(seed)
    arrays = {
        "x.value": rng.normal(size=(rows, 7)).astype(np.float32),
        "y.index": rng.integers(0, 9, rows),
        "row_id": rng.integers(0, 9, (rows, 2)),
        "z.flag": rng.random(rows) > 0.5,
    }
    if ragged:
        lists = np.empty(rows, object)
        lists[:] = [np.arange(i % 5, dtype=np.uint16) for i in range(rows)]
        arrays["t.tokens"] = lists
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder, "train", shard_bytes=shard_bytes) as writer:
        for start in range(0, rows, 1_111):
            writer.write(
                {name: values[start : start + 1_111] for name, values in arrays.items()}
            )
    assert len(set(writer.rows_by_file[:-1])) <= 1
    shards = Shards([folder / file for file in writer.files])
    slots = rng.integers(0, rows, 300)
    found = shards.gather(slots)
    for name, values in arrays.items():
        assert all(
            np.array_equal(a, b) for a, b in zip(found[name], values[slots], strict=True)
        ), name


def test_shards_of_whole_pages_lie_side_by_side(tmp_path: Path):
    rows = 20_000
    with ShardWriter(tmp_path, "train", shard_bytes=400_000) as writer:
        writer.write(
            {
                "x.value": np.ones((rows, 7), np.float32),
                "row_id": np.ones((rows, 2), np.int64),
            }
        )
    assert writer.rows_by_file == [8192, 8192, 3616]
    shards = Shards([tmp_path / file for file in writer.files])
    assert {name: whole.shape for name, whole in shards._whole.items()} == {
        "float32": (rows, 7),
        "int64": (rows, 2),
    }
