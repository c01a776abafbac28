"""The verbs as commands: parse, call `api`, print.

- `grammar`: which commands and options there are.
- `commands`: what each of them does; imported once a command is known.
- `output`: results and errors as text or JSON.
- here: one command from its arguments to its exit code.

Nothing heavy is imported before a command is known, so that `--help` is instant. Progress goes to standard
error and results to standard output. Exit codes: 0 done; 1 a defect of ours; 2 the user's input; 3 the data
contract; 4 training failed; 130 interrupted with a checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from penstock.cli.grammar import parser
from penstock.cli.output import print_error
from penstock.cli.shared_options import Parser
from penstock.core import last_resort
from penstock.core.errors import Interrupted, PenstockError
from penstock.core.interrupts import interrupts
from penstock.core.redact import redacted_words
from penstock.terminal.streams import safe_streams

# Bytes of addresses (`ulimit -v`), of which libraries map far more than they use.
_ADDRESSES = 512 << 20
_LEAST_ADDRESSES = dict.fromkeys(
    (
        "demo",
        "diff",
        "encode",
        "evaluate",
        "init",
        "profile",
        "predict",
        "prepare",
        "resume",
        "run",
        "serve",
        "train",
    ),
    2 << 30,
)
"""By command: below so many bytes of addresses its libraries end the process without a word."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what follows `penstock`; by default the process's own.

    Returns:
        The exit code.

    Raises:
        SystemExit: after `--help`, `--version`, or a mistake in the arguments, which has been printed.
    """
    with contextlib.suppress(AttributeError, ValueError):  # a closed or replaced stream
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    words = sys.argv[1:] if arguments is None else arguments
    redacted_words(words)  # what they have of credentials is blanked from now on
    # Before parsing: a mistake in the arguments must be printed as JSON, too.
    Parser.json = "--json" in words
    # The streams end first, so their last flush still has a handler for signals.
    with interrupts.installed(is_command=True), safe_streams() as streams:
        try:
            return streams.ended(_run_command(arguments))
        except SystemExit as done:  # --help, or a mistake that has been printed
            raise SystemExit(streams.ended(int(done.code or 0))) from None


def _run_command(arguments: Sequence[str] | None) -> int:
    # A stand-in for the handlers below, which need `json` even where parsing fails.
    options = argparse.Namespace(json=Parser.json)
    try:
        options = parser().parse_args(arguments)
        # Before the libraries are loaded: short of addresses they abort the process, and no handler below
        # would be asked.
        if (
            refusal := last_resort.starved(
                _LEAST_ADDRESSES.get(options.command, _ADDRESSES)
            )
        ) is not None:
            raise refusal
        from penstock.cli import commands

        # What a command found may be an exit code, without an error.
        return int(getattr(commands, options.handler)(options) or 0)
    except PenstockError as error:
        # What fails on the way out is a consequence of the signal; 130 says so, with
        # the trouble beside it.
        if interrupts.is_stopping and not isinstance(error, Interrupted):
            return _stopped(options, error.message)
        return _failed(options, error)
    except KeyboardInterrupt:
        return _stopped(options)
    except Exception as error:  # noqa: BLE001
        # The last resort: told in a sentence, its traceback kept in a file.
        if (
            interrupts.is_stopping
        ):  # what was interrupted answered with an error of its own
            return _stopped(options)
        return _last_resort(options, error)


def _last_resort(options: argparse.Namespace, error: Exception) -> int:
    report = last_resort.tell(error)
    # Of a process that follows another, the other prints; a defect with a reference of its own is news.
    if getattr(options, "follows", False) and report.reference is None:
        return report.exit_code
    if options.json:
        print_error(report.name, report.message, reference=report.reference)
    print(f"penstock: {report.message}", file=sys.stderr)
    return report.exit_code


def _stopped(options: argparse.Namespace, trouble: str = "") -> int:
    """A signal has ended the command. `trouble`: what else went wrong on its way out."""
    return _failed(options, Interrupted(f"{trouble} {interrupts.sentence}".strip()))


def _failed(options: argparse.Namespace, error: PenstockError) -> int:
    # A bare `PenstockError` is a defect of ours, and gets a reference.
    if error.exit_code == 1:
        return _last_resort(options, error)
    # Of several processes one prints; the others only end with the code.
    if getattr(options, "follows", False):
        return error.exit_code
    if options.json:
        problems = [
            {"path": list(problem.path), "text": problem.text}
            for problem in getattr(error, "problems", ())
        ]
        print_error(type(error).__name__, error.message, problems)
    print(f"penstock: {error.message}", file=sys.stderr)
    return error.exit_code
