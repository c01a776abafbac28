"""Values as the embedded engine casts them, so that a rule means at serving what it means in `prepare`.

Which texts are moments or numbers, and how a number is spelt, only the engine knows: any other grammar would
refuse rows that the training data had.
"""

from __future__ import annotations

import functools
import os
import threading

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BLANKS = " \t\n\r\v\f"
"""What the engine's `strip` takes away; other blanks of Unicode stay."""
_MEMORY = "256MB"


class _Caster:
    """A connection of its own, in UTC as the engine's; threads share it."""

    def __init__(self) -> None:
        # Loads only where a rule needs it.
        import duckdb

        self._lock = threading.Lock()
        self._duck = duckdb.connect(
            ":memory:",
            config={
                "threads": 1,
                "memory_limit": _MEMORY,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        self._duck.execute("SET TimeZone = 'UTC'")

    def cast(self, values: pa.Array, expression: str) -> pa.Array:
        """Return an expression over the column `value`, in order."""
        with self._lock:
            self._duck.register("given", pa.table({"value": values}))
            try:
                answer = self._duck.execute(f"SELECT {expression} AS cast_ FROM given")
                # Newer engines call it `to_arrow_table`.
                read = getattr(answer, "to_arrow_table", None) or answer.fetch_arrow_table
                column = read()["cast_"]
            finally:
                # A registered table stays in memory until its name is taken back.
                self._duck.unregister("given")
        return pa.concat_arrays(column.chunks) if column.num_chunks else values[:0]


@functools.cache
def _caster(process: int) -> _Caster:
    """Return the caster of a process: a connection does not live on in a forked one."""
    return _Caster()


def stripped(texts: pa.Array) -> pa.Array:
    """Return texts without the blanks around them that the engine takes away."""
    return pc.utf8_trim(texts, characters=_BLANKS)


def moments(texts: pa.Array) -> pa.Array:
    """Return texts as timestamps in microseconds of UTC; null for what is none."""
    return _of_texts(texts, "TIMESTAMP", pa.timestamp("us"))


def numbers(texts: pa.Array) -> pa.Array:
    """Return texts as doubles; null for what is none."""
    return _of_texts(texts, "DOUBLE", pa.float64())


def spelt(values: pa.Array) -> pa.Array:
    """Return numbers or moments as the texts that the engine writes."""
    if not len(values):
        return pa.array([], pa.string())
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    text = _caster(os.getpid()).cast(values, "CAST(value AS VARCHAR)")
    return text.cast(pa.string())


def _of_texts(texts: pa.Array, sql: str, kind: pa.DataType) -> pa.Array:
    # Each distinct text is cast once, however often it comes.
    coded = stripped(texts).cast(pa.string()).dictionary_encode()
    if not len(coded.dictionary):
        return pa.nulls(len(texts), kind)
    values = _caster(os.getpid()).cast(coded.dictionary, f"TRY_CAST(value AS {sql})")
    return values.cast(kind).take(coded.indices)


def lengths(value: pa.Array) -> np.ndarray | None:
    """Characters of texts, or elements of lists; None of other values."""
    t, kind = pa.types, value.type
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        sizes = pc.utf8_length(value)
    elif t.is_list(kind) or t.is_large_list(kind):
        sizes = pc.list_value_length(value)
    else:
        return None
    return np.asarray(pc.fill_null(sizes, 0).to_numpy(zero_copy_only=False), np.int64)
