"""NumPy's arrays: rows by the first axis, and nothing that is pickled, lost or larger than the file."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from penstock.core.errors import SourceError
from penstock.formats.arrays import png


def npy(array, **options) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def npz(**arrays) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def test_kinds_of_arrays(read):
    got = read(npy(np.array([1.5, np.nan], ">f4")), name="a.npy")
    assert got.records == [{"value": 1.5}, {"value": None}]
    matrix = np.arange(12).reshape(4, 3)
    for one in (matrix, np.asfortranarray(matrix)):
        got = read(npy(one), name="a.npy")
        assert [list(r.values()) for r in got.records] == matrix.tolist()
        assert list(got.types) == ["value_1", "value_2", "value_3"]
    got = read(npy(np.eye(300)), name="a.npy")
    assert got.types["value"].startswith("list") and len(got.records[7]["value"]) == 300
    kinds = [("a", "i4"), ("b", "U3"), ("c", "S2"), ("t", "M8[D]"), ("v", "f4", 2)]
    rows = [(1, "ä€😀", b"x", "2024-01-01", [1, 2]), (2, "", b"", "NaT", [3, 4])]
    got = read(npy(np.array(rows, kinds)), name="a.npy")
    assert [r["b"] for r in got.records] == ["ä€😀", ""]
    assert got.records[0]["v"] == [1, 2] and got.records[1]["t"] is None


def test_arrays_of_one_length_are_columns(read):
    x, y = np.random.default_rng(0).normal(size=(9, 4)), np.arange(9) % 2
    got = read(npz(X=x, y=y, n=3), name="a.npz")
    assert [r["y"] for r in got.records] == y.tolist() and "single values" in got.said
    assert np.allclose([r["X"] for r in got.records], x)
    with pytest.raises(
        SourceError, match=r"several lengths.*X \[9, 4\], y \[8\].*arrays: \[X\]"
    ):
        read(npz(X=x, y=y[:8]), name="a.npz")
    got = read(npz(X=x, y=y[:8]), name="a.npz", format={"type": "npz", "arrays": "y"})
    assert got.rows == 8
    with pytest.raises(SourceError, match="no array 'z'"):
        read(npz(X=x), name="a.npz", format={"type": "npz", "arrays": ["z"]})


def test_splits_in_names_follow_each_other(read):
    pictures = np.random.default_rng(0).integers(0, 255, (5, 6, 7), np.uint8)
    whole = npz(
        x_train=pictures[:3],
        y_train=np.arange(3),
        x_test=pictures[3:],
        y_test=np.arange(2),
    )
    got = read(whole, name="a.npz")
    assert [r["split"] for r in got.records] == ["train"] * 3 + ["test"] * 2
    seen = [np.asarray(Image.open(io.BytesIO(r["x"]))) for r in got.records]
    assert np.array_equal(seen, pictures)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_are_png(channels):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 8, channels), np.uint8)
    seen = np.asarray(Image.open(io.BytesIO(png(pixels))))
    assert np.array_equal(seen.reshape(pixels.shape), pixels)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npy(np.array([1, None], object), allow_pickle=True), "pickled.*not read"),
        (npy(np.array([1j])), "array.real and array.imag"),
        (npy(np.array(5)), "its first axis must count rows"),
        (npy(np.zeros((4, 9, 9))), "uint8"),
        (npy(np.arange(9))[:-3], "3 bytes before its last value"),
        (npy(np.arange(9)) + b"x", "more bytes follow"),
        (npy(np.arange(9)).replace(b"(9,)", b"(8**"), "header cannot be read"),
        (npy(np.zeros(3, "U0")) + b"x", "no bytes|more bytes"),
    ],
)
def test_what_is_refused(read, content, said):
    with pytest.raises(SourceError, match=said):
        read(content, name="a.npy")


def test_a_size_that_the_file_has_not_allocates_nothing(read):
    header = npy(np.arange(9))
    huge = header.replace(b"'shape': (9,), }      ", b"'shape': (9999999,), }")
    assert huge != header
    with pytest.raises(SourceError, match="before its last value"):
        read(huge, name="a.npy")


def test_a_text_that_is_none_is_a_reject(read):
    content = npy(np.array(["ab", "cd"]))
    broken = content[:-16] + b"\xff\xff\xff\x7f" + content[-12:]
    got = read(broken, name="a.npy")
    assert got.rows == 1 and got.bad_lines == [1]
