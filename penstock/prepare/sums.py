"""What two halves of a version say of themselves, as the whole would say it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from penstock.core.store import as_store_error
from penstock.core.wording import without_values
from penstock.prepare.ledger import MOST_REASONS

_BATCH = 8_192
_WANTED = ["stage", "column", "reason", "file", "line"]


def counts(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    """Rows by heading."""
    return {word: old.get(word, 0) + new.get(word, 0) for word in {**old, **new}}


def reasons(
    quarantines: Sequence[Path], files: Mapping[str, int]
) -> list[dict[str, Any]] | None:
    """Why rows are in quarantine, counted as a preparation counts them; None where that would lump some.

    Args:
        files: of the source, by path: their places in its order.
    """
    entries: dict[tuple[str, str, str], dict[str, Any]] = {}
    first: dict[tuple[str, str, str], tuple[int, int]] = {}
    for path in quarantines:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH, columns=_WANTED):
                for row in batch.to_pylist():
                    key = (
                        row["stage"],
                        row["column"] or "",
                        without_values(row["reason"] or ""),
                    )
                    entry = entries.setdefault(
                        key, {"stage": row["stage"], "column": row["column"], "rows": 0}
                    )
                    entry["rows"] += 1
                    spot = files.get(row["file"], 0), row["line"] or 0
                    # The example is that of the first row in the source.
                    if key not in first or spot < first[key]:
                        first[key] = spot
                        entry["example"] = row["reason"]
    if len(entries) >= MOST_REASONS:
        return None
    return sorted(
        entries.values(),
        key=lambda e: (-e["rows"], e["stage"], e["column"] or "", e["example"]),
    )


def rules(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What rules on single rows found."""
    return [
        {**ours, "rows": theirs["rows"] + ours["rows"]}
        for theirs, ours in zip(old, new, strict=True)
    ]


def changes(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What cleaners changed. Examples are those of the older half, where it has any."""
    return [
        {
            **ours,
            "rows_dropped": theirs["rows_dropped"] + ours["rows_dropped"],
            "cells": counts(theirs["cells"], ours["cells"]),
            **(
                {"examples": {**ours["examples"], **theirs["examples"]}}
                if "examples" in ours
                else {}
            ),
        }
        for theirs, ours in zip(old, new, strict=True)
    ]


def save_changes(old: Path, folder: Path) -> None:
    """Put the older half's `changes.json` to that in a folder."""
    path = folder / "changes.json"
    theirs, ours = (json.loads(p.read_text("utf-8"))["clean"] for p in (old, path))
    save(path, {"clean": changes(theirs, ours)})


def save(path: Path, data: Mapping[str, Any]) -> None:
    """Write a file of a draft as JSON."""
    with as_store_error(path):
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False), "utf-8")
