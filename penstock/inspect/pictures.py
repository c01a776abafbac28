"""Columns of pictures: found by their first bytes, sized by their headers; nothing is decoded."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.core.errors import MissingPackage
from penstock.formats.pictures import BadPicture, looks_like_picture, size_of
from penstock.inspect.raw_column import Finding, Look

LOOKED_AT = 200
"""Pictures whose headers are read."""


def pictures(look: Look) -> Finding | None:
    """The finding of a column of pictures: bytes, or structures with a field `bytes` (as Hugging Face keeps
    them); None for others.
    """
    name, column = look.name, look.raw
    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        column = pc.struct_field(column, "bytes")
    if not (
        pa.types.is_binary(column.type)
        or pa.types.is_large_binary(column.type)
        or pa.types.is_binary_view(column.type)
    ):
        return None
    # Headers of the first rows only; a sample may hold megabytes a picture.
    values = [v for v in column.slice(0, LOOKED_AT).to_pylist() if v is not None]
    shown = [v for v in values if looks_like_picture(v)]
    # Bytes of other kinds may begin like a picture now and then.
    if not shown or len(shown) < 0.5 * len(values):
        return None
    sizes = [size for v in shown if (size := _size(v)) is not None]
    if not sizes:
        return Finding(name, "image", "pictures; Pillow would tell their size")
    side = int(np.median([min(size) for size in sizes]))
    # Small pictures of one size are taken as they are.
    if len(set(sizes)) == 1 and side <= 128:
        height, width = sizes[0]
        return Finding(
            name,
            "image",
            f"pictures of {width} × {height} pixels",
            {"size": height if height == width else [height, width]},
        )
    tall, wide = sorted(size[0] for size in sizes), sorted(size[1] for size in sizes)
    return Finding(
        name,
        "image",
        f"pictures of {wide[0]} × {tall[0]} to {wide[-1]} × {tall[-1]} pixels; larger ones learn more and"
        " slower",
        {"size": min(side, 64)},
    )


def _size(data: bytes) -> tuple[int, int] | None:
    try:
        return size_of(data)
    except (BadPicture, MissingPackage):
        return None
