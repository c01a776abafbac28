"""The id of a bundle, a digest of its content; it is computed again whenever a bundle
is opened or taken from.

Everything that decides an answer or runs is in it: programs, sources, weights, features, decisions, golden
rows, and the recipe but for the words that say where it ran. Two things are not, so that a reproduced run
packs into the same bundle: which run it was, and how long the export took.

Bundles from before `identity: 2` have an id of what was declared and learnt. Nobody can pass a changed bundle
off as such a one: leaving the word out gives another id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.core.errors import PenstockError, StoreError
from penstock.core.identity import fingerprint
from penstock.core.paths import shown
from penstock.core.store import Artefact
from penstock.recipe.read import read_recipe

IDENTITY = 2
ELSEWHERE = ("store", "resources", "engine", "launcher", "trackers")
"""Words of a recipe that say where and with what it ran; they change no answer, and so no id."""
_READ = ("bundle.json", "fitted.json", "decision.json", "recipe.yaml", "card.md")
"""Files whose meaning is in the id; of all others it is their bytes."""
_PASSING = ("run", "measured")
"""Words of bundle.json that differ between a run and its reproduction."""
_BLANKED = ":***@"
_ID = re.compile(r"[0-9a-f]{16}")


def bundle_id(folder: Path, files: Mapping[str, Any], *, id: str = "") -> str | None:
    """Compute a bundle's id, 16 hexadecimal digits; None where an early bundle does not
    hold everything that its id was made of.

    Args:
        folder: the bundle's.
        files: by name, `sha256` among other things, as its manifest has them; their bytes have been compared
            with it.
        id: what it says its id is, since its card says so, too.

    Raises:
        StoreError: it lacks a file, or one cannot be read.
    """
    # Checked first, since what the id is made of must all be verified files.
    if lacking := [name for name in _READ if name not in files]:
        raise StoreError(
            f"{folder} has no {lacking[0]} in its manifest: it is incomplete, or not a"
            " bundle."
        )
    try:
        bundle, fitted, decision = (
            json.loads((folder / name).read_text("utf-8")) for name in _READ[:3]
        )
        recipe = read_recipe(folder / "recipe.yaml")
        # Where a run took place changes no answer.
        declared = {
            word: value for word, value in recipe.items() if word not in ELSEWHERE
        }
        if bundle.get("identity") != IDENTITY:
            return _early(
                bundle, fitted, decision, declared, files["weights.safetensors"]["sha256"]
            )
        # The card names the id and the run, which the id cannot be made of.
        card = (
            (folder / "card.md")
            .read_text("utf-8")
            .replace(f"bundle-{id}", "bundle-")
            .replace(f"`{bundle['run']}`", "")
        )
        # A reproduced run has other values there, and must give the same id.
        facts = {word: value for word, value in bundle.items() if word not in _PASSING}
        rest = {
            name: entry["sha256"] for name, entry in files.items() if name not in _READ
        }
        return fingerprint(
            "bundle", IDENTITY, facts, fitted, decision, declared, card, rest
        )
    except (
        PenstockError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ):
        raise StoreError(
            f"{folder} cannot be read as a bundle: its content was not written by"
            " Penstock."
        ) from None


def _early(
    bundle: Mapping[str, Any],
    fitted: Any,
    decision: Any,
    declared: Mapping[str, Any],
    weights: str,
) -> str | None:
    if _BLANKED in json.dumps(declared):
        return None  # a password stood there when the id was made
    return fingerprint(
        "bundle",
        1,
        bundle["penstock"],
        weights,
        bundle["encoding"],
        fitted,
        bundle["steps"],
        decision,
        bundle["dataset"],
        declared,
    )


def check_bundle(artefact: Artefact, *, name: str | None = None) -> str:
    """Return the id of a bundle that was opened with `verify=True`, after comparing it
    with the content.

    Args:
        name: the id it was asked for by; its folder's name where that is one.

    Raises:
        StoreError: it is another bundle, or was changed.
    """
    id = artefact.manifest.get("id")
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise StoreError(
            f"{artefact.path} has the id {shown(id)}, but an id is 16 hexadecimal digits."
            " It was changed after it was packed."
        )
    # A folder of another name proves nothing: a bundle may be unpacked anywhere.
    if name is None and _ID.fullmatch(artefact.path.name):
        name = artefact.path.name
    if name is not None and name != id:
        raise StoreError(
            f"{artefact.path} is in the place of bundle-{name}, but says it is"
            f" bundle-{id}: it was moved or changed."
        )
    own_id = bundle_id(artefact.path, artefact.manifest["files"], id=id)
    if own_id is None:
        raise StoreError(
            f"{artefact.path} was packed by an early Penstock from a recipe with a"
            " password, so it cannot be verified. Delete it, and pack its run again."
        )
    if own_id != id:
        raise StoreError(
            f"{artefact.path} says it is bundle-{id}, and its content is that of bundle-{own_id}: it was"
            " changed after it was packed. Restore it, or delete it and pack its run again."
        )
    return id


def open_bundle(store: Any, reference: str) -> Path:
    """Open the bundle `bundle-<id>` of a store to take weights or features from; every
    byte is checked, and nothing in it is run.

    Raises:
        StoreError: it is not there, or was changed.
    """
    id = reference.removeprefix("bundle-")
    artefact: Artefact = store.open(f"bundles/{id}", verify=True)
    check_bundle(artefact, name=id)
    return artefact.path
