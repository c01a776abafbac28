"""No skew: ten thousand rough rows are answered over HTTP as in a batch; typed columns as JSON; tensors as
JSON.
"""

from __future__ import annotations

import json
import urllib.request

import pyarrow as pa

from tests.bundle import made


def over_http(server, records: list) -> list:
    """The records' predictions, asked for in requests of many sizes up to 500 rows."""
    found, start, size = [], 0, 1
    while start < len(records):
        body = json.dumps({"records": records[start : start + size]}).encode()
        with urllib.request.urlopen(
            urllib.request.Request(f"{server.url}/predict", data=body), timeout=60
        ) as response:
            found += json.load(response)["predictions"]
        start, size = start + size, size * 7 % 499 + 2
    return found


def test_ten_thousand_rough_rows(bundle, server):
    records = made.rough(10_000, seed=11)
    expected = bundle.predict(records)
    assert len(expected) == 10_000
    assert made.apart(over_http(server, records), expected) <= 1e-5


def test_typed_columns_of_a_file(bundle, server):
    table = made.people(3_000, seed=12)
    expected = pa.concat_tables(
        bundle.predictor().predict_stream(table.to_batches(max_chunksize=1_000))
    ).drop_columns("refused")
    assert made.apart(over_http(server, table.to_pylist()), expected.to_pylist()) <= 1e-5
