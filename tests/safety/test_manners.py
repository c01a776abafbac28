"""What no test does: signal its own process, or wait for a fixed time in the hope that something has happened
by then.

A signal goes to a child that the test has started; a test waits by looking again and again
(`children.until`). A sleep within a `while` is such a look. What runs in a child process, or plays somebody
slow, is listed here with its reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent.parent
CHILD = "it runs in a process of its own, which the test has started"
SLOW = "it plays somebody who is slow"
ASKED = "an interruption, or a look at the ceiling, ends it early; the time is only the bound of the loop"
NOT_YET = "what must not happen is given time to happen; more time could only find more"
ALLOWED = {
    "core/test_memory.py::test_what_comes_near_the_ceiling_is_stopped_where_it_is_with_a_sentence": ASKED,
    "core/test_memory.py::test_outside_the_main_thread_it_is_asked": ASKED,
    "core/test_memory.py::test_below_the_ceiling_nothing_happens": NOT_YET,
    "loader/test_prefetch.py::test_an_error_comes_in_its_turn_and_ends_all": SLOW,
    "loader/test_prefetch.py::test_no_more_is_held_than_there_is_room_for": NOT_YET,
    "loader/test_prefetch.py::test_waiting_is_timed_and_having_is_not": SLOW,
    "shards/test_cache.py::test_a_killed_process_leaves_no_lock_and_no_rest": NOT_YET,
    "faults.py::_handler": SLOW,
    "matrix/faulty.py::_harm": CHILD,
    "parts/test_launchers.py::fail_at_one": CHILD,
    "parts/test_launchers.py::stumble": CHILD,
    "parts/test_launchers.py::die": CHILD,
    "parts/test_launchers.py::linger": CHILD,
    "parts/test_launchers_clusters.py::stop": CHILD,
    "parts/test_launchers_clusters.py::die": CHILD,
    "parts/test_launchers_env.py::die": CHILD,
    "safety/test_shared_state.py::test_events_may_be_read_in_the_middle_of_a_character": NOT_YET,
    "serve/test_server.py::test_too_slow_is_a_503": SLOW,
    "train/test_checkpoints_kept.py::test_the_loop_does_not_wait_for_a_slow_disk": SLOW,
    "train/test_resumed.py::start_slowly": CHILD,
}


def offences(
    tree: ast.AST, *, place: str = "", looks: bool = False
) -> Iterator[tuple[str, int, str]]:
    """Each as its function's name, its line, and what it is.

    Args:
        place: the outermost function around it.
        looks: whether it lies in a `while` of the same function.
    """
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(
            node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        )
        if isinstance(node, ast.Call) and (what := offence(node, looks=looks)):
            yield place, node.lineno, what
        name = (
            getattr(node, "name", "")
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            else ""
        )
        within = False if is_function else looks or isinstance(node, ast.While)
        yield from offences(node, place=place or name, looks=within)


def offence(call: ast.Call, *, looks: bool) -> str | None:
    text = ast.unparse(call.func)
    first = call.args[0] if call.args else None
    if text.endswith("raise_signal") or (
        text in ("os.kill", "os.killpg")
        and first is not None
        and ast.unparse(first).startswith(("os.getpid(", "os.getpgrp("))
    ):
        return "it signals its own process"
    if (
        text in ("time.sleep", "sleep")
        and first is not None
        and is_number(first)
        and not looks
    ):
        return "it waits for a fixed time"
    return None


def is_number(node: ast.AST) -> bool:
    """Whether it is a number as it is written, and above 0 (which only gives way)."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float)) and node.value > 0
    return isinstance(node, ast.BinOp) and is_number(node.left) and is_number(node.right)


def test_no_test_signals_itself_or_waits_for_a_fixed_time() -> None:
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("*.py")):
        name = path.relative_to(TESTS).as_posix()
        for place, line, what in offences(ast.parse(path.read_text("utf-8"))):
            found.setdefault(f"{name}::{place}", []).append(f"line {line}: {what}")
    assert {place: lines for place, lines in found.items() if place not in ALLOWED} == {}
    assert sorted(set(ALLOWED) - set(found)) == [], "listed here, and no longer there"


def test_the_check_finds_what_it_is_for() -> None:
    code = """
def one():
    os.kill(os.getpid(), signal.SIGINT)
def two():
    signal.raise_signal(2)
def three():
    for _ in range(3):
        time.sleep(0.5 * 2)
def four():
    while not there():
        time.sleep(0.01)
        def five():
            time.sleep(1)
def six():
    os.kill(child.pid, 2)
    time.sleep(0)
    time.sleep(seconds)
"""
    assert [(place, line) for place, line, _ in offences(ast.parse(code))] == [
        ("one", 3),
        ("two", 5),
        ("three", 8),
        ("four", 13),
    ]
