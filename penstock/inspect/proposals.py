"""What the rows as a whole propose: how they are split, whether they are steps of series, what is watched.

    propose(…) → Proposals, and the findings changed to go with them

The first that fits decides: files that are splits, a column that says the split, series, groups whose rows
are alike, the order of time, classes that keep their shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_FILE
from penstock.inspect.alike import is_plain
from penstock.inspect.groups import Group, Groups, groups_of
from penstock.inspect.layout import SPLITS, to_splits
from penstock.inspect.moments_of import Moments, moments_of
from penstock.inspect.raw_column import Finding, Look
from penstock.inspect.sample import Sample
from penstock.inspect.series_steps import (
    Forecast,
    Steps,
    forecastable,
    holds,
    in_row_order,
    of_drawn,
    of_files,
    proposed,
    steps_of,
)
from penstock.inspect.time_order import TimeOrder, by_moments, by_neighbours
from penstock.inspect.wording import key, quoted, shown, sql

STRATIFY_BELOW = 50_000
"""Rows; in more, chance alone keeps the classes' shares."""
FEW = 10
"""Rows of a class in a split; with fewer, its figures are mostly chance."""
_UNCOUNTED = 1_000_000
_RARE = 0.1
"""A positive class of a smaller share is looked for by its rank, and counted by average precision."""
_LIKE_ITSELF = 0.3
_SPLIT_NAMES = frozenset(
    "split set fold partition subset usage dataset data_split dataset_split split_name"
    " train_test sample_set phase".split()
)
_MISSING = 0.02
_NO_TIME = frozenset({"leak", "constant", "split"})
"""Roles of columns that order nothing."""


@dataclass
class Proposals:
    """Words of a recipe that concern all rows, each with its reason."""

    split: dict[str, Any] = field(default_factory=dict)
    """Of the recipe; empty where files decide by themselves."""
    why: str = ""
    loud: bool = False
    derive: dict[str, str] = field(default_factory=dict)
    """Columns that the split needs: name → SQL."""
    forecast: Forecast | None = None
    watch: str | None = None
    """What `train.early_stop` watches."""
    why_watch: str = ""
    others: list[str] = field(default_factory=list)
    """Other ways, as lines of a recipe that could be used instead."""


@dataclass(frozen=True)
class Rows:
    """What is looked at."""

    looks: Mapping[str, Look]
    """By column: the sample."""
    neighbours: Mapping[str, Look]
    """By column: rows that stand one behind another in the source; the sample itself where it is all of
    it.
    """
    total: int
    """Rows of the whole source, as far as they are known."""
    files: np.ndarray
    """Which file each of the neighbours is in `[n]`."""
    file_count: int = 1
    splits: Mapping[str, float] = field(default_factory=dict)
    """By split that files are: its share of the rows."""


@dataclass
class _Case:
    """One question: the rows, and what was proposed for their columns."""

    rows: Rows
    columns: list[Finding]
    target: Finding | None
    classes: Mapping[str, int]
    warnings: list[str]

    @property
    def pairs(self) -> list[tuple[Look, Finding]]:
        """Columns of the sample, with what was proposed."""
        return [(self.rows.looks[f.column], f) for f in self.columns]

    @property
    def near(self) -> list[tuple[Look, Finding]]:
        """The same of neighbours."""
        return [(self.rows.neighbours[f.column], f) for f in self.columns]

    def look(self) -> Look | None:
        """The target's column."""
        return None if self.target is None else self.rows.looks[self.target.column]


def propose(
    rows: Rows,
    columns: list[Finding],
    target: Finding | None,
    classes: Mapping[str, int],
    warnings: list[str],
) -> Proposals:
    """Split, series and what is watched. `columns` and `warnings` are changed in place.

    Args:
        columns: what was proposed for each column but the target.
        target: what was proposed for the target.
        classes: the target's classes and their rows.
        warnings: sentences for whoever reads the recipe; more are added.
    """
    case = _Case(rows, columns, target, classes, warnings)
    proposals = (
        _by_files(case)
        or _by_column(case)
        or _by_series(case)
        or _by_group(case)
        or _by_time(case)
        or _by_class(case)
    )
    by = proposals.split.get("by", "hash")
    if proposals.forecast is None and (
        by in ("time", "order") or (by, "on" in proposals.split) == ("hash", False)
    ):
        proposals.others += _code_hint(case)
    if proposals.forecast is None:
        _mind_rare(case, proposals)
    return proposals


def _by_files(case: _Case) -> Proposals | None:
    shares = case.rows.splits
    if not shares:
        return None
    if "validation" in shares:
        return Proposals({"by": "files"}, "the files decide")
    why = "the files decide; validation is taken out of train"
    return Proposals({"by": "files", "validation": 0.1}, why)


def _by_column(case: _Case) -> Proposals | None:
    """A column that is called `split` and says so."""
    for place, finding in enumerate(case.columns):
        look = case.rows.looks[finding.column]
        plain = look.name.strip().lower()
        if not (plain in _SPLIT_NAMES or plain.endswith("_split")) or not is_plain(look):
            continue
        if look.filled < (1 - _MISSING) * look.rows:
            continue
        words = to_splits(str(value) for value in look.present)
        if words is None:
            continue
        case.columns[place] = replace(
            finding,
            type=None,
            why="it says the split of each row",
            role="split",
            loud=False,
        )
        proposals = Proposals({"by": "column", "on": look.name})
        proposals.why = f"{look.name!r} says it"
        if any(word != split for word, split in words.items()):
            name = _new_name(f"{look.name}_of_row", case.rows.looks)
            proposals.derive[name] = _as_cases(look.name, words)
            proposals.split["on"] = name
            meanings = ", ".join(f"{shown(w)} is {s}" for w, s in sorted(words.items()))
            proposals.why = f"{look.name!r} says it: {meanings}"
        if "validation" not in words.values():
            proposals.split["validation"] = 0.1
            proposals.why += "; validation is taken out of train"
        return proposals
    return None


def _as_cases(column: str, words: Mapping[str, str]) -> str:
    def text(value: str) -> str:
        return "'" + value.replace("'", "''") + "'"

    whens = " ".join(
        f"WHEN {text(word)} THEN {text(split)}" for word, split in sorted(words.items())
    )
    return f"CASE {sql(column)} {whens} END"


def _new_name(name: str, taken: Mapping[str, Any]) -> str:
    lower = {each.lower() for each in taken}
    while name.lower() in lower:
        name += "_"
    return name


# -- time ----------------------------------------------------------------------------------------------------


def _moments(case: _Case) -> list[Moments]:
    """Columns of moments among neighbours, those with units of time first."""
    moments_of_columns = []
    for look, finding in case.near:
        if finding.role in _NO_TIME:
            continue
        moments = moments_of(look, finding)
        # What a sample lacks in many rows, its head need not lack.
        if moments is not None and _filled(case, finding.column):
            moments_of_columns.append(moments)
    return sorted(moments_of_columns, key=lambda moments: not moments.timed)


def _by_series(case: _Case) -> Proposals | None:
    target = case.target
    if target is None or target.type != "number":
        return None
    aim = case.rows.neighbours[target.column]
    # A number written as no engine reads it cannot be a step of a series.
    if {"decimal", "thousands", "unit"} & set(target.options):
        return None
    moments = _moments(case)
    steps = _steps(case, moments)
    looks = case.near
    if steps is None and case.rows.neighbours is not case.rows.looks:
        # The first rows are too few to show many series side by side.
        looks, aim = case.pairs, case.rows.looks[target.column]
        candidates = [moments_of(look, f) for look, f in looks if f.role not in _NO_TIME]
        known = [m for m in candidates if m is not None and _filled(case, m.column)]
        steps = of_drawn(known, looks, case.rows.total)
    if steps is None and _alone(case):
        steps = in_row_order(aim.rows)
    if steps is None or forecastable(steps, aim) < _LIKE_ITSELF:
        return None
    forecast = proposed(steps, aim, looks, whole=_longer(case, steps))
    if forecast is None:
        return None
    proposals = Proposals(dict(forecast.split), forecast.why_split, forecast=forecast)
    if not steps.by_rows and steps.time is not None and steps.time.words is not None:
        name = _new_name(f"{steps.time.column}_time", case.rows.looks)
        proposals.derive[name] = steps.time.words
        proposals.split["on"] = name
        forecast.samples["time"] = name
    proposals.others.append(
        "If a row is to be answered by its own columns and not by what came before, leave `samples` and the"
        " series out, and give  targets: {" + key(target.column) + ": number}"
    )
    return proposals


def _steps(case: _Case, moments: Sequence[Moments]) -> Steps | None:
    """Steps that hold for all rows: several files may repeat the times of the first."""
    steps = steps_of(moments, case.near)
    if steps is not None and case.rows.neighbours is not case.rows.looks:
        everywhere = steps.time and moments_of(
            case.rows.looks[steps.time.column],
            next((f for f in case.columns if f.column == steps.time.column), None),
        )
        if not holds(steps, case.rows.looks, everywhere):
            steps = None
    if steps is None and case.rows.file_count > 1:
        return of_files(moments, case.rows.files)
    return steps


def _alone(case: _Case) -> bool:
    """Whether the target is the only column of values, so that its rows can only be told by each other."""
    others = [f for f in case.columns if f.role not in ("identifier", "constant")]
    return not others


def _longer(case: _Case, steps: Steps) -> float:
    """How many times as many steps a series of the whole source has as among the neighbours."""
    rows = len(steps.group)
    if steps.drawn:
        return max(case.rows.total / rows, 1.0)
    kinds = len(np.unique(steps.group))
    runs = 1 + int((np.diff(steps.group) != 0).sum())
    # Series one behind another are whole in the head; those side by side are cut.
    return 1.0 if kinds > 1 and runs <= 2 * kinds else max(case.rows.total / rows, 1.0)


def _by_time(case: _Case) -> Proposals | None:
    order = by_moments(_moments(case))
    if order is None:
        aim = case.target
        pair = None if aim is None else (case.rows.neighbours[aim.column], aim)
        order = by_neighbours(case.near, pair)
    if order is None:
        return None
    return _in_time(case, order)


def _filled(case: _Case, column: str) -> bool:
    look = case.rows.looks[column]
    return look.filled >= (1 - _MISSING) * look.rows


def _in_time(case: _Case, order: TimeOrder) -> Proposals:
    if order.column is None:
        proposals = Proposals(
            {"by": "order"},
            f"{order.why}, so the first rows teach and the last examine",
            loud=True,
        )
        proposals.others.append(
            "If the order of the rows means nothing, split by chance:  split: {train: 0.8, validation: 0.1,"
            " test: 0.1}"
        )
        return proposals
    on = order.column.column
    proposals = Proposals(
        {"by": "time", "on": on}, f"{order.why}: the latest rows examine"
    )
    if order.column.words is not None:
        on = _new_name(f"{on}_time", case.rows.looks)
        proposals.derive[on] = order.column.words
        proposals.split["on"] = on
    proposals.others.append(
        "If rows are not to be foretold from earlier ones, split by chance:  split: {train: 0.8, validation:"
        " 0.1, test: 0.1}"
    )
    return proposals


# -- groups and classes --------------------------------------------------------------------------------------


def _by_group(case: _Case) -> Proposals | None:
    groups: Groups = groups_of(case.pairs, case.look())
    for column in groups.crossing:
        _known_again(case, column, groups.crossing)
    group = groups.group
    if group is None:
        return None
    place = next(i for i, f in enumerate(case.columns) if f.column == group.column)
    # One that gives the target away is left out for that reason already.
    if case.columns[place].role != "leak":
        case.columns[place] = _group_name(case.columns[place], group)
    proposals = Proposals({"on": group.column})
    proposals.why = (
        f"rows of one {group.column} are alike ({shown(group.alike)}: {group.agreement:.0%} beyond chance),"
        " so none of them is in two splits"
    )
    proposals.others.append(
        f"If the model is to answer for the {key(group.column)} it has seen, leave `on` out and make"
        f" {key(group.column)} an input."
    )
    return proposals


def _group_name(finding: Finding, group: Group) -> Finding:
    why = (
        f"names the group of a row ({group.groups:,} of them, {group.rows:.1f} rows each); the model answers"
        " for groups that it has not seen, so their names teach nothing"
    )
    return replace(finding, type=None, why=why, role="group", loud=False)


def _known_again(case: _Case, column: str, both: Sequence[str]) -> None:
    """A user or an item, of which later rows ask again, is an input whatever its name."""
    place = next(i for i, f in enumerate(case.columns) if f.column == column)
    finding = case.columns[place]
    if finding.type is None and finding.role in ("identifier", "code", "text"):
        look = case.rows.looks[column]
        other = next(name for name in both if name != column)
        case.columns[place] = Finding(
            column,
            "category",
            f"{look.distinct:,} different, each with many of {other!r}: known ones are asked about again",
            look.na(),
            role="code",
        )


def _by_class(case: _Case) -> Proposals:
    plain = {"train": 0.8, "validation": 0.1, "test": 0.1}
    target = case.target
    # 0 where the target is a number.
    smallest = min(case.classes.values(), default=0)
    rows = case.rows.looks[target.column].rows if target is not None else 0
    scale = case.rows.total / max(rows, 1)
    # Of many rows, chance keeps shares unless a class is rare.
    small = case.rows.total < STRATIFY_BELOW or smallest * scale < 1_000
    # With fewer than ten rows, a class could miss a split whatever is done.
    least = 3 if len(case.classes) == 2 else FEW
    if target is not None and case.classes and small and smallest >= least:
        why = "by a seeded hash of the row; each class keeps its share in every split"
        return Proposals({"stratify": target.column, **plain}, why)
    why = "by a seeded hash of the row, so a row keeps its side when the data grows"
    return Proposals(plain, why)


def _code_hint(case: _Case) -> list[str]:
    """A column of codes that may name groups; one suggestion is read, a list is not."""
    for finding in case.columns:
        if finding.role == "code":
            return [
                f"If rows with one {shown(finding.column)} belong together, keep them on one side:  split:"
                f" {{on: {key(finding.column)}}}"
            ]
    return []


def _mind_rare(case: _Case, proposals: Proposals) -> None:
    """Of two classes of which one is rare: what is watched, and a warning where hardly any is tested."""
    target = case.target
    if target is None or len(case.classes) != 2:
        return
    rarer, count = min(case.classes.items(), key=lambda pair: pair[1])
    share = count / sum(case.classes.values())
    total = share * case.rows.total
    tested = total * (
        case.rows.splits.get("test") or float(proposals.split.get("test", 0.1))
    )
    if tested < FEW:
        case.warnings.append(
            f"the test split will have about {tested:.0f} rows with {key(target.column)} {quoted(rarer)}, of"
            f" {total:,.0f} in all: with so few positives its figures are mostly chance. Gather more of them,"
            " or give `split` a larger share for test."
        )
    if share < _RARE and target.type == "binary":
        proposals.why_watch = (
            f"{quoted(rarer)} is rare ({share:.1%}): average precision says how well it is found, accuracy"
            " does not"
        )
        # Of a handful in validation, the metric would jump from epoch to epoch.
        if tested >= FEW:
            proposals.watch = f"{target.column}.average_precision"


def shares_of(splits: Sequence[str | None], files: np.ndarray) -> dict[str, float]:
    """By split that files are: its share of the rows.

    Args:
        splits: of each file.
        files: which file each row is in `[N]`.
    """
    if not any(splits) or not len(files):
        return {}
    of_row = np.array([splits[i] or "train" for i in files.tolist()])
    return {s: float(np.mean(of_row == s)) for s in SPLITS if (of_row == s).any()}


def rows_of(sample: Sample, looks: Mapping[str, Look], mark: str) -> Rows:
    """What is known of a sample's rows as a whole.

    Args:
        looks: by column: the sample's.
        mark: what stands before decimals in the table.
    """
    table = sample.table
    # Rows that were drawn have no neighbours; the first ones of the source have.
    near = table if sample.complete or sample.head is None else sample.head
    neighbours = looks
    if near is not table:
        neighbours = {n: Look(n, near.column(n), mark=mark) for n in looks}
    total = sample.rows or table.num_rows
    if sample.rows is None and not sample.complete and sample.files:
        # Too many to be counted by a look.
        total = max(total, _UNCOUNTED)
    return Rows(
        looks,
        neighbours,
        total,
        _file_of_each(near),
        max(len(sample.files), 1),
        shares_of([file.split for file in sample.files], _file_of_each(table)),
    )


def _file_of_each(table: pa.Table) -> np.ndarray:
    if ROW_FILE not in table.column_names:
        return np.zeros(table.num_rows, np.int64)
    return np.asarray(table.column(ROW_FILE).to_numpy(), np.int64)
