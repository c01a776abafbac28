"""The public face: an exact list; nothing heavy before it is needed; verbs that rooms do not hide."""

import subprocess
import sys

import pytest

import penstock

HEAVY = (
    "torch",
    "pandas",
    "pyarrow",
    "duckdb",
    "ibis",
    "numpy",
    "pydantic",
    "sklearn",
    "onnxruntime",
    "fastapi",
    "rich",
    "fsspec",
)


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_face_is_exact_and_sorted():
    assert penstock.__all__ == sorted(penstock.__all__)
    assert dir(penstock) == penstock.__all__
    for name in penstock.__all__:
        assert getattr(penstock, name) is not None
    with pytest.raises(AttributeError, match="penstock has no 'trian'"):
        penstock.trian  # noqa: B018


@pytest.mark.parametrize(
    "start",
    [
        "import penstock",
        (
            "import sys; sys.argv = ['penstock', '--help']\nfrom penstock.cli import main\ntry:\n   "
            " main()\nexcept SystemExit:\n    pass"
        ),
    ],
)
def test_nothing_heavy_is_imported_at_the_door(start):
    loaded = (
        run(f"{start}\nimport sys\nprint('LOADED', *sys.modules)")
        .split("LOADED")[1]
        .split()
    )
    assert not [name for name in HEAVY if name in loaded]
    ours = sorted(name for name in loaded if name.startswith("penstock"))
    core = {
        f"penstock.core.{name}"
        for name in (
            "caches",
            "errors",
            "interrupts",
            "last_resort",
            "lazy_patterns",
            "near",
            "redact",
            "secret_clients",
            "secret_names",
            "secret_shapes",
            "secret_urls",
            "secret_values",
            "visible",
        )
    }
    assert set(ours) <= {
        "penstock",
        "penstock._version",
        "penstock.cli",
        "penstock.cli.grammar",
        "penstock.cli.label_options",
        "penstock.cli.output",
        "penstock.cli.shared_options",
        "penstock.cli.store_grammar",
        "penstock.core",
        "penstock.terminal",
        "penstock.terminal.streams",
        *core,
    }


def test_every_command_has_a_function():
    """The grammar names them as texts, so that `--help` does not import them."""
    from penstock.cli import commands, grammar

    waiting = list(grammar.parser()._subparsers._group_actions[0].choices.items())
    names = []
    while waiting:
        name, command = waiting.pop()
        if command._subparsers is not None:
            # `quarantine show`: the words below it have the functions.
            waiting += command._subparsers._group_actions[0].choices.items()
            continue
        names.append(name)
        assert callable(getattr(commands, command.get_default("handler"))), name
    assert {"init", "run", "replay"} <= set(names)


def test_rooms_do_not_hide_verbs():
    assert (
        run("""
import penstock
import penstock.train.supervisor, penstock.run, penstock.evaluate, penstock.serve
from penstock.run import Run
print(*[type(getattr(penstock, verb)).__name__ for verb in ("train", "run", "evaluate", "serve")])
""").split()
        == ["function"] * 4
    )


def test_describing_and_planning_words_need_no_torch():
    assert (
        run("""
import sys
from penstock.recipe.schema import load_recipe
load_recipe({"source": {"type": "files", "path": "x"}, "inputs": {"a": "number"}, "targets": {"b": "binary"}})
from penstock.api import schema
schema()
print([m for m in ("torch", "sklearn", "onnx") if m in sys.modules])
""").strip()
        == "[]"
    )
