"""A loader from flat words, for tests that try many: each goes where `penstock.Loader` wants it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import penstock
from penstock.loader import loader as loaders
from penstock.loader.options import LoaderOptions
from penstock.recipe.order import TrainOrder

_OPTIONS = {field.name for field in fields(LoaderOptions)}
_ORDER = set(TrainOrder.field_names()) - {"shuffle"}


def open_loader(data: Any, split: str = "train", **words: Any) -> loaders.Loader:
    """`penstock.Loader`, with the words of `order` and of `options` beside its own."""
    options = {word: words.pop(word) for word in _OPTIONS & words.keys()}
    order = {word: words.pop(word) for word in _ORDER & words.keys()}
    if order:
        assert "order" not in words
        words["order"] = order
    return penstock.Loader(data, split=split, options=options, **words)
