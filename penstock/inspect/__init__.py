"""Looking at data before anything is declared: what each column is, what gives the answer away, and a recipe
that says why.

    look(sample, target=…) → Findings → write_recipe → commented YAML

`columns` judges one column at a time, `relations` compares columns with the target and with each other,
`draft` writes. Everything here is a proposal made aloud: a reason stands beside each choice, and whoever
knows better changes the recipe.
"""

from penstock.inspect.draft import write_recipe
from penstock.inspect.findings import Findings, look
from penstock.inspect.raw_column import Finding
from penstock.inspect.sample import Sample

__all__ = ["Finding", "Findings", "Sample", "look", "write_recipe"]
