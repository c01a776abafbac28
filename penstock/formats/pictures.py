"""Pictures: bytes of any common format → pixels uint8 [H, W, C] of one size, or the reason why not.

Pillow decodes; it lets go of the interpreter lock while it does, so a batch is decoded by a few threads. A
JPEG that is larger than what is wanted is decoded at the smallest of a half, a quarter and an eighth that
still covers it: the transform leaves out what would be averaged away. That is a rule of this file, so
training, packing and serving see the same pixels. The package simplejpeg, where it is installed, decodes
plain JPEGs (grey, or YCbCr, and whole) in half of the time: both are libjpeg-turbo with the same settings and
give the same bits, so what a model answers does not depend on it. What is honoured: EXIF orientation, once,
whoever turns (Pillow turns a TIFF itself when it loads it), transparency (laid over white), CMYK, palettes,
16 bits (scaled, not cut off), the first picture of several. What is refused: formats that run programs or
read other files (EPS, …), more pixels than allowed (looked up in the header, before anything is decoded),
samples without a known range, and whatever is torn or has a wrong check sum (`intact`): a half picture is not
a picture.

Pillow warns of what it then reads all the same (odd EXIF, palettes with transparency); a warning helps nobody
among a million pictures, so warnings that come from its modules are kept silent.

What this file refuses to know: columns, features, what pixels are for.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import numpy as np

from penstock.core.optional import require
from penstock.core.threads import thread_budget
from penstock.formats.intact import damage, jpeg_damage
from penstock.formats.intact import simplejpeg as _simplejpeg

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What may be decoded, the commonest first (MPO, of cameras with two lenses, is read as its first JPEG).

Not icons: their header does not tell how large the picture within is.
"""
MOST_PIXELS = 64_000_000
"""Unless told otherwise: more than any camera in a pocket gives, and less than would hurt to decode."""
PADDING = 128
"""The grey beside a picture that was fitted into another shape."""
JPEG_QUALITY = 95
_LEAST_SIDE = 32
"""Smaller, and two scales may give a picture the same sides."""
_CHUNK = 16
"""Pictures a thread takes at once: a small one takes 50 µs, and handing it over about as much."""

_WRONG = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    ZeroDivisionError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise for bytes that are no picture after all."""
# By EXIF's orientation: what makes the picture upright.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)

Resize = Literal["fit", "crop", "stretch"]
Item = TypeVar("Item")
Found = TypeVar("Found")


class BadPicture(Exception):
    """Bytes that are no picture that can be used; the text says why."""


def pillow() -> Any:
    """The module `PIL.Image`.

    Raises:
        MissingPackage: Pillow is not installed.
    """
    return require("PIL.Image", extra="images", why="reading pictures")


def from_text(text: str) -> bytes:
    """The bytes of a picture that came as text: base64 (also of the URL's alphabet), with or without a
    `data:` URI's head.

    Raises:
        BadPicture: it is neither.
    """
    if head := _DATA_URI.match(text):
        text = text[head.end() :]
    elif text[:5].lower() == "data:":
        raise BadPicture("a data URI without base64; expected data:image/…;base64,…")
    # To the standard alphabet, and with padding made anew, since many writers leave it
    # out.
    text = re.sub(r"\s+", "", text).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise BadPicture(
            f"the text {shown!r} is not a picture in base64 (paths are read by the source, never by a"
            " feature)"
        ) from None


def decode(
    data: bytes,
    height: int,
    width: int,
    channels: int,
    *,
    resize: Resize = "crop",
    most_pixels: int = MOST_PIXELS,
) -> np.ndarray:
    """One picture as pixels.

    Args:
        data: the bytes of a file.
        height: H, `width` W, `channels` C (1 is grey, 3 is red, green, blue).
        resize: `crop` fills the shape and cuts off what stands over, evenly; `fit` shows all and pads with
            grey; `stretch` distorts.
        most_pixels: the most that the picture itself may have.

    Returns:
        uint8 `[H, W, C]`, the caller's own.

    Raises:
        BadPicture: it cannot be read, or is larger than allowed.
    """
    return decode_and_judge(
        data, height, width, channels, resize=resize, most_pixels=most_pixels
    )[0]


def decode_and_judge(
    data: bytes,
    height: int,
    width: int,
    channels: int,
    *,
    resize: Resize = "crop",
    most_pixels: int = MOST_PIXELS,
) -> tuple[np.ndarray, bool]:
    """As `decode`; and whether the bytes are a JPEG of just these pixels, so that `from_jpeg` gives the same
    from them.

    Raises:
        BadPicture: as `decode`.
    """
    mode = "L" if channels == 1 else "RGB"
    image = _opened(data, most_pixels)
    format = image.format
    try:
        is_jpeg = format == "JPEG"
        # Before anything is decoded: a decoder turns damage into pixels without a word.
        if problem := damage(data, image):
            raise BadPicture(f"a {format} picture that cannot be read: it is {problem}")
        if not is_jpeg:
            # It turns a TIFF, and reads what PNG has behind its pixels: only then is its side known.
            image.load()
        turn = _orientation(image)
        # The bytes themselves may be kept only if decoding them again gives these very
        # pixels.
        as_it_is = (
            is_jpeg and turn == 1 and image.mode == mode and image.size == (width, height)
        )
        if is_jpeg:
            # Orientations from 5 on swap the sides.
            scale = _scale(
                image.size, (height, width) if turn >= 5 else (width, height), resize
            )
            if scale > 1:
                # Nothing is decoded yet: this sets the scale at which libjpeg will.
                image.draft(
                    mode, (max(image.size[0] // scale, 1), max(image.size[1] // scale, 1))
                )
            pixels = _quickly(data, image)
            if pixels is None:
                image.load()  # what Pillow refuses is told in its words
                # Pillow loads a torn JPEG without a word, so its damage is looked for
                # apart.
                if problem := jpeg_damage(data):
                    raise BadPicture(
                        f"a JPEG picture that cannot be read: it is {problem}"
                    )
            else:
                if as_it_is:
                    return pixels, True
                image = pillow().fromarray(
                    pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
                )
        image.load()
        image = _in_mode(image, mode)
        if turn > 1:
            image = image.transpose(getattr(pillow().Transpose, _TURNS[turn]))
        image = _resized(image, width, height, resize)
        return np.array(image, np.uint8).reshape(height, width, channels), as_it_is
    except (MemoryError, pillow().DecompressionBombError):
        raise BadPicture(
            f"a picture of {image.size[0]} × {image.size[1]} pixels does not fit into memory"
        ) from None
    except _WRONG as error:
        raise BadPicture(
            f"a {format} picture that cannot be read: {_brief(error)}"
        ) from None


def _scale(size: tuple[int, int], wanted: tuple[int, int], resize: Resize) -> int:
    """The largest of 8, 4, 2 and 1 that a JPEG can be divided by and still not be smaller than what is made
    of it. Sizes are (width, height).
    """
    # `fit` is bound by the tighter side; else the looser one decides, or what is cut
    # off would have to be enlarged.
    ratios = size[0] / wanted[0], size[1] / wanted[1]
    ratio = max(ratios) if resize == "fit" else min(ratios)
    return next(scale for scale in (8, 4, 2, 1) if ratio >= scale or scale == 1)


def _quickly(data: bytes, image: Any) -> np.ndarray | None:
    """Decode with simplejpeg the pixels that Pillow's `image` would load: a JPEG whose
    header is read and whose scale is set. None if simplejpeg is not installed, or
    refuses (`jpeg_damage` asks for its complaints).
    """
    decoder = _simplejpeg()
    width, height = image.size
    if (
        decoder is None
        or image.mode not in ("L", "RGB")
        or min(width, height) < _LEAST_SIDE
    ):
        return None
    try:
        # In other colour spaces (CMYK, RGB) nothing assures the same bits as Pillow's.
        if decoder.decode_jpeg_header(data)[2] not in ("Gray", "YCbCr"):
            return None
        pixels: np.ndarray = decoder.decode_jpeg(
            data,
            "GRAY" if image.mode == "L" else "RGB",
            min_height=height,
            min_width=width,
        )
    except ValueError:
        return None
    # Another scale than Pillow's would be other pixels, which no model may depend on.
    return (
        pixels if pixels.shape == (height, width, 1 if image.mode == "L" else 3) else None
    )


def _opened(data: bytes, most_pixels: int) -> Any:
    """The picture with its header read.

    Not `Image.open`, whose own limit of pixels warns where ours refuses.
    """
    Image = pillow()
    if not data:
        raise BadPicture("no bytes: an empty file")
    _hushed()
    known = _plugins(Image)
    prefix = data[:16]
    complaint = ""
    for name in FORMATS:
        if name not in known:  # a Pillow built without it
            continue
        make, accept = known[name]
        try:
            # Some plugins answer with the text of a warning where they refuse.
            if accept(prefix) is not True:
                continue
            image = make(io.BytesIO(data), "")
        except Image.DecompressionBombError as error:
            raise BadPicture(
                f"more pixels in a {name} picture than can be decoded: {_brief(error)}"
            ) from None
        except MemoryError:
            raise BadPicture(f"a {name} picture that does not fit into memory") from None
        # The first format that knows the bytes by their beginning says best what is
        # wrong with them.
        except _WRONG as error:
            complaint = (
                complaint
                or f"looks like {name}, but its header cannot be read: {_brief(error)}"
            )
            continue
        # By the header alone: a picture of too many pixels must not be decoded to find
        # out.
        width, height = image.size
        if width < 1 or height < 1:
            raise BadPicture(f"a picture of {width} × {height} pixels")
        if width * height > most_pixels:
            raise BadPicture(
                f"a picture of {width} × {height} pixels; at most {most_pixels:,} are read (max_pixels)"
            )
        return image
    if complaint:
        raise BadPicture(complaint)
    raise BadPicture(
        f"{len(data):,} bytes that are no picture of a known format; they begin with {data[:8]!r}"
    )


def _plugins(Image: Any) -> Any:
    # Pillow's quick start registers JPEG and no TIFF; only `init` gives both.
    if not all(name in Image.OPEN for name in ("JPEG", "TIFF")):
        with _lock:
            Image.init()
    return Image.OPEN


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."


def _orientation(image: Any) -> int:
    """Which side is up, 1 to 8, as EXIF says; 1 where it cannot be read."""
    try:
        turn = image.getexif().get(0x0112, 1)
    except _WRONG:
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def _in_mode(image: Any, mode: str) -> Any:
    Image = pillow()
    if image.mode == mode and "transparency" not in image.info:
        return image
    # Pillow may give PNG and PPM of 16 bits as mode I: the format tells their range.
    if image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    ):
        # 257 is 65535 / 255: the whole range of 16 bits on that of 8, rounded.
        values = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip((values + 128) // 257, 0, 255).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise BadPicture(
            "32 bits a sample, whose range nobody knows; save it with 8 or 16 bits"
        )
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        # What lies under transparency is arbitrary; on white it is defined.
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _resized(image: Any, width: int, height: int, resize: Resize) -> Any:
    Image = pillow()
    own_width, own_height = image.size
    if (own_width, own_height) == (width, height):
        return image
    bilinear = (
        Image.Resampling.BILINEAR
    )  # Pillow widens the filter when it makes smaller, so nothing aliases
    if resize == "stretch":
        return image.resize((width, height), bilinear)
    if resize == "crop":
        scale = min(own_width / width, own_height / height)
        # Width and height of the part that is kept, in pixels of the picture itself.
        across, down = width * scale, height * scale
        # rounding may go below
        left, top = max((own_width - across) / 2, 0.0), max((own_height - down) / 2, 0.0)
        return image.resize(
            (width, height),
            bilinear,
            box=(left, top, min(left + across, own_width), min(top + down, own_height)),
        )
    scale = min(width / own_width, height / own_height)
    # At least one pixel: a very thin picture would round to none.
    across, down = (
        max(1, min(width, round(own_width * scale))),
        max(1, min(height, round(own_height * scale))),
    )
    whole = Image.new(
        image.mode, (width, height), PADDING if image.mode == "L" else (PADDING,) * 3
    )
    whole.paste(
        image.resize((across, down), bilinear),
        ((width - across) // 2, (height - down) // 2),
    )
    return whole


# JPEG, PNG, GIF of both versions, TIFF of both byte orders, JPEG 2000.
_MARKS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\x00",
    b"MM\x00*",
    b"\x00\x00\x00\x0cjP  ",
)


def looks_like_picture(data: bytes) -> bool:
    """Whether the first bytes are those of a common format of pictures; nothing is decoded, and Pillow is not
    needed.
    """
    return (
        data.startswith(_MARKS)
        or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
        or data[4:12] in (b"ftypavif", b"ftypavis")
        # Two letters are too little evidence for BMP, so its four reserved bytes must
        # be zero as well.
        or (data[:2] == b"BM" and data[6:10] == b"\0\0\0\0")
    )


def size_of(data: bytes, most_pixels: int = MOST_PIXELS) -> tuple[int, int]:
    """(height, width) as the header tells.

    Raises:
        BadPicture: there is no header that can be read.
    """
    width, height = _opened(data, most_pixels).size
    return height, width


def header_of(data: bytes, most_pixels: int = MOST_PIXELS) -> tuple[int, int, str]:
    """(height, width) and Pillow's name of the mode, as the header tells.

    Raises:
        BadPicture: there is no header that can be read.
    """
    image = _opened(data, most_pixels)
    width, height = image.size
    return height, width, str(image.mode)


# -- pixels as JPEG, and back --------------------------------------------------------------------------------


def to_jpeg(pixels: np.ndarray) -> bytes:
    """uint8 `[H, W, C]` as a JPEG of quality 95 with full colour resolution: about a sixth of the bytes, a
    few levels away.
    """
    Image = pillow()
    out = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(
        out, "JPEG", quality=JPEG_QUALITY, subsampling=0
    )
    return out.getvalue()


def from_jpeg(
    data: bytes,
    out: np.ndarray,
    *,
    whole: tuple[int, int] | None = None,
    top: int = 0,
    left: int = 0,
) -> None:
    """What `to_jpeg` gave (or `decode_and_judge` found to be a JPEG of the right size), into uint8 `[H, W,
    C]`.

    Args:
        whole: (height, width) of the JPEG, if `out` is only a part of it, whose first pixel is at `top`,
            `left`.
    """
    height, width, channels = out.shape
    full = whole or (height, width)
    decoder = _simplejpeg()
    if decoder is not None and min(full) >= _LEAST_SIDE:
        # simplejpeg writes whole pictures into contiguous memory; a part goes by way of
        # scratch.
        direct = whole is None and out.flags.c_contiguous
        into = out if direct else _scratch(full[0] * full[1] * channels)
        try:
            pixels = decoder.decode_jpeg(
                data, "GRAY" if channels == 1 else "RGB", buffer=into
            )
        except ValueError:
            pass  # Pillow bears with more
        # Only where simplejpeg gave pixels: its refusal leads on to Pillow below.
        else:
            if not direct:
                out[...] = pixels[top : top + height, left : left + width]
            return
    _hushed()
    image = _plugins(pillow())["JPEG"][0](io.BytesIO(data), "")
    out[...] = np.asarray(image).reshape(*full, channels)[
        top : top + height, left : left + width
    ]


def _scratch(size: int) -> np.ndarray:
    """Room for one picture, each thread's own, used again: fresh pages would cost a tenth of the decoding."""
    room: np.ndarray | None = getattr(_own, "room", None)
    if room is None or len(room) < size:
        room = _own.room = np.empty(size, np.uint8)
    return room


# A buffer for each thread, since several decode at once.
_own = threading.local()


# -- many at once --------------------------------------------------------------------------------------------

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


def spread(work: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """Apply `work` to each item, in order, by as many threads as there are cores (eight
    at most); by the calling thread within `single_threaded`.
    """
    global _pool
    threads = min(thread_budget(), 8)
    if len(items) <= _CHUNK or threads == 1:
        return [work(item) for item in items]
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(threads, thread_name_prefix="penstock-pictures")
        pool = _pool

    def several(some: Iterable[Item]) -> list[Found]:
        return [work(item) for item in some]

    pieces = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    return [result for piece in pool.map(several, pieces) for result in piece]


def _after_fork() -> None:
    global _pool, _lock
    # At the fork another thread may have held the lock, which nobody in the child would
    # ever release.
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)  # threads do not survive a fork


def _hushed() -> None:
    """Silence Pillow's own warnings. Asked for again each time, since test runners
    reset the filters.
    """
    if not any(
        rule[0] == "ignore" and rule[3] is not None and rule[3].pattern == _PILLOW
        for rule in warnings.filters
    ):
        warnings.filterwarnings("ignore", module=_PILLOW)


_PILLOW = r"PIL\."
