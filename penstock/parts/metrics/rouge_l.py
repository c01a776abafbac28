"""ROUGE-L (Lin 2004) by rouge-score, over Unicode words."""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np

from penstock.contracts.metric import Kind, Metric, Rows
from penstock.core.optional import require

_WORD = re.compile(r"\w+")


class _Words:
    """rouge-score's own tokenizer knows a to z alone."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


class RougeL(Metric):
    """The longest common run of words, gaps allowed, as an f1 of both lengths (rouge-score over Unicode
    words, in lower case); mean over rows (Lin 2004).
    """

    phrase: ClassVar[str] = (
        "how long the longest run of words is that answer and truth share, gaps allowed; 1 is perfect"
    )
    kinds: ClassVar[tuple[Kind, ...]] = ("text",)
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    place: ClassVar[int] = 270

    def statistic(self, rows: Rows) -> np.ndarray:
        scorer = require(
            "rouge_score.rouge_scorer",
            extra="text-metrics",
            why="judging generated texts",
        ).RougeScorer(["rougeL"], tokenizer=_Words())
        scores = [
            scorer.score(truth, answer)["rougeL"].fmeasure
            for truth, answer in zip(rows.truth, rows.answer, strict=True)
        ]
        return np.array(scores, np.float64)
