"""The laws of runtimes: `check(Runtime.load("onnx"))`.

Each runtime makes a small program of its own sort to be judged by.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from penstock.contracts.learn import Runtime
from penstock.testing.laws import _learning as _

Law = Callable[[Runtime], None]
TOLERANCE = 1e-5


def _arrays(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    return {
        "a.value": chance.normal(size=rows).astype(np.float32),
        "b.value": chance.normal(size=rows).astype(np.float32),
    }


def _opened(
    runtime: Runtime,
    judge: Callable[[Callable[[Any], dict[str, Any]]], None],
    *,
    threads: int = 1,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        judge(runtime.open(Path(name), runtime.specimen(Path(name)), threads=threads))


def answers(runtime: Runtime) -> None:
    """The specimen answers what its contract says: `y.value` is a + 2 b, one a row, as a numpy array of
    float32.
    """

    def judge(run: Callable[[Any], dict[str, Any]]) -> None:
        for rows in (1, 2, 7, 300):
            given = _arrays(rows)
            answered = run(given)
            assert list(answered) == ["y.value"], (
                f"answers: the outputs are {list(answered)}; expected ['y.value']"
            )
            assert (
                isinstance(answered["y.value"], np.ndarray)
                and answered["y.value"].dtype == np.float32
                and answered["y.value"].shape == (rows,)
            ), f"answers: found {answered['y.value']!r:.200}"
            apart = np.abs(
                answered["y.value"] - (given["a.value"] + 2 * given["b.value"])
            ).max()
            assert apart <= TOLERANCE, f"answers: off by {apart}"

    _opened(runtime, judge)


def alone(runtime: Runtime) -> None:
    """A row alone is answered as in a batch, within 1e-5, and rows keep their order."""

    def judge(run: Callable[[Any], dict[str, Any]]) -> None:
        given = _arrays(50)
        together = run(given)["y.value"]
        for i in range(50):
            apart = abs(
                run({name: values[i : i + 1] for name, values in given.items()})[
                    "y.value"
                ][0]
                - together[i]
            )
            assert apart <= TOLERANCE, f"alone: row {i} differs by {apart}"

    _opened(runtime, judge)


def pure(runtime: Runtime) -> None:
    """The same arrays give the same answers again, arrays given are not changed, and more arrays than are
    asked for do no harm.
    """

    def judge(run: Callable[[Any], dict[str, Any]]) -> None:
        given = _arrays(20)
        before = {name: values.copy() for name, values in given.items()}
        first = run(given)["y.value"].copy()
        run(_arrays(33, seed=1))
        assert np.array_equal(
            run({**given, "other.value": np.zeros(20)})["y.value"], first
        ), "pure: the answers changed"
        assert all(np.array_equal(given[name], before[name]) for name in before), (
            "pure: the given arrays were changed"
        )

    _opened(runtime, judge)


def threads(runtime: Runtime) -> None:
    """Two threads answer as one, within 1e-5."""
    answered: list[np.ndarray] = []
    for count in (2, 1):  # one at last: a runtime may set it for the whole process
        _opened(
            runtime,
            lambda run: answered.append(run(_arrays(100))["y.value"].copy()),
            threads=count,
        )
    assert np.abs(answered[0] - answered[1]).max() <= TOLERANCE, (
        "threads: the answers depend on the number of threads"
    )


def declared(runtime: Runtime) -> None:
    """Declared → loaded → declared is the identity."""
    _.declared_again("declared", runtime)


def light(runtime: Runtime) -> None:
    """The head of its file imports no torch."""
    _.light_head("light", runtime)


LAWS: tuple[Law, ...] = (answers, alone, pure, threads, declared, light)


def check(runtime: Runtime) -> None:
    """Judge one runtime by every law.

    Raises:
        AssertionError: it breaks a law.
    """
    for law in LAWS:
        law(runtime)
