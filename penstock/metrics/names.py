"""The names of the measures: what each is, which way is better, which targets it judges.

A target's kind is read off its answers: `probability` [N] is binary, `value` a number, `probabilities` [N, K]
a category, or a set where the truth is [N, K] as well, and `probabilities` [N, T, K] a sequence (a class for
each step); `values` [N, H, V] is a series; `text` [N] a generated text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from penstock.core.errors import Problem, RecipeError
from penstock.core.near import Hints, did_you_mean

Kind = Literal["binary", "category", "number", "set", "sequence", "series", "text"]
ANSWER: dict[Kind, str] = {
    "binary": "probability",
    "category": "probabilities",
    "number": "value",
    "set": "probabilities",
    "sequence": "probabilities",
    "series": "values",
    "text": "text",
}

_BOTH: tuple[Kind, ...] = ("binary", "category")
_STEPS: tuple[Kind, ...] = ("binary", "category", "sequence")
_SETS: tuple[Kind, ...] = ("binary", "category", "set")
_CLASSES: tuple[Kind, ...] = ("binary", "category", "set", "sequence")
_SET: tuple[Kind, ...] = ("set",)
_ONE: tuple[Kind, ...] = ("binary",)
_NUMBER: tuple[Kind, ...] = ("number",)
_SERIES: tuple[Kind, ...] = ("series",)
_TEXT: tuple[Kind, ...] = ("text",)
_NUMBERS: tuple[Kind, ...] = ("number", "series")


@dataclass(frozen=True)
class Metric:
    """One measure."""

    name: str
    better: Literal["higher", "lower"]
    kinds: tuple[Kind, ...]
    meaning: str
    scalar: bool = True
    """False for what is a list (per class) or a matrix; such have no interval."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and greatest value it can have."""
        if self.name == "r2":
            return -math.inf, 1.0
        return 0.0, 1.0 if self.better == "higher" or self.name == "ece" else math.inf


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric(
            "roc_auc",
            "higher",
            _SETS,
            "chance that a positive row is ranked above a negative one, ties counting half; for a category or"
            " set the mean over classes, each against the rest",
        ),
        Metric(
            "average_precision",
            "higher",
            _SETS,
            "area under precision over recall, as steps; for a category or set the mean over classes",
        ),
        Metric(
            "label_ranking_average_precision",
            "higher",
            _SET,
            "for each label of a row, the share of a row's labels among those ranked as high, averaged",
        ),
        Metric(
            "subset_accuracy", "higher", _SET, "share of rows whose labels are all answered, and no other"
        ),
        Metric("accuracy", "higher", _STEPS, "share of rows (of a sequence: steps) answered right"),
        Metric(
            "log_loss",
            "lower",
            _CLASSES,
            "mean of -log(probability given to the truth), in nats; of a set the mean over its labels",
        ),
        Metric(
            "ece",
            "lower",
            _BOTH,
            "expected calibration error over 15 equal bins: how far probabilities are from shares (Naeini"
            " 2015; Guo 2017)",
        ),
        Metric("precision", "higher", _ONE, "share of the rows answered positive that are"),
        Metric("recall", "higher", _ONE, "share of the positive rows that are answered so"),
        Metric("f1", "higher", _ONE, "harmonic mean of precision and recall"),
        Metric("f1_macro", "higher", _CLASSES, "mean of the classes' f1, every class alike"),
        Metric(
            "f1_micro",
            "higher",
            _CLASSES,
            "f1 of all classes' counts together; with one class a row this is accuracy",
        ),
        Metric(
            "f1_weighted", "higher", _CLASSES, "mean of the classes' f1, weighted by how many rows each has"
        ),
        Metric("f1_per_class", "higher", _STEPS, "each class's f1, a list", scalar=False),
        Metric("f1_per_label", "higher", _SET, "each label's f1, a list", scalar=False),
        Metric(
            "confusion_matrix",
            "higher",
            _BOTH,
            "rows by true class (rows) and answered class (columns)",
            scalar=False,
        ),
        Metric(
            "r2",
            "higher",
            _NUMBER,
            "share of the truth's variance that is explained; 0 is what its mean reaches",
        ),
        Metric("rmse", "lower", _NUMBER, "root of the mean squared error, in the target's units"),
        Metric("mae", "lower", _NUMBERS, "mean absolute error, in the target's units"),
        Metric("mse", "lower", _NUMBERS, "mean squared error, in the target's units squared"),
        Metric(
            "mape",
            "lower",
            _NUMBER,
            "mean of |error| / |truth| over rows whose truth is not 0; 0.1 is ten per cent",
        ),
        Metric(
            "mse_standardised",
            "lower",
            _NUMBERS,
            "mean squared error over the squared deviation `scale` (the training split's; the truth's own"
            " unless given); of a series each variable by its own",
        ),
        Metric(
            "mae_standardised",
            "lower",
            _SERIES,
            "mean absolute error over the variable's deviation in the training split",
        ),
        Metric(
            "smape",
            "lower",
            _SERIES,
            "symmetric mean absolute percentage error: mean of 2·|error| / (|truth| + |answer|), from 0 to 2",
        ),
        Metric(
            "mase",
            "lower",
            _SERIES,
            "mean absolute error over that of the seasonal naive forecast within the training split; below 1"
            " is better than it (Hyndman and Koehler 2006)",
        ),
        Metric(
            "bleu",
            "higher",
            _TEXT,
            "how many runs of 1 to 4 words of the answers are in the truths, over all rows together, short"
            " answers punished; as a share of 1 (Papineni et al. 2002, by sacrebleu)",
        ),
        Metric(
            "rouge_l",
            "higher",
            _TEXT,
            "the longest common run of words, gaps allowed, as an f1 of both lengths; mean over rows (Lin"
            " 2004)",
        ),
        Metric(
            "pinball",
            "lower",
            _SERIES,
            "twice the pinball loss, mean over the quantiles, in deviations; without quantiles that of the"
            " median, which is the absolute error",
        ),
    )
}

DEFAULTS: dict[Kind, tuple[str, ...]] = {
    kind: tuple(
        m.name
        for m in METRICS.values()
        if kind in m.kinds and (m.name != "mse_standardised" or kind == "series")
    )
    for kind in ANSWER
}


def better(name: str) -> Literal["higher", "lower"]:
    """Which way `name` gets better. `loss`, what training minimises, is known here too.

    Raises:
        RecipeError: no such measure.
    """
    if name == "loss":
        return "lower"
    return _known(name).better


def names_for(kind: Kind, *, scalar: bool = False) -> tuple[str, ...]:
    """The measures reported for a target of this kind, best known first; only those that are one number if
    `scalar`.
    """
    return tuple(n for n in DEFAULTS[kind] if METRICS[n].scalar or not scalar)


def kind_of(answers: Mapping[str, Any], truth: Any = None) -> Kind:
    """The kind of target that gave these answers.

    Args:
        answers: by name.
        truth: the target's truth; without it a set cannot be told from a category.
    """
    if "probabilities" in answers:
        if len(getattr(answers["probabilities"], "shape", ())) == 3:
            return "sequence"
        return "set" if len(getattr(truth, "shape", ())) == 2 else "category"
    for kind, key in ANSWER.items():
        if key in answers:
            return kind
    raise RecipeError(
        f"answers to be measured need one of {', '.join(dict.fromkeys(ANSWER.values()))}; found"
        f" {', '.join(answers) or 'none'}"
    )


def chosen(names: Sequence[str], kind: Kind) -> tuple[str, ...]:
    """`names`, checked against the kind of target.

    Raises:
        RecipeError: with every name that is unknown or does not suit.
    """
    problems: list[Problem] = []
    hint = Hints(METRICS)
    for name in names:
        if name not in METRICS:
            problems.append(
                Problem((name,), f"is no metric.{hint(name)} For a {kind}: {', '.join(names_for(kind))}.")
            )
        elif kind not in METRICS[name].kinds:
            problems.append(
                Problem(
                    (name,),
                    f"judges a {' or '.join(METRICS[name].kinds)}, and this target is a {kind}. Use one of"
                    f" {', '.join(names_for(kind))}.",
                )
            )
    if problems:
        raise RecipeError.of(problems, where="the list of metrics")
    return tuple(dict.fromkeys(names))


def _known(name: str) -> Metric:
    if name not in METRICS:
        raise RecipeError(
            f"{name!r} is no metric.{did_you_mean(name, list(METRICS))} Known: {', '.join(METRICS)}."
        )
    return METRICS[name]
