"""Which column is to be predicted, where nobody said it: by its name, its place, and what it holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from penstock.core.errors import ContractError
from penstock.inspect.columns import judge
from penstock.inspect.layout import split_of
from penstock.inspect.pictures import pictures
from penstock.inspect.raw_column import Look
from penstock.inspect.target import judge_target
from penstock.inspect.wording import key

_SURE = frozenset(
    "target targets label labels class classes y outcome response ground_truth groundtruth truth"
    " klasse ziel zielvariable etikett class_label target_class dependent to_predict"
    " ot_target y_true".split()
)
"""Names that mean the answer itself, in lower case."""
_LIKELY = frozenset(
    "churn churned exited attrition default defaulted survived income salary price saleprice"
    " sale_price selling_price price_range fraud is_fraud isfraud spam is_spam diagnosis"
    " disease species sentiment emotion emotions quality rating ratings stars score grade approved"
    " approval loan_status bought purchased converted conversion clicked click subscribed"
    " cancelled canceled is_canceled readmitted died death mortality hired passed failure failed"
    " fail anomaly is_anomaly attack malignant cancer stroke diabetes recidivism two_year_recid"
    " delayed late medv median_house_value mpg cnt count demand sales revenue load"
    " consumption charges cost amount_due value result status state category type kind genre"
    " topic intent language variety digit letter age_group rings wage yield strength".split()
)
"""Names of what is often asked for."""
_NEVER = re.compile(
    r"(^|[_\-. ])(id|uuid|index|split|fold|partition|date|time|timestamp|name|path|file|url|lat|lon"
    r"|latitude|longitude)$",
    re.IGNORECASE,
)
_PIECE = re.compile(r"[._\-\s]+|(?<=[a-z])(?=[A-Z])")
_MOST_CLASSES = 100
_MOST_COLUMNS = 24
_CLASSES = frozenset({"binary", "category", "set"})
_BEFORE = frozenset({"is", "has", "was", "will", "the", "target", "label", "class", "y"})


@dataclass(frozen=True)
class LikelyTarget:
    """A column that is probably the one to be predicted."""

    column: str
    why: str
    second: str | None = None
    """The next likely one."""

    def __str__(self) -> str:
        second = f"; the next likely one is {key(self.second)}" if self.second else ""
        return (
            f"LOOK: no target was named, so {key(self.column)} is taken: {self.why}{second}. For another: "
            " penstock init … --target COLUMN"
        )


def likely_target(
    table: pa.Table, *, named: Sequence[str], of_files: str = ""
) -> LikelyTarget | None:
    """The column that is most likely to be predicted; None where no column can be.

    Args:
        table: rows that are looked at.
        named: its columns that are the source's own, in order.
        of_files: where the rows are files, what their column `label` is.
    """
    if of_files:
        if "label" not in named or _kind(Look("label", table.column("label"))) is None:
            return None
        return LikelyTarget("label", of_files)
    graded: list[tuple[float, int, str, str]] = []
    for place, name in enumerate(named):
        score, why = _by_name(name)
        last = place == len(named) - 1
        # The last column, and of UCI's tables sometimes the first.
        score += 2.0 if last else 0.5 if place == 0 else 0.0
        graded.append((-score, -place, name, why or ("the last column" if last else "")))
    # Only the best few are looked at: a table may have thousands of columns.
    graded.sort()
    chosen: list[tuple[str, str]] = []
    texts: list[tuple[str, str]] = []
    for score, _, name, why in graded[:24]:
        kind = _kind(Look(name, table.column(name)))
        if kind is None or (-score < 2.0 and kind not in _CLASSES):
            continue
        # What nothing but its place speaks for is more likely read than written.
        placed = texts if kind == "text" and -score <= 2.0 else chosen
        placed.append((name, why or f"a column of {kind} values"))
        if len(chosen) == 2:
            break
    chosen += texts
    if not chosen:
        return _beside_pictures(table, named)
    (name, why), *others = chosen[:2]
    return LikelyTarget(name, why, others[0][0] if others else None)


def _beside_pictures(table: pa.Table, named: Sequence[str]) -> LikelyTarget | None:
    """The one column of a table of pictures that can be answered."""
    looks = [Look(name, table.column(name)) for name in named[:_MOST_COLUMNS]]
    others = [look for look in looks if pictures(look) is None]
    kinds = [(look.name, kind) for look in others if (kind := _kind(look)) is not None]
    if len(others) == len(looks) or len(kinds) != 1:
        return None
    name, kind = kinds[0]
    return LikelyTarget(name, f"the only column beside the pictures that holds a {kind}")


def _by_name(name: str) -> tuple[float, str]:
    """How likely a name is that of a target, and why."""
    plain = name.strip().lower()
    pieces = [p.lower() for p in _PIECE.split(name.strip()) if p]
    joined = "_".join(pieces)
    rest = [p for p in pieces if p not in _BEFORE]
    if _NEVER.search(plain) or split_of(plain):
        return -5.0, ""
    if plain in _SURE or joined in _SURE or "".join(pieces) in _SURE:
        return 6.0, f"{name!r} means the answer"
    if pieces and (pieces[0] in _SURE or pieces[-1] in _SURE):
        return 4.0, f"{name!r} means the answer"
    if plain in _LIKELY or joined in _LIKELY or "_".join(rest) in _LIKELY:
        return 3.0, f"{name!r} is what is often asked for"
    if pieces and pieces[-1] in _LIKELY:
        return 1.5, f"{name!r} is what is often asked for"
    return 0.0, ""


def _kind(look: Look) -> str | None:
    """The feature type that it would be answered by; None where it cannot be learnt."""
    if not look.rows or look.filled < 0.5 * look.rows:
        return None
    if pictures(look) is not None:
        return None
    try:
        finding, classes = judge_target(look)
    except ContractError:
        return None
    if finding.type == "category" and len(classes) > _MOST_CLASSES:
        return None
    # A number that counts or names the rows is no answer.
    if finding.type == "number" and judge(look).role in ("identifier", "code"):
        return None
    return finding.type


def rows_without(
    table: pa.Table, target: str, by_row: Mapping[str, pa.Array]
) -> list[str]:
    """The splits whose every row lacks the target, such as the test file of a competition.

    Args:
        by_row: by split, which rows are its own, boolean `[N]`.
    """
    lacking = []
    for split, mine in by_row.items():
        column = table.column(target).filter(mine)
        if len(column) and not Look(target, column).filled:
            lacking.append(split)
    return lacking
