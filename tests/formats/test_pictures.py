"""Pictures of every kind become pixels, and what is no picture is refused with a reason."""

from __future__ import annotations

import base64
import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from penstock.formats import pictures
from penstock.formats.pictures import (
    PADDING,
    BadPicture,
    decode,
    from_jpeg,
    from_text,
    spread,
    to_jpeg,
)


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def gradient(height: int = 40, width: int = 60) -> Image.Image:
    """Red grows to the right, green downwards; blue stays."""
    down, across = np.mgrid[0:height, 0:width]
    return Image.fromarray(
        np.stack(
            [
                across * 255 // (width - 1),
                down * 255 // (height - 1),
                np.full((height, width), 90),
            ],
            axis=2,
        ).astype(np.uint8)
    )


def plain(colour: Any, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new(mode, size, colour)


def colour(data: bytes, channels: int = 3) -> list[int]:
    pixels = decode(data, 4, 4, channels)
    assert pixels.shape == (4, 4, channels) and pixels.dtype == np.uint8
    return pixels[2, 2].tolist()


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("PPM", {}),
        ("JPEG", {"quality": 95}),
        ("WEBP", {"lossless": True}),
        ("JPEG2000", {}),
    ],
)
def test_every_common_format_is_read(format: str, options: dict[str, Any]) -> None:
    found = colour(saved(plain((200, 40, 90)), format, **options))
    assert np.abs(np.array(found) - (200, 40, 90)).max() <= 3


def test_modes_become_colours() -> None:
    assert colour(saved(plain(77, "L"))) == [77, 77, 77]
    assert colour(saved(plain(1, "1"))) == [255, 255, 255]
    assert colour(
        saved(plain((200, 40, 90)).convert("P", palette=Image.Palette.ADAPTIVE))
    ) == [200, 40, 90]
    cmyk = colour(saved(plain((0, 255, 255, 0), "CMYK"), "JPEG", quality=95))
    assert cmyk[0] > 230 and max(cmyk[1:]) < 30
    assert colour(saved(plain((200, 40, 90))), channels=1) == [
        round(200 * 0.299 + 40 * 0.587 + 90 * 0.114)
    ]


def test_what_is_transparent_lies_over_white() -> None:
    assert colour(saved(plain((0, 0, 0, 0), "RGBA"))) == [255, 255, 255]
    assert colour(saved(plain((100, 0, 200, 128), "RGBA"))) == pytest.approx(
        [177, 127, 227], abs=2
    )
    assert colour(saved(plain((10, 0), "LA"))) == [255, 255, 255]
    palette = plain((1, 2, 3)).convert("P")
    assert colour(saved(palette, "GIF", transparency=palette.getpixel((0, 0)))) == [
        255,
        255,
        255,
    ]
    assert colour(saved(plain((9, 8, 7)), transparency=(9, 8, 7))) == [255, 255, 255]


def test_sixteen_bits_are_scaled_not_cut() -> None:
    wide = Image.fromarray(np.full((8, 8), 32_768, np.uint16))
    assert colour(saved(wide)) == [128, 128, 128] and colour(
        saved(wide, "TIFF"), channels=1
    ) == [128]
    assert colour(saved(Image.fromarray(np.full((8, 8), 65_535, np.uint16)))) == [
        255,
        255,
        255,
    ]
    assert colour(b"P5 2 2 65535\n" + b"\x80\x00" * 4) == [128, 128, 128]
    with pytest.raises(BadPicture, match="32 bits a sample"):
        decode(saved(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF"), 4, 4, 3)


def test_the_first_of_an_animation() -> None:
    frames = [plain((255, 0, 0)), plain((0, 255, 0)), plain((0, 0, 255))]
    for format in ("GIF", "WEBP"):
        found = colour(
            saved(frames[0], format, save_all=True, append_images=frames[1:], duration=40)
        )
        assert found[0] > 240 and max(found[1:]) < 15


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_says_which_side_is_up(turn: int) -> None:
    """Whatever way a camera was held, its picture decodes as the upright one."""
    upright = gradient(40, 40)
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    held = upright if undo is None else upright.transpose(undo)
    assert (
        np.abs(
            decode(saved(held, exif=exif), 20, 20, 3).astype(int)
            - decode(saved(upright), 20, 20, 3)
        ).max()
        <= 1
    )


def test_a_turned_picture_that_is_much_larger_is_decoded_smaller_and_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = gradient(300, 900).transpose(Image.Transpose.ROTATE_90)
    found = decode(saved(lying, "JPEG", exif=exif, quality=95), 10, 30, 3)
    assert (
        np.abs(found.astype(int) - decode(saved(gradient(300, 900)), 10, 30, 3)).max()
        <= 12
    )


def test_shapes() -> None:
    data = saved(gradient(40, 80))
    cropped = decode(data, 20, 20, 3, resize="crop")
    assert 60 < cropped[10, 0, 0] < 75 and 180 < cropped[10, -1, 0] < 196, (
        "the middle half of a wide picture"
    )
    stretched = decode(data, 20, 20, 3, resize="stretch")
    assert stretched[10, 0, 0] < 10 and stretched[10, -1, 0] > 245
    fitted = decode(data, 20, 20, 3, resize="fit")
    assert (fitted[[0, 4, 15, 19]] == PADDING).all() and (fitted[5:15, :, 2] == 90).all()
    assert (
        decode(data, 1, 1, 1, resize="fit").shape,
        decode(saved(plain(3, "L", (1, 1))), 50, 3, 1, resize="crop").shape,
    ) == ((1, 1, 1), (50, 3, 1))
    assert decode(saved(plain(3, "L", (1, 900))), 4, 4, 1, resize="fit").shape == (
        4,
        4,
        1,
    )


def test_a_picture_of_the_right_size_is_left_as_it_is() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    for resize in ("crop", "fit", "stretch"):
        assert np.array_equal(
            decode(saved(Image.fromarray(noise)), 13, 17, 3, resize=resize), noise
        )  # type: ignore[arg-type]


def test_what_is_no_picture_is_refused_with_a_reason() -> None:
    good = saved(gradient(200, 300), "JPEG", quality=95)
    for data, why in (
        (b"", "no bytes"),
        (b"hello, world", "no picture of a known format; they begin with b'hello, w'"),
        (good[: len(good) // 2], "cannot be read: image file is truncated"),
        (saved(gradient())[:60], "cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no picture of a known format"),
        (b"\xff\xd8\xff\xe0", "looks like JPEG"),
    ):
        with pytest.raises(BadPicture, match=why):
            decode(data, 4, 4, 3)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = saved(plain(0, "1", (30_000, 30_000)))
    assert len(bomb) < 200_000
    with pytest.raises(BadPicture, match="30000 × 30000 pixels; at most 64,000,000"):
        decode(bomb, 4, 4, 3)
    with pytest.raises(BadPicture, match="at most 63"):
        decode(saved(plain(3, "L")), 4, 4, 3, most_pixels=63)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"]),
    st.data(),
)
def test_spoilt_bytes_are_pixels_or_a_reason(format: str, data: st.DataObject) -> None:
    """Whatever happens to the bytes, nothing but `BadPicture` comes out, and no warning."""
    whole = bytearray(saved(gradient(20, 20), format))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for spoilt in (bytes(whole), bytes(whole[:cut])):
        with contextlib.suppress(BadPicture):
            assert decode(spoilt, 4, 4, 3, most_pixels=1_000_000).shape == (4, 4, 3)


def test_base64_with_and_without_a_head() -> None:
    data = saved(gradient())
    text = base64.b64encode(data).decode()
    lines = "\n".join(text[i : i + 76] for i in range(0, len(text), 76))
    for written in (
        text,
        text.rstrip("="),
        lines,
        base64.urlsafe_b64encode(data).decode(),
        f"data:image/png;base64,{text}",
        f"data:image/png;name=a.png;base64,{text}",
    ):
        assert from_text(written) == data
    for written, why in (
        ("/etc/passwd.png", "is not a picture in base64"),
        ("data:image/png,abc", "a data URI without base64"),
        ("a", "is not a picture"),
    ):
        with pytest.raises(BadPicture, match=why):
            from_text(written)


@pytest.mark.parametrize("channels", [1, 3])
def test_there_and_back_by_jpeg(channels: int) -> None:
    pixels = decode(saved(gradient()), 24, 32, channels)
    coded = to_jpeg(pixels)
    again = np.empty_like(pixels)
    from_jpeg(coded, again)
    assert to_jpeg(pixels) == coded and np.abs(again.astype(int) - pixels).max() <= 8


def test_spread_keeps_the_order() -> None:
    assert spread(lambda n: n * n, range(1_000)) == [n * n for n in range(1_000)]
    assert spread(str, []) == []


def noisy(seed: int, height: int, width: int, mode: str) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(
        rng.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), np.uint8)
    ).resize((width, height))
    return Image.fromarray(
        np.clip(
            np.asarray(coarse).astype(int) + rng.integers(-9, 10, (height, width, 3)),
            0,
            255,
        ).astype(np.uint8)
    ).convert(mode)


MODES = [("RGB", 3), ("L", 3), ("CMYK", 3), ("RGB", 1), ("L", 1)]


@pytest.mark.parametrize(("mode", "channels"), MODES)
def test_the_quick_decoder_gives_the_same_bits(
    mode: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With simplejpeg or without: odd sides, all scales, progressive, every subsampling, turned, torn."""
    pytest.importorskip("simplejpeg")
    rng = np.random.default_rng(len(mode) + channels)
    exif = Image.Exif()
    exif[0x0112] = 6
    cases = []
    for i in range(16):
        height, width = (int(n) for n in rng.integers(1, 500, 2))
        more = {"exif": exif} if i % 5 == 4 else {}
        data = saved(
            noisy(i, height, width, mode),
            "JPEG",
            quality=int(rng.integers(30, 99)),
            subsampling=i % 3,
            progressive=bool(i % 2),
            **more,
        )
        for shape in (
            (height, width),
            (max(height // 3, 1), max(width // 3, 1)),
            (20, 33),
        ):
            for resize in ("crop", "fit", "stretch"):
                cases.append((data, shape, resize))
        cases.append((data[: len(data) * 2 // 3], (20, 33), "crop"))

    def told(case: Any) -> Any:
        data, shape, resize = case
        try:
            pixels, as_it_is = pictures.decode_and_judge(
                data, *shape, channels, resize=resize
            )
        except BadPicture as problem:
            return str(problem)
        again = np.empty_like(pixels)
        if as_it_is:
            from_jpeg(data, again)
            assert np.array_equal(again, pixels)
        return pixels.tobytes(), as_it_is

    quick = [told(case) for case in cases]
    monkeypatch.setattr(pictures, "_simplejpeg", lambda: None)
    assert quick == [told(case) for case in cases]
    assert any(isinstance(one, str) for one in quick)
    assert (mode in ("RGB", "L") and channels == len(mode)) == any(
        one[1] is True for one in quick
    )


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_part_of_a_jpeg_is_that_part(
    channels: int, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not quick:
        monkeypatch.setattr(pictures, "_simplejpeg", lambda: None)
    data = to_jpeg(np.asarray(noisy(1, 60, 70, "RGB"))[:, :, :channels])
    whole, part = (
        np.empty((60, 70, channels), np.uint8),
        np.empty((41, 33, channels), np.uint8),
    )
    from_jpeg(data, whole)
    from_jpeg(data, part, whole=(60, 70), top=5, left=37)
    assert np.array_equal(part, whole[5:46, 37:])


def test_a_jpeg_is_decoded_at_the_smallest_scale_that_covers() -> None:
    for size, wanted, resize, scale in [
        ((800, 800), (100, 100), "crop", 8),
        ((800, 799), (100, 100), "crop", 4),
        ((800, 799), (100, 100), "fit", 8),
        ((199, 400), (100, 100), "stretch", 1),
        ((20, 20), (100, 100), "crop", 1),
        ((9000, 9000), (10, 10), "crop", 8),
        ((200, 900), (100, 100), "crop", 2),
    ]:
        assert pictures._scale(size, wanted, resize) == scale
