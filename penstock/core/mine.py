"""What this user made on this machine: a private record, outside of every store.

Lying in a store proves nothing, since others may write there. So what was made here by the user's own code is
noted here, by its content, and recognised by it later. A record that others could have written is no record.

    <PENSTOCK_STATE, or $XDG_STATE_HOME/penstock, or ~/.local/state/penstock>/<kind>-<fingerprint>.json

Where it cannot be kept, nothing is recognised, and the user is asked for --trust.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.core.errors import StoreError
from penstock.core.identity import fingerprint
from penstock.core.jsons import parsed
from penstock.core.store import atomic_write


def state_folder() -> Path:
    """Where the records of this user are kept."""
    if own := os.environ.get("PENSTOCK_STATE"):
        return Path(own).expanduser()
    return (
        Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
        / "penstock"
    )


def remember(kind: str, name: str, facts: Mapping[str, Any]) -> None:
    """Note what was made here; `facts` hold the digests of its content. Failures are
    ignored.
    """
    with contextlib.suppress(
        OSError, RuntimeError, StoreError
    ):  # without a record the user is asked
        folder = state_folder()
        # 0700: what others could write would prove nothing.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = _file(folder, kind, name)
        atomic_write(file, json.dumps(facts))
        file.chmod(0o600)


def recall(kind: str, name: str) -> dict[str, Any] | None:
    """The facts that `remember` noted; None unless only this user can have written
    them.
    """
    try:
        folder = state_folder()
        file = _file(folder, kind, name)
        # Folder and file: in a folder that others may write to, a file can be
        # exchanged.
        if not (_is_private(folder, stat.S_ISDIR) and _is_private(file, stat.S_ISREG)):
            return None
        facts = parsed(file.read_text("utf-8"))
    except (OSError, ValueError, RuntimeError):
        return None
    return facts if isinstance(facts, dict) else None


def _file(folder: Path, kind: str, name: str) -> Path:
    return folder / f"{kind}-{fingerprint(name)}.json"


def _is_private(path: Path, is_kind: Any) -> bool:
    """Whether `path` belongs to this user, is no link, and nobody else may write it."""
    # `lstat`: a link could lead to somebody else's file.
    info = path.lstat()
    owned = not hasattr(os, "getuid") or info.st_uid == os.getuid()
    return bool(
        is_kind(info.st_mode)
        and owned
        and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
