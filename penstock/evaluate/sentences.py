"""An evaluation in plain sentences: how good the answers are in the question's own terms, what to beware of,
and what to try next. Pure: the data of a report in, text out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.core.wording import counted, of_100
from penstock.evaluate.compare import FEW_POSITIVES, figure
from penstock.evaluate.giveaways import giveaway_sentence, near_perfect
from penstock.evaluate.in_short import in_short
from penstock.metrics import known

_WHAT = {
    "binary": "one of two values",
    "category": "one of several classes",
    "number": "a number",
    "set": "a set of labels",
    "sequence": "a label for each step",
    "series": "the next steps of a series",
    "text": "a text",
}


@dataclass
class Story:
    """A report in sentences."""

    lead: list[str] = field(default_factory=list)
    """What was predicted, for how many rows, and how good that is."""
    beware: list[str] = field(default_factory=list)
    """What could mislead a reader of the figures."""
    next: list[str] = field(default_factory=list)
    """What is worth trying."""


def story(result: Mapping[str, Any]) -> Story:
    """Tell a report in sentences. Earlier reports have no facts for it: of them only the verdict is told."""
    tale = Story()
    for target, facts in (result.get("plain") or {}).items():
        metrics = result["metrics"][result["split"]].get(target) or {}
        tale.lead += _of_target(result, target, facts, metrics)
        tale.beware += _warnings(target, facts, metrics, result)
    for line in str(result.get("verdict") or "").splitlines():
        # For everybody, and then with figures.
        short = in_short(line, result.get("giveaways") or {})
        tale.lead += [text for text in (short, _sentence(line)) if text]
    tale.beware += [_sentence(note) for note in result.get("notes") or []]
    tale.next += _advice(result)
    return tale


def left_out(metrics: Mapping[str, Any]) -> list[str]:
    """Return the metrics that have no value, each with the reason."""
    return [
        f"{name} is left out: it has no value where {_reason(name)}."
        for name, value in metrics.items()
        if value is None
    ]


def explanations(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each metric of a report with the phrase that explains it, in the report's order."""
    names = dict.fromkeys(
        name
        for metrics in result["metrics"][result["split"]].values()
        for name in metrics
    )
    metrics = known()
    return [
        (name, metrics[name].phrase)
        for name in names
        # A metric of the user's own is explained by its author.
        if name in metrics
    ]


def _reason(name: str) -> str:
    metrics = known()
    return metrics[name].undefined if name in metrics else "its own code gives none"


def _of_target(
    result: Mapping[str, Any],
    target: str,
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> list[str]:
    kind = facts["kind"]
    rows = result["rows"] + facts["unanswered"]
    lines = [
        f"The model predicts {target} ({_WHAT[kind]}) for {counted(rows, 'row')} of"
        f" {rows_of(result['split'])}."
    ]
    if facts.get("whole") and kind != "sequence":
        missed = counted(facts["unanswered"], "row")
        lines.append(
            f"It is right for {of_100(facts['whole']['accuracy'])} of 100 rows. This counts {missed} that it"
            " cannot answer (an input is refused, or training never saw the class) as wrong; of the rows"
            f" that it can answer it is right for {of_100(metrics['accuracy'])} of 100."
        )
    elif facts["unanswered"]:
        lines.append(
            f"It cannot answer {counted(facts['unanswered'], 'row')} of them; the figures are of the other"
            f" {result['rows']:,}."
        )
    describe = _DESCRIBED.get(kind)
    if describe is not None:
        lines += describe(result, target, facts, metrics)
    return lines


def _binary(
    result: Mapping[str, Any],
    target: str,
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> list[str]:
    classes = result["classes"].get(target) or ["0", "1"]
    recall, precision = metrics.get("recall"), metrics.get("precision")
    # The figures are of the rows that were answered; which positives others have is not counted.
    some = facts["unanswered"]
    if recall is None:
        rows = "row that could be answered" if some else "row of the split"
        return [f"No {rows} has {target} = {classes[1]}, so finding them was not tested."]
    lines = [
        f"Of 100 rows with {target} = {classes[1]}{' that it can answer' if some else ''} it finds"
        f" {of_100(recall)}"
    ]
    if recall and precision is not None:
        lines[0] += (
            f"; of 100 rows that it calls {classes[1]}, {of_100(precision)} are right"
        )
    lines[0] += "."
    share = _share_of_positives(result, target)
    if share is not None:
        rows = "rows that it can answer" if some else "rows"
        lines.append(f"{of_100(share)} of 100 {rows} have {target} = {classes[1]}.")
    return lines


def _share_of_positives(result: Mapping[str, Any], target: str) -> float | None:
    matrix = (result["metrics"][result["split"]][target]).get("confusion_matrix")
    if not matrix or len(matrix) != 2:
        return None
    rows = sum(map(sum, matrix))
    return sum(matrix[1]) / rows if rows else None


def _classes(
    result: Mapping[str, Any],
    target: str,
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> list[str]:
    steps = facts["kind"] == "sequence"
    whole = facts.get("whole") and not steps
    unit = "steps" if steps else "rows"
    lines = []
    if metrics.get("accuracy") is not None and not whole:
        lines.append(
            f"It names the right {'label' if steps else 'class'} for"
            f" {of_100(metrics['accuracy'])} of 100 {unit}."
        )
    # The rivals answer the rows that the model answers, so only the figure of these compares.
    of = f"of 100 {unit}{' that the model can answer' if whole else ''}"
    return lines + _rivals(result, target, lambda m: m.get("accuracy"), of)


def _rivals(result: Mapping[str, Any], target: str, value: Any, of: str) -> list[str]:
    """Say how often the trivial and the classical answer are right."""
    classical = result.get("classical") or {}
    metrics = {"trivial": result.get("baseline"), "classical": classical.get("metrics")}
    lines = []
    for side, name in _rival_names(result, target):
        share = value((metrics[side] or {}).get(target) or {})
        if share is not None:
            lines.append(f"{name} is right for {of_100(share)} {of}.")
    return lines


def _rival_names(result: Mapping[str, Any], target: str) -> list[tuple[str, str]]:
    """(`trivial` or `classical`, what it is called at the beginning of a sentence)."""
    names = {
        "trivial": str((result.get("trivial") or {}).get(target)),
        "classical": classical_name(result, target),
    }
    return [(side, _capital(name)) for side, name in names.items()]


def classical_name(result: Mapping[str, Any], target: str) -> str:
    """Return what the classical model of a target is called; earlier reports have one for all targets."""
    classical = result.get("classical") or {}
    name = (classical.get("models") or {}).get(target) or classical.get("model")
    return str(name or "classical")


def _number(
    result: Mapping[str, Any],
    target: str,
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> list[str]:
    ours = facts.get("model") or {}
    if "half_within" not in ours:
        return []
    unit = " standard deviations" if facts.get("variables", 1) > 1 else ""
    what = "forecast values" if facts["kind"] == "series" else "answers"
    lines = [
        f"Half of the {what} are within ±{figure(ours['half_within'])}{unit} of the truth, and nine in ten"
        f" within ±{figure(ours['most_within'])}."
    ]
    for side, name in _rival_names(result, target):
        theirs = facts.get(side) or {}
        if "half_within" in theirs:
            lines.append(
                f"{name} is within ±{figure(theirs['half_within'])}{unit} for half of them."
            )
    return lines


def _set(
    result: Mapping[str, Any],
    target: str,
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> list[str]:
    ours = facts.get("model") or {}
    if "found" not in ours:
        return []
    lines = [f"Of 100 labels that rows have, it finds {of_100(ours['found'])}"]
    if "right" in ours:
        lines[0] += f"; of 100 labels that it names, {of_100(ours['right'])} are right"
    lines[0] += "."
    theirs = facts.get("classical") or {}
    if "found" in theirs:
        model = _capital(classical_name(result, target))
        lines.append(
            f"{model} finds {of_100(theirs['found'])}"
            + (
                f", and {of_100(theirs['right'])} are right."
                if "right" in theirs
                else "."
            )
        )
    return lines


def _text(
    result: Mapping[str, Any],
    target: str,
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> list[str]:
    exact = (facts.get("model") or {}).get("exact")
    if exact is None:
        return []
    lines = [f"It writes {of_100(exact)} of 100 texts exactly as they are."]
    trivial = (facts.get("trivial") or {}).get("exact")
    if trivial is not None:
        lines.append(
            f"{_capital(result['trivial'][target])} is right for {of_100(trivial)} of 100."
        )
    return lines


_DESCRIBED: dict[str, Any] = {
    "binary": _binary,
    "category": _classes,
    "sequence": _classes,
    "number": _number,
    "series": _number,
    "set": _set,
    "text": _text,
}


def _warnings(
    target: str,
    facts: Mapping[str, Any],
    metrics: Mapping[str, Any],
    result: Mapping[str, Any],
) -> list[str]:
    lines = []
    baseline = (result.get("baseline") or {}).get(target) or {}
    if name := near_perfect(metrics, baseline, result["rows"]):
        lines.append(
            f"{target}: {name} is {figure(metrics[name])}. {giveaway_sentence(result, target)}"
        )
    matrix = metrics.get("confusion_matrix")
    if facts["kind"] == "binary" and matrix and 0 < sum(matrix[1]) < FEW_POSITIVES:
        rows = counted(round(sum(matrix[1])), "row")
        which = "that could be answered" if facts["unanswered"] else "of the split"
        are = "is" if rows == "1 row" else "are"
        lines.append(
            f"{target}: only {rows} {which} {are} positive. Chance moves the"
            " figures about them a lot."
        )
    return lines


def _advice(result: Mapping[str, Any]) -> list[str]:
    verdict = str(result.get("verdict") or "")
    lines = []
    if any((result.get("giveaways") or {}).values()):
        # Whatever the other figures say: they are those of another question.
        return [
            "Take out of `inputs` what gives the answer away, unless it is known before the answer is, and"
            " train again."
        ]
    if "no signal was found" in verdict:
        lines.append(
            "Add columns that could tell the answer, and check that the target is the column you mean."
        )
    if "is clearly worse than" in verdict and "no signal was found" not in verdict:
        lines.append(_of_the_worse(result))
    elif "misses a signal" in verdict or "is clearly better than the network" in verdict:
        lines.append(
            "Try several networks together (`model: {ensemble: 5}`), another rate (`train.lr`), or, where"
            " training was not stopped early, more epochs (`train.epochs`)."
        )
    if "too few rows to compare by" in verdict:
        lines.append(
            "Measure on more rows of the rarer classes: give the test split a larger share (`split`), or add"
            " data."
        )
    if "is not clearly better than" in verdict and "margin of error" in verdict:
        lines.append(
            "More rows may show a difference; until then the simpler model is the cheaper choice."
        )
    worst = next((s for s in result.get("slices") or [] if not s["declared"]), None)
    if worst is not None:
        lines.append(
            f"Look at the rows with {worst['column']} = {worst['value']}: {worst['metric']} is"
            f" {figure(worst['value_of_metric'])} there, and {figure(worst['whole'])} on the whole."
        )
    if any(f["unanswered"] for f in (result.get("plain") or {}).values()):
        reasons = " ".join(result.get("refused_reasons") or {})
        lines.append(
            "Give the training split the classes that it lacks, or pool rare ones (`pool`)."
            if "classes of the training split" in reasons
            else "Mend the rows that could not be answered, or declare what stands for a missing value"
            " (`na`)."
        )
    return lines


def _of_the_worse(result: Mapping[str, Any]) -> str:
    kinds = {facts["kind"] for facts in (result.get("plain") or {}).values()}
    window = ", read more of the past (`window`)" if "series" in kinds else ""
    return (
        f"Train longer (`train.epochs`){window}, and check whether the data has changed since the training"
        " rows."
    )


def _sentence(text: str) -> str:
    """Begin with a capital unless it begins with a name, and end with a full stop."""
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def rows_of(split: str) -> str:
    """Return what the rows of a report are called: `the test split`, or `the later data`."""
    return "the later data" if split == "later" else f"the {split} split"
