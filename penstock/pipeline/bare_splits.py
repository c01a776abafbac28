"""Tables without a header whose endings are splits, such as UCI's `adult.data` and `adult.test`.

Their test files have quirks that the training file lacks: a first line that is no row, and a dot behind each
class. Both are found by holding the files against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.contracts.data import PLACE, ROW_FILE
from penstock.contracts.sample import Sample

_LINE_BYTES = 1 << 16
_DELIMITERS = (",", ";", "\t", "|")


def reading_of(files: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Reading options: by split its own, and of all under an empty text.

    Args:
        files: by split, a local path; others are left as they are.
    """
    lines = {s: _first_lines(path) for s, path in files.items() if Path(path).is_file()}
    first = lines.get("train", [""])[0]
    mark = max(_DELIMITERS, key=first.count)
    words: dict[str, dict[str, Any]] = {}
    # A header has no numbers among its names.
    if any(_is_number(cell) for cell in first.split(mark)):
        words[""] = {"header": False}
    for split, (head, *rest) in lines.items():
        if rest and mark not in head and mark in rest[0]:
            words[split] = {"skip_rows": 1}
    return words


def _first_lines(path: str) -> list[str]:
    with open(path, "rb") as file:
        start = file.read(_LINE_BYTES)
    return start.decode("utf-8", "replace").splitlines()[:2] or [""]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def dotted(sample: Sample, split: str) -> dict[str, str]:
    """Columns whose every value in a split has a dot behind that the training file's lack."""
    own = [i for i, file in enumerate(sample.files) if file.split == split]
    mine = pa.array(np.isin(sample.table.column(ROW_FILE).to_numpy(), own))
    theirs = pa.compute.invert(mine)
    dots = {}
    for name in sample.table.column_names:
        column = sample.table.column(name)
        if name in PLACE or not pa.types.is_string(column.type):
            continue
        here = set(column.filter(mine).unique().drop_null().to_pylist())
        there = set(column.filter(theirs).unique().drop_null().to_pylist())
        ends = here and all(value.endswith(".") for value in here)
        if ends and {value[:-1] for value in here} <= there:
            dots[name] = "."
    return dots
