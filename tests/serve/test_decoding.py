"""Bodies of `/predict`: one record, or records in a word of their own."""

from __future__ import annotations

import asyncio
import json

import pyarrow as pa
import pytest

from penstock.bundle.record_shape import RecordShape
from penstock.serve.decoding import Decoder

SHAPE = RecordShape(sparse=True)
COLUMNS = {"records.score": pa.list_(pa.float64()), "age": pa.int64()}


@pytest.mark.parametrize(
    ("body", "scores"),
    [
        ({"records": [{"score": 7}, {"score": 8}], "age": 3}, [[7, 8]]),
        ({"records": [], "age": 3}, [[]]),
        ({"records": [{"records": [{"score": 7}], "age": 3}]}, [[7]]),
        ({"records": [{"records": [{"score": 7}], "age": 3}], "id": "x"}, [[7]]),
        ({"instances": [{"age": 3}] * 2}, [None, None]),
    ],
)
def test_records_are_a_field_where_other_columns_are_beside_them(body, scores):
    decoder = Decoder(
        COLUMNS,
        pa.schema([("y", pa.float64())]),
        keep=(),
        max_rows=10,
        max_request_bytes=1_000,
        shape=SHAPE,
    )
    try:
        rows = asyncio.run(decoder.records(json.dumps(body).encode(), "application/json"))
        intake = rows.intake()
    finally:
        decoder.close()
    assert not intake.refused
    assert intake.table["records.score"].to_pylist() == scores
