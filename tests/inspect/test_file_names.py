"""What stands in the names of files, and columns that name files."""

from __future__ import annotations

import io
import wave

import pyarrow as pa
import pytest

from penstock.formats.path_pattern import Pattern
from penstock.inspect.columns import judge
from penstock.inspect.file_names import name_words
from penstock.inspect.raw_column import Look

DIGITS = [f"{d}_{s}_{i}.wav" for d in range(10) for s in ("anna", "bo") for i in range(5)]


@pytest.mark.parametrize(
    ("names", "step", "labels"),
    [
        (DIGITS, "{label}_{part_2}_{part_3}.wav", 10),
        (
            [f"{pet}.{i}.jpg" for pet in ("cat", "dog") for i in range(40)],
            "{label}.*.jpg",
            2,
        ),
        ([f"{d}-{i}.png" for d in range(10) for i in range(30)], "{label}-*.png", 10),
        (
            [f"img_{i:04d}_{k}.png" for i, k in enumerate("abc" * 20)],
            "img_*_{label}.png",
            3,
        ),
    ],
)
def test_a_label_in_the_name(names: list[str], step: str, labels: int) -> None:
    words = name_words(names)
    assert words is not None
    assert (words.step, words.labels) == (step, labels)
    pattern = Pattern(step)
    told = [pattern.match(name) for name in names]
    assert len({row["label"] for row in told if row}) == labels
    assert None not in told
    first = pattern.match(words.example)
    assert first is not None and first["label"] == words.label


@pytest.mark.parametrize(
    "names",
    [
        [f"{i:05d}.jpg" for i in range(100)],
        [f"IMG_{i:05d}.jpg" for i in range(100)],
        [f"2023-{m:02d}-{d:02d}.jpg" for m in range(1, 6) for d in range(1, 20)],
        ["cat.1.jpg", "dog.2.jpg"],
        [f"a_{i}.jpg" if i % 2 else f"b_x_{i}.png" for i in range(60)],
    ],
)
def test_names_that_tell_no_class(names: list[str]) -> None:
    assert name_words(names) is None


def test_names_of_pictures_and_masks() -> None:
    there = judge(Look("photo", pa.array([f"photos/{i}.jpg" for i in range(50)])))
    assert there.type is None and there.loud
    assert "load: {photo: {root: FOLDER}}" in there.why
    masks = judge(Look("mask", pa.array([f"masks/{i}.png" for i in range(50)])))
    assert masks.type is None and "no feature of this version answers a picture" in (
        masks.why
    )
    texts = judge(Look("note", pa.array([f"see page {i}" for i in range(50)])))
    assert "names pictures" not in texts.why


def test_sound_is_named_as_such() -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(b"\0\0" * 100)
    finding = judge(Look("content", pa.array([buffer.getvalue()] * 30)))
    assert finding.type is None and finding.loud
    assert "WAV" in finding.why and "spectrogram" in finding.why
    assert "sound" not in judge(Look("content", pa.array([b"abc"] * 30))).why
