"""Which commands and options there are: one function a command.

A command names the function in `commands` that runs it (`handler`) instead of importing it: all of Penstock
would be loaded to print `--help`.
"""

from __future__ import annotations

import argparse

from penstock._version import __version__
from penstock.cli.label_options import labels as _labels
from penstock.cli.shared_options import Commands, Parser
from penstock.cli.shared_options import bundle_command as _bundle_command
from penstock.cli.shared_options import explain as _explain
from penstock.cli.shared_options import fresh as _fresh
from penstock.cli.shared_options import plain_command as _command
from penstock.cli.shared_options import reading_options as _reading_options
from penstock.cli.shared_options import recipe_command as _recipe_command
from penstock.cli.store_grammar import store_commands

EXAMPLES = """\
examples:
  penstock demo                                   the whole journey on real data, in a minute
  penstock init people.csv --target income -o recipe.yaml
  penstock check recipe.yaml
  penstock run recipe.yaml --set train.epochs=3 --sample 1000
  penstock predict bundle-0123456789abcdef new.parquet -o answers.csv
  penstock serve bundle-0123456789abcdef --port 8080
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line; commands come in the order of a project's life, as `--help` lists them."""
    top = Parser(
        prog="penstock",
        description="Deep learning on big data: from raw files in a lake to a live, trusted model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"penstock {__version__}")
    commands = top.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    _init(commands)
    _profile(commands)
    _diff(commands)
    _labels(commands)
    _check(commands)
    _plan(commands)
    _prepare(commands)
    _encode(commands)
    _train(commands)
    _run(commands)
    _resume(commands)
    _launch(commands)
    _evaluate(commands)
    _predict(commands)
    _serve(commands)
    store_commands(commands)
    _schema(commands)
    _demo(commands)
    return top


# -- one function a command ----------------------------------------------------------------------------------


def _init(commands: Commands) -> None:
    command = _command(
        commands,
        "init",
        "look at data and write a commented recipe for it",
        handler="init",
    )
    command.add_argument("source", metavar="SOURCE", help="a file, folder, glob or URL")
    command.add_argument("--target", metavar="COLUMN", help="the column to predict")
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where to write the recipe (default: standard output)",
    )
    command.add_argument(
        "--force", action="store_true", help="replace a recipe that is there already"
    )
    command.add_argument(
        "--rows",
        type=int,
        default=20_000,
        metavar="N",
        help="how many rows to look at (default: 20000)",
    )
    _reading_options(command, "source")


def _profile(commands: Commands) -> None:
    command = _command(
        commands,
        "profile",
        "measure all rows of a source, a recipe's source or a dataset, and say what is wrong with them",
        handler="profile",
    )
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a file, folder, glob or URL; a recipe (.yaml, .toml, .json); or a dataset, NAME@ID",
    )
    command.add_argument("--target", metavar="COLUMN", help="the column to predict")
    command.add_argument(
        "--html", metavar="FILE", help="also write a page that a browser shows"
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="also write the profile as JSON, for `penstock diff`",
    )
    _reading_options(command, "source")


def _diff(commands: Commands) -> None:
    command = _command(
        commands,
        "diff",
        "compare two profiles, sources or datasets: columns, statistics, drift, findings",
        handler="diff",
    )
    what = "a profile (JSON of `profile -o`), or what `profile` takes"
    command.add_argument("a", metavar="A", help=what)
    command.add_argument("b", metavar="B", help=what)
    command.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="COLUMN",
        help="of two datasets: say which rows were added, removed or changed by this column; may be given"
        " often",
    )


def _check(commands: Commands) -> None:
    command = _recipe_command(
        commands, "check", "find every mistake of a recipe at once", handler="check"
    )
    command.add_argument(
        "--data",
        action="store_true",
        help="judge `expect` on all rows: each rule with its rows and examples; no dataset is written",
    )


def _plan(commands: Commands) -> None:
    _recipe_command(
        commands, "plan", "show what would run and what is done already", handler="plan"
    )


def _prepare(commands: Commands) -> None:
    what = "read, validate, clean and split the data into a dataset version"
    _recipe_command(commands, "prepare", what, handler="prepare")


def _encode(commands: Commands) -> None:
    what = "prepare if need be, and write the rows as arrays that training and `penstock.Loader` read"
    _recipe_command(commands, "encode", what, handler="encode")


def _train(commands: Commands) -> None:
    _fresh(
        _recipe_command(
            commands, "train", "prepare if need be, and train", handler="train"
        )
    )


def _run(commands: Commands) -> None:
    what = "all stages: prepare, encode, train, pack, evaluate"
    _fresh(_recipe_command(commands, "run", what, handler="run"))


def _resume(commands: Commands) -> None:
    command = _command(
        commands, "resume", "continue an interrupted run", handler="resume"
    )
    command.add_argument("run", metavar="RUN")
    command.add_argument(
        "--trust",
        action="store_true",
        help="run the code that the run's recipe names, and reach the machines it names",
    )


def _launch(commands: Commands) -> None:
    what = "print what a scheduler needs to run a recipe on its machines"
    command = _recipe_command(commands, "launch", what, handler="launch")
    command.add_argument(
        "--print",
        choices=["kubernetes", "slurm"],
        required=True,
        dest="scheduler",
        help="a Kubernetes manifest, or a batch script for Slurm",
    )
    command.add_argument(
        "--image", help="the container image, with Penstock in it (Kubernetes)"
    )
    command.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="how many processes (default: the launcher's, else 1)",
    )
    command.add_argument(
        "--gpus", type=int, choices=[0, 1], help="accelerators for each process"
    )
    command.add_argument(
        "--claim",
        metavar="NAME",
        help="the volume claim, to be mounted by all, with the data and the store (Kubernetes)",
    )
    command.add_argument(
        # Named `secrets` inside, and excepted by `core.redact`: it holds a Secret's
        # name, not a secret.
        "--secret",
        action="append",
        default=[],
        metavar="NAME",
        dest="secrets",
        help="a Secret whose keys become environment variables (Kubernetes); may be given often",
    )
    command.add_argument(
        "--hours",
        type=int,
        metavar="N",
        help="how long it may take at most (default: 24)",
    )


def _evaluate(commands: Commands) -> None:
    command = _bundle_command(
        commands,
        "evaluate",
        "measure a bundle on the test split, or on labelled rows that came later",
        handler="evaluate",
    )
    command.add_argument(
        "input",
        nargs="?",
        metavar="INPUT",
        help="a file, folder, glob or URL with rows and their truth (default: the test split)",
    )
    command.add_argument(
        "--dataset",
        metavar="NAME@ID",
        help="another dataset version than the bundle's own",
    )
    _explain(command)
    _reading_options(command, "input")


def _predict(commands: Commands) -> None:
    command = _bundle_command(
        commands, "predict", "answer every row of a file", handler="predict"
    )
    command.add_argument(
        "input", metavar="INPUT", help="a file, folder, glob or URL with the rows"
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="OUTPUT",
        help="where to write the answers: .parquet, .csv or .jsonl (default: show the first rows)",
    )
    command.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="COLUMN",
        help="carry this column along; may be given often; `all` for every column",
    )
    command.add_argument(
        "--spreadsheet",
        action="store_true",
        help="in CSV: put an apostrophe before texts that a spreadsheet would take for formulas",
    )
    command.add_argument(
        "--every",
        action="store_true",
        help="where rows are steps of series: forecast from every step, not from the latest window alone",
    )
    command.add_argument(
        "--memory",
        metavar="AMOUNT",
        help="the ceiling of memory, such as 1GiB (default: that of the bundle's recipe)",
    )
    _reading_options(command, "input")


def _serve(commands: Commands) -> None:
    command = _bundle_command(commands, "serve", "answer over HTTP", handler="serve")
    command.add_argument("--host", help="address to bind (default: 127.0.0.1)")
    command.add_argument(
        "--port", type=int, help="port to bind; 0 takes a free one (default: 8080)"
    )
    command.add_argument(
        "--max-batch",
        type=int,
        metavar="ROWS",
        help="the most rows that are computed at once (default: that of the bundle's recipe)",
    )
    command.add_argument(
        "--wait-ms",
        type=float,
        metavar="MS",
        help="how long a request waits for others to be computed with (default: the same)",
    )
    command.add_argument(
        "--token-env",
        metavar="NAME",
        help="the environment variable with the bearer token that requests must bring",
    )
    command.add_argument(
        "--expect",
        choices=["refuse", "ignore"],
        help="what becomes of a row that breaks a rule of `expect` (default: as the recipe says, or refuse)",
    )


def _schema(commands: Commands) -> None:
    what = "the JSON Schema of a recipe, for editors"
    command = _command(commands, "schema", what, handler="schema")
    command.add_argument("-o", "--output", metavar="FILE")


def _demo(commands: Commands) -> None:
    what = "the whole journey on real data, ending with a served answer"
    command = _command(commands, "demo", what, handler="demo")
    command.add_argument(
        "--folder",
        default="demo",
        metavar="FOLDER",
        help="where to put the lake, the recipe and the store (default: demo)",
    )
