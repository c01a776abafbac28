"""Converts the tensors of an inference request to the values of a column, one a row.

Missing values: null in JSON data; NaN in floating-point tensors; an empty element in BYTES tensors. What a
value costs follows from the bytes that came, never from a shape that says much.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.bundle.value_kinds import as_double
from penstock.core.errors import Problem, RequestError
from penstock.serve.datatypes import FLOATS, NUMPY, inner_shape, is_bytes
from penstock.serve.reading import Malformed, shown

_PYTHON: dict[str, tuple[type, ...]] = {
    "BYTES": (str,),
    "BOOL": (bool,),
    **dict.fromkeys(FLOATS, (int, float)),
}
"""By datatype, the types that its values in JSON have; whole numbers elsewhere."""
_RANGES = {
    name: (np.iinfo(dtype).min, np.iinfo(dtype).max)
    for name, dtype in NUMPY.items()
    if "INT" in name
}
"""By datatype of whole numbers, the least and the greatest."""


def values_of(
    entry: Mapping[str, Any], blob: memoryview | None, kind: pa.DataType
) -> list[Any] | pa.Array:
    """Convert one input tensor to values, one a row.

    The lists that a shape asks for are made only once the data is there that fills them: each axis is as long
    as the data or the rows at most, so that a small body with a large shape makes nothing.

    Args:
        entry: the input: `name`, `shape`, `datatype`, and `data` if there is no blob.
        blob: its bytes, if they came after the JSON.
        kind: the column's type in training.

    Raises:
        Malformed: data and shape do not fit, or the data is not of the protocol.
        RequestError: a value is not of the datatype.
    """
    name, shape, datatype = entry["name"], entry["shape"], entry["datatype"]
    size = math.prod(shape)
    # An axis of length 0 needs no data, yet every index of the axes before it would be
    # a list.
    if math.prod(shape[:-1]) > max(size, shape[0]):
        raise Malformed(
            f"the input {name!r} has the shape {shape}, which is made of empty lists; leave out axes of"
            " length 0"
        )
    inner = len(inner_shape(kind))
    if blob is None:
        values = _json_values(entry.get("data"), name, datatype, shape)
    elif datatype == "BYTES":
        values = _elements(name, blob, size, as_text=not is_bytes(kind))
    else:
        array = _numbers(name, datatype, blob, shape, size)
        # Nested in Arrow, without a Python object for each number; `from_pandas` makes
        # NaN missing.
        if inner and datatype != "BOOL":
            return _nested(pa.array(array.astype(np.float64), from_pandas=True), shape)
        values = array.tolist()
        if datatype in FLOATS:
            # NaN, the one value that differs from itself, is missing.
            values = [None if v != v else v for v in values]
    if inner and datatype not in ("BYTES", "BOOL"):
        return _nested(pa.array([_float(v) for v in values], pa.float64()), shape)
    for axis in range(inner, 0, -1):  # the innermost lists first
        width, lists = shape[axis], math.prod(shape[:axis])
        values = [values[i * width : (i + 1) * width] for i in range(lists)]
    return values


def _json_values(data: Any, name: str, datatype: str, shape: list[int]) -> list[Any]:
    values = _flat(data, name, len(shape))
    size = math.prod(shape)
    if len(values) != size:
        raise Malformed(
            f"the input {name!r} has {len(values)} values; its shape {shape} asks for {size}"
        )
    _check_values(name, datatype, values)
    if datatype == "BYTES":
        return [None if v == "" else v for v in values]
    return [_float(v) for v in values] if datatype in FLOATS else values


def _numbers(
    name: str, datatype: str, blob: memoryview, shape: list[int], size: int
) -> np.ndarray:
    """Read a binary tensor of numbers, flat; floating-point ones as doubles."""
    dtype = np.dtype(NUMPY[datatype])
    if len(blob) != size * dtype.itemsize:
        raise Malformed(
            f"the input {name!r} has {len(blob)} bytes; its shape {shape} and datatype {datatype} ask for"
            f" {size * dtype.itemsize}"
        )
    # A view of the body: nothing is copied here.
    array = np.frombuffer(blob, dtype)
    # FP16 and FP32 widen exactly.
    return array.astype(np.float64) if dtype.kind == "f" else array


def _nested(flat: pa.Array, shape: list[int]) -> pa.Array:
    """Wrap flat numbers `[product of shape]` in lists (of lists), one a row."""
    # From the innermost axis outwards: each step wraps the lists of the step before.
    for axis in range(len(shape) - 1, 0, -1):
        lists = math.prod(shape[:axis])
        offsets = np.arange(lists + 1, dtype=np.int64) * shape[axis]
        flat = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
    return flat


def _float(value: Any) -> float | None:
    """Convert a number to a double; NaN becomes None, a missing value."""
    return None if value is None or value != value else as_double(value)


def _flat(data: Any, name: str, axes: int) -> list[Any]:
    if not isinstance(data, list):
        raise Malformed(
            f"the input {name!r} needs `data`, a list, or `parameters.binary_data_size` and bytes after the"
            " JSON"
        )
    # The protocol allows data nested as the shape, or flat.
    for _ in range(axes - 1):
        if not data or not isinstance(data[0], list):
            break
        if not all(isinstance(part, list) for part in data):
            raise Malformed(f"the `data` of the input {name!r} is nested unevenly")
        data = [value for part in data for value in part]
    if any(isinstance(value, list) for value in data):
        raise Malformed(
            f"the `data` of the input {name!r} is nested unevenly, or deeper than its shape"
        )
    return list(data)


def _check_values(name: str, datatype: str, values: Sequence[Any]) -> None:
    """Refuse the first value that is not of the datatype; null is of every one."""
    allowed = _PYTHON.get(datatype, (int,))
    least, most = _RANGES.get(datatype, (-math.inf, math.inf))
    for i, value in enumerate(values):
        if value is None:
            continue
        # A bool is an int in Python, but not in the protocol.
        fits = isinstance(value, allowed) and (
            datatype == "BOOL" or not isinstance(value, bool)
        )
        if fits and (datatype not in _RANGES or least <= value <= most):
            continue
        text = shown(value)
        raise RequestError(
            f"value {i} of the input {name!r} is {text}, which is no {datatype}",
            (Problem((i, name), f"expected {datatype}; found {text}"),),
        )


def _elements(
    name: str, blob: memoryview, size: int, *, as_text: bool
) -> list[str | bytes | None]:
    """Split BYTES elements: text, or bytes for a column of bytes; an empty one is
    missing.
    """
    elements: list[str | bytes | None] = []
    at = 0
    while at < len(blob):
        # Four bytes of length, little-endian, stand before each element.
        if at + 4 > len(blob):
            raise Malformed(
                f"the bytes of the input {name!r} end within an element's length"
            )
        (length,) = struct.unpack_from("<I", blob, at)
        at += 4
        if at + length > len(blob):
            raise Malformed(
                f"the bytes of the input {name!r} end within element {len(elements)}"
            )
        # Refused within the loop: a blob of empty elements would make a Python value
        # for every four bytes.
        if len(elements) == size:
            raise Malformed(
                f"the input {name!r} has more elements than the {size} of its shape"
            )
        try:
            element = bytes(blob[at : at + length])
            elements.append(
                (element.decode() if as_text else element) if length else None
            )
        except UnicodeDecodeError:
            raise RequestError(
                f"element {len(elements)} of the input {name!r} is not UTF-8",
                (Problem((len(elements), name), "expected text in UTF-8"),),
            ) from None
        at += length
    if len(elements) != size:
        raise Malformed(
            f"the input {name!r} has {len(elements)} elements; its shape asks for {size}"
        )
    return elements
