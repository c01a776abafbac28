"""Finds the columns of a bundle in records of their source's shape.

    {"customer": {"name": "Ada"}}       → customer.name: "Ada"
    {"scores": [{"score": 7}, {}]}      → scores.score: [7, null]
    {"\\ufeffISO": 0}                    → ISO: 0

The rules are those by which JSON lines become columns (`formats.jsonlines`). A flat name always wins. In JSON
lines a field may be left out, and is then missing; so it may in a request to a model that learnt from them,
unless the record has a field that is spelt nearly like it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock.bundle.typing import one_array
from penstock.contracts.learnt import Learnt
from penstock.formats.typed import pieces, rebuild, unpacked

_ABSENT = object()
"""There is no such field, which null is not."""
_BOM = "\ufeff"
_MOST_PATHS = 100
"""So many fields of a record are compared with one that is absent."""
_LONGEST = 100
"""Characters of a name that are compared."""
_DEEPEST = 8
"""Levels of objects in which names are looked for."""
_MOST_LOOKUPS = 16


@dataclass(frozen=True)
class RecordShape:
    """How the fields of a source's records are called."""

    rename: Mapping[str, str] = field(default_factory=dict)
    """From the names in files to the names of columns."""
    known: frozenset[str] = frozenset()
    """Names that are no misspelling of others: the source's columns."""
    sparse: bool = False
    """Whether a field that is left out is missing, as in JSON lines."""
    _lookups: dict[tuple[str, ...], _Lookup] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(cls, learnt: Learnt | None, *, sparse: bool = False) -> RecordShape:
        """The shape of the data that a bundle learnt from."""
        if learnt is None:
            return cls(sparse=sparse)
        renamed = learnt.reading.get("rename") or {}
        rename = dict(renamed) if isinstance(renamed, Mapping) else {}
        return cls(rename, frozenset([*learnt.schema.names, *rename]), sparse)

    def flat(self, record: Any, names: Iterable[str]) -> Any:
        """The record with the columns `names` beside its own fields, as far as they are in it.

        What is no mapping is returned as it is.
        """
        if not isinstance(record, Mapping):
            return record
        lookup = self._lookup(names)
        columns: dict[str, Any] = {}
        for key in record:
            for name in lookup.within(key):
                if name in record or name in columns:
                    continue
                value = self._value(record, name)
                if value is not _ABSENT:
                    columns[name] = value
        return {**record, **columns} if columns else record

    def _lookup(self, names: Iterable[str]) -> _Lookup:
        """The tables in which a record's fields are looked up, made once for the same columns."""
        wanted = tuple(names)
        if (lookup := self._lookups.get(wanted)) is None:
            # A server asks for the same few sets of columns again and again.
            if len(self._lookups) >= _MOST_LOOKUPS:
                self._lookups.clear()
            lookup = self._lookups[wanted] = _Lookup.of(self, wanted)
        return lookup

    def _value(self, record: Mapping[str, Any], name: str) -> Any:
        for spelt in self.spellings(name):
            value = _within(record, spelt)
            if value is not _ABSENT:
                return value
        return _ABSENT

    def spellings(self, name: str) -> list[str]:
        """The names by which files may call a column."""
        return [name, *(raw for raw, column in self.rename.items() if column == name)]

    def hints(self, record: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
        """By absent column, the field of a record that is spelt nearly like it.

        Nearly: they differ in one letter, two that changed places, case, or signs between words; not in
        digits alone, as `q2` and `q3` do. It is asked of each row that lacks a field, so it costs as much as
        the row is long, whatever a client sends.
        """
        lookup = self._lookup(names)
        hints: dict[str, str] = {}
        every = islice(_paths(record, "", 0), 10 * _MOST_PATHS)
        unknown = (path for path in every if path not in self.known)
        for path in islice(unknown, _MOST_PATHS):
            for name in lookup.near(path[:_LONGEST]):
                # What would hold it is no misspelling of it: an empty list of objects.
                if name not in record and path not in self.holders(name):
                    hints.setdefault(name, path[:_LONGEST])
        return hints

    def unusable(
        self, record: Mapping[str, Any], names: Iterable[str]
    ) -> dict[str, tuple[str, Any]]:
        """By absent column, the field that should hold it and its value, where that is neither missing nor
        made of objects.
        """
        lookup = self._lookup(names)
        unusable: dict[str, tuple[str, Any]] = {}
        for key, value in record.items():
            # A column of that name has its own values.
            if key in self.known or key in lookup.names:
                continue
            for name in lookup.within(key):
                if name in record or name in unusable:
                    continue
                if any(_bars(value, rest) for rest in self._rests(name, key)):
                    unusable[name] = key, value
        return unusable

    def _rests(self, name: str, holder: str) -> Iterator[str]:
        """The paths of a column within one of its holders."""
        for spelt in self.spellings(name):
            for place in _dots(spelt):
                if holder in (spelt[:place], _BOM + spelt[:place]):
                    yield spelt[place + 1 :]

    def barred(
        self, table: pa.Table, names: Iterable[str]
    ) -> dict[str, tuple[str, pa.DataType]]:
        """By column that a table lacks, the column that should hold it and its type, where that has values
        and is not made of structs.
        """
        wanted = list(names)
        fields = dict.fromkeys(table.column_names)
        barred: dict[str, tuple[str, pa.DataType]] = {}
        for name in (n for n in wanted if n not in fields):
            for key in dict.fromkeys(self.holders(name)):
                if key not in fields or key in self.known or key in wanted:
                    continue
                column = one_array(table[key])
                if any(_bars_array(column, rest) for rest in self._rests(name, key)):
                    barred.setdefault(name, (key, column.type))
        return barred

    def sources(self, name: str) -> Iterator[str]:
        """The columns that may hold the column `name`, as it is or in objects."""
        yield from self.holders(name)
        for spelt in self.spellings(name):
            if spelt != name:
                yield spelt
            yield _BOM + spelt

    def holders(self, name: str) -> Iterator[str]:
        """The columns whose objects may hold the column `name`: `customer` of `customer.name`."""
        for spelt in self.spellings(name):
            for place in _dots(spelt):
                yield spelt[:place]
                yield _BOM + spelt[:place]

    def filled(self, table: pa.Table, names: Mapping[str, pa.DataType]) -> pa.Table:
        """The table with nulls in the columns `names`, as far as it lacks them and has no others that are
        spelt nearly like them; as it is where fields may not be left out.
        """
        fields = dict.fromkeys(table.column_names)
        absent = [name for name in names if name not in fields]
        if not self.sparse or len(absent) == len(names):
            return table
        near = self.hints(fields, names)
        left_out = [name for name in absent if name not in near]
        nulls = [pa.nulls(table.num_rows, names[name]) for name in left_out]
        # One new table: each appended column would copy the list of all others.
        added = [pa.field(name, names[name]) for name in left_out]
        schema = pa.schema([*table.schema, *added], table.schema.metadata)
        return pa.Table.from_arrays([*table.columns, *nulls], schema=schema)

    def unnested(self, table: pa.Table, names: Iterable[str]) -> pa.Table:
        """The table with the columns `names` beside its own, as far as its structs hold them."""
        present = set(table.column_names)
        for name in names:
            if name in present:
                continue
            for spelt in self.spellings(name):
                column = _within_table(table, present, spelt)
                if column is not None:
                    table = table.append_column(name, column)
                    break
        return table


@dataclass(frozen=True)
class _Lookup:
    """Which columns a field of a record may hold, or be a misspelling of."""

    names: frozenset[str]
    by_source: Mapping[str, Sequence[str]]
    by_variant: Mapping[str, Sequence[str]]
    """Columns by their plain names, and by these without one of their letters."""

    @classmethod
    def of(cls, shape: RecordShape, names: Sequence[str]) -> _Lookup:
        by_source: dict[str, list[str]] = {}
        by_variant: dict[str, list[str]] = {}
        for name in dict.fromkeys(names):
            for source in dict.fromkeys(shape.sources(name)):
                by_source.setdefault(source, []).append(name)
            for variant in _variants(_plain(name)) if shape.sparse else ():
                by_variant.setdefault(variant, []).append(name)
        return cls(frozenset(names), by_source, by_variant)

    def within(self, field: Any) -> Sequence[str]:
        """The columns that may be within a field."""
        return self.by_source.get(field, ())

    def near(self, field: str) -> list[str]:
        """The columns that a field is spelt nearly like.

        Two names that differ in one letter, or in two that changed places, have a variant in common; so a
        name is compared with few columns, however many there are.
        """
        if field in self.names:
            return []
        variants = _variants(_plain(field))
        alike = dict.fromkeys(n for v in variants for n in self.by_variant.get(v, ()))
        return [name for name in alike if _near(_plain(name), field)]


def _variants(plain: str) -> set[str]:
    """A plain name, and what is left of it without one of its letters."""
    if len(plain) > 2 * _LONGEST:
        return set()
    return {plain, *(plain[:i] + plain[i + 1 :] for i in range(len(plain)))}


def _plain(name: str) -> str:
    """A name without what people leave out or add: case, and signs between words."""
    return name.casefold().replace("_", "").replace("-", "").replace(" ", "")


def _near(name: str, field: str) -> bool:
    """Whether a field's name differs from a plain name in one letter, or in two that changed places."""
    if abs(len(name) - len(field)) > len(field) // 2:
        return False
    other = _plain(field)
    longest = max(len(name), len(other))
    if longest - min(len(name), len(other)) > 1:
        return False
    ends = name[:1] == other[:1], name[-1:] == other[-1:]
    if not any(ends):
        return False
    if name != other and _without_digits(name) == _without_digits(other):
        return False
    start = _alike(name, other)
    end = _alike(name[start:][::-1], other[start:][::-1])
    if start + end >= longest - 1:
        return True
    swapped = name[start : start + 2] == other[start : start + 2][::-1]
    return swapped and start + end == longest - 2


def _without_digits(name: str) -> str:
    return "".join(letter for letter in name if not letter.isdigit())


def _alike(one: str, other: str) -> int:
    """How many characters two texts share at their beginnings."""
    pairs = enumerate(zip(one, other, strict=False))
    different = (place for place, (a, b) in pairs if a != b)
    return next(different, min(len(one), len(other)))


def _dots(name: str) -> list[int]:
    return [place for place, letter in enumerate(name) if letter == "."]


def _within(holder: Mapping[str, Any], path: str) -> Any:
    """The value at a path of names with dots between them; a name may itself have dots."""
    for key in (path, _BOM + path):
        if key in holder:
            return holder[key]
    for place in _dots(path):
        for key in (path[:place], _BOM + path[:place]):
            if key not in holder:
                continue
            value = _below(holder[key], path[place + 1 :])
            if value is not _ABSENT:
                return value
    return _ABSENT


def _below(value: Any, path: str) -> Any:
    # An object that is missing has no fields, and all of them are missing.
    if value is None:
        return None
    if isinstance(value, Mapping):
        return _within(value, path)
    if not isinstance(value, (list, tuple)):
        return _ABSENT
    if not all(element is None or isinstance(element, Mapping) for element in value):
        return _ABSENT
    # Every list column of listed objects is as long as the list; what an element lacks is null in it.
    elements = [None if e is None else _within(e, path) for e in value]
    # But not what an element has in another form.
    pairs = zip(elements, value, strict=True)
    if any(value is _ABSENT and _bars(e, path) for value, e in pairs):
        return _ABSENT
    return [None if element is _ABSENT else element for element in elements]


def _bars(value: Any, path: str) -> bool:
    """Whether a value is there that can have no field of that path: a text, or a list of numbers."""
    if value is None:
        return False
    if isinstance(value, Mapping):
        return any(
            _bars(value[key], path[place + 1 :])
            for place in _dots(path)
            for key in (path[:place], _BOM + path[:place])
            if key in value
        )
    if isinstance(value, (list, tuple)):
        return any(_bars(element, path) for element in value)
    return True


def _bars_array(column: pa.Array, path: str) -> bool:
    """Whether a column has values that can have no field of that path."""
    if column.null_count == len(column):
        return False
    column = unpacked(column)
    kind = column.type
    t = pa.types
    if t.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return any(
            _bars_array(pc.struct_field(column, names.index(key)), path[place + 1 :])
            for place in _dots(path)
            for key in (path[:place], _BOM + path[:place])
            if key in names
        )
    return not _is_list(kind) or _bars_array(pieces(column)[1], path)


def _is_list(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))


def _paths(value: Mapping[str, Any], above: str, depth: int) -> Iterator[str]:
    """The names of a record's fields, those of its objects with dots."""
    for key, below in value.items():
        name = f"{above}{key}"
        if isinstance(below, Mapping) and depth < _DEEPEST:
            yield from _paths(below, f"{name}.", depth + 1)
        else:
            yield name


def _within_table(table: pa.Table, present: set[str], path: str) -> Any:
    """The column at a path of names, in a table's structs or lists of structs; None if there is none."""
    for key in (path, _BOM + path):
        if key in present:
            return table[key]
    for place in _dots(path):
        for key in (path[:place], _BOM + path[:place]):
            if key in present:
                column = _below_array(one_array(table[key]), path[place + 1 :])
                if column is not None:
                    return column
    return None


def _below_array(column: pa.Array, path: str) -> pa.Array | None:
    column = unpacked(column)
    kind = column.type
    t = pa.types
    if t.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        for key in (path, _BOM + path):
            if key in names:
                return pc.struct_field(column, names.index(key))
        for place in _dots(path):
            for key in (path[:place], _BOM + path[:place]):
                if key in names:
                    inner = pc.struct_field(column, names.index(key))
                    inner_values = _below_array(inner, path[place + 1 :])
                    if inner_values is not None:
                        return inner_values
        return None
    if t.is_null(kind):
        return column
    if _is_list(kind):
        sizes, inner = pieces(column)
        # Lists that are all empty may be lists of anything.
        values = _below_array(inner, path) if len(inner) else pa.nulls(0)
        return None if values is None else rebuild(sizes, values)
    return None


def _whole(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return (
        pa.concat_arrays(column.chunks)
        if column.num_chunks
        else pa.array([], column.type)
    )
