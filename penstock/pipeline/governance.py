"""The verbs about whose data it is: `forget` and `audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.core import audit as log
from penstock.core.events import Events
from penstock.core.listeners import listening
from penstock.core.store import Store
from penstock.pipeline.answers import Answer
from penstock.pipeline.forget.conditions import Condition
from penstock.pipeline.forget.forgetting import forget as forget_rows
from penstock.pipeline.forget.plan import make_plan
from penstock.pipeline.forget.retrain import retrain as retrain_models
from penstock.recipe.stores import as_store


class Forgotten(Answer):
    """What a forgetting did, or with `dry_run` would do: `versions`, `not_matched`, `done`, and once it is
    done `report` (its name in the store), `signature` and `remains`.
    """

    def __repr__(self) -> str:
        return f"Forgotten({len(self['versions'])} versions, done={self['done']})"


def forget(
    where: str,
    *,
    store: str | Path | Store | None = None,
    dry_run: bool = False,
    retrain: bool = False,
    trust: bool = False,
    key_env: str = "PENSTOCK_KEY",
    events: Events | None = None,
) -> Forgotten:
    """Take the rows that a condition is true of out of every dataset of a store, for good, and destroy what
    was made of them. Nothing asks before: look with `dry_run=True` first.

    Args:
        where: an SQL condition on columns, as a recipe's `where`.
        dry_run: only say what would be done.
        retrain: train anew, from step 0, what was trained on these rows; `retrained` has the references.
        trust: recipes of these runs may bring code of their own.
        key_env: the variable of the environment whose key signs the report.

    Raises:
        RecipeError: `where` is no condition.
        UserError: a run on one of the datasets is under way.
        StoreError: the store cannot be read or written. Doing it again goes on.
    """
    condition, there = Condition(where, key_env), as_store(store)
    events = events or Events()
    with listening(events):
        if dry_run:
            return Forgotten({**make_plan(there, condition).to_dict(), "done": False})
        report = {**forget_rows(there, condition, events), "done": True}
    if retrain:
        outcomes = retrain_models(report, there, events, trust=trust)
        report["retrained"] = [outcome.named() for outcome in outcomes]
    return Forgotten(report)


def audit(
    reference: str | None = None, *, store: str | Path | Store | None = None
) -> list[dict[str, Any]]:
    """What was done in a store, the oldest first, or to one dataset, feed, run or bundle.

    Returns:
        By entry `time`, `act`, `reference`, `user`, `host` and more; no value of a row, and no secret.

    Raises:
        StoreError: the log cannot be read.
    """
    return log.entries(as_store(store), reference)
