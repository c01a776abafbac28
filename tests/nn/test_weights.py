"""Files of weights whose headers lie: a sentence, before anything is asked for that the header says."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from penstock.core.errors import StoreError
from penstock.nn.weights import read_tensors

CONTENT = bytes(16)


def _one(**words: object) -> dict[str, object]:
    return {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **words}}


LIES: dict[str, tuple[object, bytes, int | None]] = {
    "a shape of terabytes": (_one(shape=[2**40]), CONTENT, None),
    "a shape beyond any number": (_one(shape=[2**63, 2]), CONTENT, None),
    "nothing times everything": (_one(shape=[0, 2**62]), CONTENT, None),
    "a negative shape": (_one(shape=[-4]), CONTENT, None),
    "half a row": (_one(shape=[4.5]), CONTENT, None),
    "no type": (_one(dtype="X9"), CONTENT, None),
    "another type": (_one(dtype="F64"), CONTENT, None),
    "an end beyond the file": (_one(data_offsets=[0, 2**40]), CONTENT, None),
    "an end before its beginning": (_one(data_offsets=[8, 4]), CONTENT, None),
    "two at one place": ({**_one(), "b": _one()["a"]}, CONTENT, None),
    "a head of exabytes": (_one(), CONTENT, 2**62),
    "a head longer than the file": (_one(), CONTENT, 10_000),
    "no content": (_one(), b"", None),
    "more content": (_one(), CONTENT * 2, None),
    "no object": ([1], CONTENT, None),
    "no tensor": ({"a": 1}, CONTENT, None),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_is_a_sentence(lie: str, tmp_path: Path) -> None:
    header, content, size = LIES[lie]
    head = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(
        struct.pack("<Q", len(head) if size is None else size) + head + content
    )
    with pytest.raises(StoreError, match="cannot read the weights"):
        read_tensors(path)


@pytest.mark.parametrize(
    "content", [b"", b"\0", bytes(8), b"\xff" * 64, b'{"a":' * 5_000]
)
def test_what_is_no_such_file_is_a_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(StoreError, match="cannot read the weights"):
        read_tensors(tmp_path / "a.safetensors")
