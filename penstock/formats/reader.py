"""What every reader of a format promises, and what they share: names made usable, things said once.

A file is read in two passes. `scan` learns its columns, over all of its rows, and puts aside what cannot be
read; then, when the columns of all files are known, `batches` gives the rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.data import ROW_FILE, ROW_NUMBER
from penstock.contracts.reading import Reader, Reject
from penstock.core.errors import SourceError
from penstock.core.events import Events
from penstock.core.near import did_you_mean
from penstock.formats.cells import Spool
from penstock.formats.draw import Draw
from penstock.formats.options import SPELLING, Reading
from penstock.formats.rejects import Rejects
from penstock.formats.typed import TextTypes

LINE = "\0line"
"""The column in which readers give each row's line; no file can have a column of this name."""

MOST_COLUMNS = 30_000
"""Of a file that are read, and different fields of JSON lines.

More are data: keys that are values, or vectors.
"""
AROUND_NAMES = "\ufeff \t\r\n\0"
"""What is taken off both ends of a column's name."""
LONGEST_NAME = 4_096
"""Characters of a column's name."""
_MOST_SAID = 20
"""Names of one file that are spoken of one by one."""

NUMBERS = pa.large_string()
"""What a reader is asked for where numbers were learnt: texts, since some values may be none; truth values
are 1 and 0.
"""
COMMAS = pa.string_view()
"""What a reader is asked for where texts with a decimal comma were learnt: texts, numbers among them so.
"""


@dataclass(frozen=True)
class Input:
    """One file to read."""

    path: str
    """What it is called in lineage and rejects."""
    url: str
    reading: Reading = field(default_factory=Reading)
    size_bytes: int | None = None
    """What it must measure; not checked where it is None."""
    stamp: str = ""
    """Of the version that was found (`places.stamp_of`); empty where its place has none."""
    sha256: str = ""
    """Of its content; empty where it was not hashed."""
    known: frozenset[str] | None = None
    """The names of columns that were learnt, in lower case: they tell a header.

    None: nothing was learnt, looks decide.
    """
    learnt: pa.Schema | None = None
    """The columns that were learnt, with their types."""
    inherited: frozenset[str] = frozenset()
    """Words of `reading` that were learnt, and not said of this file: they may name columns that it lacks."""

    most_bytes: int | None = None
    """Of a look: about how many of its bytes are to be read, from all over it; None: all."""


@dataclass
class Context:
    """What the readers of one extract share."""

    scratch: Path
    rejects: Rejects
    events: Events
    block_bytes: int
    workers: int
    limit: int | None = None
    """Read about so many rows of each file, then stop."""
    limit_bytes: int = 0
    """With `limit`: stop as well where so many bytes were read of a file, and a row."""
    batch_bytes: int = 8 << 20
    """About what a batch of rows may take as columns, missing values and all."""
    value_bytes: int = 64 << 20
    """About what one row may take as plain Python."""
    whole_bytes: int | None = None
    """What a batch that its file holds in one piece may take, unpacked."""
    draw: Draw | None = None
    """What draws a sample of the rows; None: all are wanted."""
    texts: dict[str, TextTypes] = field(default_factory=dict)
    """By name in lower case: what the text columns of that name could be, over all files."""
    objects: dict[str, Any] = field(default_factory=dict)
    """What JSON's fields are, over all files that are read alike."""
    warned: set[str] = field(default_factory=set)
    spool: Spool = field(init=False)
    """Where small files keep what they say between the passes; whoever made the context closes it."""

    def __post_init__(self) -> None:
        self.spool = Spool(self.scratch / "cells.bin")

    def text(self, name: str) -> TextTypes:
        """What is known of the texts of the column `name`, in any case of letters; a
        new record for a new name.
        """
        return self.texts.setdefault(name.lower(), TextTypes())

    def say(self, path: str, text: str, *, warn: bool = False) -> None:
        """Tell the user something about a file, once: files after it for which the same
        is true are not named.
        """
        if text not in self.warned:
            self.warned.add(text)
            (self.events.warn if warn else self.events.say)(f"{path} {text}", file=path)


class FileReader(ABC):
    """Reads one file of one format."""

    fields_vary: ClassVar[bool] = False
    """Whether it is nothing unusual that a file lacks columns which others of the source have."""

    def __init__(self, input: Input, context: Context) -> None:
        self.input = input
        self.context = context
        self.columns: dict[str, pa.DataType | TextTypes] = {}
        """After `scan`: the columns by their final names; text whose type its values decide has a
        `TextTypes`.
        """
        self.inexact: set[str] = set()
        """After `scan`: columns with an integer that float64 cannot hold (for formats whose integers are not
        int64 already).
        """
        self.raw_names: set[str] = set()
        """After `scan`: the names as the file has them."""
        self.declared: int | None = None
        """After `scan`: how many rows the file says it has, or was seen to have, the bad ones among them."""
        self.is_part = False
        """Whether it holds some records of a larger file."""
        self.words: tuple[str, ...] = ()
        """The words of the recipe that its format understands, as its reader says."""
        self.rejected = 0
        """Rows put aside by now."""

    @classmethod
    def agree(cls, files: Sequence[Self]) -> None:
        """Decide what all files of the source say together, before one of them is scanned."""
        return

    @abstractmethod
    def scan(self) -> None:
        """Learn the columns, and put rows that cannot be read aside.

        Raises:
            SourceError: the file cannot be read as a whole.
        """

    @abstractmethod
    def batches(self, kinds: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        """The rows that can be read, in order, with their `LINE`; only columns in `kinds`, of those types or
        of types that `typed.convert` makes into them.
        """

    def settle(self) -> None:
        """Once all files of the source are scanned: settle the columns, where they follow from all of
        them.
        """
        return

    def close(self) -> None:
        """Remove what was kept on disk between the passes."""
        return

    def say(self, text: str, *, warn: bool = False) -> None:
        """Say `text` of this file to the user, once."""
        self.context.say(self.input.path, text, warn=warn)

    def reject(self, reject: Reject) -> None:
        """Count and record a row that cannot be read. Raises SourceError under `on_bad_row: fail`."""
        self.rejected += 1
        self.context.rejects.add(
            self.input.path, reject, fail=self.input.reading.on_bad_row == "fail"
        )

    def check_width(self, columns: int) -> None:
        """Refuse more columns than a table has.

        Raises:
            SourceError: they are too many.
        """
        if columns > MOST_COLUMNS:
            raise SourceError(
                f"{self.input.path} has {columns:,} columns to be read, more than {MOST_COLUMNS:,}. Choose"
                " some with `source.columns`; or write what belongs together as one column of lists"
                " (Parquet, Arrow, JSON lines), which may be as long as you like."
            )

    def final_names(self, raw: list[str]) -> list[str]:
        """The names as the user will know them: renamed, none empty, none twice (whatever the case of its
        letters, which engines do not tell apart), none that Penstock needs itself.
        """
        naming = Naming(self.input)
        names: list[str] = []
        odd: list[str] = []
        self.raw_names.update(raw)
        for raw_name in raw:
            name, wanted, clean = naming.name(raw_name)
            self.raw_names.add(clean)
            names.append(name)
            if name != wanted:
                odd.append(
                    f"has more than one column called {wanted!r} (or Penstock needs that name itself); the"
                    f" later one is called {name!r}."
                )
            elif not clean and not raw_name:
                odd.append(f"has a column without a name; it is called {name!r}.")
        for text in odd[:_MOST_SAID]:
            self.say(text, warn=True)
        if len(odd) > _MOST_SAID:
            self.say(
                f"has {len(odd) - _MOST_SAID:,} more columns without a name, which are named"
                " in the same way.",
                warn=True,
            )
        return names


class Named(NamedTuple):
    """What a column is called."""

    final: str
    wanted: str
    """Before it was told apart from another of that name."""
    clean: str
    """As the file says it, without white space; nothing, where it has no name."""


class Naming:
    """Gives the columns of a file their final names, one after another in the file's order."""

    def __init__(self, input: Input) -> None:
        self._path = input.path
        self._rename = input.reading.rename
        self._taken = {ROW_FILE, ROW_NUMBER}
        self._next_number: dict[str, int] = {}
        self._count = 0

    def name(self, raw_name: str) -> Named:
        """The next column, which the file calls `raw_name`.

        Raises:
            SourceError: no engine takes such a name.
        """
        self._count += 1
        clean = raw_name.strip(AROUND_NAMES)
        if len(clean) > LONGEST_NAME:
            raise SourceError(
                f"{self._path} has a column whose name has {len(clean):,} characters"
                f" ({clean[:60]!r} …); a name may have {LONGEST_NAME:,}. It may be data: check"
                " how the file is split into columns (`header`, `delimiter`), or whether keys"
                " are values."
            )
        rename = self._rename
        wanted = (
            rename.get(raw_name) or rename.get(clean) or clean or f"column_{self._count}"
        )
        if "\0" in wanted:
            raise SourceError(
                f"{self._path} has a column whose name holds the character NUL"
                f" ({wanted[:60]!a}), which no engine accepts in a name. Rename it with"
                " `source.rename`, or write the file again."
            )
        name, n = wanted, self._next_number.get(wanted.lower(), 2)
        while name.lower() in self._taken:
            name, n = f"{wanted}_{n}", n + 1
        self._next_number[wanted.lower()] = n
        self._taken.add(name.lower())
        return Named(name, wanted, clean)


class ScannedReader(Reader):
    """A format that looks over a whole file before it gives the first row: to know its types, or to cut it
    into pieces that are read side by side. One that gives row after row is a `RowReader`.
    """

    @abstractmethod
    def open(self, input: Input, context: Context) -> FileReader:
        """What reads one file. Nothing is read before `FileReader.scan`."""


def mended_texts(
    array: pa.Array, name: str, reading: Reading, *, empty_is_missing: bool
) -> pa.Array:
    """A text column after `trim_end` and `na`."""
    ending = reading.trim_end.get(name)
    if ending:
        # By bytes: what ends with these bytes can be cut without a look at its letters.
        array = pc.if_else(
            pc.ends_with(array, ending),
            pc.binary_slice(array.cast(pa.binary()), 0, -len(ending.encode())).cast(
                pa.string()
            ),
            array,
        )
    # Where all is text (CSV), an empty cell is missing; with types it is a text.
    markers = [*reading.na, *([""] if empty_is_missing else [])]
    if markers:
        missing = pc.is_in(array, pa.array(markers, pa.string()))
        # Most columns have none, and need no copy.
        if pc.any(missing).as_py():
            array = pc.if_else(missing, pa.scalar(None, pa.string()), array)
    return array


def check_words(readers: Sequence[FileReader], names: set[str]) -> None:
    """Refuse words that name columns no file has.

    Raises:
        SourceError: naming the word and what is near.
    """
    groups: dict[str, list[FileReader]] = {}
    for reader in readers:
        # Readers of one wording are asked together, so that a hundred thousand files
        # are checked once.
        groups.setdefault(reader.input.reading.model_dump_json(), []).append(reader)
    for members in groups.values():
        reading = members[0].input.reading
        here, raw = set(names), set[str]()
        # files of JSON lines share theirs
        for columns, raw_names in {
            id(m.columns): (m.columns, m.raw_names) for m in members
        }.values():
            here.update(columns)
            raw.update(raw_names)
        for word, wanted, known in (
            ("rename", reading.rename, raw),
            ("columns", reading.columns, here),
            ("types", reading.types_, here),
            ("trim_end", reading.trim_end, here),
            *(
                (word, given, here)
                for word in SPELLING
                if isinstance(given := getattr(reading, word), dict)
            ),
        ):
            for name in wanted:
                # Inherited words may name columns that this file lacks; those of the
                # recipe may not.
                if name not in known and word not in members[0].input.inherited:
                    there = sorted(
                        known
                        if word == "rename"
                        else known | ({reading.rename.get(n, n) for n in raw} - {""})
                    )
                    some = ", ".join(there[:12]) + (" …" if len(there) > 12 else "")
                    raise SourceError(
                        f"source.{word}: {members[0].input.path} has no column"
                        f" {name!r}.{did_you_mean(name, there)} Its columns: {some}"
                    )
