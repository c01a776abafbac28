"""Finds the modules that words of a recipe name: those behind every dotted `type`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def modules_in(declared: Mapping[str, Any]) -> list[str]:
    """Return the modules behind every dotted `type` of a recipe as plain data, sorted."""
    return sorted(
        {
            word.partition(":")[0]
            for word in _types(declared)
            if "." in word or ":" in word
        }
    )


def _types(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("type"), str):
            yield value["type"]
        for item in value.values():
            yield from _types(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _types(item)
