"""The contract alone, over all rows: every rule is counted, and no dataset is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from penstock.core.events import Events
from penstock.core.store import Store
from penstock.prepare.agreed import contract_of
from penstock.prepare.budget import threads_of
from penstock.prepare.extraction import extract
from penstock.prepare.preparation import Preparation
from penstock.prepare.successors import current_survey
from penstock.prepare.validate import examples, judge
from penstock.recipe.schema import Recipe


@dataclass(frozen=True)
class ContractReport:
    """What the contract says of all rows."""

    rows: int
    """Rows that were judged: those that `where` and `sample` left, with a key of their own."""
    unreadable: int
    """Rows that came before, and could not be read."""
    rules: list[dict[str, Any]]
    """By rule: `column`, `rule`, `on_violation`, `rows` that break it or whether it is `broken`, `examples`
    of rows, and `within`: whether a preparation would go on.
    """
    at: str
    """The moment of judging."""

    @property
    def holds(self) -> bool:
        """Whether a preparation would go on."""
        return all(rule["within"] for rule in self.rules)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "holds": self.holds,
            "rows": self.rows,
            "unreadable": self.unreadable,
            "at": self.at,
            "rules": self.rules,
        }


def judge_contract(recipe: Recipe, store: Store, events: Events) -> ContractReport:
    """Judge the contract of a recipe on all rows of its source, after joins, `where`, `sample` and `derive`.

    Raises:
        RecipeError: the recipe names columns that are not there, or a rule cannot be judged.
        SourceError: data that cannot be found or read.
        StoreError: the disk is full.
    """
    with store.scratch("scratch-") as scratch:
        sources = current_survey(recipe, store)
        extracts = extract(recipe, sources, scratch, events)
        with recipe.engine.open(
            scratch / "engine",
            memory_bytes=recipe.resources.memory,
            threads=threads_of(recipe),
        ) as session:
            preparation = Preparation(
                recipe,
                events,
                scratch / "draft",
                scratch,
                sources,
                extracts,
                session,
                store=store,
            )
            with preparation.ledger:
                table = preparation.before_contract()
            contract = replace(
                contract_of(recipe, extracts, session, store),
                withheld=preparation.ledger.withheld,
            )
            counts = judge(table, contract, session=session)
            rules = counts.report()
            over = {id(check) for check, _ in counts.over_budget()}
            for check, rule in zip(counts.checks, rules, strict=False):
                rule["examples"] = (
                    examples(counts.table, check, session, preparation.paths)
                    if rule["rows"]
                    else []
                )
                failed = check.policy == "fail" and rule["rows"] > 0
                rule["within"] = not failed and id(check) not in over
            for rule in rules[len(counts.checks) :]:
                rule["within"] = not rule["broken"] or rule["on_violation"] == "warn"
            return ContractReport(
                counts.rows,
                preparation.unreadable,
                rules,
                f"{contract.now.isoformat()}Z",
            )
