"""The image feature by the laws of features, stored either way; and what laws cannot say."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from penstock.contracts.data import Feature
from penstock.core.errors import ContractError, RecipeError
from penstock.recipe.schema import load_recipe
from penstock.testing.laws import features as laws
from penstock.testing.laws.augmentations import keys
from penstock.testing.laws.features import Specimen, fit
from tests.parts.pictures_made import album, coded, picture

RNG = np.random.default_rng(1)
GOOD, LABELS = album(20)
ODD = [
    None,
    b"not a picture",
    b"",
    GOOD[0][:80],
    coded(Image.new("L", (3, 90), 200)),
    coded(picture("cross", RNG), "JPEG"),
    coded(Image.new("RGBA", (20, 20), (9, 9, 9, 0))),
]
RAW = pa.array([*GOOD, *ODD], pa.binary())
AS_TEXT = pa.array(
    [None if b is None else base64.b64encode(b).decode() for b in (*GOOD[:3], *ODD)]
    + ["  ", "NONE", "/etc/hosts.png"],
    pa.string(),
)
AS_STRUCT = pa.array(
    [None if b is None else {"bytes": b, "path": "x.png"} for b in (*GOOD[:3], *ODD)],
    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
)


def image(**options: Any) -> Any:
    return Feature.load({"type": "image", **options})


SPECIMENS = [
    Specimen(image(size=12), (RAW,), served=(AS_TEXT,)),
    Specimen(
        image(size=[9, 14], channels=1, resize="fit", na=["NONE"]),
        (RAW.cast(pa.large_binary()),),
        served=(AS_STRUCT,),
    ),
    Specimen(
        image(
            size=12,
            stored="jpeg",
            resize="stretch",
            augment=["flip", {"type": "choice", "of": ["rotate", "colour"]}],
        ),
        (RAW,),
        served=(AS_TEXT,),
    ),
    Specimen(image(size=[200, 90]), (RAW,)),
    Specimen(
        image(size=12, cut_from=[16, 12], augment=["flip"]), (RAW,), served=(AS_TEXT,)
    ),
    Specimen(
        image(size=12, cut_from=18, stored="jpeg", channels=1), (RAW,), served=(AS_TEXT,)
    ),
]


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("specimen", SPECIMENS, ids=str)
def test_laws(specimen: Specimen, law: laws.Law) -> None:
    law(specimen)


def test_refused_rows_are_told_why() -> None:
    _, refused = image(size=8).accept([RAW])
    reasons = dict(zip(refused.rows.tolist(), refused.reasons, strict=True))
    assert list(reasons) == [21, 22, 23]
    assert (
        "13 bytes that are no picture" in reasons[21]
        and "empty" in reasons[22]
        and "cannot be read" in reasons[23]
    )
    _, refused = image(size=8).accept([AS_TEXT])
    assert "not a picture in base64 (paths are read by the source" in refused.reasons[-1]
    for column in (pa.array([3]), pa.array([[1, 2]]), pa.array([True])):
        _, refused = image(size=8).accept([column])
        assert (
            "is not a picture; expected the bytes of a file, or base64 text"
            in refused.reasons[0]
        )
    _, refused = image(size=8, max_pixels=100).accept([RAW.slice(0, 1)])
    assert refused.reasons == [
        "a picture of 24 × 20 pixels; at most 100 are read (max_pixels)"
    ]


def test_bytes_text_and_structures_are_the_same_picture() -> None:
    feature = image(size=10)
    wanted = feature.accept([RAW.slice(0, 3)])[0]
    assert feature.accept([AS_TEXT.slice(0, 3)])[0].equals(wanted) and feature.accept(
        [AS_STRUCT.slice(0, 3)]
    )[0].equals(wanted)
    assert feature.accept(
        [pa.array(["data:image/png;base64," + base64.b64encode(GOOD[0]).decode()])]
    )[0].equals(wanted.slice(0, 1))
    assert feature.accept([pa.nulls(2)])[0].null_count == 2


def test_mean_and_deviation_are_those_of_the_pixels() -> None:
    feature = image(size=[20, 24])
    column, fitted = fit(Specimen(feature, (RAW.slice(0, 20),)))
    pixels = feature.collate(feature.encode(column, fitted), fitted)["pixels"].astype(
        np.float64
    )
    assert fitted["mean"] == pytest.approx(
        pixels.mean(axis=(0, 2, 3)).tolist(), rel=1e-12
    )
    assert fitted["std"] == pytest.approx(pixels.std(axis=(0, 2, 3)).tolist(), rel=1e-12)
    spec = feature.spec(fitted)["pixels"]
    assert (spec.shape, spec.role, spec.dtype, spec.facts["mean"]) == (
        (3, 20, 24),
        "pixels",
        "uint8",
        fitted["mean"],
    )


def test_nothing_to_learn_is_told() -> None:
    with pytest.raises(ContractError, match="missing in every row"):
        fit(Specimen(image(size=4), (pa.nulls(3, pa.binary()),)))
    _, fitted = fit(
        Specimen(image(size=4), (pa.array([coded(Image.new("RGB", (9, 9), "red"))] * 2),))
    )
    assert "same plain picture" not in str(fitted["said"]) or fitted["std"] == [0, 0, 0]


def test_a_missing_picture_is_zeros_and_told_whatever_is_done_to_the_others() -> None:
    for stored in ("pixels", "jpeg"):
        feature = image(
            size=12,
            stored=stored,
            augment=[
                {"type": "erase", "chance": 1, "most": 1},
                {"type": "colour", "brightness": 1},
            ],
        )
        column, fitted = fit(
            Specimen(feature, (pa.array([GOOD[0], None, GOOD[1]], pa.binary()),))
        )
        for own in (None, keys(3)):
            arrays = feature.collate(feature.encode(column, fitted), fitted, own)
            assert (
                arrays["missing"].tolist() == [0, 1, 0]
                and not arrays["pixels"][1].any()
                and arrays["pixels"][0].any()
            )


def test_large_pictures_wait_as_jpeg_and_look_the_same() -> None:
    assert (
        not image(size=128).as_jpeg
        and image(size=129).as_jpeg
        and image(size=8, stored="jpeg").as_jpeg
        and not image(size=500, stored="pixels").as_jpeg
    )
    photo = coded(
        Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 60).convert("RGB"),
        "JPEG",
        quality=95,
    )
    found = {}
    for stored in ("pixels", "jpeg"):
        feature = image(size=160, stored=stored)
        column, fitted = fit(Specimen(feature, (pa.array([photo, None]),)))
        kept = feature.encode(column, fitted)
        found[stored] = feature.collate(kept, fitted)["pixels"]
        assert set(kept) == {stored, "missing"}
    assert len(kept["jpeg"][0]) < 160 * 160 * 3 / 2 and kept["jpeg"][1] == b""
    assert np.abs(found["pixels"].astype(int) - found["jpeg"]).mean() < 3


def test_augmentations_happen_in_training_alone_and_follow_the_row() -> None:
    feature = image(size=12, augment=["flip", "shift", "colour"])
    column, fitted = fit(Specimen(feature, (RAW.slice(0, 20),)))
    stored = feature.encode(column, fitted)
    plain, own = feature.collate(stored, fitted)["pixels"], keys(20)
    changed = feature.collate(stored, fitted, own)["pixels"]
    assert not np.array_equal(plain, changed) and np.array_equal(
        plain, feature.collate(stored, fitted)["pixels"]
    ), "what is stored is left as it was"
    some = np.array([3, 17, 4])
    assert np.array_equal(
        feature.collate({k: v[some] for k, v in stored.items()}, fitted, own[some])[
            "pixels"
        ],
        changed[some],
    )


@pytest.mark.parametrize("stored", ["pixels", "jpeg"])
def test_a_part_is_cut_out_anywhere_in_training_and_out_of_the_middle_otherwise(
    stored: str,
) -> None:
    feature, whole = (
        image(size=[9, 12], cut_from=[14, 18], stored=stored),
        image(size=[14, 18], stored=stored),
    )
    raw = pa.array([GOOD[i % 20] for i in range(300)] + [None], pa.binary())
    column, fitted = fit(Specimen(feature, (raw,)))
    kept = feature.encode(column, fitted)
    pixels = whole.collate(kept, fitted)["pixels"]
    assert feature.spec(fitted)["pixels"].shape == (3, 9, 12)
    assert np.array_equal(
        feature.collate(kept, fitted)["pixels"], pixels[:, :, 2:11, 3:15]
    )
    own = keys(301)
    found = feature.collate(kept, fitted, own)["pixels"]
    corners = []
    for row in range(300):
        places = [
            (top, left)
            for top in range(6)
            for left in range(7)
            if np.array_equal(found[row], pixels[row, :, top : top + 9, left : left + 12])
        ]
        assert len(places) == 1
        corners += places
    assert (
        {top for top, _ in corners} == set(range(6))
        and {left for _, left in corners} == set(range(7))
        and not found[300].any()
    )
    some = np.array([30, 17, 300])
    assert np.array_equal(
        feature.collate({k: v[some] for k, v in kept.items()}, fitted, own[some])[
            "pixels"
        ],
        found[some],
    )


def test_a_jpeg_of_the_right_size_waits_as_it_came() -> None:
    photo = Image.effect_mandelbrot((200, 160), (-2, -1, 1, 1), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 3
    fine, turned, grey = (
        coded(photo, "JPEG", quality=80),
        coded(photo, "JPEG", exif=exif),
        coded(photo.convert("L"), "JPEG"),
    )
    feature = image(size=[160, 200])
    column, fitted = fit(
        Specimen(feature, (pa.array([fine, turned, grey, coded(photo)]),))
    )
    kept = feature.encode(column, fitted)
    assert (
        kept["jpeg"][0] == fine and kept["jpeg"][1] != turned and kept["jpeg"][2] != grey
    )
    assert np.array_equal(
        feature.collate(kept, fitted)["pixels"][0].transpose(1, 2, 0),
        np.asarray(Image.open(io.BytesIO(fine))),
    )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"size": 64, "cut_from": 60},
            r"cut_from \(60 × 60\) is smaller than size \(64 × 64\)",
        ),
        ({"cut_from": 0}, "a side in pixels"),
        ({"size": 0}, "a side in pixels"),
        ({"size": [3]}, "a side in pixels"),
        ({"size": "large"}, "a side in pixels"),
        ({"size": True}, "a side in pixels"),
        ({"channels": 2}, "channels"),
        ({"resize": "cover"}, "expected one of fit, crop, stretch"),
        ({"sice": 3}, "Did you mean 'size'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        load_recipe(
            {
                "source": {"type": "files", "path": "x"},
                "inputs": {"photo": {"type": "image", **options}},
                "targets": {"y": "category"},
            }
        )
    with pytest.raises(RecipeError, match="the feature 'image' cannot be a target"):
        load_recipe(
            {
                "source": {"type": "files", "path": "x"},
                "inputs": {"y": "category"},
                "targets": {"photo": "image"},
            }
        )


def look_at(column: pa.Array) -> Any:
    from penstock.inspect.findings import look

    return look(
        pa.table(
            {"photo": column, "label": pa.array((LABELS * len(column))[: len(column)])}
        ),
        target="label",
    ).columns[0]


def test_init_proposes_pictures() -> None:
    found = look_at(pa.array(GOOD * 3, pa.binary()))
    assert (found.type, found.options, found.why) == (
        "image",
        {"size": [20, 24]},
        "pictures of 24 × 20 pixels",
    )
    photos = [
        coded(Image.new("RGB", (300 + i, 200), (i, 9, 9)), "JPEG") for i in range(9)
    ]
    found = look_at(pa.array(photos * 4))
    assert (found.type, found.options) == (
        "image",
        {"size": 64},
    ) and "300 × 200 to 308 × 200 pixels" in found.why
    found = look_at(pa.array([*GOOD, b"torn"], pa.large_binary()))
    assert (
        found.type == "image"
        and found.loud
        and "1 of the 21 rows looked at would be quarantined" in found.why
    )
    assert look_at(AS_STRUCT.slice(0, 3)).type == "image"
    found = look_at(pa.array([b"abc", b"defg"] * 20))
    assert found.type is None and "bytes that are no pictures" in found.why


def test_every_format_is_known_by_its_first_bytes() -> None:
    from penstock.formats.pictures import looks_like_picture, size_of

    for format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000"):
        data = coded(picture("cross", RNG), format)
        assert looks_like_picture(data) and size_of(data) == (20, 24)
    assert not looks_like_picture(b"") and not looks_like_picture(b"%PDF-1.7 ....")
