"""What ranks say to each other at torch's store, which proves nothing of who speaks: whatever lies there,
nothing of it runs, and it ends in a sentence.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.contracts.learn import World
from penstock.contracts.tasks import launchable, task_named
from penstock.core import credentials
from penstock.core import errors as ours
from penstock.core.errors import PenstockError, Problem, RecipeError, TrainingError
from penstock.parts.launchers import _messages, env
from penstock.parts.launchers._places import Place
from penstock.pipeline.outcome import Outcome
from penstock.recipe.schema import load_recipe
from penstock.recipe.sent import received, to_send
from penstock.train.nonfinite import NotFinite
from penstock.train.session import Job
from penstock.train.worker import work

RAN: list[str] = []


class Trap:
    """Unpickling it runs code."""

    def __reduce__(self):
        return RAN.append, ("unpickled",)


@launchable
def add(world: World, numbers: tuple[int, ...], word: str | None = None) -> int:
    RAN.append("add")
    return sum(numbers)


TRAPS = [
    pickle.dumps(Trap()),
    pickle.dumps(("error", Trap())),
    b"",
    b"\xff\xfe{}",
    b"[" * 100_000,
    b"[1]",
    b"9" * 5_000,
    b'{"error": {"types": ["Trap"], "message": 1, "facts": {}, "notes": []}}',
]
TASKS = [
    "os:system",
    "builtins:eval",
    "subprocess:run",
    "penstock.cli:main",
    "penstock.train.worker:Session",
    "penstock.train.worker:work.__globals__",
    "tests.safety.test_rank_messages:RAN.append",
    "not_imported_here.at_all:go",
    7,
    None,
]
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                "home threads function arguments value error ended types message facts notes"
                " traceback problems ranks".split()
            ),
            inner,
            max_size=8,
        )
    ),
    max_leaves=30,
)


def read_all(data: bytes) -> None:
    """Read what lies there as whatever it may be; only errors of ours may come of it."""
    for reader in (_messages.read_task, _messages.read_outcome):
        with contextlib.suppress(PenstockError):
            reader(_messages.read(data))


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary(max_size=60) | plain.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_said_is_read_or_refused_and_runs_nothing(data):
    RAN.clear()
    modules = set(sys.modules)
    read_all(data)
    assert not RAN
    assert {
        name for name in set(sys.modules) - modules if "penstock" not in name
    } == set()


@settings(max_examples=60, deadline=None)
@given(
    plain, plain, st.sampled_from(["RecipeError", "RankLost", "NotFinite", "Held", "?"])
)
def test_errors_with_any_facts_are_read_or_refused(facts, notes, kind):
    told = {"types": [kind], "message": "m", "facts": {"ranks": facts, "problems": notes}}
    for notes_ in (notes, []):
        read_all(json.dumps({"error": {**told, "notes": notes_}}).encode())


def test_traps_and_foreign_functions_are_refused():
    RAN.clear()
    for data in TRAPS:
        read_all(data)
    for name in TASKS:
        with pytest.raises(TrainingError):
            task_named(name)
        with pytest.raises(TrainingError):
            _messages.read_task(
                {"home": "h", "threads": 1, "function": name, "arguments": []}
            )
    assert not RAN and "not_imported_here" not in sys.modules
    with pytest.raises(TrainingError, match="not declared"):
        _messages.task("h", 1, read_all, (b"",))
    here = "tests.safety.test_rank_messages:add"
    for arguments in ([], [["1"]], [[1], {}], [[1], "w", 3], [None]):
        if not arguments:
            continue
        with pytest.raises(TrainingError):
            _messages.read_task(
                {"home": "h", "threads": 1, "function": here, "arguments": arguments}
            )
    asked = _messages.read_task(
        _messages.read(_messages.task("h", 2, add, ((1, 2), None)))
    )
    assert asked == _messages.Ask("h", 2, add, ((1, 2), None)) and not RAN


SPECIMENS = [
    NotFinite("not finite", step=3, culprits=("a",), batch=("a", "b")),
    ours.RankLost("lost", (1, 2), 7, 4),
    ours.Outgrown("room", 4, 2, 9),
    ours.TooDear("dear", True),
    ours.RecipeError("wrong", (Problem(("clean", 1, "column"), "is not there"),)),
    ours.RequestError("wrong", (Problem((), "is empty"),)),
    *(
        kind("a sentence")
        for kind in vars(ours).values()
        if isinstance(kind, type) and issubclass(kind, PenstockError)
    ),
]


@pytest.mark.parametrize("error", SPECIMENS, ids=lambda error: type(error).__name__)
def test_an_error_of_each_class_comes_over_whole(error):
    error.add_note("a note")
    error.traceback = "a trace"
    outcome = _messages.read_outcome(_messages.read(_messages.outcome(error=error)))
    came = outcome.error
    assert type(came) is type(error) and outcome.is_plain
    assert vars(came) == vars(error) and came.args == error.args
    assert came.exit_code == error.exit_code


def test_other_ends_come_over_as_what_they_are():
    class Own(ours.StoreError):
        pass

    def over(error):
        return _messages.read_outcome(_messages.read(_messages.outcome(error=error)))

    try:
        raise ValueError("a shape")
    except ValueError as error:
        strange = over(error)
    assert type(strange.error) is TrainingError and not strange.is_plain
    assert "ValueError: a shape" in str(strange.error)
    assert "Traceback" in strange.error.__notes__[0]
    assert type(over(Own("full")).error) is ours.StoreError  # the nearest that is ours
    assert type(over(KeyboardInterrupt()).error) is KeyboardInterrupt
    assert over(SystemExit(3)).error.code == 3
    unsendable = _messages.read_outcome(_messages.read(_messages.outcome({1, 2})))
    assert "cannot be sent" in str(unsendable.error)
    big = _messages.outcome("x" * (_messages.MOST_BYTES + 1))
    assert "cannot be sent" in str(_messages.read_outcome(_messages.read(big)).error)
    with pytest.raises(TrainingError, match="makes no sense"):
        Outcome.opened({"dataset": 3}, None)


def test_a_recipe_brings_neither_code_nor_secrets(tmp_path, monkeypatch):
    (tmp_path / "planted_by_wire.py").write_text(
        "import builtins; builtins.planted = True\n"
    )
    (tmp_path / "own_of_the_wire.py").write_text("class Net: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = {
        "name": "sent",
        "source": {"type": "files", "path": "https://me:hunter2@host/rows.csv"},
        "inputs": {"a": "number"},
        "targets": {"y": "number"},
    }
    own = load_recipe(
        {
            **words,
            "model": {"type": "own_of_the_wire:Net", "arguments": {"api_key": "k"}},
        },
        base=tmp_path,
    )
    # As in another rank's process, which has not blanked anything yet.
    monkeypatch.setattr(credentials, "_options", dict(credentials._options))
    assert credentials._options["api_key"] == "k"
    job = Job(own, "run-1", "f", "s", "feed", None, None, None, 2, 5)
    data = _messages.task("h", 1, work, (job, None))
    assert b"hunter2" not in data and b'"k"' not in data
    asked = _messages.read_task(_messages.read(data))
    again = asked.arguments[0].recipe
    assert again.is_given and again.model == own.model and again.base == own.base
    assert again.fingerprint() == own.fingerprint()
    for named in (
        {"model": {"type": "planted_by_wire:Net"}},
        {"clean": [{"type": "planted_by_wire.part"}]},
        {"launcher": {"type": "planted_by_wire.part"}},
    ):
        message = {"declared": {**words, **named}, "base": str(tmp_path)}
        if "model" in named:
            assert not received(message).is_given  # so that it is not built
            continue
        with pytest.raises(RecipeError, match="runs only with --trust"):
            received(message)
    assert "planted_by_wire" not in sys.modules and not hasattr(__builtins__, "planted")
    with pytest.raises(TrainingError, match="no recipe"):
        received({"declared": 3})
    assert to_send(own)["base"] == str(tmp_path)


def test_a_rank_that_meets_traps_in_the_store_runs_none_of_them(monkeypatch):
    from torch.distributed import TCPStore

    monkeypatch.setattr(env, "_stores", {})
    monkeypatch.setattr(env, "_LOOK_SECONDS", 0.01)
    RAN.clear()
    store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    place = Place(1, 2, 1, 2, "127.0.0.1", store.port, "a test", is_hosted=True)
    word = "0123456789abcdef"

    def follow(task: bytes, end: bytes) -> BaseException:
        number = env._meetings + 1
        hall = f"penstock/0/{number}"
        ended: list[BaseException] = []

        def rank() -> None:
            meeting = env._Meeting(place, 20.0, 20.0)
            try:
                meeting.follow()
            except BaseException as error:  # noqa: BLE001 - looked at below
                ended.append(error)
            finally:
                meeting.close()

        thread = threading.Thread(target=rank)
        thread.start()
        greeting = store.get(f"{hall}/hello/1").decode()
        store.set(f"{hall}/{word}/task/1", task)
        store.set(f"{hall}/answer/{greeting}", word)
        if end != task:
            said = store.get(f"{hall}/{word}/error/1/1")  # it waits for the rank's answer
            assert (
                type(_messages.read_outcome(_messages.read(said)).error) is TrainingError
            )
            assert store.get(f"{hall}/{word}/device/1/1") == b"absent"
        store.set(f"{hall}/{word}/end", end)
        thread.join(20)
        assert not thread.is_alive()
        return ended[0]

    strange = json.dumps(
        {"home": "h", "threads": 1, "function": "os:system", "arguments": ["true"]}
    ).encode()
    end = _messages.outcome(error=RecipeError("rank 0 refuses"))
    assert str(follow(strange, end)) == "rank 0 refuses"
    for trap in TRAPS[:3]:
        assert type(follow(trap, trap)) is TrainingError
    assert not RAN and Path("/").exists()
