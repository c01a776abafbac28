"""The small JSON files of a run: read with care, since they grow in the open and may be torn, copied or
changed.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from penstock.core.errors import StoreError
from penstock.core.jsons import parsed
from penstock.core.manifest import FORMAT
from penstock.core.paths import shown
from penstock.core.sound import number_of

_WORDS = ("id", "key", "dataset", "feed", "created", "base")
"""What every run.json says, as text."""
_STALE_SECONDS = 600.0
"""A run without a lease on another machine, whose diary has been silent for so long, is taken for dead."""


class Torn(StoreError):
    """A run's record is not there, or cannot be read."""


def json_of(content: bytes | None, path: Path) -> dict[str, Any]:
    """Read one of a run's JSON files.

    Raises:
        Torn: it is not there, or is no JSON object.
        StoreError: it is of a newer format.
    """
    if content is None:
        raise Torn(
            f"{path} is not there: the run was torn at its birth, or is no run of Penstock."
        )
    try:
        document = parsed(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Torn(f"{path} cannot be read as JSON; it was changed after it was written.")
    # Before anything else is believed: a newer format may mean other things by the same
    # words.
    if number_of(document.get("format", 0)) > FORMAT:
        raise StoreError(
            f"{path} has format {str(document['format'])[:40]}; this Penstock reads formats up to {FORMAT}."
            " Upgrade Penstock."
        )
    return document


def checked_facts(facts: dict[str, Any], path: Path, id: str) -> dict[str, Any]:
    """The content of run.json of the run `id`, checked for every word that is relied
    on.

    Raises:
        Torn: it lacks what is relied on, or tells of another run.
    """
    # As text: these words are joined to paths and compared.
    lacking = [word for word in _WORDS if not isinstance(facts.get(word), str)]
    if not isinstance(facts.get("process", {}), dict):
        lacking.append("process")
    if lacking or facts["id"] != id:
        why = (
            f"it has no {', '.join(lacking)}"
            if lacking
            else f"it tells of {shown(facts['id'])}"
        )
        raise Torn(
            f"{path} is not the record of {id}: {why}. It was changed after it was written, or copied from"
            " another run."
        )
    return facts


def lives(process: Mapping[str, Any], folder: Path) -> bool:
    """Whether the process of a run without a lease lives.

    Args:
        process: as run.json names it: `host`, `pid`, `started`.
        folder: the run's; on another machine the age of its files decides.
    """
    if process.get("host") != socket.gethostname():
        # Nobody can look into another machine; a live run writes its diary every few seconds.
        # The newest of the two: a run writes run.json rarely, its events often.
        touched = max(
            (
                path.stat().st_mtime
                for path in (folder / "events.jsonl", folder / "run.json")
                if path.exists()
            ),
            default=0.0,
        )
        return time.time() - touched < _STALE_SECONDS
    try:
        alive = psutil.Process(int(process["pid"]))
        # A pid may have been given to somebody else since.
        return bool(
            # Seconds: the time of a start is rounded differently by kernels and
            # containers.
            abs(alive.create_time() - float(process["started"])) < 1.0
            # A zombie has ended, though its pid is still taken.
            and alive.status() != psutil.STATUS_ZOMBIE
        )
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError, OverflowError):
        return False


def as_json(facts: Mapping[str, Any]) -> str:
    """The text in which a run's JSON files are written."""
    return json.dumps(facts, indent=1, ensure_ascii=False)


def now() -> str:
    """UTC, as 2026-11-21T07:50:24Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
