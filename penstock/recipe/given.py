"""Remembers what this process was given by its user in a recipe: the code that it names, and its secrets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.contracts.foreign import note_given
from penstock.recipe.dotted import modules_in
from penstock.recipe.secret import remember_secrets


def remember_given(declared: Mapping[str, Any]) -> None:
    """Remember the modules and the secrets of a recipe of the user's own.

    Another process of the same training may name those modules, and sends the recipe without those secrets
    (`recipe.sent`).
    """
    note_given(modules_in(declared))
    remember_secrets(declared)
