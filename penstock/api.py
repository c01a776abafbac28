"""The verbs, for Python and for the command line alike: same names, same words, same defaults.

A verb takes what a user has in hand (a recipe's path, a mapping, a `Recipe`; a bundle's reference) and
returns the noun it made. Results are printed by the command line alone. Progress is shown on a terminal and
in a notebook, unless `quiet=True` or `events=` says who listens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from penstock.bundle.bundle import Bundle
from penstock.bundle.typing import respelt
from penstock.contracts.foreign import no_foreign_code
from penstock.contracts.part import flatten
from penstock.core.errors import RecipeError, UserError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.encode.feed import Feed
from penstock.formats.in_hand import is_in_hand
from penstock.pages import profile_page
from penstock.pipeline.answers import Description, Plan, Predictions, Report
from penstock.pipeline.asked_profile import as_source, compared, profiled, write_page
from penstock.pipeline.asked_source import asked_source
from penstock.pipeline.check_data import check_data, check_version, warn_of_leaks
from penstock.pipeline.check_together import with_data
from penstock.pipeline.facts import facts_of
from penstock.pipeline.feeds import feed_of
from penstock.pipeline.first_look import Draft, draft_recipe, name_of
from penstock.pipeline.governance import audit as audit  # verbs like the others
from penstock.pipeline.governance import forget as forget
from penstock.pipeline.label_report import labels as labels  # a verb like the others
from penstock.pipeline.listing import LISTED, SHELVES, listed, listed_runs
from penstock.pipeline.manifests import rendered
from penstock.pipeline.open_loader import Loader as Loader  # a verb like the others
from penstock.pipeline.outcome import Outcome
from penstock.pipeline.plan import make_plan
from penstock.pipeline.predict import Asked, predict_file
from penstock.pipeline.profiles import Profile
from penstock.pipeline.quarantined import replay as replay_rows
from penstock.pipeline.references import whole_reference
from penstock.pipeline.reports import find_report, later_report, write_report
from penstock.pipeline.resuming import recipe_to_resume, resume_run
from penstock.pipeline.stages import Pipeline
from penstock.pipeline.versions import lineage as lineage  # these five are verbs, too
from penstock.pipeline.versions import subset as subset
from penstock.pipeline.versions import tag as tag
from penstock.pipeline.versions import tags as tags
from penstock.pipeline.versions import untag as untag
from penstock.prepare.contract_only import ContractReport, judge_contract
from penstock.prepare.dataset import Dataset
from penstock.prepare.tags import with_tags
from penstock.prepare.versions import open_version
from penstock.recipe.names import name_problems
from penstock.recipe.schema import Recipe, Serve, load_recipe
from penstock.recipe.stores import as_store, store_of
from penstock.run import Run
from penstock.terminal.notebook import python_events

RecipeLike = Recipe | str | Path | Mapping[str, Any]


def as_recipe(recipe: RecipeLike, *, overrides: Sequence[str] = ()) -> Recipe:
    """A `Recipe` from a recipe, a path or a mapping, with overrides (`a.b=YAML`)
    applied.
    """
    if isinstance(recipe, Recipe):
        if overrides:
            # An override must not bring code into a recipe that was read without trust.
            with nullcontext() if recipe.is_given else no_foreign_code():
                return load_recipe(recipe.to_dict(), overrides, base=recipe.base)
        return recipe
    if isinstance(recipe, Draft):
        return as_recipe(recipe.recipe(), overrides=overrides)
    return load_recipe(recipe, overrides)


def init(
    source: str | Path | Mapping[str, Any] | Any,
    *,
    target: str | None = None,
    rows: int = 20_000,
    name: str | None = None,
    shown_path: str | None = None,
) -> Draft:
    """Look at the data, write a commented recipe for it, and rehearse that on what was looked at.

    Args:
        source: a path, folder, glob or URL; a `source:` mapping with its reading options; or a pandas or
            Polars frame or an Arrow table, whose rows are kept as a file.
        target: the column to predict; the likeliest unless given, and the recipe says so.
        rows: how many rows to look at; fewer where they are wide, which the recipe's first line says.
        name: the recipe's name; the source's unless given.
        shown_path: how the recipe is to name the source, if not as given (paths in a recipe start from its
            folder).

    Returns:
        The recipe as YAML, with the reason for each choice beside it; `problems`, `warnings` and `to_dict()`
        tell what was seen. `run`, `check` and the others take it as a recipe.

    Raises:
        SourceError: nothing can be read there.
        RecipeError: there is no such column.
    """
    declaration = as_source(source)
    # `train`: a source may name its files by split instead of by `path`.
    words = ("path", "train", "table")
    named = str(next((declaration[w] for w in words if declaration.get(w)), "unnamed"))
    return draft_recipe(
        declaration,
        target=target,
        rows=rows,
        name=name or ("frame" if is_in_hand(source) else "") or name_of(named),
        shown_path=shown_path,
    )


def profile(
    source: str | Path | Mapping[str, Any] | Recipe | Dataset | Any,
    *,
    target: str | None = None,
    html: str | Path | None = None,
    store: str | Path | Store | None = None,
    events: Events | None = None,
) -> Profile:
    """Measure all rows in one stream, within a ceiling of memory, and say what is wrong with them.

    Args:
        source: a path, folder, glob or URL; a mapping with a source's words; a frame or an Arrow table; a
            recipe, its path or its mapping, whose source is measured; a `Dataset`, or `NAME@ID`.
        target: the column to predict: what gives it away is looked for. Of a recipe its first target, of
            others the likeliest, unless given.
        html: where to write the profile as a page for a browser.

    Returns:
        `findings`, the worst first, and `to_dict()` with all that was measured.

    Raises:
        SourceError: nothing can be read there.
        RecipeError: there is no such column.
        StoreError: there is no such dataset.
    """
    heard = events or Events()
    measured = profiled(source, target=target, store=as_store(store), events=heard)
    if html is not None:
        write_page(profile_page(measured.to_dict()), html)
    return measured


def diff(
    a: Any,
    b: Any,
    *,
    key: Sequence[str] = (),
    store: str | Path | Store | None = None,
    events: Events | None = None,
) -> dict[str, Any]:
    """Hold two profiles against each other: columns that came and went, statistics that moved, drift,
    findings that are new or gone.

    Args:
        a: a `Profile`, the path of one (`profile -o`), or whatever `profile` takes.
        b: likewise.
        key: of two datasets the columns by which a row is known: rows added, removed and changed are then
            counted as well (`keyed`).

    Returns:
        Plain data: `rows`, `columns`, `changed` (what drifted most first), `findings`.

    Raises:
        UserError: a `key` is given, and the two are no datasets, or lack a column of it.
    """
    return compared(a, b, key=key, store=as_store(store), events=events or Events())


def check(
    recipe: RecipeLike,
    *,
    overrides: Sequence[str] = (),
    data: bool = True,
    store: str | Path | Store | None = None,
    events: Events | None = None,
) -> Recipe:
    """Find every mistake at once: words, values, and (with `data`) all that rows drawn from the source can
    tell.

    With `data`, some thousand rows are prepared and encoded in a temporary folder, which finds columns that
    are not there, a `positive` that no row has, a text column declared as a number.

    Args:
        store: where a `dataset` is that the recipe learns from; the recipe's own unless given.
        events: hears what is no mistake and yet wants a look.

    Raises:
        RecipeError: every mistake, each with its path.
        SourceError: the source cannot be read.
    """
    # Mistakes of the words hide none that the data tells.
    with with_data(recipe, overrides, events or Events()) if data else nullcontext():
        checked = as_recipe(recipe, overrides=overrides)
    if data and checked.dataset is not None:
        check_version(checked, store_of(checked, store), events or Events())
    elif data:
        check_data(checked, events or Events())
    elif own := name_problems(checked):
        raise RecipeError.of(own, where=f"the recipe {checked.name!r}")
    return checked


def check_contract(
    recipe: RecipeLike,
    *,
    overrides: Sequence[str] = (),
    store: str | Path | Store | None = None,
    events: Events | None = None,
) -> ContractReport:
    """Judge the rules of `expect` and `expect_table` on all rows; no dataset is written.

    Raises:
        RecipeError: every mistake, each with its path.
        SourceError: a source cannot be read.
    """
    checked = as_recipe(recipe, overrides=overrides)
    warn_of_leaks(checked, events or Events())
    return judge_contract(checked, store_of(checked, store), events or Events())


def plan(
    recipe: RecipeLike,
    *,
    overrides: Sequence[str] = (),
    store: str | Path | Store | None = None,
) -> Plan:
    """What `run` would do: each stage, whether it is done already, and the rows, bytes,
    parameters, memory and time expected.
    """
    # Without data: a plan must not wait for a slow source.
    chosen = check(recipe, overrides=overrides, data=False)
    return Plan(make_plan(chosen, store_of(chosen, store)))


def prepare(
    recipe: RecipeLike,
    *,
    overrides: Sequence[str] = (),
    store: str | Path | Store | None = None,
    events: Events | None = None,
    quiet: bool = False,
) -> Dataset:
    """Read, validate, clean and split the source into a dataset version; an equal one that is there is
    returned as it is.
    """
    outcome = _until(
        "prepare", recipe, overrides, store, python_events(events, quiet=quiet)
    )
    assert outcome.dataset is not None
    return outcome.dataset


def encode(
    data: Dataset | RecipeLike,
    *,
    inputs: Mapping[str, Any] | None = None,
    targets: Mapping[str, Any] | None = None,
    weight: str | None = None,
    weights: str | None = None,
    mix: Mapping[str, Any] | None = None,
    like: Feed | None = None,
    overrides: Sequence[str] = (),
    store: str | Path | Store | None = None,
    events: Events | None = None,
    quiet: bool = False,
) -> Feed:
    """Rows as arrays, ready to be loaded: fitted to the training split and written as shards.

    An equal feed that is there is returned as it is.

    Args:
        data: a dataset, with `inputs` and perhaps `targets` as a recipe says them; or a recipe, which is
            prepared if need be.
        weight: the column of how much each row counts; for a dataset.
        weights: a column that rows are to be drawn by (`Loader(…, order={'weights': …})`), and
        mix: `{by: column, weights: {value: share}}`, likewise; these columns are stored with the rows. For a
            dataset; a recipe has `train.order`.
        like: a feed whose features are taken as they were fitted there, so that rows of both can be mixed;
            for a dataset.
        store: where the feed goes, if not into the store of the dataset or of the recipe.

    Raises:
        RecipeError, SourceError, StoreError: the input is at fault.
        ContractError: the data holds nothing to learn.
    """
    events = python_events(events, quiet=quiet)
    if isinstance(data, Dataset):
        if overrides:
            raise UserError("Overrides change a recipe. A dataset has none.")
        order = {"weights": weights, "mix": mix}
        return feed_of(
            data,
            inputs=inputs,
            targets=targets,
            weight=weight,
            order=order,
            like=like,
            store=store,
            events=events,
        )
    recipe = as_recipe(data, overrides=overrides)
    # Two places for one word would leave unclear which holds.
    if weights or mix:
        raise UserError(
            "A recipe sets its order itself. Put `weights` and `mix` under"
            " `train.order`, or pass a dataset."
        )
    return feed_of(
        recipe,
        inputs=inputs,
        targets=targets,
        weight=weight,
        like=like,
        store=store_of(recipe, store),
        events=events,
    )


def train(
    recipe: RecipeLike,
    *,
    overrides: Sequence[str] = (),
    store: str | Path | Store | None = None,
    events: Events | None = None,
    quiet: bool = False,
    fresh: bool = False,
) -> Run:
    """Prepare if need be, and train.

    An interrupted run of the same recipe and data goes on, unless `fresh`.
    """
    log = python_events(events, quiet=quiet)
    outcome = _until("train", recipe, overrides, store, log, fresh=fresh)
    assert outcome.run is not None
    return outcome.run


def run(
    recipe: RecipeLike,
    *,
    overrides: Sequence[str] = (),
    store: str | Path | Store | None = None,
    events: Events | None = None,
    quiet: bool = False,
    fresh: bool = False,
) -> Outcome:
    """All stages: prepare, encode, train, pack, evaluate. What is done already is not done again.

    Args:
        fresh: begin a new run even where an interrupted one of the same recipe and data could go on.

    Raises:
        RecipeError, SourceError, StoreError: the input is at fault.
        ContractError: the data breaks the recipe's `expect`, or holds nothing to learn.
        TrainingError: training failed.
    """
    log = python_events(events, quiet=quiet)
    return _until("evaluate", recipe, overrides, store, log, fresh=fresh)


def leads(recipe: Recipe) -> bool:
    """Whether this process leads: of several that were started together (`launcher:
    env`) only rank 0 prints; the others take part.
    """
    return recipe.launcher.here().rank == 0


def recipe_of(
    run: str, *, store: str | Path | Store | None = None, trust: bool = False
) -> Recipe:
    """What a run was declared with, to go on with it.

    Args:
        trust: it may bring code of its own, and reach other machines. What this user began here, with the
            very same code, needs none.

    Raises:
        UserError: it asks for more than its user has allowed.
    """
    return recipe_to_resume(Run.open(as_store(store), reference=run), trust)


def launch(
    recipe: RecipeLike,
    *,
    scheduler: str,
    overrides: Sequence[str] = (),
    store: str | None = None,
    **options: Any,
) -> str:
    """What a scheduler must be given to run a recipe on its machines, as text.

    Args:
        scheduler: `kubernetes` (a manifest) or `slurm` (a batch script).
        store: where every machine sees the store.
        options: `image`, `processes`, `gpus`, `claim`, `secrets`, `hours`; see
            `penstock.pipeline.manifests.Wanted`.

    Raises:
        UserError: the recipe or the options do not say enough.
    """
    chosen = check(recipe, overrides=overrides, data=False)
    text: str = rendered(chosen, scheduler, store=store, **options)
    return text


def _until(
    stage: str,
    recipe: RecipeLike,
    overrides: Sequence[str],
    store: str | Path | Store | None,
    events: Events,
    *,
    fresh: bool = False,
) -> Outcome:
    chosen = as_recipe(recipe, overrides=overrides)
    return Pipeline(chosen, store_of(chosen, store), events, fresh=fresh).until(stage)


def resume(
    reference: str,
    *,
    store: str | Path | Store | None = None,
    trust: bool = False,
    events: Events | None = None,
    quiet: bool = False,
) -> Outcome:
    """Go on with an interrupted run from its last checkpoint, then pack and evaluate; of one whose training
    has ended, what is left of that.

    Args:
        trust: run the code that the run's recipe names, and reach the machines it names. Not needed for a run
            that this user began on this machine, as long as its recipe and its code are what they were.

    Raises:
        UserError: there is no such run, nothing of it is left to do, or it asks for more than its user has
            allowed.
    """
    run = Run.open(as_store(store), reference=reference)
    return resume_run(run, trust=trust, events=python_events(events, quiet=quiet))


def evaluate(
    bundle: str | Path | Bundle,
    *,
    source: str | Path | Mapping[str, Any] | None = None,
    dataset: str | None = None,
    store: str | Path | Store | None = None,
    trust: bool = False,
    events: Events | None = None,
    quiet: bool = False,
) -> Report:
    """Measure a bundle on the test split of the dataset it was made from, or of another version; or on
    labelled rows that came later.

    Args:
        bundle: a bundle, its reference, or its folder.
        source: files with the columns that the bundle reads, and the truth: a path, folder, glob or URL, or a
            `source:` mapping with its reading options.
        dataset: another dataset, `name@id`, or a subset, with the columns that the bundle needs.
    """
    where = as_store(store)
    opened = (
        bundle
        if isinstance(bundle, Bundle)
        else Bundle.open(bundle, store=where, trust=trust)
    )
    recipe = opened.recipe(trust=trust)
    log = python_events(events, quiet=quiet)
    if source is not None:
        if dataset is not None:
            raise UserError(
                "rows to be measured come from `source` or from `dataset`; give one of them"
            )
        rows = asked_source(source, opened)
        return Report(later_report(recipe, opened, rows, where, log))
    version = open_version(where, dataset or opened.dataset)
    if lost := respelt(
        opened.learnt, version.schema, opened.encoding.columns(targets=True)
    ):
        types = ", ".join(f"{name}: text" for name in lost)
        log.warn(
            f"{', '.join(lost)}: {opened.reference} was trained on text, but"
            f" {version.reference} has another type, so the original spelling is lost."
            f" Prepare the data with `source: {{types: {{{types}}}}}`.",
            columns=lost,
        )
    # Reports follow from bundle, dataset and recipe, so an equal one is taken.
    report = find_report(recipe, opened, version, where)
    return Report(report or write_report(recipe, opened, version, where, log))


def predict(
    bundle: str | Path | Bundle,
    *,
    source: str | Path | Mapping[str, Any],
    output: str | Path | None = None,
    keep: Sequence[str] = (),
    store: str | Path | Store | None = None,
    trust: bool = False,
    events: Events | None = None,
    quiet: bool = False,
    every: bool = False,
    memory: str | int | None = None,
    spreadsheet: bool = False,
) -> Predictions:
    """Answer every row of a source, in bounded memory.

    Where the bundle learnt from samples of series, rows may be steps: each series is then forecast from its
    latest whole window. Where it learnt from files that are rows, a picture, a text, or a folder of them is
    read likewise.

    Args:
        bundle: a bundle, its reference, or its folder.
        source: a path, folder, glob or URL, or a `source:` mapping with its reading options.
        output: a file or URL whose ending says the format: `.parquet`, `.csv`, `.jsonl`. None: the first rows
            alone are answered, and returned as `first`.
        keep: columns of the source to carry along, beside the recipe's `keep`; `all` for every one.
        every: where rows are steps, forecast from every step that has a whole window behind it.
        memory: the ceiling of the process tree, such as `1GiB`; that of the bundle's recipe unless given.
        spreadsheet: in CSV, put an apostrophe before texts that begin like a formula.

    Returns:
        `rows` read, `predicted`, `refused` (rows with a value the bundle cannot take: answered with null and
        the reason in the column `refused`), `unreadable` (rows that could not be read at all, written beside
        the output).

    Raises:
        RequestError: the source lacks a column that the bundle needs.
    """
    opened = (
        bundle
        if isinstance(bundle, Bundle)
        else Bundle.open(bundle, store=as_store(store), trust=trust)
    )
    written = None if output is None else str(output).removeprefix("file://")
    counts = predict_file(
        opened,
        asked_source(source, opened),
        Asked(written, tuple(keep), every, spreadsheet),
        events=python_events(events, quiet=quiet),
        memory=memory,
    )
    return Predictions(counts)


def serve(
    bundle: str | Path | Bundle,
    *,
    store: str | Path | Store | None = None,
    trust: bool = False,
    events: Events | None = None,
    **options: Any,
) -> None:
    """Answer over HTTP until stopped.

    Args:
        bundle: a bundle, its reference, or its folder.
        options: words of the recipe's `serve` section (`port`, `host`, `max_batch`, …), over those the bundle
            brings.
    """
    # Late: only this verb needs the server's packages.
    from penstock.serve.server import serve as serve_forever

    opened = (
        bundle
        if isinstance(bundle, Bundle)
        else Bundle.open(bundle, store=as_store(store), trust=trust)
    )
    # None is an option that was not given, and must not hide what the bundle brings.
    declared = {
        **opened.serve_options,
        **{k: v for k, v in options.items() if v is not None},
    }
    unknown = sorted(set(declared) - set(Serve.field_names()))
    if unknown:
        raise RecipeError(
            f"`serve` has no option {', '.join(unknown)}. It has"
            f" {', '.join(Serve.field_names())}"
        )
    # Unknown words were refused above by name; here only values can be wrong.
    try:
        chosen = Serve.model_validate(declared)
    except ValidationError as error:
        raise RecipeError.of(flatten(error, declared), where="how to serve") from None
    serve_forever(opened, chosen, events or Events())


def list_artefacts(
    shelf: str | None = None, *, store: str | Path | Store | None = None
) -> list[Description]:
    """What is in a store.

    Args:
        shelf: `datasets`, `runs`, `bundles`, `feeds` or `reports`; all of them unless given, and each record
            then has its `shelf` as well.

    Returns:
        One record an artefact, newest first, with `reference`, `created` and what matters of it; and after
        them one with `reference` and `problem` for each that cannot be read, whose neighbours are listed all
        the same.
    """
    where = as_store(store)
    if shelf is None:
        return [
            Description({"shelf": each, **facts.to_dict()})
            for each in LISTED
            for facts in list_artefacts(each, store=where)
        ]
    if shelf == "runs":
        return [Description(facts) for facts in listed_runs(where)]
    if shelf not in SHELVES:
        raise UserError(f"A store has no shelf {shelf!r}. It has {', '.join(LISTED)}.")
    rows = listed(where, shelf)
    if shelf == "datasets":
        rows = with_tags(rows, where)
    return [Description(facts) for facts in rows]


def show(reference: str, *, store: str | Path | Store | None = None) -> Description:
    """All that is known of a dataset (`name@id`), run (`run-…`), bundle (`bundle-…`), report or feed (their
    ids as listed), or of the newest run of a recipe (its name). The beginning of an id is enough where no
    other begins so.
    """
    where = as_store(store)
    return Description(facts_of(whole_reference(reference, where), where))


def dataset_called(reference: str, *, store: str | Path | Store | None = None) -> Dataset:
    """The dataset `name@id` or `name@tag`, or the newest called `name`.

    Raises:
        StoreError: it is not there.
    """
    return Dataset.open(as_store(store), reference=reference)


def replay(
    reference: str,
    fixed: str | Path,
    *,
    store: str | Path | Store | None = None,
    events: Events | None = None,
) -> Dataset:
    """Put mended rows of a quarantine through the preparation of a dataset again: a new version, whose parent
    it is.

    Args:
        reference: the dataset, `name@id` or `name`.
        fixed: the rows, as `penstock quarantine show -o FILE` writes them, mended.

    Raises:
        UserError: the dataset cannot be made again from what it says of itself.
        SourceError: the rows cannot be read, or mend no row of the quarantine.
    """
    where = as_store(store)
    dataset = Dataset.open(where, reference=reference)
    return replay_rows(dataset, Path(fixed), where, events or Events(), base=Path.cwd())


def schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors."""
    document = Recipe.model_json_schema(by_alias=True)
    # `dataset` may stand in the place of `source`, which completes the recipe only once it is read.
    document.pop("required", None)
    document["oneOf"] = [{"required": ["source"]}, {"required": ["dataset"]}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **document,
        "title": "A recipe of Penstock",
    }
