"""JSON lines: one object a line, nested fields flattened to `a.b`.

What becomes of a value depends on all values of its field in the file:
    objects                    their fields, as columns `a.b`
    lists of objects           one list column a field, `scores.score`, all of equal length: null where an
                               element lacks it
    lists of scalars           a list column; elements of several kinds, or lists in lists, as JSON text
    scalars of one kind        that kind; integers and floats together are numbers; text that is always
                               ISO 8601, timestamps
    several kinds              text; numbers and nested values as JSON text
A missing field, null and an empty object are missing values. Integers stay exact or become text.

A line that is not one JSON object, or has a key twice in one object (a parser would lose one), is rejected.

Both passes work field by field over a block of lines (`fields`), so that Python's work is in `json` and in C
loops.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from penstock.contracts.reading import Reject
from penstock.core.errors import SourceError
from penstock.formats.fields import TooManyFields, Tree
from penstock.formats.reader import (
    AROUND_NAMES,
    LINE,
    MOST_COLUMNS,
    Context,
    FileReader,
    Input,
)
from penstock.formats.shape import Shape
from penstock.formats.texts import LONGEST_LINE, TextStream, encoding_of, undecodable

# Escapes of UTF-16's halves: two make one character, and one alone makes none.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# Rows of a block, at most.
_MOST_ROWS = 16_384
_DEEPEST = 200
"""Objects and lists within each other."""
_CELL_BYTES = 12
"""Of a value in a column, at the least: eight, and what tells whether it is missing."""
_LARGEST_ROW = 4
"""A row's columns may take so many batches' bytes."""
_VALUE_BYTES = 96
"""Of a value as `json` makes it: a number, the smallest list, or an entry of an object."""
# A JSON text, in which quotes and backslashes are escaped.
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class _TwiceError(ValueError):
    """A key is in an object twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    # A dict keeps the last of equal keys: fewer entries mean that one was lost.
    if len(value) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _TwiceError(
            f"the key {next(key for key, count in counts.items() if count > 1)[:200]!r} is there twice"
        )
    return value


_scan = json.JSONDecoder(object_pairs_hook=_object).scan_once  # type: ignore[attr-defined]
_decode = json.JSONDecoder(object_pairs_hook=_object).decode


def _value(text: str) -> Any:
    """One JSON value.

    The usual line is scanned straight, without the two regular expressions of `json.loads`.
    """
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (StopIteration, json.JSONDecodeError):
        pass  # white space around it, or an error, which the whole decoder words
    return _decode(text)


class JsonLines(FileReader):
    """Reads one file of JSON lines."""

    fields_vary: ClassVar[bool] = True

    def __init__(self, input: Input, context: Context) -> None:
        super().__init__(input, context)
        # One tree for all files that are read alike: a column is made of the values of all of them.
        self._tree: Tree = context.objects.setdefault(
            input.reading.model_dump_json(), Tree()
        )
        self._encoding = "utf-8"
        self._shape = (
            Shape(input.learnt, input.reading.rename)
            if input.learnt is not None
            else None
        )

    def scan(self) -> None:
        context = self.context
        most = self.input.most_bytes
        if context.limit is not None:
            most = context.limit_bytes
        self._encoding = self._chosen_encoding(most)
        self._observe()

    def _chosen_encoding(self, most_bytes: int | None) -> str:
        declared = self.input.reading.encoding
        return encoding_of(self.input.url, declared, self.say, most_bytes=most_bytes)

    def _observe(self) -> None:
        """Learn the fields of all rows, and put bad ones aside."""
        rows = 0
        for lines, objects, rejects in self._blocks():
            for reject in rejects:
                self.reject(reject)
            try:
                self._tree.observe(objects)
            except TooManyFields:
                raise self._too_many_fields(lines[-1]) from None
            # Blank lines are not counted: they are no rows in either pass.
            rows += len(lines) + len(rejects)
        self.declared = rows

    def _too_many_fields(self, line: int) -> SourceError:
        path, count, names = self._tree.fullest()
        where = (
            f"the object {path!r} alone has {count:,}"
            if path
            else f"the rows themselves have {count:,}"
        )
        way = (
            ".[]"
            if "[]" in path
            else f".{path} |= to_entries"
            if path
            else "{entries: to_entries}"
        )
        how = "" if "[]" in path else f", for example with: jq -c '{way}'"
        return SourceError(
            f"{self.input.path}: the objects up to line {line:,} have more than"
            f" {MOST_COLUMNS:,} different fields, and each would become a column; {where},"
            f" such as {', '.join(name[:40] for name in names)}. Are keys used as data?"
            " Write a list of objects with one field for the key and one for the"
            f" value{how}."
        )

    def settle(self) -> None:
        tree = self._tree
        if not tree.is_settled:
            leaves = tree.leaves()
            joined = [
                ".".join(step.strip("\ufeff") for step in path) for path, _, _ in leaves
            ]
            # so that a clash is named alike in every file
            order = sorted(range(len(leaves)), key=lambda i: (joined[i], leaves[i][0]))
            for i, name in zip(
                order, self.final_names([joined[i] for i in order]), strict=True
            ):
                leaves[i][1].name = name
            tree.settle(leaves, self.input.reading.columns, self.raw_names)
        # the same for all files: none is a copy
        self.columns, self.inexact, self.raw_names = (
            tree.columns,
            tree.inexact,
            tree.raw_names,
        )

    # -- lines -----------------------------------------------------------------------------------------------

    def _blocks(self) -> Iterator[tuple[list[int], list[dict[str, Any]], list[Reject]]]:
        """Blocks of good objects with their lines, and bad lines."""
        rest, line, given, size = b"", 1, 0, 0
        limit = self.context.limit
        with TextStream(self.input.url, self._encoding) as text:
            while True:
                # At least as much as is held: a long line is not searched again for
                # each small piece.
                more = text.read(max(self.context.block_bytes // 2, len(rest)))
                rest += more
                # Told at once: each line of a JSON array over several lines would be a reject.
                if line == 1 and not given:
                    self._refuse_whole(rest)
                # At the end of the file the last line needs no line end.
                cut = rest.rfind(b"\n") + 1 if more else len(rest)
                if not cut and len(rest) > LONGEST_LINE:
                    raise SourceError(
                        f"{self.input.path}, line {line}: the line is longer than {LONGEST_LINE >> 20} MiB,"
                        " the most that a row of text may have. Are these JSON lines, one object a line? If"
                        " so, split that row, or take it out."
                    )
                raw = rest[:cut].split(b"\n")
                # Behind the last line end there is no line.
                if cut and rest[cut - 1 : cut] == b"\n":
                    raw.pop()
                rest = rest[cut:]
                for part in self._portions(raw):
                    block = self._parse(part, line)
                    line += len(part)
                    given += len(block[0])
                    size += sum(map(len, part))
                    yield block
                    if limit is not None and (
                        given >= limit or size >= self.context.limit_bytes
                    ):
                        return
                if not more:
                    return

    def _portions(self, raw: list[bytes]) -> Iterator[list[bytes]]:
        """Cut lines into portions that may be Python objects at once."""
        start = size = 0
        for i, text in enumerate(raw):
            size += len(text)
            if size >= self.context.block_bytes or i + 1 - start >= _MOST_ROWS:
                yield raw[start : i + 1]
                start, size = i + 1, 0
        if start < len(raw):
            yield raw[start:]

    def _refuse_whole(self, text: bytes) -> None:
        start = text.lstrip()
        first = start.split(b"\n", 1)[0].strip()
        if first in (b"[", b"{") or first.startswith((b"[{", b"[ {")):
            what = (
                "one JSON array"
                if first.startswith(b"[")
                else "JSON spread over several lines"
            )
            raise SourceError(
                f"{self.input.path} is {what}, not JSON lines (one object a line). {self._remedy(first)}"
            )

    def _remedy(self, first: bytes) -> str:
        """What to do with a file that begins with `first` and is no JSON lines."""
        if first.startswith(b"["):
            return "Set `format: json`, which reads a list."
        return "Convert it first, for example with: jq -c '.'"

    def _parse(
        self, raw: list[bytes], line: int
    ) -> tuple[list[int], list[dict[str, Any]], list[Reject]]:
        lines: list[int] = []
        objects: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        mend = bool(self.input.reading.na or self.input.reading.trim_end)
        for number, text in enumerate(raw, line):
            reason = ""
            try:
                # Asked before it is parsed: a line of 64 MiB may become gigabytes of Python.
                reason = self._too_much(text) or ""
                value = {} if reason else _value(text.decode())
                if type(value) is not dict:
                    reason = f"expected one JSON object, found {_called(value)}"
                # `json` lets half a pair through, which no UTF-8 holds: Arrow would fail for the whole block.
                elif not reason and _SURROGATE.search(text):
                    json.dumps(value, ensure_ascii=False).encode()
                if not reason and self._shape is not None:
                    reason = self._shape.problem(value) or ""
            except UnicodeDecodeError as error:
                reason = undecodable(text, error.start)
            except UnicodeEncodeError:
                reason = "half of a surrogate pair, which is no character"
            except RecursionError:
                reason = "nested too deep"
            # Before ValueError, of which it is one.
            except json.JSONDecodeError as error:
                # A blank line is neither a row nor a reject.
                if not text.strip():
                    continue
                reason = f"not JSON at character {error.pos + 1}: {error.msg}"
            except ValueError as error:
                reason = str(error)
            if reason:
                rejects.append(
                    Reject(
                        number,
                        reason,
                        text.removesuffix(b"\r").decode("utf-8", "backslashreplace"),
                    )
                )
            else:
                lines.append(number)
                objects.append(self._mended(value, ()) if mend else value)
        return lines, objects, rejects

    def _mended(self, value: Any, path: tuple[str, ...]) -> Any:
        reading = self.input.reading
        if type(value) is dict:
            return {k: self._mended(v, (*path, k)) for k, v in value.items()}
        if type(value) is list:
            # Elements go by the name of their list.
            return [self._mended(v, path) for v in value]
        if type(value) is str:
            # Joined as `settle` does it, so that the recipe's words fit.
            name = ".".join(step.strip("\ufeff") for step in path)
            clean, rename = name.strip(AROUND_NAMES), reading.rename
            ending = reading.trim_end.get(rename.get(name) or rename.get(clean) or clean)
            if ending:
                value = value.removesuffix(ending)
            if value in reading.na:
                return None
        return value

    def _too_much(self, text: bytes) -> str | None:
        """Why a line is not read at all: it is nested too deep, or would take too much memory; None if it is
        neither.
        """
        # An upper bound, since brackets within texts count too: nearly every line
        # passes by it.
        opened = text.count(b"{") + text.count(b"[")
        values = opened + text.count(b",")
        if opened <= _DEEPEST and values * _VALUE_BYTES <= self.context.value_bytes:
            return None
        bare = _TEXT.sub(b"", text)  # without what stands in its texts
        values = sum(map(bare.count, (b"{", b"[", b",")))
        if values * _VALUE_BYTES > self.context.value_bytes:
            return (
                f"{len(text):,} bytes with about {values:,} values, which may take"
                f" {values * _VALUE_BYTES >> 20:,} MiB of memory at once, more than"
                f" {self.context.value_bytes >> 20:,} MiB. Split the row, or raise resources.memory"
            )
        return "nested too deep" if _depth(bare) > _DEEPEST else None

    # -- the second pass -------------------------------------------------------------------------------------

    def batches(self, kinds: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        for lines, objects, _ in self._blocks():
            for start, end in self._cuts(lines, objects):
                columns = self._tree.batch(objects[start:end], kinds)
                columns[LINE] = pa.array(lines[start:end], pa.int64())
                yield pa.RecordBatch.from_pydict(columns)

    def _cuts(
        self, lines: list[int], objects: list[dict[str, Any]]
    ) -> Iterator[tuple[int, int]]:
        """Cut rows into ranges that may be columns at once: a table has a value in each
        column for each row, whether the row has it or not.
        """
        most = self.context.batch_bytes // _CELL_BYTES
        start = size = 0
        for i, value in enumerate(objects):
            cells = self._tree.cells(value)
            if cells > most * _LARGEST_ROW:
                raise SourceError(
                    f"{self.input.path}, line {lines[i]}: its lists of objects would be columns with"
                    f" {cells:,} values in this row alone, an element's place in every field that any element"
                    " has. Are fields of these objects data that is used as keys? Split the row, or give its"
                    " objects fewer fields."
                )
            # A row that is too large by itself becomes a batch of its own.
            if size + cells > most and i > start:
                yield start, i
                start, size = i, 0
            size += cells
        if start < len(objects):
            yield start, len(objects)


def _depth(bare: bytes) -> int:
    """How deep objects and lists are nested in JSON without its texts."""
    steps = np.zeros(256, np.int8)
    # The running sum of these is the depth.
    steps[list(b"[{")], steps[list(b"]}")] = 1, -1
    taken = steps[np.frombuffer(bare, np.uint8)]
    # Brackets alone: sums for every byte would take eight times the line.
    return int(np.cumsum(taken[taken != 0], dtype=np.int64).max(initial=0))


def _called(value: Any) -> str:
    names = {
        list: "a list",
        str: "a text",
        int: "a number",
        float: "a number",
        bool: "true or false",
        type(None): "null",
    }
    return names[type(value)]
