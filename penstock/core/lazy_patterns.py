"""Patterns that are compiled when they are first asked: a command that blanks nothing waits for none."""

from __future__ import annotations

import re
from typing import Any, cast


class _Lazy:
    """Stands for a compiled pattern; each of its methods is looked up once."""

    def __init__(self, text: str, flags: int) -> None:
        self._text, self._flags = text, flags

    def __getattr__(self, name: str) -> Any:
        # `re` keeps what it compiled, but forgets it where many patterns are compiled.
        compiled = self.__dict__.setdefault(
            "_compiled", re.compile(self._text, self._flags)
        )
        value = self.__dict__[name] = getattr(compiled, name)
        return value


def lazily(text: str, flags: int = 0) -> re.Pattern[str]:
    """`re.compile(text, flags)`, done when the pattern is first used."""
    return cast("re.Pattern[str]", _Lazy(text, flags))


__all__ = ["lazily"]
