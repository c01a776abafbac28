"""The split, answered and measured as it streams by; a sample of its rows is kept for what needs them
together.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_ID
from penstock.contracts.summary import lowest, sample_keys
from penstock.contracts.tensors import joined
from penstock.core.events import Events
from penstock.evaluate.sample import Sample
from penstock.metrics import Forecasting, Measures, kind_of, names_for
from penstock.metrics.names import Kind
from penstock.metrics.rows import Scale, Threshold

if TYPE_CHECKING:
    from penstock.bundle.bundle import Bundle
    from penstock.data.dataset import Dataset
    from penstock.data.encoding import Encoding
    from penstock.data.sampled_dataset import SampledDataset
    from penstock.evaluate.forecast import Naive
    from penstock.evaluate.trivial import Trivial

SAMPLE = 200_000
"""Rows kept for intervals, slices and the classical model: at that many an interval is a fifth of a per cent
wide.
"""
SAMPLE_BYTES = 128 * 2**20
"""Where rows are wide (windows of a series, long texts), as many as take about so much."""
BATCH = 8_192


@dataclass
class Readable:
    """Rows that can be judged."""

    table: pa.Table
    columns: Mapping[str, pa.Array]
    """Canonical columns by feature."""
    truth: dict[str, np.ndarray]
    weight: np.ndarray | None
    reasons: list[str]
    """Why the others were refused, one a row."""


def read(encoding: Encoding, table: pa.Table) -> Readable:
    """The rows of a prepared table whose inputs, targets and weight all are acceptable, with their truths."""
    accepted = encoding.accept(table, targets=True)
    reasons = [str(problems[0]) for _, problems in sorted(accepted.refused.items())]
    if accepted.refused:
        good = np.ones(len(table), bool)
        good[list(accepted.refused)] = False
        table, accepted = table.filter(pa.array(good)), accepted.kept()
    stored = {
        f"{name}.{array}": values
        for name, feature in encoding.targets.items()
        for array, values in feature.encode(accepted.columns[name], encoding.fitted[name]).items()
    }
    return Readable(
        table,
        accepted.columns,
        encoding.truth(stored),
        None if accepted.weight is None else accepted.weight.astype(np.float64),
        reasons,
    )


@dataclass
class Judged:
    """A split, answered."""

    split: str
    kinds: dict[str, Kind]
    thresholds: dict[str, Threshold]
    """By target; of a set one a label."""
    scales: dict[str, Scale]
    """Number targets: the training split's deviation; series: each variable's, and what else their measures
    need.
    """
    classes: dict[str, Sequence[str]]
    """Category and binary targets: the classes' names, where the feature tells them."""
    rows: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    measures: dict[str, Measures] = field(default_factory=dict)
    trivial_measures: dict[str, Measures] = field(default_factory=dict)
    columns: dict[str, pa.Array] = field(default_factory=dict)
    """Of the sample: canonical inputs by feature."""
    extra: dict[str, pa.Array] = field(default_factory=dict)
    """Of the sample: raw columns asked for."""
    truth: dict[str, np.ndarray] = field(default_factory=dict)
    answers: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    weight: np.ndarray | None = None
    sample_rows: int = 0

    @property
    def broken(self) -> list[str]:
        """Targets with an answer that is not finite."""
        return [name for name, measures in self.measures.items() if measures.broken]

    def metrics(self) -> dict[str, dict[str, Any]]:
        return {name: measures.result() for name, measures in self.measures.items()}

    def baseline(self) -> dict[str, dict[str, Any]]:
        return {name: measures.result() for name, measures in self.trivial_measures.items()}

    def commonest_reason(self) -> str:
        return self.reasons.most_common(1)[0][0] if self.reasons else "–"


def answer_split(
    bundle: Bundle,
    dataset: Dataset | SampledDataset,
    split: str,
    *,
    trivial: Mapping[str, Trivial | Naive],
    extra_columns: Sequence[str],
    events: Events,
    overlap: int = 1,
) -> Judged:
    """Answer every acceptable row of `split` and measure it, the trivial answer beside it.

    Args:
        overlap: how many neighbouring rows share what they answer (windows of a series).
    """
    encoding, predictor = bundle.encoding, bundle.predictor()
    facts = {name: facts_of(encoding, name) for name in encoding.targets}
    total = int(dataset.counts.get(split, 0))
    judged = Judged(
        split,
        {},
        {name: _threshold(bundle.decision.get(name) or {}, facts[name]) for name in encoding.targets},
        {
            name: Forecasting.of(f, block=overlap) or float(f["std"])
            for name, f in facts.items()
            if f.get("std")
        },
        {name: f["classes"] for name, f in facts.items() if f.get("classes")},
    )
    series_bytes = sum(
        f.row_bytes() for f in (*encoding.inputs.values(), *encoding.targets.values()) if f.spans
    )
    most = min(SAMPLE, max(SAMPLE_BYTES // series_bytes, 1_000)) if series_bytes else SAMPLE
    kept: Sample[Kept] = Sample(most / max(total, 1), SAMPLE_BYTES)
    wanted = list(dict.fromkeys([ROW_ID, *encoding.columns(targets=True), *extra_columns]))
    done = 0
    for batch in dataset.batches(split, wanted, encoding.rows_at_once(BATCH)) if total else ():
        table = pa.Table.from_batches([batch])
        rows = read(encoding, table)
        done += len(table)
        judged.refused += len(rows.reasons)
        judged.reasons.update(rows.reasons)
        if len(rows.table):
            answers = {
                name: dict(encoding.targets[name].judged(found, encoding.fitted[name]))
                for name, found in _by_target(predictor.answers(rows.table), list(encoding.targets)).items()
            }
            _measure(judged, rows, answers, trivial)
            kept.add(Kept.of(rows, answers, encoding.inputs, extra_columns))
        events.progress("evaluate", done, total, "rows")
    _keep(judged, kept.pieces)
    return judged


def _measure(
    judged: Judged,
    rows: Readable,
    answers: Mapping[str, dict[str, np.ndarray]],
    trivial: Mapping[str, Trivial | Naive],
) -> None:
    judged.rows += len(rows.table)
    for name, answer in answers.items():
        if name not in judged.measures:
            kind = judged.kinds[name] = kind_of(answer, rows.truth[name])
            judged.measures[name] = Measures(
                names_for(kind), threshold=judged.thresholds[name], scale=judged.scales.get(name)
            )
            if name in trivial:
                judged.trivial_measures[name] = Measures(names_for(kind), scale=judged.scales.get(name))
        judged.measures[name].update(rows.truth[name], answer, rows.weight)
        if name in trivial:
            judged.trivial_measures[name].update(
                rows.truth[name], trivial[name].answers(len(rows.table), rows.columns), rows.weight
            )


def _by_target(answers: Mapping[str, np.ndarray], targets: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """`<target>.<answer>` → by target. The answer's name has no dot; a target's may."""
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in targets}
    for key, values in answers.items():
        target, _, answer = key.rpartition(".")
        found[target][answer] = np.asarray(values)
    return found


@dataclass
class Kept:
    """A batch's rows that belong to the sample."""

    keys: np.ndarray
    columns: dict[str, pa.Array]
    extra: dict[str, pa.Array]
    truth: dict[str, np.ndarray]
    answers: dict[str, dict[str, np.ndarray]]
    weight: np.ndarray | None

    @classmethod
    def of(
        cls,
        rows: Readable,
        answers: Mapping[str, dict[str, np.ndarray]],
        inputs: Iterable[str],
        extra: Sequence[str],
    ) -> Kept:
        return cls(
            sample_keys(rows.table.column(ROW_ID).combine_chunks()),
            {name: _without_bytes(_array(rows.columns[name])) for name in inputs},
            {name: _array(rows.table.column(name)) for name in extra},
            rows.truth,
            {name: dict(answer) for name, answer in answers.items()},
            rows.weight,
        )

    @property
    def rows(self) -> int:
        return len(self.keys)

    @property
    def nbytes(self) -> int:
        columns: int = sum(column.nbytes for column in (*self.columns.values(), *self.extra.values()))
        return columns + sum(
            _held(array)
            for array in (
                *self.truth.values(),
                *(a for answer in self.answers.values() for a in answer.values()),
            )
        )

    def below(self, share: float) -> Kept:
        """The rows whose keys are in the lowest `share`."""
        mask = lowest(self.keys, share)
        if mask.all():
            return self
        arrow = pa.array(mask)
        return Kept(
            self.keys[mask],
            {name: column.filter(arrow) for name, column in self.columns.items()},
            {name: column.filter(arrow) for name, column in self.extra.items()},
            {name: truth[mask] for name, truth in self.truth.items()},
            {name: {a: v[mask] for a, v in answer.items()} for name, answer in self.answers.items()},
            None if self.weight is None else self.weight[mask],
        )


def _keep(judged: Judged, kept: list[Kept]) -> None:
    if not kept:
        return
    first = kept[0]
    judged.sample_rows = sum(k.rows for k in kept)
    judged.columns = {name: pa.concat_arrays([k.columns[name] for k in kept]) for name in first.columns}
    judged.extra = {name: pa.concat_arrays([k.extra[name] for k in kept]) for name in first.extra}
    judged.truth = {name: joined([k.truth[name] for k in kept], fill=-1) for name in judged.kinds}
    judged.answers = {
        name: {a: joined([k.answers[name][a] for k in kept]) for a in answers}
        for name, answers in first.answers.items()
    }
    if first.weight is not None:
        judged.weight = np.concatenate([k.weight for k in kept if k.weight is not None])


def _array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _held(array: np.ndarray) -> int:
    """Bytes, also of texts, which are objects."""
    return int(array.nbytes) + (
        sum(sys.getsizeof(value) for value in array.flat) if array.dtype == object else 0
    )


def _without_bytes(column: pa.Array) -> pa.Array:
    """Nulls in place of bytes: no slice and no classical model reads a picture, and they would fill the
    memory.
    """
    return (
        pa.nulls(len(column), column.type)
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
        else column
    )


def _threshold(decision: Mapping[str, Any], facts: Mapping[str, Any]) -> Threshold:
    """What a bundle decided: one threshold, or one a class."""
    if "thresholds" in decision:
        return np.array([decision["thresholds"].get(str(name), 0.5) for name in facts.get("classes", ())])
    return float(decision.get("threshold", 0.5))


def facts_of(encoding: Encoding, target: str) -> dict[str, Any]:
    """What a target's arrays tell of themselves: `classes`, `mean`, `std`, `counts` where there are any."""
    found: dict[str, Any] = {}
    for spec in encoding.targets[target].spec(encoding.fitted[target]).values():
        found |= spec.facts
    return found
