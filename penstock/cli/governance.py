"""What the commands about whose data it is do: `audit` and `forget`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from penstock import api
from penstock.cli.output import print_result
from penstock.core import audit as log
from penstock.core.errors import ContractError, UserError
from penstock.core.events import Events
from penstock.core.wording import counted
from penstock.recipe.stores import as_store
from penstock.terminal.console import Console
from penstock.terminal.governance_screens import (
    audit_screen,
    check_screen,
    forget_screen,
)

Options = argparse.Namespace


def audit(options: Options) -> int:
    """`penstock audit`: who did what to whose rows; with `--check`, whether the log is whole.

    Returns:
        The exit code: 3 where entries were removed or changed.
    """
    store = as_store(options.store)
    rows = log.entries(store, options.reference)
    if not options.check:
        print_result(options, rows, lambda: audit_screen(rows, options.reference))
        return 0
    problems = log.check(store)
    facts: dict[str, Any] = {"ok": not problems, "problems": problems}
    if rows and "earlier_entries" in rows[0]:
        facts["earlier_entries"] = rows[0]["earlier_entries"]
    facts["entries"] = len(rows)
    print_result(options, facts, lambda: check_screen(facts))
    return ContractError.exit_code if problems else 0


def forget(options: Options) -> None:
    """`penstock forget`: rows taken out of every dataset of a store, and of what was made of them."""
    words: dict[str, Any] = {
        "store": options.store,
        "key_env": options.key_env,
        "events": Events(Console(sys.stderr, results=options.json)),
    }
    if options.dry_run or not options.yes:
        plan = api.forget(options.where, dry_run=True, **words).to_dict()
        if options.dry_run:
            print_result(options, plan, lambda: forget_screen(plan))
            return
        _ask(forget_screen(plan), plan)
    report = api.forget(
        options.where, retrain=options.retrain, trust=options.trust, **words
    ).to_dict()
    print_result(options, report, lambda: forget_screen(report))


def _ask(screen: str, plan: Mapping[str, Any]) -> None:
    """Let the user confirm on a terminal.

    Raises:
        UserError: there is none, or the user did not say yes.
    """
    if not sys.stdin.isatty():
        raise UserError(
            "penstock forget destroys data for good, and nobody is there to confirm it. Look with --dry-run,"
            " then give --yes."
        )
    rows = sum(
        sum(version["rows"].values()) + version["quarantined"]
        for version in plan["versions"]
    )
    print(screen, file=sys.stderr)
    print(f"Destroy this for good ({counted(rows, 'row')})? [yes/no] ", file=sys.stderr)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("Nothing was changed.")
