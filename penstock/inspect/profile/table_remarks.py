"""What is said of a table as a whole: equal rows, shares of classes, drift between splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.inspect.findings import Findings
from penstock.inspect.profile.compare import MUCH, SOME, drift
from penstock.inspect.profile.pairs import target_shares
from penstock.inspect.profile.records import Remark
from penstock.inspect.wording import shown

_FEW = 10
"""Rows below which a class is hardly learnt."""
_FIRST = 50
"""Rows at the beginning that are held against the rest, at least."""
_APART = 0.2
"""Half the sum of the differences of shares from which they are called unlike."""
_RARE = 0.05
"""The share of the rarest class below which classes are unequal."""


def equal_rows(facts: Mapping[str, Any] | None, *, counted: bool) -> Iterator[Remark]:
    """Rows that equal others, within a split and across splits.

    Args:
        facts: of `Rows.result`.
        counted: whether copies were counted by `look`, which then tells them.
    """
    if facts is None:
        return
    about = "" if facts["exact"] else "about "
    rows = sum(facts["duplicates"].values())
    if rows and not counted:
        are = "row equals" if rows == 1 else "rows equal"
        yield Remark(
            "warning",
            "duplicates",
            "",
            f"{about}{rows:,} {are} an earlier one of the same split in every column",
            dict(facts["duplicates"]),
            "clean: [deduplicate]",
        )
    for split, shared in facts["overlap"].items():
        if shared:
            are = "row is" if shared == 1 else "rows are"
            yield Remark(
                "warning",
                "overlap",
                "",
                f"{about}{shared:,} {are} in {split} and in train alike: they make a model look better than"
                " it is",
                {"split": split, "rows": shared},
                "clean: [deduplicate]",
            )


def balance(findings: Findings) -> Iterator[Remark]:
    """How the target's rows divide among its classes, in the rows looked at."""
    classes = findings.classes
    if findings.target is None or len(classes) < 2:
        return
    shares = target_shares(classes)
    ranked = sorted(classes, key=lambda name: -classes[name])
    few = [name for name in ranked if classes[name] < _FEW]
    least, most = ranked[-1], ranked[0]
    unequal = shares[least] < _RARE
    rarest = (
        f"; {len(few):,} of {len(classes):,} classes have fewer than {_FEW} rows"
        if few
        else ""
    )
    yield Remark(
        "warning" if few or unequal else "note",
        "balance",
        findings.target.column,
        f"{len(classes):,} classes, from {shown(most)} ({shares[most]:.1%}) to {shown(least)}"
        f" ({shares[least]:.2%}){rarest}",
        {
            "classes": len(classes),
            "rare": len(few),
            "largest": shares[most],
            "smallest": shares[least],
        },
        "evaluate: {metrics: [f1_macro]}" if few or unequal else "",
    )


def first_rows(findings: Findings) -> Iterator[Remark]:
    """Whether the classes of the first rows are others than those of the rest: whoever reads the head of the
    file alone sees another table.
    """
    sample, target = findings.sample, findings.target
    if target is None or len(findings.classes) < 2 or len(sample.files) < 1:
        return
    column = sample.table.column(target.column).combine_chunks()
    first = len(column) // 20
    if first < _FIRST:
        return
    codes = column.dictionary_encode()
    if not pa.types.is_dictionary(codes.type):
        return
    names = codes.dictionary.to_pylist()
    places = np.asarray(codes.indices.fill_null(len(names)))
    head = np.bincount(places[:first], minlength=len(names) + 1) / first
    rest = np.bincount(places[first:], minlength=len(names) + 1) / (len(places) - first)
    apart = float(np.abs(head - rest).sum()) / 2
    # By chance the shares of so many classes in so few rows are apart by this much.
    chance = float(np.sqrt(rest * (1 - rest) / first).sum()) / 2
    if apart < max(_APART, 2 * chance):
        return
    most = int(np.argmax(head - rest))
    name = shown(names[most]) if most < len(names) else "what is missing"
    yield Remark(
        "note",
        "row order",
        target.column,
        f"the first {first:,} rows are unlike the others: {name} is {head[most]:.0%} of them and"
        f" {rest[most]:.0%} of the rest; a look at the head of the file shows another table",
        {"rows": first, "apart": round(apart, 4)},
    )


def split_drift(facts: Mapping[str, Any]) -> Iterator[Remark]:
    """How a column's other splits differ from the training rows."""
    splits = facts.get("splits", {})
    if "train" not in splits:
        return
    for split, mine in splits.items():
        index = drift(splits["train"], mine) if split != "train" else None
        if index is None or index < SOME:
            continue
        yield Remark(
            "warning" if index >= MUCH else "note",
            "drift",
            facts["name"],
            f"differs between train and {split}: population stability index {index:.2f}",
            {"split": split, "psi": round(index, 4)},
            "split the rows anew, or leave the column out of `inputs`"
            if index >= MUCH
            else "",
        )
