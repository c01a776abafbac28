"""What each command does: call the verb of `api`, print what it returns.

`grammar` names these functions by their names. The module loads all of Penstock, so it is imported once a
command is known and the process has the memory for it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from penstock import api
from penstock.cli.arguments import events_of as _events
from penstock.cli.arguments import named_source
from penstock.cli.arguments import source_of as _source
from penstock.cli.governance import audit as audit  # a command like the others
from penstock.cli.governance import forget as forget
from penstock.cli.label_command import labels as labels  # likewise
from penstock.cli.output import print_result
from penstock.cli.store_commands import (
    lineage as lineage,  # these three are commands, too
)
from penstock.cli.store_commands import subset as subset
from penstock.cli.store_commands import tag as tag
from penstock.core.audit import note
from penstock.core.errors import ContractError, UserError
from penstock.core.listeners import listening
from penstock.core.regular import lasting_output, local_output
from penstock.core.store import atomic_write
from penstock.core.wording import counted
from penstock.pipeline import demo as demonstration
from penstock.pipeline.listing import LISTED
from penstock.pipeline.quarantined import Filter, export, quarantined, statistics
from penstock.recipe.schema import Recipe
from penstock.terminal.contract_screens import (
    contract_screen,
    quarantine_screen,
    statistics_screen,
)
from penstock.terminal.init_screen import init_screen
from penstock.terminal.layout import screen_width
from penstock.terminal.predictions import predictions_screen
from penstock.terminal.profile_screen import diff_screen, profile_screen
from penstock.terminal.report_screen import report_screen
from penstock.terminal.screens import (
    demo_screen,
    facts_screen,
    feed_screen,
    outcome_screen,
    plan_screen,
    rows_screen,
)
from penstock.terminal.store_screens import list_screen, show_screen

Options = argparse.Namespace


def init(options: Options) -> None:
    """`penstock init`: look at data, and write or print a recipe for it."""
    # Refused before the data is looked at, which may take a while.
    output_path = _free_output(options)
    source = _source(options.source, options.overrides)
    shown_path = options.source
    if "://" not in options.source:
        # A recipe's paths start from the recipe's own folder.
        output = options.output and os.path.abspath(
            options.output.removeprefix("file://")
        )
        folder = os.path.dirname(output) if output else os.getcwd()
        shown_path = os.path.relpath(source["path"], folder)
    draft = api.init(
        source, target=options.target, rows=options.rows, shown_path=shown_path
    )
    facts = {**draft.to_dict(), "source": options.source, "recipe": options.output}
    screen = init_screen(facts, width=screen_width(100))
    if output_path is not None:
        # Whole or not at all: half of a recipe must not replace a whole one.
        atomic_write(output_path, draft, option="-o")
        print_result(options, facts, lambda: screen)
        return
    # The recipe may go to a file or another program; the screen is for people.
    print_result(options, facts, lambda: str(draft))
    if not options.json:
        print(screen, file=sys.stderr)


def _free_output(options: Options) -> Path | None:
    """Where `-o` writes a recipe. Raises UserError where one is there already, unless `--force` is given."""
    if not options.output:
        return None
    path = Path(local_output(options.output))
    # `os.path` answers for names that no file can have, too.
    if os.path.exists(path) and not options.force:
        raise UserError(
            f"{options.output} is there already, perhaps edited by hand. Give --force to replace it, or"
            " another name with -o."
        )
    return path


def profile(options: Options) -> None:
    """`penstock profile`: all rows measured; what is wrong with them, the worst first."""
    facts = api.profile(
        named_source(options),
        target=options.target,
        html=options.html,
        store=options.store,
        events=_events(options),
    ).to_dict()
    # As it was given, not as the absolute path that reading options need.
    facts["source"] = options.source
    if options.output:
        text = json.dumps(facts, ensure_ascii=False, indent=1)
        atomic_write(Path(local_output(options.output)), text + "\n", option="-o")
    written = f"\n\nThe page is in {options.html}." if options.html else ""
    print_result(
        options,
        facts,
        lambda: profile_screen(facts, width=screen_width(120)) + written,
    )


def diff(options: Options) -> None:
    """`penstock diff`: two profiles held against each other."""
    facts = api.diff(
        options.a,
        options.b,
        key=options.key,
        store=options.store,
        events=_events(options),
    )
    print_result(options, facts, lambda: diff_screen(facts, width=screen_width(120)))


def check(options: Options) -> int:
    """`penstock check`: every mistake of a recipe at once; with `--data` what breaks its contract.

    Returns:
        The exit code: 3 where the contract does not hold.
    """
    if options.data:
        report = api.check_contract(
            options.recipe,
            overrides=_overrides(options),
            store=options.store,
            events=_events(options),
        )
        facts = report.to_dict()
        print_result(options, facts, lambda: contract_screen(facts))
        return 0 if report.holds else ContractError.exit_code
    recipe = api.check(
        options.recipe,
        overrides=_overrides(options),
        store=options.store,
        events=_events(options),
    )
    print_result(
        options,
        {"ok": True, "name": recipe.name, "fingerprint": recipe.fingerprint()},
        lambda: (
            f"{options.recipe} has no mistakes: {counted(len(recipe.inputs), 'input')},"
            f" {counted(len(recipe.targets), 'target')}."
        ),
    )
    return 0


def plan(options: Options) -> None:
    """`penstock plan`: what would run, what is done already, what it costs."""
    stages = api.plan(
        options.recipe, overrides=_overrides(options), store=options.store
    ).to_dict()
    print_result(options, stages, lambda: plan_screen(stages))


def prepare(options: Options) -> None:
    """`penstock prepare`: a dataset version."""
    dataset = api.prepare(_recipe(options), store=options.store, events=_events(options))
    print_result(
        options,
        {"dataset": dataset.reference, "rows": dataset.counts, "path": str(dataset.path)},
        lambda: (
            f"{rows_screen(dataset.counts)}\ndataset  {dataset.reference}\n         {dataset.path}"
        ),
    )


def encode(options: Options) -> None:
    """`penstock encode`: a feed."""
    feed = api.encode(_recipe(options), store=options.store, events=_events(options))
    data = {
        "feed": feed.id,
        "dataset": feed.dataset,
        "rows": feed.rows,
        "samples": feed.samples,
        "quarantined": feed.quarantined_by_split,
        "path": str(feed.path),
    }
    print_result(options, data, lambda: feed_screen(feed))


def train(options: Options) -> None:
    """`penstock train`: a run."""
    run = api.train(
        _recipe(options),
        store=options.store,
        events=_events(options),
        fresh=options.fresh,
    )
    print_result(
        options,
        {"run": run.id, "path": str(run.path), "training": run.summary},
        lambda: facts_screen(
            {"run": run.id, "folder": str(run.path), **(run.summary or {})}
        ),
    )


def run(options: Options) -> None:
    """`penstock run`: every stage."""
    outcome = api.run(
        _recipe(options),
        store=options.store,
        events=_events(options),
        fresh=options.fresh,
    )
    print_result(
        options, outcome.to_dict(), lambda: outcome_screen(outcome, store=options.store)
    )


def resume(options: Options) -> None:
    """`penstock resume`: an interrupted run, to its end."""
    recipe = api.recipe_of(options.run, store=options.store, trust=options.trust)
    # Known before events begin: a process that follows prints nothing.
    options.follows = not api.leads(recipe)
    outcome = api.resume(
        options.run, store=options.store, trust=options.trust, events=_events(options)
    )
    print_result(
        options, outcome.to_dict(), lambda: outcome_screen(outcome, store=options.store)
    )


def launch(options: Options) -> None:
    """`penstock launch`: a manifest or script for a scheduler."""
    # Options that were not given are left out, so that their defaults stand in one
    # place.
    words = {
        word: getattr(options, word)
        for word in ("image", "processes", "gpus", "claim", "hours")
        if getattr(options, word) is not None
    }
    text = api.launch(
        options.recipe,
        scheduler=options.scheduler,
        overrides=_overrides(options),
        store=options.store,
        secrets=options.secrets,
        **words,
    )
    print_result(options, {"text": text}, lambda: text.rstrip("\n"))


def evaluate(options: Options) -> None:
    """`penstock evaluate`: a report on the test split, or on labelled rows that came later."""
    report = api.evaluate(
        options.bundle,
        source=(
            None if options.input is None else _source(options.input, options.overrides)
        ),
        dataset=options.dataset,
        store=options.store,
        trust=options.trust,
        events=_events(options),
    )
    print_result(
        options,
        report.to_dict(),
        lambda: report_screen(report.to_dict(), explain=options.explain),
    )


def predict(options: Options) -> None:
    """`penstock predict`: the answer to every row of a file, in a file; the first ones on the screen where
    none is named.
    """
    facts = api.predict(
        options.bundle,
        source=_source(options.input, options.overrides),
        # Before any work: answers in `memory://` would be gone with the process.
        output=None if options.output is None else lasting_output(options.output),
        keep=options.keep,
        every=options.every,
        memory=options.memory,
        spreadsheet=options.spreadsheet,
        store=options.store,
        trust=options.trust,
        events=_events(options),
    ).to_dict()
    print_result(
        options,
        facts,
        lambda: (
            facts_screen(facts)
            if facts["output"] is not None
            else predictions_screen(facts, command=_arguments(options))
        ),
    )


def _arguments(options: Options) -> list[str]:
    """The arguments of a `predict` that wrote no file, to be asked again with one."""
    arguments = ["predict", options.bundle, options.input]
    for word, values in (("--keep", options.keep), ("--set", options.overrides)):
        arguments += [text for value in values for text in (word, value)]
    arguments += ["--store", options.store] if options.store else []
    return arguments + (["--trust"] if options.trust else [])


def serve(options: Options) -> None:
    """`penstock serve`: answers over HTTP until it is stopped."""
    api.serve(
        options.bundle,
        store=options.store,
        trust=options.trust,
        events=_events(options),
        host=options.host,
        port=options.port,
        max_batch=options.max_batch,
        wait_ms=options.wait_ms,
        token_env=options.token_env,
        expect=options.expect,
    )


def list_artefacts(options: Options) -> None:
    """`penstock list`: what is in a store, or on one shelf of it."""
    # A bucket may be slow: retries are shown on standard error while it is listed.
    with listening(_events(options)):
        listed = api.list_artefacts(options.shelf, store=options.store)
    rows = [artefact.to_dict() for artefact in listed]
    print_result(options, rows, lambda: _lists(options, rows))


def _lists(options: Options, rows: Sequence[dict[str, Any]]) -> str:
    """The shelf that was asked for, or each that has anything."""
    store = options.store or "./store"
    now = datetime.now().astimezone()
    if options.shelf is not None:
        return list_screen(options.shelf, rows, store, now=now)
    screens = [
        list_screen(shelf, some, store, now=now)
        for shelf in LISTED
        if (some := [row for row in rows if row["shelf"] == shelf])
    ]
    return "\n\n".join(screens) or f"{store} is empty."


def show(options: Options) -> None:
    """`penstock show`: one artefact."""
    with listening(_events(options)):
        facts = api.show(options.reference, store=options.store).to_dict()
    print_result(
        options,
        facts,
        lambda: show_screen(
            facts, explain=options.explain, now=datetime.now().astimezone()
        ),
    )


def quarantine_show(options: Options) -> None:
    """`penstock quarantine show`: rows that were put aside, on the screen or in a file to be mended."""
    wanted = Filter(options.reason, options.column)
    dataset = api.dataset_called(options.reference, store=options.store)
    if options.output:
        rows = export(dataset, wanted, local_output(options.output))
        facts = {"dataset": dataset.reference, "rows": rows, "output": options.output}
        print_result(
            options, facts, lambda: f"{counted(rows, 'row')} in {options.output}"
        )
        return
    rows_shown = list(islice(quarantined(dataset, wanted), options.rows))
    note(dataset.store, "read", dataset.reference, quarantined=len(rows_shown))
    print_result(
        options, rows_shown, lambda: quarantine_screen(rows_shown, dataset.reference)
    )


def quarantine_stats(options: Options) -> None:
    """`penstock quarantine stats`: how many rows were put aside, by rule, column and file."""
    facts = statistics(api.dataset_called(options.reference, store=options.store))
    print_result(options, facts, lambda: statistics_screen(facts))


def quarantine_replay(options: Options) -> None:
    """`penstock quarantine replay`: mended rows, through the same preparation, as a new dataset version."""
    child = api.replay(
        options.reference,
        options.fixed,
        store=options.store,
        events=_events(options),
    )
    facts = {
        "dataset": child.reference,
        "parent": child.manifest["lineage"]["parent"],
        "rows": child.counts,
        "path": str(child.path),
    }
    print_result(
        options,
        facts,
        lambda: (
            f"{rows_screen(child.counts)}\ndataset  {child.reference}\nparent   {facts['parent']}"
        ),
    )


def schema(options: Options) -> None:
    """`penstock schema`: the JSON Schema of recipes, which is JSON with `--json` and without."""
    text = json.dumps(api.schema(), indent=1, ensure_ascii=False)
    if options.output:
        atomic_write(Path(local_output(options.output)), text + "\n", option="-o")
    else:
        print(text)


def demo(options: Options) -> None:
    """`penstock demo`: the whole journey on real data."""
    shown = demonstration.demo(Path(options.folder), _events(options))
    print_result(
        options,
        {**shown.outcome.to_dict(), "answer": shown.answer},
        lambda: f"{outcome_screen(shown.outcome, store=None)}\n\n{demo_screen(shown)}",
    )


# -- what several commands do --------------------------------------------------------------------------------


def _recipe(options: Options) -> Recipe:
    """The recipe; notes whether this process follows another that was started with it, which then prints."""
    recipe = api.as_recipe(options.recipe, overrides=_overrides(options))
    options.follows = not api.leads(recipe)
    return recipe


def _overrides(options: Options) -> list[str]:
    """`--set` and `--sample`, as words of the recipe."""
    overrides = list(options.overrides)
    if options.sample is not None:
        # Last, so that `--sample` wins over `--set sample=…`.
        overrides.append(f"sample={options.sample}")
    return overrides
