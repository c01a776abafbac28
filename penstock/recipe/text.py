"""Writes a recipe as YAML, for a run's diary and for other machines."""

from __future__ import annotations

import re
from typing import Any

import yaml

from penstock.recipe.schema import Recipe
from penstock.recipe.secret import without_secrets


class Dumper(yaml.SafeDumper):
    """YAML that our own loader reads back as the same data: it takes 1e-3 for a number, so such a text is
    quoted.
    """

    def ignore_aliases(self, data: Any) -> bool:
        """True: a value that stands twice is written twice, never as an anchor and an alias."""
        return True


# Quoted on writing, since the loader takes 1e-3 for a number.
_FLOAT = re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")
for _first in "-+0123456789":
    Dumper.yaml_implicit_resolvers = {
        **Dumper.yaml_implicit_resolvers,
        _first: [
            *Dumper.yaml_implicit_resolvers.get(_first, []),
            ("tag:yaml.org,2002:float", _FLOAT),
        ],
    }


def recipe_text(recipe: Recipe) -> str:
    """Write a recipe as YAML that our loader reads back as the same, with its secrets
    blanked.
    """
    return str(
        yaml.dump(
            without_secrets(recipe.to_dict()),
            Dumper=Dumper,
            sort_keys=False,
            allow_unicode=True,
        )
    )
