"""What the tests of formats share: files written, read, and what came of it."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from penstock.core.events import Event, Events
from penstock.formats import Input, Reading, extract


class Read:
    """What came of reading one or more files."""

    def __init__(self, folder: Path, *files: Path, reading: dict | None = None) -> None:
        self.events: list[Event] = []
        inputs = [
            Input(f.name, str(f), Reading.model_validate(reading or {}), f.stat().st_size)
            for f in files
        ]
        made = extract(
            inputs,
            folder / "scratch",
            memory_bytes=1 << 28,
            events=Events(self.events.append),
        )
        self.table = pq.read_table(made.parquet)
        self.schema, self.rows, self.rejected = made.schema, made.rows, made.rejected
        self.rejects = [r for p in made.rejects for r in pq.read_table(p).to_pylist()]

    @property
    def records(self) -> list[dict]:
        return self.table.select(self.schema.names).to_pylist()

    @property
    def types(self) -> dict[str, str]:
        return {f.name: str(f.type) for f in self.schema}

    @property
    def said(self) -> str:
        return "\n".join(
            e.fields["text"] for e in self.events if e.name in ("said", "warned")
        )

    @property
    def bad_lines(self) -> list[int]:
        return [r["line"] for r in self.rejects]


@pytest.fixture
def read(tmp_path):
    def go(text: str | bytes, name: str = "a.csv", **reading) -> Read:
        file = tmp_path / name
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return Read(tmp_path, file, reading=reading)

    return go
