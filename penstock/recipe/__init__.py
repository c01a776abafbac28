"""The dictionary: the one schema of all that may be declared, and how it is read."""

from penstock.recipe.load import load_recipe
from penstock.recipe.schema import Recipe

__all__ = ["Recipe", "load_recipe"]
