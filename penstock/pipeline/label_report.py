"""`labels`: the rows of a dataset, a recipe or a source whose label is probably wrong, the worst first.

what was named → a dataset → its split, searched (`penstock.labels`) → the worst suspects with their values;
all of them in a file, in the same order, with every column
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from penstock.contracts.data import ROW_ID, Engine
from penstock.core import audit
from penstock.core.errors import ContractError, RecipeError, UserError
from penstock.core.events import Events
from penstock.core.near import did_you_mean
from penstock.core.store import Store
from penstock.formats.write import TableWriter
from penstock.inspect import look
from penstock.labels import LabelErrors, Options, find_label_errors
from penstock.labels.search import MOST_FOLDS, MOST_LISTED, RANKS, Rank
from penstock.pipeline.answers import LabelReport
from penstock.pipeline.asked_profile import as_recipe, as_source, source_name
from penstock.pipeline.first_look import Draft, draft_recipe
from penstock.pipeline.profiled import dataset_reference
from penstock.pipeline.stages import Pipeline
from penstock.prepare.dataset import SPLITS, Dataset
from penstock.prepare.row_ids import places_of
from penstock.recipe.schema import Recipe
from penstock.recipe.stores import StoreLike, as_store, store_of

FORMAT = 1
"""Of the plain data."""
ALL = "all"
_LOOKED_AT = 20_000
_ENGINE_BYTES = 1 << 29
_LETTERS = 200
"""Of a value that is shown beside a suspect."""
_CLASSES = ("binary", "category")
_LARGE_SHARE = 0.5


@dataclass(frozen=True)
class _Asked:
    """What is to be searched, and how."""

    target: str | None
    """None: the recipe's only target."""
    split: str | None = None
    """`train`, `validation`, `test` or `all`; None: `train`, and `all` of a bare source."""
    top: int = 50
    folds: int = 5
    seed: int = 0
    rank: Rank = "self_confidence"

    def __post_init__(self) -> None:
        if self.split not in (None, ALL, *SPLITS):
            raise UserError(
                f"there is no split {self.split!r}. Give one of {', '.join(SPLITS)}, or {ALL}."
            )
        if self.rank not in RANKS:
            raise UserError(
                f"suspects are ranked by {' or '.join(RANKS)}, not by {self.rank!r}."
            )
        if not 2 <= self.folds <= MOST_FOLDS:
            raise UserError(
                f"`folds` is a whole number from 2 to {MOST_FOLDS}, not {self.folds}: each row is judged by a"
                " model that learnt from the other folds."
            )
        if not 0 <= self.top <= MOST_LISTED:
            raise UserError(
                f"`top` is a whole number from 0 to {MOST_LISTED:,}, not {self.top:,}."
                " All suspects go to a file with -o."
            )


@dataclass
class _Rows:
    """What is searched."""

    name: str
    dataset: Dataset
    target: str
    inputs: tuple[str, ...]
    splits: tuple[str, ...]
    is_stored: bool = True
    """Whether the dataset is in the user's store."""


def labels(
    source: str | Path | Mapping[str, Any] | Recipe | Dataset | Any,
    *,
    target: str | None = None,
    split: str | None = None,
    top: int = 50,
    folds: int = 5,
    seed: int = 0,
    rank: Rank = "self_confidence",
    output: str | Path | None = None,
    store: StoreLike | None = None,
    events: Events | None = None,
) -> LabelReport:
    """Search for rows whose label is probably wrong, by confident learning over out-of-fold predictions of a
    quick model, in bounded memory. Nothing is changed.

    Args:
        source: a `Dataset`, or `NAME@ID`; a recipe, its path or its mapping, which is prepared if need be; or
            a source as `init` takes it, which is prepared in a temporary folder.
        target: the column with the labels, one class a row; the recipe's only target unless given.
        split: `train`, `validation`, `test` or `all`; `train` unless given, and `all` of a bare source.
        top: how many of the worst suspects to list.
        folds: each row is judged by a model that learnt from the other folds; folds are a hash of the row id.
        seed: of the folds.
        rank: by the probability of the given label, or by how far it lies before the likeliest other.
        output: a file for all suspects, the worst first, with every column of their rows; its ending says
            the format.

    Returns:
        `suspects` (their number), `estimated_share` (of wrong labels), `pairs` (given and suggested class and
        how many rows), `top` (the worst rows, each with `given` and `suggested`), `warnings`.

    Raises:
        UserError: an option cannot be.
        ContractError: the target is no class (a set of labels, a number), or there is too little to learn.
        RecipeError: there is no such column.
        StoreError, SourceError: nothing can be read there.
    """
    asked = _Asked(target, split, top, folds, seed, rank)
    with ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="penstock-labels-")
        scratch = Path(stack.enter_context(folder))
        # Before any work: a file that cannot be written is told at once.
        writer = None if output is None else stack.enter_context(TableWriter(output))
        rows = _rows(source, asked, scratch, store, events or Events())
        options = Options(rows.target, rows.inputs, folds, seed, rank, top)
        kinds = {field.name: field.type for field in rows.dataset.schema}
        (scratch / "search").mkdir()
        errors = find_label_errors(
            lambda columns: _batches(rows, columns), kinds, options, scratch / "search"
        )
        if rows.is_stored:
            audit.note(rows.dataset.store, "read", rows.dataset.reference, by="labels")
        if writer is not None:
            _write(rows, errors, asked, writer, scratch)
        facts = {
            "format": FORMAT,
            "source": rows.name,
            "dataset": rows.dataset.reference if rows.is_stored else None,
            "target": rows.target,
            "splits": list(rows.splits),
            "folds": folds,
            "seed": seed,
            "rank": rank,
            **errors.to_dict(),
            "warnings": _warnings(errors),
            "output": None if output is None else str(output),
            "top": _top(rows, errors),
        }
    return LabelReport(facts)


def _rows(
    source: Any, asked: _Asked, scratch: Path, store: StoreLike | None, events: Events
) -> _Rows:
    if isinstance(source, str) and not isinstance(source, Draft):
        reference = dataset_reference(source)
        if reference is not None:
            source = Dataset.open(as_store(store), reference=reference)
    if isinstance(source, Dataset):
        return _of_dataset(source, asked)
    recipe = as_recipe(source)
    if recipe is not None:
        where = store_of(recipe, store)
        return _of_recipe(recipe, asked, where, events, name=recipe.name)
    declaration = as_source(source)
    name = source_name(source, declaration)
    draft = draft_recipe(declaration, target=asked.target, rows=_LOOKED_AT, name="labels")
    rows = _of_recipe(
        draft.recipe(), asked, Store(scratch / "store"), events, name=name, split=ALL
    )
    rows.is_stored = False
    return rows


def _of_dataset(dataset: Dataset, asked: _Asked) -> _Rows:
    """A dataset, with the columns that `init` would propose as inputs."""
    names = [name for name in dataset.schema.names if name != ROW_ID]
    if asked.target is None:
        raise UserError(
            f"say which column of {dataset.reference} holds the labels, with --target: it has"
            f" {', '.join(names)}."
        )
    if asked.target not in names:
        raise RecipeError(
            f"the dataset {dataset.reference} has no column {asked.target!r}."
            f"{did_you_mean(asked.target, names)} Columns: {', '.join(names)}."
        )
    splits = _splits(dataset, asked, "train")
    batches = (
        batch for split in splits for batch in dataset.batches(split, rows=_LOOKED_AT)
    )
    table = pa.Table.from_batches(list(islice(batches, 1)), schema=dataset.schema)
    findings = look(table.drop_columns([ROW_ID]), target=asked.target)
    if findings.target is not None and findings.target.type not in _CLASSES:
        raise _refused(asked.target, str(findings.target.type))
    inputs = tuple(finding.column for finding in findings.inputs)
    return _Rows(dataset.reference, dataset, asked.target, inputs, splits)


def _of_recipe(
    recipe: Recipe,
    asked: _Asked,
    store: Store,
    events: Events,
    *,
    name: str,
    split: str = "train",
) -> _Rows:
    """The dataset of a recipe, prepared if need be, with the recipe's inputs.

    Args:
        split: what is searched unless it is asked for.
    """
    targets = {
        column: feature.type
        for each, feature in recipe.targets.items()
        for column in feature.columns(each)
    }
    if asked.target is None and len(targets) != 1:
        raise UserError(
            f"say which column holds the labels, with --target: the recipe has the targets"
            f" {', '.join(targets) or 'none'}."
        )
    target = asked.target or next(iter(targets))
    if target not in targets:
        raise RecipeError(
            f"{target!r} is no target of the recipe.{did_you_mean(target, list(targets))}"
            f" Targets: {', '.join(targets) or 'none'}."
        )
    if targets[target] not in _CLASSES:
        raise _refused(target, targets[target])
    dataset = Pipeline(recipe, store, events).until("prepare").dataset
    assert dataset is not None
    columns = {
        column
        for each, feature in recipe.inputs.items()
        for column in feature.columns(each)
    }
    inputs = tuple(
        each for each in dataset.schema.names if each in columns - {target, ROW_ID}
    )
    return _Rows(name, dataset, target, inputs, _splits(dataset, asked, split))


def _splits(dataset: Dataset, asked: _Asked, default: str) -> tuple[str, ...]:
    wanted = asked.split or default
    splits = tuple(
        split
        for split in SPLITS
        if wanted in (ALL, split) and dataset.counts.get(split, 0)
    )
    if not splits:
        raise ContractError(f"{dataset.reference} has no rows in the split {wanted}.")
    return splits


def _refused(target: str, kind: str) -> ContractError:
    what = {
        "set": "a set of labels in each row",
        "sequence": "a label for each step",
        "number": "numbers",
        "series": "series",
    }.get(kind, f"a target of the type {kind}")
    return ContractError(
        f"the column {target!r} holds {what}: wrong labels are searched where each row has one class"
        " (`binary` or `category`). Give such a column, or keep the rows that have one label."
    )


def _batches(rows: _Rows, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for split in rows.splits:
        yield from rows.dataset.batches(split, columns=columns)


def _warnings(errors: LabelErrors) -> list[str]:
    warnings = []
    share = errors.rule.wrong() / errors.rows
    if errors.is_blind():
        warnings.append(
            f"The quick model agrees with {errors.agreement:.1%} of the labels, no more than always answering"
            f" the commonest class would, within chance ({errors.commonest:.1%}). It cannot foretell these"
            " labels, so it cannot say which of them are wrong: it would disagree with as many if all were"
            " right."
        )
    elif errors.is_unsure() or share > _LARGE_SHARE:
        warnings.append(
            f"The quick model agrees with {errors.agreement:.1%} of the labels; always answering the"
            f" commonest class would with {errors.commonest:.1%}. Where classes are hard to tell apart, it"
            " disagrees with many right labels, too, so the estimate is a bound from above. The order of the"
            " suspects holds: read from the top."
        )
    if errors.unread:
        warnings.append(
            f"Left out, since the quick model cannot read them: {', '.join(errors.unread)}."
        )
    return warnings


def _top(rows: _Rows, errors: LabelErrors) -> list[dict[str, Any]]:
    """The worst suspects, with their values."""
    ids = errors.ranked.column(ROW_ID).combine_chunks()
    lineage = rows.dataset.manifest["lineage"]
    key = [
        n for n in lineage["declared"].get("key") or () if n in rows.dataset.schema.names
    ]
    columns = list(dict.fromkeys([*errors.inputs, *errors.unread, *key]))
    values: dict[str, dict[str, Any]] = {}
    for split in rows.splits if len(ids) else ():
        for batch in rows.dataset.batches(split, columns=columns):
            some = batch.filter(pc.is_in(batch.column(ROW_ID), ids))
            for row in some.to_pylist():
                row_id = row.pop(ROW_ID)
                shown = {name: _plain(value) for name, value in row.items()}
                own = ", ".join(f"{name} {shown[name]}" for name in key)
                values[row_id] = {"split": split, "place": own, "values": shown}
    if not key:
        files = [(file["path"], file["sha256"]) for file in lineage["source"]]
        places = places_of(values, files, rows.dataset.counts["in"])
        for row_id, row in values.items():
            row["place"] = places.get(row_id, "")
    return [each | values[each[ROW_ID]] for each in errors.ranked.to_pylist()]


def _plain(value: Any) -> Any:
    """As JSON, which has no NaN, and short."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (bytes, memoryview)):
        return f"{len(value):,} bytes"
    text = str(value)
    return text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "…"


def _write(
    rows: _Rows, errors: LabelErrors, asked: _Asked, writer: TableWriter, scratch: Path
) -> None:
    """All suspects in a file, the worst first, each with every column of its row."""
    (scratch / "engine").mkdir()
    with Engine.load("embedded").open(
        scratch / "engine", memory_bytes=_ENGINE_BYTES, threads=2
    ) as session:
        files = [path for split in rows.splits for path in rows.dataset.files(split)]
        table = session.read(files)
        # Columns of the data keep their names; ours give way.
        own = {
            name: name if name not in table.columns else f"label_{name}"
            for name in errors.ranked.column_names
            if name != ROW_ID
        }
        suspects = session.read([errors.file]).rename(
            {"__p_id": ROW_ID, **{new: old for old, new in own.items()}}
        )
        joined = suspects.inner_join(table, suspects["__p_id"] == table[ROW_ID])
        columns = [ROW_ID, *own.values(), *(n for n in table.columns if n != ROW_ID)]
        ordered = joined.order_by([own[asked.rank], ROW_ID]).select(*columns)
        # The head of the table, where no row is suspect.
        writer.write(ordered.schema().to_pyarrow().empty_table())
        for batch in session.batches(ordered):
            writer.write(batch)
    if rows.is_stored:
        count = errors.suspects
        audit.note(rows.dataset.store, "exported", rows.dataset.reference, suspects=count)
