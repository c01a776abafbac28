"""What ranks tell each other: values of a closed vocabulary, and nothing that runs."""

from __future__ import annotations

import json
import pickle
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from penstock.contracts.metric import Forecasting, Rows
from penstock.core.errors import TrainingError
from penstock.metrics.exact import Cells
from penstock.train.plain import pack, unpack

_PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.fractions()
)
_VALUES = st.recursive(
    _PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_VALUES)
def test_what_arrives_is_what_was_sent(value: Any) -> None:
    # Not a number is unequal to itself, so what is compared is how it is written.
    assert repr(unpack(pack(value))) == repr(value)


def test_arrays_sums_and_rows_arrive_as_they_are() -> None:
    cells = Cells()
    cells.add(3, np.array([0.1, 1e300, -1e-300]))
    rows = Rows(
        "category",
        truth=np.array([1, 0]),
        answer=np.array([[0.5, 0.5], [1.0, 0.0]], np.float32),
        weight=np.ones(2),
        predicted=np.empty(0, np.int64),
        classes=2,
        scale=Forecasting((1.0,), naive=(None,)),
    )
    rows.shared("costly", lambda _: object())
    sent = {
        "cells": cells,
        "rows": [rows],
        "texts": np.array(["a", None], object),
        "words": np.array(["a", "bcd"]),
        "none": np.empty((0, 3), np.uint8),
        "scalar": np.float32(0.1),
        "bytes": np.frombuffer(b"ab", np.uint8),
        "tensor": torch.arange(6).reshape(2, 3)[:, ::2],
        "path": Path("runs/one"),
        "set": {1, 2},
        "share": Fraction(1, 3),
        "dtype": np.arange(3, dtype=">i2"),
    }
    arrived = unpack(pack(sent))
    assert arrived["cells"].fraction(3) == cells.fraction(3)
    [again] = arrived["rows"]
    assert again.scale == rows.scale and again.kind == "category"
    assert np.array_equal(again.answer, rows.answer)
    assert arrived["texts"].tolist() == ["a", None] and arrived["words"][1] == "bcd"
    assert arrived["none"].shape == (0, 3) and arrived["scalar"] == np.float32(0.1)
    assert torch.equal(arrived["tensor"], sent["tensor"])
    assert arrived["dtype"].tolist() == [0, 1, 2]
    for word in ("path", "set", "share"):
        assert arrived[word] == sent[word]
    # It can be written to, as what was sent could.
    arrived["bytes"][0] = 0


@pytest.mark.parametrize("value", [object(), {"a": print}, np.array([object()]), 1j])
def test_what_has_no_word_is_refused_with_its_type(value: Any) -> None:
    with pytest.raises(TrainingError, match="cannot be sent between processes"):
        pack(value)


class _Trap:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


_WIDE = json.dumps(["texts", ["x" * 1_000_000, *[""] * 10_000], [10_001], "U"]).encode()
"""A message of a megabyte that asks for 37 GiB."""


def test_what_is_no_message_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = pack({"cells": Cells(), "a": np.arange(4), "t": (1, 2.5, "x", {"y": None})})
    chance = random.Random(7)
    bad = [pickle.dumps(_Trap()), b"", b"\xff" * 64, whole[:20]]
    for outline in (
        b'["array", "|O", [1]]',
        b'["array", "<i8", [-1]]',
        b'["array", "<i8", [9999999999999]]',
        b'["array", [["a", "<i8"]], [1]]',
        b'["cells", [[0, ["tuple", [1, 99999999]]]]]',
        b'["cells", [[0, 1]]]',
        b'["rows", []]',
        b'["object", "os:system"]',
        b'["fraction", 1, 0]',
        b'["array", "(", [1]]',
        b'["scalar", 3]',
        b'["tensor", "x"]',
        _WIDE,
        b'[["list"]]',
        b'["dict", [[["list", []], 1]]]',
        b'{"a": 1}',
        b"[" * 100_000,
    ):
        bad.append(len(outline).to_bytes(8, "little") + outline)
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        bad.append(bytes(changed))
    refused = 0
    for data in bad:
        try:
            unpack(data)
        except TrainingError:
            refused += 1
    # A changed digit may still be a message.
    assert refused > len(bad) // 2
    assert list(tmp_path.iterdir()) == []
