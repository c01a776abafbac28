"""The datatypes of the Open Inference Protocol and the Arrow types that they carry.

A column's values may come in any datatype that carries them; `datatype` is the one in which it is declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

NUMPY = {
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
"""By datatype of numbers, how numpy reads its bytes: little-endian."""
DATATYPES = (*NUMPY, "BYTES")
FLOATS = ("FP16", "FP32", "FP64")
LONGEST_AXIS = 2**31 - 1
"""A longer axis cannot be an offset of Arrow lists."""


def datatype(kind: pa.DataType) -> str:
    """Return the protocol's datatype for a column of this Arrow type."""
    if pa.types.is_boolean(kind):
        return "BOOL"
    # The widest type holds any value; a request may use a narrower one.
    if pa.types.is_integer(kind):
        return "INT64"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "FP32" if pa.types.is_float32(kind) else "FP64"
    # The datatype is that of the values within; the lists are axes.
    if is_list(kind):
        return datatype(kind.value_type)
    return "BYTES"


def describe(
    columns: Mapping[str, pa.DataType], answers: pa.Schema
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return inputs and outputs as a model's metadata lists them; -1 is an axis that
    varies.
    """
    inputs = [
        {"name": name, "datatype": datatype(kind), "shape": [-1, *inner_shape(kind)]}
        for name, kind in columns.items()
    ]
    outputs = [{"name": field.name, **_answer_tensor(field.type)} for field in answers]
    return inputs, outputs


def _answer_tensor(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(kind) and is_shares(kind):
        classes = [member.name for member in kind]
        return {
            "datatype": "FP32",
            "shape": [-1, len(classes)],
            "parameters": {"classes": classes},
        }
    # Objects have no tensor form, so they go as JSON texts.
    if pa.types.is_nested(kind) and not pa.types.is_primitive(innermost(kind)):
        return {"datatype": "BYTES", "shape": [-1]}  # an object, as JSON text
    return {"datatype": datatype(kind), "shape": [-1, *inner_shape(kind)]}


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists, of one length or of several."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
    )


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, such as pictures."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def is_shares(kind: pa.DataType) -> bool:
    """Whether a struct holds numbers only, as the probabilities of classes do."""
    return all(pa.types.is_floating(member.type) for member in kind)


def inner_shape(kind: pa.DataType) -> list[int]:
    """Return the axes behind the row axis; -1 where the length varies."""
    if not is_list(kind):
        return []
    return [
        kind.list_size if pa.types.is_fixed_size_list(kind) else -1,
        *inner_shape(kind.value_type),
    ]


def innermost(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values within lists of any depth."""
    return innermost(kind.value_type) if is_list(kind) else kind
