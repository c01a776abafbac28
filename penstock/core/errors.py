"""Errors that Penstock raises on purpose: each says where, what was found, what was expected and what to do.

    PenstockError                exit 1   (a bare one is a defect of ours)
    ├── UserError                exit 2   the user's input; nothing of ours is broken
    │   ├── RecipeError          exit 2   a recipe that does not hold; carries every problem at once
    │   ├── SourceError          exit 2   data that cannot be found or read
    │   │   └── NoRows           exit 2   … that can be read and holds not one row (predicted: no answers)
    │   ├── StoreError           exit 2   the store cannot be read or written (full, torn, refused)
    │   ├── BundleError          exit 2   a bundle that must not be opened (changed, untrusted)
    │   ├── RequestError         exit 2   rows that a bundle cannot answer; 422 over HTTP
    │   ├── TooDear              exit 2   an expression that takes more memory or time than it may
    │   └── MissingPackage       exit 2   an optional package is absent; names the extra
    ├── ContractError            exit 3   the data breaks what `expect` promises, or cannot be learnt from
    │   └── NothingLeft          exit 3   no row is left to train on
    ├── TrainingError            exit 4   training failed (loss not finite)
    │   ├── RankLost             exit 4   processes of a training died or stalled; a checkpoint may go on
    │   ├── LeaseLost            exit 4   another process has taken over what this one was working on
    │   └── Outgrown             exit 4   processes were stopped for a larger number; a checkpoint goes on
    └── Interrupted              exit 130 stopped by the user, with a checkpoint

They cross processes (Ray, Spark, spawn), so all survive pickling: one message, and facts kept in `__dict__`.
Errors leave this process in many ways (a terminal, JSON, HTTP, a diary), so credentials are blanked where an
error is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from penstock.core.redact import redacted


class PenstockError(Exception):
    """The root of all errors raised on purpose."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        message = redacted(message)
        # One argument alone: unpickling calls the class with `args`.
        super().__init__(message)
        self.message = message


class UserError(PenstockError):
    """The input is at fault, and the message says how to mend it."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe or a request."""

    path: tuple[str | int, ...]
    text: str

    def __str__(self) -> str:
        where = dotted(self.path)
        return f"{where}: {self.text}" if where else self.text


def _without_secrets(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(replace(problem, text=redacted(problem.text)) for problem in problems)


def dotted(path: Iterable[str | int]) -> str:
    """`("clean", 1, "column")` as users write it: `clean[1].column`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else step)
    return text


class RecipeError(UserError):
    """A recipe that does not hold. `problems` has every mistake, each with its path."""

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = _without_secrets(problems)

    @classmethod
    def of(cls, problems: Iterable[Problem], *, where: str) -> RecipeError:
        """One error out of many mistakes; `where` is the recipe's path or name."""
        mistakes = tuple(problems)
        head = f"{where} has {len(mistakes)} mistake{'s' if len(mistakes) != 1 else ''}:"
        # Bounded: a wide table can have as many mistakes as columns.
        lines = [f"  - {_cut(str(problem))}" for problem in mistakes[:_MOST_SHOWN]]
        if len(mistakes) > _MOST_SHOWN:
            lines.append(f"  - and {len(mistakes) - _MOST_SHOWN:,} more")
        return cls("\n".join([head, *lines]), mistakes)


_MOST_SHOWN, _MOST_CHARACTERS = 200, 3_000
"""Mistakes that one error shows, and characters of each."""


def _cut(text: str) -> str:
    """A sentence that an enormous value does not drown."""
    if len(text) <= _MOST_CHARACTERS:
        return text
    # Head and end: the reason often stands behind the enormous value.
    return f"{text[: _MOST_CHARACTERS // 2]} … {text[-_MOST_CHARACTERS // 2 :]}"


class SourceError(UserError):
    """Data that cannot be found or read."""


class NoRows(SourceError):
    """A source that can be read and holds not one row; `schema` is that of its columns, where it names
    some.
    """

    schema: Any = None


class StoreError(UserError):
    """The store cannot be read or written."""


class BundleError(UserError):
    """A bundle that must not be opened, or cannot be made."""


class RequestError(UserError):
    """Rows that a bundle cannot answer; `problems` names row, field and reason."""

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = _without_secrets(problems)


class TooDear(UserError):
    """An expression takes more memory or time than it may.

    Args:
        of_time: time, not memory.
    """

    def __init__(self, message: str, of_time: bool = False) -> None:
        super().__init__(message)
        self.of_time = of_time


class MissingPackage(UserError):
    """An optional package is not installed."""


class ContractError(PenstockError):
    """The data breaks what the recipe promised, or holds nothing to learn."""

    exit_code = 3


class NothingLeft(ContractError):
    """Of the rows that came in none is left to train on."""


class TrainingError(PenstockError):
    """Training could not go on."""

    exit_code = 4


class RankLost(TrainingError):
    """Processes died without a word, or stalled; nothing is wrong with what they computed.

    Args:
        ranks: which, as far as it is known.
        step: the last step that was begun, from 0; -1 if none was.
        size: how many processes there were, if that is known.
    """

    def __init__(
        self,
        message: str,
        ranks: tuple[int, ...] = (),
        step: int = -1,
        size: int | None = None,
    ) -> None:
        super().__init__(message)
        self.ranks, self.step, self.size = ranks, step, size


class Outgrown(TrainingError):
    """There is room for more processes; those that were there were stopped, as by the user, and nothing is
    wrong.

    Args:
        room: for how many.
        size: how many there were.
        step: the last step that they had begun, from 0; -1 if that is not known.
    """

    def __init__(
        self, message: str, room: int = 0, size: int = 0, step: int = -1
    ) -> None:
        super().__init__(message)
        self.room, self.size, self.step = room, size, step


class LeaseLost(TrainingError):
    """Another process has taken over what this one was working on: nothing more may be written from here."""


class Interrupted(PenstockError):
    """Stopped by the user; what was done is saved and can be resumed."""

    exit_code = 130
