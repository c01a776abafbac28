"""Where JSON's structure is in a stream of bytes: brackets and commas outside texts, and how deep each is.

Blocks are looked at one by one, in C loops; what is open at the end of one (a text, an escape, objects and
lists) is carried to the next. So a file of any size is cut into values in the memory of one block.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

OPENING, CLOSING = b"[{", b"]}"
COMMA = ord(",")
_QUOTE = ord('"')
# A backslash and what it escapes; no quote in it ends a text.
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_IS_MARK = np.zeros(256, bool)
_IS_MARK[list(b'"[]{},')] = True
_STEP = np.zeros(256, np.int64)
_STEP[list(OPENING)], _STEP[list(CLOSING)] = 1, -1


@dataclass(frozen=True)
class Marks:
    """The brackets and commas of a block that stand outside texts, in order."""

    places: np.ndarray
    """int64 `[marks]`: where they are in the block."""
    kinds: np.ndarray
    """uint8 `[marks]`: which characters they are."""
    depths: np.ndarray
    """int64 `[marks]`: how many objects and lists are open behind each."""


class Structure:
    """What is open between two blocks of a stream."""

    def __init__(self) -> None:
        self.depth = 0
        """Objects and lists that are open."""
        self.is_text = False
        """Whether a text is open."""
        self._is_escaped = False
        """Whether the next byte is escaped."""

    def marks(self, block: bytes) -> Marks:
        """The marks of the next block of the stream."""
        if self._is_escaped and block:
            block = b"_" + block[1:]
        # Escapes become letters, so that each quote that is left begins or ends a text.
        bare = _ESCAPE.sub(b"__", block) if b"\\" in block else block
        self._is_escaped = bare.endswith(b"\\")
        letters = np.frombuffer(bare, np.uint8)
        places = np.flatnonzero(_IS_MARK[letters])
        kinds = letters[places]
        quotes = kinds == _QUOTE
        within = (np.cumsum(quotes) + self.is_text) % 2 == 1
        self.is_text = bool(within[-1]) if len(within) else self.is_text
        outside = ~(within | quotes)
        places, kinds = places[outside], kinds[outside]
        depths = np.cumsum(_STEP[kinds]) + self.depth
        self.depth = int(depths[-1]) if len(depths) else self.depth
        return Marks(places, kinds, depths)
