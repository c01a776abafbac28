"""The engine in this process: Ibis on DuckDB, out of core.

Memory. DuckDB keeps its own limit, but a process that runs it holds more: the interpreter and its libraries
(about 250 MB), Arrow batches on their way through Python, and what the allocator has not given back
(measured: up to 170 MB above a limit of 500 MB while sorting and writing Parquet on two threads). So it gets
`_SHARE` of what is left of the ceiling after `_BASE_BYTES`. What does not fit is spilled under the scratch
folder.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from penstock.contracts.data import Engine, EngineSession
from penstock.parts.engines._duck import Session

_BASE_BYTES = 300 * 2**20
_SHARE = 0.6
_LEAST_BYTES = 96 * 2**20
_BYTES_A_THREAD = 64 * 2**20


class Embedded(Engine):
    """DuckDB in this process: all cores, spilling to disk beyond its memory."""

    memory_share: float = Field(_SHARE, gt=0, le=0.9)
    """Share of `resources.memory`, after the interpreter's part, that DuckDB may hold before it spills."""

    def open(self, scratch: Path, *, memory_bytes: int, threads: int) -> EngineSession:
        limit = max(int((memory_bytes - _BASE_BYTES) * self.memory_share), _LEAST_BYTES)
        return Session(
            scratch,
            limit_bytes=limit,
            # With little memory, fewer threads: each fills a row group and vectors of
            # its own.
            threads=max(1, min(threads, limit // _BYTES_A_THREAD)),
        )
