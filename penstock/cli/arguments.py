"""What commands make of their arguments: who hears of events, and a source with its reading options."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from penstock.core.errors import RecipeError
from penstock.core.events import Events
from penstock.recipe.read import parse_value
from penstock.terminal.console import Console

Options = argparse.Namespace


def events_of(options: Options) -> Events:
    """Events that are shown on standard error; by nobody in a process that follows another."""
    if getattr(options, "follows", False):
        return Events()
    # With `--json` no screen follows, so the console shows what it would have shown.
    return Events(Console(sys.stderr, results=options.json))


def named_source(options: Options) -> Any:
    """What a command is given as its source: as it was named, or with the reading options that stand beside
    it.
    """
    if not options.overrides:
        return options.source
    return source_of(options.source, options.overrides)


def source_of(path: str, overrides: Sequence[str]) -> dict[str, Any]:
    """A source with reading options from `--set word=YAML`; a path given on the command line starts from
    here.
    """
    source: dict[str, Any] = {"path": path if "://" in path else os.path.abspath(path)}
    for override in overrides:
        word, equals, value = override.partition("=")
        if not equals:
            raise RecipeError(f"--set takes WORD=YAML; found {override!r}")
        # As YAML, so that `header=false` is a boolean and `delimiter=;` a text.
        source[word] = parse_value(value, where=f"--set {override}")
    return source
