"""The columns of a whole source, out of what each of its files says: one spelling and one type for each.

Columns are united by name, whatever the case of its letters; the first spelling wins, or the one that was
learnt. A type is the narrowest that holds the values of all files. Types that the recipe forces, or that were
learnt, stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from penstock.contracts.learnt import Learnt
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.formats.learnt import MISFIT, learnt_type
from penstock.formats.reader import COMMAS, NUMBERS, FileReader, check_words
from penstock.formats.typed import FORCED, TextTypes, settle, unite

Partition = dict[str, str | None]
"""By column: what the names of a file's folders say, `name=value` (Hive's layout)."""
_MOST_NAMED = 12
"""Columns that one sentence lists."""


@dataclass
class ColumnPlan:
    """The columns of the whole source."""

    kinds: dict[str, pa.DataType]
    forced: dict[str, str]
    """Columns whose type the recipe forces."""
    spelling: dict[str, str]
    """By name in lower case: the spelling that won."""
    learnt: frozenset[str] = frozenset()
    """Columns whose type was learnt."""
    respelt: frozenset[str] = frozenset()
    """Columns that are what the recipe's words make of their texts (`decimal`, `date_format`, …)."""
    commas: frozenset[str] = frozenset()
    """The learnt ones whose texts are read with a decimal comma."""
    misfits: set[str] = field(default_factory=set)
    """Those of the learnt ones in which values were found that are not of it."""

    def schema(self) -> pa.Schema:
        """The columns as the extract gives them."""
        return pa.schema(list(self.kinds.items()))

    def written(self) -> pa.Schema:
        """The columns as they are written: those of `schema`, and one beside each
        learnt column (but text) for values that are not of its type.
        """
        beside = [
            (MISFIT + name, pa.string())
            for name in self.kinds
            if name in self.learnt and not pa.types.is_string(self.kinds[name])
        ]
        return pa.schema([*self.kinds.items(), *beside])

    def wanted(self, reader: FileReader) -> dict[str, pa.DataType]:
        """By column, in the reader's spelling: the type to ask of a reader."""
        wanted = {}
        for name in reader.columns:
            final = self.spelling[name.lower()]
            # A forced type is made of the text as it stands: `force` says which texts are of it.
            wanted[name] = pa.string() if final in self.forced else self.kinds[final]
            if final in self.learnt and final not in self.forced:
                is_number = pa.types.is_integer(
                    self.kinds[final]
                ) or pa.types.is_floating(self.kinds[final])
                text = COMMAS if final in self.commas else pa.string()
                wanted[name] = NUMBERS if is_number else text
        return wanted


def plan_columns(
    readers: Sequence[FileReader],
    partitions: Sequence[Partition],
    events: Events,
    learnt: Learnt | None,
) -> ColumnPlan:
    """The columns of all files together.

    Args:
        readers: scanned and settled, in the order of the source.
        partitions: of each of them.
        learnt: the types that columns have, whatever these files look like.

    Raises:
        SourceError: types that cannot be united, or words of the recipe that name columns no file has.
    """
    union = _Union(events, {} if learnt is None else _learnt_spelling(readers, learnt))
    planned: set[int] = set()
    for reader, partition in zip(readers, partitions, strict=True):
        # Files of JSON lines share one mapping of columns: a hundred thousand of them are united once.
        if id(reader.columns) not in planned:
            planned.add(id(reader.columns))
            union.add_file(reader)
        union.add_partition(partition)
    union.add_texts()
    _say_lacking(readers, partitions, union.spelling)
    union.settle()
    # The learnt types stand over what these files look like, and the recipe's over
    # both.
    kinds = union.kinds
    learnt_kinds = {} if learnt is None else _learnt_kinds(kinds, learnt)
    kinds |= learnt_kinds
    forced = _forced(readers, union.spelling)
    check_words(readers, set(union.parts))
    forced = {
        name: type for name, type in forced.items() if not _is_already(kinds[name], type)
    }
    kinds |= {name: FORCED[type] for name, type in forced.items()}
    # The recipe's order of `columns`, then the files'.
    chosen = [name for name in readers[0].input.reading.columns if name in kinds]
    ordered = {
        name: kinds[name]
        for name in [*chosen, *(name for name in kinds if name not in chosen)]
    }
    # A forced type is read by the rules of `force`, not as a learnt one.
    return ColumnPlan(
        ordered,
        forced,
        union.spelling,
        frozenset(learnt_kinds) - set(forced),
        frozenset(union.respelt),
        frozenset() if learnt is None else learnt.commas & set(learnt_kinds),
    )


class _Union:
    """Columns by name and type, united file by file."""

    def __init__(self, events: Events, spelling: dict[str, str]) -> None:
        self._events = events
        self.spelling = spelling
        self.kinds: dict[str, pa.DataType] = {}
        self.parts: dict[str, TextTypes] = {}
        """Columns that folders give."""
        self._texts: dict[str, TextTypes] = {}
        self.respelt: set[str] = set()
        self._inexact: set[str] = set()
        """Columns with an integer that float64 cannot hold."""

    def add_file(self, reader: FileReader) -> None:
        """Unite a file's columns with those before it."""
        for name, kind in reader.columns.items():
            final = self.spelling.setdefault(name.lower(), name)
            if final != name:
                reader.say(
                    f"spells the column {final!r} as {name!r}. Both are read as one column.",
                    warn=True,
                )
            if isinstance(kind, TextTypes):
                self._texts[final] = kind  # one for all files that have the column
                if kind.inexact:
                    self._inexact.add(final)
                # Null until all files are seen: `add_texts` gives it the type of its
                # texts.
                self.kinds.setdefault(final, pa.null())
            else:
                self._unite(reader, final, kind)
            if name in reader.inexact:
                self._inexact.add(final)

    def _unite(self, reader: FileReader, name: str, kind: pa.DataType) -> None:
        before = self.kinds.get(name, pa.null())
        united = unite(before, kind)
        if united is None:
            raise SourceError(
                f"the column {name!r} is {kind} in {reader.input.path} but {before} in"
                " earlier files. Bytes cannot be combined with another type."
            )
        # A column that held nothing so far has no type that could change.
        is_changed = not united.equals(before) and not pa.types.is_null(before)
        if is_changed and not pa.types.is_null(kind):
            self._events.say(
                f"the column {name!r} has several types in the files ({before}, {kind}). It"
                f" is read as {united}."
            )
        self.kinds[name] = united

    def add_partition(self, partition: Partition) -> None:
        """Unite the columns that the names of a file's folders give (`name=value`)."""
        for name, value in partition.items():
            final = self.spelling.setdefault(name.lower(), name)
            self.kinds.setdefault(final, pa.null())
            types = self.parts.setdefault(final, TextTypes())
            if value is not None:
                # A partition without a value says nothing of the type.
                types.observe(pa.array([value]))

    def add_texts(self) -> None:
        """Give each column of text the type that its texts allow, once all files are
        added.
        """
        # Once for each column, and not for each file.
        for name, types in [*self._texts.items(), *self.parts.items()]:
            if types.respelt is not None:
                self._respell(name, types)
            united = unite(self.kinds[name], types.result())
            if united is None:
                raise SourceError(
                    f"the column {name!r} is bytes in some files and text in others."
                )
            self.kinds[name] = united

    def _respell(self, name: str, types: TextTypes) -> None:
        """Note a column whose texts are all written as the recipe says.

        Raises:
            SourceError: some are, or could be, and others are not: what a text means would depend on the rest
                of its file.
        """
        if types.is_respelt():
            self.respelt.add(name)
            return
        plain = types.result()
        is_float = types.are_numbers and pa.types.is_floating(plain)
        if types.misfits and (types.fits or is_float) and not pa.types.is_string(plain):
            raise SourceError(
                f"the column {name!r} has texts that are not written as `decimal`, `thousands` or"
                f" `date_format` say, and are {plain} as they stand. Say by column which are written so, such"
                " as `decimal: {price: ','}`."
            )
        if types.misfits and types.is_named:
            self._events.warn(
                f"the column {name!r} stays text: not all of it is written as `decimal`, `thousands` or"
                f" `date_format` say. Force it with `types: {{{name}: number}}`; what does not fit is then"
                " quarantined."
            )

    def settle(self) -> None:
        """Settle the types: text for columns without any value, and for numbers that
        would not stay exact.
        """
        if self.parts:
            plural = "s" if len(self.parts) > 1 else ""
            self._events.say(
                f"the folders' names give the column{plural} {', '.join(self.parts)}."
            )
        for name, kind in self.kinds.items():
            kind = self.kinds[name] = settle(kind)
            if name not in self._inexact:
                continue
            # Lists of floats are meant as well.
            if _inner(kind).equals(pa.float64()):
                kind = self.kinds[name] = pa.string()
            types = self._texts.get(name)
            if pa.types.is_string(kind) and types is not None and types.number:
                self._events.warn(
                    f"the column {name!r} has whole numbers that neither int64 nor float64 can"
                    f" hold exactly. It is read as text. Force numbers with `types: {{{name}:"
                    " number}`."
                )


def _learnt_spelling(readers: Sequence[FileReader], learnt: Learnt) -> dict[str, str]:
    """The learnt spelling of the columns that are there."""
    here = {name.lower() for reader in readers for name in reader.columns}
    return {name.lower(): name for name in learnt.schema.names if name.lower() in here}


def _learnt_kinds(
    kinds: dict[str, pa.DataType], learnt: Learnt
) -> dict[str, pa.DataType]:
    """The learnt types of the columns that are there; bytes and lists stay what they are."""
    chosen: dict[str, pa.DataType] = {}
    for column in learnt.schema:
        here, kind = kinds.get(column.name), learnt_type(column.type)
        if here is None or pa.types.is_nested(here) or pa.types.is_binary(here):
            continue
        if kind is not None:
            chosen[column.name] = kind
        elif not pa.types.is_nested(column.type):
            chosen[column.name] = pa.string()  # bytes, named or written as text
    return chosen


def _forced(readers: Sequence[FileReader], spelling: dict[str, str]) -> dict[str, str]:
    """By column: the type that the recipe gives it."""
    forced: dict[str, str] = {}
    for reader in readers:
        for name, type in reader.input.reading.types_.items():
            final = spelling.get(name.lower(), name)
            if forced.setdefault(final, type) != type:
                raise SourceError(
                    f"source.types declares two types for {name!r}: {forced[final]} and {type}."
                )
    return forced


def _is_already(kind: pa.DataType, type: str) -> bool:
    """Whether a column is of a forced type by itself, so that nothing of it needs to be looked at."""
    return bool(
        kind.equals(FORCED[type]) or (type == "timestamp" and pa.types.is_timestamp(kind))
    )


def _say_lacking(
    readers: Sequence[FileReader],
    partitions: Sequence[Partition],
    spelling: dict[str, str],
) -> None:
    """Say which columns a table lacks that others of the source have."""
    for reader, partition in zip(readers, partitions, strict=True):
        # Some formats lack columns as a matter of course; and an empty file has no rows
        # that could.
        if reader.fields_vary or not reader.columns:
            continue
        here = {name.lower() for name in (*reader.columns, *partition)}
        lacking = [final for name, final in spelling.items() if name not in here]
        if lacking:
            some = ", ".join(lacking[:_MOST_NAMED]) + (
                " …" if len(lacking) > _MOST_NAMED else ""
            )
            reader.say(
                "lacks columns that other files have; its rows get missing values for them:"
                f" {some}.",
                warn=True,
            )


def _inner(kind: pa.DataType) -> pa.DataType:
    return _inner(kind.value_type) if pa.types.is_list(kind) else kind
