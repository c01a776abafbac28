"""Simple features of pictures, as vision had them before deep networks: small thumbnails, a histogram of
colours, histograms of gradients (Dalal and Triggs 2005).

A picture is first averaged down to at most 32 × 32, so that the work does not grow with its size.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from penstock.contracts.features import collated
from penstock.encode.encoding import Encoding

SIDE = 32
"""Larger pictures are averaged down to so many pixels a side."""
_THUMBNAIL = 8
_CELLS = 4
"""Cells of gradients, down and across."""
_ANGLES = 9
_COLOURS = 4
"""Levels of each channel that the histogram of colours tells apart."""
_AT_ONCE = 64


def is_picture(encoding: Encoding, name: str) -> bool:
    """Whether an input is a picture: its canonical column holds bytes, and its array pixels."""
    feature = encoding.inputs[name]
    kind = feature.canonical
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return False
    spec = feature.spec(encoding.fitted[name]).get("pixels")
    return spec is not None and spec.role == "pixels" and len(spec.shape) == 3


def picture_features(
    encoding: Encoding, columns: Mapping[str, pa.Array]
) -> dict[str, np.ndarray]:
    """Return the simple features of each input that is a picture, float32 `[rows, D]`; NaN for a missing one.

    Args:
        encoding: whose inputs the columns are.
        columns: canonical columns by input.
    """
    by_name: dict[str, np.ndarray] = {}
    for name, column in columns.items():
        if name not in encoding.inputs or not is_picture(encoding, name):
            continue
        feature, fitted = encoding.inputs[name], encoding.fitted[name]
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        pieces = []
        for start in range(0, len(column), _AT_ONCE):
            some = column.slice(start, _AT_ONCE)
            batch = collated(feature, feature.encode(some, fitted), fitted)
            features = simple_features(np.asarray(batch["pixels"]))
            features[np.asarray(some.is_null())] = np.nan
            pieces.append(features)
        if pieces:
            by_name[name] = np.concatenate(pieces)
    return by_name


def simple_features(pixels: np.ndarray) -> np.ndarray:
    """Return thumbnails, colours and gradients of pictures, float32 `[N, D]`.

    Args:
        pixels: uint8 `[N, C, H, W]`.
    """
    small = _averaged(pixels.astype(np.float32) / 255, SIDE)
    return np.concatenate(
        [
            _averaged(small, _THUMBNAIL).reshape(len(pixels), -1),
            _colours(small),
            _gradients(small.mean(axis=1)),
        ],
        axis=1,
    ).astype(np.float32)


def _averaged(pixels: np.ndarray, side: int) -> np.ndarray:
    """Average `[N, C, H, W]` down to at most `side` pixels each way."""
    for axis in (2, 3):
        starts, counts = _edges(pixels.shape[axis], side)
        shape = [1, 1, 1, 1]
        shape[axis] = len(counts)
        pixels = np.add.reduceat(pixels, starts, axis=axis) / counts.reshape(shape)
    return pixels


def _edges(length: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a length into at most `parts` nearly equal ones: where each begins, and how long it is."""
    edges = np.linspace(0, length, min(parts, length) + 1).astype(np.int64)
    return edges[:-1], np.diff(edges).astype(np.float32)


def _colours(pixels: np.ndarray) -> np.ndarray:
    """Return the share of each colour; of several channels their levels together."""
    rows, channels = pixels.shape[:2]
    levels = _COLOURS if channels > 1 else _COLOURS**2
    used = min(channels, 3)
    level = np.minimum((pixels[:, :used] * levels).astype(np.int64), levels - 1)
    code = sum(level[:, i] * levels**i for i in range(used))
    colours = levels**used
    flat = np.asarray(code).reshape(rows, -1) + np.arange(rows)[:, None] * colours
    counts = np.bincount(flat.ravel(), minlength=rows * colours)
    return np.asarray(np.sqrt(counts.reshape(rows, colours) / flat.shape[1]))


def _gradients(grey: np.ndarray) -> np.ndarray:
    """Return histograms of gradients by cell, of which four neighbours are scaled together."""
    down, across = np.zeros_like(grey), np.zeros_like(grey)
    down[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    across[:, :, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2]
    size = np.hypot(down, across)
    # A line has no direction: opposite angles are the same.
    angle = np.mod(np.arctan2(down, across), np.pi) / np.pi * _ANGLES
    lower = np.floor(angle).astype(np.int64)
    share = angle - lower
    cells = np.stack(
        [
            _cells(
                size
                * (
                    (lower % _ANGLES == i) * (1 - share)
                    + ((lower + 1) % _ANGLES == i) * share
                )
            )
            for i in range(_ANGLES)
        ],
        axis=-1,
    )
    if min(cells.shape[1:3]) < 2:
        return cells.reshape(len(grey), -1)
    blocks = np.concatenate(
        [cells[:, :-1, :-1], cells[:, :-1, 1:], cells[:, 1:, :-1], cells[:, 1:, 1:]],
        axis=-1,
    )
    blocks /= np.linalg.norm(blocks, axis=-1, keepdims=True) + 0.1
    return np.asarray(blocks.reshape(len(grey), -1))


def _cells(values: np.ndarray) -> np.ndarray:
    """Sum `[N, H, W]` by cell, at most `[N, 4, 4]`."""
    for axis in (1, 2):
        starts, _ = _edges(values.shape[axis], _CELLS)
        values = np.add.reduceat(values, starts, axis=axis)
    return values
