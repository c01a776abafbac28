"""Does each row of a recipe stand alone: is what becomes of it known without any other row?

Where it does, rows of new files can be put to those of an older version (`children`). A word is allowed here
because its steps look at one row; every word that is not known to do so is named as what prevents it.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.contracts.data import Cleaner, Source
from penstock.contracts.judge import Judge
from penstock.formats.shelf import ending
from penstock.recipe.schema import Recipe

_FORMATS = ("csv", "tsv", "parquet", "arrow", "orc")
"""A value of them is known by its column's type: of JSON and workbooks it may depend on other files."""
_SPELLING = ("decimal", "thousands", "date_format")
"""Whether a column is written so is found out by all its texts."""
_TOGETHER = ("sample", "cluster_by", "repairs", "expect_table", "samples")
"""`private` is not among them: by the laws of anonymisers a row alone is hidden as with others."""
_RULES = (
    "unique",
    "refers_to",
    "monotonic",
    "max_missing",
    "fresh",
    "share",
    "drift",
    "budget",
)
"""Words of `expect` that all rows together keep or break."""


def preventing(recipe: Recipe, files: Iterable[str]) -> str | None:
    """What in a recipe asks for all rows, in words; None where each row stands alone.

    Args:
        files: the paths of all files of its source.
    """
    problems = (
        _of_source(recipe.source),
        _of_formats(recipe.source, files),
        _of_sections(recipe),
        _of_rules(recipe),
        _of_cleaners(recipe),
    )
    return next((problem for problem in problems if problem), None)


def nameless(source: Source, columns: Iterable[str]) -> bool:
    """Whether files of which it is not said were judged to have no header: all files together may be judged
    otherwise, where their first lines are the same.
    """
    words = source.to_dict()
    if words.get("header", "auto") != "auto" or words.get("names"):
        return False
    names = {*columns, *words.get("rename", {})}
    return any(name.startswith("column_") for name in names)


def _of_source(source: Source) -> str | None:
    if source.type != "files":
        return f"`source: {{type: {source.type}}}` has no files that could be told apart"
    words = source.to_dict()
    if words.get("load"):
        return "`source.load`: rows name files of their own"
    for word in _SPELLING:
        if words.get(word):
            return (
                f"`source.{word}`: how a column is written is found out by all its texts"
            )
    return None


def _of_formats(source: Source, files: Iterable[str]) -> str | None:
    declared = source.to_dict().get("format", "auto")
    named = str(declared.get("type") if isinstance(declared, dict) else declared)
    formats = {ending(path) for path in files} if named == "auto" else {named}
    for format in sorted(formats - set(_FORMATS)):
        kind = f"the format {format}" if format else "an unknown format"
        return f"`source`: what a file of {kind} holds may depend on the others"
    return None


def _of_sections(recipe: Recipe) -> str | None:
    for word in _TOGETHER:
        if getattr(recipe, word):
            return f"`{word}` looks at all rows"
    if recipe.governance.anonymity is not None:
        return "`governance.anonymity` looks at all rows"
    if recipe.split.by != "hash":
        return f"`split.by: {recipe.split.by}` looks at all rows"
    return "`split.stratify` looks at all rows" if recipe.split.stratify else None


def _of_rules(recipe: Recipe) -> str | None:
    for column, promise in recipe.expect.items():
        for _, rule in promise.rules():
            for word in _RULES:
                if getattr(rule, word):
                    return f"`expect.{column}.{word}` is a rule on all rows"
                if word in ("max_missing", "budget") and getattr(rule, word) is not None:
                    return f"`expect.{column}.{word}` is a share of all rows"
    return None


def _of_cleaners(recipe: Recipe) -> str | None:
    for place, cleaner in enumerate(recipe.clean):
        if why := _of_cleaner(cleaner, recipe.fit):
            return f"`clean[{place}]` ({cleaner.type}) {why}"
    return None


def _of_cleaner(cleaner: Cleaner, fit: str) -> str | None:
    if isinstance(cleaner, Judge) or cleaner.form == "global":
        return "looks at all rows"
    if cleaner.is_fitted() and fit == "again":
        return (
            "learns from the training split, and mends old rows by it. `fit: parent` takes over what an"
            " older version learnt"
        )
    return None
