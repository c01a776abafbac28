"""Many files → one set of columns in plain Parquet, and rejects. Told top to bottom in `extract`.

Two passes: every file is scanned; the columns are united by name (first spelling wins; a column that a file
lacks is missing there) and typed by all the data; then every row is written once, with `ROW_FILE` and
`ROW_NUMBER`. Where a type proves too narrow (`Widen`), the second pass begins again with that column as text,
and says so.

Folders called `name=value` below the root (Hive's layout) give a column `name`, unless the file has one.

Memory: blocks of bytes in flight × workers, one row group in the writer; nothing grows with the data but the
scratch folder, which holds CSV cells as compressed Arrow between the passes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_FILE, ROW_NUMBER, Extract
from penstock.contracts.learnt import Learnt
from penstock.core.cores import usable_cores
from penstock.core.errors import NoRows, SourceError
from penstock.core.events import Events
from penstock.core.store import as_store_error
from penstock.formats.columnar import Columnar
from penstock.formats.delimited import Delimited
from penstock.formats.groups import GROUP_BYTES, RowGroups, ahead, pieces_of
from penstock.formats.jsonlines import JsonLines
from penstock.formats.learnt import MISFIT, fit, learnt_type
from penstock.formats.reader import LINE, NUMBERS, Context, Input, Reader, check_words
from penstock.formats.rejects import Reject, Rejects
from penstock.formats.sound import odd_rows, shown
from penstock.formats.steady import check
from penstock.formats.texts import format_of
from penstock.formats.together import settle_together
from penstock.formats.typed import FORCED, TextTypes, Widen, convert, force, settle, to_text, unite

SAMPLE_BYTES = 64 << 20
"""Of a sample, whatever rows it was asked for: values as columns, and `_CELL_BYTES` for each, be it
missing.
"""
_CELL_BYTES = 8


def extract(
    inputs: Sequence[Input],
    scratch: Path,
    *,
    memory_bytes: int,
    events: Events,
    limit: int | None = None,
    limit_bytes: int = SAMPLE_BYTES,
    learnt: Learnt | None = None,
) -> Extract:
    """Read every row of the files into Parquet under `scratch`; put bad rows aside.

    Args:
        inputs: in the order of the snapshot: `ROW_FILE` is an index into them.
        memory_bytes: what all of it may take.
        limit: read about so many rows of each file only, and
        limit_bytes: with `limit`, about so many bytes of each: fewer rows where they are wide, which
            `Extract.cut` says.
        learnt: the types that columns have, whatever these files look like; what is not of its column's type
            is a text in a column `MISFIT` + name, for the columns in the extract's `misfits`.

    Raises:
        SourceError: a file cannot be read as a whole, or a row is bad and its `on_bad_row` is `fail`.
    """
    workers = min(4, usable_cores())
    block = min(8 << 20, max(256 << 10, memory_bytes // (96 * workers)))
    with as_store_error(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        rejects = Rejects(scratch / "rejects.parquet")
        context = Context(
            scratch,
            rejects,
            events,
            block if limit is None else 128 << 10,
            workers,
            limit,
            limit_bytes,
            batch_bytes=min(GROUP_BYTES, max(4 << 20, memory_bytes // 24)),
            value_bytes=max(64 << 20, memory_bytes // 4),
        )
        readers: list[Reader] = []
        try:
            for input in inputs:
                _unchanged(input)
                readers.append(_reader(input, context))
            _headers(readers)
            for i, reader in enumerate(readers):
                reader.scan()
                if _is_told(i + 1, len(inputs)):
                    events.progress("extract", i + 1, 2 * len(inputs), "files")
            for reader in readers:
                reader.settle()
            if not readers:
                raise SourceError("the source has no files.")
            _csv_words(readers)
            partitions = [_partitions(r) for r in readers]
            plan = _plan(readers, partitions, events, learnt)
            written = _write(readers, partitions, plan, context, block)
            made, rows, late = written.files, written.rows, written.late
            rejected = rejects.count + late.count
            if not rows and not rejected:
                raise _no_rows(inputs, readers, plan.schema())
            if not rows:
                events.warn(
                    f"not one of {rejected} rows could be read. The first: {rejects.first or late.first}."
                )
            return Extract(
                parquet=list(made),
                schema=plan.schema(),
                rejects=[*rejects.close(), *late.close()],
                rows=rows,
                rejected=rejected,
                misfits=frozenset(plan.misfits),
                cut=written.cut,
            )
        finally:
            rejects.close()
            for reader in readers:
                reader.close()
            context.spool.close()


def _is_told(done: int, total: int) -> bool:
    """Whether so many files are worth a word of progress: a few hundred a pass are enough."""
    return done % max(1, total // 200) == 0 or done == total


def _no_rows(inputs: Sequence[Input], readers: list[Reader], schema: pa.Schema) -> NoRows:
    is_headed = any(reader.columns for reader in readers)
    error = NoRows(
        f"{_all(inputs)} no rows: only {'headers' if is_headed else 'blank lines'}. Name files with data in"
        " them."
    )
    error.schema = schema if is_headed else None
    return error


def _all(inputs: Sequence[Input]) -> str:
    return (
        f"{inputs[0].url} has"
        if len(inputs) == 1
        else f"{inputs[0].path} and {len(inputs) - 1} more files have"
    )


def _reader(input: Input, context: Context) -> Reader:
    declared = input.reading.format
    format = format_of(input.url) if declared == "auto" else declared
    if declared != "auto" and input.size_bytes == 0:
        raise SourceError(f"{input.url} is empty: it has no rows and no columns.")
    if format in ("csv", "tsv"):
        return Delimited(input, context, format if declared == "auto" else "")
    return JsonLines(input, context) if format == "jsonl" else Columnar(input, context, format)


def _unchanged(input: Input) -> None:
    check(input.url, input.size_bytes, input.stamp, input.sha256)


def _headers(readers: list[Reader]) -> None:
    """Where there are several files whose first lines are judged by their looks, all are asked before one is
    read.
    """
    asking = [reader for reader in readers if isinstance(reader, Delimited) and reader.asks_others]
    if len(asking) > 1:
        settle_together(asking)


def _csv_words(readers: list[Reader]) -> None:
    """Words for formats that none of the files has would be ignored; refuse them."""
    for kinds, words, what in (
        ((Delimited,), "only_csv", "CSV"),
        ((Delimited, JsonLines), "only_text", "CSV and JSON lines"),
    ):
        by_words: dict[tuple[str, ...], list[Reader]] = {}
        for reader in readers:
            given = [
                word for word in getattr(reader.input.reading, words)() if word not in reader.input.inherited
            ]
            by_words.setdefault(tuple(given), []).append(reader)
        for found, members in by_words.items():
            if found and not any(isinstance(m, kinds) for m in members):
                raise SourceError(
                    f"source: {', '.join(found)} {'is' if len(found) == 1 else 'are'} for {what}, but"
                    f" {members[0].input.path} is neither; leave {'it' if len(found) == 1 else 'them'} out,"
                    " or set `format`."
                )


def _partitions(reader: Reader) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    names = {n.lower() for n in reader.columns}
    chosen = reader.input.reading.columns
    for step in reader.input.path.split("/")[:-1]:
        name, equals, value = step.partition("=")
        name = reader.input.reading.rename.get(name, name)
        if equals and name and name.lower() not in names and (not chosen or name in chosen):
            reader.raw_names.add(step.partition("=")[0])
            found[name] = None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
    return found


# -- the columns ---------------------------------------------------------------------------------------------


@dataclass
class _Plan:
    """The columns of the whole source."""

    kinds: dict[str, pa.DataType]
    forced: dict[str, str]
    """Columns whose type the recipe forces."""
    spelling: dict[str, str]
    """By name in lower case: the spelling that won."""
    learnt: frozenset[str] = frozenset()
    """Columns whose type was learnt."""
    misfits: set[str] = field(default_factory=set)
    """Those of them in which values were found that are not of it."""

    def schema(self) -> pa.Schema:
        return pa.schema(list(self.kinds.items()))

    def written(self) -> pa.Schema:
        """With the columns of what is not of a learnt type."""
        beside = [
            (MISFIT + name, pa.string())
            for name in self.kinds
            if name in self.learnt and not pa.types.is_string(self.kinds[name])
        ]
        return pa.schema([*self.kinds.items(), *beside])

    def wanted(self, reader: Reader) -> dict[str, pa.DataType]:
        """What to ask of a reader, in its spelling."""
        asked = {}
        for name in reader.columns:
            final = self.spelling[name.lower()]
            asked[name] = pa.string() if final in self.forced else self.kinds[final]
            if final in self.learnt and final not in self.forced:
                number = pa.types.is_integer(self.kinds[final]) or pa.types.is_floating(self.kinds[final])
                asked[name] = NUMBERS if number else pa.string()
        return asked


def _plan(
    readers: list[Reader], partitions: list[dict[str, str | None]], events: Events, learnt: Learnt | None
) -> _Plan:
    spelling: dict[str, str] = {} if learnt is None else _learnt_spelling(readers, learnt)
    kinds: dict[str, pa.DataType] = {}
    texts: dict[str, TextTypes] = {}
    inexact: set[str] = set()
    parts: dict[str, TextTypes] = {}
    known_columns: set[int] = set()
    for reader, part in zip(readers, partitions, strict=True):
        is_known = id(reader.columns) in known_columns  # files of JSON lines share theirs
        known_columns.add(id(reader.columns))
        for name, kind in () if is_known else reader.columns.items():
            final = spelling.setdefault(name.lower(), name)
            if final != name:
                reader.say(f"spells the column {final!r} as {name!r}; they are taken for one.", warn=True)
            if isinstance(kind, TextTypes):
                texts[final] = kind
                if kind.inexact:
                    inexact.add(final)
                kinds.setdefault(final, pa.null())
            else:
                known = kinds.get(final, pa.null())
                united = unite(known, kind)
                if united is None:
                    raise SourceError(
                        f"the column {final!r} is {kind} in {reader.input.path} and {known} in files before"
                        " it; bytes cannot be united with anything else."
                    )
                if not united.equals(known) and not pa.types.is_null(known) and not pa.types.is_null(kind):
                    events.say(
                        f"the column {final!r} has several types in the files ({known}, {kind}); it is read"
                        f" as {united}."
                    )
                kinds[final] = united
            if name in reader.inexact:
                inexact.add(final)
        for name, value in part.items():
            final = spelling.setdefault(name.lower(), name)
            kinds.setdefault(final, pa.null())
            types = parts.setdefault(final, TextTypes())
            if value is not None:
                types.observe(pa.array([value]))
    for name, types in [*texts.items(), *parts.items()]:
        united = unite(kinds[name], types.result())
        if united is None:
            raise SourceError(f"the column {name!r} is bytes in some files and text in others.")
        kinds[name] = united
    _say_lacking(readers, partitions, spelling)
    if parts:
        events.say(f"the folders' names give the column{'s' if len(parts) > 1 else ''} {', '.join(parts)}.")
    for name, kind in kinds.items():
        kinds[name] = settle(kind)
        if name in inexact and _inner(kinds[name]).equals(pa.float64()):
            kinds[name] = pa.string()
        if name in inexact and pa.types.is_string(kinds[name]) and name in texts and texts[name].number:
            events.warn(
                f"the column {name!r} has whole numbers that float64 cannot hold exactly, and not all of it"
                f" fits int64; it is read as text. Force it with `types: {{{name}: number}}`."
            )
    held = {} if learnt is None else _learnt_kinds(kinds, learnt)
    kinds |= held
    forced: dict[str, str] = {}
    for reader in readers:
        for name, must in reader.input.reading.types_.items():
            final = spelling.get(name.lower(), name)
            if forced.setdefault(final, must) != must:
                raise SourceError(f"source.types gives {name!r} two types, {forced[final]} and {must}.")
    check_words(readers, set(parts))
    already = {
        n
        for n, must in forced.items()
        if kinds[n].equals(FORCED[must]) or (must == "timestamp" and pa.types.is_timestamp(kinds[n]))
    }
    forced = {n: must for n, must in forced.items() if n not in already}
    kinds |= {n: FORCED[must] for n, must in forced.items()}
    return _Plan(_ordered(kinds, readers), forced, spelling, frozenset(held) - set(forced))


def _learnt_spelling(readers: list[Reader], learnt: Learnt) -> dict[str, str]:
    """The learnt spelling of the columns that are there."""
    here = {name.lower() for reader in readers for name in reader.columns}
    return {name.lower(): name for name in learnt.schema.names if name.lower() in here}


def _learnt_kinds(kinds: dict[str, pa.DataType], learnt: Learnt) -> dict[str, pa.DataType]:
    """The learnt types of the columns that are there; bytes and lists stay what they are."""
    found: dict[str, pa.DataType] = {}
    for column in learnt.schema:
        here, kind = kinds.get(column.name), learnt_type(column.type)
        if here is None or pa.types.is_nested(here) or pa.types.is_binary(here):
            continue
        if kind is not None:
            found[column.name] = kind
        elif not pa.types.is_nested(column.type):
            found[column.name] = pa.string()  # bytes, named or written as text
    return found


def _say_lacking(
    readers: list[Reader], partitions: list[dict[str, str | None]], spelling: dict[str, str]
) -> None:
    """Say which columns a table lacks that others of the source have.

    A field that some JSON lines lack is nothing unusual.
    """
    for reader, part in zip(readers, partitions, strict=True):
        if isinstance(reader, JsonLines) or not reader.columns:
            continue
        here = {name.lower() for name in (*reader.columns, *part)}
        lacking = [final for name, final in spelling.items() if name not in here]
        if lacking:
            some = ", ".join(lacking[:12]) + (" …" if len(lacking) > 12 else "")
            reader.say(
                f"lacks columns that other files of the source have, which are missing in its rows: {some}.",
                warn=True,
            )


def _inner(kind: pa.DataType) -> pa.DataType:
    return _inner(kind.value_type) if pa.types.is_list(kind) else kind


def _ordered(kinds: dict[str, pa.DataType], readers: list[Reader]) -> dict[str, pa.DataType]:
    chosen = readers[0].input.reading.columns
    first = [n for n in chosen if n in kinds]
    return {n: kinds[n] for n in [*first, *(k for k in kinds if k not in first)]}


# -- the rows ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Written:
    """What the second pass gave."""

    files: list[Path]
    rows: int
    late: Rejects
    """Rows whose values are not of a forced type."""
    cut: bool
    """Whether a sample has fewer rows than it was asked for since they are wide."""


def _write(
    readers: list[Reader], partitions: list[dict[str, str | None]], plan: _Plan, context: Context, block: int
) -> _Written:
    """The second pass; again with a column as text, where its type proves too narrow."""
    while True:
        rejects = Rejects(context.scratch / "rejects-by-type.parquet")
        plan.misfits.clear()
        writer = RowGroups(context.scratch, _with_places(plan.written()), block)
        cut = False
        try:
            for index, (reader, part) in enumerate(zip(readers, partitions, strict=True)):
                cut = _write_one(index, reader, part, plan, context, writer, rejects) or cut
                if _is_told(index + 1, len(readers)):
                    context.events.progress(
                        "extract", len(readers) + index + 1, 2 * len(readers), "files", rows=writer.rows
                    )
            return _Written(writer.close(), writer.rows, rejects, cut)
        except BaseException as error:
            writer.abandon()
            for path in rejects.close():
                path.unlink()
            if not isinstance(error, Widen):
                raise
            name = error.column
            if pa.types.is_string(plan.kinds[name]):
                raise SourceError(
                    f"the column {name!r} cannot be read as text in every file, nor as anything else."
                ) from None
            context.events.warn(
                f"the column {name!r} has values that {plan.kinds[name]} cannot hold exactly; it is read as"
                " text."
            )
            plan.kinds[name] = pa.string()


def _write_one(
    index: int,
    reader: Reader,
    part: dict[str, str | None],
    plan: _Plan,
    context: Context,
    writer: RowGroups,
    rejects: Rejects,
) -> bool:
    """One file's rows; whether those of a sample are cut short for their bytes."""
    number, late, size, fail = 0, 0, 0, reader.input.reading.on_bad_row == "fail"
    rows = reader.batches(plan.wanted(reader))
    cut = False
    for whole in ahead((piece for batch in rows for piece in pieces_of(batch, context.batch_bytes)), 1):
        good, bad = _finish(whole, plan, part, index, number)
        for reject in bad:
            rejects.add(reader.input.path, reject, fail=fail)
        if context.limit is not None:
            good, size, cut = _within(good, size, context)
        number += good.num_rows
        writer.add(good)
        late += len(bad)
        if cut:
            break
    _unchanged(reader.input)
    if context.limit is None:
        _reconcile(reader, number + late)
    return cut and number < (context.limit or 0)


def _within(batch: pa.RecordBatch, taken: int, context: Context) -> tuple[pa.RecordBatch, int, bool]:
    """The rows of a sample's batch that it has room for, the bytes taken with them, and whether it is
    full.
    """
    size = batch.nbytes + batch.num_rows * batch.num_columns * _CELL_BYTES
    room = context.limit_bytes - taken
    if size < room or not batch.num_rows:
        return batch, taken + size, False
    return batch.slice(0, max(batch.num_rows * room // size, 0 if taken else 1)), taken + size, True


def _reconcile(reader: Reader, given: int) -> None:
    """What a file says it has is what came of it: rows and rejects.

    Raises:
        SourceError: it is not.
    """
    came = given + reader.rejected
    if reader.declared is not None and came != reader.declared:
        raise SourceError(
            f"{reader.input.url} has {reader.declared:,} rows by its own word, and {came:,} could be read"
            f" ({given:,} good, {reader.rejected:,} bad): it is damaged, or changed while it was read. Fetch"
            " or write it again; nothing was kept."
        )


def _finish(
    batch: pa.RecordBatch, plan: _Plan, part: dict[str, str | None], index: int, number: int
) -> tuple[pa.RecordBatch, list[Reject]]:
    """A reader's batch in the final columns, without rows whose values are not of a forced type."""
    here = {plan.spelling[n.lower()]: i for i, n in enumerate(batch.schema.names) if n != LINE}
    constants = {plan.spelling[n.lower()]: v for n, v in part.items()}
    arrays: list[pa.Array] = []
    beside: dict[str, pa.Array] = {}
    wrong: dict[int, tuple[str, str]] = {}
    missing: dict[pa.DataType, pa.Array] = {}
    for name, kind in plan.kinds.items():
        if name in here:
            array = batch.column(here[name])
        elif constants.get(name) is not None:
            array = pa.repeat(pa.scalar(constants[name]), batch.num_rows)
        else:
            if kind not in missing:
                missing[kind] = pa.nulls(batch.num_rows, kind)
            arrays.append(missing[kind])
            continue
        if name in plan.learnt:
            array, other = fit(array, kind)
            arrays.append(array)
            if _has_moments(kind):
                for row, reason in odd_rows(array).items():
                    wrong.setdefault(row, (name, reason))
            if other is not None:
                beside[name] = other
                plan.misfits.add(name)
            continue
        if name in plan.forced:
            array, bad = force(to_text(array), plan.forced[name])
            for row, reason in bad.items():
                wrong.setdefault(row, (name, reason))
        arrays.append(convert(array, kind, name))
        if _has_moments(kind):
            for row, reason in odd_rows(arrays[-1]).items():
                wrong.setdefault(row, (name, reason))
    written = plan.written()
    arrays += [
        beside.get(n.removeprefix(MISFIT), pa.nulls(batch.num_rows, pa.string()))
        for n in written.names[len(arrays) :]
    ]
    rejects: list[Reject] = []
    if wrong:
        lines = batch.column(LINE)
        for row, (name, reason) in sorted(wrong.items()):
            raw = {
                n: shown(column, row)
                for n, column in zip(batch.schema.names, batch.columns, strict=True)
                if n != LINE
            }
            rejects.append(
                Reject(lines[row].as_py(), reason, json.dumps(raw, ensure_ascii=False, default=str), name)
            )
        keep = pa.array([i not in wrong for i in range(batch.num_rows)])
        arrays = [a.filter(keep) for a in arrays]
    rows = batch.num_rows - len(wrong)
    arrays += [pa.repeat(pa.scalar(index, pa.int32()), rows), pa.array(np.arange(number, number + rows))]
    return pa.RecordBatch.from_arrays(arrays, schema=_with_places(written)), rejects


def _has_moments(kind: pa.DataType) -> bool:
    return _has_moments(kind.value_type) if pa.types.is_list(kind) else bool(pa.types.is_timestamp(kind))


def _with_places(schema: pa.Schema) -> pa.Schema:
    return schema.append(pa.field(ROW_FILE, pa.int32())).append(pa.field(ROW_NUMBER, pa.int64()))
