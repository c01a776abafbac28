"""Prometheus meters of a server, in a registry of their own, so that several servers in
one process do not add up.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class Meters:
    """Counters of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, *, model: str, version: str) -> None:
        # A registry of its own: the library's default one is the whole process's.
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "penstock_requests",
            "Requests, by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "penstock_request_seconds",
            "Seconds from a request's first byte to its answer's last, by route.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._rows = Counter("penstock_rows", "Rows answered.", registry=registry)
        self._errors = Counter(
            "penstock_errors",
            "Requests that were not answered, by reason.",
            ["reason"],
            registry=registry,
        )
        self._batch_rows = Histogram(
            "penstock_batch_rows",
            "Rows answered by one call of the program.",
            buckets=_ROWS,
            registry=registry,
        )
        self._batch_requests = Histogram(
            "penstock_batch_requests",
            "Requests answered by one call of the program.",
            # Few requests share a batch, so 256 is the last bucket but infinity.
            buckets=_ROWS[:9],
            registry=registry,
        )
        self.in_flight = Gauge(
            "penstock_requests_in_flight",
            "Requests being answered now.",
            registry=registry,
        )
        # Always 1: a query joins its labels to the other series.
        Gauge(
            "penstock_model_info",
            "1, labelled with what is served.",
            ["model", "bundle"],
            registry=registry,
        ).labels(model, version).set(1)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered with `status` after `seconds`."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, rows: int, requests: int) -> None:
        """Count rows and requests that were answered together."""
        # The answering thread calls this; the counters have locks of their own.
        self._rows.inc(rows)
        self._batch_rows.observe(rows)
        self._batch_requests.observe(requests)

    def error(self, reason: str) -> None:
        """Count a request that was refused or failed; `reason` is one of few words."""
        self._errors.labels(reason).inc()

    def page(self) -> bytes:
        """Return all measurements in Prometheus' text format."""
        return generate_latest(self._registry)
