"""The fields of JSON objects, as a tree: what they hold over all rows, and rows of them as columns.

Every cost follows the values that are there, not fields × rows: where a row has few of all fields, values are
dealt out to their fields with their places; where it has most, a field is gone through as a whole, which is
faster. What is dense by nature, rows × columns of a batch, is counted (`Tree.cells`), so that batches of wide
tables have fewer rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.formats.reader import COMMAS, MOST_COLUMNS, NUMBERS
from penstock.formats.typed import NAIVE, ZONED, TextTypes, text_of, with_comma

_SPARSE = 4
"""Values are dealt out one by one where there are fewer than one in so many places."""

Places = Sequence[int] | None
"""The rows that values belong to; None: each row has one."""


class TooManyFields(Exception):
    """There are more than `MOST_COLUMNS`. Never leaves this room."""


class _Field:
    """One field, by all of its values."""

    __slots__ = ("fields", "form", "inexact", "item", "kinds", "moments", "name")

    def __init__(self) -> None:
        self.kinds: frozenset[str] = frozenset()
        """Of `bool int big float text object list empty` (an empty list)."""
        self.fields: dict[str, _Field] = {}
        self.item: _Field | None = None
        self.inexact = False
        """An integer was seen that float64 cannot hold."""
        self.moments: TextTypes | None = None
        """Of texts; None before the first."""
        self.name = ""
        """The final name, where it is a column."""
        self.form = ""
        """Once all is observed: `object`, `objects` (a list of them), `list`, `scalar` or `mixed`."""

    def observe(self, values: list[Any], tree: Tree) -> None:
        """Learn from values; None says nothing."""
        # `type` and not `isinstance`: to Python a bool is an int, to a column it is
        # not.
        kinds = set(map(type, values))
        kinds.discard(type(None))
        if not kinds:
            return
        one = len(kinds) == 1
        sorts: set[str] = set()
        if dict in kinds:
            sorts.add("object")
            for key, _, below in by_key([v for v in values if type(v) is dict]):
                field = self.fields.get(key)
                if field is None:
                    field = self.fields[key] = tree.new()
                field.observe(below, tree)
        # An empty list says that it is a list, and nothing of what is in it.
        if list in kinds:
            elements = list(chain.from_iterable(v for v in values if type(v) is list))
            sorts.add("list" if elements else "empty")
            if elements:
                self.item = self.item or tree.new()
                self.item.observe(elements, tree)
        if bool in kinds:
            sorts.add("bool")
        if float in kinds:
            sorts.add("float")
        if int in kinds:
            sorts |= self._observe_integers(
                # A list that holds one kind alone needs no second look at each value.
                [v for v in values if v is not None]
                if one
                else [v for v in values if type(v) is int]
            )
        if str in kinds:
            sorts.add("text")
            self._observe_texts([v for v in values if type(v) is str])
        self.kinds |= sorts

    def _observe_integers(self, numbers: list[int]) -> set[str]:
        least, most = min(numbers), max(numbers)
        if least < -(2**63) or most >= 2**63:
            # Beyond int64 it is text, whatever float64 makes of it.
            return {"int", "big"}
        if (least < -(2**53) or most > 2**53) and not self.inexact:
            self.inexact = any(int(float(n)) != n for n in numbers)
        return {"int"}

    def _observe_texts(self, texts: list[str]) -> None:
        types = self.moments = self.moments or TextTypes()
        # Once one text is no moment, the texts of this field are looked at no more.
        if types.naive or types.zoned:
            if any(len(t) < 10 or t[4] != "-" for t in texts):
                types.naive = types.zoned = False
            else:
                # Only moments are looked for: a JSON text that looks like a number is a
                # text.
                types.boolean = types.integer = types.number = False
                types.observe(pa.array(texts, pa.string()))

    def settle(self) -> None:
        """Decide the form of this field and of those below."""
        for field in (*self.fields.values(), *((self.item,) if self.item else ())):
            field.settle()
        kinds = self.kinds - {"empty"}
        # An object beside anything else cannot become columns, so all of the field
        # becomes JSON text.
        if "object" in kinds:
            self.form = "object" if self.kinds == {"object"} else "mixed"
        elif "list" in kinds or self.kinds == {"empty"}:
            # A list whose elements are all objects becomes one list column a field.
            of_objects = self.item is not None and self.item.kinds == {"object"}
            self.form = (
                "mixed" if kinds - {"list"} else "objects" if of_objects else "list"
            )
        else:
            # An empty list beside scalars is a second kind.
            self.form = "mixed" if "empty" in self.kinds and kinds else "scalar"

    def type(self) -> pa.DataType:
        """The Arrow type of the column that the field becomes, in the form `scalar`,
        `list` or `mixed`.
        """
        if self.form == "list":
            return pa.list_(self.item.element() if self.item else pa.null())
        if self.form != "scalar":
            return pa.string()
        if not self.kinds:
            return pa.null()
        if self.kinds == {"text"}:
            types = self.moments or TextTypes()
            return NAIVE if types.naive else ZONED if types.zoned else pa.string()
        return self._scalar()

    def listed_type(self) -> pa.DataType:
        """The Arrow type of the column that a field of listed objects becomes."""
        return pa.list_(self.element() if self.form == "scalar" else pa.string())

    def element(self) -> pa.DataType:
        """The Arrow type of the field's values as elements of a list."""
        return self._scalar() if self.kinds else pa.null()

    def _scalar(self) -> pa.DataType:
        if self.kinds == {"bool"}:
            return pa.bool_()
        if self.kinds == {"int"}:
            return pa.int64()
        # With an integer that float64 cannot hold, text is the exact type.
        if self.kinds <= {"int", "float"} and not self.inexact:
            return pa.float64()
        return pa.string()


class Tree:
    """The fields of all files that are read alike."""

    def __init__(self) -> None:
        self.count = 0
        self.columns: dict[str, pa.DataType] = {}
        """By final name, once a reader has settled them."""
        self.inexact: set[str] = set()
        self.raw_names: set[str] = set()
        self.is_settled = False
        self._root = _Field()
        self._listed = False
        """Whether any column is made of listed objects."""
        self._wanted = 0
        """Columns that are not made of listed objects."""

    def new(self) -> _Field:
        """A new field. Raises TooManyFields where there are `MOST_COLUMNS` already."""
        # The count is that of the whole tree: what bounds memory is all fields, not
        # those of one object.
        self.count += 1
        if self.count > MOST_COLUMNS:
            raise TooManyFields
        return _Field()

    def observe(self, objects: list[Any]) -> None:
        """Learn from rows.

        Raises:
            TooManyFields: they have more than `MOST_COLUMNS`, all rows of now and before together.
        """
        self._root.observe(objects, self)

    def fullest(self) -> tuple[str, int, list[str]]:
        """The object with most fields: its path (empty: the row itself), how many it has, and some of their
        names.
        """
        best: tuple[str, ...] = ()
        fields = self._root.fields
        pending: list[tuple[tuple[str, ...], _Field]] = [((), self._root)]
        while pending:
            path, field = pending.pop()
            if len(field.fields) > len(fields):
                best, fields = path, field.fields
            pending += [((*path, key), child) for key, child in field.fields.items()]
            if field.item is not None:
                pending.append(((*path, "[]"), field.item))
        return ".".join(best).replace(".[]", "[]"), len(fields), list(fields)[:3]

    def leaves(self) -> list[tuple[tuple[str, ...], _Field, bool]]:
        """The fields that are columns: their paths, and whether they are fields of listed objects."""
        self._root.settle()
        return [leaf for leaf in _leaves(self._root, (), listed=False) if leaf[0]]

    def settle(
        self,
        leaves: list[tuple[tuple[str, ...], _Field, bool]],
        chosen: Sequence[str],
        raw_names: set[str],
    ) -> None:
        """Write down the columns, now that the leaves have their names.

        Args:
            chosen: the only columns wanted; all, where there is none.
            raw_names: the names as the files have them.
        """
        for _, field, listed in leaves:
            # Of columns that nobody chose nothing is made, and nothing counts.
            if not chosen or field.name in chosen:
                self.columns[field.name] = field.listed_type() if listed else field.type()
                if field.inexact or (field.item is not None and field.item.inexact):
                    self.inexact.add(field.name)
                self._listed = self._listed or listed
                self._wanted += not listed
        self.raw_names = raw_names
        self.is_settled = True

    def cells(self, value: Mapping[str, Any]) -> int:
        """About how many values the columns have of one row."""
        return self._wanted + (_listed_cells(self._root, value) if self._listed else 0)

    def batch(
        self, objects: list[Any], kinds: Mapping[str, pa.DataType]
    ) -> dict[str, pa.Array]:
        """Rows as columns; a column that none of them has is left out."""
        return _Filling(kinds, len(objects)).of(self._root, objects)


def by_key(objects: list[Any]) -> Iterator[tuple[str, Places, list[Any]]]:
    """Each key of some objects: the places of its values among them, and the values."""
    # A dict keeps the order in which keys come first, on which the columns' order
    # rests.
    keys = dict.fromkeys(chain.from_iterable(objects))
    # Dense enough: `get` for every place costs less than sorting values out.
    if sum(map(len, objects)) * _SPARSE >= len(keys) * len(objects):
        for key in keys:
            yield key, None, [o.get(key) for o in objects]
        return
    dealt: dict[str, tuple[list[int], list[Any]]] = {key: ([], []) for key in keys}
    for place, fields in enumerate(objects):
        for key, value in fields.items():
            places, values = dealt[key]
            places.append(place)
            values.append(value)
    for key, (places, values) in dealt.items():
        yield key, places, values


def _leaves(
    field: _Field, path: tuple[str, ...], *, listed: bool
) -> Iterator[tuple[tuple[str, ...], _Field, bool]]:
    form = field.form
    # Within lists, objects go on as columns; a further list of objects would need lists
    # of lists.
    if form == "object" or (form == "objects" and not listed):
        fields = (
            field.fields if form == "object" else field.item.fields if field.item else {}
        )
        for key, child in fields.items():
            yield from _leaves(child, (*path, key), listed=listed or form == "objects")
    else:
        yield path, field, listed


def _width(field: _Field) -> int:
    """How many columns there are below a field of listed objects."""
    return sum(
        _width(child) if child.form == "object" else 1 for child in field.fields.values()
    )


def _listed_cells(field: _Field, value: Any) -> int:
    """How many values one row has in the columns that are made of listed objects."""
    if type(value) is list:
        return (
            len(value) * _width(field.item)
            if field.form == "objects" and field.item is not None
            else 0
        )
    if type(value) is not dict or field.form != "object":
        return 0
    return sum(
        _listed_cells(field.fields[key], below)
        for key, below in value.items()
        if type(below) in (dict, list)
    )


class _Filling:
    """Makes columns of some rows."""

    def __init__(self, kinds: Mapping[str, pa.DataType], rows: int) -> None:
        self._kinds, self._rows = kinds, rows
        self._columns: dict[str, pa.Array] = {}

    def of(self, root: _Field, objects: list[Any]) -> dict[str, pa.Array]:
        self._fill(root, None, objects)
        return self._columns

    def _fill(self, field: _Field, places: Places, values: list[Any]) -> None:
        """The columns below `field`, whose values these are."""
        if field.form == "object":
            # An object that is missing has no fields; its places stay null in every
            # column below.
            present = [i for i, v in enumerate(values) if v is not None]
            if len(present) < len(values):
                places, values = _at(places, present), [values[i] for i in present]
            for key, at, below in by_key(values):
                # Two steps of places: of the values among the objects, and of the
                # objects among the rows.
                self._fill(
                    field.fields[key], places if at is None else _at(places, at), below
                )
        elif field.form == "objects":
            assert field.item is not None
            present = [i for i, v in enumerate(values) if v is not None]
            lists = [values[i] for i in present]
            self._listed(
                field.item,
                _Lists(self._rows, _at(places, present), lists),
                None,
                list(chain.from_iterable(lists)),
            )
        elif field.name in self._kinds:
            self._columns[field.name] = _spread(
                _array(values, self._kinds[field.name]), places, self._rows
            )

    def _listed(
        self, field: _Field, lists: _Lists, places: Places, elements: list[Any]
    ) -> None:
        """The columns below the elements of lists; every one has as many elements as the list, null where one
        lacks the field.
        """
        # Elements may be null themselves, and have no fields then.
        present = [i for i, e in enumerate(elements) if e is not None]
        filled = set()
        for key, at, below in by_key([elements[i] for i in present]):
            filled.add(key)
            # From the places among the present elements to those among all elements.
            spots = _at(places, present if at is None else _at(present, at))
            child = field.fields[key]
            if child.form == "object":
                self._listed(child, lists, spots, below)
            elif child.name in self._kinds:
                self._columns[child.name] = lists.of(
                    below, spots, self._kinds[child.name]
                )
        # No row of this batch has them, though other rows of the source do: all null,
        # in lists of equal length.
        for key, child in field.fields.items():
            if key not in filled:
                self._lacking(child, lists)

    def _lacking(self, field: _Field, lists: _Lists) -> None:
        if field.form == "object":
            for child in field.fields.values():
                self._lacking(child, lists)
        elif field.name in self._kinds:
            self._columns[field.name] = lists.of([], [], self._kinds[field.name])


class _Lists:
    """Lists of objects in some rows."""

    def __init__(self, rows: int, places: Places, lists: list[list[Any]]) -> None:
        sizes = np.zeros(rows + 1, np.int64)
        # Missing until a list stands there: an absent list and an empty one differ.
        missing = np.ones(rows, bool)
        at = np.arange(rows) if places is None else np.asarray(places, np.int64)
        # One further on, so that the running sum gives where each list begins and ends.
        sizes[at + 1] = [len(one) for one in lists]
        missing[at] = False
        self.elements = int(sizes.sum())
        self._offsets = pa.array(np.cumsum(sizes), pa.int32())
        self._mask = pa.array(missing) if missing.any() else None

    def of(self, values: list[Any], places: Sequence[int], kind: pa.DataType) -> pa.Array:
        """A column of lists; null where no place names an element."""
        if pa.types.is_list(kind):
            elements = _spread(_array(values, kind.value_type), places, self.elements)
            return pa.ListArray.from_arrays(self._offsets, elements, mask=self._mask)
        whole: list[Any] = [
            None
        ] * self.elements  # as text, where other files have no lists
        for place, value in zip(places, values, strict=True):
            whole[place] = value
        ends = self._offsets.to_pylist()
        missing = (
            self._mask.to_pylist()
            if self._mask is not None
            else [False] * (len(ends) - 1)
        )
        rows = [
            None if gone else whole[start:end]
            for gone, start, end in zip(missing, ends, ends[1:], strict=False)
        ]
        return _array(rows, kind)


def _at(places: Places, chosen: Sequence[int]) -> Sequence[int]:
    return chosen if places is None else [places[i] for i in chosen]


def _spread(array: pa.Array, places: Places, rows: int) -> pa.Array:
    """Values at their places, null at all others."""
    # As many values as rows, in order, need no dealing out.
    if places is None or len(places) == rows:
        return array
    chosen = np.zeros(rows, np.int32)
    missing = np.ones(rows, bool)
    at = np.asarray(places, np.int64)
    # Each row takes the value at this index, and rows without one are masked.
    chosen[at] = np.arange(len(at))
    missing[at] = False
    return array.take(pa.array(chosen, mask=missing))


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind.equals(NUMBERS):
        # Truth values are 1 and 0 where numbers were learnt.
        return _array([int(v) if type(v) is bool else v for v in values], pa.string())
    if kind.equals(COMMAS):
        return pa.array([with_comma(v) for v in values], pa.string())
    if pa.types.is_string(kind):
        return pa.array([v if type(v) is str else text_of(v) for v in values], kind)
    if pa.types.is_timestamp(kind):
        # By Arrow, with the rules by which the column was found to be moments.
        return pa.array(values, pa.string()).cast(kind)
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return pa.array(
            [
                None if v is None else [e if type(e) is str else text_of(e) for e in v]
                for v in values
            ],
            kind,
        )
    if pa.types.is_floating(kind):
        # Integers among floats: Arrow would refuse those beyond 2**53, of which
        # `inexact` has judged before.
        return pa.array([None if v is None else float(v) for v in values], kind)
    if pa.types.is_list(kind) and pa.types.is_floating(kind.value_type):
        return pa.array(
            [
                None if v is None else [None if e is None else float(e) for e in v]
                for v in values
            ],
            kind,
        )
    return pa.array(values, kind)
