"""Leaks: columns that give the target away, each kind in a file of its own.

    find_leaks(columns, target) → Findings with leaks left out and their evidence, and warnings

`alone` judges one column, `missing` whether it is filled in, `flags` a column for each class, `names`
what a name says, `paths` names of files, `texts` words inside texts, `order` moments, `arithmetic` sums
and products. What they share is in `evidence`; the rule of "almost perfectly" is in
`penstock.metrics.one_column`, which the report applies to the test split as well.
"""

from penstock.inspect.leaks.search import Search, find_leaks, judge_inputs, known_leaks

__all__ = ["Search", "find_leaks", "judge_inputs", "known_leaks"]
