"""What the commands about whose data it is do: `audit`."""

from __future__ import annotations

import argparse
from typing import Any

from penstock.cli.output import print_result
from penstock.core import audit as log
from penstock.core.errors import ContractError
from penstock.recipe.stores import as_store
from penstock.terminal.governance_screens import audit_screen, check_screen

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
