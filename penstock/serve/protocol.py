"""The Open Inference Protocol, version 2 (KServe V2, the protocol of Triton): tensors ↔ rows, in JSON and in
binary.

Inputs are the raw columns, each a tensor `[n]` or `[n, 1]` (vectors `[n, length]`, series `[n, steps,
variables]`), in any datatype that carries its values: what is acceptable is the feature's to say, as
everywhere. Missing values: null in JSON data; NaN in floating-point tensors; an empty element in BYTES
tensors (they cannot hold null, and an empty cell of a CSV file is missing as well). Outputs are the
predictions `<target>` (BYTES, FP64, INT64 or BOOL) and `<target>_probabilities` (FP32 `[n, classes]`, whose
classes the model's metadata lists), and the like. A column of bytes (pictures) is BYTES: the bytes themselves
in binary, base64 text in JSON.

The binary extension (github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md):
after the JSON, whose length is in the header `Inference-Header-Content-Length`, come the tensors' bytes,
little-endian, row-major; BYTES elements each after their length in four bytes. Pure: bytes and Arrow in,
bytes and Arrow out.

Here a request is taken apart; `datatypes`, `input_tensors` and `output_tensors` do the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from penstock.bundle.record_shape import RecordShape
from penstock.bundle.rows import FLAT, Intake, from_columns
from penstock.core.errors import Problem, RequestError
from penstock.core.near import Hints, did_you_mean
from penstock.serve.datatypes import DATATYPES, LONGEST_AXIS, inner_shape
from penstock.serve.input_tensors import values_of
from penstock.serve.reading import (
    LEAST_BYTES,
    SHOWN,
    Malformed,
    Memory,
    TooLarge,
    read_json,
    read_text,
    shown,
)

HEADER = "inference-header-content-length"


@dataclass(frozen=True)
class Question:
    """An inference request, parsed."""

    id: str | None
    rows: int
    intake: Callable[[], Intake]
    wanted: dict[str, bool]
    """Names of the outputs to give, in order, and whether each goes as bytes."""


def parse(
    body: bytes | bytearray,
    header_length: str | None,
    columns: Mapping[str, pa.DataType],
    answers: pa.Schema,
    *,
    max_rows: int,
    most_bytes: int = LEAST_BYTES,
    shape: RecordShape = FLAT,
) -> Question:
    """Read an inference request.

    What it costs follows from the bytes of the body, never from a number that it states.

    Args:
        body: the whole body.
        header_length: the header `Inference-Header-Content-Length`; None: the body is JSON alone.
        columns: the raw columns that a request must have.
        answers: the columns that can be asked for.
        max_rows: the most rows allowed.
        most_bytes: what the values of the JSON may take in memory.
        shape: how the source of the training data calls its fields.

    Raises:
        Malformed: it is not a request of the protocol.
        TooLarge: it has too many rows, or its values would take too much memory.
        RequestError: an input is absent, or its datatype or shape cannot be.
    """
    head, tail = _head(body, header_length, most_bytes)
    id = head.get("id")
    if id is not None and not isinstance(id, str):
        raise Malformed(f"`id` must be a text; found {shown(id)}")
    tensors, blobs = _inputs(head, tail)
    # A column `a.b` may be the field `b` of the objects in a tensor `a`.
    kinds = {
        **{name: kind for name, kind in columns.items() if name in tensors},
        **dict.fromkeys(_holders(tensors, columns, shape), pa.string()),
    }
    # Shapes are judged before any data is read.
    rows = {name: _rows_of(tensors[name], kind) for name, kind in kinds.items()}
    if len(set(rows.values())) > 1:
        raise Malformed(
            "all inputs must have the same first axis; found"
            f" {', '.join(f'{n}: {k}' for n, k in rows.items())}"
        )
    count = next(iter(rows.values()), 0)
    if count > max_rows:
        raise TooLarge(
            f"the request has {count} rows; at most {max_rows} are taken at once (serve.max_rows)"
        )
    # The objects of all tensors together.
    memory = Memory(most_bytes)
    values = {
        name: values_of(tensors[name], blobs.get(name), kind)
        if name in columns
        else _objects(tensors[name], blobs.get(name), memory)
        for name, kind in kinds.items()
    }
    wanted = _wanted(head, answers)
    # The answering thread makes the columns.
    return Question(id, count, lambda: from_columns(values, columns, (), shape), wanted)


def _holders(
    tensors: Mapping[str, Any], columns: Mapping[str, pa.DataType], shape: RecordShape
) -> list[str]:
    """Return the tensors in which columns that have no tensor of their own may be.

    Raises:
        RequestError: a column is in none.
    """
    absent = [name for name in columns if name not in tensors]
    holders = {name: [s for s in shape.holders(name) if s in tensors] for name in absent}
    if without := [name for name in absent if not holders[name]]:
        # Cut, since a hint compares with every name, and a client chooses how many and
        # how long.
        names = [name[:SHOWN] for name in list(tensors)[:SHOWN]]
        hint = Hints(names)
        problems = tuple(
            Problem((name,), f"is a required input.{hint(name)}") for name in without
        )
        raise RequestError("; ".join(map(str, problems)), problems)
    return list(dict.fromkeys(source for each in holders.values() for source in each))


def _objects(
    entry: Mapping[str, Any], blob: memoryview | None, memory: Memory
) -> list[Any]:
    """Read a BYTES tensor of JSON texts, one a row, as objects; an empty one is missing."""
    if entry["datatype"] != "BYTES":
        text = (
            f"holds objects, and comes as BYTES of JSON text; found {entry['datatype']}"
        )
        raise RequestError(
            f"the input {shown(entry['name'])} {text}", (Problem((entry["name"],), text),)
        )
    values = values_of(entry, blob, pa.string())
    return [read_text(v, memory) if isinstance(v, str) and v else None for v in values]


def _head(
    body: bytes | bytearray, header_length: str | None, most_bytes: int
) -> tuple[dict[str, Any], memoryview]:
    size = len(body)
    if header_length is not None:
        # Nineteen digits hold any 64-bit length.
        plain = (
            header_length.isascii()
            and header_length.isdecimal()
            and len(header_length) <= 19
        )
        if not plain or int(header_length) > len(body):
            raise Malformed(
                f"Inference-Header-Content-Length is {shown(header_length)}; expected the length of the JSON"
                f" in bytes, at most the {len(body)} of the body"
            )
        size = int(header_length)
    # Views of the body: the tensors' bytes are not copied.
    whole = memoryview(body)
    head = read_json(whole[:size], most=most_bytes)
    if not isinstance(head, dict):
        raise Malformed("an inference request is a JSON object with `inputs`")
    return head, whole[size:]


def _inputs(
    head: Mapping[str, Any], tail: memoryview
) -> tuple[dict[str, dict[str, Any]], dict[str, memoryview]]:
    """Return the tensors of a request by name, and the bytes of those sent in binary."""
    inputs = head.get("inputs")
    if not isinstance(inputs, list) or not all(
        isinstance(entry, dict) for entry in inputs
    ):
        raise Malformed(
            "an inference request has `inputs`: a list of tensors, each with `name`, `shape`, `datatype` and"
            " `data`"
        )
    tensors: dict[str, dict[str, Any]] = {}
    blobs: dict[str, memoryview] = {}
    for entry in inputs:
        name = entry.get("name")
        if not isinstance(name, str) or name in tensors:
            raise Malformed(f"each input needs a name of its own; found {shown(name)}")
        tensors[name] = entry
        _check_tensor(name, entry)
        size = _binary_size(name, entry, len(tail))
        # The bytes behind the JSON come in the order of the inputs.
        if size is not None:
            blobs[name], tail = tail[:size], tail[size:]
    if tail:
        raise Malformed(
            f"{len(tail)} bytes follow the last tensor and belong to none; give each input its"
            " `binary_data_size`"
        )
    return tensors, blobs


def _check_tensor(name: str, entry: dict[str, Any]) -> None:
    """Refuse an impossible shape or datatype; afterwards the shape holds whole numbers."""
    shape, datatype = entry.get("shape"), entry.get("datatype")
    if not isinstance(shape, list) or not shape or not all(_is_axis(n) for n in shape):
        raise Malformed(
            f"the input {shown(name)} needs a `shape`: a list of whole numbers, rows first; found"
            f" {shown(shape)}"
        )
    entry["shape"] = list(map(int, shape))
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise Malformed(
            f"the input {shown(name)} has the datatype {shown(datatype)}; known are {', '.join(DATATYPES)}"
        )


def _binary_size(name: str, entry: Mapping[str, Any], left: int) -> int | None:
    """Return how many of the `left` bytes behind the JSON belong to this tensor; None
    where its data is in the JSON.
    """
    size = _parameters(entry).get("binary_data_size")
    if size is None:
        return None
    # A bool is an int in Python.
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or size > left:
        raise Malformed(
            f"the input {shown(name)} says that {shown(size)} bytes are its data; {left} bytes are left"
        )
    if "data" in entry:
        raise Malformed(
            f"the input {shown(name)} has `data` and `binary_data_size`; give one of them"
        )
    return size


def _parameters(entry: Mapping[str, Any]) -> dict[str, Any]:
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise Malformed(f"`parameters` must be an object; found {shown(parameters)}")
    return parameters


def _choice(entry: Mapping[str, Any], word: str, usual: bool) -> bool:
    """Read a parameter that must be true or false; `usual` where it is absent."""
    value = _parameters(entry).get(word)
    if value is None:
        return usual
    if not isinstance(value, bool):
        raise Malformed(f"`{word}` must be true or false; found {shown(value)}")
    return value


def _wanted(head: Mapping[str, Any], answers: pa.Schema) -> dict[str, bool]:
    # Holds for every output that says nothing itself.
    everything = _choice(head, "binary_data_output", False)
    outputs = head.get("outputs")
    if outputs is None or outputs == []:
        return dict.fromkeys(answers.names, everything)
    if not isinstance(outputs, list) or not all(
        isinstance(entry, dict) for entry in outputs
    ):
        raise Malformed("`outputs` must be a list of objects with `name`")
    wanted: dict[str, bool] = {}
    for entry in outputs:
        name = entry.get("name")
        if not isinstance(name, str) or name not in answers.names:
            near = (
                did_you_mean(str(name)[:SHOWN], answers.names)
                if isinstance(name, str)
                else ""
            )
            raise Malformed(
                f"there is no output {shown(name)}.{near} There are {', '.join(answers.names)}"
            )
        if name in wanted:
            raise Malformed(f"the output {name!r} is asked for twice")
        if "classification" in _parameters(entry):
            raise Malformed(
                f"the classification extension is not offered; the output {name!r} is there with its"
                " probabilities beside it"
            )
        wanted[name] = _choice(entry, "binary_data", everything)
    return wanted


def _rows_of(entry: Mapping[str, Any], kind: pa.DataType) -> int:
    name, shape = entry["name"], entry["shape"]
    inner = len(inner_shape(kind))
    # A single value a row may come as `[rows]` or as a column, `[rows, 1]`.
    good = len(shape) == 1 + inner or (not inner and len(shape) == 2 and shape[1] == 1)
    if not good:
        expected = {
            0: "[rows] or [rows, 1]",
            1: "[rows, length]",
            2: "[rows, steps, variables]",
        }.get(inner, f"{1 + inner} axes")
        text = f"has the shape {shown(shape)}; expected {expected}"
        raise RequestError(f"the input {name!r} {text}", (Problem((name,), text),))
    return int(shape[0])


def _is_axis(length: Any) -> bool:
    """Whether a value is the length of an axis; 3.0 is the whole number 3 in JSON."""
    number = isinstance(length, (int, float)) and not isinstance(length, bool)
    return number and 0 <= length <= LONGEST_AXIS and length == int(length)
