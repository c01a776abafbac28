"""The Open Inference Protocol as bytes: what it reads, what it writes, what it refuses."""

from __future__ import annotations

import json
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.errors import RequestError
from penstock.serve import datatypes, output_tensors, protocol
from penstock.serve.protocol import Malformed, TooLarge

COLUMNS = {
    "n": pa.int64(),
    "x": pa.float64(),
    "s": pa.string(),
    "b": pa.bool_(),
    "v": pa.list_(pa.float64()),
}
ANSWERS = pa.schema(
    [
        ("y", pa.string()),
        ("y_probabilities", pa.struct([("no", pa.float32()), ("yes", pa.float32())])),
        ("z", pa.float64()),
    ]
)


def question(
    inputs: list, *, tail: bytes = b"", header: bool | None = None, **more
) -> protocol.Question:
    head = json.dumps({"inputs": inputs, **more}).encode()
    return protocol.parse(
        head + tail,
        str(len(head)) if (tail or header) else None,
        COLUMNS,
        ANSWERS,
        max_rows=100,
    )


def tensor(
    name: str, datatype: str, data: list, shape: list | None = None, **more
) -> dict:
    return {
        "name": name,
        "datatype": datatype,
        "shape": shape or [len(data)],
        "data": data,
        **more,
    }


def whole(rows: int = 2, **others) -> list:
    inputs = {
        "n": tensor("n", "INT64", [1] * rows),
        "x": tensor("x", "FP64", [0.5] * rows),
        "s": tensor("s", "BYTES", ["a"] * rows),
        "b": tensor("b", "BOOL", [True] * rows),
        "v": tensor("v", "FP32", [1.0, 2.0] * rows, [rows, 2]),
    }
    return [entry for entry in {**inputs, **others}.values() if entry]


def read(asked: protocol.Question) -> list:
    intake = asked.intake()
    assert not intake.mixed and not intake.refused
    return intake.table.to_pylist()


def test_json_tensors():
    found = read(
        question(
            whole(s=tensor("s", "BYTES", ["é", None]), x=tensor("x", "FP64", [None, 2])),
            id="7",
        )
    )
    assert found == [
        {"n": 1, "x": None, "s": "é", "b": True, "v": [1.0, 2.0]},
        {"n": 1, "x": 2.0, "s": None, "b": True, "v": [1.0, 2.0]},
    ]


def test_shapes_of_one_column_and_nested_data():
    found = read(
        question(
            whole(
                n=tensor("n", "INT64", [[5], [6]], [2, 1]),
                v=tensor("v", "FP64", [[1, 2], [3, 4]], [2, 2]),
            )
        )
    )
    assert [r["n"] for r in found] == [5, 6] and [r["v"] for r in found] == [
        [1, 2],
        [3, 4],
    ]


def test_missing_values_have_a_form_in_every_datatype():
    found = read(
        question(
            whole(
                n=tensor("n", "FP64", [None, 3.0]),
                s=tensor("s", "BYTES", ["", "b"]),
                x=tensor("x", "FP64", [float("nan"), 1.0]),
            )
        )
    )
    assert [(r["n"], r["s"], r["x"]) for r in found] == [
        (None, None, None),
        (3, "b", 1.0),
    ]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False),
            st.text(min_size=1, max_size=6),
            st.booleans(),
            st.lists(st.floats(allow_nan=False), min_size=3, max_size=3),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_binary_tensors_are_read_as_json_ones(rows):
    n, x, s, b, v = map(list, zip(*rows, strict=True))
    flat = [value for part in v for value in part]
    blobs = {
        "n": np.array(n, "<i8").tobytes(),
        "x": np.array(x, "<f8").tobytes(),
        "s": b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in s),
        "b": np.array(b, "?").tobytes(),
        "v": np.array(flat, "<f8").tobytes(),
    }
    kinds = {"n": "INT64", "x": "FP64", "s": "BYTES", "b": "BOOL", "v": "FP64"}
    inputs = [
        {
            "name": k,
            "datatype": kinds[k],
            "shape": [len(rows), 3] if k == "v" else [len(rows)],
            "parameters": {"binary_data_size": len(blob)},
        }
        for k, blob in blobs.items()
    ]
    binary = question(inputs, tail=b"".join(blobs.values()))
    plain = question(
        [
            tensor("n", "INT64", n),
            tensor("x", "FP64", x),
            tensor("s", "BYTES", s),
            tensor("b", "BOOL", b),
            tensor("v", "FP64", flat, [len(rows), 3]),
        ]
    )
    assert (
        read(binary)
        == read(plain)
        == [dict(zip("nxsbv", row, strict=True)) for row in rows]
    )


def test_what_is_asked_for():
    assert question(whole()).wanted == {"y": False, "y_probabilities": False, "z": False}
    assert question(whole(), parameters={"binary_data_output": True}).wanted == {
        "y": True,
        "y_probabilities": True,
        "z": True,
    }
    assert question(
        whole(),
        outputs=[{"name": "z", "parameters": {"binary_data": True}}, {"name": "y"}],
    ).wanted == {"z": True, "y": False}


@pytest.mark.parametrize(
    ("inputs", "more", "error", "text"),
    [
        (whole(n=None), {}, RequestError, "n: is a required input"),
        (
            [*whole(n=None), tensor("nn", "INT64", [1, 1])],
            {},
            RequestError,
            "Did you mean 'nn'",
        ),
        (whole(n=tensor("n", "INT64", [1])), {}, Malformed, "same first axis"),
        (
            whole(n=tensor("n", "INT64", [1, 2, 3], [2])),
            {},
            Malformed,
            "has 3 values; its shape",
        ),
        (
            whole(n=tensor("n", "INT64", [1.5, 2])),
            {},
            RequestError,
            r"value 0 of the input 'n' is 1\.5, which is no INT64",
        ),
        (whole(n=tensor("n", "INT64", [True, 2])), {}, RequestError, "is True"),
        (
            whole(s=tensor("s", "BYTES", [1, "a"])),
            {},
            RequestError,
            "is 1, which is no BYTES",
        ),
        (whole(n=tensor("n", "INT63", [1, 2])), {}, Malformed, "datatype 'INT63'"),
        (
            whole(n=tensor("n", "INT64", [1, 2], [2, 2])),
            {},
            RequestError,
            "expected .rows. or",
        ),
        (
            whole(v=tensor("v", "FP64", [1, 2], [2])),
            {},
            RequestError,
            "expected .rows, length",
        ),
        (whole(n=tensor("n", "INT64", [1, 2], [-2])), {}, Malformed, "needs a `shape`"),
        (
            whole(n={"name": "n", "datatype": "INT64", "shape": [2]}),
            {},
            Malformed,
            "needs `data`",
        ),
        (
            whole(
                n={**tensor("n", "INT64", [1, 2]), "parameters": {"binary_data_size": 99}}
            ),
            {},
            Malformed,
            "99 bytes are its data; 0 bytes are left",
        ),
        (whole(), {"outputs": [{"name": "yy"}]}, Malformed, "no output 'yy'"),
        (whole(101), {}, TooLarge, "101 rows; at most 100"),
        ("nothing", {}, Malformed, "a list of tensors"),
    ],
)
def test_what_is_refused(inputs, more, error, text):
    with pytest.raises(error, match=text):
        question(inputs, **more)


def test_bytes_that_do_not_add_up_are_refused():
    entry = {"name": "s", "datatype": "BYTES", "shape": [2]}
    for blob, text in [
        (b"\x01\x00\x00", "end within an element's length"),
        (b"\x09\x00\x00\x00a", "end within element 0"),
        (struct.pack("<I", 1) + b"a", "has 1 elements"),
        (struct.pack("<I", 1) + b"\xff" + struct.pack("<I", 0), "not UTF-8"),
    ]:
        with pytest.raises(RequestError, match=text):
            question(
                whole(s={**entry, "parameters": {"binary_data_size": len(blob)}}),
                tail=blob,
            )
    with pytest.raises(Malformed, match="belong to none"):
        question(whole(), tail=b"left over")
    with pytest.raises(Malformed, match="has 8 bytes; its shape"):
        question(
            whole(
                n={
                    "name": "n",
                    "datatype": "INT64",
                    "shape": [2],
                    "parameters": {"binary_data_size": 8},
                }
            ),
            tail=bytes(8),
        )
    with pytest.raises(Malformed, match="Inference-Header-Content-Length is '999999'"):
        protocol.parse(b"{}", "999999", COLUMNS, ANSWERS, max_rows=1)
    with pytest.raises(Malformed, match="not JSON"):
        protocol.parse(b"{", None, COLUMNS, ANSWERS, max_rows=1)


def test_answers_in_json_and_in_bytes():
    table = pa.table(
        {
            "y": ["yes", "no"],
            "y_probabilities": pa.array(
                [{"no": 0.25, "yes": 0.75}, {"no": 1.0, "yes": 0.0}],
                ANSWERS.field(1).type,
            ),
            "z": [1.5, float("nan")],
        }
    )
    content, head = output_tensors.answer(
        table, {"y": False, "y_probabilities": False}, model="m", version="1", id="7"
    )
    found = json.loads(content)
    assert head is None and found["id"] == "7" and found["model_name"] == "m"
    assert found["outputs"][0] == {
        "name": "y",
        "datatype": "BYTES",
        "shape": [2],
        "data": ["yes", "no"],
    }
    assert found["outputs"][1] == {
        "name": "y_probabilities",
        "datatype": "FP32",
        "shape": [2, 2],
        "data": [0.25, 0.75, 1.0, 0.0],
    }
    content, head = output_tensors.answer(
        table,
        {"y": True, "z": True, "y_probabilities": False},
        model="m",
        version="1",
        id=None,
    )
    outputs = json.loads(content[:head])["outputs"]
    assert [o.get("parameters") for o in outputs] == [
        {"binary_data_size": 13},
        {"binary_data_size": 16},
        None,
    ]
    assert (
        content[head:]
        == struct.pack("<I", 3)
        + b"yes"
        + struct.pack("<I", 2)
        + b"no"
        + np.array([1.5, np.nan]).tobytes()
    )


def test_metadata():
    inputs, outputs = datatypes.describe(COLUMNS, ANSWERS)
    assert [(i["name"], i["datatype"], i["shape"]) for i in inputs] == [
        ("n", "INT64", [-1]),
        ("x", "FP64", [-1]),
        ("s", "BYTES", [-1]),
        ("b", "BOOL", [-1]),
        ("v", "FP64", [-1, -1]),
    ]
    assert outputs[1] == {
        "name": "y_probabilities",
        "datatype": "FP32",
        "shape": [-1, 2],
        "parameters": {"classes": ["no", "yes"]},
    }


def test_objects_of_all_rows_and_tensors_share_the_memory_of_a_request():
    columns = {"c.a": pa.list_(pa.int64()), "d.a": pa.list_(pa.int64())}

    def ask(rows: int) -> protocol.Question:
        text = json.dumps({"a": [[]] * 100})
        inputs = [tensor(name, "BYTES", [text] * rows) for name in "cd"]
        body = json.dumps({"inputs": inputs}).encode()
        return protocol.parse(
            body, None, columns, ANSWERS, max_rows=100, most_bytes=200_000
        )

    assert ask(5).rows == 5
    with pytest.raises(TooLarge, match="of memory"):
        ask(20)
