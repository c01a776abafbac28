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

Both passes work column by column over a block of lines, so that Python's work is in `json` and in C loops.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import pyarrow as pa

from penstock.core.errors import SourceError
from penstock.formats.reader import LINE, NUMBERS, Context, Input, Reader
from penstock.formats.rejects import Reject
from penstock.formats.shape import Shape
from penstock.formats.texts import LONGEST_LINE, TextStream, encoding_of, undecodable
from penstock.formats.typed import NAIVE, ZONED, TextTypes, word

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_MOST_ROWS = 16_384


class _TwiceError(ValueError):
    """A key is in an object twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [k for k, _ in pairs]
        raise _TwiceError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} is there twice")
    return made


_scan = json.JSONDecoder(object_pairs_hook=_object).scan_once  # type: ignore[attr-defined]
_decode = json.JSONDecoder(object_pairs_hook=_object).decode


def _value(text: str) -> Any:
    """One JSON value. The usual line is scanned straight, without the two regular expressions of `json.loads`."""
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (StopIteration, json.JSONDecodeError):
        pass  # white space around it, or an error, which the whole decoder words
    return _decode(text)


class _Node:
    """One field, by all of its values."""

    __slots__ = ("fields", "inexact", "item", "kinds", "moments", "name")

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        """Of `bool int big float text object list empty` (an empty list)."""
        self.fields: dict[str, _Node] = {}
        self.item: _Node | None = None
        self.inexact = False
        """An integer was seen that float64 cannot hold."""
        self.moments = TextTypes()
        self.name = ""
        """The final name, where it is a column."""

    def observe(self, values: list[Any]) -> None:
        """Learn from values; None says nothing."""
        kinds = set(map(type, values))
        kinds.discard(type(None))
        if not kinds:
            return
        one = len(kinds) == 1
        if dict in kinds:
            self.kinds.add("object")
            objects = [v for v in values if type(v) is dict]
            for key in dict.fromkeys(chain.from_iterable(objects)):
                if key not in self.fields:
                    self.fields[key] = _Node()
                self.fields[key].observe([o.get(key) for o in objects])
        if list in kinds:
            elements = list(chain.from_iterable(v for v in values if type(v) is list))
            self.kinds.add("list" if elements else "empty")
            if elements:
                self.item = self.item or _Node()
                self.item.observe(elements)
        if bool in kinds:
            self.kinds.add("bool")
        if float in kinds:
            self.kinds.add("float")
        if int in kinds:
            numbers = [v for v in values if v is not None] if one else [v for v in values if type(v) is int]
            self.kinds.add("int")
            least, most = min(numbers), max(numbers)
            if least < -(2**63) or most >= 2**63:
                self.kinds.add("big")
            elif (least < -(2**53) or most > 2**53) and not self.inexact:
                self.inexact = any(int(float(n)) != n for n in numbers)
        if str in kinds:
            self.kinds.add("text")
            types = self.moments
            if types.naive or types.zoned:
                texts = [v for v in values if type(v) is str]
                if any(len(t) < 10 or t[4] != "-" for t in texts):
                    types.naive = types.zoned = False
                else:
                    types.boolean = types.integer = types.number = False
                    types.observe(pa.array(texts, pa.string()))

    def form(self) -> str:
        """`object`, `objects` (a list of them), `list`, `scalar` or `mixed`."""
        kinds = self.kinds - {"empty"}
        if "object" in kinds:
            return "object" if self.kinds == {"object"} else "mixed"
        if "list" in kinds or self.kinds == {"empty"}:
            if kinds - {"list"}:
                return "mixed"
            return "objects" if self.item is not None and self.item.kinds == {"object"} else "list"
        return "mixed" if "empty" in self.kinds and kinds else "scalar"

    def type(self) -> pa.DataType:
        """Of a column that is `scalar`, `list` or `mixed`."""
        form = self.form()
        if form == "list":
            return pa.list_(self.item.element() if self.item else pa.null())
        if form != "scalar":
            return pa.string()
        if not self.kinds:
            return pa.null()
        if self.kinds == {"text"}:
            return NAIVE if self.moments.naive else ZONED if self.moments.zoned else pa.string()
        return self._scalar()

    def listed_type(self) -> pa.DataType:
        """Of the column that a field of listed objects becomes."""
        return pa.list_(self.element() if self.form() == "scalar" else pa.string())

    def element(self) -> pa.DataType:
        """As the element of a list."""
        return self._scalar() if self.kinds else pa.null()

    def _scalar(self) -> pa.DataType:
        if self.kinds == {"bool"}:
            return pa.bool_()
        if self.kinds == {"int"}:
            return pa.int64()
        if self.kinds <= {"int", "float"} and not self.inexact:
            return pa.float64()
        return pa.string()


class JsonLines(Reader):
    """Reads one file of JSON lines."""

    def __init__(self, input: Input, context: Context) -> None:
        super().__init__(input, context)
        self._root: _Node = context.objects.setdefault(input.reading.model_dump_json(), _Node())
        self._encoding = "utf-8"
        self._shape = Shape(input.learnt, input.reading.rename) if input.learnt is not None else None

    def scan(self) -> None:
        self._encoding = encoding_of(self.input.url, self.input.reading.encoding, self.say)
        rows = 0
        for lines, objects, rejects in self._blocks():
            for reject in rejects:
                self.reject(reject)
            self._root.observe(objects)
            rows += len(lines) + len(rejects)
        self.declared = rows

    def settle(self) -> None:
        leaves = [leaf for leaf in _leaves(self._root, (), listed=False) if leaf[0]]
        joined = [".".join(step.strip("\ufeff") for step in path) for path, _, _ in leaves]
        order = sorted(range(len(leaves)), key=lambda i: (joined[i], leaves[i][0]))  # so that a clash is named alike in every file
        for i, name in zip(order, self.final_names([joined[i] for i in order]), strict=True):
            leaves[i][1].name = name
        chosen = self.input.reading.columns
        for _, node, listed in leaves:
            if not chosen or node.name in chosen:
                self.columns[node.name] = node.listed_type() if listed else node.type()
                if node.inexact or (node.item is not None and node.item.inexact):
                    self.inexact.add(node.name)

    # -- lines -------------------------------------------------------------------------------------------------------

    def _blocks(self) -> Iterator[tuple[list[int], list[dict[str, Any]], list[Reject]]]:
        """Blocks of good objects with their lines, and bad lines."""
        rest, line, given = b"", 1, 0
        limit = self.context.limit
        with TextStream(self.input.url, self._encoding) as text:
            while True:
                more = text.read(max(self.context.block_bytes // 2, len(rest)))
                rest += more
                if line == 1 and not given:
                    self._refuse_whole(rest)
                cut = rest.rfind(b"\n") + 1 if more else len(rest)
                if not cut and len(rest) > LONGEST_LINE:
                    raise SourceError(f"{self.input.path}, line {line}: the line is longer than {LONGEST_LINE >> 20} MiB. Are these JSON lines, one object a line?")
                raw = rest[:cut].split(b"\n")
                if cut and rest[cut - 1 : cut] == b"\n":
                    raw.pop()
                rest = rest[cut:]
                for start in range(0, len(raw), _MOST_ROWS):
                    part = raw[start : start + _MOST_ROWS]
                    found = self._parse(part, line)
                    line += len(part)
                    given += len(found[0])
                    yield found
                    if limit is not None and given >= limit:
                        return
                if not more:
                    return

    def _refuse_whole(self, text: bytes) -> None:
        start = text.lstrip()
        first = start.split(b"\n", 1)[0].strip()
        if first in (b"[", b"{") or first.startswith((b"[{", b"[ {")):
            what = "one JSON array" if first.startswith(b"[") else "JSON spread over several lines"
            raise SourceError(f"{self.input.path} is {what}, not JSON lines (one object a line). Convert it first, for example with: jq -c '{'.[]' if first.startswith(b'[') else '.'}'")

    def _parse(self, raw: list[bytes], line: int) -> tuple[list[int], list[dict[str, Any]], list[Reject]]:
        lines: list[int] = []
        objects: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        mend = bool(self.input.reading.na or self.input.reading.trim_end)
        for number, text in enumerate(raw, line):
            reason = ""
            try:
                value = _value(text.decode())
                if type(value) is not dict:
                    reason = f"expected one JSON object, found {_called(value)}"
                elif _SURROGATE.search(text):
                    json.dumps(value, ensure_ascii=False).encode()
                if not reason and self._shape is not None:
                    reason = self._shape.problem(value) or ""
            except UnicodeDecodeError as error:
                reason = undecodable(text, error.start)
            except UnicodeEncodeError:
                reason = "half of a surrogate pair, which is no character"
            except RecursionError:
                reason = "nested too deep"
            except json.JSONDecodeError as error:
                if not text.strip():
                    continue
                reason = f"not JSON at character {error.pos + 1}: {error.msg}"
            except ValueError as error:
                reason = str(error)
            if reason:
                rejects.append(Reject(number, reason, text.removesuffix(b"\r").decode("utf-8", "backslashreplace")))
            else:
                lines.append(number)
                objects.append(self._mended(value, ()) if mend else value)
        return lines, objects, rejects

    def _mended(self, value: Any, path: tuple[str, ...]) -> Any:
        reading = self.input.reading
        if type(value) is dict:
            return {k: self._mended(v, (*path, k)) for k, v in value.items()}
        if type(value) is list:
            return [self._mended(v, path) for v in value]
        if type(value) is str:
            name = ".".join(step.strip("\ufeff") for step in path)
            ending = reading.trim_end.get(reading.rename.get(name, name))
            if ending:
                value = value.removesuffix(ending)
            if value in reading.na:
                return None
        return value

    # -- the second pass ---------------------------------------------------------------------------------------------

    def batches(self, kinds: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        for lines, objects, _ in self._blocks():
            if not lines:
                continue
            found: dict[str, pa.Array] = {}
            _columns(self._root, objects, kinds, found)
            found[LINE] = pa.array(lines, pa.int64())
            yield pa.RecordBatch.from_pydict(found)


def _called(value: Any) -> str:
    names = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}
    return names[type(value)]


def _leaves(node: _Node, path: tuple[str, ...], *, listed: bool) -> Iterator[tuple[tuple[str, ...], _Node, bool]]:
    """The nodes that are columns: their paths, and whether they are fields of listed objects."""
    form = node.form()
    if form == "object" or (form == "objects" and not listed):
        fields = node.fields if form == "object" else node.item.fields if node.item else {}
        for key, child in fields.items():
            yield from _leaves(child, (*path, key), listed=listed or form == "objects")
    else:
        yield path, node, listed


def _columns(node: _Node, values: list[Any], kinds: Mapping[str, pa.DataType], found: dict[str, pa.Array]) -> None:
    """Fill `found` with the columns below `node`, whose values these are."""
    form = node.form()
    if form == "object":
        for key, child in node.fields.items():
            _columns(child, [v.get(key) if v is not None else None for v in values], kinds, found)
    elif form == "objects":
        assert node.item is not None
        _parallel(node.item, values, kinds, found)
    elif node.name in kinds:
        found[node.name] = _array(values, kinds[node.name])


def _parallel(node: _Node, values: list[Any], kinds: Mapping[str, pa.DataType], found: dict[str, pa.Array]) -> None:
    for key, child in node.fields.items():
        below = [None if v is None else [None if e is None else e.get(key) for e in v] for v in values]
        if child.form() == "object":
            _parallel(child, below, kinds, found)
        elif child.name in kinds:
            found[child.name] = _array(below, kinds[child.name])


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind.equals(NUMBERS):
        return _array([int(v) if type(v) is bool else v for v in values], pa.string())
    if pa.types.is_string(kind):
        return pa.array([v if v is None or type(v) is str else word(v) for v in values], kind)
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.string()).cast(kind)
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return pa.array([None if v is None else [e if e is None or type(e) is str else word(e) for e in v] for v in values], kind)
    if pa.types.is_floating(kind):
        return pa.array([None if v is None else float(v) for v in values], kind)
    if pa.types.is_list(kind) and pa.types.is_floating(kind.value_type):
        return pa.array([None if v is None else [None if e is None else float(e) for e in v] for v in values], kind)
    return pa.array(values, kind)
