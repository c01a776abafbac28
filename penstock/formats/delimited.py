"""CSV and TSV: fast where the text is plain, careful where it is not, and the same rows from both.

The file is cut into blocks at the ends of records. A block whose every quote is where it should be goes to
Arrow's CSV parser, several at a time; any other to `dialect.Careful`. Both give text cells, which are
trimmed, mended and looked at (`TextTypes`), and kept in an Arrow file in scratch with their line numbers. The
second pass reads that file.

DuckDB's reader (1.5) is as fast but was not exact: of 200,000 rows with five faults, its strict mode put two
rows into one reject and counted records instead of lines, and its lenient mode lost 69,500 rows after a stray
quote, in silence.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from penstock.contracts.reading import Reject
from penstock.core.errors import SourceError
from penstock.formats.cells import Cells
from penstock.formats.dialect import (
    LONGEST_RECORD,
    Careful,
    Dialect,
    Record,
    beginning,
    behind_first,
    head_records,
    plain_cut,
    seems_header,
    sniff_delimiter,
    widths_of,
)
from penstock.formats.headers import REPEATED, Again, does_not_fit, fitted_names
from penstock.formats.reader import LINE, Context, FileReader, Input, mended_texts
from penstock.formats.shelf import ending
from penstock.formats.texts import LONGEST_LINE, TextStream, encoding_of
from penstock.formats.together import settle_together
from penstock.formats.typed import TextTypes

HEAD_BYTES = 1 << 16
"""The least that names, delimiter and header are judged by."""
PEEK_BYTES = 1 << 18
"""What of each file is looked at before any is read, where there are several."""

CELL_BYTES = 1 << 10
"""Of a column in a block, at the least: every block costs some work for each column, so that small blocks of
a wide table would cost as much as the square of its width.
"""
MOST_BLOCK_BYTES = 8 << 20
"""Of a block that is so large for its width's sake."""

DELIMITERS = (b",", b"\t", b";", b"|")
PLACED = re.compile(r"column_[0-9]+")
"""What columns without names are called."""

_JOINED = (
    "has its header again in line {line}, as where files were joined; such lines are put aside, as no rows."
)

Block = tuple[pa.RecordBatch, list[Reject]]


class Delimited(FileReader):
    """Reads one CSV or TSV file."""

    def __init__(self, input: Input, context: Context, *, tab: bool = False) -> None:
        """
        Args:
            tab: its cells are separated by tabs unless the recipe says otherwise.
        """
        super().__init__(input, context)
        self._tab = tab
        self._cells: Cells | None = None
        self._rows = 0
        self._names: list[str] = []
        self._dialect = Dialect()
        self._wanted: list[int] = []
        self._types: list[TextTypes] = []
        self._block_bytes = context.block_bytes
        self._encoding: str | None = None
        self._again: Again | None = None
        """Knows its header where it comes again."""
        self._header: bool | None = None
        """Whether it has a header, once that is decided."""
        self._delimiter: bytes | None = None
        """Its delimiter, once that is decided."""

    @classmethod
    def agree(cls, files: Sequence[Self]) -> None:
        asking = [file for file in files if file.asks_others]
        if len(asking) > 1:
            settle_together(asking)

    def scan(self) -> None:
        with self._text() as text:
            buffer, line, final = self._begin(text)
            self._settle_columns()
            size = 0
            blocks = self._blocks(text, buffer, line, final)
            own = self.context.scratch / f"cells-{id(self):x}.arrow"
            self._cells = Cells(self.context.spool, own, self._kept_schema())
            try:
                for batch, rejects in blocks:
                    for reject in rejects:
                        self.reject(reject)
                        if reject.reason == REPEATED:
                            self.say(_JOINED.format(line=reject.line), warn=True)
                    self.declared = (self.declared or 0) + batch.num_rows + len(rejects)
                    if batch.num_rows:
                        self._cells.write(batch)
                        self._rows += batch.num_rows
                    size += batch.nbytes + sum(len(reject.row) for reject in rejects)
                    if self.context.limit is not None and (
                        self._rows >= self.context.limit or size >= self.context.limit_bytes
                    ):
                        blocks.close()
                        break
            finally:
                self._cells.end()
        self._again = None  # of a hundred thousand files each would have one

    def _text(self) -> TextStream:
        if self._encoding is None:
            reading, context = self.input.reading, self.context
            most = None if context.limit is None else context.limit_bytes
            self._encoding = encoding_of(self.input.url, reading.encoding, self.say, most_bytes=most)
        return TextStream(self.input.url, self._encoding)

    # -- what files say together -----------------------------------------------------------------------------

    @property
    def asks_others(self) -> bool:
        """Whether its first line is judged by its looks, for which the other files of the source are asked as
        well.
        """
        reading = self.input.reading
        return reading.header == "auto" and not reading.names and self.input.known is None

    def peek(self) -> bytes:
        """Its first records, as bytes, to be cut by `cut`; its delimiter is found by them.

        Raises:
            SourceError: it is empty, or no text.
        """
        with self._text() as text:
            buffer, _, final = self._head(text, PEEK_BYTES)
            buffer, final = self._two_records(text, buffer, final)
            if not final:
                buffer = buffer[: buffer.rfind(b"\n") + 1] or buffer
        if not head_records(buffer, self._dialect, final=True, most=1):
            raise self._empty()
        return buffer

    @property
    def delimiter(self) -> bytes:
        """The one byte between two cells."""
        return self._dialect.delimiter

    def cut(self, start: bytes, delimiter: bytes) -> list[Record]:
        """The records of what `peek` gave."""
        return head_records(start, replace(self._dialect, delimiter=delimiter), final=True)

    def settled(self, *, header: bool, delimiter: bytes) -> None:
        """What all files of the source say together of this one's first line and delimiter."""
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
            stop, behind = behind_first(Careful(self._dialect), buffer, line, final)
            buffer, line = buffer[stop:], behind
        return buffer, line, final

    def _two_records(self, text: TextStream, buffer: bytes, final: bool) -> tuple[bytes, bool]:
        """Settle the dialect, and read on until there are two records, if there are: names, and what they are
        held against.

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
        """About `size` bytes after the lines that are no data, the line they begin on, and if that is all."""
        reading = self.input.reading
        buffer = text.read(size)
        final = len(buffer) == 0
        line = 1
        for _ in range(reading.skip_rows):
            while b"\n" not in buffer and not final:
                more = text.read(max(self.context.block_bytes, len(buffer)))
                buffer, final = buffer + more, not more
                if len(buffer) > LONGEST_LINE and b"\n" not in buffer:
                    raise self._too_long(line)
            cut = buffer.find(b"\n") + 1
            if not cut:
                raise SourceError(f"{self.input.path} has fewer lines than skip_rows: {reading.skip_rows}.")
            buffer, line = buffer[cut:], line + 1
        while not final and len(buffer) < HEAD_BYTES:
            more = text.read(HEAD_BYTES)
            buffer, final = buffer + more, not more
        if b"\n" not in buffer[: 1 << 20] and b"\r" in buffer[: 1 << 20]:
            raise SourceError(
                f"{self.input.path} ends its lines with CR alone, as old Macs did. Convert it first, for"
                " example with: tr '\\r' '\\n'"
            )
        if buffer[:4096].count(b"\0") * 10 > len(buffer[:4096]):
            raise SourceError(
                f"{self.input.path} is full of zero bytes, which text is not. Set `encoding` (utf-16-le?) or"
                " `format` to what it is."
            )
        return buffer, line, final

    def _find_dialect(self, buffer: bytes, final: bool) -> Dialect:
        reading = self.input.reading

        def byte(value: str | None) -> bytes | None:
            return value.encode() if value else None

        dialect = Dialect(
            b",", byte(reading.quote), byte(reading.escape), byte(reading.comment), reading.strip
        )
        if self.input.known is not None and (not reading.delimiter or "delimiter" in self.input.inherited):
            return self._learnt_dialect(dialect, buffer, final)
        if reading.delimiter:
            return replace(dialect, delimiter=reading.delimiter.encode())
        if self._delimiter:
            return replace(dialect, delimiter=self._delimiter)
        if self._tab:
            return replace(dialect, delimiter=b"\t")
        start = beginning(buffer, PEEK_BYTES)
        found = sniff_delimiter(start, dialect, final=final and len(buffer) <= len(start))
        if found is not None and found != b",":
            self.say(f"has its cells delimited by {found.decode()!r}, judging by its first lines.")
        return replace(dialect, delimiter=found or b",")

    def _learnt_dialect(self, dialect: Dialect, buffer: bytes, final: bool) -> Dialect:
        """The delimiter under which the file has the columns that were learnt: by its first line's names, or
        by their number.
        """
        start = beginning(buffer, PEEK_BYTES)
        is_tabbed = self._tab or ending(self.input.url) == "tsv"
        first = self.input.reading.delimiter or ("\t" if is_tabbed else ",")
        best: tuple[int, bytes] = (0, b"")
        for delimiter in dict.fromkeys([first.encode(), *DELIMITERS]):
            if delimiter in (dialect.quote, dialect.escape):
                continue
            records = head_records(
                start, replace(dialect, delimiter=delimiter), final=final and len(buffer) <= len(start)
            )
            score = self._known_names(records)
            if not score and self._had_no_header():
                score = widths_of(records).count(self._learnt_width())
            if score > best[0]:
                best = (score, delimiter)
        found = best[1] or (
            first.encode()
            if self.input.reading.delimiter or is_tabbed
            else sniff_delimiter(start, dialect, final=final) or b","
        )
        if found != first.encode():
            self.say(f"has its cells delimited by {found.decode()!r}, judging by its first lines.")
        return replace(dialect, delimiter=found)

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
        return bool(self.input.reading.names) or all(PLACED.fullmatch(name) for name in known)

    def _has_learnt_header(self, records: list[Record]) -> bool:
        if not self._had_no_header():
            return True  # if these are no names, the columns that are wanted are not there, which is said
        return bool(records) and 2 * self._known_names(records) >= max(len(records[0].cells), 1)

    def _has_header(self, records: list[Record]) -> bool:
        reading = self.input.reading
        if self.input.known is not None and (reading.header == "auto" or "header" in self.input.inherited):
            return self._has_learnt_header(records)
        if reading.header != "auto":
            return bool(reading.header)
        if self._header:
            return True
        if reading.names:
            cells = (
                [c.decode().strip().lower() for c in records[0].cells]
                if records and not records[0].reason
                else []
            )
            return cells == [n.lower() for n in reading.names]
        looks = seems_header(records) if self._header is None else "no"
        if looks == "perhaps":
            self.say(
                "has nothing but text, so that its first line was taken for names on looks:"
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
        if reading.names and not (header and "names" in self.input.inherited):
            raw = list(reading.names)
            if header and records and not records[0].reason and len(records[0].cells) != len(raw):
                raise SourceError(
                    f"{self.input.path} has {len(records[0].cells)} columns in its header, but source.names"
                    f" has {len(raw)}."
                )
            widths = Counter(widths_of(records[1:] if header else records))
            least = 1 if "names" in self.input.inherited else 5
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
            width = Counter(widths_of(records)).most_common(1)
            raw = [f"column_{i + 1}" for i in range(width[0][0] if width else 1)]
        self._names = self.final_names(raw)
        self._again = Again.of(self.input.path, records, reading, header=header, width=len(self._names))

    def _fitted(self, names: list[str], rest: list[Record]) -> list[str]:
        """Its header's names as its rows need them.

        Where they were learnt, or said, rows that differ are rejects.

        Raises:
            SourceError: it was judged by its looks, and does not fit the lines below.
        """
        if self.input.known is not None:
            return names
        found = fitted_names(names, rest)
        if found is None and self.input.reading.header == "auto":
            raise does_not_fit(self.input.path, names, rest)
        return found or names

    def _settle_columns(self) -> None:
        chosen = self.input.reading.columns
        self._wanted = [i for i, n in enumerate(self._names) if not chosen or n in chosen]
        self.check_width(len(self._wanted))
        self._types = [self.context.text(self._names[i]) for i in self._wanted]
        self._block_bytes = max(
            self.context.block_bytes, min(len(self._names) * CELL_BYTES, MOST_BLOCK_BYTES)
        )
        self.columns = dict(zip([self._names[i] for i in self._wanted], self._types, strict=True))

    # -- the blocks ------------------------------------------------------------------------------------------

    def _blocks(
        self, text: TextStream, buffer: bytes, line: int, final: bool
    ) -> Generator[Block, None, None]:
        """Every block, parsed, in order; as many ahead as there are workers.

        Not by `core.ordered_map`: whether a block needs a thread is known only once it is cut, a source may
        have a hundred thousand files of one block, and its threads would start with each.
        """
        waiting: deque[Future[Block] | Block] = deque()
        with ThreadPoolExecutor(self.context.workers) as pool:
            try:
                for block in self._parsed(text, buffer, line, final, pool):
                    waiting.append(block)
                    while len(waiting) > self.context.workers:
                        yield _result(waiting.popleft())
                while waiting:
                    yield _result(waiting.popleft())
            finally:
                for future in waiting:
                    if isinstance(future, Future):
                        future.cancel()

    def _parsed(
        self, text: TextStream, buffer: bytes, line: int, final: bool, pool: ThreadPoolExecutor
    ) -> Iterator[Future[Block] | Block]:
        """Every block, in order, parsed or being parsed.

        What is looked at is a block's bytes, and twice as much each time where a record does not end in them;
        so one long record makes no others long, and nothing is looked at more than twice.
        """
        at, reach, is_first = 0, self._block_bytes, True
        while True:
            if len(buffer) - at < reach and not final:
                more = text.read(reach - (len(buffer) - at))
                buffer, at, final = buffer[at:] + more, 0, not more
                continue
            if at == len(buffer):
                return
            start = buffer[at : at + reach]
            last = final and at + len(start) == len(buffer)
            cut = plain_cut(start, self._dialect, final=last)
            if cut == 0 and not last and len(start) < LONGEST_RECORD:
                reach *= 2
                continue
            if cut:
                block = start[:cut]
                # a file of one block needs no thread, and a source may have a hundred thousand of them
                is_only = is_first and last and cut == len(start)
                yield self._fast(block, line) if is_only else pool.submit(self._fast, block, line)
                at, line = at + cut, line + block.count(b"\n")
            else:
                careful = Careful(self._dialect)
                found = self._careful(careful, start, line, final=last, most_bytes=self._block_bytes)
                if careful.consumed:
                    yield found
                    at, line = at + careful.consumed, careful.line
                elif len(start) > LONGEST_LINE:
                    raise self._too_long(line)
                else:
                    reach *= 2
                    continue
            reach, is_first = self._block_bytes, False

    def _fast(self, block: bytes, line: int) -> Block:
        d, width = self._dialect, len(self._names)
        keys = [str(i) for i in range(width)]
        short: list[int] = []

        def aside(row: pacsv.InvalidRow) -> str:
            short.append(row.actual_columns)
            return "skip"

        change = pacsv.ConvertOptions(
            column_types={k: pa.string() for k in keys},
            include_columns=[keys[i] for i in self._wanted or [0]],
            strings_can_be_null=False,
        )

        def parsed(handler: Callable[[pacsv.InvalidRow], str] | None) -> pa.Table:
            parse = pacsv.ParseOptions(
                delimiter=d.delimiter.decode(),
                quote_char=d.quote.decode() if d.quote else False,
                double_quote=True,
                escape_char=False,
                newlines_in_values=True,
                ignore_empty_lines=True,
                invalid_row_handler=handler,
            )
            return pacsv.read_csv(
                pa.BufferReader(block),
                pacsv.ReadOptions(column_names=keys, block_size=len(block) + 64, use_threads=False),
                parse,
                change,
            )

        try:
            table = parsed(None)
        except pa.ArrowInvalid:
            try:
                block.decode()  # Arrow's handler of ragged rows cannot be given bytes that are no UTF-8
                table = parsed(aside)
            except (UnicodeDecodeError, pa.ArrowInvalid):
                return self._careful(Careful(d), block, line, final=True)
        rows = table.num_rows
        if self._again is not None and self._again.suspected(
            block, [c.combine_chunks() for c in table.columns]
        ):
            return self._careful(Careful(d), block, line, final=True)
        if not short and rows == block.count(b"\n") + (not block.endswith(b"\n")):
            lines, rejects = np.arange(line, line + rows, dtype=np.int64), list[Reject]()
        else:
            found = self._lines(block, line, rows)
            if found is None:
                return self._careful(Careful(d), block, line, final=True)
            lines, rejects = found
        return (
            self._batch(
                [
                    c.combine_chunks() if c.num_chunks != 1 else c.chunk(0)
                    for c in table.columns[: len(self._wanted)]
                ],
                lines,
            ),
            rejects,
        )

    def _lines(self, block: bytes, line: int, rows: int) -> tuple[np.ndarray, list[Reject]] | None:
        """The lines of a plain block's good rows, and its ragged rows; None if the count is not that of the
        fast reader.
        """
        d, width = self._dialect, len(self._names)
        data = np.frombuffer(block, np.uint8)
        quotes = np.flatnonzero(data == d.quote[0]) if d.quote else np.empty(0, np.int64)
        breaks = np.flatnonzero(data == 10)
        ends = breaks[(np.searchsorted(quotes, breaks) & 1) == 0]
        if not block.endswith(b"\n"):
            ends = np.append(ends, len(block))
        starts = np.concatenate([[0], ends[:-1] + 1])
        first = data[np.minimum(starts, len(data) - 1)]
        full = (ends > starts) & ~((ends - starts == 1) & (first == 13))
        cuts = np.flatnonzero(data == d.delimiter[0])
        cuts = cuts[(np.searchsorted(quotes, cuts) & 1) == 0]
        cells = np.searchsorted(cuts, ends) - np.searchsorted(cuts, starts) + 1
        good = full & (cells == width)
        if int(good.sum()) != rows:
            return None
        lines = line + np.searchsorted(breaks, starts)
        rejects = []
        for i in np.flatnonzero(full & ~good):
            raw = block[starts[i] : ends[i]].removesuffix(b"\r")
            if not (d.strip and not raw.strip()):
                rejects.append(
                    Reject(
                        int(lines[i]), self._ragged(int(cells[i])), raw.decode("utf-8", "backslashreplace")
                    )
                )
        return lines[good].astype(np.int64), rejects

    def _ragged(self, cells: int) -> str:
        return f"expected {len(self._names)} cells, found {cells}"

    def _careful(
        self, careful: Careful, buffer: bytes, line: int, *, final: bool, most_bytes: int | None = None
    ) -> Block:
        rows: list[list[bytes]] = []
        lines: list[int] = []
        rejects: list[Reject] = []
        width = len(self._names)
        for record in careful.records(buffer, line, final=final, width=width, most_bytes=most_bytes):
            reason = record.reason or ("" if len(record.cells) == width else self._ragged(len(record.cells)))
            if not reason and self._again is not None:
                reason = self._again.reason(record.cells, record.line)
            if not reason:
                rows.append(record.cells)
                lines.append(record.line)
            else:
                rejects.append(Reject(record.line, reason, record.raw.decode("utf-8", "backslashreplace")))
        columns = list(zip(*rows, strict=True)) if rows else [()] * width
        return (
            self._batch(
                [pa.array(columns[i], pa.binary()).cast(pa.string()) for i in self._wanted],
                np.array(lines, np.int64),
            ),
            rejects,
        )

    def _batch(self, columns: list[pa.Array], lines: np.ndarray) -> pa.RecordBatch:
        reading = self.input.reading
        made = []
        for index, array, types in zip(self._wanted, columns, self._types, strict=True):
            if reading.strip:
                array = pc.utf8_trim_whitespace(array)
            array = mended_texts(array, self._names[index], reading, empty_is_missing=True)
            types.observe(array)
            made.append(array)
        return pa.RecordBatch.from_arrays([*made, pa.array(lines, pa.int64())], schema=self._kept_schema())

    def _kept_schema(self) -> pa.Schema:
        return pa.schema([*((self._names[i], pa.string()) for i in self._wanted), (LINE, pa.int64())])

    # -- the second pass -------------------------------------------------------------------------------------

    def batches(self, kinds: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        if self._cells is not None:
            yield from self._cells.batches()

    def close(self) -> None:
        if self._cells is not None:
            self._cells.close()


def _result(block: Future[Block] | Block) -> Block:
    return block.result() if isinstance(block, Future) else block
