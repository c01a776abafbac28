"""What is measured of generated texts: BLEU by sacrebleu (Papineni et al. 2002; Post 2018), ROUGE-L (Lin
2004) by rouge-score over Unicode words. Each is a sum of what single rows say, so halves merge.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from penstock.core.optional import require

TEXT = ("rouge_l",)
"""Means over rows."""
COUNTS = tuple(f"bleu_{i}" for i in range(10))
"""Of a row: lengths of answer and truth, n-grams that match (1 to 4), n-grams that there are."""
_WHY = "judging generated texts"
_WORD = re.compile(r"\w+")


class _Words:
    """rouge-score's own tokenizer knows a to z alone."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


def statistics(truth: np.ndarray, answers: np.ndarray) -> dict[str, np.ndarray]:
    """By name, what each row adds `[N]`. Both are texts, object `[N]`."""
    counts = np.zeros((len(truth), len(COUNTS)))
    if len(truth):
        counts[:] = _bleu()._extract_corpus_statistics(list(answers), [list(truth)])
    rouge = require("rouge_score.rouge_scorer", extra="text-metrics", why=_WHY).RougeScorer(
        ["rougeL"], tokenizer=_Words()
    )
    found = {name: counts[:, i] for i, name in enumerate(COUNTS)}
    found["rouge_l"] = np.array(
        [rouge.score(one, other)["rougeL"].fmeasure for one, other in zip(truth, answers, strict=True)],
        np.float64,
    )
    return found


def bleu(sums: np.ndarray) -> float | None:
    """BLEU from summed counts `[10]`, as a share of 1; None without rows."""
    if not sums[1]:
        return None
    # only their ratio counts, and it must be of whole numbers
    answer, truth = (round(float(length) * 2**20) for length in sums[:2])
    right, there = sums[2:6].tolist(), sums[6:].tolist()
    made = _bleu().compute_bleu(
        correct=right, total=there, sys_len=answer, ref_len=truth, smooth_method="exp"
    )
    return float(made.score) / 100


def _bleu() -> Any:
    return require("sacrebleu.metrics", extra="text-metrics", why=_WHY).BLEU()
