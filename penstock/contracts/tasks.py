"""Functions that one process of a training may ask another to run, by name, over a wire that proves nothing.

A name is looked up in what this process itself has declared (`launchable`); the only modules that a name may
have imported are those of `_HOMES`. So a message can ask for nothing else, and brings no code.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from penstock.core.errors import TrainingError

Task = TypeVar("Task", bound=Callable[..., Any])

_HOMES = ("penstock.train.autotune", "penstock.train.worker")
"""Modules with functions that the trainer launches; they are imported when a task is first named."""
_LONGEST_NAME = 200
_known: dict[str, Callable[..., Any]] = {}


def launchable(function: Task) -> Task:
    """Declare a function of a module that other processes may ask this one to run.

    What it takes after its `World`, and what it returns, must be plain data or annotated with types that
    pydantic reads from JSON.
    """
    _known[_name(function)] = function
    return function


def task_name(function: Callable[..., Any]) -> str:
    """The name by which another process finds a function.

    Raises:
        TrainingError: it is not declared.
    """
    name = _name(function)
    if _known.get(name) is not function:
        raise TrainingError(
            f"{name} cannot be run by other processes: it is not declared for it. Put"
            " @penstock.contracts.tasks.launchable above it, at the top level of a module that every rank"
            " imports."
        )
    return name


def task_named(name: object) -> Callable[..., Any]:
    """The function that another process has named.

    Raises:
        TrainingError: there is none of that name among those that were declared here.
    """
    if not isinstance(name, str) or len(name) > _LONGEST_NAME:
        raise TrainingError("the other process asks for a function without naming it.")
    home = name.partition(":")[0]
    if name not in _known and home in _HOMES:
        importlib.import_module(home)
    if name not in _known:
        raise TrainingError(
            f"the other process asks for {name!r}, which is no function that this one may run. Is the same"
            " version of Penstock installed on every machine?"
        )
    return _known[name]


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


__all__ = ["launchable", "task_name", "task_named"]
