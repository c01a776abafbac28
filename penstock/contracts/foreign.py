"""Foreign modules: whether the modules that a recipe names may be imported, and where they are found.

A dotted type imports, and so runs, somebody's module. Recipes that come with an artefact from elsewhere are
read inside `no_foreign_code()`, which refuses it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import ModuleType

from penstock.core.identity import sha256_file

_guards: ContextVar[tuple[Callable[[str], bool], ...]] = ContextVar("guards", default=())
"""What foreign modules must pass before they are imported; none where the words are the user's own."""
_beside: ContextVar[str | None] = ContextVar("beside", default=None)
"""The folder of the user's recipe that is being loaded: its own modules lie there."""


@contextmanager
def no_foreign_code(
    *, but: Callable[[str], bool] = lambda module: False
) -> Iterator[None]:
    """A context in which a dotted `type` is refused instead of imported, since the recipe is not the user's
    own.

    Args:
        but: modules that are let through. Nothing widens what an outer `no_foreign_code` refuses.
    """
    # Guards add up: an inner one can refuse more, and never less.
    token = _guards.set((*_guards.get(), but))
    try:
        yield
    finally:
        _guards.reset(token)


def foreign_code_allowed() -> bool:
    """Whether the words that are being read are the user's own, so that any module may be imported."""
    return not _guards.get()


def may_import(module: str) -> bool:
    """Whether a foreign module may be imported here."""
    return all(guard(module) for guard in _guards.get())


def is_loaded(module: str) -> bool:
    """Whether a module is in this process already: to name it runs nothing."""
    return module in sys.modules


_given: set[str] = set()
"""Modules that a recipe names which this process was given by its user."""


def note_given(modules: Iterable[str]) -> None:
    """Remember modules that the user's own recipe names."""
    _given.update(modules)


def was_given(module: str) -> bool:
    """Whether the user has named this module to this very process, in a recipe that may bring code."""
    return module in _given


_sources: dict[str, tuple[ModuleType, str]] = {}
"""By module of the user's own: it, and the SHA-256 of its source as it was when it was imported."""


def note_source(module: ModuleType) -> None:
    """Remember the source that a module of the user's own was imported from."""
    if file := getattr(module, "__file__", None):
        with suppress(OSError):
            _sources[module.__name__] = module, sha256_file(file)


def imported_source(name: str) -> str | None:
    """The SHA-256 of the source that a part's module was imported from; None where it was not imported as
    one, or again since. Its file may say something else by now, but that is not what runs.
    """
    module, digest = _sources.get(name, (None, None))
    return digest if module is not None and sys.modules.get(name) is module else None


@contextmanager
def modules_beside(folder: str | None) -> Iterator[None]:
    """A context in which modules that the user's recipe names are looked for in `folder` as well."""
    token = _beside.set(folder)
    try:
        yield
    finally:
        _beside.reset(token)


def recipe_folder() -> str | None:
    """The folder of the user's recipe that is being loaded; None where there is none."""
    return _beside.get()


def look_beside(folder: str | None) -> None:
    """Let modules be found in `folder`, after all other places.

    Done for a recipe that names code of its own, and for no other: a file that happens to lie beside a recipe
    must not stand in for a package that is not installed.
    """
    # Last on the path, so that a file beside the recipe stands in for no installed
    # module.
    if folder is not None and folder not in sys.path:
        sys.path.append(folder)
