"""Answers a split and measures it as it streams by; keeps a sample of its rows for what
needs them together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_ID
from penstock.contracts.features import SeriesFeature
from penstock.contracts.metric import Kind, Metric, Scale, Threshold
from penstock.contracts.tensors import joined
from penstock.core.events import Events
from penstock.evaluate.forecast import Naive
from penstock.evaluate.pictures import picture_features
from penstock.evaluate.readable import BATCH, Readable, facts_of, read
from penstock.evaluate.sample import Sample
from penstock.evaluate.sampled_rows import SampledRows
from penstock.evaluate.trivial import Trivial
from penstock.metrics import Forecasting, Measures, kind_of, metrics_for

if TYPE_CHECKING:
    from penstock.bundle.bundle import Bundle
    from penstock.encode.encoding import Encoding
    from penstock.encode.series.sampled_dataset import SampledDataset
    from penstock.prepare.dataset import Dataset

SAMPLE = 200_000
"""Rows kept for intervals, slices and the classical model: at that many an interval is a fifth of a per cent
wide.
"""
SAMPLE_BYTES = 128 * 2**20
"""Where rows are wide (windows of a series, long texts), as many as take about so much."""


@dataclass
class Judged:
    """A split with its answers, measures and sampled rows."""

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
    own: Sequence[Metric] = ()
    """Metrics that the recipe asks for, of every target that they judge."""
    rows: int = 0
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    weights: float = 0.0
    """The weight of all measured rows together."""
    unanswered_rows: Counter[str] = field(default_factory=Counter)
    """By target the refused rows whose truth is known all the same."""
    unanswered_weight: dict[str, float] = field(
        default_factory=lambda: defaultdict(float)
    )
    """By target their weight."""
    measures: dict[str, Measures] = field(default_factory=dict)
    trivial_measures: dict[str, Measures] = field(default_factory=dict)
    columns: dict[str, pa.Array] = field(default_factory=dict)
    """Of the sample: canonical inputs by feature."""
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    """Of the sample: the simple features of inputs that are pictures, for the classical model."""
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

    def metrics_of(self, target: str) -> tuple[Metric, ...]:
        """Return the metrics of a target: those reported for its kind, and those that
        the recipe asks for.
        """
        return metrics_for(self.kinds[target], self.own)

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Return by target each metric over the whole split."""
        return {name: measures.result() for name, measures in self.measures.items()}

    def baseline(self) -> dict[str, dict[str, Any]]:
        """Return by target each metric of the trivial answer."""
        return {
            name: measures.result() for name, measures in self.trivial_measures.items()
        }

    def commonest_reason(self) -> str:
        """Return the reason for which most rows were refused."""
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
    metrics: Sequence[Metric] = (),
    pictures: bool = False,
) -> Judged:
    """Answer every acceptable row of `split` and measure it, the trivial answer beside it.

    Args:
        overlap: how many neighbouring rows share what they answer (windows of a series).
        metrics: what is measured beside what is reported for a target's kind, where it judges that kind.
        pictures: whether the simple features of pictures are kept with the sample.
    """
    encoding, predictor = bundle.encoding, bundle.predictor()
    facts = {name: facts_of(encoding, name) for name in encoding.targets}
    total = int(dataset.counts.get(split, 0))
    judged = Judged(
        split,
        {},
        {
            name: _threshold(bundle.decision.get(name) or {}, facts[name])
            for name in encoding.targets
        },
        {
            # A series has a scale for each variable, a number one; classes have none.
            name: Forecasting.of(f, block=overlap) or float(f["std"])
            for name, f in facts.items()
            if f.get("std")
        },
        {name: f["classes"] for name, f in facts.items() if f.get("classes")},
        metrics,
    )
    sample: Sample[SampledRows] = Sample(
        _sampled_rows(encoding) / max(total, 1), SAMPLE_BYTES
    )
    # Each column once: a column asked for may be an input, too.
    wanted = list(
        dict.fromkeys([ROW_ID, *encoding.columns(targets=True), *extra_columns])
    )
    done = 0
    size = encoding.rows_at_once(BATCH)
    for batch in dataset.batches(split, columns=wanted, rows=size) if total else ():
        table = pa.Table.from_batches([batch])
        rows = read(encoding, table)
        done += len(table)
        judged.refused += len(rows.reasons)
        judged.reasons.update(rows.reasons)
        for name, weights in rows.unanswered.items():
            judged.unanswered_rows[name] += len(weights)
            judged.unanswered_weight[name] += float(weights.sum())
        if len(rows.table):
            given = _by_target(predictor.answers(rows.table), list(encoding.targets))
            answers = {
                name: dict(encoding.targets[name].judged(answer, encoding.fitted[name]))
                for name, answer in given.items()
            }
            _measure(judged, rows, answers, trivial)
            # Every row is measured; only the sample's rows are kept.
            simple = picture_features(encoding, rows.columns) if pictures else {}
            extra = (encoding.inputs, extra_columns, simple)
            sample.add(SampledRows.of(rows, answers, *extra))
        events.progress("evaluate", done, total, "rows")
    _keep(judged, sample.pieces)
    return judged


def _sampled_rows(encoding: Encoding) -> int:
    """Return the most rows of the sample: fewer where rows hold series, which are wide."""
    features = (*encoding.inputs.values(), *encoding.targets.values())
    series_bytes = sum(
        each.row_bytes() for each in features if isinstance(each, SeriesFeature)
    )
    # Where series make rows wide, as many as SAMPLE_BYTES holds, but enough to judge
    # by.
    return (
        min(SAMPLE, max(SAMPLE_BYTES // series_bytes, 1_000)) if series_bytes else SAMPLE
    )


def _measure(
    judged: Judged,
    rows: Readable,
    answers: Mapping[str, dict[str, np.ndarray]],
    trivial: Mapping[str, Trivial | Naive],
) -> None:
    judged.rows += len(rows.table)
    judged.weights += float(len(rows.table) if rows.weight is None else rows.weight.sum())
    for name, answer in answers.items():
        # The kind follows from the answers, so it is known with the first batch.
        if name not in judged.measures:
            judged.kinds[name] = kind_of(answer, rows.truth[name])
            metrics, scale = judged.metrics_of(name), judged.scales.get(name)
            judged.measures[name] = Measures(
                metrics, threshold=judged.thresholds[name], scale=scale
            )
            if name in trivial:
                judged.trivial_measures[name] = Measures(metrics, scale=scale)
        judged.measures[name].update(rows.truth[name], answer, rows.weight)
        if name in trivial:
            judged.trivial_measures[name].update(
                rows.truth[name],
                trivial[name].answers(rows.truth[name], rows.columns),
                rows.weight,
            )


def _by_target(
    answers: Mapping[str, np.ndarray], targets: list[str]
) -> dict[str, dict[str, np.ndarray]]:
    """Group answers `<target>.<answer>` by target. The answer's name has no dot; a
    target's may.
    """
    by_target: dict[str, dict[str, np.ndarray]] = {name: {} for name in targets}
    for key, values in answers.items():
        # The last dot divides, since targets may have dots in their names.
        target, _, answer = key.rpartition(".")
        by_target[target][answer] = np.asarray(values)
    return by_target


def _keep(judged: Judged, pieces: list[SampledRows]) -> None:
    """Join the pieces of the sample into the columns and arrays of `judged`."""
    if not pieces:
        return
    first = pieces[0]
    judged.sample_rows = sum(piece.rows for piece in pieces)
    judged.columns = {
        name: pa.concat_arrays([piece.columns[name] for piece in pieces])
        for name in first.columns
    }
    judged.pictures = {
        name: np.concatenate([piece.pictures[name] for piece in pieces])
        for name in first.pictures
    }
    judged.extra = {
        name: pa.concat_arrays([piece.extra[name] for piece in pieces])
        for name in first.extra
    }
    # Where truths vary in length, -1 fills the steps that are not there.
    judged.truth = {
        name: joined([piece.truth[name] for piece in pieces], fill=-1)
        for name in judged.kinds
    }
    # Answers are filled with 0: a step with 0 for every class counts as not answered.
    for target, answers in first.answers.items():
        judged.answers[target] = {
            answer: joined([piece.answers[target][answer] for piece in pieces])
            for answer in answers
        }
    if first.weight is not None:
        judged.weight = np.concatenate(
            [piece.weight for piece in pieces if piece.weight is not None]
        )


def _threshold(decision: Mapping[str, Any], facts: Mapping[str, Any]) -> Threshold:
    """Return a bundle's decision: one threshold, or one for each class."""
    if "thresholds" in decision:
        return np.array(
            [
                decision["thresholds"].get(str(name), 0.5)
                for name in facts.get("classes", ())
            ]
        )
    return float(decision.get("threshold", 0.5))
