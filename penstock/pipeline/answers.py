"""Results of verbs that are no artefacts: records with `to_dict()`, which can also be
read as mappings.

report = penstock.evaluate("bundle-…")
report.metrics["income"], report["metrics"]["income"]      # the same
json.dumps(report.to_dict())
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from penstock.core.page import facts_page
from penstock.evaluate.sentences import story


class Answer(Mapping[str, Any]):
    """Read-only facts by name. `to_dict()` is what `--json` prints."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = dict(facts)

    def __getitem__(self, word: str) -> Any:
        return self._facts[word]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._facts)})"

    def _repr_html_(self) -> str:
        plain = {
            word: value
            for word, value in self._facts.items()
            if not isinstance(value, (list, Mapping))
        }
        return facts_page(type(self).__name__, plain)

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the facts, of JSON's types alone."""
        return copy.deepcopy(self._facts)


class LabelReport(Answer):
    """Which labels are probably wrong: `suspects`, `estimated_share`, `pairs`, `top`, `warnings` and more."""

    @property
    def top(self) -> list[dict[str, Any]]:
        """The worst suspects: `row_id`, `given`, `suggested`, `self_confidence`, `normalised_margin`,
        `split`, `values`.
        """
        rows: list[dict[str, Any]] = self["top"]
        return rows


class Plan(Answer):
    """The stages that `run` would go through, and their expected cost."""

    @property
    def stages(self) -> list[dict[str, Any]]:
        """By stage: `stage`, `done`, `why`, and `expects`: rows, bytes, seconds and so on, where known."""
        stages: list[dict[str, Any]] = self["stages"]
        return stages

    @property
    def notes(self) -> list[str]:
        """What a user should know before it runs, in sentences."""
        notes: list[str] = self["notes"]
        return notes

    def __repr__(self) -> str:
        left = [stage["stage"] for stage in self.stages if not stage["done"]]
        return f"Plan({self['name']!r}, to_do={left})"


class Report(Answer):
    """The evaluation of a bundle on the test split of a dataset."""

    @property
    def metrics(self) -> dict[str, Any]:
        """By target, then by name of the metric."""
        metrics: dict[str, Any] = self["metrics"]
        return metrics

    @property
    def path(self) -> str:
        """The path of the report as a page, `report.md`."""
        return str(self["path"])

    def __repr__(self) -> str:
        figures = [
            f"{target}.{name}={value:.4g}"
            for target, of_target in self.metrics.items()
            for name, value in _numbers(of_target)[:1]
        ]
        return f"Report({', '.join(figures)}, path={self.path!r})"

    def _repr_html_(self) -> str:
        split = self["split"]
        figures = {
            f"{target}: {name}": value
            for target, of_target in self.metrics.get(split, {}).items()
            for name, value in _numbers(of_target)
        }
        tale = story(self)
        facts = {"rows": self["rows"], **figures, "report": self.path}
        return facts_page("Report", facts, sentences=[*tale.lead, *tale.beware])


def _numbers(figures: Any) -> list[tuple[str, float]]:
    pairs = figures.items() if isinstance(figures, Mapping) else ()
    return [(name, value) for name, value in pairs if isinstance(value, (int, float))]


class Predictions(Answer):
    """The counts of a source's rows, and the file that has their answers."""

    @property
    def rows(self) -> int:
        """Rows that were read."""
        return int(self["rows"])

    @property
    def predicted(self) -> int:
        """Rows that were answered."""
        return int(self["predicted"])

    @property
    def refused(self) -> int:
        """Rows with a value that the bundle cannot take: answered with null, and the reason in the column
        `refused`.
        """
        return int(self["refused"])

    @property
    def unreadable(self) -> int:
        """Rows that could not be read at all; they are written beside the output."""
        return int(self["unreadable"])

    @property
    def output(self) -> str | None:
        """The file of the answers; None where only the first rows were asked for."""
        output: str | None = self["output"]
        return output

    @property
    def first(self) -> list[dict[str, Any]]:
        """The first rows with their answers, where no output was asked for; else none."""
        return list(self.get("first", []))

    def __repr__(self) -> str:
        return (
            f"Predictions({self.output!r}, rows={self.rows}, predicted={self.predicted},"
            f" refused={self.refused}, unreadable={self.unreadable})"
        )


class Description(Answer):
    """Facts about an artefact: `reference`, and what its kind has (`path`, `manifest`,
    `profile`, …).
    """

    @property
    def reference(self) -> str:
        """The name by which every verb finds it."""
        return str(self["reference"])

    def __repr__(self) -> str:
        return f"Description({self.reference!r}, words={[word for word in self if word != 'reference']})"
