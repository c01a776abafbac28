"""A recipe held against its data: names, types and values, before anything long runs."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from penstock.contracts.sample import FEW_FILE_BYTES, Sample
from penstock.core.errors import ContractError, Problem, RecipeError, SourceError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.fit import fit_encoding
from penstock.pipeline.cures import reading_cure
from penstock.pipeline.rehearsal import Rehearsed, rehearse
from penstock.prepare.recipe_columns import column_problems
from penstock.prepare.versions import over_version
from penstock.recipe.expect import other_sources
from penstock.recipe.names import name_problems
from penstock.recipe.schema import Recipe

ROWS = 10_000
"""Rows that are drawn from each source, at most."""
_JOINED_BYTES = 64 << 20
"""Joined sources are read whole in a rehearsal, unless they are larger than this together."""


def check_data(recipe: Recipe, events: Events) -> None:
    """Hold a recipe against rows drawn from its sources; what is no mistake and wants a look is a warning.

    Raises:
        RecipeError: every mistake, each with its path.
        SourceError: a source cannot be read.
    """
    # Found without the data, so they are told even where the source cannot be read.
    own = name_problems(recipe)
    where = f"the recipe {recipe.name!r}"
    try:
        problems, rows = data_problems(recipe, events)
    except SourceError as error:
        if own:
            raise RecipeError.of(own, where=where) from error
        if cure := reading_cure(recipe):
            raise SourceError(f"{error.message} {cure}") from error
        raise
    if problems:
        raise RecipeError.of(
            problems, where=f"{where}, held against {rows:,} rows of its data,"
        )


def warn_of_leaks(recipe: Recipe, events: Events) -> None:
    """Warn of inputs that give the target away, as far as a sample of the source tells.

    Raises:
        SourceError: a source cannot be read.
    """
    if not (recipe.inputs and recipe.targets) or recipe.dataset is not None:
        return
    samples = _samples(recipe)
    if not _cannot_rehearse(recipe, samples[0]):
        for warning in _rehearsed(recipe, samples[0]).leaks:
            events.warn(warning)


def data_problems(recipe: Recipe, events: Events) -> tuple[list[Problem], int]:
    """Every mistake that a sample shows, and the rows looked at; warnings are said.

    Raises:
        SourceError: a source cannot be read.
    """
    samples = _samples(recipe)
    sample = samples[0]
    rows = sample.table.num_rows
    columns = [each.plain().column_names for each in samples]
    problems = column_problems(recipe, columns[0], columns[1:])
    if problems and len(columns[0]) == 1 and (cure := reading_cure(recipe)):
        problems.append(Problem(("source",), f"has one column alone. {cure}"))
    # What is wrong with the values of the other features is told with it.
    rest = without_features(recipe, problems)
    if rest is None or not (rest.inputs or rest.targets):
        return problems, rows
    if why_not := _cannot_rehearse(rest, sample):
        if not problems:
            events.say(f"values were not checked: {why_not}")
        return problems, rows
    rehearsed = _rehearsed(rest, sample)
    for warning in (*rehearsed.warnings, *rehearsed.leaks):
        events.warn(warning)
    return [*problems, *rehearsed.problems], rows


def without_features(recipe: Recipe, problems: Sequence[Problem]) -> Recipe | None:
    """Return the recipe without the features that have problems; None where others have some."""
    if not problems:
        return recipe
    sides = {"inputs": dict(recipe.inputs), "targets": dict(recipe.targets)}
    for problem in problems:
        if len(problem.path) < 2 or problem.path[0] not in sides:
            return None
        sides[str(problem.path[0])].pop(str(problem.path[1]), None)
    return recipe.model_copy(update=sides)


def _samples(recipe: Recipe) -> list[Sample]:
    # Columns can only be checked against all joins.
    return [
        source.sample(source.preview(recipe.base), ROWS, file_bytes=FEW_FILE_BYTES)
        for source in (recipe.source, *(join.source for join in recipe.join))
    ]


def _rehearsed(recipe: Recipe, sample: Sample) -> Rehearsed:
    return rehearse(
        recipe,
        sample.table,
        splits=[file.split for file in sample.files],
        complete=sample.complete,
        asks_leaks=True,
    )


def check_version(recipe: Recipe, store: Store, events: Events) -> None:
    """Hold a recipe that names a `dataset` against that: its columns, and what the first rows can teach.

    Raises:
        RecipeError: every mistake, each with its path.
        StoreError: there is no such version.
    """
    where = f"the recipe {recipe.name!r}"
    if own := name_problems(recipe):
        raise RecipeError.of(own, where=where)
    whole, dataset = over_version(recipe, store)
    if dataset is None or not (recipe.inputs or recipe.targets):
        return
    batches = dataset.batches("train", rows=ROWS)
    batch = next(batches, None)
    if batch is None:
        events.say(
            f"values were not checked: {dataset.reference} has no rows to train on"
        )
        return
    try:
        fit_encoding(whole, pa.Table.from_batches([batch]))
    except ContractError as error:
        # What the first rows lack, others may have.
        if next(batches, None) is not None:
            events.warn(f"in {batch.num_rows:,} rows looked at: {error.message}")
            return
        raise RecipeError.of([Problem((), error.message)], where=where) from error


def _cannot_rehearse(recipe: Recipe, sample: Sample) -> str:
    """Why a sample of this recipe's source says nothing of the whole, or nothing."""
    if not sample.table.num_rows:
        return "the source has no rows that can be read"
    if recipe.samples is not None and not sample.complete:
        return "rows that are drawn from here and there are no steps of a series"
    joined = sum(
        file.size_bytes
        for source in (
            *(join.source for join in recipe.join),
            *(source for _, source, _, _ in other_sources(recipe.expect)),
        )
        for file in source.preview(recipe.base).files
    )
    if joined > _JOINED_BYTES:
        return f"the joined sources have {joined >> 20:,} MiB"
    return ""
