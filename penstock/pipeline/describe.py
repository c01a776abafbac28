"""All that a store knows of one run, to be shown: its record, its curve, and the report on its bundle."""

from __future__ import annotations

from typing import Any

from penstock.core.errors import StoreError
from penstock.core.jsons import parsed
from penstock.core.sound import object_in
from penstock.core.store import Store
from penstock.pipeline.references import bundle_of, report_of
from penstock.run import Run


def described_run(run: Run, store: Store) -> dict[str, Any]:
    """Return a run's record, with `curve` (what each epoch measured), and `bundle` and `report` where there
    are any. What cannot be read of these is left out: the record stands by itself.
    """
    facts = {
        "reference": run.id,
        "path": str(run.path),
        **run.facts(),
        "curve": _curve(run),
    }
    try:
        bundle = bundle_of(run, store)
        report = None if bundle is None else report_of(bundle, store)
        if bundle is not None:
            facts["bundle"] = bundle
        if report is not None:
            path = store.open(f"reports/{report}").path / "report.json"
            facts["report"] = object_in(path)
    except (StoreError, OSError, ValueError, TypeError):
        pass
    return facts


def _curve(run: Run) -> list[dict[str, Any]]:
    """Return by epoch its number, `train_loss`, `validation_loss`, and whether it was the best
    so far. An epoch that was done again, after a loss of processes, is there once.
    """
    by_epoch: dict[int, dict[str, Any]] = {}
    try:
        with open(run.events_path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                # Cheap first: a long run has many lines, and few are ends of epochs.
                if '"is_best"' in line:
                    _take(by_epoch, line)
    except OSError:
        return []
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def _take(by_epoch: dict[int, dict[str, Any]], line: str) -> None:
    try:
        event = parsed(line.encode())
    except ValueError:
        return
    if not isinstance(event, dict) or not isinstance(event.get("epoch"), int):
        return
    words = ("epoch", "train_loss", "validation_loss", "is_best")
    by_epoch[event["epoch"]] = {word: event.get(word) for word in words}
