"""Reads a source as a run does, and tells what came of it."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import Source
from penstock.core.events import Events

LINES = [b"ok", b"\xff\xfe", None, b"go"]


@dataclass
class Read:
    rows: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    said: list[str]


def read(source: Source, folder: Path) -> Read:
    said: list[str] = []
    events = Events(lambda event: said.append(str(event.fields.get("text", ""))))
    made = source.extract(
        source.snapshot(folder), folder / "scratch", memory_bytes=256 << 20, events=events
    )
    rows = [
        row
        for path in made.parquet
        for row in pq.read_table(path, columns=made.schema.names).to_pylist()
    ]
    rejects = [row for path in made.rejects for row in pq.read_table(path).to_pylist()]
    assert (len(rows), len(rejects)) == (made.rows, made.rejected)
    return Read(rows, rejects, said)


def texts_of(kind: str) -> pa.Array:
    plain = pa.array(LINES).view(pa.string())
    one_each = [0, 1, 2, 3, 4]
    if kind == "large":
        return pa.array(LINES, pa.large_binary()).view(pa.large_string())
    if kind == "view":
        return pa.array(LINES, pa.binary_view()).view(pa.string_view())
    if kind == "dictionary":
        return pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 3], pa.int8()), plain)
    if kind == "list":
        return pa.ListArray.from_arrays(one_each, plain)
    if kind == "struct":
        return pa.StructArray.from_arrays([plain], names=["in"])
    # a size in the type; with one missing, Parquet is read without the sizes
    if kind.startswith("list of two"):
        twice = pa.array([text for text in LINES for _ in range(2)]).view(pa.string())
        return pa.FixedSizeListArray.from_arrays(
            twice, 2, mask=pa.array([False, False, "missing" in kind, False])
        )
    if kind == "list of lists":
        return pa.ListArray.from_arrays(
            one_each, pa.ListArray.from_arrays(one_each, plain)
        )
    if kind == "struct of lists of two":
        return pa.StructArray.from_arrays(
            [texts_of("list of two, missing")], names=["in"]
        )
    if kind == "list of structs":
        return pa.ListArray.from_arrays(
            one_each, pa.StructArray.from_arrays([plain], names=["in"])
        )
    if kind == "map":
        keys = pa.array([b"ok", b"\xff", b"x", b"go"]).view(pa.string())
        return pa.MapArray.from_arrays(one_each, keys, pa.array([1, 2, 3, 4]))
    return plain


def tar_of(members: int = 12) -> bytearray:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for i in range(members):
            data = (f"text {i} " * 200).encode()
            info = tarfile.TarInfo(f"{i:02}.txt")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return bytearray(out.getvalue())
