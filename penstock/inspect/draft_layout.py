"""What a drafted recipe says of the rows as a whole: split, samples, series, and what is watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from penstock.inspect.raw_column import Finding
from penstock.inspect.series_steps import Forecast
from penstock.inspect.wording import key, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.inspect.findings import Findings

    Flow = Callable[[Any], str]


BUDGET = "10min"
"""About as long as a person waits for a first answer."""


def split_lines(
    findings: Findings, source: Mapping[str, Any] | str, flow: Flow
) -> list[str]:
    """`derive`, `split` and `samples`, each with its reason."""
    proposals = findings.proposals
    lines = []
    if proposals.derive:
        lines += ["derive:  # what the split goes by"]
        lines += [
            f"  {key(name)}: {quoted(text)}" for name, text in proposals.derive.items()
        ]
    words, why = proposals.split, proposals.why
    # Files that are named by split decide, whatever the rows are like.
    if isinstance(source, Mapping) and source.get("train"):
        has_validation = bool(source.get("validation"))
        words = {"by": "files", **({} if has_validation else {"validation": 0.1})}
        why = "the files decide"
        why += "" if has_validation else "; validation is taken out of train"
    loud = "LOOK: " if proposals.loud else ""
    # As recipes write it; in YAML 1.1 a bare `on` was a truth value.
    written = flow(words).replace('"on":', "on:")
    lines.append(f"split: {written}  # {loud}{why}")
    if proposals.forecast is not None:
        samples = proposals.forecast.samples
        lines.append(f"samples: {flow(samples)}  # {proposals.forecast.why_samples}")
    return lines + [f"# {other}" for other in proposals.others]


def series_inputs(
    forecast: Forecast, columns: Sequence[Finding], flow: Flow
) -> list[str]:
    """The inputs of a forecast: what was, and beside it the moment and the names of the series."""
    words = {
        "type": "series",
        "columns": list(forecast.columns),
        "window": forecast.window,
    }
    lines = [f"  {past_name(forecast, columns)}: {flow(words)}  # {forecast.why_window}"]
    by_name = {finding.column: finding for finding in columns}
    for name in forecast.known:
        finding = by_name[name]
        if finding.type in ("timestamp", "category", "binary"):
            options = {"type": finding.type, **finding.options}
            entry = flow(options) if finding.options else finding.type
            lines.append(
                f"  {key(name)}: {entry}  # at the last known step: {finding.why}"
            )
        elif finding.column in forecast.samples.get("entity", ()):  # type: ignore[operator]
            lines.append(f"  {key(name)}: category  # the series; known ones go on")
    return lines


def past_name(forecast: Forecast, columns: Sequence[Finding]) -> str:
    """What the series of the past is called: no name of a column."""
    name, taken = "past", {f.column.lower() for f in columns} | {forecast.target.lower()}
    while name in taken:
        name += "_"
    return name


def series_target(forecast: Forecast, flow: Flow) -> str:
    """The target of a forecast."""
    words = {
        "type": "series",
        "columns": [forecast.target],
        "horizon": forecast.horizon,
    }
    return f"  {key(forecast.target)}: {flow(words)}  # {forecast.why_horizon}"


def left_of_series(forecast: Forecast, columns: Sequence[Finding]) -> list[Finding]:
    """Inputs that a forecast does not read: what is neither a number nor the name of a series."""
    read = {*forecast.columns, *forecast.known}
    return [f for f in columns if f.type is not None and f.column not in read]


def train_lines(findings: Findings, flow: Flow) -> list[str]:
    """How long training may take, and what early stopping watches, where it is not the loss."""
    proposals = findings.proposals
    lines = [
        "",
        "train:",
        f"  budget: {BUDGET}  # fewer epochs, where all would take longer; leave it out to train them all",
    ]
    if proposals.watch:
        watch = flow({"metric": proposals.watch})
        lines.append(f"  early_stop: {watch}  # {proposals.why_watch}")
    elif proposals.why_watch:
        lines.append(f"  # {proposals.why_watch}")
    return lines
