"""`dataset:` in place of `source`: a recipe that learns from rows which are prepared already.

It says nothing of preparing, since the version does: the words by which it was prepared are filled in once
its store is known (`prepare.versions.over_version`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.core.errors import Problem, RecipeError

PREPARING = (
    "source",
    "join",
    "where",
    "sample",
    "key",
    "derive",
    "expect",
    "expect_table",
    "repairs",
    "clean",
    "private",
    "governance",
    "split",
    "cluster_by",
    "parent",
    "fit",
)
"""The words of a recipe that say how rows are prepared."""


def with_dataset(recipe: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A recipe that names a `dataset`, with a source that only completes it; others as they are.

    Args:
        where: the recipe's path or name, for the error.

    Raises:
        RecipeError: it says as well how rows are prepared.
    """
    whole = dict(recipe)
    if whole.get("dataset") is None:
        return whole
    given = [word for word in PREPARING if whole.get(word) not in (None, {}, [], "")]
    problems = [
        Problem(
            (word,),
            "goes with a source; the rows of `dataset` are prepared already. Name some of them with"
            f" `dataset: NAME@ID?{word}=…`"
            if word in ("where", "sample")
            else "goes with a source; the rows of `dataset` are prepared already. Leave out one of the two",
        )
        for word in given
    ]
    if problems:
        raise RecipeError.of(problems, where=where)
    return {**whole, "source": {"type": "files", "path": str(whole["dataset"])}}
