"""The commands about what is in a store: list and show it, name it, follow it, choose rows of it."""

from __future__ import annotations

import argparse

from penstock.cli.shared_options import Commands
from penstock.cli.shared_options import explain as _explain
from penstock.cli.shared_options import plain_command as _command


def store_commands(commands: Commands) -> None:
    """Add them, in the order in which `--help` lists them."""
    _list(commands)
    _show(commands)
    _lineage(commands)
    _tag(commands)
    _quarantine(commands)
    _subset(commands)
    _forget(commands)
    _audit(commands)


def _list(commands: Commands) -> None:
    command = _command(
        commands, "list", "list what is in a store", handler="list_artefacts"
    )
    command.add_argument(
        "shelf",
        nargs="?",
        choices=["datasets", "runs", "bundles", "feeds", "reports"],
        help="what to list (default: all)",
    )


def _show(commands: Commands) -> None:
    what = "show a dataset, run, bundle or report, or the newest run of a recipe"
    command = _command(commands, "show", what, handler="show")
    command.add_argument(
        "reference",
        metavar="REFERENCE",
        help="a reference, its first characters, or a recipe's name",
    )
    _explain(command)


def _lineage(commands: Commands) -> None:
    what = "show what an artefact was made of, to the sources, and what was made of it, to bundles"
    command = _command(commands, "lineage", what, handler="lineage")
    command.add_argument(
        "reference",
        metavar="REFERENCE",
        help="a dataset, subset, feed, run, bundle or report; or a file or folder that datasets were made of",
    )


def _tag(commands: Commands) -> None:
    what = "name a version of a dataset, move or remove such a name, or list them"
    command = _command(commands, "tag", what, handler="tag")
    command.add_argument(
        "reference",
        nargs="?",
        metavar="REFERENCE",
        help="the version, NAME@ID; to remove a tag, NAME@TAG; to list tags, NAME or nothing",
    )
    command.add_argument(
        "tag", nargs="?", metavar="TAG", help="NAME@TAG then stands for the version"
    )
    command.add_argument(
        "--force", action="store_true", help="move a tag that stands for another version"
    )
    command.add_argument(
        "--remove", action="store_true", help="remove the tag NAME@TAG; the version stays"
    )


def _quarantine(commands: Commands) -> None:
    what = "look at the rows of a dataset that were put aside, and put mended ones through again"
    top = commands.add_parser("quarantine", help=what, description=what)
    inner = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    show = _command(
        inner,
        "show",
        "show rows that were put aside, with every rule that each breaks",
        handler="quarantine_show",
    )
    _dataset(show)
    show.add_argument("--reason", metavar="TEXT", help="those whose reason has this text")
    show.add_argument("--column", help="those that break a rule on this column")
    show.add_argument(
        "--rows", type=int, default=20, metavar="N", help="how many to show"
    )
    show.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write all of them to a file, to be mended and replayed (.csv, .jsonl, .parquet)",
    )
    what = "count the rows that were put aside by rule, column and file"
    stats = _command(inner, "stats", what, handler="quarantine_stats")
    _dataset(stats)
    what = "put mended rows through the same preparation again, as a new dataset version"
    replay = _command(inner, "replay", what, handler="quarantine_replay")
    _dataset(replay)
    replay.add_argument("fixed", metavar="FILE", help="rows that `show -o` wrote, mended")


def _dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "reference", metavar="REFERENCE", help="a dataset: NAME@ID, NAME@TAG, or NAME"
    )


def _subset(commands: Commands) -> None:
    what = "name some rows of a dataset version, as a text that anyone can run again"
    command = _command(commands, "subset", what, handler="subset")
    command.add_argument("reference", metavar="NAME@ID", help="a dataset, or a subset")
    command.add_argument("--where", metavar="SQL", help="a condition on its columns")
    command.add_argument(
        "--sample", type=float, metavar="SHARE", help="a share of the rows, such as 0.1"
    )
    command.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which sample (default: 0)"
    )


def _forget(commands: Commands) -> None:
    what = "take rows out of every dataset of a store for good, and out of what was made of them"
    command = _command(commands, "forget", what, handler="forget")
    command.add_argument(
        "--where", required=True, metavar="SQL", help="which rows, as a recipe's `where`"
    )
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be done, and change nothing",
    )
    command.add_argument("--yes", action="store_true", help="do it without asking")
    command.add_argument(
        "--retrain",
        action="store_true",
        help="train what saw the rows anew, on the versions without them",
    )
    command.add_argument(
        "--trust",
        action="store_true",
        help="with --retrain: run the code that recipes name",
    )
    command.add_argument(
        "--key-env",
        default="PENSTOCK_KEY",
        metavar="NAME",
        help="the environment variable with the key that signs the report (default: PENSTOCK_KEY)",
    )


def _audit(commands: Commands) -> None:
    what = "show who prepared, read, trained on and erased what in a store"
    command = _command(commands, "audit", what, handler="audit")
    command.add_argument(
        "reference",
        nargs="?",
        metavar="REFERENCE",
        help="only what names this dataset, run, feed or bundle, or begins so",
    )
    command.add_argument(
        "--check",
        action="store_true",
        help="say whether the log is whole: each entry that was removed or changed",
    )
