"""Names in a recipe: of columns, one or many; and its own, which becomes a folder of the store."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from penstock.core.paths import shown

_LONGEST_NAME = 100
_DEVICES = frozenset(
    {
        "CON",
        "PRN",
        "AUX",
        "NUL",
        *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10)),
    }
)
"""What no folder can be called on Windows, in whatever case: a store is copied from one system to another."""


def one_or_many(value: Any) -> Any:
    """Wrap a single name in a list."""
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(one_or_many)]
"""One name or a list of names."""


def shelf_name(name: str) -> str:
    """Check a name that becomes a folder of the store; whether every system can hold it
    is `unportable`'s to say.
    """
    if name.startswith("."):
        raise ValueError(
            f"names a folder of the store, so it must not begin with a dot; found {shown(name)}"
        )
    if len(name) > _LONGEST_NAME:
        raise ValueError(
            f"names a folder of the store, so it has at most {_LONGEST_NAME} characters; found {len(name)}"
        )
    return name


def unportable(name: str) -> str | None:
    """Return why a store with a folder of this name cannot be copied to every system;
    None where it can.

    Asked of what is to be made. What an earlier version has made under such a name opens as ever.
    """
    if name.endswith("."):
        return (
            "names a folder of the store, so it must not end with a dot, which Windows drops; found"
            f" {shown(name)}"
        )
    if name.split(".", 1)[0].upper() in _DEVICES:
        return (
            f"names a folder of the store, and {shown(name)} is a device of Windows, with an ending as well;"
            f" call it otherwise, such as {shown('my-' + name)}"
        )
    return None


def shelvable(text: str) -> str:
    """A text as a name that a recipe may have on every system: what no name may hold becomes `-`."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    if name and unportable(name) is not None:
        name = f"my-{name}"
    # The cut may leave a dot at the end.
    return name[:_LONGEST_NAME].rstrip("-.") or "unnamed"
