"""Values as bytes, and back: what ranks tell each other of their sums, paths and verdicts.

    8 bytes: the length of the outline · the outline, as JSON · the arrays, one behind another

The vocabulary is closed: numbers of any size, texts, bytes, lists, tuples, sets, mappings, paths, fractions,
arrays of numbers and texts, tensors, and the three classes of sums in `_CLASSES`. Nothing else can be said,
nothing that is read names code, and whatever is wrong with a message is a `TrainingError`. So a rank that
hears from a stranger (torch's collectives prove nothing about who speaks) may be told wrong numbers, but
never runs anything. torch's own collectives of objects pickle, and are not used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from penstock.contracts.metric import Forecasting, Rows
from penstock.core.errors import TrainingError
from penstock.core.jsons import parsed
from penstock.metrics.exact import Cells

_LENGTH = 8
_NUMBERS = "biuf"
"""Kinds of arrays that are sent as they lie in memory: truth values, whole numbers and floats."""
_MOST_OUTLINE = 256 << 20
_MOST_TEXTS = 1 << 30
"""Bytes of one array of texts of equal width."""
_CHARACTER = 4
_NONSENSE = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    SyntaxError,
)
"""What reading a message may raise; NumPy has several words for a type that cannot be."""
_CLASSES: Mapping[str, type[Rows] | type[Forecasting]] = {
    "rows": Rows,
    "forecasting": Forecasting,
}
"""Dataclasses that are sent by their fields."""


def pack(value: Any) -> bytes:
    """A value as bytes.

    Raises:
        TrainingError: it, or something in it, has a type that is not sent.
    """
    arrays: list[bytes] = []
    outline = json.dumps(_outlined(value, arrays), allow_nan=False).encode()
    return b"".join([len(outline).to_bytes(_LENGTH, "little"), outline, *arrays])


def unpack(data: bytes) -> Any:
    """The value of these bytes.

    Raises:
        TrainingError: they are no value.
    """
    try:
        length = int.from_bytes(data[:_LENGTH], "little")
        if len(data) < _LENGTH or length > min(len(data) - _LENGTH, _MOST_OUTLINE):
            raise ValueError(f"its outline has {length:,} of {len(data):,} bytes")
        arrays = _Arrays(memoryview(data)[_LENGTH + length :])
        return _value(parsed(data[_LENGTH : _LENGTH + length].decode()), arrays)
    except _NONSENSE as error:
        raise TrainingError(
            f"what another process said is no message of Penstock's ({str(error)[:200]}). Is the same version"
            " of Penstock installed on every machine, and is the port of this training in no other use?"
        ) from None


# -- into an outline -----------------------------------------------------------------------------------------


def _outlined(value: Any, arrays: list[bytes]) -> Any:
    """What stands for a value in JSON: itself, or a list that begins with the word for its type."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic):
        return ["scalar", _outlined(np.asarray(value), arrays)]
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else ["float", str(value)]
    write = _WRITERS.get(type(value))
    if write is not None:
        return write(value, arrays)
    if isinstance(value, Path):
        return ["path", str(value)]
    if isinstance(value, torch.Tensor):
        return ["tensor", _outlined(value.detach().cpu().numpy(), arrays)]
    for word, kind in _CLASSES.items():
        if isinstance(value, (Rows, Forecasting)) and type(value) is kind:
            own = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
            return [word, _mapping(own, arrays)[1]]
    raise TrainingError(
        f"a value of type {type(value).__module__}.{type(value).__qualname__} cannot be sent between"
        " processes. If it is in the accumulator of a metric of your own, give that `state` and `restore`"
        " (docs/extending.md)."
    )


def _several(word: str) -> Callable[[Any, list[bytes]], list[Any]]:
    return lambda value, arrays: [word, [_outlined(each, arrays) for each in value]]


def _mapping(value: Mapping[Any, Any], arrays: list[bytes]) -> list[Any]:
    pairs = [[_outlined(k, arrays), _outlined(v, arrays)] for k, v in value.items()]
    return ["dict", pairs]


def _array(value: np.ndarray, arrays: list[bytes]) -> list[Any]:
    if value.dtype.kind in _NUMBERS:
        arrays.append(np.ascontiguousarray(value).tobytes())
        return ["array", value.dtype.str, list(value.shape)]
    if value.dtype.kind in "OU":
        texts = value.ravel().tolist()
        if all(text is None or isinstance(text, str) for text in texts):
            return ["texts", texts, list(value.shape), value.dtype.kind]
    raise TrainingError(
        f"an array of type {value.dtype} cannot be sent between processes: only numbers and texts can."
    )


def _bytes(value: bytes, arrays: list[bytes]) -> list[Any]:
    arrays.append(value)
    return ["bytes", len(value)]


_WRITERS: Mapping[type, Callable[[Any, list[bytes]], list[Any]]] = {
    list: _several("list"),
    tuple: _several("tuple"),
    set: _several("set"),
    frozenset: _several("frozenset"),
    dict: _mapping,
    bytes: _bytes,
    np.ndarray: _array,
    Fraction: lambda value, _: ["fraction", value.numerator, value.denominator],
    Cells: lambda value, arrays: ["cells", _mapping(value.state(), arrays)[1]],
}


# -- and back ------------------------------------------------------------------------------------------------


class _Arrays:
    """The bytes behind an outline, taken from the front."""

    def __init__(self, rest: memoryview) -> None:
        self._rest = rest

    def take(self, size_bytes: int) -> bytes:
        if not 0 <= size_bytes <= len(self._rest):
            raise ValueError(f"{size_bytes:,} bytes of {len(self._rest):,} that are left")
        taken, self._rest = self._rest[:size_bytes], self._rest[size_bytes:]
        return bytes(taken)


def _value(outline: Any, arrays: _Arrays) -> Any:
    if not isinstance(outline, list):
        if isinstance(outline, dict):
            raise ValueError("a mapping where a word was expected")
        return outline
    word, *rest = outline
    return _READERS[word](rest, arrays)


def _all(rest: list[Any], arrays: _Arrays) -> list[Any]:
    (several,) = rest
    if not isinstance(several, list):
        raise ValueError("no list")
    return [_value(each, arrays) for each in several]


def _read_mapping(rest: list[Any], arrays: _Arrays) -> dict[Any, Any]:
    (pairs,) = rest
    return {_value(key, arrays): _value(value, arrays) for key, value in pairs}


def _read_array(rest: list[Any], arrays: _Arrays) -> np.ndarray:
    name, shape = rest
    kind = np.dtype(str(name))
    if kind.kind not in _NUMBERS or kind.hasobject or kind.subdtype is not None:
        raise ValueError(f"an array of {kind}")
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array of shape {shape!r}")
    data = arrays.take(math.prod(shape) * kind.itemsize)
    # A copy: what is built from bytes cannot be written to.
    return np.frombuffer(data, kind).reshape(shape).copy()


def _read_texts(rest: list[Any], _: _Arrays) -> np.ndarray:
    texts, shape, kind = rest
    if not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError("an array of texts that are none")
    array = np.empty(len(texts), object)
    array[:] = texts
    # NumPy makes every place as wide as the longest text: a short message could ask for any memory.
    width = max((len(text) for text in texts if text is not None), default=0)
    if kind == "U" and _CHARACTER * width * len(texts) > _MOST_TEXTS:
        raise ValueError(f"{len(texts):,} texts of {width:,} characters each")
    return (array.astype(str) if kind == "U" else array).reshape(shape)


def _read_class(kind: type) -> Callable[[list[Any], _Arrays], Any]:
    return lambda rest, arrays: kind(**_read_mapping(rest, arrays))


def _read_cells(rest: list[Any], arrays: _Arrays) -> Cells:
    cells = Cells()
    cells.restore(_read_mapping(rest, arrays))
    return cells


def _read_tensor(rest: list[Any], arrays: _Arrays) -> torch.Tensor:
    (array,) = rest
    return torch.from_numpy(_value(array, arrays))


def _read_scalar(rest: list[Any], arrays: _Arrays) -> Any:
    (array,) = rest
    return _value(array, arrays)[()]


_READERS: Mapping[str, Callable[[list[Any], _Arrays], Any]] = {
    "list": _all,
    "tuple": lambda rest, arrays: tuple(_all(rest, arrays)),
    "set": lambda rest, arrays: set(_all(rest, arrays)),
    "frozenset": lambda rest, arrays: frozenset(_all(rest, arrays)),
    "dict": _read_mapping,
    "bytes": lambda rest, arrays: arrays.take(*rest),
    "array": _read_array,
    "texts": _read_texts,
    "scalar": _read_scalar,
    "tensor": _read_tensor,
    "float": lambda rest, _: float(*rest),
    "path": lambda rest, _: Path(*rest),
    "fraction": lambda rest, _: Fraction(*rest),
    "cells": _read_cells,
    **{word: _read_class(kind) for word, kind in _CLASSES.items()},
}
