"""What ranks say to each other where nothing proves who speaks: JSON of bounded size, of a closed vocabulary.

    a task      {"home": machine, "threads": n, "function": "module:name", "arguments": […]}
    an outcome  {"value": …}
                {"error": {"types": […], "message": …, "facts": {…}, "notes": […], "traceback": …}}
                {"ended": "interrupt" | an exit code}

A task names one of the functions that this process has declared itself (`contracts.tasks`), and its arguments
are read by that function's own annotations. An error is one of Penstock's classes, named by its class and
those above it, and read by its constructor's annotations; any other exception arrives as a `TrainingError`.
Nothing here imports what a message names, and whatever is wrong with one is a `TrainingError`.
"""

from __future__ import annotations

import inspect
import json
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard, get_args, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, ValidationError

from penstock.contracts.tasks import task_name, task_named
from penstock.core.errors import PenstockError, TrainingError
from penstock.core.jsons import parsed

MOST_BYTES = 32 << 20
"""The longest message that is read."""
_MOST_TEXT = 200_000
"""Characters of an error's message and of each of its notes."""
_MOST_NOTES = 20
_MOST_THREADS = 4_096


@dataclass(frozen=True)
class Ask:
    """A task, as another process asks for it."""

    home: str
    """The machine that asks."""
    threads: int
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """How something ended: with a value, or with an error."""

    value: Any = None
    error: BaseException | None = None
    is_plain: bool = True
    """Whether the error was one of Penstock's where it was raised."""


def read(data: bytes) -> dict[str, Any]:
    """A message as a mapping.

    Raises:
        TrainingError: it is none.
    """
    try:
        # Measured before anything is built from it.
        if len(data) > MOST_BYTES:
            raise ValueError(f"it has {len(data):,} bytes")
        message = parsed(data.decode())
    except ValueError as error:
        raise _nonsense(str(error)) from None
    if not isinstance(message, dict):
        raise _nonsense(f"expected an object, found {type(message).__name__}")
    return message


def _nonsense(why: str) -> TrainingError:
    return TrainingError(
        f"what another process said is no message of Penstock's ({why[:200]}). Is the same version of"
        " Penstock installed on every machine, and is the port of this training in no other use?"
    )


# -- tasks ---------------------------------------------------------------------------------------------------


def task(
    home: str, threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> bytes:
    """A task as a message.

    Raises:
        TrainingError: the function is not declared, or an argument cannot be sent.
    """
    name = task_name(function)
    values = [
        None if value is None else _plain(hint, value, f"an argument of {name}")
        for hint, value in zip(_hints(function, len(arguments)), arguments, strict=True)
    ]
    return _bytes(
        {"home": home, "threads": threads, "function": name, "arguments": values}
    )


def read_task(message: Mapping[str, Any]) -> Ask:
    """The task that a message asks for.

    Raises:
        TrainingError: it asks for what this process may not run, or makes no sense.
        PenstockError: as reading an argument raises it.
    """
    home, threads = message.get("home"), message.get("threads")
    arguments = message.get("arguments")
    if (
        not isinstance(home, str)
        or type(threads) is not int
        or not 1 <= threads <= _MOST_THREADS
        or not isinstance(arguments, list)
    ):
        raise _nonsense("a task without its machine, its threads or its arguments")
    function = task_named(message.get("function"))
    hints = _hints(function, len(arguments))
    values = [
        _of_plain(hint, value, "an argument of a task")
        for hint, value in zip(hints, arguments, strict=True)
    ]
    return Ask(home, threads, function, tuple(values))


def _hints(function: Callable[..., Any], count: int) -> list[Any]:
    """The types of the first `count` arguments behind the `World`."""
    hints = get_type_hints(function, include_extras=True)
    names = list(inspect.signature(function).parameters)[1 : count + 1]
    if len(names) != count:
        raise _nonsense(f"{count} arguments for a function that takes {len(names)}")
    return [hints.get(name, Any) for name in names]


def _plain(hint: Any, value: Any, what: str) -> Any:
    try:
        return TypeAdapter(hint).dump_python(value, mode="json", warnings="error")
    except (PydanticUserError, PydanticSerializationError, ValueError) as error:
        raise TrainingError(f"{what} cannot be sent: {error}") from None


def _of_plain(hint: Any, value: Any, what: str) -> Any:
    # Of types that cannot be sent (listeners) None may stand in.
    if value is None and (hint is Any or type(None) in get_args(hint)):
        return None
    try:
        # As JSON: then lists may stand for tuples, and mappings for dataclasses.
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except (PydanticUserError, ValidationError, ValueError) as error:
        raise _nonsense(f"{what}: {next(iter(str(error).splitlines()), '')}") from None


# -- outcomes ------------------------------------------------------------------------------------------------


def outcome(value: Any = None, *, error: BaseException | None = None) -> bytes:
    """A value, or else an error, as a message; of what cannot be sent it says so."""
    if error is None:
        try:
            return _bytes({"value": value})
        except TrainingError as unsendable:
            error = unsendable
    if isinstance(error, KeyboardInterrupt):
        return _bytes({"ended": "interrupt"})
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
        return _bytes({"ended": code & 0xFF})
    try:
        return _bytes({"error": _of_error(error)})
    except TrainingError as unsendable:
        return _bytes({"error": _of_error(unsendable)})


def _of_error(error: BaseException) -> dict[str, Any]:
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    whole = getattr(error, "traceback", None)
    if not isinstance(error, PenstockError):
        # A traceback does not travel, and a note does.
        trace = "".join(traceback.format_exception(error)).strip()
        sentence = str(error).strip() or "(no message)"
        return {
            "types": [],
            "message": f"a training process failed. {type(error).__name__}: {sentence}"[
                :_MOST_TEXT
            ],
            "facts": {},
            "notes": [*notes[: _MOST_NOTES - 1], trace[-_MOST_TEXT:]],
            "traceback": whole,
        }
    types = [kind for kind in type(error).__mro__ if issubclass(kind, PenstockError)]
    return {
        # The nearest first: where that is not known another above it is.
        "types": [kind.__name__ for kind in types],
        "message": error.message[:_MOST_TEXT],
        "facts": {
            name: _plain(hint, getattr(error, name), f"{type(error).__name__}.{name}")
            for kind in reversed(types)
            for name, hint in (_facts_of(kind) or {}).items()
        },
        "notes": [note[:_MOST_TEXT] for note in notes[:_MOST_NOTES]],
        "traceback": whole if isinstance(whole, str) else None,
    }


def read_outcome(message: Mapping[str, Any]) -> Outcome:
    """How it ended, as a message says.

    Raises:
        TrainingError: it makes no sense.
    """
    if "value" in message:
        return Outcome(message["value"])
    ended = message.get("ended")
    if ended == "interrupt":
        return Outcome(error=KeyboardInterrupt())
    if type(ended) is int and 0 <= ended <= 0xFF:
        return Outcome(error=SystemExit(ended))
    words = message.get("error")
    if not isinstance(words, dict):
        raise _nonsense("neither a value nor an error")
    types, text, facts, notes = (
        words.get(word) for word in ("types", "message", "facts", "notes")
    )
    if (
        not isinstance(text, str)
        or not isinstance(facts, dict)
        or not _are_texts(types)
        or not _are_texts(notes)
    ):
        raise _nonsense("an error without its words")
    error = _made(types, text[:_MOST_TEXT], facts)
    for note in notes[:_MOST_NOTES]:
        error.add_note(note[:_MOST_TEXT])
    if isinstance(whole := words.get("traceback"), str):
        error.traceback = whole[-_MOST_TEXT:]  # type: ignore[attr-defined]
    return Outcome(error=error, is_plain=bool(types))


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _made(types: list[str], text: str, facts: Mapping[str, Any]) -> PenstockError:
    """An error of the first class that is known here and takes what was said of it."""
    known = {kind.__name__: kind for kind in _kinds(PenstockError)}
    for kind in (known[name] for name in types if name in known):
        hints = _facts_of(kind)
        if hints is None:
            continue
        own = {
            name: _of_plain(hint, facts[name], f"{kind.__name__}.{name}")
            for name, hint in hints.items()
            if name in facts
        }
        return kind(text, **own)
    return TrainingError(text)


def _kinds(kind: type[PenstockError]) -> Iterator[type[PenstockError]]:
    """The class and those below it that are Penstock's own and loaded here."""
    if kind.__module__.startswith("penstock."):
        yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _facts_of(kind: type[PenstockError]) -> dict[str, Any] | None:
    """What its constructor takes beside the message, by name; None of one that cannot be made from that."""
    try:
        hints = get_type_hints(kind.__init__)
        names = list(inspect.signature(kind.__init__).parameters)[1:]
        for name in names[1:]:
            TypeAdapter(hints[name])
    except (NameError, KeyError, TypeError, PydanticUserError):
        return None
    if names[:1] != ["message"]:
        return None
    return {name: hints[name] for name in names[1:]}


def _bytes(message: dict[str, Any]) -> bytes:
    try:
        data = json.dumps(message).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise TrainingError(f"an answer cannot be sent as JSON: {error}") from None
    if len(data) > MOST_BYTES:
        raise TrainingError(
            f"an answer of {len(data):,} bytes cannot be sent; at most {MOST_BYTES:,} can"
        )
    return data
