"""Encoding by other hands: the same feed as this process makes, whatever the spans, and also where rows are
refused.
"""

from __future__ import annotations

import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.contracts.data import Executors
from penstock.core.events import Events
from penstock.encode import distributed as feed_distributed
from penstock.encode import fit as feed_fit
from penstock.encode.feed import write_feed
from penstock.encode.spans import cuts, spans
from penstock.shards.row_ids import row_id_text
from tests.data.lake import SPLITS, Lake


class Pickled(Executors):
    """Hands in this process that get everything as if it came over a wire."""

    at_once = 3

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        pass

    def each(self, work, items):
        sent = pickle.dumps(work)
        return [
            pickle.loads(
                pickle.dumps(pickle.loads(sent)(pickle.loads(pickle.dumps(item))))
            )
            for item in reversed(items)
        ][::-1]


def same_feeds(one, other, *, by_id=True) -> None:
    """Rows, their order (by id, but for samples of a series) and every array; what was learnt; what was put
    aside.
    """
    assert one.encoding == other.encoding
    assert (
        one.rows == other.rows
        and one.quarantined_by_split == other.quarantined_by_split
        and one.reasons == other.reasons
    )
    aside = [
        sorted(map(json.dumps, pq.read_table(feed.quarantine).to_pylist()))
        for feed in (one, other)
    ]
    assert aside[0] == aside[1]
    for split in SPLITS:
        mine, theirs = one.shards(split), other.shards(split)
        assert mine.rows == theirs.rows
        assert len(set(theirs.rows_by_shard[:-1])) <= 1 and (
            len(theirs.rows_by_shard) < 2
            or theirs.rows_by_shard[-1] <= theirs.rows_by_shard[0]
        )
        arrays, others = (
            shards.gather(np.arange(shards.rows)) for shards in (mine, theirs)
        )
        assert list(arrays) == list(others)
        if mine.rows and by_id:
            assert row_id_text(arrays["row_id"]) == sorted(row_id_text(arrays["row_id"]))
        for name, values in arrays.items():
            for a, b in zip(values, others[name], strict=True):
                assert np.array_equal(
                    np.asarray(a),
                    np.asarray(b),
                    equal_nan=np.asarray(a).dtype.kind == "f",
                ), f"{split}: {name}"


FEATURES = {
    "inputs": {
        "number": {"type": "number", "missing": "median"},
        "whole": "number",
        "flag": "binary",
        "text": {"type": "text", "length": 6},
        "group": "category",
        "moment": "timestamp",
        "tags": {"type": "set"},
        "steps": {"type": "sequence", "length": 4},
        "vector": {"type": "vector", "length": 3},
    },
    "targets": {"label": "category", "amount": "number"},
    "weight": "heavy",
}


def rows(count: int = 400) -> pa.Table:
    n = range(count)
    return pa.table(
        {
            "id": pa.array(n, pa.int64()),
            "number": pa.array(
                [
                    None if i % 7 == 6 else float("nan") if i % 11 == 0 else i / 3
                    for i in n
                ],
                pa.float64(),
            ),
            "whole": pa.array([i * 2**40 for i in n], pa.int64()),
            "flag": pa.array([i % 3 == 0 for i in n]),
            "text": pa.array([f"word{i % 9} ünï {i % 4}" if i % 5 else None for i in n]),
            "group": pa.array([f"g{i % 6}" for i in n]),
            "moment": pa.array(
                [1_600_000_000_000_000 + i * 10**11 for i in n], pa.timestamp("us")
            ),
            "tags": pa.array([[f"t{j}" for j in range(i % 4)] for i in n]),
            "steps": pa.array([[f"s{(i + j) % 5}" for j in range(1 + i % 6)] for i in n]),
            "vector": pa.array(
                [[float(i), float(i % 2), -1.0] for i in n], pa.list_(pa.float64())
            ),
            "label": pa.array(
                [
                    None
                    if i % 17 == 0
                    else "never"
                    if i % 40 == 1
                    else "yes"
                    if i % 2
                    else "no"
                    for i in n
                ]
            ),
            "amount": pa.array([i * 0.5 for i in n]),
            "heavy": pa.array([-1.0 if i == 30 else 1.0 + i % 3 for i in n]),
        }
    )


@pytest.fixture
def lake(tmp_path):
    made = Lake(tmp_path)
    made.put("rows.parquet", rows())
    return made


@pytest.mark.parametrize("refuses", [False, True])
def test_executors_make_the_same_feed(lake, tmp_path, monkeypatch, refuses):
    words = {
        **FEATURES,
        "split": {"train": 0.6, "validation": 0.3, "test": 0.1},
        **(
            {}
            if refuses
            else {"where": "label IS NOT NULL AND heavy > 0 AND label <> 'never'"}
        ),
    }
    recipe = lake.recipe(**words)
    dataset = lake.prepare(**words)
    here = write_feed(recipe, dataset, lake.store, Events())
    other = Lake(tmp_path / "other")
    monkeypatch.setattr(
        type(recipe.engine), "executors", lambda self, shared, **how: Pickled()
    )
    monkeypatch.setattr(feed_fit, "SPAN_ROWS", 40)
    monkeypatch.setattr(feed_distributed, "SHARD_BYTES", 9_000)
    there = write_feed(recipe, dataset, other.store, Events())
    assert (
        len(there.shards("train").rows_by_shard) > 2 and bool(here.quarantined) is refuses
    )
    same_feeds(here, there)
    assert not list(there.path.glob(".drafts*"))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 7))
def test_cuts_have_every_row_once_in_order_and_equal_shards(drafts, shard_rows):
    named = [(f"d{i}", rows) for i, rows in enumerate(drafts)]
    made = cuts(named, shard_rows, "train")
    assert [
        (file, i)
        for cut in made
        for file, start, rows in cut.pieces
        for i in range(start, start + rows)
    ] == [(file, i) for file, rows in named for i in range(rows)]
    sizes = [sum(rows for _, _, rows in cut.pieces) for cut in made]
    assert all(size == shard_rows for size in sizes[:-1]) and all(
        0 < size <= shard_rows for size in sizes[-1:]
    )
    assert [cut.target for cut in made] == [
        f"train-{i:05d}.arrow" for i in range(len(made))
    ]


@pytest.mark.parametrize("size", [1, 7, 30, 1_000])
def test_spans_are_all_rows_in_order(tmp_path, size):
    counts = [10, 0, 25, 3]
    start = 0
    for i, count in enumerate(counts):
        pq.write_table(
            pa.table(
                {
                    "row_id": [f"{start + j:032x}" for j in range(count)],
                    "x": pa.array(range(start, start + count), pa.int64()),
                }
            ),
            tmp_path / f"part-{i}.parquet",
            row_group_size=4,
        )
        start += count
    made = spans(sorted(tmp_path.glob("*.parquet")), size)
    found = [table["x"].to_pylist() for span in made for table in span.batches(["x"], 3)]
    assert [x for some in found for x in some] == list(range(38)) and max(
        map(len, found)
    ) <= 3
    assert [span.stop - span.start for span in made[:-1]] == [size] * (len(made) - 1)
