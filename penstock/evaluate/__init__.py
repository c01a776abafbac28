"""The scales: a bundle against the truth, the trivial answer and a quick classical model; by slice; in plain
words. No torch.
"""

from penstock.evaluate.judge import evaluate
from penstock.evaluate.report import report_markdown

__all__ = ["evaluate", "report_markdown"]
