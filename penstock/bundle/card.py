"""The model card (Mitchell et al. 2019, arXiv:1810.03993): what a bundle is, what it learnt from, and where
it ends.

It says what the run knows. Figures of the test split are added beside it by `penstock evaluate`, in a report
of its own: a bundle is never edited.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.core.visible import code, prose
from penstock.encode.encoding import Encoding
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
    """Write the model card as Markdown.

    Args:
        bundle: what `bundle.json` says.
        counts: the dataset's rows by fate.
        summary: what training returned.
    """
    lines = [f"# {prose(recipe.name or 'Model')} (bundle-{id})", ""]
    answers = f"Answers {_listed(encoding.targets)} from {_listed(encoding.inputs)}."
    lines += [f"{answers} Made by Penstock {bundle['penstock']}.", ""]
    lines += _origin(bundle, counts)
    lines += _targets(encoding, decision)
    lines += _inputs(encoding, bundle)
    lines += _validation(summary)
    lines += _making(bundle, summary)
    lines += _limits(bundle)
    return "\n".join(lines)


def _origin(bundle: Mapping[str, Any], counts: Mapping[str, int]) -> list[str]:
    return [
        "## Where it comes from",
        "",
        f"- dataset {code(bundle['dataset'])}",
        f"- run `{bundle['run']}`",
        f"- rows: {', '.join(f'{n:,} {word}' for word, n in counts.items())}",
        "",
    ]


def _targets(encoding: Encoding, decision: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [
        "## Targets",
        "",
        "| target | type | answers | decided |",
        "|---|---|---|---|",
    ]
    specs = encoding.specs("targets")
    for name, feature in encoding.targets.items():
        # A target may have several arrays; only the one of classes names them.
        of_arrays = (spec.facts.get("classes") for spec in specs[name].values())
        classes = next((classes for classes in of_arrays if classes), None)
        answers = "a number"
        if classes:
            more = ", …" if len(classes) > 8 else ""
            count = f"{'any' if feature.decoder == 'set' else 'one'} of {len(classes)}"
            answers = f"{count}: {', '.join(map(str, classes[:8]))}{more}"
        cells = (
            _cell(name),
            feature.type,
            _cell(answers),
            _cell(decided(decision.get(name, {}))),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _inputs(encoding: Encoding, bundle: Mapping[str, Any]) -> list[str]:
    return [
        "## Inputs",
        "",
        "| input | type | columns |",
        "|---|---|---|",
        *(
            f"| {_cell(name)} | {feature.type} | {_cell(', '.join(feature.columns(name)))} |"
            for name, feature in encoding.inputs.items()
        ),
        "",
        "## Required columns of a request",
        "",
        *(f"- {code(name)} ({kind})" for name, kind in bundle["columns"].items()),
        "",
    ]


def _validation(summary: Mapping[str, Any]) -> list[str]:
    figures = [
        f"| {_cell(target)} | {metric} | {value:.4g} |"
        for target, metrics in (summary.get("validation") or {}).items()
        if isinstance(metrics, Mapping)
        for metric, value in metrics.items()
        if isinstance(value, (int, float))
    ]
    table = ["| target | metric | value |", "|---|---|---|", *figures]
    return [
        "## Measured on the validation split",
        "",
        *(table if figures else ["Nothing was measured there."]),
        "",
        (
            "These figures chose the best epoch, so they flatter it a little. `penstock evaluate` measures"
            " the test split, with confidence intervals, baselines and slices."
        ),
        "",
    ]


def _making(bundle: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    facts = [
        f"{word.replace('_', ' ')}: {summary[word]:,}"
        for word in ("parameters", "epochs", "best_epoch", "steps")
        if isinstance(summary.get(word), int)
    ]
    measured = bundle["measured"]
    return [
        "## How it was made",
        "",
        f"- {'; '.join(facts) or 'see the run'}",
        (
            f"- the exported program answers {measured['golden_rows']} golden rows as the trained"
            f" one does, within {measured['difference']:.1e}"
        ),
        "",
    ]


def _limits(bundle: Mapping[str, Any]) -> list[str]:
    return [
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


def decided(decision: Mapping[str, Any]) -> str:
    """Summarise what was decided after training, such as thresholds."""
    parts = []
    for word, value in decision.items():
        if (
            isinstance(value, Mapping)
            and value
            and all(isinstance(v, (int, float)) for v in value.values())
        ):
            parts.append(
                f"{len(value)} {word}, {min(value.values()):.2g} to {max(value.values()):.2g}"
            )
        else:
            parts.append(
                f"{word} {value:g}"
                if isinstance(value, (int, float))
                else f"{word} {value}"
            )
    return ", ".join(parts) or "–"


def _listed(names: Any, most: int = 8) -> str:
    codes = [code(name) for name in names]
    return ", ".join(codes[:most]) + (
        f" and {len(codes) - most} more" if len(codes) > most else ""
    )


def _cell(text: str) -> str:
    return prose(text).replace("|", "\\|")
