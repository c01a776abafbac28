"""What the target is: a feature type, its options and its classes, or a sentence why it cannot be learnt."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.core.errors import ContractError
from penstock.formats import bracketed
from penstock.inspect.columns import judge, spelt
from penstock.inspect.labels import delimited, listed
from penstock.inspect.raw_column import Finding, Look
from penstock.inspect.wording import quoted, shown

CLASSES = 10
"""A target of whole numbers with at most so many different ones is taken for classes."""
SAID = 200
"""Characters of a value that a recipe repeats."""
YES = frozenset(
    "1 true yes y t on positive pos ja oui si sí sim present abnormal".split()
)
NO = frozenset(
    "0 false no n f off negative neg nein non não none absent normal never".split()
)
_SENTENCE = 3
"""Words of the average text of a target that is written word by word."""


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
        return _two(look, counts, gone), counts
    # Some cells that are no numbers are quarantined, and do not make classes of a
    # quantity.
    if look.numeric_share >= 0.9 and look.has_finite:
        return _number(look, gone)
    # What would be an input of another type cannot be answered.
    column = judge(look)
    if column.type == "text" and _long(look):
        why = f"{column.why}: the answer is written word by word{gone}"
        return Finding(look.name, "text", why, column.options, loud=column.loud), {}
    if column.type == "sequence" and column.options.get("unit") == "characters":
        options = {"tokenizer": "characters", **look.na()}
        why = f"{column.why}; the answer is written letter by letter{gone}"
        return Finding(look.name, "text", why, options), {}
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
        counted = several[1] if several else _bracketed(look)
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


def _bracketed(look: Look) -> Counter[str] | None:
    """Rows by label, where texts are lists in brackets."""
    counts: Counter[str] = Counter()
    for text, rows in look.present.items():
        items = bracketed.items(text) if isinstance(text, str) else None
        if items is None:
            return None
        for item in set(items):
            counts[item] += rows
    return counts


def _long(look: Look) -> bool:
    """Whether its texts are sentences, which a model can write; two words are a name."""
    words = sum(len(v.split()) * c for v, c in look.present.items() if isinstance(v, str))
    return words >= _SENTENCE * look.filled


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
        counts = {_whole(v): c for v, c in look.present.most_common()}
        return Finding(look.name, "category", why, look.na()), counts
    column = judge(look)
    values = look.numbers[np.isfinite(look.numbers)]
    # Shares of the sum: that of a few values near 1e308 is no double.
    mean = float((values / len(values)).sum())
    why = (
        f"{'whole ' if look.whole else ''}numbers{spelt(look)}, {values.min():,.4g} to {values.max():,.4g},"
        f" mean {mean:,.4g}, {look.distinct:,} different{look.na_words()}{gone}"
    )
    return Finding(
        look.name,
        "number",
        column.why if column.loud else why,
        look.as_number(),
        loud=column.loud,
    ), {}


def _two(look: Look, counts: dict[str, int], gone: str) -> Finding:
    """Two classes; which is positive is said where a word says it, and asked for where none does."""
    yes, rarer = _yes(look), _rarer(look)
    start = f"two values: {_shares(counts, look.filled)}"
    end = f"{look.na_words()}{gone}"
    if yes is not None:
        words = f"{start}; positive is {shown(yes)}, the word that means yes{end}"
        return Finding(look.name, "binary", words, {"positive": _plain(yes), **look.na()})
    # Numbers such as 1 and 2 are names of classes: none of them says what is looked for.
    if look.numeric_share == 1:
        words = (
            f"{start}; no value means yes: choose with `positive`, else the rarer value of the training split"
            f" is taken{end}"
        )
        return Finding(look.name, "binary", words, look.na(), loud=True)
    words = (
        f"{start}; no word means yes: choose. Positive is {shown(rarer)}, the rarer, since what is looked for"
        f" is usually rare{end}"
    )
    return Finding(
        look.name, "binary", words, {"positive": _plain(rarer), **look.na()}, loud=True
    )


def _yes(look: Look) -> Any:
    """The value that means yes, or whose other means no; None where there is none."""
    values = list(look.present)
    # Doubles spell 1 as 1.0.
    spelt = [str(v).strip().lower().removesuffix(".0") for v in values]
    is_no = [word in NO for word in spelt]
    for i, word in enumerate(spelt):
        # A digit or a letter means yes beside its no alone: of 1 and 2 neither does.
        if word in YES and (len(word) > 1 or is_no[1 - i] or spelt[1 - i] == "-1"):
            return values[i]
    for i, word in enumerate(spelt):
        if is_no[i] and not is_no[1 - i] and len(word) > 1:
            return values[1 - i]
    # "no relapse" beside "relapse", "non-smoker" beside "smoker".
    for i, word in enumerate(spelt):
        bare = word.removeprefix("no").removeprefix("n").lstrip(" -_t")
        if word.startswith("n") and bare == spelt[1 - i]:
            return values[1 - i]
    return None


def _rarer(look: Look) -> Any:
    """The rarer value; of two equally common ones the later in spelling."""
    values = look.present.most_common()
    return min(values, key=lambda pair: (pair[1], [-ord(c) for c in str(pair[0])]))[0]


def _plain(value: Any) -> Any:
    """A value as a recipe says it: 1, not 1.0."""
    # A larger double is no exact whole number, and its column spells it with an exponent.
    if isinstance(value, float) and abs(value) < 2**53 and value == int(value):
        return int(value)
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def _shares(counts: dict[str, int], filled: int) -> str:
    return ", ".join(
        f"{quoted(v if len(v) <= SAID else f'{v[:SAID]}…')} {c / filled:.1%}"
        for v, c in list(counts.items())[:4]
    )


def _whole(value: Any) -> str:
    """A whole number as a class is called; a text with a unit stays as it is."""
    try:
        return f"{float(value):.0f}"
    except ValueError:
        return str(value)
