"""What the README and the pages of docs/ show: commands parse, recipes load, names exist.

Whole examples run in tests of their own: the loader's page (`tests/loader/test_loader_docs.py`), parts of
one's own (`test_*_of_ones_own.py`), and the README's journey, here.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import random
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import penstock
from penstock.cli import main
from penstock.cli.grammar import parser
from penstock.recipe.schema import load_recipe

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
# Made from the code, and held against it by tests of their own.
MADE = ("messages.md", "recipe.md")
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str

    def __str__(self) -> str:
        first = self.text.strip().splitlines()[0]
        return f"{self.page}: {first[:60]}"


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        if page.name in MADE:
            continue
        for found in BLOCK.finditer(page.read_text("utf-8")):
            yield Block(str(page.relative_to(ROOT)), found[1], found[2])


BLOCKS = list(_blocks())


def _commands(blocks: list[Block]) -> list[tuple[Block, list[str]]]:
    """Lines that begin with `penstock`, their comments left out, joined where a `\\` ends them."""
    lines = []
    for block in blocks:
        if block.language in ("", "sh", "bash", "console"):
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line.strip().removeprefix("$ "), comments=True)
                if words[:1] == ["penstock"]:
                    lines.append((block, words[1:]))
    return lines


COMMANDS = _commands(BLOCKS)


@pytest.mark.parametrize(
    "words", [words for _, words in COMMANDS], ids=[" ".join(w) for _, w in COMMANDS]
)
def test_a_command_parses(words: list[str]) -> None:
    # What follows goes to a file or another program.
    for stop in (">", "|", "&", "&&"):
        words = words[: words.index(stop)] if stop in words else words
    assert parser().parse_args(words)


YAML = [b for b in BLOCKS if b.language == "yaml"]
# With modules of the user's own, which their own tests write and run.
OWN = re.compile(r"\bacme\.|net:Net")


@pytest.mark.parametrize("block", [b for b in YAML if not OWN.search(b.text)], ids=str)
def test_a_recipe_loads(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    shown = yaml.safe_load(block.text) or {}  # comments alone
    needed: dict[str, Any] = {
        "source": {"type": "files", "path": "rows.csv"},
        "inputs": {"age": "number"},
        "targets": {"income": "number"},
    }
    if "dataset" in shown:  # in the place of a source
        needed.pop("source")
    recipe = load_recipe({**needed, **shown})
    assert recipe.source is not None


PYTHON = [b for b in BLOCKS if b.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_names_that_are_shown_exist(block: Block) -> None:
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "penstock"
        ):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert _is_there(module, alias.name), f"{node.module}.{alias.name}"
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "penstock"
        ):
            assert hasattr(penstock, node.attr), f"penstock.{node.attr}"


def _is_there(module: ModuleType, name: str) -> bool:
    """An attribute, or a module below."""
    if hasattr(module, name):
        return True
    return importlib.util.find_spec(f"{module.__name__}.{name}") is not None


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if not link.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / link).exists(), f"{page.name} → {link}"


def test_the_readme_is_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of the README in its order, on a table with its columns."""
    monkeypatch.chdir(tmp_path)
    _write_people(tmp_path / "people.csv")
    rows = [{"age": 30 + i, "education": "Bachelors", "hours": 40} for i in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "new.parquet")
    walked = [words for block, words in COMMANDS if block.page == "README.md"]
    assert {"init", "check", "run", "predict", "serve"} <= {words[0] for words in walked}
    bundle = ""
    for words in walked:
        words = [bundle if word.startswith("bundle-") else word for word in words]
        if words[0] == "serve":
            _served(words, tmp_path)
            continue
        assert main(words) == 0, (words, capsys.readouterr().err)
        if words[0] == "run":
            bundle = _newest_bundle(capsys)


def _write_people(path: Path) -> None:
    chance = random.Random(3)
    lines = ["age,education,hours,income"]
    for _ in range(600):
        age, hours = chance.randint(18, 80), chance.randint(10, 60)
        education = chance.choice(["Bachelors", "Masters", "School"])
        rich = age / 20 + hours / 20 + (education == "Masters") + chance.gauss(0, 1) > 4.6
        lines.append(f"{age},{education},{hours},{'>50K' if rich else '<=50K'}")
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _newest_bundle(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["list", "bundles", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    return str(listed[0]["reference"])


def _served(words: list[str], folder: Path) -> None:
    """`penstock serve` as a process, asked once and stopped by its id."""
    port = words.index("--port") + 1 if "--port" in words else None
    words = [w for i, w in enumerate(words) if port is None or i not in (port - 1, port)]
    child = subprocess.Popen(
        [sys.executable, "-m", "penstock", *words, "--port", "0", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stderr is not None and child.stdout is not None
        url = ""
        for line in child.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                url = found[0]
                break
        question = json.dumps(
            {"records": [{"age": 39, "education": "Bachelors", "hours": 40}]}
        )
        request = urllib.request.Request(
            f"{url}/predict",
            data=question.encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert json.load(response)["predictions"]
    finally:
        child.terminate()
        child.communicate(timeout=30)
