"""The Open Inference Protocol, version 2 (KServe V2, the protocol of Triton): tensors ↔ rows, in JSON and in binary.

Inputs are the raw columns, each a tensor `[n]` or `[n, 1]` (vectors `[n, length]`, series `[n, steps, variables]`), in any datatype that
carries its values: what is acceptable is the feature's to say, as everywhere. Missing values: null in JSON data; NaN in
floating-point tensors; an empty element in BYTES tensors (they cannot hold null, and an empty cell of a CSV file is
missing as well). Outputs are the predictions `<target>` (BYTES, FP64, INT64 or BOOL) and `<target>_probabilities`
(FP32 `[n, classes]`, whose classes the model's metadata lists), and the like. A column of bytes (pictures) is BYTES: the
bytes themselves in binary, base64 text in JSON.

The binary extension (github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md): after the JSON,
whose length is in the header `Inference-Header-Content-Length`, come the tensors' bytes, little-endian, row-major; BYTES
elements each after their length in four bytes. Pure: bytes and Arrow in, bytes and Arrow out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic_core import from_json, to_json

from penstock.bundle.rows import Intake, from_columns
from penstock.contracts.part import did_you_mean
from penstock.core.errors import Problem, RequestError

HEADER = "inference-header-content-length"
_NUMPY = {
    "BOOL": "?", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}


@dataclass(frozen=True)
class Question:
    """An inference request, parsed."""

    id: str | None
    rows: int
    intake: Callable[[], Intake]
    wanted: dict[str, bool]
    """Names of the outputs to give, in order, and whether each goes as bytes."""


def datatype(kind: pa.DataType) -> str:
    """The protocol's datatype in which a column of this Arrow type is declared."""
    if pa.types.is_boolean(kind):
        return "BOOL"
    if pa.types.is_integer(kind):
        return "INT64"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "FP32" if pa.types.is_float32(kind) else "FP64"
    if _is_list(kind):
        return datatype(kind.value_type)
    return "BYTES"


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def describe(columns: Mapping[str, pa.DataType], answers: pa.Schema) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs as the metadata of a model lists them; -1 is an axis that varies."""
    inputs = [{"name": name, "datatype": datatype(kind), "shape": [-1, *_inner(kind)]} for name, kind in columns.items()]
    outputs: list[dict[str, Any]] = []
    for field in answers:
        if pa.types.is_struct(field.type) and _is_shares(field.type):
            classes = [member.name for member in field.type]
            outputs.append({"name": field.name, "datatype": "FP32", "shape": [-1, len(classes)], "parameters": {"classes": classes}})
        elif pa.types.is_nested(field.type) and not pa.types.is_primitive(_innermost(field.type)):
            outputs.append({"name": field.name, "datatype": "BYTES", "shape": [-1]})
        else:
            outputs.append({"name": field.name, "datatype": datatype(field.type), "shape": [-1, *_inner(field.type)]})
    return inputs, outputs


def _inner(kind: pa.DataType) -> list[int]:
    if not _is_list(kind):
        return []
    return [kind.list_size if pa.types.is_fixed_size_list(kind) else -1, *_inner(kind.value_type)]


def _innermost(kind: pa.DataType) -> pa.DataType:
    return _innermost(kind.value_type) if _is_list(kind) else kind


def _is_shares(kind: pa.DataType) -> bool:
    return all(pa.types.is_floating(member.type) for member in kind)


# -- requests ----------------------------------------------------------------------------------------------------------


def parse(body: bytes, header_length: str | None, columns: Mapping[str, pa.DataType], answers: pa.Schema, *, max_rows: int) -> Question:
    """Read an inference request.

    Args:
        body: the whole body.
        header_length: the header `Inference-Header-Content-Length`; None: the body is JSON alone.
        columns: the raw columns that a request must have.
        answers: the columns that can be asked for.
        max_rows: the most rows allowed.

    Raises:
        Malformed: it is not a request of the protocol.
        TooLarge: it has too many rows.
        RequestError: an input is absent, or its datatype or shape cannot be.
    """
    head, tail = _head(body, header_length)
    inputs = head.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(entry, dict) for entry in inputs):
        raise Malformed("an inference request has `inputs`: a list of tensors, each with `name`, `shape`, `datatype` and `data`")
    given: dict[str, dict[str, Any]] = {}
    blobs: dict[str, bytes] = {}
    for entry in inputs:
        name = entry.get("name")
        if not isinstance(name, str) or name in given:
            raise Malformed(f"each input needs a name of its own; found {name!r}")
        given[name] = entry
        size = _parameters(entry).get("binary_data_size")
        if size is not None:
            if not isinstance(size, int) or isinstance(size, bool) or size < 0 or size > len(tail):
                raise Malformed(f"the input {name!r} says that {size!r} bytes are its data; {len(tail)} bytes are left")
            blobs[name], tail = tail[:size], tail[size:]
    if tail:
        raise Malformed(f"{len(tail)} bytes follow the last tensor and belong to none; give each input its `binary_data_size`")
    absent = [name for name in columns if name not in given]
    if absent:
        problems = tuple(Problem((name,), f"is a required input.{did_you_mean(name, list(given))}") for name in absent)
        raise RequestError("; ".join(map(str, problems)), problems)
    rows = {name: _rows_of(given[name], columns[name]) for name in columns}
    if len(set(rows.values())) > 1:
        raise Malformed(f"all inputs must have the same first axis; found {', '.join(f'{n}: {k}' for n, k in rows.items())}")
    count = next(iter(rows.values()), 0)
    if count > max_rows:
        raise TooLarge(f"the request has {count} rows; at most {max_rows} are taken at once")
    values = {name: _values(given[name], blobs.get(name), columns[name]) for name in columns}
    id = head.get("id")
    return Question(str(id) if id is not None else None, count, lambda: from_columns(values, columns), _wanted(head, answers))


class Malformed(RequestError):
    """Not a request of the protocol: a 400 over HTTP."""


class TooLarge(RequestError):
    """More than is taken at once: a 413 over HTTP."""


def parse_json(body: bytes) -> Any:
    """JSON as Python values.

    Raises:
        Malformed: it is not JSON; says where.
    """
    try:
        return from_json(body, allow_inf_nan=True, cache_strings="keys")
    except ValueError as error:
        raise Malformed(f"the body is not JSON: {error}") from None


def _head(body: bytes, header_length: str | None) -> tuple[dict[str, Any], bytes]:
    size = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > len(body):
            raise Malformed(f"Inference-Header-Content-Length is {header_length!r}; expected the length of the JSON in bytes, at most the {len(body)} of the body")
        size = int(header_length)
    head = parse_json(body[:size])
    if not isinstance(head, dict):
        raise Malformed("an inference request is a JSON object with `inputs`")
    return head, body[size:]


def _parameters(entry: Mapping[str, Any]) -> dict[str, Any]:
    found = entry.get("parameters") or {}
    if not isinstance(found, dict):
        raise Malformed(f"`parameters` must be an object; found {found!r}")
    return found


def _wanted(head: Mapping[str, Any], answers: pa.Schema) -> dict[str, bool]:
    everything = bool(_parameters(head).get("binary_data_output", False))
    outputs = head.get("outputs")
    if not outputs:
        return dict.fromkeys(answers.names, everything)
    if not isinstance(outputs, list) or not all(isinstance(entry, dict) for entry in outputs):
        raise Malformed("`outputs` must be a list of objects with `name`")
    wanted = {}
    for entry in outputs:
        name = entry.get("name")
        if name not in answers.names:
            raise Malformed(f"there is no output {name!r}.{did_you_mean(str(name), answers.names)} There are {', '.join(answers.names)}")
        if "classification" in _parameters(entry):
            raise Malformed(f"the classification extension is not offered; the output {name!r} is there with its probabilities beside it")
        wanted[str(name)] = bool(_parameters(entry).get("binary_data", everything))
    return wanted


def _rows_of(entry: Mapping[str, Any], kind: pa.DataType) -> int:
    name, shape = entry["name"], entry.get("shape")
    if not isinstance(shape, list) or not shape or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape):
        raise Malformed(f"the input {name!r} needs a `shape`: a list of whole numbers, rows first; found {shape!r}")
    inner = len(_inner(kind))
    good = len(shape) == 1 + inner or (not inner and len(shape) == 2 and shape[1] == 1)
    if not good:
        expected = {0: "[rows] or [rows, 1]", 1: "[rows, length]", 2: "[rows, steps, variables]"}.get(inner, f"{1 + inner} axes")
        raise RequestError(f"the input {name!r} has the shape {shape}; expected {expected}", (Problem((name,), f"has the shape {shape}; expected {expected}"),))
    return int(shape[0])


def _values(entry: Mapping[str, Any], blob: bytes | None, kind: pa.DataType) -> Any:
    name, shape, sort = entry["name"], entry["shape"], entry.get("datatype")
    if sort != "BYTES" and sort not in _NUMPY:
        raise Malformed(f"the input {name!r} has the datatype {sort!r}; known are {', '.join([*_NUMPY, 'BYTES'])}")
    size = int(np.prod(shape))
    if blob is None:
        data = _flat(entry.get("data"), name)
        if len(data) != size:
            raise Malformed(f"the input {name!r} has {len(data)} values; its shape {shape} asks for {size}")
        _check_values(name, sort, data)
        if sort == "BYTES":
            data = [None if v == "" else v for v in data]
    elif sort == "BYTES":
        data = _elements(name, blob, size, as_text=not is_bytes(kind))
    else:
        dtype = np.dtype(_NUMPY[sort])
        if len(blob) != size * dtype.itemsize:
            raise Malformed(f"the input {name!r} has {len(blob)} bytes; its shape {shape} and datatype {sort} ask for {size * dtype.itemsize}")
        array = np.frombuffer(blob, dtype)
        if dtype.kind == "f":
            array = array.astype(np.float64)
        data = array.tolist()
    if sort in ("FP16", "FP32", "FP64"):
        data = [None if v is None or v != v else float(v) for v in data]
    for axis in range(len(_inner(kind)), 0, -1):  # the innermost lists first
        width, lists = shape[axis], int(np.prod(shape[:axis]))
        data = [data[i * width : (i + 1) * width] for i in range(lists)]
    return data


def _flat(data: Any, name: str) -> list[Any]:
    if not isinstance(data, list):
        raise Malformed(f"the input {name!r} needs `data`, a list, or `parameters.binary_data_size` and bytes after the JSON")
    while data and isinstance(data[0], list):
        if not all(isinstance(part, list) for part in data):
            raise Malformed(f"the `data` of the input {name!r} is nested unevenly")
        data = [value for part in data for value in part]
    return list(data)


def _check_values(name: str, sort: str, data: Sequence[Any]) -> None:
    allowed: tuple[type, ...] = (str,) if sort == "BYTES" else (bool,) if sort == "BOOL" else (int,) if "INT" in sort else (int, float)
    for i, value in enumerate(data):
        if value is None or (isinstance(value, allowed) and (sort == "BOOL" or not isinstance(value, bool))):
            continue
        raise RequestError(f"value {i} of the input {name!r} is {value!r}, which is no {sort}", (Problem((i, name), f"expected {sort}; found {value!r}"),))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, such as pictures."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _elements(name: str, blob: bytes, size: int, *, as_text: bool) -> list[str | bytes | None]:
    """BYTES elements as text, or as they are for a column of bytes; an empty one is missing."""
    found: list[str | bytes | None] = []
    at = 0
    while at < len(blob):
        if at + 4 > len(blob):
            raise Malformed(f"the bytes of the input {name!r} end within an element's length")
        (length,) = struct.unpack_from("<I", blob, at)
        at += 4
        if at + length > len(blob):
            raise Malformed(f"the bytes of the input {name!r} end within element {len(found)}")
        try:
            element = blob[at : at + length]
            found.append((element.decode() if as_text else element) if length else None)
        except UnicodeDecodeError:
            raise RequestError(f"element {len(found)} of the input {name!r} is not UTF-8", (Problem((len(found), name), "expected text in UTF-8"),)) from None
        at += length
    if len(found) != size:
        raise Malformed(f"the input {name!r} has {len(found)} elements; its shape asks for {size}")
    return found


# -- answers -----------------------------------------------------------------------------------------------------------


def answer(table: pa.Table, wanted: Mapping[str, bool], *, model: str, version: str, id: str | None) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON if bytes follow."""
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, as_bytes in wanted.items():
        sort, shape, values = _tensor(table[name].combine_chunks())
        entry: dict[str, Any] = {"name": name, "datatype": sort, "shape": shape}
        if as_bytes:
            blob = _bytes(values) if sort == "BYTES" else np.ascontiguousarray(values, np.dtype(_NUMPY[sort])).tobytes()
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            entry["data"] = values if isinstance(values, list) else values.ravel().tolist()
        outputs.append(entry)
    head = to_json({"model_name": model, "model_version": version, **({"id": id} if id is not None else {}), "outputs": outputs}, inf_nan_mode="constants")
    return head + b"".join(blobs), len(head) if blobs else None


def _tensor(column: pa.Array) -> tuple[str, list[int], Any]:
    kind = column.type
    if pa.types.is_struct(kind) and _is_shares(kind):
        shares = np.stack([np.asarray(part.to_numpy(zero_copy_only=False), np.float32) for part in column.flatten()], axis=1) if kind.num_fields else np.zeros((len(column), 0), np.float32)
        return "FP32", list(shares.shape), shares
    if _is_list(kind) and pa.types.is_primitive(_innermost(kind)) and (tensor := _even(column)) is not None:
        return datatype(kind), list(tensor.shape), tensor
    if pa.types.is_nested(kind):
        return "BYTES", [len(column)], [to_json(v).decode() for v in column.to_pylist()]
    sort = datatype(kind)
    if sort == "BYTES":
        return sort, [len(column)], ["" if v is None else str(v) for v in column.to_pylist()]
    return sort, [len(column)], np.asarray(column.to_numpy(zero_copy_only=False))


def _even(column: pa.Array) -> np.ndarray | None:
    """Lists (of lists) of equal lengths as one array; None if they are not even, or one is missing."""
    shape = [len(column)]
    while _is_list(column.type):
        lengths = np.unique(np.asarray(column.value_lengths().to_numpy(zero_copy_only=False), np.float64))
        if column.null_count or len(lengths) > 1:
            return None
        shape.append(int(lengths[0]) if len(lengths) else 0)
        column = column.flatten()
    return np.asarray(column.to_numpy(zero_copy_only=False)).reshape(shape)


def _bytes(values: Sequence[str]) -> bytes:
    coded = [v.encode() for v in values]
    return b"".join(part for v in coded for part in (struct.pack("<I", len(v)), v))
