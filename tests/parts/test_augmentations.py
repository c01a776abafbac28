"""Every augmentation on the shelf by every law, with every word its options may be; and what each does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from penstock.contracts.chance import salted, uniform
from penstock.contracts.data import Augmentation
from penstock.core.errors import RecipeError
from penstock.recipe.schema import load_recipe
from penstock.testing.laws import augmentations as laws

DECLARED: list[Any] = [
    "flip",
    {"type": "flip", "axis": "vertical"},
    {"type": "flip", "axis": "both", "chance": 0.9},
    "shift",
    {"type": "shift", "by": 1.0, "fill": "edge"},
    {"type": "shift", "fill": "black", "chance": 0.5},
    "crop",
    {"type": "crop", "least": 0.05, "stretch": 3, "chance": 0.7},
    "rotate",
    {"type": "rotate", "degrees": 180, "fill": "black"},
    {"type": "rotate", "degrees": 60, "fill": "edge", "chance": 0.5},
    "colour",
    {"type": "colour", "brightness": 1, "contrast": 1, "saturation": 1, "chance": 0.5},
    "erase",
    {"type": "erase", "fill": "grey", "most": 1},
    {"type": "erase", "fill": "black", "chance": 1},
    {"type": "choice", "of": ["flip", "colour", {"type": "erase", "chance": 1}]},
    {
        "type": "choice",
        "of": ["rotate", {"type": "choice", "of": ["shift", "crop"]}],
        "times": 3,
        "chance": 0.6,
    },
]


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("declared", DECLARED, ids=str)
def test_laws(declared: Any, law: laws.Law) -> None:
    for rows in laws.pictures():
        law(Augmentation.load(declared), rows)


def test_every_augmentation_on_the_shelf_is_judged() -> None:
    assert {Augmentation.load(declared).type for declared in DECLARED} == set(
        Augmentation.types()
    )


def test_an_augmentation_that_looks_at_its_neighbours_is_caught() -> None:
    class Levelled(Augmentation):
        def apply(self, values: np.ndarray, key: int) -> np.ndarray:
            return values.copy()

        def apply_all(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
            return np.broadcast_to(
                values.mean(axis=0, keepdims=True) if len(values) else values,
                values.shape,
            ).astype(values.dtype)

    with pytest.raises(AssertionError, match="key_decides"):
        laws.key_decides(Levelled(), laws.pictures()[0])


def apply(declared: Any, values: np.ndarray, rows: int = 400) -> np.ndarray:
    return Augmentation.load(declared).apply_all(
        np.broadcast_to(values, (rows, *values.shape)), laws.keys(rows)
    )


NOISE = laws.pictures()[0][-1]


def test_flips_are_flips_in_half_the_rows() -> None:
    found = apply("flip", NOISE)
    turned = (found == NOISE[:, ::-1]).all(axis=(1, 2, 3))
    assert 150 < turned.sum() < 250 and (found[~turned] == NOISE).all()
    both = apply({"type": "flip", "axis": "both"}, NOISE)
    assert len(np.unique(both.reshape(len(both), -1), axis=0)) == 4


def test_shifts_go_everywhere_within_their_bounds() -> None:
    values = np.zeros((16, 16, 1), np.uint8)
    values[8, 8] = 255
    places = (
        np.argwhere(
            apply({"type": "shift", "by": 0.125, "fill": "black"}, values)[..., 0]
        )[:, 1:]
        - 8
    )
    assert {tuple(place) for place in places.tolist()} == {
        (y, x) for y in range(-2, 3) for x in range(-2, 3)
    }


def test_crops_keep_to_their_share_and_turns_to_their_degrees() -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (64, 1, 3))
    spans = [
        int(picture[:, -1, 0].mean()) - int(picture[:, 0, 0].mean())
        for picture in apply({"type": "crop", "least": 0.5, "stretch": 1}, ramp)
    ]
    assert min(spans) > 0.66 * 255 and max(spans) > 0.95 * 255
    cross = np.zeros((65, 65, 1), np.uint8)
    cross[32, :] = 255
    heights = [
        abs(int(picture[:, 60, 0].argmax()) - 32)
        for picture in apply({"type": "rotate", "degrees": 10, "fill": "black"}, cross)
    ]
    assert max(heights) in (4, 5) and min(heights) == 0


def test_no_corner_is_seen_when_a_picture_is_turned() -> None:
    white = np.full((20, 50, 3), 255, np.uint8)
    for degrees in (5, 30, 90, 180):
        for fill in ("reflect", "edge"):
            assert (
                apply({"type": "rotate", "degrees": degrees, "fill": fill}, white, 50)
                >= 254
            ).all(), (
                degrees,
                fill,
            )


def test_light_and_colour_change_by_what_was_declared() -> None:
    plain = np.full((4, 4, 3), 100, np.uint8)
    lights = apply(
        {"type": "colour", "brightness": 0.3, "contrast": 0, "saturation": 0}, plain
    )[:, 0, 0, 0]
    assert 70 <= lights.min() < 74 and 126 < lights.max() <= 130
    grey = np.full((4, 4, 3), 100, np.uint8)
    assert (
        apply({"type": "colour", "brightness": 0, "contrast": 0, "saturation": 1}, grey)
        == 100
    ).all()


def test_a_rectangle_is_hidden() -> None:
    found = apply(
        {"type": "erase", "fill": "black", "least": 0.1, "most": 0.3, "chance": 1},
        np.full((20, 20, 1), 9, np.uint8),
    )
    shares = (found == 0).mean(axis=(1, 2, 3))
    assert shares.min() > 0.08 and shares.max() < 0.34


def test_choice_takes_each_with_the_same_chance() -> None:
    found = apply(
        {
            "type": "choice",
            "of": [
                {"type": "flip", "axis": "vertical", "chance": 1},
                {"type": "flip", "chance": 1},
            ],
            "chance": 0.9,
        },
        NOISE,
    )
    gone, turned, same = (
        (found == NOISE[::-1]).all(axis=(1, 2, 3)),
        (found == NOISE[:, ::-1]).all(axis=(1, 2, 3)),
        (found == NOISE).all(axis=(1, 2, 3)),
    )
    assert (
        (gone | turned | same).all()
        and 140 < gone.sum() < 220
        and 140 < turned.sum() < 220
        and 15 < same.sum() < 70
    )


def test_two_of_a_kind_have_chances_of_their_own() -> None:
    from penstock.contracts.data import Feature

    feature: Any = Feature.load(
        {"type": "image", "size": [12, 16], "augment": ["flip", "flip"]}
    )
    stored = {
        "pixels": np.broadcast_to(NOISE, (400, *NOISE.shape)).copy(),
        "missing": np.zeros(400, np.float32),
    }
    found = feature.collate(stored, {}, laws.keys(400))["pixels"].transpose(0, 2, 3, 1)
    assert 150 < (found == NOISE).all(axis=(1, 2, 3)).sum() < 250, (
        "with one chance for both, the second flip would always undo the first"
    )


def test_chance_is_even_and_a_function_of_the_key() -> None:
    drawn = uniform(laws.keys(20_000), 3)
    assert (
        drawn.min() >= 0
        and drawn.max() < 1
        and np.abs(drawn.mean(axis=0) - 0.5).max() < 0.01
        and np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.03
    )
    own = laws.keys(5)
    assert (uniform(own[2:3], 3) == uniform(own, 3)[2]).all() and len(
        {*own.tolist(), *salted(own, 0).tolist(), *salted(own, 1).tolist()}
    ) == 15


def test_mistakes_are_told_with_their_paths() -> None:
    def recipe(augment: Any) -> Any:
        return load_recipe(
            {
                "source": {"type": "files", "path": "x"},
                "inputs": {"photo": {"type": "image", "augment": augment}},
                "targets": {"y": "category"},
            }
        )

    assert [
        a.type
        for a in recipe(["flip", {"type": "rotate", "degrees": 15}])
        .inputs["photo"]
        .augment
    ] == [
        "flip",
        "rotate",
    ]
    for augment, why in (
        (["flipp"], "Did you mean 'flip'"),
        ([{"type": "rotate", "degree": 4}], "Did you mean 'degrees'"),
        ([{"type": "erase", "least": 0.5}], "must be at least `least`"),
        ([{"type": "choice", "of": []}], "inputs.photo.augment"),
    ):
        with pytest.raises(RecipeError, match=why):
            recipe(augment)
