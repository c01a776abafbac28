"""All columns judged: the target's type, the inputs, what is left out and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_FILE, ROW_ID, ROW_NUMBER, Feature
from penstock.core.errors import ContractError, Problem, RecipeError
from penstock.core.near import nearest
from penstock.inspect.columns import judge
from penstock.inspect.leaks import find_leaks, known_leaks
from penstock.inspect.pictures import LOOKED_AT, pictures
from penstock.inspect.proposals import Proposals, propose, rows_of
from penstock.inspect.raw_column import Finding, Look
from penstock.inspect.relations import duplicates
from penstock.inspect.sample import Sample, as_sample
from penstock.inspect.source_notes import source_notes
from penstock.inspect.steps import note
from penstock.inspect.target import SAID, judge_target
from penstock.inspect.wording import key, quoted, shown


@dataclass
class Findings:
    """What is proposed for each column of a sample, and for the target."""

    rows: int
    """Rows looked at."""
    columns: list[Finding]
    """Every column but the target, in order."""
    target: Finding | None = None
    notes: list[str] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)
    """The target's classes and their rows; empty for a number."""
    expects: dict[str, str] = field(default_factory=dict)
    """By input: what its values keep to in the sample, as a recipe's `expect` would say it."""
    cut_from: int = 0
    """How many rows were to be looked at, where these are fewer since they are wide."""
    warnings: list[str] = field(default_factory=list)
    """What whoever reads the recipe must look at: sentences, of the rows as a whole."""
    proposals: Proposals = field(default_factory=Proposals)
    """The split, the series, and what is watched."""
    sample: Sample = field(default_factory=lambda: Sample(pa.table({})), repr=False)
    """What was looked at, and what is known of the whole source."""

    @property
    def inputs(self) -> list[Finding]:
        """The columns that are proposed as inputs."""
        return [f for f in self.columns if f.type is not None]

    def all_notes(self) -> list[str]:
        """Sentences about the source, then about its rows; what wants a look begins with `LOOK: `."""
        looks = [f"LOOK: {warning}" for warning in self.warnings]
        return [*source_notes(self.sample), *self.notes, *looks]

    @property
    def left_out(self) -> list[Finding]:
        """The columns that are not, each with its reason."""
        return [f for f in self.columns if f.type is None]


# Values near the ends of a double overflow in sums of squares: what is not finite is no clue.
@np.errstate(all="ignore")
def look(
    rows: Sample | pa.Table,
    *,
    target: str | None = None,
    no_inputs: Mapping[str, str] | None = None,
) -> Findings:
    """Judge every column of a sample.

    Args:
        rows: raw ones, some thousands, as a source samples them; a bare table is one of which nothing else
            is known.
        target: the column to be foretold; None proposes types alone.
        no_inputs: columns that are left out whatever they hold, each with its reason.

    Raises:
        RecipeError: there is no such column.
        ContractError: the target cannot be learnt: it is missing everywhere, has one class, or is of a kind
            that no feature answers.
    """
    sample = as_sample(rows)
    table = sample.table
    # Columns that Penstock adds are no findings.
    names = [n for n in table.column_names if n not in (ROW_ID, ROW_FILE, ROW_NUMBER)]
    if target is not None and target not in names:
        raise _no_column(target, names)
    looks, mark = _looks(table, names)
    findings = Findings(table.num_rows, [], sample=sample)
    aim = looks.get(target) if target is not None else None
    if aim is not None:
        findings.target, findings.classes = judge_target(aim)
    findings.columns = _judged(
        {n: each for n, each in looks.items() if n != target}, no_inputs or {}
    )
    if aim is not None and findings.target is not None:
        search = find_leaks(
            [(looks[f.column], f) for f in findings.columns], aim, findings.target
        )
        findings.columns, findings.notes = search.columns, search.notes
    # After leaks are out, so that a leak does not keep an honest column from being an
    # input.
    same = duplicates([(looks[f.column], f) for f in findings.inputs])
    findings.columns = [
        _duplicate(f, same[f.column]) if f.column in same else f for f in findings.columns
    ]
    if mark == ",":
        for finding in findings.inputs:
            _warn_of_dots(finding, looks[finding.column])
    # The feature itself has the last word on the sample.
    findings.columns = [_tried(f, looks[f.column]) for f in findings.columns]
    if findings.target is not None and aim is not None:
        findings.target = _tried(findings.target, aim, target=True)
    findings.proposals = propose(
        rows_of(sample, looks, mark),
        findings.columns,
        findings.target,
        findings.classes,
        findings.warnings,
    )
    is_drawn = sample.head is not None and not sample.complete
    steps = note(sample.head if is_drawn else table, findings.columns, findings.target)
    if steps and findings.proposals.forecast is None:
        findings.notes.append(steps)
    findings.expects = {
        f.column: expected
        for f in findings.inputs
        if (expected := _expected(f, looks[f.column], is_whole=sample.complete))
    }
    return findings


def _no_column(target: str, names: list[str]) -> RecipeError:
    near = (
        nearest(target, names)
        or [n for n in names if n.strip().lower() == target.strip().lower()][:1]
    )
    hint = f" Did you mean {near[0]!r}?" if near else ""
    some = ", ".join(names[:30]) + (
        f" and {len(names) - 30} more" if len(names) > 30 else ""
    )
    return RecipeError(
        f"there is no column {target!r} to be the target.{hint} Columns: {some}.",
        (Problem(("targets", target), "is no column"),),
    )


def _judged(looks: Mapping[str, Look], no_inputs: Mapping[str, str]) -> list[Finding]:
    """What is proposed for each column by itself."""
    return [
        Finding(name, None, no_inputs[name], role="name")
        if name in no_inputs
        else pictures(look) or judge(look)
        for name, look in looks.items()
    ]


def looks_of(sample: Sample) -> dict[str, Look]:
    """Each column of a sample as `look` sees it, those that Penstock adds left out."""
    own = (ROW_ID, ROW_FILE, ROW_NUMBER)
    names = [name for name in sample.table.column_names if name not in own]
    return _looks(sample.table, names)[0]


@np.errstate(all="ignore")
def leaks_in(table: pa.Table, target: str) -> dict[str, str]:
    """Return the columns that `look` would leave out since they give the target away, each with the evidence.

    Args:
        table: the target's column and those of the inputs, raw.
        target: one of them; where it cannot be learnt, there is nothing to give away.
    """
    looks = _looks(table, table.column_names)[0]
    aim = looks.pop(target)
    try:
        finding, _ = judge_target(aim)
    except ContractError:
        return {}
    judged = _judged(looks, {})
    return known_leaks([(looks[f.column], f) for f in judged], aim, finding)


def _looks(table: pa.Table, names: list[str]) -> tuple[dict[str, Look], str]:
    """The columns, and what stands before decimals in the table where its texts agree on it."""
    looks = {name: Look(name, table.column(name)) for name in names}
    spellings = {name: look.spelling for name, look in looks.items() if look.is_text}
    marks = {s.mark for s in spellings.values() if s is not None and s.mark}
    mark = marks.pop() if len(marks) == 1 else ""
    # One column settles what another alone leaves open.
    for name, spelling in spellings.items():
        if mark and spelling is not None and spelling.doubt:
            looks[name] = Look(name, table.column(name), mark=mark)
    return looks, mark


def _warn_of_dots(finding: Finding, look: Look) -> None:
    """Say of a column of doubles that its dots may stand between thousands, as in the table's texts."""
    if finding.type != "number" or not pa.types.is_floating(look.type):
        return
    values = look.numbers[np.isfinite(look.numbers)]
    fractions = np.abs(values[values != np.floor(values)])
    thousandths = fractions * 1000
    # 1.234 and 12.5 (of 12.500) may be whole; 0.5 and 1234.5 are not.
    is_thousands = np.all(np.abs(thousandths - np.round(thousandths)) < 1e-6)
    if len(fractions) and is_thousands and np.all((fractions >= 1) & (fractions < 1000)):
        finding.why += (
            "; other columns have decimal commas: if 1.234 is more than a thousand here, say `types:"
            f' {{{key(look.name)}: text}}` of the source and {{thousands: "."}} of the feature'
        )
        finding.loud = True


def _duplicate(finding: Finding, twin: str) -> Finding:
    return Finding(
        finding.column,
        None,
        f"says exactly what {twin!r} says, value by value; it would have been {finding.type}",
        role="duplicate",
    )


def _tried(finding: Finding, look: Look, *, target: bool = False) -> Finding:
    """Have the proposed feature read the sample; the finding then says how many rows it would refuse."""
    if finding.type is None or finding.type not in Feature.types():
        return finding
    feature = Feature.load({"type": finding.type, **finding.options})
    # to decode a picture takes its time
    raw = look.raw.slice(0, LOOKED_AT) if finding.type == "image" else look.raw
    _, refused = feature.accept([raw])
    # A finding that tells of quarantined rows already is not told twice.
    if len(refused.rows) and "quarantined" not in finding.why:
        finding.why += (
            f"; {len(refused.rows):,} of the {len(raw):,} rows looked at would be quarantined:"
            f" {shown(refused.reasons[0])}"
        )
        finding.loud = True
    return finding


def _bounds(values: np.ndarray) -> tuple[float, float]:
    """Bounds that the next honest file should not break: as far beyond the values as nearly all of them span.

    What is never negative stays so. Rounded outwards to two digits of the span.
    """
    least, most = float(values.min()), float(values.max())
    low, high = np.quantile(values, [0.01, 0.99])
    span = float(high - low) or most - least or max(abs(most), 1.0)
    # What lies beyond the largest double bounds nothing.
    if not math.isfinite(span) or max(abs(least - span), abs(most + span)) > 1e300:
        return least, most
    step = 10.0 ** (math.floor(math.log10(span)) - 1)
    lower = math.floor((least - span) / step) * step
    upper = math.ceil((most + span) / step) * step
    # A step such as 0.1 is no double.
    digits = max(0, 1 - math.floor(math.log10(span)))
    lower = 0.0 if least >= 0 > lower else round(lower, digits)
    upper = 0.0 if most <= 0 < upper else round(upper, digits)
    return lower, upper


def _expected(finding: Finding, look: Look, *, is_whole: bool) -> str:
    """What the sample keeps to, for a data contract.

    Args:
        is_whole: whether the sample is all rows, so that none is known to be missing.
    """
    present = ", not_null: true" if is_whole and look.filled == look.rows else ""
    # A contract judges the raw column, and a text is no number there.
    spelt = {"decimal", "thousands", "unit"} & set(finding.options)
    if finding.type == "number" and look.filled and not spelt:
        values = look.numbers[np.isfinite(look.numbers)]
        kind = "integer" if look.whole else "number"
        low, high = (
            f"{v:.0f}" if look.whole else repr(float(v)) for v in _bounds(values)
        )
        return (
            # Bounds that YAML reads back as they are: no exponents, and no whole
            # numbers that a double rounds.
            f"{{type: {kind}, min: {low}, max: {high}{present}}}"
            if abs(values).max() < 1e14 and "e" not in low + high
            else ""
        )
    if (
        finding.type in ("category", "binary")
        and look.is_text
        and look.distinct <= 8
        and max(map(len, look.present), default=0) <= SAID
    ):
        return (
            "{allowed: ["
            + ", ".join(quoted(str(v)) for v, _ in look.present.most_common())
            + f"]{present}}}"
        )
    return ""
