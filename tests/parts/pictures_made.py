"""Made-up pictures for tests: coloured shapes whose class a small network learns in seconds."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "cross", "square")


def picture(
    label: str, rng: np.random.Generator, size: tuple[int, int] = (24, 20)
) -> Image.Image:
    """A bright shape somewhere on a dark, noisy ground (width, height)."""
    width, height = size
    image = Image.fromarray(rng.integers(0, 60, (height, width, 3), np.uint8))
    draw = ImageDraw.Draw(image)
    x, y, r = (
        int(rng.integers(6, width - 6)),
        int(rng.integers(6, height - 6)),
        int(rng.integers(4, 6)),
    )
    ink = tuple(int(c) for c in rng.integers(150, 256, 3))
    if label == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), outline=ink, width=2)
    elif label == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), fill=ink)
    else:
        draw.line((x - r, y - r, x + r, y + r), fill=ink, width=2)
        draw.line((x - r, y + r, x + r, y - r), fill=ink, width=2)
    return image


def coded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def album(rows: int, seed: int = 0, format: str = "PNG") -> tuple[list[bytes], list[str]]:
    """Pictures and their labels."""
    rng = np.random.default_rng(seed)
    labels = [SHAPES[i % len(SHAPES)] for i in range(rows)]
    return [coded(picture(label, rng), format) for label in labels], labels
