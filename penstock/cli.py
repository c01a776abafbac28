"""The verbs as commands: parses, calls `api`, prints; knows nothing else.

Only argparse is imported before a command is known, so that `--help` is instant. Progress goes to standard
error and results to standard output; with `--json` standard output has one JSON object and nothing else. Exit
codes: 0 done; 1 a defect of ours; 2 the user's input; 3 the data contract; 4 training failed; 130 interrupted
with a checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from penstock._version import __version__
from penstock.core import last_resort
from penstock.core.errors import Interrupted, PenstockError, RecipeError
from penstock.core.interrupts import interrupts
from penstock.core.redact import redacted, redacted_data, redacted_words
from penstock.terminal.streams import safe_streams

if TYPE_CHECKING:
    from penstock.core.events import Events

_ADDRESSES = 512 << 20
_LEAST_ADDRESSES = dict.fromkeys(
    ("demo", "encode", "evaluate", "init", "predict", "prepare", "resume", "run", "serve", "train"), 2 << 30
)
"""By command: below so many bytes of addresses its libraries end the process without a word."""

EXAMPLES = """\
examples:
  penstock demo                                   the whole journey on real data, in a minute
  penstock init people.csv --target income -o recipe.yaml
  penstock check recipe.yaml
  penstock run recipe.yaml --set train.epochs=3 --sample 1000
  penstock predict bundle-0123456789abcdef new.parquet -o answers.csv
  penstock serve bundle-0123456789abcdef --port 8080
"""


class _Parser(argparse.ArgumentParser):
    """argparse, with a "did you mean" for commands and options."""

    json = False
    """Whether `--json` is among the arguments: a mistake in the others is then told as JSON too."""

    def error(self, message: str) -> Any:
        import re

        from penstock.core.near import nearest

        found = re.search(r"invalid choice: '([^']*)'", message) or re.search(
            r"unrecognized arguments: (\S+)", message
        )
        known = [*(self._subparsers._group_actions[0].choices or {})] if self._subparsers else []
        known += list(self._option_string_actions)
        near = nearest(found[1].split("=")[0], known) if found else []
        hint = f" Did you mean {near[0]}?" if near else ""
        if found and "invalid choice" in message and self._subparsers:
            message = f"there is no command {found[1]!r}."
        said = redacted(f"{message.rstrip('.')}.{hint} See `{self.prog} --help`.")
        if self.json:
            _print_error("UsageError", said)
        self.exit(2, f"penstock: {said}\n")


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = _Parser(
        prog="penstock",
        description="Deep learning on big data: from raw files in a lake to a live, trusted model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"penstock {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, handler: Callable[..., int], help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help)
        made.set_defaults(handler=handler)
        made.add_argument(
            "--json", action="store_true", help="print one JSON object and nothing else on standard output"
        )
        made.add_argument(
            "--store",
            metavar="URL",
            help="a folder or bucket for datasets, runs and bundles (default: the recipe's, or ./store)",
        )
        return made

    def on_recipe(name: str, handler: Callable[..., int], help: str) -> argparse.ArgumentParser:
        made = command(name, handler, help)
        made.add_argument("recipe", metavar="RECIPE", help="a recipe (.yaml, .toml, .json)")
        made.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="A.B=YAML",
            dest="overrides",
            help="override a word of the recipe; may be given often",
        )
        made.add_argument(
            "--sample", type=int, metavar="N", help="use N rows only, chosen by the hash of their ids"
        )
        return made

    def on_bundle(name: str, handler: Callable[..., int], help: str) -> argparse.ArgumentParser:
        made = command(name, handler, help)
        made.add_argument("bundle", metavar="BUNDLE", help="bundle-<id>, or a bundle's folder")
        made.add_argument("--trust", action="store_true", help="run code that came with the bundle")
        return made

    made = command("init", _init, "look at data and write a commented recipe for it")
    made.add_argument("source", metavar="SOURCE", help="a file, folder, glob or URL")
    made.add_argument("--target", metavar="COLUMN", help="the column to predict")
    made.add_argument(
        "-o", "--output", metavar="FILE", help="where to write the recipe (default: standard output)"
    )
    made.add_argument(
        "--rows", type=int, default=20_000, metavar="N", help="how many rows to look at (default: 20000)"
    )
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="WORD=YAML",
        dest="overrides",
        help="a reading option of the source, such as header=false",
    )
    on_recipe("check", _check, "find every mistake of a recipe at once")
    on_recipe("plan", _plan, "tell what would run and what is done already")
    on_recipe("prepare", _prepare, "read, validate, clean and split the data into a dataset version")
    on_recipe(
        "encode",
        _encode,
        "prepare if need be, and write the rows as arrays that training and `penstock.Loader` read",
    )
    for name, handler, what in (
        ("train", _train, "prepare if need be, and train"),
        ("run", _run, "all stages: prepare, encode, train, pack, evaluate"),
    ):
        made = on_recipe(name, handler, what)
        made.add_argument(
            "--fresh", action="store_true", help="begin a new run, also where an interrupted one could go on"
        )
    made = command("resume", _resume, "go on with an interrupted run")
    made.add_argument("run", metavar="RUN")
    made.add_argument(
        "--trust",
        action="store_true",
        help="run the code that the run's recipe names, and reach the machines it names",
    )
    made = on_recipe("launch", _launch, "print what a scheduler needs to run a recipe on its machines")
    made.add_argument(
        "--print",
        choices=["kubernetes", "slurm"],
        required=True,
        dest="scheduler",
        help="a Kubernetes manifest, or a batch script for Slurm",
    )
    made.add_argument("--image", help="the container image, with Penstock in it (Kubernetes)")
    made.add_argument(
        "--processes", type=int, metavar="N", help="how many processes (default: the launcher's, else 1)"
    )
    made.add_argument("--gpus", type=int, choices=[0, 1], help="accelerators for each process")
    made.add_argument(
        "--claim",
        metavar="NAME",
        help="the volume claim, to be mounted by all, with the data and the store (Kubernetes)",
    )
    made.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="NAME",
        dest="secrets",
        help="a Secret whose keys become environment variables (Kubernetes); may be given often",
    )
    made.add_argument("--hours", type=int, metavar="N", help="how long it may take at most (default: 24)")
    made = on_bundle("evaluate", _evaluate, "measure a bundle on the test split")
    made.add_argument("--dataset", metavar="NAME@ID", help="another dataset version than the bundle's own")
    made = on_bundle("predict", _predict, "answer every row of a file")
    made.add_argument("input", metavar="INPUT", help="a file, folder, glob or URL with the rows")
    made.add_argument(
        "-o",
        "--output",
        metavar="OUTPUT",
        required=True,
        help="where to write the answers: .parquet, .csv or .jsonl",
    )
    made.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="COLUMN",
        help="carry this column along; may be given often",
    )
    made.add_argument(
        "--every",
        action="store_true",
        help="where rows are steps of series: forecast from every step, not from the latest window alone",
    )
    made.add_argument(
        "--memory",
        metavar="AMOUNT",
        help="the ceiling of memory, such as 1GiB (default: that of the bundle's recipe)",
    )
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="WORD=YAML",
        dest="overrides",
        help="a reading option of the input, such as header=false",
    )
    made = on_bundle("serve", _serve, "answer over HTTP")
    made.add_argument("--host", help="address to bind (default: 127.0.0.1)")
    made.add_argument("--port", type=int, help="port to bind; 0 takes a free one (default: 8080)")
    made.add_argument("--max-batch", type=int, metavar="ROWS")
    made.add_argument("--wait-ms", type=float, metavar="MS")
    made.add_argument(
        "--token-env",
        metavar="NAME",
        help="the environment variable with the bearer token that requests must bring",
    )
    made = command("list", _list, "name what is in a store")
    made.add_argument("shelf", choices=["datasets", "runs", "bundles", "feeds", "reports"])
    made = command("show", _show, "all that is known of a dataset, run or bundle")
    made.add_argument("reference", metavar="REFERENCE")
    made = command("schema", _schema, "the JSON Schema of a recipe, for editors")
    made.add_argument("-o", "--output", metavar="FILE")
    made = command("demo", _demo, "the whole journey on real data, ending with a served answer")
    made.add_argument(
        "--folder",
        default="demo",
        metavar="FOLDER",
        help="where to put the lake, the recipe and the store (default: demo)",
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    with contextlib.suppress(AttributeError, ValueError):  # a closed or replaced stream
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    given = sys.argv[1:] if arguments is None else arguments
    redacted_words(given)  # what they have of credentials is blanked from now on
    _Parser.json = "--json" in given
    with interrupts.installed(is_command=True), safe_streams() as streams:
        try:
            return streams.ended(_run_command(arguments))
        except SystemExit as done:  # --help, or a mistake that has been told
            raise SystemExit(streams.ended(int(done.code or 0))) from None


def _run_command(arguments: Sequence[str] | None) -> int:
    options = argparse.Namespace(json=_Parser.json)
    try:
        options = parser().parse_args(arguments)
        if (refusal := last_resort.starved(_LEAST_ADDRESSES.get(options.command, _ADDRESSES))) is not None:
            raise refusal
        return int(options.handler(options))
    except PenstockError as error:
        if interrupts.is_stopping and not isinstance(error, Interrupted):
            return _stopped(options, error.message)
        return _failed(options, error)
    except KeyboardInterrupt:
        return _stopped(options)
    except Exception as error:  # noqa: BLE001
        # The last resort: told in a sentence, its traceback kept in a file.
        if interrupts.is_stopping:  # what was interrupted answered with an error of its own
            return _stopped(options)
        return _last_resort(options, error)


def _last_resort(options: argparse.Namespace, error: Exception) -> int:
    told = last_resort.tell(error)
    if getattr(options, "follows", False) and told.reference is None:
        return told.exit_code
    if options.json:
        _print_error(told.name, told.message, reference=told.reference)
    print(f"penstock: {told.message}", file=sys.stderr)
    return told.exit_code


def _stopped(options: argparse.Namespace, trouble: str = "") -> int:
    """A signal has ended the command. `trouble`: what else was told on its way out."""
    return _failed(options, Interrupted(f"{trouble} {interrupts.sentence}".strip()))


def _failed(options: argparse.Namespace, error: PenstockError) -> int:
    if error.exit_code == 1:
        return _last_resort(options, error)
    if getattr(options, "follows", False):
        return error.exit_code
    if options.json:
        _print_error(
            type(error).__name__,
            error.message,
            [{"path": list(p.path), "text": p.text} for p in getattr(error, "problems", ())],
        )
    print(f"penstock: {error.message}", file=sys.stderr)
    return error.exit_code


def _print_error(
    name: str, message: str, problems: Sequence[dict[str, Any]] = (), *, reference: str | None = None
) -> None:
    told = {"error": name, "message": message, "problems": list(problems)}
    if reference is not None:
        told["reference"] = reference
    print(json.dumps(told, ensure_ascii=False))


def _events(options: argparse.Namespace) -> Events:
    from penstock.core.events import Events
    from penstock.terminal.console import Console

    if getattr(options, "follows", False):
        return Events()
    return Events(Console(sys.stderr, results=options.json))


def _recipe(options: argparse.Namespace) -> Any:
    """The recipe; notes whether this process follows another that was started with it, which then prints."""
    from penstock import api

    recipe = api.as_recipe(options.recipe, _overrides(options))
    options.follows = not api.leads(recipe)
    return recipe


def _overrides(options: argparse.Namespace) -> list[str]:
    given = list(options.overrides)
    if getattr(options, "sample", None) is not None:
        given.append(f"sample={options.sample}")
    return given


def _print(options: argparse.Namespace, data: Any, text: Callable[[], str]) -> None:
    if getattr(options, "follows", False):
        return
    print(
        json.dumps(redacted_data(data, by_name=False), ensure_ascii=False, default=str)
        if options.json
        else text()
    )


def _source(path: str, overrides: Sequence[str]) -> dict[str, Any]:
    """A source with reading options from `--set word=YAML`; a path given on the command line starts from
    here.
    """
    from penstock.recipe.read import parse_value

    declaration: dict[str, Any] = {"path": path if "://" in path else os.path.abspath(path)}
    for override in overrides:
        word, equals, value = override.partition("=")
        if not equals:
            raise RecipeError(f"--set takes WORD=YAML; found {override!r}")
        declaration[word] = parse_value(value, where=f"--set {override}")
    return declaration


def _init(options: argparse.Namespace) -> int:
    from penstock import api

    declaration = _source(options.source, options.overrides)
    if "://" not in options.source:
        start = (
            os.path.dirname(os.path.abspath(options.output.removeprefix("file://")))
            if options.output
            else os.getcwd()
        )
        shown = os.path.relpath(declaration["path"], start)
    else:
        shown = options.source
    text = api.init(declaration, target=options.target, rows=options.rows, shown_path=shown)
    if options.output:
        from pathlib import Path

        from penstock.core.regular import local_output
        from penstock.core.store import atomic_write

        atomic_write(Path(local_output(options.output)), text, option="-o")
        _print(
            options,
            {"recipe": options.output},
            lambda: f"wrote {options.output}. Read it, then: penstock run {options.output}",
        )
    else:
        _print(options, {"text": text}, lambda: text)
    return 0


def _check(options: argparse.Namespace) -> int:
    from penstock import api

    recipe = api.check(options.recipe, overrides=_overrides(options))
    _print(
        options,
        {"ok": True, "name": recipe.name, "fingerprint": recipe.fingerprint()},
        lambda: f"{options.recipe} holds: {len(recipe.inputs)} inputs, {len(recipe.targets)} targets.",
    )
    return 0


def _plan(options: argparse.Namespace) -> int:
    from penstock import api
    from penstock.terminal.screens import plan_screen

    found = api.plan(options.recipe, overrides=_overrides(options), store=options.store)
    _print(options, found, lambda: plan_screen(found))
    return 0


def _prepare(options: argparse.Namespace) -> int:
    from penstock import api
    from penstock.terminal.screens import rows_screen

    dataset = api.prepare(_recipe(options), store=options.store, events=_events(options))
    data = {"dataset": dataset.reference, "rows": dataset.counts, "path": str(dataset.path)}
    _print(
        options,
        data,
        lambda: f"{rows_screen(dataset.counts)}\ndataset  {dataset.reference}\n         {dataset.path}",
    )
    return 0


def _encode(options: argparse.Namespace) -> int:
    from penstock import api
    from penstock.terminal.screens import feed_screen

    feed = api.encode(_recipe(options), store=options.store, events=_events(options))
    data = {
        "feed": feed.id,
        "dataset": feed.dataset,
        "rows": feed.rows,
        "samples": feed.samples,
        "quarantined": feed.quarantined_by_split,
        "path": str(feed.path),
    }
    _print(options, data, lambda: feed_screen(feed))
    return 0


def _train(options: argparse.Namespace) -> int:
    from penstock import api
    from penstock.terminal.screens import facts_screen

    run = api.train(_recipe(options), store=options.store, events=_events(options), fresh=options.fresh)
    _print(
        options,
        {"run": run.id, "path": str(run.path), "training": run.summary},
        lambda: facts_screen({"run": run.id, "folder": str(run.path), **(run.summary or {})}),
    )
    return 0


def _run(options: argparse.Namespace) -> int:
    from penstock import api
    from penstock.terminal.screens import outcome_screen

    outcome = api.run(_recipe(options), store=options.store, events=_events(options), fresh=options.fresh)
    _print(options, outcome.declared(), lambda: outcome_screen(outcome, store=options.store))
    return 0


def _launch(options: argparse.Namespace) -> int:
    from penstock import api

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
    _print(options, {"text": text}, lambda: text.rstrip("\n"))
    return 0


def _resume(options: argparse.Namespace) -> int:
    from penstock import api
    from penstock.terminal.screens import outcome_screen

    options.follows = not api.leads(api.recipe_of(options.run, store=options.store, trust=options.trust))
    outcome = api.resume(options.run, store=options.store, trust=options.trust, events=_events(options))
    _print(options, outcome.declared(), lambda: outcome_screen(outcome, store=options.store))
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from penstock import api
    from penstock.terminal.screens import report_screen

    result = api.evaluate(
        options.bundle,
        dataset=options.dataset,
        store=options.store,
        trust=options.trust,
        events=_events(options),
    )
    _print(options, result, lambda: report_screen(result))
    return 0


def _predict(options: argparse.Namespace) -> int:
    from penstock import api
    from penstock.core.regular import lasting_output
    from penstock.terminal.screens import facts_screen

    result = api.predict(
        options.bundle,
        _source(options.input, options.overrides),
        lasting_output(options.output),
        keep=options.keep,
        every=options.every,
        memory=options.memory,
        store=options.store,
        trust=options.trust,
        events=_events(options),
    )
    _print(options, result, lambda: facts_screen(result))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from penstock import api

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
    )
    return 0


def _list(options: argparse.Namespace) -> int:
    from penstock import api
    from penstock.core.remote import heard
    from penstock.terminal.screens import list_screen

    with heard(_events(options)):
        rows = api.list_artefacts(options.shelf, store=options.store)
    _print(options, rows, lambda: list_screen(options.shelf, rows, options.store or "./store"))
    return 0


def _show(options: argparse.Namespace) -> int:
    from penstock import api
    from penstock.core.remote import heard
    from penstock.terminal.screens import show_screen

    with heard(_events(options)):
        found = api.show(options.reference, store=options.store)
    _print(options, found, lambda: show_screen(found))
    return 0


def _schema(options: argparse.Namespace) -> int:
    from penstock import api

    text = json.dumps(api.schema(), indent=1, ensure_ascii=False)
    if options.output:
        from pathlib import Path

        from penstock.core.regular import local_output
        from penstock.core.store import atomic_write

        atomic_write(Path(local_output(options.output)), text + "\n", option="-o")
    else:
        print(text)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from pathlib import Path

    from penstock.pipeline.demo import demo
    from penstock.terminal.screens import demo_screen, outcome_screen

    shown = demo(Path(options.folder), _events(options))
    _print(
        options,
        {**shown.outcome.declared(), "answer": shown.answer},
        lambda: f"{outcome_screen(shown.outcome, store=None)}\n\n{demo_screen(shown)}",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
