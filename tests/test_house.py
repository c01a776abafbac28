"""The rules of the house, each on a file that breaks it and one that does not."""

import ast
from pathlib import Path

import pytest

from tests import house, messages


def found(tmp_path: Path, **files: str) -> set[tuple[str, str]]:
    """(rule, place) of each finding in a package of these files."""
    for name, source in files.items():
        path = tmp_path / "penstock" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return {
        (one.rule, one.place.removeprefix("penstock/"))
        for one in house.findings(tmp_path)
    }


def test_lines_are_counted_without_comments_docstrings_and_blanks(tmp_path):
    body = "\n".join(["    # why", "", "    x = 1"] * house.FUNCTION_LINES)
    fits = f'def _f():\n    """Long\n    told."""\n{body}\n'
    assert found(tmp_path, a=fits) == {
        ("function", "a.py::_f")
    }  # its head is a line, too
    assert found(tmp_path, a=fits.replace("    x = 1\n", "", 1)) == set()
    long = "x = 1\n" * house.FILE_LINES
    assert found(tmp_path, a=long) == set()
    assert found(tmp_path, a=long + "y = 2\n") == {("file", "a.py")}


def test_comprehensions_are_nested_two_deep(tmp_path):
    assert found(tmp_path, a="x = [[1 for _ in ()] for _ in ()]\n") == set()
    assert found(tmp_path, a="x = [[{1 for _ in ()} for _ in ()] for _ in ()]\n") == {
        ("nested", "a.py")
    }


@pytest.mark.parametrize(
    ("head", "inner", "breaks"),
    [
        ("", "import json", True),
        ("", "import torch", False),
        ("import torch", "import torch", True),
        ("", "from penstock import b", False),
        ("import torch", "from penstock import b", True),
        ("", "import torch.distributed.fsdp", False),
        ("import torch", "import torch.distributed.fsdp", False),
    ],
)
def test_a_function_imports_only_what_is_heavy_and_not_there(
    tmp_path, head, inner, breaks
):
    a = f"{head}\ndef _f():\n    {inner}\n"
    assert found(tmp_path, a=a, b="import torch\n") == (
        {("import", "a.py::_f")} if breaks else set()
    )


def test_what_is_public_is_told_once(tmp_path):
    base = 'class Base:\n    """A base."""\n    def run(self):\n        """Run."""\n'
    assert (
        found(
            tmp_path, a=base, b='class C(Base):\n    """C."""\n    def run(self): ...\n'
        )
        == set()
    )
    assert found(
        tmp_path, b="class C:\n    def run(self): ...\n    def _own(self): ...\n"
    ) == {
        ("docstring", "b.py::C"),
        ("docstring", "b.py::C.run"),
    }


def test_a_circle_is_one_for_types_and_within_functions_too(tmp_path):
    types = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from penstock.b import x\n"
    assert found(tmp_path, a=types, b="from penstock import a\nx = 1\n") == {
        ("knot", "a.py")
    }
    assert found(tmp_path, a="", b="from penstock import a\nx = 1\n") == set()


def test_a_sentence_is_shown_as_users_see_it():
    code = (
        'raise UserError(f"{name} is no file." + more)\nevents.say("a" if x else "two words")\nf("no news'
        ' here")'
    )
    assert list(messages.sentences(ast.parse(code))) == [
        ("UserError", "{name} is no file.{…}"),
        ("say", "a / two words"),
    ]


@pytest.mark.parametrize(
    "source",
    [
        "found = 1\n",
        "def _f(told):\n    return told\n",
        "def _kept():\n    return [seen for seen in ()]\n",
        "class _A:\n    said: str\n",
        "from os import path as made\n",
        "try:\n    x = 1\nexcept OSError as held:\n    x = 2\n",
    ],
)
def test_a_name_says_the_thing(tmp_path, source):
    assert {rule for rule, _ in found(tmp_path, a=source)} == {"name"}
    plain = source
    for word in house.EMPTY_NAMES:
        plain = plain.replace(word, f"{word}_rows")
    assert found(tmp_path, a=plain) == set()


def test_a_quote_of_a_sentence_that_nothing_says_any_more_is_listed(tmp_path):
    test, code = tmp_path / "test_a.py", tmp_path / "a.py"
    test.write_text(
        'assert "was torn apart" in text\nassert "is too long" in text\n'
        'assert "torn" in text\nassert "never said" in text\nassert "by hand" in text\n'
    )
    code.write_text('def _f(): return "written by " "hand"\n')
    before = "- `UserError` the file {path} was torn apart, is too long, by hand\n"
    now = "- `UserError` the file {name} is damaged, is too long\n"
    assert messages.stale_quotes(before, now, [test], [code]) == [
        (test, 1, "was torn apart")
    ]
    assert messages.stale_quotes(before, before, [test], [code]) == []
