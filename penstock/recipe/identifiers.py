"""Names in a recipe: of columns, one or many; and its own, which becomes a folder of the store."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from penstock.core.paths import shown

_LONGEST_NAME = 100


def one_or_many(value: Any) -> Any:
    """A list of names, where one may stand alone."""
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(one_or_many)]
"""One name or a list of names."""


def shelf_name(name: str) -> str:
    """A name that becomes a folder of the store."""
    if name.startswith("."):
        raise ValueError(f"names a folder of the store, so it must not begin with a dot; found {shown(name)}")
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"names a folder of the store, so it has at most {_LONGEST_NAME} characters; found {len(name)}")
    return name
