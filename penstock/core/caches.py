"""Where this user's copies and notes lie on this machine; it imports nothing, since what is told last must
not need more.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where copies of what lies far away are kept: `PENSTOCK_CACHE`, or `~/.cache/penstock`."""
    return Path(os.environ.get("PENSTOCK_CACHE") or Path.home() / ".cache" / "penstock")
