"""What a user names to be compared: a profile's file, a dataset; and two datasets row by row."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock.contracts.data import Engine
from penstock.core.errors import UserError
from penstock.core.jsons import parsed
from penstock.core.near import did_you_mean
from penstock.prepare.dataset import Dataset

_ENDINGS = (".yaml", ".yml", ".toml")
_MOST_BYTES = 64 << 20
"""A profile, or a recipe in JSON, is smaller; larger files are data."""
_WORDS = {"format", "columns", "findings", "looked_at"}
_ENGINE_BYTES = 1 << 30


def is_recipe_file(given: Any) -> bool:
    """Whether it is the path of a recipe: by its ending; in JSON by the word `source`."""
    if not isinstance(given, (str, Path)):
        return False
    text = str(given)
    if text.lower().endswith(_ENDINGS):
        return True
    facts = _object(text)
    return (
        facts is not None
        and isinstance(facts.get("source"), (dict, str))
        and (not facts.keys() >= _WORDS)
    )


def read_profile(given: str | Path) -> dict[str, Any] | None:
    """The profile that a file of `profile -o` holds; None of any other file."""
    facts = _object(str(given))
    return facts if facts is not None and facts.keys() >= _WORDS else None


def _object(path: str) -> dict[str, Any] | None:
    if not path.lower().endswith(".json"):
        return None
    try:
        file = Path(path)
        if not file.is_file() or file.stat().st_size > _MOST_BYTES:
            return None
        value = parsed(file.read_bytes())
    except (OSError, ValueError, json.JSONDecodeError):
        return None
    return value if isinstance(value, dict) else None


def dataset_reference(given: str) -> str | None:
    """`NAME@ID`, or a subset `NAME@ID?where=…`, where no file is called so and no URL is meant."""
    # A condition may hold any sign, and be longer than a path may.
    name = given.partition("?")[0]
    if "@" not in name or "/" in name or os.path.exists(given):
        return None
    return given


def keyed_rows(a: Any, b: Any, key: Sequence[str]) -> dict[str, Any]:
    """How many rows of two datasets came, went and changed, by key, on disk.

    Returns:
        `key`, `added`, `removed`, `changed`, `same`, and `changed_columns`: in how many rows each differs.

    Raises:
        UserError: they are no datasets, a column is not in both, or a key is not unique.
    """
    if not isinstance(a, Dataset) or not isinstance(b, Dataset):
        raise UserError(
            "--key compares two datasets of the store, each given as NAME@ID."
        )
    both = [
        name for name in a.schema.names if name in b.schema.names and name != "row_id"
    ]
    for name in key:
        if name not in both:
            raise UserError(
                f"{name!r} is no column of both datasets.{did_you_mean(name, both)}"
            )
    with (
        tempfile.TemporaryDirectory(prefix="penstock-diff-") as scratch,
        Engine.load("embedded").open(
            Path(scratch), memory_bytes=_ENGINE_BYTES, threads=2
        ) as session,
    ):
        return _keyed(session, a, b, list(key), both)


def _keyed(
    session: Any, a: Dataset, b: Dataset, key: list[str], both: list[str]
) -> dict[str, Any]:
    sides = []
    for dataset in (a, b):
        files = [
            path
            for split in ("train", "validation", "test")
            for path in dataset.files(split)
        ]
        table = session.read(files, both)
        counts = session.measure(table, {"rows": table.count()})
        different = table.select(*key).distinct()
        if (
            session.measure(different, {"rows": different.count()})["rows"]
            != counts["rows"]
        ):
            raise UserError(
                f"{', '.join(key)} is not different in every row of {dataset.reference}: a key must be."
            )
        sides.append((table, int(counts["rows"])))
    (first, before), (second, after) = sides
    others = [name for name in both if name not in key]
    renamed = second.select(**{f"__p_{i}": second[name] for i, name in enumerate(both)})
    place = {name: f"__p_{i}" for i, name in enumerate(both)}
    paired = first.inner_join(
        renamed, [first[name] == renamed[place[name]] for name in key]
    )
    differs = {name: ~paired[name].identical_to(paired[place[name]]) for name in others}
    aggregates = {"rows": paired.count()}
    for i, name in enumerate(others):
        aggregates[f"c{i}"] = differs[name].sum()
    if others:
        whole = differs[others[0]]
        for name in others[1:]:
            whole = whole | differs[name]
        aggregates["changed"] = whole.sum()
    totals = session.measure(paired, aggregates)
    shared, changed = int(totals["rows"]), int(totals.get("changed") or 0)
    columns = {name: int(totals[f"c{i}"] or 0) for i, name in enumerate(others)}
    return {
        "key": key,
        "added": after - shared,
        "removed": before - shared,
        "changed": changed,
        "same": shared - changed,
        "changed_columns": {name: n for name, n in columns.items() if n},
    }
