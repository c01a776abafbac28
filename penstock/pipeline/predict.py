"""Bulk prediction: streams every row of a source through a bundle, and loses none.

A row the bundle refuses is written with null answers and the reason in the column `refused`; a row that could
not be read at all is written to `<output>.unreadable.jsonl` with its file, line and reason. Rows that are
steps of series are `forecast`'s.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from penstock.bundle.bundle import Bundle
from penstock.contracts.data import Extract, Source
from penstock.contracts.part import flatten, modules_beside, no_foreign_code
from penstock.core.errors import NoRows, PenstockError, RequestError, SourceError
from penstock.core.events import Events
from penstock.core.writing import OUTPUT, as_store_error, make_folder
from penstock.formats.learnt import KEPT, MISFIT, as_text
from penstock.formats.write import TableWriter
from penstock.pipeline.ceiling import over
from penstock.pipeline.forecast import Steps
from penstock.recipe.names import REFUSED, kept_names
from penstock.recipe.schema import Resources, load_recipe

ROWS = 8_192
"""Rows answered together: large enough for the runtime, small enough for any memory; fewer where they are
wide.
"""
_BATCH_BYTES = 32 * 2**20
_MEASURED_ROWS = 128


def predict_file(
    bundle: Bundle,
    declaration: dict[str, Any],
    output: str,
    *,
    keep: tuple[str, ...],
    events: Events,
    every: bool = False,
    memory: str | int | None = None,
) -> dict[str, Any]:
    """Answer a source's rows into `output` (see `api.predict`)."""
    resources = _resources(bundle, memory)
    # The ceiling holds over reading, too, not only over answering.
    with over("predict", resources, events):
        return _predict(
            bundle,
            declaration,
            output,
            keep=keep,
            events=events,
            every=every,
            memory_bytes=resources.memory,
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
            f"{problem}. Say it as --memory 1GiB, or leave it to the bundle's recipe."
        ) from None


def _predict(
    bundle: Bundle,
    declaration: dict[str, Any],
    output: str,
    *,
    keep: tuple[str, ...],
    events: Events,
    every: bool,
    memory_bytes: int,
) -> dict[str, Any]:
    # Read as a recipe's source, so that its words are checked alike.
    source: Source = load_recipe(
        {"source": declaration}, base=Path.cwd(), name="predict"
    ).source
    # What the bundle names comes with it: that runs on the trust in the bundle, not on the user's own words.
    with modules_beside(str(Path.cwd())) if bundle.trusted else no_foreign_code():
        source = source.like(bundle.learnt)
    snapshot = source.snapshot(Path.cwd())
    # Checked before anything is written.
    _refuse_overwriting([file.url for file in snapshot.files], output)
    folder = _output_folder(output)
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
                _answers_without_rows(bundle, error.schema, keep, output),
            )
        _write_unreadable(extract, output, events)
        # None where each row is answered by itself.
        steps = Steps.of(bundle, extract, keep, output)
        if steps is None and every:
            raise RequestError(
                "`every` is for rows that are steps of series; here each row is answered anyway."
            )
        if steps is None:
            batches = _batches(
                extract, (*bundle.keep, *keep), bundle.encoding.rows_at_once(ROWS)
            )
        else:
            batches = steps.windows(Path(scratch) / "steps", every=every)
        counts = _answer(
            bundle, extract, batches, steps, output, keep=keep, events=events
        )
    if steps is not None:
        steps.say(counts, events)
    else:
        _check_balance(counts)
        _say_counts(counts, output, events)
    return {**counts, "output": output, "bundle": bundle.reference}


def _refuse_overwriting(inputs: Sequence[str], output: str) -> None:
    """Refuse an output that is one of the inputs, also under another name of the same
    file.
    """
    for url in inputs:
        is_same_file = (
            "://" not in url and os.path.exists(output) and os.path.samefile(url, output)
        )
        if url == output or is_same_file:
            raise RequestError(
                f"the answers would overwrite {url}, which is to be read. Give `--output` another name."
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


def _write_unreadable(extract: Extract, output: str, events: Events) -> None:
    """Write rows that could not be read, with their reasons, beside the answers.

    Raises:
        SourceError: no row could be read.
    """
    if not extract.rejected:
        return
    unreadable = f"{output}.unreadable.jsonl"
    with TableWriter(unreadable) as writer:
        for path in extract.rejects:
            writer.write(pq.read_table(path))
    events.warn(
        f"{extract.rejected} rows could not be read; they are in {unreadable} with their reasons"
    )
    if not extract.rows:
        raise SourceError(
            f"not one of {extract.rejected:,} rows could be read, so nothing was answered; {unreadable} has"
            " their reasons. Check how the input is to be read: its delimiter, encoding, header."
        )


def _answer(
    bundle: Bundle,
    extract: Extract,
    batches: Iterator[pa.Table],
    steps: Steps | None,
    output: str,
    *,
    keep: tuple[str, ...],
    events: Events,
) -> dict[str, Any]:
    """Answer the batches into `output`; returns how many rows came, were answered,
    refused and unreadable.
    """
    predictor = bundle.predictor()
    carried = keep if steps is None else steps.kept
    # Said before the first row, so that nobody looks for the old name in vain.
    _say_kept(bundle, carried, extract, predictor.answer_schema, events)
    answers = predictor.predict_stream(batches, keep=carried)
    counts: dict[str, Any] = {
        "rows": extract.rows + extract.rejected,
        "predicted": 0,
        "refused": 0,
        "unreadable": extract.rejected,
    }
    with TableWriter(output) as writer:
        for answered in _with_lacking(answers, steps, predictor.answer_schema):
            _count(answered, counts)
            writer.write(answered)
            events.progress(
                "predict", counts["predicted"] + counts["refused"], extract.rows, "rows"
            )
    return counts


def _say_counts(counts: dict[str, Any], output: str, events: Events) -> None:
    if counts["refused"]:
        events.warn(
            f"{counts['refused']} rows were refused; their reasons are in the column `{REFUSED}` of {output}"
        )
    events.say(
        f"{counts['rows']:,} rows in = {counts['predicted']:,} predicted + {counts['refused']:,} refused"
        f" + {counts['unreadable']:,} unreadable"
    )


def _say_kept(
    bundle: Bundle,
    keep: tuple[str, ...],
    extract: Extract,
    answers: pa.Schema,
    events: Events,
) -> None:
    """Tell the user where a kept column has another name because an answer has its own."""
    present = [name for name in [*bundle.keep, *keep] if name in extract.schema.names]
    for name, own in kept_names(present, answers.names).items():
        if name != own:
            events.say(
                f"the column {name!r} is kept as {own!r}, since an answer has its name",
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
    bundle: Bundle, schema: pa.Schema | None, keep: tuple[str, ...], output: str
) -> pa.Schema:
    """Return the answers' columns for an input without rows, which may have columns or
    none.

    Raises:
        RequestError: it lacks a column, as it would with rows.
    """
    predictor = bundle.predictor()
    if schema is None:
        return predictor.answer_schema
    steps = Steps.of(bundle, Extract([], schema), keep, output)
    if steps is None:
        return predictor.predict_table(schema.empty_table(), keep).schema
    kept = kept_names(steps.kept, predictor.answer_schema.names)
    return pa.schema(
        [
            *(schema.field(name).with_name(own) for name, own in kept.items()),
            *predictor.answer_schema,
        ]
    )


def _nothing(
    bundle: Bundle, output: str, events: Events, schema: pa.Schema
) -> dict[str, Any]:
    """Write a file with the columns of answers and no rows."""
    # The same columns as with rows.
    if REFUSED not in schema.names:
        schema = schema.append(pa.field(REFUSED, pa.string()))
    with TableWriter(output, schema):
        pass
    events.warn(f"there is not one row to answer, so {output} has none")
    return {
        "rows": 0,
        "predicted": 0,
        "refused": 0,
        "unreadable": 0,
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
                field for field in (*extract.schema, *misfits) if field.name in present
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
