"""What a command prints: its result, or the error that ended it, for people or, with `--json`, for programs.

Results go to standard output and sentences about errors to standard error. With `--json`, standard output has
one JSON object and nothing else, also when the command fails.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.core.redact import redacted_data


def print_result(options: argparse.Namespace, data: Any, text: Callable[[], str]) -> None:
    """Print a command's result; nothing in a process that only follows another
    (`options.follows`).

    Args:
        options: the command line's.
        data: the result with `--json`; what JSON lacks (paths, times) becomes text.
        text: makes the result for people. It is called only where it is printed, since a screen is dear.
    """
    if getattr(options, "follows", False):
        return
    if options.json:
        print(
            json.dumps(
                # Columns may be called `token`, so names of fields hide nothing in a
                # result.
                redacted_data(data, by_name=False),
                ensure_ascii=False,
                default=str,
            )
        )
    else:
        print(text())


def print_error(
    name: str,
    message: str,
    problems: Sequence[Mapping[str, Any]] = (),
    *,
    reference: str | None = None,
) -> None:
    """Print an error as JSON.

    Args:
        name: its class, such as `RecipeError`.
        message: the sentence.
        problems: of a recipe: `path`, a list of words and positions, and `text`.
        reference: of a defect: the name of the file with its traceback.
    """
    error = {"error": name, "message": message, "problems": list(problems)}
    if reference is not None:
        error["reference"] = reference
    print(json.dumps(error, ensure_ascii=False))
