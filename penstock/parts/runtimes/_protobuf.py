"""Whether an ONNX program reads files: its graph is walked as plain protobuf, since serving has no package
`onnx`.

A tensor may say that its values lie in another file. Pack never writes such a program, and no manifest could
vouch for the file; versions of onnxruntime differ in which paths they follow.
"""

from __future__ import annotations

from collections.abc import Iterator

_WITHIN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "sparse": {1: "tensor", 2: "tensor"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "tensor": {},
}
"""By message, the fields that are messages in which a tensor may lie."""
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MOST_DEEP = 200
_FIXED = {1: 8, 5: 4}


def reads_files(program: bytes) -> bool:
    """Whether a tensor of the program lies elsewhere.

    Raises:
        ValueError: it is no program of ONNX.
    """
    # A list in place of recursion: a hostile file nests as deeply as it likes.
    waiting = [("model", memoryview(program), 0)]
    while waiting:
        kind, data, depth = waiting.pop()
        if depth > _MOST_DEEP:
            raise ValueError("its graphs are nested too deeply")
        for number, value in _fields(data):
            if kind == "tensor" and (
                number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0)
            ):
                return True
            # Fields that cannot hold a tensor are skipped without being read.
            inner = _WITHIN[kind].get(number)
            if inner is not None:
                # A message has the wire type of bytes; a number in its place is forged.
                if not isinstance(value, memoryview):
                    raise ValueError("a message is none")
                waiting.append((inner, value, depth + 1))
    return False


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        # The lower three bits say how the value is written.
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in _FIXED:
            size = _FIXED[wire]
        else:
            raise ValueError("it is no protobuf")
        # Checked before slicing, which would shorten the piece in silence.
        if size > len(data) - at:
            raise ValueError("it ends too early")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    # 64 bits take at most ten groups of seven.
    for place in range(10):
        if at + place >= len(data):
            raise ValueError("it ends too early")
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number is too long")
