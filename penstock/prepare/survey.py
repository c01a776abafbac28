"""What a preparation would read, what its result is called, and where it came from.

The id is the fingerprint of the snapshots (names and content, no places or times), of what the recipe says of
data, of how sources are read (without their paths), and of the format. Where rows lie, engine, threads and
memory do not enter: they change no row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock._version import __version__
from penstock.contracts.data import Extract, Snapshot, Source
from penstock.core.errors import UserError
from penstock.core.identity import fingerprint
from penstock.core.redact import redacted_url
from penstock.core.store import Store
from penstock.prepare.dataset import SPLITS
from penstock.prepare.forgotten import ForgottenRows
from penstock.recipe.expect import other_sources
from penstock.recipe.schema import Recipe
from penstock.recipe.secret import without_secrets

FORMAT = 1
"""Of what is written. It enters every dataset's id: raise it when the same recipe would give other rows."""
_MEMO = "index/hashes.json"
"""In the store: hashes of files that have not changed since."""


@dataclass
class Survey:
    """The snapshots of all sources, and the id of the dataset that they would give."""

    snapshot: Snapshot
    joined: list[Snapshot]
    id: str
    compared: list[Snapshot] = field(default_factory=list)
    """Of the sources that rules of `expect` compare with, in the order of `other_sources`."""
    repairs: Snapshot | None = None
    parent: str | None = None
    """With `repairs`: the id of the dataset without them."""
    forgotten: ForgottenRows | None = None
    """Rows that are left out, since they were forgotten in this store."""
    whole: str | None = None
    """With `forgotten`: the id of the dataset with all rows."""


def survey(recipe: Recipe, store: Store) -> Survey:
    """Take a snapshot of every source as it is at this moment, and compute the dataset's id.

    Raises:
        SourceError: a source cannot be found or read.
        UserError: it names a `dataset`, so there is nothing to prepare.
    """
    if recipe.dataset is not None:
        raise UserError(
            f"The recipe {recipe.name!r} learns from {recipe.dataset}, whose rows are prepared already and"
            " kept its contract then. Use the recipe that prepared it."
        )
    # Files that have the size and time they had are not hashed again.
    memo = store.at(_MEMO)
    snapshot = recipe.source.snapshot(recipe.base, memo)
    joined = [join.source.snapshot(recipe.base, memo) for join in recipe.join]
    compared = [
        source.snapshot(recipe.base, memo)
        for _, source, _, _ in other_sources(recipe.expect)
    ]
    repairs = None
    if recipe.repairs is not None:
        repairs = recipe.repairs.snapshot(recipe.base, memo)
    later = compared if repairs is None else [*compared, repairs]
    id = dataset_id(recipe, snapshot, joined, later)
    parent = None
    if repairs is not None:
        before = recipe.model_copy(update={"repairs": None})
        parent = dataset_id(before, snapshot, joined, compared)
    return Survey(snapshot, joined, id, compared, repairs, parent)


def dataset_id(
    recipe: Recipe,
    snapshot: Snapshot,
    joined: list[Snapshot],
    later: Sequence[Snapshot] = (),
) -> str:
    """16 hexadecimal digits: equal if and only if the same rows would come out.

    Args:
        later: snapshots that not every recipe has; without them the id is what it was.
    """
    return fingerprint(
        "dataset",
        FORMAT,
        snapshot.to_dict(),
        [other.to_dict() for other in joined],
        _reading(recipe.source),
        _identity(recipe),
        *([[other.to_dict() for other in later]] if later else []),
    )


def family_id(recipe: Recipe, joined: list[Snapshot]) -> str:
    """16 hexadecimal digits: equal where versions differ by nothing but the files of their own source, and by
    whether what cleaners learnt was taken over.
    """
    own = recipe.model_copy(update={"parent": None, "fit": "again"})
    return fingerprint(
        "family",
        FORMAT,
        [other.to_dict() for other in joined],
        _reading(recipe.source),
        _identity(own),
    )


def _identity(recipe: Recipe) -> dict[str, Any]:
    """What the recipe says of data, sources as they are read."""
    identity = recipe.data_identity()
    identity["expect"] = _without_paths(identity["expect"])
    if recipe.repairs is not None:
        identity["repairs"] = _reading(recipe.repairs)
    # A joined source is described by how it is read; its snapshot has what was read.
    identity["join"] = [
        {**join.to_dict(), "source": _reading(join.source)} for join in recipe.join
    ]
    return identity


def _without_paths(expect: Mapping[str, Any]) -> dict[str, Any]:
    """The contract as it is declared, with the sources that it compares with as they are read."""

    def plain(rule: Mapping[str, Any]) -> dict[str, Any]:
        words = dict(rule)
        for word, place in (("refers_to", "source"), ("drift", "against")):
            inner = words.get(word)
            if inner is not None and inner.get(place) is not None:
                words[word] = {**inner, place: _reading(Source.load(inner[place]))}
        if "also" in words:
            words["also"] = [plain(each) for each in words["also"]]
        return words

    return {column: plain(rule) for column, rule in expect.items()}


def _reading(source: Source) -> dict[str, Any]:
    """The declaration of a source without its paths: the snapshot has names and content in their
    place.
    """

    def without_path(options: Mapping[str, Any]) -> dict[str, Any]:
        # The snapshot has names and content, so data may be moved without a new
        # version.
        return {word: value for word, value in options.items() if word != "path"}

    def without_roots(loads: Mapping[str, Any]) -> dict[str, Any]:
        return {
            column: {word: value for word, value in how.items() if word != "root"}
            for column, how in loads.items()
        }

    declared = {
        word: value
        for word, value in source.to_dict().items()
        if word not in source.whereabouts
    }
    # Files that rows name lie below a root; their content is in the snapshot, too.
    if isinstance(declared.get("load"), Mapping):
        declared["load"] = without_roots(declared["load"])
    return {
        # `train: {path: …}`: splits may have options of their own.
        word: without_path(value)
        if word in SPLITS and isinstance(value, Mapping)
        else value
        for word, value in declared.items()
    }


def lineage(recipe: Recipe, survey: Survey, lookups: Sequence[Extract]) -> dict[str, Any]:
    """Where the rows of a dataset came from, for its manifest; without secrets.

    Args:
        lookups: the joined sources as they were read.
    """

    def files(snapshot: Snapshot) -> list[dict[str, Any]]:
        return [
            {
                "path": f.path,
                # An address may have a password or a token in it.
                "url": redacted_url(f.url),
                "size_bytes": f.size_bytes,
                "sha256": f.sha256,
                "split": f.split,
                **({"position": f.position} if f.position else {}),
            }
            for f in snapshot.files
        ]

    return {
        "source": files(survey.snapshot),
        "joined": [
            {"files": files(s), "rows": e.rows, "rejected": e.rejected}
            for s, e in zip(survey.joined, lookups, strict=True)
        ],
        **({"compared": [files(s) for s in survey.compared]} if survey.compared else {}),
        **({"repairs": files(survey.repairs)} if survey.repairs else {}),
        **({"parent": f"{recipe.name}@{survey.parent}"} if survey.parent else {}),
        **(
            {"forgotten": {"of": survey.whole, "list": survey.forgotten.digest}}
            if survey.forgotten
            else {}
        ),
        # Declared words may be secrets of the environment that were filled in.
        "declared": without_secrets(recipe.data_identity()),
        "reading": without_secrets(recipe.source.to_dict()),
        "engine": without_secrets(recipe.engine.to_dict()),
        "penstock": __version__,
    }
