"""Reads JSON at a cost that follows from the body's size, in steps that never block the
event loop for long.

A decoder in C holds the interpreter's lock from the first byte to the last: 45 MB of `{}` are five seconds in
which nobody else is answered, whichever thread decodes, and a gigabyte of empty objects. So a large body is
read in windows of 64 KiB: what fits into a window is decoded at once by the C decoder, what does not is taken
apart here, one level at a time. After each window the reader adds up what the values take in memory, and
stops where that, or the number of rows, is too much.

Stricter than Python's decoder: a key that occurs twice in one object has no one meaning, half of a surrogate
pair is no text, and 64 levels are the deepest. Like it, `NaN`, `Infinity` and `1e999` are read (as they
always were; a feature may refuse them).
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from penstock.core.errors import RequestError

WINDOW = 1 << 16
"""Bytes decoded in one call of the C decoder: about 10 ms of the interpreter's lock at the very worst."""
SHOWN = 80
"""Characters of a value that an error repeats."""
DEEPEST = 64
"""Levels of lists and objects in one another."""
LEAST_BYTES = 64 * 2**20
"""What the values of one request may take in memory, at least; in general, four times the largest body."""

_SPACE = re.compile(r"[ \t\n\r]*")
# Possessive quantifiers never backtrack, so a text without an end costs one pass.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_UNSURE = 4
"""A number that ends so near a window's end may go on behind it (`1e+` | `5`)."""
_TEXT_WORTH_A_RUN = 1024


class Malformed(RequestError):
    """The body is not a request of the protocol; a 400 over HTTP."""


class TooLarge(RequestError):
    """The body holds more than the server takes at once; a 413 over HTTP."""


def shown(value: Any) -> str:
    """Show a value in an error message, cut to one line."""
    # 2**256 is the least number of so many bits, and has 78 digits.
    if isinstance(value, int) and value.bit_length() > 256:
        return "a whole number of more than 77 digits"
    # Cut before `repr`, which would otherwise build the text of the whole value.
    short = value[:SHOWN] if isinstance(value, (str, list)) else value
    try:
        text = repr(short)
    except RecursionError:
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def most_bytes(max_request_bytes: int) -> int:
    """Return how many bytes of memory the values of one request may take, given the
    largest body.
    """
    return max(LEAST_BYTES, 4 * max_request_bytes)


def read_json(
    body: bytes | bytearray | memoryview,
    *,
    most: int = LEAST_BYTES,
    rows: int | None = None,
    key: str | Sequence[str] = (),
) -> Any:
    """Parse a JSON body within limits of rows, memory and depth.

    Args:
        body: JSON in UTF-8.
        most: bytes that its values may take in memory.
        rows: the most items of the outermost list, or of the list at `key` of the outermost object; None for
            any number.
        key: see `rows`; one key or several.

    Raises:
        Malformed: it is not JSON; says where.
        TooLarge: it has too many rows, or its values would take too much memory.
    """
    keys = (key,) if isinstance(key, str) else tuple(key)
    try:
        # A body within one window holds the interpreter's lock for one short call.
        if len(body) <= WINDOW:
            value = _whole(str(body, "utf-8"))
            holders = [value.get(k) for k in keys] if isinstance(value, dict) else [value]
            for listed in holders:
                # Counted after decoding: so few bytes cannot hold many values.
                if rows is not None and isinstance(listed, list):
                    _few(len(listed), rows)
            return value
        return _Reader(body, most=most, rows=rows, keys=keys).read()
    # The C decoder recurses once a level, and meets the interpreter's limit before
    # `_check` counts.
    except RecursionError:
        raise Malformed(f"the body is nested more than {DEEPEST} levels deep") from None
    except UnicodeDecodeError as error:
        raise Malformed(
            f"the body is not JSON: it is not UTF-8 ({error.reason}); send text in UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise Malformed(
            f"the body is not JSON: {error.msg} at character {error.pos}"
        ) from None


def _few(count: int, rows: int) -> None:
    if count > rows:
        raise TooLarge(
            f"the request has {count} rows; at most {rows} are taken at once (serve.max_rows)"
        )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object from its members; a key that occurs twice is refused."""
    # Fewer keys than pairs means that a key repeats; only then is it searched for.
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name in counts if counts[name] > 1)
        raise Malformed(
            f"an object of the body has the key {twice[:80]!r} twice; give each key once"
        )
    return value


def _integer(digits: str) -> int:
    try:
        return int(digits)
    # Python converts at most 4300 digits (`sys.set_int_max_str_digits`).
    except ValueError:
        raise Malformed(
            f"the body has a whole number of {len(digits)} digits; send at most 4300"
        ) from None


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
_scan: Callable[[str, int], tuple[Any, int]] = _DECODER.scan_once  # type: ignore[attr-defined]
"""The value that begins at a place of a text, and where it ends."""


def _whole(text: str) -> Any:
    value = _DECODER.decode(text)
    _check(text, value)
    return value


def _check(text: str, value: Any) -> None:
    """Refuse what the C decoder lets through: halves of surrogate pairs, and too many
    levels.

    Raises:
        Malformed: one of them is there.
    """
    # Only an escape can bring half of a pair, since UTF-8 refuses it: other bodies skip
    # the search.
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Malformed(
                "the body has half of a surrogate pair (\\ud800 to \\udfff alone), which is no text"
            ) from None
    # Brackets within texts count here, too: an upper bound that spares most bodies the
    # exact depth.
    if text.count("[") + text.count("{") > DEEPEST:
        _shallow(_depth(_bare(text)))


def _shallow(depth: int) -> None:
    if depth > DEEPEST:
        raise Malformed(f"the body is nested more than {DEEPEST} levels deep")


def _bare(text: str) -> str:
    """Remove the texts from a piece of JSON: their commas and brackets are no syntax."""
    if '"' not in text:
        return text
    # Doubled backslashes go first, so that a backslash before a quote is an escape.
    plain = text.replace("\\\\", "").replace('\\"', "") if "\\" in text else text
    # Every second piece lies outside of the quotes.
    return "".join(plain.split('"')[::2])


# An opening bracket counts +1, a closing one -1 (255 as int8), any other byte 0.
_STEPS = bytes(1 if byte in b"[{" else 255 if byte in b"]}" else 0 for byte in range(256))


def _depth(bare: str) -> int:
    """Count how deep lists and objects nest in a piece of JSON."""
    # A character beyond Latin-1 becomes `?`, which is no bracket.
    steps = np.frombuffer(bare.encode("latin-1", "replace").translate(_STEPS), np.int8)
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0))


def _weight(text: str) -> int:
    """Estimate the bytes of memory of a piece's values: 32 a value, more for lists and
    objects, plus the text.
    """
    bare = _bare(text)
    # CPython stores a text of wide characters with up to four bytes each.
    width = 1 if text.isascii() else 4
    return (
        32 * (1 + bare.count(","))
        + 64 * bare.count("[")
        + 200 * bare.count("{")
        + (len(text) - len(bare)) * width
    )


class Memory:
    """What the values of one request may take in memory, and have taken.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._weight = 0

    def add(self, weight: int) -> None:
        """Count bytes of values.

        Raises:
            TooLarge: together they are too many.
        """
        self._weight += weight
        if self._weight > self._most:
            raise TooLarge(
                f"the values of the request take more than {self._most >> 20} MiB of memory once they are"
                " read; send fewer rows, or tensors in binary"
            )


def read_text(text: str, memory: Memory) -> Any:
    """Parse one of several JSON texts of a request, which share its memory.

    Raises:
        Malformed: it is not JSON; says where.
        TooLarge: the values of all texts would take too much memory.
    """
    # Counted before it is decoded: many small texts take as much as a large one.
    memory.add(_weight(text))
    return read_json(text.encode())


class _Reader:
    """Reads a large body in windows of `WINDOW` bytes."""

    def __init__(
        self,
        body: bytes | bytearray | memoryview,
        *,
        most: int,
        rows: int | None,
        keys: tuple[str, ...],
    ) -> None:
        self._body = memoryview(body)
        self._memory = Memory(most)
        self._rows = rows
        self._keys = keys
        self._start = 0
        """Where the window begins, in bytes."""
        self._text = ""
        self._at = 0
        """Where in the window the reader is, in characters."""
        self._last = False
        """Whether the window reaches the end of the body."""
        self._runs = True
        """Whether, in this window, many items of a list may still be decoded at once."""
        self._open(0)

    def read(self) -> Any:
        first = self._next()
        if first == "[" and self._rows is not None:
            value: Any = self._items(1, self._rows)
        elif first == "{" and self._keys:
            value = self._members(1)
        else:
            value = self._value(1)
        if self._next():
            raise self._broken("something follows the end of the JSON")
        return value

    # -- windows ---------------------------------------------------------------------------------------------

    def _open(self, start: int) -> None:
        self._start = start
        taken = self._body[start : start + WINDOW]
        self._last = start + len(taken) == len(self._body)
        # Not final before the last window: half of a character is left for the next
        # window.
        self._text, _ = codecs.utf_8_decode(taken, "strict", self._last)
        self._at = 0
        self._runs = True

    def _place(self) -> int:
        """Return the reader's position, in bytes of the body."""
        # The encoded length counts bytes, so a window of wide characters goes on at the
        # right byte.
        passed = self._text[: self._at]
        return self._start + (len(passed) if passed.isascii() else len(passed.encode()))

    def _next(self) -> str:
        """Skip spaces and return the next character; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._last:
                return ""
            self._open(self._place())

    def _broken(self, what: str) -> Malformed:
        return Malformed(f"the body is not JSON: {what} (near byte {self._place()})")

    # -- values ----------------------------------------------------------------------------------------------

    def _value(self, depth: int) -> Any:
        self._next()
        for _ in range(2):  # in this window; in the one that begins here
            try:
                value, end = _scan(self._text, self._at)
            except (StopIteration, json.JSONDecodeError) as error:
                if self._last:
                    raise self._broken(
                        getattr(error, "msg", "a value was expected")
                    ) from None
            else:
                if self._last or end <= len(self._text) - _UNSURE:
                    self._take(value, end)
                    return value
            # The window begins with this value, so no window holds it.
            if self._at == 0:
                break
            self._open(self._place())
        return self._wide(depth)

    def _take(self, value: Any, end: int) -> None:
        piece = self._text[self._at : end]
        _check(piece, value)
        self._memory.add(_weight(piece))
        self._at = end

    def _wide(self, depth: int) -> Any:
        """Read a value that is longer than a window, level by level."""
        _shallow(depth)
        first = self._next()
        if first == "[":
            return self._items(depth, None)
        if first == "{":
            return self._members(depth)
        if first == '"':
            return self._string()
        raise self._broken("a value was expected")

    def _string(self) -> str:
        start = self._place()
        # The search runs over the body's bytes, since no window holds the text's end.
        match = _STRING.match(self._body, start)
        if match is None:
            raise self._broken("a text has no end")
        # Charged before the text is decoded: at most four bytes of memory for a byte of
        # the body.
        self._memory.add(4 * (match.end() - start))
        text = str(self._body[start : match.end()], "utf-8")
        value, _ = _scan(text, 0)
        _check(text, value)
        self._open(match.end())
        return str(value)

    def _items(self, depth: int, rows: int | None) -> list[Any]:
        """Read a list, from its opening bracket on."""
        items: list[Any] = []
        self._at += 1
        if self._next() == "]":
            self._at += 1
            return items
        while True:
            # A run ends before a comma, so one more item must follow: a trailing comma
            # is refused there.
            items += self._run(depth)
            items.append(self._value(depth + 1))
            if rows is not None and len(items) > rows:
                raise TooLarge(
                    f"the request has more than {rows} rows; at most {rows} are taken at once"
                    " (serve.max_rows)"
                )
            follows = self._next()
            self._at += 1
            if follows == "]":
                # A pointer of eight bytes an item.
                self._memory.add(8 * len(items))
                return items
            if follows != ",":
                raise self._broken("a list goes on with a comma or ends with a bracket")

    def _run(self, depth: int) -> list[Any]:
        """As many whole items of a list as the window holds, if they can be decoded at once; none otherwise.

        A piece that ends before a comma, and is a list once brackets are put around it, is a sequence of
        whole items: a cut within a text or an inner list would leave that open.
        """
        cut = self._text.rfind(",", self._at)
        if not self._runs or cut < self._at + _TEXT_WORTH_A_RUN:
            return []
        # One try a window: a try before each item would cost the square of the window.
        self._runs = False
        piece = f"[{self._text[self._at : cut]}]"
        try:
            items, end = _scan(piece, 0)
        except (StopIteration, json.JSONDecodeError):
            return []
        if end != len(piece) or not items:
            return []
        # The brackets around the piece are this list's own level, which `depth` counts
        # already.
        _shallow(depth - 1 + _depth(_bare(piece)))
        _check(piece, items)
        self._memory.add(_weight(piece))
        self._at = cut + 1
        return list(items)

    def _members(self, depth: int) -> dict[str, Any]:
        """Read an object, from its opening brace on."""
        members: dict[str, Any] = {}
        self._at += 1
        if self._next() == "}":
            self._at += 1
            return members
        while True:
            if self._next() != '"':
                raise self._broken("a key in quotes was expected")
            key = self._value(depth + 1)
            if key in members:
                raise Malformed(
                    f"an object of the body has the key {key[:80]!r} twice; give each key once"
                )
            if self._next() != ":":
                raise self._broken("a colon was expected after a key")
            self._at += 1
            # Only a list at one of the keys of the outermost object holds rows.
            outermost = depth == 1 and key in self._keys
            listed = outermost and self._rows is not None and self._next() == "["
            members[key] = (
                self._items(depth + 1, self._rows) if listed else self._value(depth + 1)
            )
            # About what an entry of a dict takes, in bytes.
            self._memory.add(200)
            follows = self._next()
            self._at += 1
            if follows == "}":
                return members
            if follows != ",":
                raise self._broken("an object goes on with a comma or ends with a brace")
