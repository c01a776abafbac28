"""Rows whose picture looks like that of an earlier row: scaled, coded again, or hardly changed.

A picture is known by 64 bits: which of its 64 slowest waves are stronger than the middle one (perceptual
hash, the discrete cosine transform of 32 × 32 points of grey; Zauner 2010). Two pictures look alike when at
most `distance` of these bits differ. Bits are cut into two bands more than that, so that of two such
pictures two bands are equal: every pair is a candidate (Manku, Jain and Das Sarma 2007). A picture without
any form (blank, or a mere slope) is compared with none, nor is one that cannot be read: see `pictures`.

Groups, splits and memory are as in `near_duplicates`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.contracts.judge import Judge, streamed_large, written
from penstock.core.errors import ContractError
from penstock.formats.pictures import BadPicture, decode, from_text, spread
from penstock.parts.cleaners._groups import candidates, named, ordered

if TYPE_CHECKING:
    import ibis.expr.types as ir

_POINTS, _WAVES = 32, 8
_LEAST_RANGE = 8
"""Levels of grey: a picture with less has no form."""
_PLACE = np.arange(_POINTS) + 0.5
_COSINES = np.cos(np.pi / _POINTS * np.arange(1, _WAVES + 1)[:, None] * _PLACE)


class NearDuplicatePictures(Judge):
    """Finds rows whose picture looks like that of an earlier row, and names that row."""

    drops: ClassVar[str] = "duplicates"
    large: ClassVar[bool] = True
    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = ({"column": "text"},)

    column: str
    """A column of pictures: the bytes of files, or the same as base64 text."""
    distance: int = Field(5, ge=0, le=7)
    """So many of 64 bits may differ, at most."""

    def needs(self) -> tuple[str, ...]:
        return (self.column,)

    def violations(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        kind = table[self.column].type()
        if not (kind.is_string() or kind.is_binary()):
            raise ContractError(
                f"near_duplicate_pictures: the column {self.column!r} holds {kind}; expected the bytes of"
                " files, or base64 text. Leave it out."
            )
        rows = ordered(table, [self.column]).rename({self.column: "__p_t0"})
        hashes = written(session, self._hashes(rows, session))
        if "__p_hash" not in hashes.columns:  # no row has a picture
            return hashes
        pairs = session.keep(candidates(written(session, self._keys(hashes, session))))
        alike = written(session, self._compared(pairs, hashes, session))
        if "__p_of" not in alike.columns:
            return alike
        return named(alike, hashes, session, [self.column])

    def _hashes(self, table: ir.Table, session: EngineSession) -> Iterator[pa.Table]:
        for columns in streamed_large(session, table):
            hashes = spread(look, columns[self.column].to_pylist())
            rows = pa.table(
                {
                    "__p_order": columns["__p_order"],
                    ROW_ID: columns[ROW_ID].cast(pa.string()),
                    "__p_hash": pa.array(hashes, pa.int64()),
                }
            )
            yield rows.filter(rows["__p_hash"].is_valid())

    def _keys(self, hashes: ir.Table, session: EngineSession) -> Iterator[pa.Table]:
        for batch in session.batches(hashes.select("__p_order", "__p_hash")):
            keys = self.keys(np.asarray(batch.column("__p_hash")))
            rows = np.repeat(np.asarray(batch.column("__p_order")), keys.shape[1])
            yield pa.table({"__p_order": rows, "__p_key": keys.ravel()})

    def keys(self, hashes: np.ndarray) -> np.ndarray:
        """Every two bands of each hash's bits, with the number of the two: int64 `[n, pairs]`."""
        bits = _bits(hashes)
        bands = np.array_split(np.arange(64), self.distance + 2)
        pairs = [np.concatenate(pair) for pair in combinations(bands, 2)]
        keys = np.empty((len(bits), len(pairs)), np.uint64)
        for number, pair in enumerate(pairs):
            # Bits leave room for the number, but where all 64 are one key.
            weights = np.uint64(1) << np.arange(len(pair), dtype=np.uint64)
            key = (bits[:, pair] * weights).sum(axis=1, dtype=np.uint64)
            keys[:, number] = key * np.uint64(len(pairs)) + np.uint64(number)
        return keys.view(np.int64)

    def _compared(
        self, pairs: ir.Table, hashes: ir.Table, session: EngineSession
    ) -> Iterator[pa.Table]:
        """The pairs that look alike."""
        narrow = hashes.drop(ROW_ID)
        ours = narrow.rename(__p_of="__p_order", __p_one="__p_hash")
        theirs = narrow.rename(__p_to="__p_order", __p_other="__p_hash")
        both = pairs.inner_join(ours, "__p_of").inner_join(theirs, "__p_to")
        for batch in session.batches(both):
            one, other = (
                np.asarray(batch.column(name)) for name in ("__p_one", "__p_other")
            )
            apart = _bits(one ^ other).sum(axis=1)
            rows = pa.Table.from_batches([batch]).select(["__p_of", "__p_to"])
            yield rows.filter(pa.array(apart <= self.distance))


def look(value: bytes | str | None) -> int | None:
    """The perceptual hash of a picture, a signed number of 64 bits; None without anything to compare."""
    if value is None:
        return None
    try:
        data = from_text(value) if isinstance(value, str) else value
        grey = decode(data, _POINTS, _POINTS, 1, resize="stretch")[:, :, 0]
    except BadPicture:
        return None
    if int(grey.max()) - int(grey.min()) < _LEAST_RANGE:
        return None
    waves = _COSINES @ grey.astype(np.float64) @ _COSINES.T
    bits = (waves > np.median(waves)).ravel()
    return int(np.packbits(bits).view(">i8")[0])


def _bits(hashes: np.ndarray) -> np.ndarray:
    """0 and 1, `[n, 64]`."""
    big = np.ascontiguousarray(hashes, ">i8")
    return np.unpackbits(big.view(np.uint8)).reshape(-1, 64).astype(np.uint64)
