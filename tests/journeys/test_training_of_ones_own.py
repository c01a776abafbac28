"""An optimiser, a schedule and a strategy that Penstock does not know are one file each beside the recipe.

The files, the recipe and the test are those of docs/extending.md, so that what the page shows is what runs.
"""

from __future__ import annotations

import random
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import penstock
from penstock.core.errors import RecipeError
from penstock.core.store import Store
from penstock.train.supervisor import train
from tests.train.tiny import TWO, Heard, tiny_feed, tiny_recipe, tiny_run, weights

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
SECTIONS = (
    "An optimiser of your own",
    "A schedule of your own",
    "A strategy of your own",
)


def _blocks() -> dict[str, str]:
    """By the file that each is for, the page's code under the three headings."""
    page, named = PAGE.read_text("utf-8"), {}
    for title in SECTIONS:
        section = page.split(f"## {title}\n")[1].split("\n## ")[0]
        for language, text in re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL):
            first = text.split("\n", 1)[0]
            named[first.removeprefix("# ") if first.startswith("# ") else language] = text
    return named


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the page's files, and people of whom the older buy."""
    folder, chance = tmp_path_factory.mktemp("buyers"), random.Random(1)
    (folder / "acme").mkdir()
    for name, text in _blocks().items():
        if "." in name:
            (folder / name).write_text(text, "utf-8")
    lines = ["age,job,buys"]
    for _ in range(200):
        age, job = chance.randint(18, 80), chance.choice(["smith", "clerk"])
        lines.append(f"{age},{job},{'yes' if age > 50 else 'no'}")
    (folder / "people.csv").write_text("\n".join(lines) + "\n", "utf-8")
    before = set(sys.modules), list(sys.path)
    sys.path.append(str(folder))
    yield folder
    for name in set(sys.modules) - before[0]:
        if name.split(".")[0] == "acme":
            del sys.modules[name]
    sys.path[:] = before[1]


@pytest.mark.slow
def test_the_page_s_parts_keep_the_laws(workshop: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(_blocks()["python"], str(PAGE), "exec"), names)
    names["test_they_keep_the_laws"]()


def test_the_page_s_recipe_trains(workshop: Path) -> None:
    run = penstock.train(
        workshop / "recipe.yaml", overrides=["launcher.processes=1", "train.max_steps=3"]
    )
    assert run.weights.exists()
    with pytest.raises(
        RecipeError, match=r"optimiser 'acme\.lion' .* runs only with --trust"
    ):
        run.recipe()  # what comes with an artefact runs nothing by itself


@pytest.mark.slow
def test_taken_up_on_two_processes_it_goes_on_to_the_bit(
    workshop: Path, tmp_path: Path
) -> None:
    page = yaml.safe_load((workshop / "recipe.yaml").read_text("utf-8"))
    words = {
        **{word: page["train"][word] for word in ("optimiser", "schedule")},
        "parallel": page["parallel"],
        "checkpoint": {"every_steps": 1, "keep": 50},
        "epochs": 2,
    }
    store = Store(tmp_path / "store")
    recipe = tiny_recipe(tmp_path, launcher=TWO, **words)
    feed = tiny_feed(store, recipe, rows=400)
    whole, resumed = (tiny_run(store, recipe, feed) for _ in range(2))
    heard = Heard()
    summary = train(recipe, feed, whole, heard.events)
    assert any(
        "acme.post_local each takes 3 steps" in text for text in heard.texts("warned")
    )
    steps = sorted(path.name for path in whole.checkpoints.glob("step-*"))
    first, last = steps[4], f"step-{summary['steps']:010d}"
    assert first < last == steps[-1]
    assert "step-0000000005" not in steps, "between averages no checkpoint is taken"
    for step in steps[:5]:  # as if it had been lost after the fifth
        shutil.copytree(whole.checkpoints / step, resumed.checkpoints / step)
    heard = Heard()
    train(recipe, feed, resumed, heard.events, resume=True)
    assert any(first in text for text in heard.texts())
    assert weights(resumed) == weights(whole)


@pytest.mark.parametrize(
    ("override", "text"),
    [
        (
            "train.optimiser.beta=[0.9, 0.9]",
            r"train\.optimiser\.beta.*Did you mean 'betas'",
        ),
        ("train.schedule={type: acme.trapez}", r"no schedule is called 'acme\.trapez'"),
        (
            "parallel.every=3",
            r"parallel\.every: is for local_sgd and has no effect with acme\.post_local",
        ),
        (
            "parallel.batchnorm=sync",
            r"parallel\.batchnorm: would make processes of acme\.post_local wait",
        ),
        (
            "train.on_nan=skip",
            r"train\.on_nan: 'skip' needs processes that find together",
        ),
    ],
)
def test_mistakes_are_told(workshop: Path, override: str, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        penstock.check(workshop / "recipe.yaml", overrides=[override], data=False)
