"""What commands have in common: the parser, and the options that all, or several, of them take."""

from __future__ import annotations

import argparse
import re
from typing import Any, TypeAlias

from penstock.cli.output import print_error
from penstock.core.near import nearest
from penstock.core.redact import redacted


class Parser(argparse.ArgumentParser):
    """argparse, with a "did you mean" for commands and options."""

    json = False
    """Whether `--json` is among the arguments: a mistake in the others is then printed as JSON too. It stands
    here since argparse reports the mistake before it has read them all.
    """

    def error(self, message: str) -> Any:
        """Print what is wrong with the arguments, with the nearest name that exists, and exit with 2."""
        # argparse has no record of what was wrong; the sentence is all there is.
        wrong = re.search(r"invalid choice: '([^']*)'", message) or re.search(
            r"unrecognized arguments: (\S+)", message
        )
        # Only the top parser has commands.
        commands = (
            [*(self._subparsers._group_actions[0].choices or {})]
            if self._subparsers
            else []
        )
        names = [*commands, *self._option_string_actions]
        # Of `--stroe=x` the name alone is compared.
        near = nearest(wrong[1].split("=")[0], names) if wrong else []
        hint = f" Did you mean {near[0]}?" if near else ""
        # argparse would list every command; the examples of `--help` say more.
        if wrong and "invalid choice" in message and self._subparsers:
            message = f"there is no command {wrong[1]!r}."
        # A mistyped option may carry a credential.
        sentence = redacted(f"{message.rstrip('.')}.{hint} See `{self.prog} --help`.")
        if self.json:
            print_error("UsageError", sentence)
        self.exit(2, f"penstock: {sentence}\n")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""Where a command is added; argparse has no public name for it."""


def plain_command(
    commands: Commands, name: str, help: str, *, handler: str
) -> argparse.ArgumentParser:
    """A command with the options that all have. `handler`: its function in `commands`."""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=help
    )
    command.set_defaults(handler=handler)
    command.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object and nothing else on standard output",
    )
    command.add_argument(
        "--store",
        metavar="URL",
        help="a folder or bucket for datasets, runs and bundles (default: the recipe's, or ./store)",
    )
    return command


def recipe_command(
    commands: Commands, name: str, help: str, *, handler: str
) -> argparse.ArgumentParser:
    """A command that reads a recipe."""
    command = plain_command(commands, name, help, handler=handler)
    command.add_argument(
        "recipe", metavar="RECIPE", help="a recipe (.yaml, .toml, .json)"
    )
    overrides(
        command,
        metavar="A.B=YAML",
        help="override a word of the recipe; may be given often",
    )
    command.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="use N rows only, chosen by the hash of their ids",
    )
    return command


def bundle_command(
    commands: Commands, name: str, help: str, *, handler: str
) -> argparse.ArgumentParser:
    """A command that opens a bundle."""
    command = plain_command(commands, name, help, handler=handler)
    command.add_argument(
        "bundle", metavar="BUNDLE", help="bundle-<id>, or a bundle's folder"
    )
    command.add_argument(
        "--trust", action="store_true", help="run code that came with the bundle"
    )
    return command


def overrides(command: argparse.ArgumentParser, *, metavar: str, help: str) -> None:
    """`--set`: words of a recipe, or reading options."""
    command.add_argument(
        "--set", action="append", default=[], metavar=metavar, dest="overrides", help=help
    )


def reading_options(command: argparse.ArgumentParser, what: str) -> None:
    """`--set` with reading options of `what`: the source, or the input."""
    overrides(
        command,
        metavar="WORD=YAML",
        help=f"a reading option of the {what}, such as header=false",
    )


def explain(command: argparse.ArgumentParser) -> None:
    """`--explain`: what each metric means."""
    command.add_argument(
        "--explain", action="store_true", help="say what each metric means"
    )


def fresh(command: argparse.ArgumentParser) -> None:
    """`--fresh`: a new run even where an interrupted one could go on."""
    command.add_argument(
        "--fresh",
        action="store_true",
        help="begin a new run, even where an interrupted one could continue",
    )
