"""A rehearsal: a sample of the source goes through preparing and encoding, as all of it would.

    sample → Parquet → prepare → encode → what was refused, which class is in no split

It finds what only the data can tell, before anything long runs: a `positive` that no row has, a text column
declared as `number`, a `binary` target of four values, a split without the rarer class. The code is that of
`run`, so a recipe that passes here fails there only for rows that the sample lacks.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.contracts.data import ROW_FILE, ROW_ID, ROW_NUMBER, Engine, Source
from penstock.contracts.features import Feature
from penstock.core.errors import ContractError, NothingLeft, Problem, RecipeError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.core.visible import visible
from penstock.encode.feed import Feed, write_feed
from penstock.encode.fit import fit_encoding
from penstock.pipeline.cures import feature_cure
from penstock.pipeline.known_leaks import leak_warnings
from penstock.prepare.dataset import SPLITS, Dataset
from penstock.prepare.prepare import prepare
from penstock.recipe.schema import Expect, Recipe

FEW = 10
"""Rows of a class in a split; with fewer, a figure of that split is mostly chance."""
_MANY = 30
"""Rows that a feature must refuse, all of them, before a sample is believed to speak for the whole."""
_SPEAKS = 10 * _MANY
"""Rows of which a complaint is believed to hold for the whole."""
_SHOWN = 5
"""Reasons that a warning lists."""
_FEW_SHOWN = 2
"""Of one feature, whose reasons are alike."""


@dataclass(frozen=True)
class Rehearsed:
    """What a rehearsal has shown."""

    rows: int
    """Rows that took part."""
    problems: tuple[Problem, ...] = ()
    """`run` would end with these."""
    warnings: tuple[str, ...] = ()
    """`run` would go on, but these want a look; sentences."""
    splits: Mapping[str, int] = field(default_factory=dict)
    """Rows by split, of the sample."""
    leaks: tuple[str, ...] = ()
    """Inputs that give the target away, where that was asked for; sentences."""


def rehearse(
    recipe: Recipe,
    sample: pa.Table,
    *,
    splits: Sequence[str | None] = (),
    complete: bool,
    asks_leaks: bool = False,
) -> Rehearsed:
    """Prepare and encode a sample of the recipe's source in a folder that is gone afterwards.

    Args:
        recipe: its column names are known to exist.
        sample: rows as the source samples them.
        splits: by `ROW_FILE`, the split that a file declares; empty where none does.
        complete: whether the sample is the whole source; what a sample lacks, the whole may have.
        asks_leaks: warn of inputs that give the target away as well.
    """
    promised = _promised_of_sample(recipe, complete=complete)
    with _copied(recipe.model_copy(update=promised), sample, splits) as (copy, store):
        rows = sample.num_rows
        try:
            # A dataset that is thrown away needs no profile, which of a wide table takes longest.
            dataset = prepare(copy, store, Events(), profiled=False)
        except RecipeError as error:
            return Rehearsed(rows, error.problems or (Problem((), error.message),))
        except NothingLeft as error:
            # `where` may keep rows of the whole and none of the sample.
            return _ended([_Complaint(Problem((), error.message), complete)], rows)
        except ContractError as error:
            holds = complete or rows >= _SPEAKS
            return _ended([_Complaint(Problem((), error.message), holds)], rows)
        if not (recipe.inputs or recipe.targets):
            return Rehearsed(rows, splits=_split_rows(dataset))
        try:
            feed = write_feed(copy, dataset, store, Events())
        except RecipeError as error:
            return Rehearsed(rows, error.problems or (Problem((), error.message),))
        except ContractError as error:
            holds = complete or dataset.counts["train"] >= _SPEAKS
            # One feature that refuses every row hides what is wrong with the others.
            complaints = _one_by_one(copy, dataset, complete=complete, holds=holds)
            whole = [_Complaint(Problem((), error.message), holds)]
            return _ended(complaints or whole, rows)
        judged = _judged(copy, dataset, feed, complete=complete)
        leaks = leak_warnings(copy, dataset) if asks_leaks else []
        return replace(judged, leaks=tuple(leaks))


def _promised_of_sample(recipe: Recipe, *, complete: bool) -> dict[str, Any]:
    """The contract as far as a sample can keep it: what all rows keep together, some of them may break."""
    if not recipe.expect and recipe.expect_table is None:
        return {}
    unsure: dict[str, Any] = {"drift": None}
    if not complete:
        unsure |= {"fresh": None, "share": {}, "monotonic": None, "budget": None}

    def sure(rule: Expect) -> Expect:
        also = tuple(map(sure, rule.also))
        # A dataset to compare with is in the recipe's store, which a rehearsal has not.
        words = {
            k: v
            for k, v in unsure.items()
            if k != "drift"
            or not complete
            or (rule.drift is not None and rule.drift.dataset is not None)
        }
        return rule.model_copy(update={**words, "also": also})

    table = recipe.expect_table
    if table is not None and not complete:
        rules = {
            name: rule.model_copy(update={"budget": None})
            for name, rule in table.rules.items()
        }
        table = table.model_copy(update={"rows": None, "rules": rules})
    expect = {name: sure(rule) for name, rule in recipe.expect.items()}
    return {"expect": expect, "expect_table": table}


@dataclass(frozen=True)
class _Complaint:
    """Why a sample cannot be learnt from."""

    problem: Problem
    holds: bool
    """Whether it holds for the whole as well; if not it is a warning."""


def _ended(complaints: Sequence[_Complaint], rows: int) -> Rehearsed:
    """What is told of a sample that holds nothing to learn."""
    return Rehearsed(
        rows,
        tuple(c.problem for c in complaints if c.holds),
        tuple(
            f"in {rows:,} rows looked at: {c.problem}" for c in complaints if not c.holds
        ),
    )


def _one_by_one(
    recipe: Recipe, dataset: Dataset, *, complete: bool, holds: bool
) -> list[_Complaint]:
    """What is wrong with each feature, fitted to the training split by itself.

    Args:
        holds: whether so many rows speak for the whole; that a column never varies needs all of them.
    """
    features = {section: getattr(recipe, section) for section in ("inputs", "targets")}
    used = [c for of in features.values() for n, f in of.items() for c in f.columns(n)]
    # Read once: to open a file of thousands of columns takes longer than to fit one of them.
    whole = dataset.table("train", columns=list(dict.fromkeys(used)))
    complaints = []
    for section, of in features.items():
        for name, feature in of.items():
            alone = {"inputs": {}, "targets": {}, section: {name: feature}}
            columns = list(dict.fromkeys(feature.columns(name)))
            rows = whole.select([ROW_ID, *columns])
            try:
                fit_encoding(recipe.model_copy(update=alone), rows)
            except ContractError as error:
                # The head of the sentence speaks of all features.
                _, *lines = error.message.split("\n  - ")
                text = "; ".join(lines[:_SHOWN]) or error.message
                text = text.removeprefix(f"{section}.{name} ")
                if len(columns) == 1 and lines:
                    # The column is the feature's, which is named before the sentence.
                    shown = [line.removeprefix(f"{columns[0]}: ") for line in lines]
                    shown = [line.removeprefix(f"{section}.{name} ") for line in shown]
                    text = "; ".join(shown[:_FEW_SHOWN])
                if len(columns) == 1:
                    is_target = section == "targets"
                    text += feature_cure(
                        name, feature, whole[columns[0]], target=is_target
                    )
                # The other class of a target may be in rows that were not drawn.
                sure = complete or (holds and _varies(rows.select(columns)))
                complaints.append(_Complaint(Problem((section, name), text), sure))
    return complaints


def _varies(rows: pa.Table) -> bool:
    """Whether a column has two values at least; nested ones are taken to."""
    return any(
        pa.types.is_nested(column.type) or len(pc.unique(column.drop_null())) > 1
        for column in rows.columns
    )


def _split_rows(dataset: Dataset) -> dict[str, int]:
    return {split: dataset.counts[split] for split in SPLITS}


@contextmanager
def _copied(
    recipe: Recipe, sample: pa.Table, splits: Sequence[str | None]
) -> Iterator[tuple[Recipe, Store]]:
    """The recipe over a copy of the sample, and a store; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="penstock-rehearsal-") as scratch:
        folder = Path(scratch)
        source = {"type": "files", **_written(sample, splits, folder)}
        update: dict[str, Any] = {
            "source": Source.load(source),
            "engine": Engine.load("embedded"),
            # A share of a sample would be too few.
            "sample": None,
            # Rows of the quarantine are not among those that were drawn.
            "repairs": None,
        }
        yield recipe.model_copy(update=update), Store(folder / "store")


def _written(
    sample: pa.Table, splits: Sequence[str | None], folder: Path
) -> dict[str, str]:
    """The sample as Parquet files below `folder`: one, or one for each split that files declare."""
    own = [name for name in (ROW_FILE, ROW_NUMBER, ROW_ID) if name in sample.column_names]
    rows = sample.drop_columns(own)
    declared = [split for split in SPLITS if split in splits]
    if not declared:
        pq.write_table(rows, folder / "rows.parquet")
        return {"path": str(folder / "rows.parquet")}
    paths = {}
    for split in declared:
        of_split = pa.array([i for i, name in enumerate(splits) if name == split])
        here = pc.is_in(sample[ROW_FILE], of_split.cast(sample[ROW_FILE].type))
        pq.write_table(rows.filter(here), folder / f"{split}.parquet")
        paths[split] = str(folder / f"{split}.parquet")
    return paths


def _judged(recipe: Recipe, dataset: Dataset, feed: Feed, *, complete: bool) -> Rehearsed:
    """Whole columns that are refused are mistakes; some rows are a warning."""
    rows = dataset.counts["in"]
    features: dict[str, Feature] = {**recipe.inputs, **recipe.targets}
    refused = _by_column(feed.reasons)
    problems, warnings = [], []
    for name, feature in features.items():
        where = "targets" if name in recipe.targets else "inputs"
        for column in feature.columns(name):
            reasons = refused.pop(column, None)
            if reasons is None:
                continue
            count, first = sum(reasons.values()), reasons.most_common(1)[0][0]
            text = f"{count:,} of {rows:,} rows looked at are refused: {first}"
            if len(feature.columns(name)) == 1:
                values = dataset.table("train", columns=[column])[column]
                text += feature_cure(name, feature, values, target=where == "targets")
            if count >= max(rows // 2, 1) and (complete or rows >= _MANY):
                problems.append(Problem((where, name), text))
            else:
                warnings.append(f"{where}.{name}: {text}")
    warnings += [
        f"{visible(column)}: {sum(reasons.values()):,} rows looked at are refused"
        for column, reasons in refused.items()
    ][:_SHOWN]
    warnings += _rare_classes(recipe, dataset)
    return Rehearsed(rows, tuple(problems), tuple(warnings), _split_rows(dataset))


def _by_column(reasons: Mapping[str, int]) -> dict[str, Counter[str]]:
    """A feed's `column: reason` → rows, by column."""
    by_column: dict[str, Counter[str]] = {}
    for words, count in reasons.items():
        column, _, reason = words.partition(": ")
        by_column.setdefault(column, Counter())[reason] += count
    return by_column


def _rare_classes(recipe: Recipe, dataset: Dataset) -> list[str]:
    """Of targets of two values: splits that have hardly any row of the rarer one."""
    warnings = []
    for name, feature in recipe.targets.items():
        if feature.type != "binary":
            continue
        (column,) = feature.columns(name)
        counts = {
            split: _classes(dataset.table(split, columns=[column])[column])
            for split in SPLITS
        }
        total: Counter[Any] = sum(counts.values(), Counter())
        if len(total) != 2:
            continue
        rarer = min(total, key=lambda value: total[value])
        for split in ("validation", "test"):
            if counts[split].total() and counts[split][rarer] < FEW:
                warnings.append(
                    f"targets.{name}: the {split} split has {counts[split][rarer]} of its"
                    f" {counts[split].total():,} rows with {visible(str(rarer))!r}, the rarer value (of the"
                    " rows looked at): its figures will be mostly chance"
                )
    return warnings


def _classes(column: pa.ChunkedArray) -> Counter[Any]:
    counted = pc.value_counts(column.combine_chunks().drop_null()).to_pylist()
    return Counter({str(entry["values"]): entry["counts"] for entry in counted})
