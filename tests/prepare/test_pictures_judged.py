"""Pictures that cannot be used are put aside, each with its reason, and whole."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from penstock.core.errors import ContractError, RecipeError
from penstock.parts.cleaners.near_duplicate_pictures import NearDuplicatePictures
from tests.data.lake import Lake, adds_up, quarantine, rows
from tests.parts.pictures_made import picture


def coded(image, format="PNG"):
    out = io.BytesIO()
    image.save(out, format)
    return out.getvalue()


@pytest.fixture
def lake(tmp_path):
    return Lake(tmp_path)


def album():
    chance = np.random.default_rng(1)
    good = [coded(picture("circle", chance, (40, 30)), f) for f in ("PNG", "JPEG")]
    noise = Image.fromarray(chance.integers(0, 255, (30, 30, 4), np.uint8), "RGBA")
    return [
        *good,
        good[1][:-60],
        b"no picture",
        coded(picture("cross", chance, (14, 40))),
        coded(Image.new("RGB", (60, 60), (200, 10, 10))),
        coded(noise),
        None,
    ]


@pytest.mark.parametrize("form", ["bytes", "base64"])
def test_bad_pictures_are_put_aside_with_their_reason(lake, form):
    photos = album()
    values = pa.array(photos, pa.binary())
    if form == "base64":
        values = [p and base64.b64encode(p).decode() for p in photos]
    lake.put("rows.parquet", pa.table({"i": range(len(photos)), "photo": values}))
    judge = {"type": "pictures", "columns": "photo", "side": 20, "modes": ["RGB", "L"]}
    dataset = lake.prepare(clean=[judge])
    assert adds_up(dataset)
    reasons = {row["line"] - 1: row["reason"] for row in quarantine(dataset)}
    assert reasons.keys() == {2, 3, 4, 5, 6}
    assert "cannot be read" in reasons[2]
    assert reasons[4] == "has 14 × 40 pixels, expected at least 20 on each side"
    assert reasons[5] == "is blank: its spots differ by 0 of 255 levels of grey"
    assert reasons[6] == "is of the mode RGBA, expected RGB, L"
    # What stays, and what is put aside, has its picture whole.
    whole = {row["i"]: row["photo"] for row in rows(dataset)}
    assert whole == {i: values[i] if form == "base64" else photos[i] for i in (0, 1, 7)}
    aside = {
        row["line"] - 1: json.loads(row["row"])["photo"] for row in quarantine(dataset)
    }
    assert all(base64.b64decode(aside[i]) == photos[i] for i in aside)


def test_what_is_not_asked_for_is_not_judged(lake):
    photos = album()
    lake.put("rows.parquet", pa.table({"photo": pa.array(photos, pa.binary())}))
    dataset = lake.prepare(
        clean=[{"type": "pictures", "columns": "photo", "blank": None}]
    )
    assert {row["line"] - 1 for row in quarantine(dataset)} == {2, 3}


def test_mistakes_are_sentences(lake):
    lake.put("rows.parquet", pa.table({"n": [1, 2]}))
    with pytest.raises(ContractError, match="'n' holds int64; expected the bytes"):
        lake.prepare(clean=[{"type": "pictures", "columns": "n"}])
    with pytest.raises(RecipeError, match="modes"):
        lake.recipe(clean=[{"type": "pictures", "columns": "n", "modes": "colour"}])


def photograph(seed):
    """A smooth picture, in the place of a photograph."""
    blocks = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), np.uint8)
    return Image.fromarray(blocks).resize((160, 120), Image.Resampling.BICUBIC)


def test_pictures_that_look_like_an_earlier_one_are_put_aside(lake):
    photos = [coded(photograph(i)) for i in range(30)]
    photos += [coded(photograph(i), "JPEG") for i in range(10)]
    photos += [coded(photograph(i).resize((120, 90)), "JPEG") for i in range(10)]
    photos += [coded(Image.new("L", (50, 50), level)) for level in (0, 9, 9)]
    photos += [b"no picture", None]
    values = pa.array(photos, pa.binary())
    lake.put("rows.parquet", pa.table({"i": range(len(photos)), "photo": values}))
    dataset = lake.prepare(clean=[{"type": "near_duplicate_pictures", "column": "photo"}])
    assert adds_up(dataset)
    ids = {row["row_id"]: row["i"] for row in rows(dataset)}
    found_first = {
        row["line"] - 1: ids[row["reason"].split("'")[1]] for row in quarantine(dataset)
    }
    expected = {30 + i: i % 10 for i in range(20)}
    # No stranger is found, and hardly a copy is missed.
    assert found_first.items() <= expected.items() and len(found_first) >= 18
    assert {row["photo"] for row in rows(dataset)} <= set(photos)


def test_every_pair_within_the_distance_shares_a_key():
    chance = np.random.default_rng(2)
    for distance in (0, 1, 5, 7):
        judge = NearDuplicatePictures(column="photo", distance=distance)
        one = chance.integers(-(2**63), 2**63 - 1, 200)
        flips = [chance.choice(64, distance, replace=False) for _ in one]
        masks = np.array([sum(1 << int(bit) for bit in f) for f in flips], np.uint64)
        other = one ^ masks.view(np.int64)
        assert (judge.keys(one) == judge.keys(other)).any(axis=1).all()
        assert not (judge.keys(one[:-1]) == judge.keys(one[1:])).any()
