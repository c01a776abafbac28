"""A command in a process of its own that stands still at a chosen moment, so that a test can press Ctrl-C
just there.

The processes come from a fork server that has imported the heavy packages once; each is a fresh fork of it,
with nothing running, that then is one `penstock` command from its first moment to its last.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SECONDS = 120.0
"""A command that takes longer hangs."""
_PRELOAD = [
    "torch",
    "duckdb",
    "penstock.api",
    "penstock.train.supervisor",
    "penstock.prepare.prepare",
    "penstock.encode.feed",
    "penstock.bundle.pack",
    "penstock.evaluate",
    "penstock.terminal.screens",
    "tests.safety.pressing",
]


@dataclass(frozen=True)
class Ended:
    """How a command has ended."""

    code: int
    output: str
    errors: str
    reached: bool
    """Whether it came to the moment."""


def press(
    arguments: list[str],
    folder: Path,
    *,
    moment: str,
    times: int,
    number: int = signal.SIGINT,
    after: int = 1,
    ignored: bool = False,
) -> Ended:
    """Run a command; when it comes to `moment`, send it a signal.

    Args:
        arguments: of `penstock`.
        folder: where its standard output and standard error go; the process's own folder.
        moment: `module:name` of a function. The process stands still before it is called, and, where the
            moment ends in `!`, after it has been.
        times: how many signals, one after the other.
        number: which.
        after: at which call of that function.
        ignored: SIGINT and SIGHUP are ignored from the start, as under `nohup … &`.

    Raises:
        AssertionError: it hangs.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_command, args=(arguments, str(folder), moment, after, ignored, theirs)
    )
    process.start()
    theirs.close()
    reached = False
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        assert ours.poll(SECONDS), "it neither comes to the moment nor ends"
        reached = ours.recv() == "here"
        for _ in range(times):
            os.kill(process.pid or 0, number)
        ours.send("go on")
    process.join(SECONDS)
    hangs = process.exitcode is None
    if hangs:
        process.kill()
        process.join()
    output, errors = ((folder / name).read_text("utf-8") for name in ("out", "err"))
    assert not hangs, f"it hangs; it has said: {errors[-2000:]}"
    return Ended(process.exitcode or 0, output, errors, reached)


def _command(
    arguments: list[str],
    folder: str,
    moment: str,
    after: int,
    ignored: bool,
    line: Connection,
) -> None:
    """What the process is."""
    os.chdir(folder)
    for number, name in ((1, "out"), (2, "err")):
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, number)
        os.close(handle)
    signal.signal(
        signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler
    )
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv = ["penstock", *arguments]
    _stand_still(moment, after, line)
    entry = importlib.import_module("penstock.__main__")
    sys.exit(entry.main())


def _stand_still(moment: str, after: int, line: Connection) -> None:
    path, _, name = moment.partition(":")
    is_behind = name.endswith("!")
    owner: Any = importlib.import_module(path)
    *outer, last = name.removesuffix("!").split(".")
    for word in outer:
        owner = getattr(owner, word)
    raw = owner.__dict__[last]
    original: Callable[..., Any] = (
        raw.__func__ if isinstance(raw, (classmethod, staticmethod)) else raw
    )
    calls = 0

    def standing(*positional: Any, **words: Any) -> Any:
        nonlocal calls
        calls += 1
        is_now = calls == after
        if is_now and not is_behind:
            _wait(line)
        value = original(*positional, **words)
        if is_now and is_behind:
            _wait(line)
        return value

    setattr(
        owner,
        last,
        type(raw)(standing) if isinstance(raw, (classmethod, staticmethod)) else standing,
    )


def _wait(line: Connection) -> None:
    line.send("here")
    line.recv()
