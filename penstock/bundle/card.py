"""The model card (Mitchell et al. 2019, arXiv:1810.03993): what a bundle is, what it learnt from, and where
it ends.

It says what the run knows. Figures of the test split are added beside it by `penstock evaluate`, in a report
of its own: a bundle is never edited.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.core.visible import code, prose
from penstock.data.encoding import Encoding
from penstock.recipe.schema import Recipe


def write(
    bundle: Mapping[str, Any],
    *,
    recipe: Recipe,
    encoding: Encoding,
    decision: Mapping[str, Mapping[str, Any]],
    counts: Mapping[str, int],
    summary: Mapping[str, Any],
    id: str,
) -> str:
    """The card as Markdown.

    Args:
        bundle: what `bundle.json` says.
        counts: the dataset's rows by fate.
        summary: what training returned.
    """
    lines = [f"# {prose(recipe.name or 'Model')} (bundle-{id})", ""]
    lines += [
        (
            f"Answers {_listed(encoding.targets)} from {_listed(encoding.inputs)}. Made by Penstock"
            f" {bundle['penstock']}."
        ),
        "",
    ]
    lines += [
        "## Where it comes from",
        "",
        f"- dataset {code(bundle['dataset'])}",
        f"- run `{bundle['run']}`",
        f"- rows: {', '.join(f'{n:,} {word}' for word, n in counts.items())}",
        "",
    ]
    lines += ["## Targets", "", "| target | type | answers | decided |", "|---|---|---|---|"]
    for name, feature in encoding.targets.items():
        classes = next(
            (
                spec.facts["classes"]
                for spec in encoding.specs("targets")[name].values()
                if spec.facts.get("classes")
            ),
            None,
        )
        said = (
            f"{'any' if feature.decoder == 'set' else 'one'} of {len(classes)}:"
            f" {', '.join(map(str, classes[:8]))}{', …' if len(classes) > 8 else ''}"
            if classes
            else "a number"
        )
        lines.append(
            f"| {_cell(name)} | {feature.type} | {_cell(said)} | {_cell(decided(decision.get(name, {})))} |"
        )
    lines += ["", "## Inputs", "", "| input | type | columns |", "|---|---|---|"]
    lines += [
        f"| {_cell(name)} | {feature.type} | {_cell(', '.join(feature.columns(name)))} |"
        for name, feature in encoding.inputs.items()
    ]
    lines += [
        "",
        "## Required columns of a request",
        "",
        *(f"- {code(name)} ({kind})" for name, kind in bundle["columns"].items()),
        "",
    ]
    lines += ["## Measured on the validation split", ""]
    figures = [
        f"| {_cell(target)} | {metric} | {value:.4g} |"
        for target, found in (summary.get("validation") or {}).items()
        if isinstance(found, Mapping)
        for metric, value in found.items()
        if isinstance(value, (int, float))
    ]
    lines += (
        ["| target | metric | value |", "|---|---|---|", *figures]
        if figures
        else ["Nothing was measured there."]
    )
    lines += [
        "",
        (
            "These figures chose the best epoch, so they flatter it a little. `penstock evaluate` measures"
            " the test split, with confidence intervals, baselines and slices."
        ),
        "",
    ]
    facts = [
        f"{word.replace('_', ' ')}: {summary[word]:,}"
        for word in ("parameters", "epochs", "best_epoch", "steps")
        if isinstance(summary.get(word), int)
    ]
    lines += [
        "## How it was made",
        "",
        f"- {'; '.join(facts) or 'see the run'}",
        (
            f"- the exported program answers {bundle['measured']['golden_rows']} golden rows as the trained"
            f" one does, within {bundle['measured']['difference']:.1e}"
        ),
        "",
    ]
    lines += [
        "## Intended use, and limits",
        "",
        (
            f"- It is meant for rows like those of {code(bundle['dataset'])}: same columns, same meaning,"
            " same population. For others its figures say nothing."
        ),
        (
            "- A category that it never saw is answered as an unseen one; a number further outside the"
            " training range than that range is wide is answered as if it lay just so far outside."
        ),
        (
            "- Its probabilities are those of the training data's base rates; they are not calibrated beyond"
            " what training does."
        ),
        (
            "- It was not examined for fairness, privacy or resistance to attack. Do so before it decides"
            " about people."
        ),
        "",
    ]
    return "\n".join(lines)


def decided(decision: Mapping[str, Any]) -> str:
    """What was decided after training, in a few words."""
    found = []
    for word, value in decision.items():
        if isinstance(value, Mapping) and value and all(isinstance(v, (int, float)) for v in value.values()):
            found.append(f"{len(value)} {word}, {min(value.values()):.2g} to {max(value.values()):.2g}")
        else:
            found.append(f"{word} {value:g}" if isinstance(value, (int, float)) else f"{word} {value}")
    return ", ".join(found) or "–"


def _listed(names: Any, most: int = 8) -> str:
    found = [code(name) for name in names]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def _cell(text: str) -> str:
    return prose(text).replace("|", "\\|")
