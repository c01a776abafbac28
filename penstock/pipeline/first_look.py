"""`init`: a look at data, a recipe drafted from it, and a rehearsal of that recipe on what was looked at.

source → sample → findings → YAML → rehearsed on the same sample
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penstock.contracts.data import Source
from penstock.contracts.sample import Sample
from penstock.core.errors import Problem, RecipeError, SourceError
from penstock.core.wording import counted
from penstock.inspect import look, write_recipe
from penstock.inspect.findings import Findings
from penstock.inspect.raw_column import Finding
from penstock.pipeline.layouts import lay_out
from penstock.pipeline.rehearsal import Rehearsed, rehearse
from penstock.recipe.read import parse_yaml
from penstock.recipe.schema import Recipe, load_recipe

_LOOK = "LOOK: "


@dataclass(frozen=True)
class Seen:
    """What `init` saw, and what came of a rehearsal."""

    findings: Findings
    rehearsed: Rehearsed
    source: str
    """As the recipe names it."""
    split: str
    """The proposed split, as the recipe says it, with its reason."""


class Draft(str):
    """A recipe that `init` proposes: its text, which carries what was seen.

    `penstock.run(penstock.init(frame, target="price"))` runs it.
    """

    __slots__ = ("look",)
    look: Seen

    def __new__(cls, text: str, look: Seen) -> Draft:
        draft = super().__new__(cls, text)
        draft.look = look
        return draft

    @property
    def problems(self) -> list[str]:
        """Why `run` would end, in sentences; empty where the recipe runs as it is."""
        return [str(problem) for problem in self.look.rehearsed.problems]

    @property
    def warnings(self) -> list[str]:
        """What the user should look at, in sentences."""
        findings = self.look.findings
        chosen = [*findings.inputs, *([findings.target] if findings.target else [])]
        loud = [f"{f.column}: {f.why}" for f in chosen if f.loud]
        notes = [
            note.removeprefix(_LOOK)
            for note in findings.all_notes()
            if note.startswith(_LOOK)
        ]
        return [*notes, *loud, *self.look.rehearsed.warnings]

    def recipe(self) -> Recipe:
        """The recipe, its paths from the working folder."""
        return load_recipe(parse_yaml(self, where="the drafted recipe"))

    def to_dict(self) -> dict[str, Any]:
        """What was seen and proposed, of JSON's types alone."""
        findings, sample = self.look.findings, self.look.findings.sample
        return {
            "text": str(self),
            "source": self.look.source,
            "rows": findings.rows,
            "rows_in_source": sample.rows,
            "columns": len(findings.columns) + (findings.target is not None),
            "reading": dict(sample.reading),
            "unread": sample.unread_rows,
            "duplicates": sample.duplicates or 0,
            "target": _target(findings),
            "inputs": _inputs(findings),
            "left_out": [_entry(f) for f in findings.left_out],
            "split": self.look.split,
            "problems": self.problems,
            "warnings": self.warnings,
        }


def _entry(finding: Finding) -> dict[str, Any]:
    return {
        "column": finding.column,
        "type": finding.type,
        "why": finding.why,
        "role": finding.role,
        "loud": finding.loud,
    }


def _target(findings: Findings) -> dict[str, Any] | None:
    forecast = findings.proposals.forecast
    if forecast is None:
        return _entry(findings.target) if findings.target else None
    ahead = (
        f"the next {counted(forecast.horizon, 'step')}, from the last {forecast.window:,}"
    )
    return {
        "column": forecast.target,
        "type": "series",
        "why": f"{ahead}; {forecast.why_horizon}",
        "role": "",
        "loud": False,
    }


def _inputs(findings: Findings) -> list[dict[str, Any]]:
    """What is learnt from; of a forecast the columns that are looked back on, too."""
    forecast = findings.proposals.forecast
    if forecast is None:
        return [_entry(f) for f in findings.inputs]
    past = [Finding(column, "series", forecast.why_window) for column in forecast.columns]
    known = [f for f in findings.inputs if f.column in forecast.known]
    return [_entry(f) for f in [*past, *known]]


def draft_recipe(
    declaration: Mapping[str, Any],
    *,
    target: str | None,
    rows: int,
    name: str,
    shown_path: str | None = None,
) -> Draft:
    """Look at a source, write a recipe for it, and rehearse that.

    Args:
        declaration: of the source, whole; paths start from the working folder.
        target: the column to predict.
        rows: how many to look at.
        name: the recipe's.
        shown_path: how the recipe is to name the source, if not as declared.

    Raises:
        SourceError: nothing can be read there.
        RecipeError: a reading option does not hold, or there is no column `target`.
        ContractError: the target cannot be learnt.
    """
    laid_out = lay_out(
        declaration, target=target, sampled=lambda words: _sampled(words, rows)
    )
    if not laid_out.sample.table.num_rows:
        raise SourceError(_nothing_read(laid_out.declaration))
    findings = look(laid_out.sample, target=laid_out.target, no_inputs=laid_out.no_inputs)
    findings.notes = [*laid_out.notes, *findings.notes]
    findings.cut_from = rows if laid_out.sample.cut else 0
    # After the reading: a path in the recipe starts from the recipe's folder, this one
    # from here.
    shown = laid_out.shown(shown_path)
    text = write_recipe(findings, source_declaration=shown, name=name)
    rehearsed = _rehearsed(text, laid_out.source, laid_out.sample)
    where = str(shown.get("path") or shown.get("train") or name)
    return Draft(text, Seen(findings, rehearsed, where, _split_of(text)))


def _sampled(
    declaration: dict[str, Any], rows: int
) -> tuple[Source, Sample, dict[str, Any]]:
    """The source, a sample of it, and the reading options that the files ask for."""
    # Read as a recipe, so that wrong reading options get the usual sentences.
    source = load_recipe({"source": declaration}, base=Path.cwd(), name="init").source
    snapshot = source.preview(Path.cwd())
    words = source.proposed(snapshot)
    if words:
        whole = {"source": declaration | words}
        source = load_recipe(whole, base=Path.cwd(), name="init").source
    return source, replace(source.sample(snapshot, rows), reading=words), words


def _nothing_read(declaration: Mapping[str, Any]) -> str:
    how = (
        " Say how its files are to be read, such as  --set encoding=auto  or  --set delimiter=';'"
        if declaration["type"] == "files"
        else ""
    )
    named = declaration.get("path") or declaration.get("train") or "the source"
    return f"No row could be read from {named}.{how}"


def _rehearsed(text: str, source: Source, sample: Sample) -> Rehearsed:
    """What `run` would find in the drafted recipe, judged on the rows that were looked at."""
    try:
        recipe = load_recipe(parse_yaml(text, where="the drafted recipe"))
    except RecipeError as error:
        # A recipe of ours that does not load: the user sees why instead of a recipe
        # that fails later.
        return Rehearsed(0, error.problems or (Problem((), error.message),))
    if recipe.samples is not None and not sample.complete:
        # Rows that were drawn here and there are no series.
        return Rehearsed(0)
    return rehearse(
        recipe.model_copy(update={"source": source}),
        sample.table,
        splits=[file.split for file in sample.files],
        complete=sample.complete,
    )


def _split_of(text: str) -> str:
    """The recipe's split and its reason, from the line that says it."""
    line = next((t for t in text.splitlines() if t.startswith("split:")), "split: {}")
    declared, _, why = line.removeprefix("split:").strip().partition("  # ")
    why = why.removeprefix(_LOOK)
    return f"{declared.strip(' {}')}{f' ({why})' if why else ''}"


def name_of(path: str) -> str:
    """What a recipe over the source at `path` is called."""
    last = next(
        # The last step that is no pattern: `lake/2026/*.csv` is called `2026`.
        (part for part in reversed(path.split("/")) if part and "*" not in part),
        "unnamed",
    )
    spelt = (c if c.isalnum() or c in "-_" else "-" for c in last.split(".")[0])
    return "".join(spelt).strip("-") or "unnamed"
