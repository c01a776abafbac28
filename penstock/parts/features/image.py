"""A picture: the bytes of a file (JPEG, PNG, …), or the same as base64 text, ↔ pixels of one size.

`accept` decodes: only a picture that was decoded whole is known to be one, and what is refused must be
refused before anything is stored. Its canonical form is the pixels at the declared size, so nothing is
decoded a second time: the summary counts them, `encode` stores them. Small pictures wait in the shards as
pixels; large ones as JPEG made anew at the declared size (a 12-megapixel original is 3 MB, its 224 × 224
picture 30 kB), decoded for each batch by threads. A request goes the same way, through the same JPEG, so what
is served is what was learnt.

A picture that comes as a JPEG of just the size it is stored in keeps its bytes: nothing is lost by coding it
again. That is how `cut_from` likes it: pictures wait a little larger than the model sees them, training cuts
the model's size out anywhere, and everything else cuts out the middle (Krizhevsky, Sutskever and Hinton
2012). Only the part is kept when a batch is decoded.

Augmentations change pixels in `collate`, in training alone; the i-th of the list has a chance of its own.

Mean and deviation come from an exact histogram of each channel. The model, not this file, scales by them: a
program takes uint8, which is a quarter of the bytes to move.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, model_validator

from penstock.contracts.chance import salted, uniform
from penstock.contracts.features import (
    NOBODY,
    Augmentation,
    CollatedFeature,
    Fitted,
    Refused,
    Stored,
)
from penstock.contracts.summary import Summary
from penstock.contracts.tensors import TensorSpec
from penstock.core.errors import ContractError
from penstock.formats.pictures import (
    MOST_PIXELS,
    BadPicture,
    Resize,
    decode_and_judge,
    from_jpeg,
    from_text,
    pillow,
    spread,
    to_jpeg,
)
from penstock.parts.features import _raw

AS_PIXELS = 128 * 128
"""Pictures of at most so many pixels are stored as they are, unless told otherwise: reading them is quicker
than decoding.
"""
_MOST_SIDE = 2048
_CUT = 1 << 20
"""The salt of where a picture is cut out, apart from those of augmentations."""
_RAW_BYTES = 32_768
"""What an encoded picture is taken to have, where only its bound on memory is wanted."""


def _shape(value: Any) -> Any:
    # One number is the side of a square.
    sides = (value, value) if isinstance(value, int) else value
    good = (
        isinstance(sides, (tuple, list))
        and len(sides) == 2
        and all(
            # To Python, `true` is a whole number.
            isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= _MOST_SIDE
            for n in sides
        )
    )
    if isinstance(value, bool) or not good:
        raise ValueError(
            f"expected a side in pixels, or [height, width], each from 1 to {_MOST_SIDE}; found {value!r}"
        )
    return value if isinstance(value, int) else tuple(value)


class ImageFeature(CollatedFeature):
    """A picture as bytes (or base64 text, or a structure with a field `bytes`): pixels of one size."""

    encoder: ClassVar[str] = "resnet"
    canonical: ClassVar[pa.DataType] = pa.large_binary()

    size: Annotated[int | tuple[int, int], BeforeValidator(_shape)] = 64
    """A side in pixels, or [height, width]: what every picture is brought to."""
    cut_from: Annotated[int | tuple[int, int], BeforeValidator(_shape)] | None = None
    """A side in pixels, or [height, width], at least `size`: what pictures are brought to and stored in.

    In training `size` is cut out of it anywhere, otherwise out of the middle: `{type: image, size: 224,
    cut_from: 256}`. Not given: pictures are brought to `size` itself.
    """
    channels: Literal[1, 3] = 3
    """3: red, green, blue; 1: grey."""
    resize: Resize = "crop"
    """`crop` fills the shape and cuts off evenly what stands over; `fit` shows all of it and pads with grey;
    `stretch` distorts.
    """
    augment: tuple[Augmentation, ...] = ()
    """What is done to pictures in training, one after another: `[flip, {type: rotate, degrees: 15}]`."""
    stored: Literal["auto", "pixels", "jpeg"] = "auto"
    """How rows wait between epochs: `pixels` as they are; `jpeg` in a sixth of the room, a few levels of 255
    away, in training and serving alike; `auto` is pixels up to 128 × 128.
    """
    missing: Literal["flag", "error"] = "flag"
    """A missing picture: `flag` lets the model know (it is shown a learnt vector); `error` refuses the
    row.
    """
    max_pixels: int = Field(MOST_PIXELS, ge=1, le=500_000_000)
    """A picture with more pixels is refused before it is decoded: a small file may unpack to gigabytes."""

    @property
    def height(self) -> int:
        """Pixels from top to bottom, after resizing."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        """Pixels from left to right, after resizing."""
        return self.size if isinstance(self.size, int) else self.size[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`, as the model sees it."""
        return (self.height, self.width, self.channels)

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """`(H, W, C)`, as it is stored."""
        sides = self.size if self.cut_from is None else self.cut_from
        return (
            (sides, sides, self.channels)
            if isinstance(sides, int)
            else (*sides, self.channels)
        )

    @model_validator(mode="after")
    def _covers(self) -> Self:
        # Compared side by side: a cut has to lie inside on both axes.
        tall, wide, _ = self.stored_shape
        if tall < self.height or wide < self.width:
            raise ValueError(
                f"cut_from ({tall} × {wide}) is smaller than size ({self.height} ×"
                f" {self.width}): there would be nothing to cut out"
            )
        return self

    @property
    def as_jpeg(self) -> bool:
        """Whether rows are stored as JPEG."""
        return self.stored == "jpeg" or (
            self.stored == "auto"
            and self.stored_shape[0] * self.stored_shape[1] > AS_PIXELS
        )

    def row_bytes(self) -> int:
        # The encoded file, and its pixels twice: accepted and stored.
        return _RAW_BYTES + 2 * math.prod(self.stored_shape)

    def decodes(self) -> bool:
        return self.as_jpeg or bool(self.augment)

    # -- in --------------------------------------------------------------------------------------------------

    def accept(self, columns: Sequence[pa.Array]) -> tuple[pa.Array, Refused]:
        column, refused = self._bytes(_raw.one(columns))
        pillow()  # absent, it is told once and not for each row
        values = column.to_pylist()
        # One of pixels (bytes), a reason (str) or None for each row.
        read = spread(self._read, values)
        wrong = [row for row, picture in enumerate(read) if isinstance(picture, str)]
        spoilt = Refused(np.array(wrong, np.int64), [str(read[row]) for row in wrong])
        pictures = pa.array(
            [pixels if isinstance(pixels, bytes) else None for pixels in read],
            pa.large_binary(),
        )
        refused = _raw.together(refused, spoilt)
        return pictures, _raw.missing_refused(
            pictures, refused
        ) if self.missing == "error" else refused

    def _read(self, data: bytes | None) -> bytes | str | None:
        """Pixels, and behind them the JPEG that may be stored for them as it came; or the reason why there
        are none; None if missing.
        """
        if data is None:
            return None
        try:
            pixels, as_it_is = decode_and_judge(
                data, *self.stored_shape, resize=self.resize, most_pixels=self.max_pixels
            )
        except BadPicture as problem:
            return str(problem)
        # Pixels come first, so that whoever wants them reads so many bytes; the JPEG
        # follows only where it is the smaller of the two.
        return (
            b"".join((pixels.data, data))
            if self.as_jpeg and as_it_is and len(data) < pixels.nbytes
            else pixels.tobytes()
        )

    def _bytes(self, column: pa.Array) -> tuple[pa.Array, Refused]:
        """The raw column as bytes, null where missing or refused."""
        kind = column.type
        # the layout of Hugging Face's data sets
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            return self._bytes(_raw.plain(pc.struct_field(column, "bytes")))
        if (
            pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
            or pa.types.is_fixed_size_binary(kind)
            or pa.types.is_binary_view(kind)
        ):
            return column, NOBODY
        if not pa.types.is_string(kind):
            name = str(kind).partition("[")[0].partition("<")[0]
            return pa.nulls(len(column), pa.binary()), _raw.refusing(
                column,
                _raw.present(column),
                lambda value: (
                    f"a {name} is not a picture; expected the bytes of a file, or base64 text"
                ),
            )
        contents: list[bytes | None] = []
        wrong: dict[int, str] = {}
        for row, text in enumerate(_raw.stripped(column, self.na).to_pylist()):
            data = None
            if text is not None:
                try:
                    data = from_text(text)
                except BadPicture as problem:
                    wrong[row] = str(problem)
            contents.append(data)
        return pa.array(contents, pa.large_binary()), Refused(
            np.array(list(wrong), np.int64), list(wrong.values())
        )

    # -- what is learnt --------------------------------------------------------------------------------------

    def summary(self) -> Summary:
        # Counts the pixels that are stored, margins for `cut_from` included.
        return _Levels(self.channels, math.prod(self.stored_shape))

    def fit(self, result: dict[str, Any], *, target: bool) -> Fitted:
        if not result["count"]:
            raise ContractError(
                "is missing in every row of the training split: nothing can be learnt from it"
            )
        notes = []
        if not any(result["std"]):
            notes.append(
                "is the same plain picture in every row of the training split, so the model cannot learn"
                " from it"
            )
        return {**result, "said": notes}

    def spec(self, fitted: Fitted) -> dict[str, TensorSpec]:
        facts = {"mean": fitted["mean"], "std": fitted["std"]}
        # Channels first in a batch; stored, cut and augmented with channels last.
        shape = (self.channels, self.height, self.width)
        return {
            "pixels": TensorSpec(
                "uint8", shape, "pixels", ("channel", "height", "width"), facts=facts
            ),
            "missing": TensorSpec("float32", role="mask"),
        }

    # -- stored, and back ------------------------------------------------------------------------------------

    def encode(self, column: pa.Array, fitted: Fitted) -> Stored:
        there = _raw.present(column)
        missing = (~there).astype(np.float32)
        rows = column.to_pylist()
        if self.as_jpeg:
            # `np.array` would pad the bytes of all rows to one width.
            coded = np.empty(len(column), object)
            coded[:] = spread(self._coded, rows)
            return {"jpeg": coded, "missing": missing}
        # A missing picture is black.
        pixels = np.zeros((len(column), *self.stored_shape), np.uint8)
        if there.any():
            # Without JPEG, a row is its pixels and nothing more.
            pixels[there] = np.frombuffer(
                b"".join(row for row in rows if row is not None), np.uint8
            ).reshape(-1, *self.stored_shape)
        return {"pixels": pixels, "missing": missing}

    def _coded(self, row: bytes | None) -> bytes:
        """The JPEG that is stored: as it came, or made anew; none for a missing picture."""
        # Empty bytes stand for a missing picture, which `_decoded` shows black.
        if row is None:
            return b""
        size = math.prod(self.stored_shape)
        return (
            row[size:]
            if len(row) > size
            else to_jpeg(np.frombuffer(row, np.uint8).reshape(self.stored_shape))
        )

    def collate(
        self, stored: Stored, fitted: Fitted, keys: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        missing = stored["missing"]
        tops, lefts = self._corners(len(missing), keys)
        if "jpeg" in stored:
            pixels = self._decoded(stored["jpeg"], tops, lefts)
        else:
            pixels = stored["pixels"]
            # Of pictures that wait larger than the model sees them, one part is kept.
            if self.stored_shape != self.shape:
                rows, block = range(len(missing)), pixels
                pixels = np.empty((len(missing), *self.shape), np.uint8)
                for row, top, left in zip(rows, tops, lefts, strict=True):
                    pixels[row] = block[
                        row, top : top + self.height, left : left + self.width
                    ]
        # No keys, no chance: validation and serving see the plain picture.
        if keys is not None:
            for place, augmentation in enumerate(self.augment):
                # Salted by place, so that an augmentation added at the end leaves the
                # others' chances alone.
                pixels = augmentation.apply_all(pixels, salted(keys, place))
            # Augmentations may have brightened a missing picture; it stays black.
            if self.augment and missing.any():
                pixels[missing > 0.5] = 0
        # `[B, H, W, C]` → `[B, C, H, W]`, as a view.
        return {"pixels": pixels.transpose(0, 3, 1, 2), "missing": missing}

    def _corners(self, rows: int, keys: np.ndarray | None) -> tuple[list[int], list[int]]:
        """Where each picture's part begins: anywhere by its key, or so that it is the middle."""
        down, across = (
            self.stored_shape[0] - self.height,
            self.stored_shape[1] - self.width,
        )
        # A middle that is off by half a pixel lies towards the top and the left.
        if keys is None or not (down or across):
            return [down // 2] * rows, [across // 2] * rows
        drawn = uniform(salted(keys, _CUT), 2)
        # Every offset from 0 to `down` (and `across`) is equally likely, both ends
        # included.
        return (drawn[:, 0] * (down + 1)).astype(np.int64).tolist(), (
            drawn[:, 1] * (across + 1)
        ).astype(np.int64).tolist()

    def _decoded(
        self, coded: np.ndarray, tops: list[int], lefts: list[int]
    ) -> np.ndarray:
        pixels = np.empty((len(coded), *self.shape), np.uint8)
        # None where nothing is cut out.
        whole = self.stored_shape[:2] if self.stored_shape != self.shape else None

        # Threads write rows of their own, so nothing is locked.
        def read(row: int) -> None:
            if coded[row]:
                from_jpeg(
                    coded[row], pixels[row], whole=whole, top=tops[row], left=lefts[row]
                )
            else:
                pixels[row] = 0

        spread(read, range(len(coded)))
        return pixels


class _Levels(Summary):
    """How often each of the 256 levels occurs in each channel: exact, so mean and deviation are the same in
    whatever order.
    """

    def __init__(self, channels: int, size: int) -> None:
        self.count = self.missing = 0
        self._size = size
        self._levels = np.zeros((channels, 256), np.int64)

    def update(self, column: pa.Array, row_ids: pa.Array) -> None:
        there = column.drop_null()
        self.count += len(there)
        self.missing += len(column) - len(there)
        channels = len(self._levels)
        # 256 pictures at a time bound the bytes that are joined.
        for start in range(0, len(there), 256):
            # A row may have its JPEG behind the pixels.
            values = np.frombuffer(
                b"".join(
                    row[: self._size] for row in there.slice(start, 256).to_pylist()
                ),
                np.uint8,
            ).reshape(-1, channels)
            for channel in range(channels):
                self._levels[channel] += np.bincount(values[:, channel], minlength=256)

    def merge(self, other: Self) -> None:
        self.count += other.count
        self.missing += other.missing
        self._levels += other._levels

    def result(self) -> dict[str, Any]:
        """`mean` and `std` of each channel, in levels from 0 to 255."""
        mean, std = [], []
        # Python's whole numbers, since squares of such totals overflow 64 bits.
        for levels in self._levels.tolist():
            total = sum(levels)
            first = sum(level * often for level, often in enumerate(levels))
            second = sum(level * level * often for level, often in enumerate(levels))
            mean.append(first / total if total else 0.0)
            # whole numbers up to the division
            std.append(
                ((second * total - first * first) / (total * total)) ** 0.5
                if total
                else 0.0
            )
        return {"count": self.count, "missing": self.missing, "mean": mean, "std": std}
