"""What metrics share: their names, `Measures` and the one-shot `measure`, intervals, and the statistics that
several of them follow from. numpy only.

A metric itself is a file in `penstock/parts/metrics`; this room finds it by its name. `docs/metrics.md` says
what each means at its edges (one class, no rows, ties, weights).
"""

from penstock.contracts.metric import Forecasting, Metric
from penstock.metrics.bootstrap import intervals, percentiles, resampled
from penstock.metrics.measure import Measures, measure
from penstock.metrics.names import better, chosen, kind_of, known, metrics_for, names_for

__all__ = [
    "Forecasting",
    "Measures",
    "Metric",
    "better",
    "chosen",
    "intervals",
    "kind_of",
    "known",
    "measure",
    "metrics_for",
    "names_for",
    "percentiles",
    "resampled",
]
