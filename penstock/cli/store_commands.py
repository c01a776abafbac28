"""Commands about versions in a store; `commands` has them with the others."""

from __future__ import annotations

import argparse

from penstock import api
from penstock.cli.arguments import events_of
from penstock.cli.output import print_result
from penstock.core.errors import UserError
from penstock.core.listeners import listening
from penstock.terminal.lineage_screen import lineage_screen
from penstock.terminal.screens import facts_screen
from penstock.terminal.store_screens import tags_screen

Options = argparse.Namespace


def lineage(options: Options) -> None:
    """`penstock lineage`: what an artefact was made of, and what was made of it."""
    with listening(events_of(options)):
        facts = api.lineage(options.reference, store=options.store).to_dict()
    print_result(options, facts, lambda: lineage_screen(facts))


def tag(options: Options) -> None:
    """`penstock tag`: set, move, remove or list the tags of datasets."""
    reference, name, events = options.reference, options.tag, events_of(options)
    if options.remove:
        if name is not None or options.force or "@" not in (reference or ""):
            raise UserError("To remove a tag, write `penstock tag NAME@TAG --remove`.")
        gone = api.untag(reference, store=options.store, events=events)
        text = f"{gone.reference} is removed; it stood for {gone.dataset}"
        print_result(options, gone.to_dict(), lambda: text)
        return
    if name is None:
        if options.force or "@" in (reference or ""):
            raise UserError(
                "To set a tag, write `penstock tag NAME@ID TAG`; to list tags, `penstock tag NAME`."
            )
        known = api.tags(reference, store=options.store)
        print_result(
            options,
            [each.to_dict() for each in known],
            lambda: tags_screen(known, options.store or "./store"),
        )
        return
    changed = api.tag(
        reference, name, force=options.force, store=options.store, events=events
    )
    moved = f"; it stood for {changed.before}" if changed.before else ""
    print_result(
        options,
        changed.to_dict(),
        lambda: f"{changed.reference} is {changed.dataset}{moved}",
    )


def subset(options: Options) -> None:
    """`penstock subset`: the text that names a query at a version, and its rows."""
    chosen = api.subset(
        options.reference,
        where=options.where,
        sample=options.sample,
        seed=options.seed,
        store=options.store,
    )
    facts = {"reference": chosen.reference, "id": chosen.id, "rows": chosen.counts["in"]}
    facts |= {split: chosen.counts[split] for split in ("train", "validation", "test")}
    print_result(options, facts, lambda: facts_screen(facts))
