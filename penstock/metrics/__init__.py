"""The measures: names, mergeable meters, the one-shot `measure`, and bootstrap intervals. numpy only.

`docs/metrics.md` says what each name means at its edges (one class, no rows, ties, weights).
"""

from penstock.metrics.bootstrap import intervals, percentiles, resampled
from penstock.metrics.forecast import Forecasting
from penstock.metrics.measure import Measures, measure
from penstock.metrics.names import METRICS, Metric, better, chosen, kind_of, names_for

__all__ = [
    "METRICS",
    "Forecasting",
    "Measures",
    "Metric",
    "better",
    "chosen",
    "intervals",
    "kind_of",
    "measure",
    "names_for",
    "percentiles",
    "resampled",
]
