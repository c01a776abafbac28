"""How a CSV or TSV file begins: what is skipped, how its cells are delimited, whether it has a header, and
its names.

All of it is decided by the first bytes, before the file is cut into blocks (`delimited`); of several files of
one source, by the first bytes of all of them together (`together`), since one alone may mislead.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from penstock.core.errors import SourceError
from penstock.formats.dialect import (
    LONGEST_RECORD,
    Careful,
    Dialect,
    Record,
    beginning,
    behind_first,
    head_records,
    seems_header,
    sniff_delimiter,
    widths_of,
)
from penstock.formats.headers import Again, does_not_fit, fitted_names
from penstock.formats.reader import Context, FileReader, Input
from penstock.formats.shelf import ending
from penstock.formats.texts import LONGEST_LINE, TextStream, encoding_of

HEAD_BYTES = 1 << 16
"""The least that names, delimiter and header are judged by."""
PEEK_BYTES = 1 << 18
"""What of each file is looked at before any is read, where there are several."""

SPACES = "spaces"
"""The word for cells that are separated by runs of blanks."""
DELIMITERS = (b",", b"\t", b";", b"|")
PLACED = re.compile(r"column_[0-9]+")
"""What columns without names are called."""
_FEWEST_ROWS = 5
"""So many lines must agree before the names that a recipe gives are said to be too few or too many for them.
"""


class CsvFile(FileReader):
    """A CSV or TSV file up to its first row."""

    def __init__(self, input: Input, context: Context, *, tab: bool = False) -> None:
        """
        Args:
            tab: its cells are separated by tabs unless the recipe says otherwise.
        """
        super().__init__(input, context)
        self._tab = tab
        self._names: list[str] = []
        self._dialect = Dialect()
        self._encoding: str | None = None
        self._again: Again | None = None
        """Knows its header where it comes again."""
        self._header: bool | None = None
        """Whether it has a header, once that is decided."""
        self._delimiter: bytes | None = None
        """Its delimiter, once that is decided."""

    def _text(self) -> TextStream:
        if self._encoding is None:
            reading, context = self.input.reading, self.context
            # Of a sample no more is looked at than may be read of it.
            most = self.input.most_bytes
            if context.limit is not None:
                most = context.limit_bytes
            self._encoding = encoding_of(
                self.input.url, reading.encoding, self.say, most_bytes=most
            )
        spaces = self.input.reading.delimiter == SPACES
        return TextStream(self.input.url, self._encoding, spaces=spaces)

    # -- what files say together -----------------------------------------------------------------------------

    @property
    def asks_others(self) -> bool:
        """Whether its first line is judged by its looks, so that the other files of the
        source are asked as well.
        """
        reading = self.input.reading
        return reading.header == "auto" and not reading.names and self.input.known is None

    def peek(self) -> bytes:
        """Read the first records, as bytes for `cut`, and find the delimiter by them.

        Raises:
            SourceError: it is empty, or no text.
        """
        with self._text() as text:
            buffer, _, final = self._head(text, PEEK_BYTES)
            buffer, final = self._two_records(text, buffer, final)
            if not final:
                # The last line is cut somewhere: it would look like a row with too few cells.
                buffer = buffer[: buffer.rfind(b"\n") + 1] or buffer
        if not head_records(buffer, self._dialect, final=True, most=1):
            raise self._empty()
        return buffer

    @property
    def dialect(self) -> Dialect:
        """How it is written, once `peek` has found it out."""
        return self._dialect

    @property
    def delimiter(self) -> bytes:
        """The one byte between two cells."""
        return self._dialect.delimiter

    def cut(self, start: bytes, delimiter: bytes) -> list[Record]:
        """Parse what `peek` returned into records, with the given delimiter."""
        return head_records(
            start, replace(self._dialect, delimiter=delimiter), final=True
        )

    def settled(self, *, header: bool, delimiter: bytes) -> None:
        """Take over what all files of the source decided together: whether this one has
        a header, and its delimiter.
        """
        self._header, self._delimiter = header, delimiter

    # -- the beginning ---------------------------------------------------------------------------------------

    def _begin(self, text: TextStream) -> tuple[bytes, int, bool]:
        """Skip what is no data, settle dialect and names.

        Returns what was read and is data, its line, and if that is all.
        """
        buffer, line, final = self._head(text, max(self.context.block_bytes, HEAD_BYTES))
        buffer, final = self._two_records(text, buffer, final)
        records = head_records(buffer, self._dialect, final=final)
        if not records and not self.input.reading.names:
            raise self._empty()
        header = self._has_header(records)
        self._name_columns(records, header)
        if header and records:
            # The header goes by record and not by line: a name may hold a line end within quotes.
            stop, behind = behind_first(Careful(self._dialect), buffer, line, final)
            buffer, line = buffer[stop:], behind
        return buffer, line, final

    def _two_records(
        self, text: TextStream, buffer: bytes, final: bool
    ) -> tuple[bytes, bool]:
        """Settle the dialect, and read on until the buffer holds two records, if there
        are two: the names, and a row to compare them with.

        Raises:
            SourceError: the first one does not end.
        """
        while True:
            self._dialect = self._find_dialect(buffer, final)
            records = head_records(buffer, self._dialect, final=final, most=2)
            if final or len(records) == 2:
                return buffer, final
            if len(buffer) > LONGEST_RECORD:
                if not records:
                    raise self._too_long(1)
                return buffer, final
            # doubled, so that what is looked at again is no more than what is read
            more = text.read(len(buffer))
            buffer, final = buffer + more, not more

    def _too_long(self, line: int) -> SourceError:
        return SourceError(
            f"{self.input.path}, line {line}: the line is longer than {LONGEST_LINE >> 20} MiB, the most that"
            " a row of text may have. Is this a text table? If so, split that row, or take it out."
        )

    def _empty(self) -> SourceError:
        return SourceError(
            f"{self.input.path} is empty: it has no rows and no columns. Remove it, or name another."
            f" ({self.input.url})"
        )

    def _head(self, text: TextStream, size: int) -> tuple[bytes, int, bool]:
        """Read about `size` bytes behind the lines that are no data. Returns them, the
        number of their first line, and whether the file ends with them.
        """
        reading = self.input.reading
        buffer = text.read(size)
        # Only an empty read proves the end: a short one does not.
        final = len(buffer) == 0
        line = 1
        # Skipped are lines, not records: what is no data may hold any quotes.
        for _ in range(reading.skip_rows):
            while b"\n" not in buffer and not final:
                more = text.read(max(self.context.block_bytes, len(buffer)))
                buffer, final = buffer + more, not more
                if len(buffer) > LONGEST_LINE and b"\n" not in buffer:
                    raise self._too_long(line)
            cut = buffer.find(b"\n") + 1
            if not cut:
                raise SourceError(
                    f"{self.input.path} has fewer lines than skip_rows: {reading.skip_rows}."
                )
            buffer, line = buffer[cut:], line + 1
        # A bucket or a decoder may give less than was asked for.
        while not final and len(buffer) < HEAD_BYTES:
            more = text.read(HEAD_BYTES)
            buffer, final = buffer + more, not more
        # Such a file would be one line, and all of it the header.
        if b"\n" not in buffer[: 1 << 20] and b"\r" in buffer[: 1 << 20]:
            raise SourceError(
                f"{self.input.path} ends its lines with CR alone, as old Macs did. Convert it first, for"
                " example with: tr '\\r' '\\n'"
            )
        # UTF-16 without its mark: each second byte of English is zero.
        if buffer[:4096].count(b"\0") * 10 > len(buffer[:4096]):
            raise SourceError(
                f"{self.input.path} contains many zero bytes, so it is not plain text. Set"
                " `encoding` (perhaps utf-16-le) or `format`."
            )
        return buffer, line, final

    def _find_dialect(self, buffer: bytes, final: bool) -> Dialect:
        reading = self.input.reading

        def byte(value: str | None) -> bytes | None:
            return value.encode() if value else None

        dialect = Dialect(
            b",",
            byte(reading.quote),
            byte(reading.escape),
            byte(reading.comment),
            reading.strip,
        )
        # The stream has made tabs of them.
        if reading.delimiter == SPACES:
            return replace(dialect, delimiter=b"\t")
        # What was learnt decides, unless the recipe gives the delimiter of this very
        # file.
        if self.input.known is not None and (
            not reading.delimiter or "delimiter" in self.input.inherited
        ):
            return self._learnt_dialect(dialect, buffer, final)
        if reading.delimiter:
            return replace(dialect, delimiter=reading.delimiter.encode())
        if self._delimiter:
            return replace(dialect, delimiter=self._delimiter)
        if self._tab:
            return replace(dialect, delimiter=b"\t")
        start = beginning(buffer, PEEK_BYTES)
        delimiter = sniff_delimiter(
            start, dialect, final=final and len(buffer) <= len(start)
        )
        if delimiter is not None and delimiter != b",":
            self.say(
                f"uses the delimiter {delimiter.decode()!r}, judging by its first lines."
            )
        return replace(dialect, delimiter=delimiter or b",")

    def _learnt_dialect(self, dialect: Dialect, buffer: bytes, final: bool) -> Dialect:
        """Find the delimiter under which the file has the columns that were learnt: by
        the names in its first line, or by their number.
        """
        start = beginning(buffer, PEEK_BYTES)
        is_tabbed = self._tab or ending(self.input.url) == "tsv"
        first = self.input.reading.delimiter or ("\t" if is_tabbed else ",")
        best: tuple[int, bytes] = (0, b"")
        # The likeliest first, since an equal score does not take its place.
        for delimiter in dict.fromkeys([first.encode(), *DELIMITERS]):
            # A recipe may have made a quote of it.
            if delimiter in (dialect.quote, dialect.escape):
                continue
            records = head_records(
                start,
                replace(dialect, delimiter=delimiter),
                final=final and len(buffer) <= len(start),
            )
            score = self._known_names(records)
            # A file without names is known by its number of cells alone.
            if not score and self._had_no_header():
                score = widths_of(records).count(self._learnt_width())
            if score > best[0]:
                best = (score, delimiter)
        chosen = best[1] or (
            first.encode()
            if self.input.reading.delimiter or is_tabbed
            else sniff_delimiter(start, dialect, final=final) or b","
        )
        if chosen != first.encode():
            self.say(
                f"uses the delimiter {chosen.decode()!r}, judging by its first lines."
            )
        return replace(dialect, delimiter=chosen)

    def _known_names(self, records: list[Record]) -> int:
        """How many names that were learnt the first line has."""
        cells = (
            {c.decode().strip("\ufeff \t").lower() for c in records[0].cells}
            if records and not records[0].reason
            else set()
        )
        return len(cells & (self.input.known or frozenset()))

    def _learnt_width(self) -> int:
        return len(self.input.reading.names) or len(self.input.known or ())

    def _had_no_header(self) -> bool:
        """Whether what was learnt had its names by place."""
        known = self.input.known or frozenset()
        return bool(self.input.reading.names) or all(
            PLACED.fullmatch(name) for name in known
        )

    def _has_learnt_header(self, records: list[Record]) -> bool:
        if not self._had_no_header():
            return True  # if these are no names, the columns that are wanted are not there, which is said
        # Half of the first line's cells must be names that were learnt.
        return bool(records) and 2 * self._known_names(records) >= max(
            len(records[0].cells), 1
        )

    def _has_header(self, records: list[Record]) -> bool:
        reading = self.input.reading
        if self.input.known is not None and (
            reading.header == "auto" or "header" in self.input.inherited
        ):
            return self._has_learnt_header(records)
        if reading.header != "auto":
            return bool(reading.header)
        if self._header:
            return True
        # Beside names in the recipe the first line is a header only if it repeats them
        # all.
        if reading.names:
            cells = (
                [c.decode().strip().lower() for c in records[0].cells]
                if records and not records[0].reason
                else []
            )
            return cells == [n.lower() for n in reading.names]
        # What the files say together stands: it is known to be no header where `_header` is False.
        looks = seems_header(records) if self._header is None else "no"
        if looks == "perhaps":
            self.say(
                "contains only text; its first line looks like column names and is read so:"
                f" {records[0].raw[:80].decode()!r}. If it is data, set `header: false`."
            )
        if looks != "no":
            return True
        self.say(
            "seems to have no header: its columns are called column_1, column_2, …  Give them `names`, or set"
            " `header: true`."
        )
        return False

    def _name_columns(self, records: list[Record], header: bool) -> None:
        reading = self.input.reading
        # Learnt names stand by place only where the file has no header of its own.
        if reading.names and not (header and "names" in self.input.inherited):
            raw = list(reading.names)
            if (
                header
                and records
                and not records[0].reason
                and len(records[0].cells) != len(raw)
            ):
                raise SourceError(
                    f"{self.input.path} has {len(records[0].cells)} columns in its header, but source.names"
                    f" has {len(raw)}."
                )
            widths = Counter(widths_of(records[1:] if header else records))
            # Against names that were learnt a single line of another width is enough.
            least = 1 if "names" in self.input.inherited else _FEWEST_ROWS
            if len(raw) not in widths and len(widths) == 1 and widths.total() >= least:
                raise SourceError(
                    f"{self.input.path} has {widths.most_common(1)[0][0]} cells a row, but source.names has"
                    f" {len(raw)} names. Is the delimiter {self._dialect.delimiter.decode()!r} right?"
                )
        elif header:
            first = records[0] if records else None
            if first is None or first.reason:
                raise SourceError(
                    f"{self.input.path}: its header cannot be read:"
                    f" {first.reason if first else 'it has none'}."
                )
            raw = self._fitted([c.decode() for c in first.cells], records[1:])
        else:
            # The commonest width, so that a ragged first line does not decide.
            width = Counter(widths_of(records)).most_common(1)
            raw = [f"column_{i + 1}" for i in range(width[0][0] if width else 1)]
        self._names = self.final_names(raw)
        self._again = Again.of(
            self.input.path, records, reading, header=header, width=len(self._names)
        )

    def _fitted(self, names: list[str], rest: list[Record]) -> list[str]:
        """The header's names, as many as the rows below have cells.

        Where they were learnt, or said, rows that differ are rejects.

        Raises:
            SourceError: it was judged by its looks, and does not fit the lines below.
        """
        fitted = fitted_names(names, rest)
        if self.input.known is not None:
            has_row_names = fitted == ["", *names] and "column_1" in self.input.known
            return ["", *names] if has_row_names else names
        if fitted is None and self.input.reading.header == "auto":
            raise does_not_fit(self.input.path, names, rest)
        return fitted or names
