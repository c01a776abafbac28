"""Wrong labels, by confident learning over out-of-fold predictions of a quick model, in bounded memory."""

from penstock.labels.search import LabelErrors, Options, find_label_errors

__all__ = ["LabelErrors", "Options", "find_label_errors"]
