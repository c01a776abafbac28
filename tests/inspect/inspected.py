"""What tests of `init` share."""

from __future__ import annotations

from penstock.inspect import write_recipe
from penstock.recipe.read import parse_yaml
from penstock.recipe.schema import load_recipe


def recipe_of(findings, source=None, name="some thing"):
    text = write_recipe(
        findings,
        source_declaration=source or {"type": "files", "path": "x.csv"},
        name=name,
    )
    return load_recipe(parse_yaml(text, where="the draft")), text
