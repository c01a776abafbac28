"""What `penstock labels` does."""

from __future__ import annotations

import argparse

from penstock import api
from penstock.cli.arguments import events_of, named_source
from penstock.cli.output import print_result
from penstock.core.regular import lasting_output
from penstock.terminal.labels_screen import labels_screen
from penstock.terminal.layout import screen_width

Options = argparse.Namespace


def labels(options: Options) -> None:
    """`penstock labels`: rows whose label is probably wrong, the worst first."""
    facts = api.labels(
        named_source(options),
        target=options.target,
        split=options.split,
        top=options.top,
        folds=options.folds,
        seed=options.seed,
        rank=options.rank,
        # Before any work: rows in `memory://` would be gone with the process.
        output=None if options.output is None else lasting_output(options.output),
        store=options.store,
        events=events_of(options),
    ).to_dict()
    facts["source"] = options.source
    print_result(options, facts, lambda: labels_screen(facts, width=screen_width(120)))
