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

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from penstock.contracts.reading import Reject
from penstock.formats.cells import Cells
from penstock.formats.csv_head import CsvFile
from penstock.formats.dialect import (
    LONGEST_RECORD,
    Careful,
    plain_cut,
)
from penstock.formats.headers import REPEATED
from penstock.formats.reader import LINE, Context, Input, mended_texts
from penstock.formats.respelt import Respelling
from penstock.formats.texts import LONGEST_LINE, TextStream
from penstock.formats.together import settle_together
from penstock.formats.typed import TextTypes

CELL_BYTES = 1 << 10
"""Of a column in a block, at the least: every block costs some work for each column, so that small blocks of
a wide table would cost as much as the square of its width.
"""
MOST_BLOCK_BYTES = 8 << 20
"""Of a block that is so large for its width's sake."""

_JOINED = (
    "has its header again in line {line}, as where files were joined; such lines are put aside,"
    " as no rows."
)

Block = tuple[pa.RecordBatch, list[Reject]]


class Delimited(CsvFile):
    """Reads one CSV or TSV file."""

    def __init__(self, input: Input, context: Context, *, tab: bool = False) -> None:
        super().__init__(input, context, tab=tab)
        self._cells: Cells | None = None
        self._rows = 0
        self._wanted: list[int] = []
        self._types: list[TextTypes] = []
        self._spelt: list[Respelling | None] = []
        self._block_bytes = context.block_bytes

    @classmethod
    def agree(cls, files: Sequence[Self]) -> None:
        asking = [file for file in files if file.asks_others]
        # A file alone has none to agree with: its own looks decide.
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
                    # A CSV file states no count, so the second pass is held against
                    # what the first saw.
                    self.declared = (self.declared or 0) + batch.num_rows + len(rejects)
                    if batch.num_rows:
                        self._cells.write(batch)
                        self._rows += batch.num_rows
                    size += batch.nbytes + sum(len(reject.row) for reject in rejects)
                    if self.context.limit is not None and (
                        self._rows >= self.context.limit
                        or size >= self.context.limit_bytes
                    ):
                        # Blocks in flight are cancelled: a sample has what it wants.
                        blocks.close()
                        break
            finally:
                self._cells.end()
        self._again = None  # of a hundred thousand files each would have one

    def _settle_columns(self) -> None:
        chosen = self.input.reading.columns
        self._wanted = [i for i, n in enumerate(self._names) if not chosen or n in chosen]
        self.check_width(len(self._wanted))
        self._types = [self.context.text(self._names[i]) for i in self._wanted]
        reading = self.input.reading
        self._spelt = [reading.respelling(self._names[i]) for i in self._wanted]
        for types, respelling in zip(self._types, self._spelt, strict=True):
            if respelling is not None:
                types.respelt = types.respelt or TextTypes()
                types.are_numbers = respelling.written is not None
        for i, types in zip(self._wanted, self._types, strict=True):
            types.is_named = reading.names_spelling_of(self._names[i])
        # A wide table has larger blocks: each costs some work for every column.
        self._block_bytes = max(
            self.context.block_bytes, min(len(self._names) * CELL_BYTES, MOST_BLOCK_BYTES)
        )
        self.columns = dict(
            zip([self._names[i] for i in self._wanted], self._types, strict=True)
        )

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
                    # One block for each worker: more would only be held in memory.
                    while len(waiting) > self.context.workers:
                        yield _result(waiting.popleft())
                while waiting:
                    yield _result(waiting.popleft())
            # If the reader stops early, what no worker has begun is not parsed.
            finally:
                for future in waiting:
                    if isinstance(future, Future):
                        future.cancel()

    def _parsed(
        self,
        text: TextStream,
        buffer: bytes,
        line: int,
        final: bool,
        pool: ThreadPoolExecutor,
    ) -> Iterator[Future[Block] | Block]:
        """Every block, in order, parsed or being parsed.

        What is looked at is a block's bytes, and twice as much each time where a record does not end in them;
        so one long record makes no others long, and nothing is looked at more than twice.
        """
        # The next block begins `at` this byte of the buffer, and `reach` bytes from
        # there are looked at.
        at, reach, is_first = 0, self._block_bytes, True
        while True:
            if len(buffer) - at < reach and not final:
                more = text.read(reach - (len(buffer) - at))
                buffer, at, final = buffer[at:] + more, 0, not more
                continue
            if at == len(buffer):
                return
            # Only so much is looked at: whether quotes are in place must be known from the block alone,
            # or one torn quote would decide about the rest of the file.
            start = buffer[at : at + reach]
            last = final and at + len(start) == len(buffer)
            # Where records provably end; 0: none does, or quotes are where Arrow misreads them.
            cut = plain_cut(start, self._dialect, final=last)
            if cut == 0 and not last and len(start) < LONGEST_RECORD:
                reach *= 2
                continue
            if cut:
                block = start[:cut]
                # a file of one block needs no thread, and a source may have a hundred thousand of them
                is_only = is_first and last and cut == len(start)
                yield (
                    self._fast(block, line)
                    if is_only
                    else pool.submit(self._fast, block, line)
                )
                at, line = at + cut, line + block.count(b"\n")
            else:
                # In this thread: what the careful parser gets through says where the next block begins.
                careful = Careful(self._dialect)
                parsed = self._careful(
                    careful, start, line, final=last, most_bytes=self._block_bytes
                )
                if careful.consumed:
                    yield parsed
                    at, line = at + careful.consumed, careful.line
                elif len(start) > LONGEST_LINE:
                    raise self._too_long(line)
                else:
                    reach *= 2
                    continue
            reach, is_first = self._block_bytes, False

    def _fast(self, block: bytes, line: int) -> Block:
        d, width = self._dialect, len(self._names)
        # Numbers for names: Arrow's options go by name, and places alone matter here.
        keys = [str(i) for i in range(width)]
        short: list[int] = []

        def aside(row: pacsv.InvalidRow) -> str:
            short.append(row.actual_columns)
            return "skip"

        # All cells as texts: Arrow would decide on a type block by block, and guess otherwise in the next.
        change = pacsv.ConvertOptions(
            column_types={k: pa.string() for k in keys},
            # An empty list would mean all columns to Arrow; one suffices to count rows.
            include_columns=[keys[i] for i in self._wanted or [0]],
            # Missing values are made later, by the words of the recipe.
            strings_can_be_null=False,
        )

        def parsed(handler: Callable[[pacsv.InvalidRow], str] | None) -> pa.Table:
            parse = pacsv.ParseOptions(
                delimiter=d.delimiter.decode(),
                quote_char=d.quote.decode() if d.quote else False,
                double_quote=True,
                escape_char=False,
                # Without this Arrow cuts a quoted cell at its line end, and both halves become rows.
                newlines_in_values=True,
                ignore_empty_lines=True,
                invalid_row_handler=handler,
            )
            # In one piece: Arrow would cut a smaller block at places of its own.
            return pacsv.read_csv(
                pa.BufferReader(block),
                pacsv.ReadOptions(
                    column_names=keys, block_size=len(block) + 64, use_threads=False
                ),
                parse,
                change,
            )

        try:
            # Without a handler first: with one, Arrow calls Python for each ragged row.
            table = parsed(None)
        except pa.ArrowInvalid:
            try:
                block.decode()  # Arrow's handler of ragged rows cannot be given bytes that are no UTF-8
                table = parsed(aside)
            except (UnicodeDecodeError, pa.ArrowInvalid):
                # The careful parser tells the reason of each bad record by itself.
                return self._careful(Careful(d), block, line, final=True)
        rows = table.num_rows
        if self._again is not None and self._again.suspected(
            block, [c.combine_chunks() for c in table.columns]
        ):
            return self._careful(Careful(d), block, line, final=True)
        # Every line is a row: the usual block, whose line numbers need no looking for.
        if not short and rows == block.count(b"\n") + (not block.endswith(b"\n")):
            lines, rejects = np.arange(line, line + rows, dtype=np.int64), list[Reject]()
        else:
            places = self._lines(block, line, rows)
            if places is None:
                return self._careful(Careful(d), block, line, final=True)
            lines, rejects = places
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

    def _lines(
        self, block: bytes, line: int, rows: int
    ) -> tuple[np.ndarray, list[Reject]] | None:
        """The lines of a plain block's good rows, and its ragged rows; None if the count is not that of the
        fast reader.
        """
        d, width = self._dialect, len(self._names)
        data = np.frombuffer(block, np.uint8)
        quotes = np.flatnonzero(data == d.quote[0]) if d.quote else np.empty(0, np.int64)
        breaks = np.flatnonzero(data == 10)
        # The block is plain, so an even number of quotes before a line end puts it
        # outside of cells.
        ends = breaks[(np.searchsorted(quotes, breaks) & 1) == 0]
        if not block.endswith(b"\n"):
            ends = np.append(ends, len(block))
        starts = np.concatenate([[0], ends[:-1] + 1])
        # A line may begin at the block's very end, where there is no byte: the minimum
        # keeps the index within it.
        first = data[np.minimum(starts, len(data) - 1)]
        # Empty lines, with or without a CR, are no rows.
        full = (ends > starts) & ~((ends - starts == 1) & (first == 13))
        cuts = np.flatnonzero(data == d.delimiter[0])
        cuts = cuts[(np.searchsorted(quotes, cuts) & 1) == 0]
        # Delimiters between a record's start and its end, and one more cell than those.
        cells = np.searchsorted(cuts, ends) - np.searchsorted(cuts, starts) + 1
        good = full & (cells == width)
        # Two counts of the same rows must agree: else one of them took a quote otherwise, and lines would be
        # given to the wrong rows.
        if int(good.sum()) != rows:
            return None
        # The line ends before a record say its line, those within quotes among them.
        lines = line + np.searchsorted(breaks, starts)
        rejects = []
        for i in np.flatnonzero(full & ~good):
            raw = block[starts[i] : ends[i]].removesuffix(b"\r")
            # A line of blanks is no row where cells are stripped, as it is for the careful parser.
            if not (d.strip and not raw.strip()):
                rejects.append(
                    Reject(
                        int(lines[i]),
                        self._ragged(int(cells[i])),
                        raw.decode("utf-8", "backslashreplace"),
                    )
                )
        return lines[good].astype(np.int64), rejects

    def _ragged(self, cells: int) -> str:
        return f"expected {len(self._names)} cells, found {cells}"

    def _careful(
        self,
        careful: Careful,
        buffer: bytes,
        line: int,
        *,
        final: bool,
        most_bytes: int | None = None,
    ) -> Block:
        rows: list[list[bytes]] = []
        lines: list[int] = []
        rejects: list[Reject] = []
        width = len(self._names)
        for record in careful.records(
            buffer, line, final=final, width=width, most_bytes=most_bytes
        ):
            reason = record.reason or (
                "" if len(record.cells) == width else self._ragged(len(record.cells))
            )
            if not reason and self._again is not None:
                reason = self._again.reason(record.cells, record.line)
            if not reason:
                rows.append(record.cells)
                lines.append(record.line)
            else:
                rejects.append(
                    Reject(
                        record.line,
                        reason,
                        record.raw.decode("utf-8", "backslashreplace"),
                    )
                )
        columns = list(zip(*rows, strict=True)) if rows else [()] * width
        return (
            self._batch(
                # By way of bytes: whether they are UTF-8 was judged for each record.
                [
                    pa.array(columns[i], pa.binary()).cast(pa.string())
                    for i in self._wanted
                ],
                np.array(lines, np.int64),
            ),
            rejects,
        )

    def _batch(self, columns: list[pa.Array], lines: np.ndarray) -> pa.RecordBatch:
        reading = self.input.reading
        arrays = []
        for index, array, types, respelling in zip(
            self._wanted, columns, self._types, self._spelt, strict=True
        ):
            if reading.strip:
                array = pc.utf8_trim_whitespace(array)
            array = mended_texts(
                array, self._names[index], reading, empty_is_missing=True
            )
            # By several threads at once, in any order: flags only ever fall.
            if respelling is None:
                types.observe(array)
            else:
                types.observe_as(array, respelling)
            arrays.append(array)
        return pa.RecordBatch.from_arrays(
            [*arrays, pa.array(lines, pa.int64())], schema=self._kept_schema()
        )

    def _kept_schema(self) -> pa.Schema:
        return pa.schema(
            [*((self._names[i], pa.string()) for i in self._wanted), (LINE, pa.int64())]
        )

    # -- the second pass -------------------------------------------------------------------------------------

    def batches(self, kinds: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        if self._cells is not None:
            yield from self._cells.batches()

    def close(self) -> None:
        if self._cells is not None:
            self._cells.close()


def _result(block: Future[Block] | Block) -> Block:
    return block.result() if isinstance(block, Future) else block
