"""Columns whose names say that they belong to the answer: gold labels, confidences, annotators,
predictions, and what is only known after the fact.

A name alone leaves a column out only where it names the target or the labelling itself; all other names
need the data's word as well.
"""

from __future__ import annotations

import numpy as np

from penstock.inspect.leaks.evidence import Clues, Column, Doubt, Leak, Question, words_of
from penstock.metrics.one_column import correlation, ranks, telling

LABELLING = frozenset(
    """
    annotator annotators annotation annotations annotated labeler labeller labelers
    labellers judgment judgments adjudicator adjudicated
    """.split()
)
"""Who or what made the label."""
OF_LABELS = frozenset(
    """
    gold golden confidence conf prob probs probability proba pred preds predicted
    prediction hat true truth correct score logit agreement votes
    """.split()
)
"""Beside the target's own name: what is known of a label."""
REWRITTEN = frozenset(
    """
    code codes encoded enc id idx index num numeric int label class text name str
    desc description bin binned bucket band range group category cat level rank log
    ln log10 log1p sqrt scaled norm normalized normalised std zscore z reason cause
    date at by time flag is has dummy usd eur gbp rounded round adj adjusted copy
    raw orig original clean final value amount pct percent type grade status
    """.split()
)
"""Beside the target's own name: another way to write it. Needs the data's word."""
PREDICTIONS = frozenset(
    """
    prediction predictions predicted pred preds yhat logit logits softmax classifier
    """.split()
)
SCORES = frozenset("probability proba prob probs confidence likelihood score".split())
AFTERWARDS = frozenset(
    """
    closed closing resolved resolution completed completion finished ended discharge
    discharged outcome result results final paid repaid settled settlement refund
    refunded returned cancelled canceled cancellation churned churn terminated
    termination exit exited death died deceased recovered recoveries recovery
    approved rejected rejection decision verdict awarded delivered sold converted
    conversion defaulted default chargeoff chargeback collection collections actual
    followup diagnosis diagnosed confirmed investigation penalty winner convicted
    released
    """.split()
)
"""What happens after the fact."""
BEFORE = frozenset(
    """
    prev previous prior past last old expected estimated planned scheduled requested
    due promised target former history historical ago lag lagged yesterday initial
    pre before first average avg mean
    """.split()
)
"""What was known already, or only hoped for."""
# Of the errors undone, or of the rank correlation with a number.
_SOME, _MUCH, _MOST = 0.3, 0.6, 0.8


def is_afterwards(name: str) -> bool:
    """Whether a name is that of something after the fact."""
    words = set(words_of(name))
    return bool(words & AFTERWARDS) and not words & BEFORE


def told_by_name(column: Column, question: Question) -> Clues:
    """Judge a column's name, and what its data say of it."""
    words = set(words_of(column.name))
    if not question.is_number and words & LABELLING:
        why = "by its name it tells who labelled, or how; that is not known of new rows"
        return Clues([Leak(column.name, why, 0.3)])
    if column.name.startswith("_") and words & {"golden", "trusted", "unit"}:
        why = "by its name it belongs to the labelling, which is not there for new rows"
        return Clues([Leak(column.name, why, 0.3)])
    named = _after_target(words, question)
    if named and named <= OF_LABELS:
        why = f"by its name it is the target's {' '.join(sorted(named))}, made with the label"
        return Clues([Leak(column.name, why, 0.35)])
    needed = (
        _SOME
        if words & PREDICTIONS or (named and words & OF_LABELS)
        else _MUCH
        if named or is_afterwards(column.name)
        else _MOST
        if words & SCORES and not words & BEFORE
        else None
    )
    if needed is None:
        return Clues()
    share, association = _association(column, question)
    if question.is_number:
        needed = {_SOME: 0.8, _MUCH: 0.95, _MOST: 0.99}[needed]
    if share >= needed:
        what = (
            "by its name it is a prediction"
            if words & (PREDICTIONS | SCORES) and not named
            else "by its name it is made of the target"
            if named
            else "by its name it is only known after the fact"
        )
        return Clues([Leak(column.name, f"{what}, and {association}", 0.4 + 0.4 * share)])
    if (named or is_afterwards(column.name)) and share >= needed / 2:
        why = f"{association}, and by its name it may only be known after the fact"
        return Clues(doubts=[Doubt(column.name, why)])
    return Clues()


def _after_target(words: set[str], question: Question) -> set[str]:
    """The words beside the target's name that mark a column as made of it; empty where it is not."""
    own = set(question.tokens)
    rest = words - own
    return (
        rest
        if own <= words and rest and rest <= OF_LABELS | REWRITTEN | LABELLING
        else set()
    )


def _association(column: Column, question: Question) -> tuple[float, str]:
    """How much a column alone tells, from 0 to 1, and that in words."""
    if column.is_nested:
        return 0.0, ""
    if question.is_number:
        if not column.is_ordered:
            return 0.0, ""
        at = np.isfinite(column.numbers) & np.isfinite(question.numbers)
        if at.sum() < 40:
            return 0.0, ""
        r = correlation(ranks(column.numbers[at]), ranks(question.numbers[at]))
        return abs(r), f"its rank correlation with the target is {r:.3f}"
    judged = [question.by_value(column.cells)]
    at = np.flatnonzero(column.present)
    if len(at) >= 40:
        hits = question.hits(column.cells)
        judged.append(
            telling(hits[at], np.unique(question.truth[at], return_inverse=True)[1])
        )
        if column.is_ordered and column.distinct > 2:
            judged.append(question.by_order(column.numbers))
    best = max(judged, key=lambda t: t.score if t.to_undo >= 10 else 0.0)
    return (best.score if best.to_undo >= 10 else 0.0), best.words
