"""Bulk prediction: streams every row of a source through a bundle, and loses none.

A row the bundle refuses is written with null answers and the reason in the column `refused`; a row that could
not be read at all is written to `<output>.unreadable.jsonl` with its file, line and reason. Rows that are
steps of series are `forecast`'s.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from penstock.bundle.bundle import Bundle
from penstock.contracts.data import ROW_FILE, ROW_NUMBER, Extract, Source
from penstock.contracts.part import flatten
from penstock.core.errors import NoRows, PenstockError, RequestError, SourceError
from penstock.core.events import Events
from penstock.core.wording import counted
from penstock.core.writing import OUTPUT, as_store_error, make_folder
from penstock.formats.learnt import KEPT, MISFIT, as_text
from penstock.formats.write import TableWriter
from penstock.pipeline.answer_writer import (
    FIRST_ROWS,
    AnswerFile,
    FirstRows,
    Layout,
    distinct,
    figure_names,
    is_cells,
    refuse_spreadsheet,
)
from penstock.pipeline.ceiling import over
from penstock.pipeline.forecast import Steps
from penstock.recipe.names import REFUSED, kept_names
from penstock.recipe.schema import Resources

_BESIDE = (".unreadable.jsonl", ".refused.jsonl")
"""What the files beside an output end in."""
ROWS = 8_192
"""Rows answered together: large enough for the runtime, small enough for any memory; fewer where they are
wide.
"""
_BATCH_BYTES = 32 * 2**20
_MEASURED_ROWS = 128
_PLACE = (pa.field(ROW_FILE, pa.int32()), pa.field(ROW_NUMBER, pa.int64()))
"""Where a row stood: its file, and its number there from 0."""


@dataclass(frozen=True)
class Asked:
    """What is asked for beside the answers."""

    output: str | None
    """The file of the answers; None: the first rows alone."""
    keep: tuple[str, ...] = ()
    every: bool = False
    """Where rows are steps: forecast from every step that has a window."""
    spreadsheet: bool = False
    """Whether texts that begin like a formula are made harmless in CSV."""

    @property
    def beside(self) -> str:
        """What is written beside the answers has this before its ending."""
        return self.output or "predictions"


def predict_file(
    bundle: Bundle,
    source: Source,
    asked: Asked,
    *,
    events: Events,
    memory: str | int | None = None,
) -> dict[str, Any]:
    """Answer a source's rows into `asked.output` (see `api.predict`)."""
    if asked.spreadsheet:
        refuse_spreadsheet(asked.output)
    resources = _resources(bundle, memory)
    # The ceiling holds over reading, too, not only over answering.
    with over("predict", resources, events):
        return _predict(
            bundle, source, asked, events=events, memory_bytes=resources.memory
        )


def _resources(bundle: Bundle, memory: str | int | None) -> Resources:
    """Return the memory that is given, or else the resources of the bundle's recipe."""
    if memory is None:
        return bundle.resources
    try:
        return Resources.model_validate({"memory": memory})
    except ValidationError as error:
        problem, *_ = flatten(error, {"memory": memory})
        raise RequestError(
            f"{problem}. Write it as --memory 1GiB, or leave it out to use the bundle's"
            " recipe."
        ) from None


def _predict(
    bundle: Bundle, source: Source, asked: Asked, *, events: Events, memory_bytes: int
) -> dict[str, Any]:
    output = asked.output
    snapshot = source.snapshot(Path.cwd())
    # Checked before anything is written.
    if output is not None:
        _refuse_overwriting([file.url for file in snapshot.files], output)
    folder = None if output is None else _output_folder(output)
    with (
        tempfile.TemporaryDirectory(prefix="penstock-", dir=folder) as scratch,
        events.stage("predict"),
    ):
        # Empty files have no header either, so no columns can be checked.
        if all(file.size_bytes == 0 for file in snapshot.files):
            return _nothing(bundle, output, events, bundle.predictor().answer_schema)
        try:
            extract = source.extract(
                snapshot, Path(scratch), memory_bytes=memory_bytes, events=events
            )
        except NoRows as error:
            return _nothing(
                bundle,
                output,
                events,
                _answers_without_rows(bundle, error.schema, asked),
            )
        _write_unreadable(extract, output, events)
        keep = _kept(asked, bundle, extract, events)
        # What is refused of a series' steps is written beside the answers.
        target = asked.output or str(Path(scratch) / "first")
        # None where each row is answered by itself.
        steps = Steps.of(bundle, extract, keep, target)
        if steps is None and asked.every:
            raise RequestError(
                "`every` is for rows that are steps of series. Here every row is answered"
                " anyway."
            )
        names = [file.path for file in snapshot.files]
        counts = _answer(
            _Work(bundle, source, extract, steps, asked, keep, names),
            scratch=Path(scratch),
            events=events,
        )
    if output is None:
        pass
    elif steps is not None:
        steps.say(counts, events)
    else:
        _check_balance(counts)
        _say_counts(counts, output, events)
    return {**counts, "output": output, "bundle": bundle.reference}


@dataclass(frozen=True)
class _Work:
    """A source's rows, and what is wanted of them."""

    bundle: Bundle
    source: Source
    extract: Extract
    steps: Steps | None
    """None where each row is answered by itself."""
    asked: Asked
    keep: tuple[str, ...]
    files: list[str]

    def layout(self) -> Layout:
        """How rows are laid out in plain cells."""
        return Layout(
            self.files,
            numbered=self.steps is None and not self.named(),
            spreadsheet=self.asked.spreadsheet,
        )

    def named(self) -> tuple[str, ...]:
        """The columns that name a row: the key, or the path of a file that is a row."""
        present = set(self.extract.schema.names)
        names = ("path",) if self.source.type == "folder" else self.bundle.key
        return names if names and set(names) <= present else ()

    def carried(self) -> tuple[str, ...]:
        """The columns that go through answering, those that say a row's place among them."""
        if self.steps is not None:
            return self.steps.carried
        names = self.named() if self.in_cells() else ()
        return tuple(dict.fromkeys([*names, *self.keep, ROW_FILE, ROW_NUMBER]))

    def in_cells(self) -> bool:
        """Whether a reader of the answers needs to be told which row is which."""
        return self.asked.output is None or is_cells(self.asked.output)

    def batches(self, scratch: Path) -> Iterator[pa.Table]:
        """The rows, or the windows of steps, in tables of bounded size."""
        if self.steps is not None:
            return self.steps.windows(scratch / "steps", every=self.asked.every)
        most = FIRST_ROWS if self.asked.output is None else ROWS
        rows = self.bundle.encoding.rows_at_once(most)
        return _batches(self.extract, (*self.bundle.keep, *self.carried()), rows)


def _kept(
    asked: Asked, bundle: Bundle, extract: Extract, events: Events
) -> tuple[str, ...]:
    """Return the columns to carry along; `all` stands for every column that is no bytes."""
    if "all" not in asked.keep:
        return asked.keep
    whole = [f.name for f in extract.schema if not pa.types.is_binary(f.type)]
    if left := [f.name for f in extract.schema if pa.types.is_binary(f.type)]:
        events.say(
            f"`keep: all` keeps all columns but {', '.join(left)}, which holds files; name it to keep it"
        )
    asked_too = [name for name in asked.keep if name != "all"]
    return tuple(dict.fromkeys(n for n in [*whole, *asked_too] if n not in bundle.keep))


def _refuse_overwriting(inputs: Sequence[str], output: str) -> None:
    """Refuse an output that is one of the inputs, or whose side files are, also under
    another name of the same file.
    """
    for url in inputs:
        for written in (output, *(f"{output}{ending}" for ending in _BESIDE)):
            is_same_file = (
                "://" not in url
                and os.path.exists(written)
                and os.path.samefile(url, written)
            )
            if url == written or is_same_file:
                raise RequestError(
                    f"The answers, or the rows without one, would overwrite the input {url}. Give"
                    " `--output` another name."
                )


def _output_folder(output: str) -> str | None:
    """Make and return the folder of the answers, whose disk also has room for temporary
    rows; None, the system's own folder, where answers go to a bucket.
    """
    if "://" in output:
        return None
    folder = os.path.dirname(os.path.abspath(output))
    with as_store_error(Path(output), option=OUTPUT):
        make_folder(Path(folder))
    return folder


def _write_unreadable(extract: Extract, output: str | None, events: Events) -> None:
    """Write rows that could not be read, with their reasons, beside the answers.

    Raises:
        SourceError: no row could be read.
    """
    if not extract.rejected:
        return
    if output is None:
        events.warn(
            f"{extract.rejected:,} rows could not be read; with an output they are written beside it, with"
            " their reasons"
        )
        if not extract.rows:
            raise SourceError(
                f"not one of {extract.rejected:,} rows could be read, so nothing was answered. Check how the"
                " input is to be read: its delimiter, encoding, header."
            )
        return
    unreadable = f"{output}.unreadable.jsonl"
    with TableWriter(unreadable) as writer:
        for path in extract.rejects:
            writer.write(pq.read_table(path))
    events.warn(
        f"{counted(extract.rejected, 'row')} could not be read; {unreadable} has the reasons"
    )
    if not extract.rows:
        raise SourceError(
            f"the source has {counted(extract.rejected, 'row')}, and none could be read, so nothing"
            f" was answered. {unreadable} has the reasons. Check the reading options:"
            " delimiter, encoding, header."
        )


def _answer(work: _Work, *, scratch: Path, events: Events) -> dict[str, Any]:
    """Answer the rows; returns how many rows came, were answered, refused and
    unreadable, and, where no file is asked for, the first rows.
    """
    bundle, extract, steps = work.bundle, work.extract, work.steps
    predictor = bundle.predictor()
    carried = work.carried()
    # Said before the first row, so that nobody looks for the old name in vain.
    present = [n for n in [*bundle.keep, *carried] if n in extract.schema.names]
    _say_kept(present, predictor.answer_schema, events, in_cells=work.in_cells())
    answers = predictor.predict_stream(work.batches(scratch), keep=carried)
    counts: dict[str, Any] = {
        "rows": extract.rows + extract.rejected,
        "predicted": 0,
        "refused": 0,
        "unreadable": extract.rejected,
    }
    output, first = work.asked.output, FirstRows(work.layout())
    with first if output is None else AnswerFile(output, work.layout()) as sink:
        for answered in _with_lacking(answers, steps, predictor.answer_schema):
            _count(answered, counts)
            sink.write(answered)
            if sink.is_full:
                break
            events.progress(
                "predict", counts["predicted"] + counts["refused"], extract.rows, "rows"
            )
    if output is not None:
        return counts
    # How many forecasts there would be is known once all steps are sorted into windows.
    left = None if steps is not None and first.is_full else 0
    if steps is None:
        left = extract.rows - len(first.rows)
    return {**counts, "first": first.rows, "more": left}


def _say_counts(counts: dict[str, Any], output: str, events: Events) -> None:
    if counts["refused"]:
        events.warn(
            f"{counts['refused']} rows were refused. The reasons are in the column"
            f" `{REFUSED}` of {output}"
        )
    events.say(
        f"{counts['rows']:,} rows in = {counts['predicted']:,} predicted + {counts['refused']:,} refused"
        f" + {counts['unreadable']:,} unreadable"
    )


def _say_kept(
    columns: Sequence[str], answers: pa.Schema, events: Events, *, in_cells: bool
) -> None:
    """Tell the user where a kept column has another name because an answer has its own."""
    written = kept_names(columns, answers.names)
    figures = figure_names(answers) if in_cells else []
    own_names = distinct([*written.values(), *figures])[: len(written)]
    for name, own in zip(written, own_names, strict=True):
        if name != own:
            events.say(
                f"The column {name!r} is written as {own!r}, because an answer has that name",
                column=name,
                kept=own,
            )


def _with_lacking(
    answers: Iterator[pa.Table], steps: Steps | None, schema: pa.Schema
) -> Iterator[pa.Table]:
    """Yield the answers, and between them the series that have none."""
    # Series without a forecast are found while windows are cut, between two tables.
    for answered in answers:
        yield answered
        if steps is not None:
            yield from steps.lacking(schema)
    if steps is not None:
        yield from steps.lacking(schema)


def _count(answered: pa.Table, counts: dict[str, Any]) -> None:
    refused = (
        # The column is absent where no row was refused.
        answered.num_rows - answered[REFUSED].null_count
        if REFUSED in answered.column_names
        else 0
    )
    counts["refused"] += refused
    counts["predicted"] += answered.num_rows - refused


def _check_balance(counts: dict[str, Any]) -> None:
    """Check that every row is answered, refused with its reason, or written aside as
    unreadable.
    """
    if counts["rows"] != counts["predicted"] + counts["refused"] + counts["unreadable"]:
        raise PenstockError(
            f"rows do not add up: {counts}. This is a defect of Penstock; please report it."
        )


def _answers_without_rows(
    bundle: Bundle, schema: pa.Schema | None, asked: Asked
) -> pa.Schema:
    """Return the answers' columns for an input without rows, which may have columns or
    none.

    Raises:
        RequestError: it lacks a column, as it would with rows.
    """
    predictor = bundle.predictor()
    if schema is None:
        return predictor.answer_schema
    keep = tuple(name for name in asked.keep if name != "all")
    steps = Steps.of(bundle, Extract([], schema), keep, asked.beside)
    if steps is None:
        return predictor.predict_table(schema.empty_table(), keep).schema
    names = kept_names(steps.carried, predictor.answer_schema.names)
    return pa.schema(
        [
            *(schema.field(name).with_name(own) for name, own in names.items()),
            *predictor.answer_schema,
        ]
    )


def _nothing(
    bundle: Bundle, output: str | None, events: Events, schema: pa.Schema
) -> dict[str, Any]:
    """Write a file with the columns of answers and no rows."""
    # The same columns as with rows.
    if REFUSED not in schema.names:
        schema = schema.append(pa.field(REFUSED, pa.string()))
    if output is not None:
        targets = bundle.encoding.targets.values()
        is_series = any(feature.type == "series" for feature in targets)
        is_numbered = not bundle.key and not is_series
        if is_numbered and is_cells(output):
            for name, kind in ((ROW_FILE, pa.int32()), (ROW_NUMBER, pa.int64())):
                schema = schema.append(pa.field(name, kind))
        with AnswerFile(output, Layout(numbered=is_numbered)) as sink:
            sink.write(schema.empty_table())
        events.warn(f"The input has no rows, so {output} has none")
    else:
        events.warn("The input has no rows")
    return {
        "rows": 0,
        "predicted": 0,
        "refused": 0,
        "unreadable": 0,
        **({"first": [], "more": 0} if output is None else {}),
        "output": output,
        "bundle": bundle.reference,
    }


def _batches(extract: Extract, keep: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """Yield the rows in tables of bounded size: the columns, beside them the values
    that do not fit, and kept columns that have such values as text.
    """
    misfits = [
        pa.field(MISFIT + name, pa.string())
        for name in extract.schema.names
        if name in extract.misfits
    ]
    for file in extract.parquet:
        # Read without buffering ahead, so that a wide file does not fill the memory.
        parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
        head = next(parquet.iter_batches(_MEASURED_ROWS), None)
        # The first rows tell how wide a row is, and so how many fit.
        fits = rows
        if head is not None and head.num_rows:
            fits = max(_BATCH_BYTES * head.num_rows // max(head.nbytes, 1), 1)
        for batch in parquet.iter_batches(min(rows, fits)):
            table = pa.Table.from_batches([batch])
            # Once: a wide table makes its names anew whenever it is asked.
            present = dict(zip(table.column_names, table.columns, strict=True))
            wanted = [
                field
                for field in (*extract.schema, *misfits, *_PLACE)
                if field.name in present
            ]
            # A file may lack a column that others have; its rows have nulls there.
            lacking = [field for field in extract.schema if field.name not in present]
            columns = {field.name: present[field.name] for field in wanted}
            columns |= {field.name: pa.nulls(len(table), field.type) for field in lacking}
            # Kept columns go out as they were written, values of other types among
            # them.
            for name in keep:
                if name in extract.misfits:
                    columns[KEPT + name] = as_text(present[name], present[MISFIT + name])
            yield pa.table(columns)
