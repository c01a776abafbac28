"""What a feature takes over from an earlier bundle instead of learning it anew (`fitted_from`), so that an
encoder taken from there finds its tokens, edges and classes where it left them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pyarrow as pa

from penstock.contracts.data import Feature, Fitted
from penstock.contracts.foreign import is_loaded, no_foreign_code
from penstock.core.errors import Problem, RecipeError
from penstock.core.near import did_you_mean
from penstock.core.sound import sound
from penstock.core.store import Store
from penstock.formats.typed import canonical
from penstock.recipe.bundled import open_bundle

_MAY_DIFFER = frozenset({"column", "na", "augment", "fitted_from"})
"""What changes neither arrays nor their meaning."""


def reuse_fitted(
    features: Mapping[str, Feature],
    side: Literal["inputs", "targets"],
    store: Store,
    *,
    where: str,
) -> dict[str, Fitted]:
    """By feature, what the bundle that it names has fitted for the feature of the same name and declaration.

    Raises:
        RecipeError: a bundle has no such feature, or declares it otherwise; every problem at once.
        StoreError: there is no such bundle in the store.
    """
    fitted: dict[str, Fitted] = {}
    problems: list[Problem] = []
    for name, feature in features.items():
        if feature.fitted_from is None:
            continue
        folder = open_bundle(store, feature.fitted_from)
        with sound(feature.fitted_from, advice="Fetch it again, or pack its run again"):
            theirs = _taken(name, feature, side, folder, problems)
            if theirs is not None:
                fitted[name] = theirs
    if problems:
        raise RecipeError.of(problems, where=where)
    return fitted


def columns_of(store: Store, reference: str) -> pa.Schema:
    """The columns that a bundle was learnt from, those of a bundle of an older Penstock as far as requests
    need them.

    Raises:
        StoreError: there is no such bundle in the store, or it was changed.
    """
    folder = open_bundle(store, reference)
    with sound(reference, advice="Fetch it again, or pack its run again"):
        facts = json.loads((folder / "bundle.json").read_text("utf-8"))
        # Older bundles have the schema of requests alone.
        encoded = (facts.get("learnt") or {}).get("schema") or facts["schema"]
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))


def other_sorts(
    features: Mapping[str, Feature], here: pa.Schema, there: pa.Schema, reference: str
) -> list[str]:
    """In sentences: the columns of these features that hold values of another sort than where something was
    learnt of them.
    """
    sentences = []
    for name, feature in features.items():
        for column in feature.columns(name):
            if column not in here.names or column not in there.names:
                continue
            ours, theirs = _sort(here.field(column).type), _sort(there.field(column).type)
            if ours != theirs:
                sentences.append(
                    f"{name} reads the column {column!r}, which has {ours} here and had {theirs} where"
                    f" {reference} learnt: the same value may be another there (007 is the number 7, and the"
                    " text 007). Read it as it was, with `types` of the source"
                )
    return sentences


def _sort(kind: pa.DataType) -> str:
    # As readers give the column, so that a dictionary or a narrower number is no other
    # sort.
    t, kind = pa.types, canonical(kind)
    if t.is_integer(kind) or t.is_floating(kind):
        return "numbers"
    if t.is_boolean(kind):
        return "truth values"
    if t.is_timestamp(kind):
        return "moments"
    if t.is_binary(kind):
        return "bytes"
    return "lists" if t.is_list(kind) else "text"


def _taken(
    name: str,
    feature: Feature,
    side: Literal["inputs", "targets"],
    folder: Path,
    problems: list[Problem],
) -> Fitted | None:
    """What a bundle has fitted for one feature; None, and a problem more, where it has no such feature."""
    encoding = json.loads((folder / "bundle.json").read_text("utf-8"))["encoding"]
    path = (side, name, "fitted_from")
    theirs = encoding[side].get(name)
    if theirs is None:
        known = list(encoding[side])
        problems.append(
            Problem(
                path,
                f"{feature.fitted_from} has no {side.removesuffix('s')} {name!r}.{did_you_mean(name, known)}"
                f" Known: {', '.join(known)}.",
            )
        )
        return None
    if theirs["type"] != feature.type:
        problems.append(
            Problem(
                path,
                f"is of type {theirs['type']!r} in {feature.fitted_from}, and {feature.type!r} here",
            )
        )
        return None
    # Loaded and written again, so that words which theirs lacks stand at their
    # defaults.
    with no_foreign_code(but=is_loaded):
        there, here = Feature.load(theirs).to_dict(), feature.to_dict()
    # Only what changes arrays or their meaning has to agree.
    differing = [
        word for word in here if word not in _MAY_DIFFER and here[word] != there[word]
    ]
    problems += [
        Problem(
            (side, name, word),
            f"is {here[word]!r} here, but {there[word]!r} in {feature.fitted_from}, from"
            " which it is taken over. Both must be the same",
        )
        for word in differing
    ]
    fitted: Fitted = json.loads((folder / "fitted.json").read_text("utf-8"))[name]
    # Nothing is taken over from a feature that is declared otherwise.
    return None if differing else fitted
