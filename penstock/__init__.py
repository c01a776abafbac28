"""Penstock: deep learning on big data, from raw files in a lake to a live, trusted model, declared once and
run anywhere.

The verbs (`prepare`, `train`, `run`, …) and the nouns (`Recipe`, `Bundle`, …) are imported when first used,
so that `import penstock` costs nothing.

Some verbs share their word with the room that does the work (`penstock.train` is the verb, `penstock/train/`
the room). The verb is the face: importing a room must not hide it, so this module refuses to have a verb
replaced by a module. `from penstock.train.supervisor import …` works as ever.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from penstock._version import __version__

if TYPE_CHECKING:
    from penstock.api import (
        Loader,
        audit,
        check,
        diff,
        encode,
        evaluate,
        forget,
        init,
        labels,
        lineage,
        list_artefacts,
        plan,
        predict,
        prepare,
        profile,
        resume,
        run,
        schema,
        serve,
        show,
        subset,
        tag,
        tags,
        train,
        untag,
    )
    from penstock.bundle.bundle import Bundle
    from penstock.contracts.part import Part
    from penstock.core.errors import PenstockError
    from penstock.core.store import Store
    from penstock.encode.feed import Feed
    from penstock.prepare.dataset import Dataset
    from penstock.recipe.schema import Recipe
    from penstock.run import Run

__all__ = [
    "Bundle",
    "Dataset",
    "Feed",
    "Loader",
    "Part",
    "PenstockError",
    "Recipe",
    "Run",
    "Store",
    "__version__",
    "audit",
    "check",
    "diff",
    "encode",
    "evaluate",
    "forget",
    "init",
    "labels",
    "lineage",
    "list_artefacts",
    "plan",
    "predict",
    "prepare",
    "profile",
    "resume",
    "run",
    "schema",
    "serve",
    "show",
    "subset",
    "tag",
    "tags",
    "train",
    "untag",
]

_NOUNS = {
    "Bundle": "penstock.bundle.bundle",
    "Dataset": "penstock.prepare.dataset",
    "Feed": "penstock.encode.feed",
    "Part": "penstock.contracts.part",
    "PenstockError": "penstock.core.errors",
    "Recipe": "penstock.recipe.schema",
    "Run": "penstock.run",
    "Store": "penstock.core.store",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"penstock has no {name!r}; it has: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_NOUNS.get(name, "penstock.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Face(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
