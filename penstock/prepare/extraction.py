"""Every source of a recipe as plain Parquet, and all that is wrong with the recipe's columns, at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from penstock.contracts.data import PLACE, ROW_FILE, ROW_NUMBER, Extract
from penstock.core.errors import ContractError, Problem, RecipeError, SourceError
from penstock.core.events import Events
from penstock.core.near import did_you_mean, listed
from penstock.prepare.blob_store import BlobStore, large_columns
from penstock.prepare.join import other_types
from penstock.prepare.recipe_columns import column_problems
from penstock.prepare.repairs import FILE, LINE, STAGE
from penstock.prepare.row_ids import column_names
from penstock.prepare.survey import Survey
from penstock.recipe.expect import other_sources
from penstock.recipe.schema import Join, Recipe


@dataclass
class Extracts:
    """The extracted sources: rows in Parquet files, with stand-ins for large values."""

    main: Extract
    lookups: list[Extract]
    """Of each joined source, in order."""
    blobs: BlobStore
    compared: list[Extract] = field(default_factory=list)
    """Of the sources that rules compare with, in the order of `other_sources`."""
    repairs: Extract | None = None
    """Mended rows of the quarantine, read with the types of the source's columns."""


def extract(recipe: Recipe, survey: Survey, scratch: Path, events: Events) -> Extracts:
    """Read every source, and check the recipe's columns against what was read.

    Args:
        scratch: an empty folder; what is read lies there as long as rows are worked on.

    Raises:
        SourceError: data that cannot be read, or columns with names that are kept for Penstock.
        ContractError: the source has no rows.
        RecipeError: columns are named that are not there, or splits that the source does not give; names all
            of them.
    """
    # One source is read after another, so each may have all the memory.
    memory = recipe.resources.memory
    main = recipe.source.extract(
        survey.snapshot, scratch / "source", memory_bytes=memory, events=events
    )
    lookups = [
        join.source.extract(
            snapshot, scratch / f"join-{i}", memory_bytes=memory, events=events
        )
        for i, (join, snapshot) in enumerate(zip(recipe.join, survey.joined, strict=True))
    ]
    # Before anything is judged: which rows find each other depends on how keys were
    # read.
    lookups = _typed_lookups(recipe, survey, main, lookups, scratch, events)
    # An empty source gets its own message; otherwise every column of the recipe would
    # be called missing.
    _check_rows(main, survey)
    _check_names([main, *lookups])
    problems = column_problems(
        recipe, column_names(main), [column_names(lookup) for lookup in lookups]
    )
    problems += _split_problems(recipe, survey)
    compared, lacking = _compared(recipe, survey, main, scratch)
    problems += lacking
    if problems:
        raise RecipeError.of(problems, where=f"the recipe {recipe.name!r}")
    repairs = _repairs(recipe, survey, main, scratch)
    # Large values leave the rows only now: a recipe that is wrong should not cost the copying of pictures.
    blobs = BlobStore(scratch / "aside", memory_bytes=memory)
    main = blobs.take(main, large_columns(recipe, main), "source", owned=scratch)
    lookups = [
        blobs.take(
            lookup,
            large_columns(recipe, lookup),
            f"join-{i}",
            prefix=join.prefix,
            owned=scratch,
        )
        for i, (join, lookup) in enumerate(zip(recipe.join, lookups, strict=True))
    ]
    return Extracts(main, lookups, blobs, compared, repairs)


def _repairs(
    recipe: Recipe, survey: Survey, main: Extract, scratch: Path
) -> Extract | None:
    """Mended rows, without columns of bytes, which stay as they were read."""
    if recipe.repairs is None or survey.repairs is None:
        return None
    # Names of files and stages are texts, whatever they look like.
    own = [pa.field(FILE, pa.string()), pa.field(STAGE, pa.string())]
    types = pa.schema([*main.schema, *own, pa.field(LINE, pa.int64())])
    return recipe.repairs.typed(types).extract(
        survey.repairs,
        scratch / "repairs",
        memory_bytes=recipe.resources.memory,
        events=Events(),
    )


def _compared(
    recipe: Recipe, survey: Survey, main: Extract, scratch: Path
) -> tuple[list[Extract], list[Problem]]:
    """The sources that rules compare with, read with the types of our columns; columns that they lack."""
    extracts: list[Extract] = []
    problems: list[Problem] = []
    others = other_sources(recipe.expect)
    for i, (path, source, ours, theirs) in enumerate(others):
        extract = source.extract(
            survey.compared[i],
            scratch / f"compared-{i}",
            memory_bytes=recipe.resources.memory,
            events=Events(),
        )
        if theirs not in extract.schema.names:
            known = extract.schema.names
            text = (
                f"the other source has no column {theirs!r}.{did_you_mean(theirs, known)} Columns:"
                f" {listed(known)}."
            )
            problems.append(Problem((*path, "column"), text))
        join = Join(source=source, on={ours: theirs})
        if types := other_types(join, main.schema, extract.schema):
            extract = source.typed(types).extract(
                survey.compared[i],
                scratch / f"compared-{i}-typed",
                memory_bytes=recipe.resources.memory,
                events=Events(),
            )
        extracts.append(extract)
    return extracts, problems


def _typed_lookups(
    recipe: Recipe,
    survey: Survey,
    main: Extract,
    lookups: list[Extract],
    scratch: Path,
    events: Events,
) -> list[Extract]:
    """The joined sources; where exactly one of two keys is text, the joined one is read again with
    the main source's type.

    What is written `007` or `1.50` would be another text once it had been taken for a number, and the rows
    would not find each other.
    """
    # A new list: what was read first stays as it is for all other joins.
    typed = list(lookups)
    for i, join in enumerate(recipe.join):
        types = other_types(join, main.schema, lookups[i].schema)
        if not types:
            continue
        named = ", ".join(f"{field.name!r} as {field.type}" for field in types)
        events.say(
            f"join[{i}]: the joined source is read with {named}, like the main source",
            join=i,
        )
        typed[i] = join.source.typed(types).extract(
            survey.joined[i],
            scratch / f"join-{i}-typed",
            memory_bytes=recipe.resources.memory,
            events=Events(),  # what is to be said of these files was said when they were read first
        )
    return typed


def _check_rows(main: Extract, survey: Survey) -> None:
    if main.rows:
        return
    files = ", ".join(file.path for file in survey.snapshot.files[:5])
    unread = f" {main.rejected:,} rows could not be read." if main.rejected else ""
    raise ContractError(
        f"There are no rows to learn from in {files}.{unread} Check the path and the"
        " reading options."
    )


def _check_names(extracts: list[Extract]) -> None:
    names = [name for extract in extracts for name in extract.schema.names]
    # `row_id` may stand in a source: it is renamed.
    reserved = [name for name in names if name.startswith("__p_") or name in PLACE]
    if reserved:
        raise SourceError(
            f"the columns {', '.join(map(repr, reserved))} have names that Penstock"
            f" reserves ({ROW_FILE}, {ROW_NUMBER}, and names that begin with __p_). Rename"
            " them in the source."
        )


def _split_problems(recipe: Recipe, survey: Survey) -> list[Problem]:
    given = [file.split for file in survey.snapshot.files]
    if recipe.split.by == "files" and "train" not in given:
        return [
            Problem(
                ("split", "by"),
                "is `files`, but the source names no file under `train`; give it `train:` and `test:`"
                " instead of `path:`",
            )
        ]
    if recipe.split.by != "files" and any(given):
        return [
            Problem(
                ("split", "by"),
                f"is `{recipe.split.by}`, but the source gives files for each split; say `by: files`, or"
                " list all files under `path` to mix them",
            )
        ]
    return []
