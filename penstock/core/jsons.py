"""JSON that others wrote, read: whatever is wrong with it is one kind of error."""

from __future__ import annotations

import json
from typing import Any


def parsed(text: str | bytes) -> Any:
    """What a text of JSON says.

    Raises:
        ValueError: it is none, or nests deeper than Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
