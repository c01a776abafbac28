"""Kinds of text that are neither words nor numbers: letters in a row, places, lists in brackets, ranges."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from penstock.formats import bracketed
from penstock.inspect.raw_column import Finding, Look
from penstock.inspect.wording import shown

MOST = 2_000
"""Different texts that are looked at."""
_LETTERS = re.compile(r"[A-Za-z*.\-]+")
_FEW_LETTERS = 6
"""Of DNA and RNA, with what stands for an unknown or a gap."""
_MANY_LETTERS = 27
"""Of proteins."""
_SMILES = re.compile(r"(?:Cl|Br|Na|Si|Se|[BCNOPSFIHbcnops0-9@+\-\[\]()=#$/\\%.:*])+")
_BONDS = re.compile(r"[=#()]")
_PAIR = re.compile(
    r"[(\[]?\s*([-+]?\d{1,3}\.\d+)(\s*[,;/]\s*|\s+)([-+]?\d{1,3}\.\d+)\s*[)\]]?"
)
_RANGE = re.compile(
    r"\d+(\.\d+)? ?(-|–|to|\.\.) ?\d+(\.\d+)?[\])]?|\d+ ?\+|[<>]=? ?\d+|\d+ and over"
)


def letters(look: Look, texts: Sequence[str]) -> Finding | None:
    """Long strings over few letters, such as DNA, proteins and molecules; None where they are none."""
    some = texts[:MOST]
    if _are_molecules(some):
        return Finding(
            look.name,
            "sequence",
            f"molecules written as SMILES ({shown(some[0])}): read letter by"
            f" letter{look.missing_words()}{look.na_words()}",
            {"unit": "characters", **look.na()},
        )
    if len(some) < 2 or not all(_LETTERS.fullmatch(text) for text in some):
        return None
    mean = sum(map(len, some)) / len(some)
    alphabet = {letter for text in some for letter in text}
    # One case: words and names have capitals at their beginnings alone.
    one_case = len({letter.isupper() for letter in alphabet if letter.isalpha()}) == 1
    is_few = len(alphabet) <= _FEW_LETTERS and mean >= 8
    is_protein = (
        len(alphabet) <= _MANY_LETTERS
        and mean >= 15
        and all(letter.isupper() or not letter.isalpha() for letter in alphabet)
    )
    if not one_case or not (is_few or is_protein):
        return None
    return Finding(
        look.name,
        "sequence",
        f"strings of about {mean:.0f} letters over {len(alphabet)} different ones"
        f" ({shown(some[0])}): read letter by letter{look.missing_words()}{look.na_words()}",
        {"unit": "characters", **look.na()},
    )


def _are_molecules(texts: Sequence[str]) -> bool:
    """Whether texts are molecules in the letters of SMILES: atoms, and bonds or rings between them."""
    bonds = sum(bool(_BONDS.search(text)) for text in texts)
    return (
        len(texts) >= 20
        and all(_SMILES.fullmatch(text) for text in texts)
        and bonds > 0.5 * len(texts)
        and sum(map(len, texts)) >= 8 * len(texts)
    )


def pairs(look: Look, texts: Sequence[str]) -> Finding | None:
    """Two numbers in a cell, such as a latitude and a longitude; None where they are none."""
    some = texts[:MOST]
    fits = [match for text in some if (match := _PAIR.fullmatch(text))]
    if not some or len(fits) < 0.95 * len(some):
        return None
    between = Counter(match[2].strip() or " " for match in fits).most_common(1)[0][0]
    return Finding(
        look.name,
        "vector",
        f"two numbers in a cell, such as {shown(some[0])} (a latitude and a"
        f" longitude?){look.missing_words()}{look.na_words()}",
        {"length": 2, "delimiter": between, **look.na()},
    )


def bracketed_lists(look: Look, texts: Sequence[str]) -> Finding | None:
    """Lists of labels that recur, in brackets within text; None where they are none."""
    if not look.is_text or not texts or not texts[0].startswith(("[", "{", "(")):
        return None
    labels: Counter[str] = Counter()
    rows = lists = 0
    for text in texts:
        items = bracketed.items(text)
        count = look.present[text]
        rows += count
        if items is not None:
            lists += count
            for item in {item.strip() for item in items} - {""}:
                labels[item] += count
    recurring = 2 <= len(labels) <= 2_000 and sum(labels.values()) >= 2 * len(labels)
    if lists < 0.95 * rows or not recurring:
        return None
    return Finding(
        look.name,
        "set",
        f"lists in brackets, {len(labels):,} different labels, the commonest"
        f" {shown(labels.most_common(1)[0][0])}; if their order matters, derive a"
        f" list{look.missing_words()}{look.na_words()}",
        {"brackets": True, **look.na()},
    )


def ranges(look: Look, texts: Sequence[str]) -> Finding | None:
    """Ranges such as `25-34` and `65+`, as categories; None where they are none."""
    fits = [text for text in texts if _RANGE.fullmatch(text)]
    if len(texts) < 3 or len(fits) < max(3, 0.8 * len(texts)) or look.distinct > 100:
        return None
    return Finding(
        look.name,
        "category",
        f"{look.distinct:,} ranges such as {shown(fits[0])}: read as categories, so their order is not"
        f" used{look.missing_words()}{look.na_words()}",
        look.na(),
    )
