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
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic_core import to_json

from penstock.bundle.rows import Intake, from_columns
from penstock.core.errors import Problem, RequestError
from penstock.core.near import Hints, did_you_mean
from penstock.serve.reading import LEAST_BYTES, Malformed, TooLarge, read_json

HEADER = "inference-header-content-length"
_NUMPY = {
    "BOOL": "?",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
DATATYPES = (*_NUMPY, "BYTES")
_FLOATS = ("FP16", "FP32", "FP64")
LONGEST_AXIS = 2**31 - 1
_SHOWN = 80
"""Characters of a value that an error repeats."""


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


def describe(
    columns: Mapping[str, pa.DataType], answers: pa.Schema
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs as the metadata of a model lists them; -1 is an axis that varies."""
    inputs = [
        {"name": name, "datatype": datatype(kind), "shape": [-1, *_inner(kind)]}
        for name, kind in columns.items()
    ]
    outputs: list[dict[str, Any]] = []
    for field in answers:
        if pa.types.is_struct(field.type) and _is_shares(field.type):
            classes = [member.name for member in field.type]
            outputs.append(
                {
                    "name": field.name,
                    "datatype": "FP32",
                    "shape": [-1, len(classes)],
                    "parameters": {"classes": classes},
                }
            )
        elif pa.types.is_nested(field.type) and not pa.types.is_primitive(_innermost(field.type)):
            outputs.append({"name": field.name, "datatype": "BYTES", "shape": [-1]})
        else:
            outputs.append(
                {"name": field.name, "datatype": datatype(field.type), "shape": [-1, *_inner(field.type)]}
            )
    return inputs, outputs


def _inner(kind: pa.DataType) -> list[int]:
    if not _is_list(kind):
        return []
    return [kind.list_size if pa.types.is_fixed_size_list(kind) else -1, *_inner(kind.value_type)]


def _innermost(kind: pa.DataType) -> pa.DataType:
    return _innermost(kind.value_type) if _is_list(kind) else kind


def _is_shares(kind: pa.DataType) -> bool:
    return all(pa.types.is_floating(member.type) for member in kind)


# -- requests ------------------------------------------------------------------------------------------------


def parse(
    body: bytes | bytearray,
    header_length: str | None,
    columns: Mapping[str, pa.DataType],
    answers: pa.Schema,
    *,
    max_rows: int,
    most_bytes: int = LEAST_BYTES,
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

    Raises:
        Malformed: it is not a request of the protocol.
        TooLarge: it has too many rows, or its values would take too much memory.
        RequestError: an input is absent, or its datatype or shape cannot be.
    """
    head, tail = _head(body, header_length, most_bytes)
    id = head.get("id")
    if id is not None and not isinstance(id, str):
        raise Malformed(f"`id` must be a text; found {_shown(id)}")
    given, blobs = _inputs(head, tail)
    absent = [name for name in columns if name not in given]
    if absent:
        names = [name[:_SHOWN] for name in list(given)[:_SHOWN]]
        hint = Hints(names)
        problems = tuple(Problem((name,), f"is a required input.{hint(name)}") for name in absent)
        raise RequestError("; ".join(map(str, problems)), problems)
    rows = {name: _rows_of(given[name], columns[name]) for name in columns}
    if len(set(rows.values())) > 1:
        raise Malformed(
            "all inputs must have the same first axis; found"
            f" {', '.join(f'{n}: {k}' for n, k in rows.items())}"
        )
    count = next(iter(rows.values()), 0)
    if count > max_rows:
        raise TooLarge(f"the request has {count} rows; at most {max_rows} are taken at once (serve.max_rows)")
    values = {name: _values(given[name], blobs.get(name), columns[name]) for name in columns}
    wanted = _wanted(head, answers)
    return Question(id, count, lambda: from_columns(values, columns), wanted)


def _head(
    body: bytes | bytearray, header_length: str | None, most_bytes: int
) -> tuple[dict[str, Any], memoryview]:
    size = len(body)
    if header_length is not None:
        plain = header_length.isascii() and header_length.isdecimal() and len(header_length) <= 19
        if not plain or int(header_length) > len(body):
            raise Malformed(
                f"Inference-Header-Content-Length is {_shown(header_length)}; expected the length of the JSON"
                f" in bytes, at most the {len(body)} of the body"
            )
        size = int(header_length)
    whole = memoryview(body)
    head = read_json(whole[:size], most=most_bytes)
    if not isinstance(head, dict):
        raise Malformed("an inference request is a JSON object with `inputs`")
    return head, whole[size:]


def _inputs(
    head: Mapping[str, Any], tail: memoryview
) -> tuple[dict[str, dict[str, Any]], dict[str, memoryview]]:
    """The tensors of a request by name, and the bytes of those that have some."""
    inputs = head.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(entry, dict) for entry in inputs):
        raise Malformed(
            "an inference request has `inputs`: a list of tensors, each with `name`, `shape`, `datatype` and"
            " `data`"
        )
    given: dict[str, dict[str, Any]] = {}
    blobs: dict[str, memoryview] = {}
    for entry in inputs:
        name = entry.get("name")
        if not isinstance(name, str) or name in given:
            raise Malformed(f"each input needs a name of its own; found {_shown(name)}")
        given[name] = entry
        shape, sort = entry.get("shape"), entry.get("datatype")
        if not isinstance(shape, list) or not shape or not all(_is_axis(n) for n in shape):
            raise Malformed(
                f"the input {_shown(name)} needs a `shape`: a list of whole numbers, rows first; found"
                f" {_shown(shape)}"
            )
        entry["shape"] = list(map(int, shape))
        if not isinstance(sort, str) or sort not in DATATYPES:
            raise Malformed(
                f"the input {_shown(name)} has the datatype {_shown(sort)}; known are {', '.join(DATATYPES)}"
            )
        size = _parameters(entry).get("binary_data_size")
        if size is None:
            continue
        if not isinstance(size, int) or isinstance(size, bool) or size < 0 or size > len(tail):
            raise Malformed(
                f"the input {_shown(name)} says that {_shown(size)} bytes are its data; {len(tail)} bytes are"
                " left"
            )
        if "data" in entry:
            raise Malformed(f"the input {_shown(name)} has `data` and `binary_data_size`; give one of them")
        blobs[name], tail = tail[:size], tail[size:]
    if tail:
        raise Malformed(
            f"{len(tail)} bytes follow the last tensor and belong to none; give each input its"
            " `binary_data_size`"
        )
    return given, blobs


def _shown(value: Any) -> str:
    """A value as an error repeats it: never longer than a line, whatever was sent."""
    if isinstance(value, int) and value.bit_length() > 256:
        return "a whole number of more than 77 digits"
    short = value[:_SHOWN] if isinstance(value, (str, list)) else value
    try:
        text = repr(short)
    except RecursionError:
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _parameters(entry: Mapping[str, Any]) -> dict[str, Any]:
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise Malformed(f"`parameters` must be an object; found {_shown(parameters)}")
    return parameters


def _choice(entry: Mapping[str, Any], word: str, usual: bool) -> bool:
    """A parameter that is true or false."""
    value = _parameters(entry).get(word)
    if value is None:
        return usual
    if not isinstance(value, bool):
        raise Malformed(f"`{word}` must be true or false; found {_shown(value)}")
    return value


def _wanted(head: Mapping[str, Any], answers: pa.Schema) -> dict[str, bool]:
    everything = _choice(head, "binary_data_output", False)
    outputs = head.get("outputs")
    if outputs is None or outputs == []:
        return dict.fromkeys(answers.names, everything)
    if not isinstance(outputs, list) or not all(isinstance(entry, dict) for entry in outputs):
        raise Malformed("`outputs` must be a list of objects with `name`")
    wanted: dict[str, bool] = {}
    for entry in outputs:
        name = entry.get("name")
        if not isinstance(name, str) or name not in answers.names:
            near = did_you_mean(str(name)[:_SHOWN], answers.names) if isinstance(name, str) else ""
            raise Malformed(f"there is no output {_shown(name)}.{near} There are {', '.join(answers.names)}")
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
    inner = len(_inner(kind))
    good = len(shape) == 1 + inner or (not inner and len(shape) == 2 and shape[1] == 1)
    if not good:
        expected = {0: "[rows] or [rows, 1]", 1: "[rows, length]", 2: "[rows, steps, variables]"}.get(
            inner, f"{1 + inner} axes"
        )
        text = f"has the shape {_shown(shape)}; expected {expected}"
        raise RequestError(f"the input {name!r} {text}", (Problem((name,), text),))
    return int(shape[0])


def _is_axis(length: Any) -> bool:
    """Whether it is a length of an axis; 3.0 is the whole number 3 in JSON."""
    number = isinstance(length, (int, float)) and not isinstance(length, bool)
    return number and 0 <= length <= LONGEST_AXIS and length == int(length)


def _values(entry: Mapping[str, Any], blob: memoryview | None, kind: pa.DataType) -> list[Any] | pa.Array:
    """The values of one input, one a row.

    The lists that a shape asks for are made only once the data is there that fills them: each axis is as long
    as the data or the rows at most, so that a small body with a large shape makes nothing.
    """
    name, shape, sort = entry["name"], entry["shape"], entry["datatype"]
    size = math.prod(shape)
    if math.prod(shape[:-1]) > max(size, shape[0]):
        raise Malformed(
            f"the input {name!r} has the shape {shape}, which is made of empty lists; leave out axes of"
            " length 0"
        )
    inner = len(_inner(kind))
    if blob is None:
        data = _flat(entry.get("data"), name, len(shape))
        if len(data) != size:
            raise Malformed(f"the input {name!r} has {len(data)} values; its shape {shape} asks for {size}")
        _check_values(name, sort, data)
        if sort == "BYTES":
            data = [None if v == "" else v for v in data]
        elif sort in _FLOATS:
            data = [_float(v) for v in data]
    elif sort == "BYTES":
        data = _elements(name, blob, size, as_text=not is_bytes(kind))
    else:
        array = _numbers(name, sort, blob, shape, size)
        if inner and sort != "BOOL":
            return _listed(pa.array(array.astype(np.float64), from_pandas=True), shape)
        data = array.tolist()
        if sort in _FLOATS:
            data = [None if v != v else v for v in data]
    if inner and sort not in ("BYTES", "BOOL"):
        return _listed(pa.array([_float(v) for v in data], pa.float64()), shape)
    for axis in range(inner, 0, -1):  # the innermost lists first
        width, lists = shape[axis], math.prod(shape[:axis])
        data = [data[i * width : (i + 1) * width] for i in range(lists)]
    return data


def _numbers(name: str, sort: str, blob: memoryview, shape: list[int], size: int) -> np.ndarray:
    """The numbers of a binary tensor, flat: floating-point ones as doubles."""
    dtype = np.dtype(_NUMPY[sort])
    if len(blob) != size * dtype.itemsize:
        raise Malformed(
            f"the input {name!r} has {len(blob)} bytes; its shape {shape} and datatype {sort} ask for"
            f" {size * dtype.itemsize}"
        )
    array = np.frombuffer(blob, dtype)
    return array.astype(np.float64) if dtype.kind == "f" else array


def _listed(flat: pa.Array, shape: list[int]) -> pa.Array:
    """Numbers `[product of shape]` as lists (of lists) of numbers, one a row."""
    for axis in range(len(shape) - 1, 0, -1):
        lists = math.prod(shape[:axis])
        offsets = np.arange(lists + 1, dtype=np.int64) * shape[axis]
        flat = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
    return flat


def _float(value: Any) -> float | None:
    """A number as a double; NaN is missing, and a whole number beyond any double is as infinite as it is to
    the model.
    """
    if value is None or value != value:
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _flat(data: Any, name: str, axes: int) -> list[Any]:
    if not isinstance(data, list):
        raise Malformed(
            f"the input {name!r} needs `data`, a list, or `parameters.binary_data_size` and bytes after the"
            " JSON"
        )
    for _ in range(axes - 1):
        if not data or not isinstance(data[0], list):
            break
        if not all(isinstance(part, list) for part in data):
            raise Malformed(f"the `data` of the input {name!r} is nested unevenly")
        data = [value for part in data for value in part]
    if any(isinstance(value, list) for value in data):
        raise Malformed(f"the `data` of the input {name!r} is nested unevenly, or deeper than its shape")
    return list(data)


_WHOLE = {name: (np.iinfo(kind).min, np.iinfo(kind).max) for name, kind in _NUMPY.items() if "INT" in name}


def _check_values(name: str, sort: str, data: Sequence[Any]) -> None:
    allowed: tuple[type, ...] = (
        (str,)
        if sort == "BYTES"
        else (bool,)
        if sort == "BOOL"
        else (int,)
        if "INT" in sort
        else (int, float)
    )
    least, most = _WHOLE.get(sort, (0, 0))
    for i, value in enumerate(data):
        if value is None:
            continue
        fits = isinstance(value, allowed) and (sort == "BOOL" or not isinstance(value, bool))
        if fits and ("INT" not in sort or least <= value <= most):
            continue
        shown = _shown(value)
        raise RequestError(
            f"value {i} of the input {name!r} is {shown}, which is no {sort}",
            (Problem((i, name), f"expected {sort}; found {shown}"),),
        )


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, such as pictures."""
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )


def _elements(name: str, blob: memoryview, size: int, *, as_text: bool) -> list[str | bytes | None]:
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
        if len(found) == size:
            raise Malformed(f"the input {name!r} has more elements than the {size} of its shape")
        try:
            element = bytes(blob[at : at + length])
            found.append((element.decode() if as_text else element) if length else None)
        except UnicodeDecodeError:
            raise RequestError(
                f"element {len(found)} of the input {name!r} is not UTF-8",
                (Problem((len(found), name), "expected text in UTF-8"),),
            ) from None
        at += length
    if len(found) != size:
        raise Malformed(f"the input {name!r} has {len(found)} elements; its shape asks for {size}")
    return found


# -- answers -------------------------------------------------------------------------------------------------


def answer(
    table: pa.Table, wanted: Mapping[str, bool], *, model: str, version: str, id: str | None
) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON if bytes follow."""
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, as_bytes in wanted.items():
        sort, shape, values = _tensor(table[name].combine_chunks())
        entry: dict[str, Any] = {"name": name, "datatype": sort, "shape": shape}
        if as_bytes:
            blob = (
                _bytes(values)
                if sort == "BYTES"
                else np.ascontiguousarray(values, np.dtype(_NUMPY[sort])).tobytes()
            )
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            entry["data"] = values if isinstance(values, list) else values.ravel().tolist()
        outputs.append(entry)
    head = to_json(
        {
            "model_name": model,
            "model_version": version,
            **({"id": id} if id is not None else {}),
            "outputs": outputs,
        },
        inf_nan_mode="constants",
    )
    return head + b"".join(blobs), len(head) if blobs else None


def _tensor(column: pa.Array) -> tuple[str, list[int], Any]:
    kind = column.type
    if pa.types.is_struct(kind) and _is_shares(kind):
        shares = (
            np.stack(
                [np.asarray(part.to_numpy(zero_copy_only=False), np.float32) for part in column.flatten()],
                axis=1,
            )
            if kind.num_fields
            else np.zeros((len(column), 0), np.float32)
        )
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
