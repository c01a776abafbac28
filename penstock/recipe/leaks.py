"""Inputs that read what is to be foretold: the declared kind of leak, which needs no data to be seen."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.contracts.features import Feature, SeriesFeature, reach_of
from penstock.core.errors import Problem


def leaks(inputs: Mapping[str, Feature], targets: Mapping[str, Feature]) -> list[Problem]:
    """Return problems of inputs that read a target's column."""
    # A target may read several columns, each of which would give it away.
    target_columns = {c: n for n, f in targets.items() for c in f.columns(n)}
    return [
        Problem(
            ("inputs", name),
            f"reads the column {column!r}, which is the target"
            f" {target_columns[column]!r}: that would give the answer away",
        )
        for name, feature in inputs.items()
        for column in feature.columns(name)
        if column in target_columns
    ]


def step_leaks(
    inputs: Mapping[str, Feature], targets: Mapping[str, Feature]
) -> list[Problem]:
    """Return problems of inputs that read a step of a target."""
    problems = []
    for name, feature in inputs.items():
        first, last = reach_of(feature, target=False)
        for target, other in targets.items():
            start, stop = reach_of(other, target=True)
            shared = [
                column
                for column in feature.columns(name)
                if column in other.columns(target)
            ]
            # Two plain columns are both read as they are, so any shared one leaks.
            are_plain = not isinstance(feature, SeriesFeature) and not isinstance(
                other, SeriesFeature
            )
            # Ranges of steps around the anchor, the end excluded: they overlap if the later start is before
            # the earlier end.
            if shared and (max(first, start) < min(last, stop) or are_plain):
                problems.append(
                    Problem(
                        ("inputs", name),
                        f"reads the column {shared[0]!r} where the target {target!r} does: that would"
                        " give the answer away",
                    )
                )
    return problems
