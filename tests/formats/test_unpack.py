"""What lies behind the end of a packed file: zeros are padding, anything else is a sentence."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.contracts.data import Source
from penstock.core.errors import SourceError
from penstock.formats.unpack import unpacked
from penstock.parts.sources.files import Files
from penstock.parts.sources.folder import Folder
from tests.safety import specimens
from tests.safety.reading import read, tar_of

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}
TEXT = b"".join(b"%d,%d\n" % (i, i * i) for i in range(5_000))


@pytest.mark.parametrize("size", [1, 7, 1_000, 1 << 20, -1])
@pytest.mark.parametrize("packing", PACK)
def test_several_streams_are_one_text_whatever_is_asked_at_once(
    packing: str, size: int
) -> None:
    text = TEXT[: 3_000 if size == 1 else None]
    packed = (
        PACK[packing](text[:1_000]) + PACK[packing](b"") + PACK[packing](text[1_000:])
    )
    with unpacked(io.BytesIO(packed), packing) as stream:
        pieces = list(iter(lambda: stream.read(size), b""))
    assert b"".join(pieces) == text
    assert all(len(piece) == size for piece in pieces[:-1])


@pytest.mark.parametrize("zeros", [1, 3, 8, 512, 200_000])
@pytest.mark.parametrize("packing", ["gzip", "xz"])
@pytest.mark.parametrize("text", [TEXT, b""], ids=["text", "empty"])
def test_zeros_behind_the_end_are_padding(packing: str, zeros: int, text: bytes) -> None:
    padded = PACK[packing](text) + bytes(zeros)
    for packed, whole in ((padded, text), (padded + PACK[packing](text), text + text)):
        with unpacked(io.BytesIO(packed), packing) as stream:
            assert stream.read() == whole


@pytest.mark.parametrize(
    "rest",
    [
        b"x",
        b"\n",
        b"\x1f",
        b"\x1f\x8b",
        bytes(512) + b"x",
        b"rubbish" * 50,
        b"PK\x03\x04",
    ],
)
@pytest.mark.parametrize("packing", PACK)
def test_what_is_no_stream_behind_the_end_is_refused(packing: str, rest: bytes) -> None:
    with unpacked(io.BytesIO(PACK[packing](TEXT) + rest), packing) as stream:
        pieces = iter(lambda: stream.read(1 << 16), b"")
        with pytest.raises(OSError, match="cannot be decompressed"):
            list(pieces)


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 30])
@pytest.mark.parametrize("packing", PACK)
def test_a_stream_that_is_cut_is_refused(packing: str, cut: int) -> None:
    with unpacked(io.BytesIO(PACK[packing](TEXT)[:-cut]), packing) as stream:
        pieces = iter(lambda: stream.read(1 << 16), b"")
        with pytest.raises(OSError, match="cannot be decompressed"):
            list(pieces)


MAKERS: dict[str, Callable[[], bytes]] = {
    "a.csv.gz": specimens.csv,
    "a.jsonl.gz": specimens.jsonl,
    "a.tar.gz": lambda: bytes(tar_of()),
}


def _source(path: Path) -> Source:
    return Folder(path=str(path)) if "tar" in path.name else Files(path=str(path))


@pytest.mark.parametrize("name", MAKERS)
def test_a_padded_gz_is_the_same_source_and_rubbish_is_a_sentence(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    packed = gzip.compress(MAKERS[name](), mtime=0)
    path.write_bytes(packed)
    plain = read(_source(path), tmp_path)
    path.write_bytes(packed + bytes(1_000))
    assert read(_source(path), tmp_path) == plain
    path.write_bytes(packed + b"rubbish")
    with pytest.raises(SourceError, match=r"damaged|unpacked"):
        read(_source(path), tmp_path)
