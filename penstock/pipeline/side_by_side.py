"""Text files that go together line by line, such as `train.en.gz` and `train.de.gz`.

No source reads them so, and one command makes a table of each pair.
"""

from __future__ import annotations

import gzip
import os
import re
import shlex
import zlib
from collections.abc import Sequence
from pathlib import PurePosixPath

from penstock.core.errors import SourceError
from penstock.formats.shelf import is_table

_ABOUT = re.compile(r"^(readme|licen[cs]e|copying)|\.(md|pdf|py)$", re.IGNORECASE)
_MOST_FILES = 40
_MOST_BYTES = 256 << 20
"""Of a file whose lines are counted, packed."""
_CHUNK = 1 << 20


def refuse_side_by_side(folder: str) -> None:
    """Refuse a folder of such files, with the command that joins them.

    Args:
        folder: a local one; of others nothing is asked.

    Raises:
        SourceError: every file in it has a partner with as many lines.
    """
    pairs = _pairs(folder)
    if not pairs:
        return
    first, endings = next(iter(pairs.items()))
    names = [f"{first}{ending}" for ending in endings]
    lines = [_lines(os.path.join(folder, name)) for name in names]
    if len(set(lines)) != 1 or not lines[0]:
        return
    columns = [_column(ending) for ending in endings]
    where = shlex.quote(folder)
    head = "\\t".join(columns)
    parts = " ".join(f"<({_unpack(e)} {where}/$s{e})" for e in endings)
    stems = " ".join(map(shlex.quote, pairs))
    raise SourceError(
        f"{' and '.join(names)} in {folder} go together line by line ({lines[0]:,} lines each), and no source"
        " joins files so. Make a table of each pair first, in bash:\n"
        f"  mkdir -p pairs; for s in {stems}; do {{ printf '{head}\\n'; paste {parts}; }} >"
        ' pairs/"$s".tsv; done\n'
        f"  penstock init pairs --target {columns[-1]}"
    )


def _pairs(folder: str) -> dict[str, tuple[str, ...]]:
    """By beginning of the name: the endings that it has; nothing unless all have the same few."""
    if not os.path.isdir(folder):
        return {}
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if not _ABOUT.search(e.name))
    if not 2 <= len(names) <= _MOST_FILES:
        return {}
    pairs: dict[str, list[str]] = {}
    for name in names:
        bare = name.removesuffix(".gz")
        stem, ending = PurePosixPath(bare).stem, PurePosixPath(bare).suffix
        if not re.fullmatch(r"\.[A-Za-z]{2,8}", ending) or is_table(bare):
            return {}
        pairs.setdefault(stem, []).append(name[len(stem) :])
    kinds = {tuple(endings) for endings in pairs.values()}
    if len(kinds) != 1 or len(next(iter(kinds))) < 2:
        return {}
    order = _sources_first(next(iter(kinds)))
    # The training pair is the one that is shown.
    stems = sorted(pairs, key=lambda stem: (not stem.startswith("train"), stem))
    return dict.fromkeys(stems, order)


def _sources_first(endings: Sequence[str]) -> tuple[str, ...]:
    """The column that is read before the one that is written: English before others, `.src` before `.tgt`."""
    first = (".en", ".src", ".source", ".input")
    return tuple(
        sorted(endings, key=lambda e: (e.removesuffix(".gz").lower() not in first, e))
    )


def _column(ending: str) -> str:
    return ending.removesuffix(".gz")[1:]


def _unpack(ending: str) -> str:
    return "gzip -dc" if ending.endswith(".gz") else "cat"


def _lines(path: str) -> int:
    """Lines of a file; 0 where it is too large to be counted, or cannot be read."""
    if os.path.getsize(path) > _MOST_BYTES:
        return 0
    opened = gzip.open if path.endswith(".gz") else open
    count = 0
    try:
        with opened(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                count += chunk.count(b"\n")
    except (OSError, EOFError, zlib.error):
        return 0
    return count
