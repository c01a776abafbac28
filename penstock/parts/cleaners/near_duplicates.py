"""Rows whose texts are nearly those of an earlier row.

Two rows are nearly the same when their texts have at least `threshold` of their shingles (runs of characters)
in common, without regard to case and white space. Candidates are found by MinHash
(penstock.contracts.minhash) and then compared themselves, so a row that is found is one; about one pair in
two hundred that are just as alike as the threshold is missed, and fewer of those that are more so.

Of a group the first row stays, in the order of files and rows. A group is made of links: a row that is nearly
the same as one that is nearly the same as the first is in the first one's group.

It runs before the split, and one row of a group is left: so no group stands in two splits. Where files or a
column give the validation and the test split, their rows count as the first and never leave; a training row
that is nearly one of them does.

Memory: a batch of rows. Keys of bands, texts and pairs are on disk, and the engine joins them there. Of a
large bucket of equal keys, rows are compared with its first few alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.contracts.judge import Judge, written
from penstock.contracts.minhash import band_keys, jaccard, normal, signatures
from penstock.parts.cleaners._groups import candidates, named, ordered
from penstock.parts.cleaners._words import Names, texts_alone

if TYPE_CHECKING:
    import ibis.expr.types as ir

_MOST_CHARACTERS = 1 << 18
"""Of a row that are looked at."""
_AT_ONCE = 1 << 20
"""Characters that are hashed at once."""
_ROWS = 2_048
_PAIRS = 256


class NearDuplicates(Judge):
    """Finds rows whose texts are nearly those of an earlier row, and names that row."""

    drops: ClassVar[str] = "duplicates"
    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"columns": "text"},
        {"columns": "text", "threshold": 0.5, "shingle": 2},
    )

    columns: Names = Field(min_length=1)
    """Columns of texts that are compared together."""
    threshold: float = Field(0.8, gt=0.2, le=1)
    """The share of their shingles that two rows have in common, at least, to be nearly the same."""
    shingle: int = Field(5, ge=1, le=32)
    """Characters of a shingle: few for short texts."""

    def needs(self) -> tuple[str, ...]:
        return self.columns

    def violations(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        texts_alone("near_duplicates", table, self.columns)
        texts = written(session, self._texts(ordered(table, self.columns), session))
        if "__p_text" not in texts.columns:  # no row has a text
            return texts
        keys = written(session, self._keys(texts, session))
        pairs = session.keep(candidates(keys))
        alike = written(session, self._compared(pairs, texts, session))
        if "__p_of" not in alike.columns:
            return alike
        return named(alike, texts, session, self.columns)

    def _texts(self, table: ir.Table, session: EngineSession) -> Iterator[pa.Table]:
        """The texts of rows that have any, as they are compared."""
        for batch in session.batches(table, _ROWS):
            columns = [
                batch.column(f"__p_t{i}").to_pylist() for i in range(len(self.columns))
            ]
            texts = [
                normal("\x1f".join(t[:_MOST_CHARACTERS] for t in row if t))
                for row in zip(*columns, strict=True)
            ]
            rows = pa.table(
                {
                    "__p_order": batch.column("__p_order"),
                    ROW_ID: batch.column(ROW_ID).cast(pa.string()),
                    "__p_text": pa.array(texts, pa.string()),
                }
            )
            yield rows.filter(pa.array([bool(text) for text in texts], pa.bool_()))

    def _keys(self, texts: ir.Table, session: EngineSession) -> Iterator[pa.Table]:
        """The keys of each row's bands, one a row."""
        for batch in session.batches(texts.select("__p_order", "__p_text"), _ROWS):
            order = np.asarray(batch.column("__p_order"))
            values = batch.column("__p_text").to_pylist()
            sizes = np.cumsum([max(len(text), self.shingle) for text in values])
            start = 0
            while start < len(values):
                done = sizes[start - 1] if start else 0
                end = max(int(np.searchsorted(sizes, done + _AT_ONCE)), start + 1)
                signature = signatures(values[start:end], self.shingle)
                keys = band_keys(signature, self.threshold)
                rows = np.repeat(order[start:end], keys.shape[1])
                yield pa.table({"__p_order": rows, "__p_key": keys.ravel()})
                start = end

    def _compared(
        self, pairs: ir.Table, texts: ir.Table, session: EngineSession
    ) -> Iterator[pa.Table]:
        """The pairs that are nearly the same."""
        narrow = texts.drop(ROW_ID)
        ours = narrow.rename(__p_of="__p_order", __p_one="__p_text")
        theirs = narrow.rename(__p_to="__p_order", __p_other="__p_text")
        both = pairs.inner_join(ours, "__p_of").inner_join(theirs, "__p_to")
        for batch in session.batches(both, _PAIRS):
            values = zip(
                batch.column("__p_one").to_pylist(),
                batch.column("__p_other").to_pylist(),
                strict=True,
            )
            is_alike = [
                jaccard(one, other, self.shingle) >= self.threshold
                for one, other in values
            ]
            rows = pa.Table.from_batches([batch]).select(["__p_of", "__p_to"])
            yield rows.filter(pa.array(is_alike, pa.bool_()))
