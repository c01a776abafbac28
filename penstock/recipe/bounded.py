"""Bounds on plain data from anyone: how deep it nests, and how much it holds once its
aliases are written out.

A YAML file of one kilobyte may stand for a billion values (each line naming the one above ten times), and a
few thousand brackets exhaust Python's stack. Every recipe passes here, whether it was YAML, TOML, JSON,
`--set` or a mapping of Python's; so do the recipes that artefacts hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from penstock.core.errors import RecipeError, dotted

MOST_DEEP = 100
"""Levels of lists and mappings within one another."""
MOST_VALUES = 1_000_000
"""Words and values in all."""
MOST_CHARACTERS = 256 * 2**20
"""Characters in all: four included files of the largest size."""
MOST_DIGITS = 40
_MOST_INTEGER = 10**MOST_DIGITS
_SCALARS = (str, int, float, bool, type(None))


class BoundedLoader(yaml.SafeLoader):
    """Safe YAML loader that counts the document's size before it builds anything."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values, self._characters = 0, 0
        self._sizes: dict[int, tuple[int, int]] = {}
        """By node that has an anchor, once it is whole: its values and characters."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose one node; what an alias stands for is counted again."""
        event = self.peek_event()
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            # An alias is not read again, but what it stands for counts again.
            node = super().compose_node(parent, index)
            size = self._sizes.get(id(node))
            # The anchor's node is not whole yet, so the alias lies within it.
            if size is None:
                raise yaml.composer.ComposerError(
                    None, None, f"*{event.anchor} refers to itself", mark
                )
            self._count(*size, mark)
            return node
        before = self._values, self._characters
        self._depth += 1
        if self._depth > MOST_DEEP:
            raise yaml.composer.ComposerError(
                None, None, f"lists and mappings nest more than {MOST_DEEP} deep", mark
            )
        self._count(
            1, len(event.value) if isinstance(event, yaml.ScalarEvent) else 0, mark
        )
        node = super().compose_node(parent, index)
        self._depth -= 1
        # Remembered by node: aliases resolve to the very same object.
        if event.anchor is not None:
            self._sizes[id(node)] = (
                self._values - before[0],
                self._characters - before[1],
            )
        return node

    def _count(self, values: int, characters: int, mark: Any) -> None:
        self._values += values
        self._characters += characters
        if self._values > MOST_VALUES:
            raise yaml.composer.ComposerError(
                None,
                None,
                f"with its aliases written out it holds more than {MOST_VALUES:,} values",
                mark,
            )
        if self._characters > MOST_CHARACTERS:
            raise yaml.composer.ComposerError(
                None,
                None,
                f"with its aliases written out it holds more than {MOST_CHARACTERS >> 20} million characters",
                mark,
            )

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Construct a node's value; a value that cannot be read is reported with its
        place.
        """
        try:
            return super().construct_object(node, deep=deep)
        # PyYAML's own constructors raise these for malformed scalars.
        except (ValueError, OverflowError, TypeError, KeyError, AttributeError) as error:
            text = (
                f"this value cannot be read as {node.tag.rsplit(':', 1)[-1][:40]}:"
                f" {str(error).split(';')[0][:200]}"
            )
            raise yaml.constructor.ConstructorError(
                None, None, text, node.start_mark
            ) from None


def unique_words(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; a word that is given twice is refused.

    Raises:
        ValueError: a word is given twice.
    """
    whole: dict[str, Any] = {}
    for word, value in pairs:
        if word in whole:
            raise ValueError(f"the word {word[:80]!r} is given twice")
        whole[word] = value
    return whole


def refuse_unbounded(data: Any, *, where: str) -> None:
    """Check plain data before anything else reads it; what stands in it twice counts
    twice.

    Raises:
        RecipeError: it is too deep or too large, stands within itself, or holds what no recipe can say.
    """
    _Look(where).look(data)


class _Look:
    """Walks data once without recursion, since it may be deeper than Python's stack."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._sizes: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()
        self._values, self._characters = 0, 0

    def look(self, data: Any) -> None:
        """Visit every value once, in order; a container seen before is counted by its
        size.
        """
        path: list[str | int] = []
        stack: list[tuple[Any, Any, tuple[int, int]]] = []
        self._enter(data, path, stack)
        while stack:
            whole, rest, before = stack[-1]
            # Entries are pairs, so None means that the container has no more.
            entry = next(rest, None)
            if entry is None:
                stack.pop()
                self._open.discard(id(whole))
                self._sizes[id(whole)] = (
                    self._values - before[0],
                    self._characters - before[1],
                )
                if path:
                    path.pop()
                continue
            step, value = entry
            path.append(step)
            if not self._enter(value, path, stack):
                path.pop()

    def _enter(
        self,
        value: Any,
        path: list[str | int],
        stack: list[tuple[Any, Any, tuple[int, int]]],
    ) -> bool:
        """Count a value; True where it is a container that is to be walked."""
        if not isinstance(value, (Mapping, list, tuple)):
            self._leaf(value, path)
            return False
        if id(value) in self._open:
            self._refuse(path, "refers to itself")
        # Counted by its size without a second walk, or aliases would cost as much as
        # they stand for.
        if id(value) in self._sizes:
            self._count(*self._sizes[id(value)], path)
            return False
        # Only the beginning of a path that deep fits into a sentence.
        if len(stack) >= MOST_DEEP:
            self._refuse(path[:8], f"lists and mappings nest more than {MOST_DEEP} deep")
        before = self._values, self._characters
        self._count(1, 0, path)
        self._open.add(id(value))
        rest = (
            self._words(value, path)
            if isinstance(value, Mapping)
            else iter(enumerate(value))
        )
        stack.append((value, rest, before))
        return True

    def _words(self, value: Mapping[Any, Any], path: list[str | int]) -> Any:
        for word, below in value.items():
            if not isinstance(word, _SCALARS):
                self._refuse(path, f"a word is a text; found a {type(word).__name__}")
            self._leaf(word, path)
            yield (word if isinstance(word, str) else str(word)[:80]), below

    def _leaf(self, value: Any, path: list[str | int]) -> None:
        self._count(1, len(value) if isinstance(value, str) else 0, path)
        if isinstance(value, str):
            try:
                # JSON escapes can bring half of a surrogate pair, which no file could
                # hold.
                value.encode()
            except UnicodeEncodeError:
                self._refuse(
                    path,
                    "holds half of a surrogate pair, which is no character; write the character itself",
                )
        elif isinstance(value, int) and not -_MOST_INTEGER < value < _MOST_INTEGER:
            self._refuse(path, f"an integer has at most {MOST_DIGITS} digits")

    def _count(self, values: int, characters: int, path: list[str | int]) -> None:
        self._values += values
        self._characters += characters
        if self._values > MOST_VALUES:
            self._refuse(path[:4], f"a recipe holds at most {MOST_VALUES:,} values")
        if self._characters > MOST_CHARACTERS:
            self._refuse(
                path[:4],
                f"a recipe holds at most {MOST_CHARACTERS >> 20} million characters",
            )

    def _refuse(self, path: list[str | int], text: str) -> None:
        # Escaped, since a word may hold control characters that a terminal obeys.
        place = ascii(dotted(path)[:200])[1:-1]
        raise RecipeError(f"{self._where}: {place + ': ' if place else ''}{text}.")
