from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import StoreError
from penstock.shards.row_ids import row_id_halves, row_id_text
from penstock.shards.shards import Shards
from penstock.shards.writer import ShardWriter


def arrays(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ragged = np.empty(rows, object)
    blobs = np.empty(rows, object)
    for i in range(rows):
        ragged[i] = rng.integers(0, 9, rng.integers(0, 5)).astype(np.int32)
        blobs[i] = rng.bytes(int(rng.integers(0, 6)))
    return {
        "row_id": rng.integers(-(2**63), 2**63 - 1, (rows, 2)),
        "age.value": rng.normal(size=rows).astype(np.float32),
        "when.cyclic": rng.normal(size=(rows, 4)).astype(np.float32),
        "image.pixels": rng.integers(0, 256, (rows, 2, 3)).astype(np.uint8),
        "flag.mask": rng.random(rows) < 0.5,
        "job.index": rng.integers(0, 9, rows),
        "text.tokens": ragged,
        "photo.bytes": blobs,
    }


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    if wanted.dtype != object:
        return found.dtype == wanted.dtype and np.array_equal(found, wanted)
    return all(
        (a == b)
        if isinstance(b, bytes)
        else (a.dtype == b.dtype and np.array_equal(a, b))
        for a, b in zip(found, wanted, strict=True)
    )


def write(
    folder: Path, pieces: list[dict[str, np.ndarray]], shard_bytes: int
) -> tuple[ShardWriter, Shards]:
    with ShardWriter(folder, "train", shard_bytes=shard_bytes) as writer:
        for piece in pieces:
            writer.write(piece)
    return writer, Shards([folder / name for name in writer.files])


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=5),
    st.sampled_from([1, 500, 3_000, 10**6]),
    st.integers(0, 10**6),
)
def test_rows_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    shard_bytes: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    pieces = [arrays(rows, seed + i) for i, rows in enumerate(sizes)]
    writer, shards = write(folder, pieces, shard_bytes)
    assert writer.rows == shards.rows == sum(sizes) == sum(writer.rows_by_file)
    if not shards.rows:
        return
    whole = {
        name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]
    }
    slots = np.random.default_rng(seed).integers(0, shards.rows, 25)
    for wanted in (slots, np.arange(shards.rows), np.empty(0, np.int64)):
        found = shards.gather(wanted)
        assert list(found) == shards.names == list(whole)
        assert all(same(found[name], whole[name][wanted]) for name in whole)


def test_a_shard_is_plain_arrow_with_a_matrix_a_dtype(tmp_path: Path) -> None:
    data = arrays(10)
    writer, shards = write(tmp_path, [data], 10**6)
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / writer.files[0]))).read_all()
    assert {
        name: str(t)
        for name, t in zip(table.schema.names, table.schema.types, strict=True)
    } == {
        "int64": "fixed_size_list<item: int64>[3]",
        "float32": "fixed_size_list<item: float>[5]",
        "uint8": "fixed_size_list<item: uint8>[6]",
        "bool": "fixed_size_list<item: uint8>[1]",
        "text.tokens": "large_list<item: int32>",
        "photo.bytes": "large_binary",
    }
    views = shards.views(0)
    assert (
        not views["age.value"].flags.owndata and not views["age.value"].flags.writeable
    ), "a view of the file, not a copy"
    assert same(views["when.cyclic"], data["when.cyclic"])


def test_shards_are_cut_by_bytes(tmp_path: Path) -> None:
    piece = {"x.value": np.zeros((1000, 10), np.float32)}
    writer, _ = write(tmp_path, [piece, piece, piece], 40_000)
    assert writer.rows_by_file == [1000, 1000, 1000]
    writer, _ = write(tmp_path, [piece, piece], 16_000)
    assert writer.rows_by_file == [400] * 5


def test_no_rows_and_rows_that_are_not_there(tmp_path: Path) -> None:
    writer, shards = write(tmp_path, [arrays(0)], 1000)
    assert (writer.files, shards.rows, shards.gather(np.empty(0, np.int64))) == (
        [],
        0,
        {},
    )
    _, shards = write(tmp_path, [arrays(3)], 1000)
    with pytest.raises(IndexError, match="from 0 to 2"):
        shards.gather(np.array([3]))


def test_a_file_that_is_no_shard_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.arrow").write_bytes(b"nonsense")
    with pytest.raises(StoreError, match=r"the shard .*a\.arrow cannot be read"):
        Shards([tmp_path / "a.arrow"])


def test_other_arrays_than_before_are_a_defect(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "train") as writer:
        writer.write({"x.value": np.zeros(2, np.float32)})
        with pytest.raises(ValueError, match="has the arrays"):
            writer.write({"y.value": np.zeros(2, np.float32)})
        with pytest.raises(ValueError, match="was float32"):
            writer.write({"x.value": np.zeros(2, np.float64)})
    assert writer.rows == 2


def test_row_ids_keep_all_128_bits() -> None:
    texts = [
        "00000000000000000000000000000000",
        "ffffffffffffffffffffffffffffffff",
        "0123456789abcdeffedcba9876543210",
    ]
    halves = row_id_halves(pa.array(texts))
    assert (
        halves.dtype == np.int64
        and halves.shape == (3, 2)
        and row_id_text(halves) == texts
    )


@pytest.mark.parametrize("shard_bytes", [200, 10**6])
def test_ragged_arrays_come_as_one_or_as_objects_and_their_lengths_from_the_offsets(
    tmp_path: Path, shard_bytes: int
) -> None:
    rng = np.random.default_rng(0)
    rows = np.empty(60, object)
    rows[:] = [rng.integers(0, 9, n).astype(np.uint16) for n in rng.integers(0, 12, 60)]
    with ShardWriter(tmp_path, "t", shard_bytes=shard_bytes) as writer:
        writer.write({"x": np.arange(60.0), "t.tokens": rows})
    shards = Shards([tmp_path / file for file in writer.files])
    assert (len(writer.files) > 1) == (shard_bytes == 200) and shards.ragged() == [
        "t.tokens"
    ]
    for slots in (
        np.array([3, 59, 3, 0, 41]),
        np.empty(0, np.int64),
        rng.permutation(60),
    ):
        found, objects = (
            shards.gather(slots, ragged=True)["t.tokens"],
            shards.gather(slots)["t.tokens"],
        )
        assert (
            [row.tolist() for row in found]
            == [row.tolist() for row in objects]
            == [rows[i].tolist() for i in slots]
        )
        assert found.values.dtype == np.uint16 or not len(slots)
        assert shards.lengths(slots, "t.tokens").tolist() == [len(rows[i]) for i in slots]
