"""What the target is: a feature type, its options and its classes, or a sentence why it cannot be learnt."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from penstock.core.errors import ContractError
from penstock.inspect.columns import judge
from penstock.inspect.labels import delimited, listed
from penstock.inspect.raw_column import Finding, Look
from penstock.inspect.wording import quoted, shown

CLASSES = 10
"""A target of whole numbers with at most so many different ones is taken for classes."""
SAID = 200
"""Characters of a value that a recipe repeats."""
YES = frozenset({"1", "true", "yes", "y", "t", "on", "positive", "pos"})


def judge_target(look: Look) -> tuple[Finding, dict[str, int]]:
    """The feature proposed for the target, and the rows of each of its classes; a number has no classes.

    Raises:
        ContractError: it cannot be learnt: there are no rows, it is missing everywhere, has one class, or is
            of a kind that no feature answers.
    """
    if not look.rows:
        raise ContractError(
            f"the source has no rows, so nothing can be said of the target {look.name!r}."
        )
    if labels := _labels(look):
        return labels, {}
    _check_learnable(look)
    gone = (
        f"; the {look.rows - look.filled:,} rows without it are quarantined"
        if look.filled < look.rows
        else ""
    )
    # As the features spell them: truth values in lower case.
    counts = {
        str(v) if not isinstance(v, bool) else str(v).lower(): c
        for v, c in look.present.most_common()
    }
    if look.distinct == 2:
        positive, why = _positive(look)
        words = f"two values: {_shares(counts, look.filled)}; positive is {why}{look.na_words()}{gone}"
        return Finding(
            look.name, "binary", words, {"positive": positive, **look.na()}
        ), counts
    # Some cells that are no numbers are quarantined, and do not make classes of a
    # quantity.
    if look.numeric_share >= 0.9:
        return _number(look, gone)
    # What would be an input of another type cannot be answered.
    column = judge(look)
    if column.type != "category":
        what = column.why if column.type is None else f"a {column.type}"
        raise ContractError(
            f"the target {look.name!r} cannot be learnt as it is: {what}. Choose another column, or derive a"
            " class or a number from it."
        )
    # Ten rows leave about one in each of validation and test.
    few = sum(c < 10 for c in look.present.values())
    rare = f"; {few} classes have fewer than 10 rows here" if few else ""
    return Finding(
        look.name, "category", f"{column.why}{rare}{gone}", look.na(), loud=column.loud
    ), counts


def _labels(look: Look) -> Finding | None:
    """Several labels a row: a list, or a text with a delimiter."""
    # Fixed-size lists are vectors, not labels.
    if pa.types.is_list(look.type) or pa.types.is_large_list(look.type):
        counted = listed(look.raw)
    else:
        several = delimited(look.present, look.filled) if look.is_text else None
        counted = several[1] if several else None
    if not counted or (column := judge(look)).type != "set":
        return None
    few = sum(count < 10 for count in counted.values())
    rare = f"; {few} labels are in fewer than 10 rows here" if few else ""
    return Finding(
        look.name,
        "set",
        f"{column.why}{rare}; rows that lack it are quarantined, unless `empty: none` says that they have no"
        " label",
        column.options,
    )


def _check_learnable(look: Look) -> None:
    name = look.name
    if pa.types.is_nested(look.type):
        raise ContractError(
            f"the target {name!r} is a {look.type}; no feature of this version answers that. Derive a number"
            " or a class from it, with `derive`."
        )
    if look.filled == 0:
        raise ContractError(
            f"the target {name!r} is missing in all {look.rows:,} rows looked at{look.na_words()}. Choose"
            " another column, or mend the source."
        )
    if look.distinct == 1:
        raise ContractError(
            f"the target {name!r} has one class, {shown(next(iter(look.present)))}, in all {look.filled:,}"
            " rows looked at: there is nothing to learn. Look at `where`, or choose another column."
        )
    if pa.types.is_temporal(look.type):
        raise ContractError(
            f"the target {name!r} is a moment in time; no feature of this version answers that. Derive a"
            " number from it, such as the days until it, with `derive`."
        )


def _number(look: Look, gone: str) -> tuple[Finding, dict[str, int]]:
    """A quantity; or classes, where few whole numbers recur."""
    few = look.distinct <= CLASSES or look.named_id
    # Whole numbers that recur five times on average are more likely classes than
    # quantities.
    if (
        look.numeric_share == 1
        and look.whole
        and few
        and look.filled >= 5 * look.distinct
    ):
        named = ", and named like an identifier" if look.named_id else ""
        why = (
            f"{look.distinct} different whole numbers{named}; if they are quantities rather than classes, say"
            f" number{look.na_words()}{gone}"
        )
        counts = {f"{float(v):.0f}": c for v, c in look.present.most_common()}
        return Finding(look.name, "category", why, look.na()), counts
    column = judge(look)
    values = look.numbers[np.isfinite(look.numbers)]
    why = (
        f"{'whole ' if look.whole else ''}numbers, {values.min():,.4g} to {values.max():,.4g}, mean"
        f" {values.mean():,.4g}, {look.distinct:,} different{look.na_words()}{gone}"
    )
    return Finding(
        look.name,
        "number",
        column.why if column.loud else why,
        look.na(),
        loud=column.loud,
    ), {}


def _positive(look: Look) -> tuple[object, str]:
    """The positive value, and why that one."""
    values = look.present.most_common()
    # Doubles spell 1 as 1.0.
    yes = [v for v, _ in values if str(v).strip().lower().removesuffix(".0") in YES]
    if len(yes) == 1:
        chosen, why = yes[0], "the word that means yes"
    else:
        chosen, why = (
            min(values, key=lambda pair: (pair[1], [-ord(c) for c in str(pair[0])]))[0],
            "the rarer, since what is looked for is usually rare",
        )
    # A recipe says 1, not 1.0.
    if isinstance(chosen, float) and chosen == int(chosen):
        chosen = int(chosen)
    if not isinstance(chosen, (str, int, float, bool)):
        chosen = str(chosen)
    return chosen, f"{shown(chosen)}, {why}"


def _shares(counts: dict[str, int], filled: int) -> str:
    return ", ".join(
        f"{quoted(v if len(v) <= SAID else f'{v[:SAID]}…')} {c / filled:.1%}"
        for v, c in list(counts.items())[:4]
    )
