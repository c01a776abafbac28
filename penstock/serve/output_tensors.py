"""Converts predictions to tensors of the Open Inference Protocol, in JSON or as bytes
behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic_core import to_json

from penstock.serve.datatypes import NUMPY, datatype, innermost, is_list, is_shares


def answer(
    table: pa.Table,
    wanted: Mapping[str, bool],
    *,
    model: str,
    version: str,
    id: str | None,
) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON if bytes follow it.

    Args:
        table: the predictions, one row a row of the request.
        wanted: by output, in order, whether it goes as bytes.
        model: the name of the model.
        version: its version.
        id: what the client called its request.
    """
    outputs: list[dict[str, Any]] = []
    blobs: list[bytes] = []
    for name, as_bytes in wanted.items():
        kind, shape, values = _tensor(table[name].combine_chunks())
        entry: dict[str, Any] = {"name": name, "datatype": kind, "shape": shape}
        if as_bytes:
            is_text = kind == "BYTES"
            blob = (
                _bytes(values)
                if is_text
                else np.ascontiguousarray(values, NUMPY[kind]).tobytes()
            )
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            entry["data"] = (
                values if isinstance(values, list) else values.ravel().tolist()
            )
        outputs.append(entry)
    about = {"model_name": model, "model_version": version}
    if id is not None:
        about["id"] = id
    head = to_json({**about, "outputs": outputs}, inf_nan_mode="constants")
    return head + b"".join(blobs), len(head) if blobs else None


def _tensor(column: pa.Array) -> tuple[str, list[int], Any]:
    """(datatype, shape, values): values are an array of numbers, or a list of texts for BYTES."""
    kind = column.type
    if pa.types.is_struct(kind) and is_shares(kind):
        shares = _shares(column)
        return "FP32", list(shares.shape), shares
    # Uneven lists, or a missing one, have no shape: they go as JSON texts below.
    if (
        is_list(kind)
        and pa.types.is_primitive(innermost(kind))
        and (tensor := _even(column)) is not None
    ):
        return datatype(kind), list(tensor.shape), tensor
    if pa.types.is_nested(kind):
        return "BYTES", [len(column)], [to_json(v).decode() for v in column.to_pylist()]
    # BYTES has no null, so a missing text is an empty element.
    if datatype(kind) == "BYTES":
        return (
            "BYTES",
            [len(column)],
            ["" if v is None else str(v) for v in column.to_pylist()],
        )
    return (
        datatype(kind),
        [len(column)],
        np.asarray(column.to_numpy(zero_copy_only=False)),
    )


def _shares(column: pa.Array) -> np.ndarray:
    """Convert a struct of numbers to an array `[rows, classes]`."""
    # `np.stack` refuses an empty list.
    if not column.type.num_fields:
        return np.zeros((len(column), 0), np.float32)
    parts = [
        np.asarray(part.to_numpy(zero_copy_only=False), np.float32)
        for part in column.flatten()
    ]
    return np.stack(parts, axis=1)


def _even(column: pa.Array) -> np.ndarray | None:
    """Convert lists (of lists) of equal lengths to one array; None if lengths differ or
    a list is missing.
    """
    shape = [len(column)]
    while is_list(column.type):
        # Doubles, since a missing list has a null length, which integers cannot hold.
        lengths = np.unique(
            np.asarray(column.value_lengths().to_numpy(zero_copy_only=False), np.float64)
        )
        if column.null_count or len(lengths) > 1:
            return None
        shape.append(int(lengths[0]) if len(lengths) else 0)
        # `flatten` heeds the offset of a slice, which `values` ignores.
        column = column.flatten()
    return np.asarray(column.to_numpy(zero_copy_only=False)).reshape(shape)


def _bytes(values: Sequence[str]) -> bytes:
    coded = [v.encode() for v in values]
    return b"".join(part for v in coded for part in (struct.pack("<I", len(v)), v))
