"""The word to write where a recipe does not fit its data: what `init` would propose there."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from penstock.contracts.data import Source
from penstock.contracts.features import Feature
from penstock.core.errors import ContractError, PenstockError
from penstock.inspect.columns import judge
from penstock.inspect.draft import flow
from penstock.inspect.raw_column import Look
from penstock.inspect.target import judge_target
from penstock.recipe.schema import Recipe


def feature_cure(
    name: str, feature: Feature, column: pa.ChunkedArray, *, target: bool
) -> str:
    """Return a sentence with the declaration that `init` would write; empty where it would be the same.

    Args:
        name: the feature's.
        feature: as declared, which refuses values of the column.
        column: raw values of the only column that it reads.
    """
    look = Look(name, column)
    try:
        finding = judge_target(look)[0] if target else judge(look)
    except ContractError:
        return ""
    if finding.type is None:
        return ""
    declared = {k: v for k, v in feature.to_dict().items() if k in finding.options}
    if finding.type == feature.type and declared == finding.options:
        return ""
    words = {"type": finding.type, **finding.options}
    return f". `init` would write `{flow(words) if finding.options else finding.type}`"


def reading_cure(recipe: Recipe) -> str:
    """Return a sentence with the reading options that `init` would find; empty where they are as declared."""
    declared: dict[str, Any] = recipe.source.to_dict()
    bare = {k: v for k, v in declared.items() if k not in ("delimiter", "encoding")}
    if bare == declared:
        return ""
    try:
        source = Source.load(bare)
        words = source.proposed(source.preview(recipe.base))
    # The files cannot be read without these words either, so there is no advice to give.
    except PenstockError:
        return ""
    better = {
        k: v
        for k, v in words.items()
        if k in ("delimiter", "encoding") and declared.get(k) not in (None, v, "auto")
    }
    if not better:
        return ""
    return f"`init` would read it with `{flow(better)[1:-1]}` under `source`."
