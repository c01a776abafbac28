"""A stranger's first hour: `init` of their data, as it is, then `run`, unedited.

The quick tests hold the proposed recipe against what is right for the data; the slow ones run it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.cli import main
from penstock.evaluate.compare import JUDGED_BY
from penstock.metrics import better
from penstock.recipe.schema import Recipe, load_recipe
from tests.journeys.public_tables import PUBLIC
from tests.journeys.strangers_tables import STRANGERS, Stranger


def _columns(entries: Mapping[str, Any]) -> set[str]:
    """The source's columns that features read."""
    return {
        column for name, feature in entries.items() for column in feature.columns(name)
    }


def _init(
    stranger: Stranger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Recipe, str]:
    """The recipe that `penstock init` writes, and all that it says: file and screen."""
    monkeypatch.chdir(folder)
    path = stranger.write(folder)
    out, err = io.StringIO(), io.StringIO()
    words = ["init", path, "-o", "recipe.yaml"]
    if stranger.target is not None:
        words += ["--target", stranger.target]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    assert code == 0, err.getvalue()
    text = (folder / "recipe.yaml").read_text(encoding="utf-8")
    return load_recipe(folder / "recipe.yaml"), "\n".join(
        [text, out.getvalue(), err.getvalue()]
    )


def _is_right(stranger: Stranger, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, words = _init(stranger, folder, monkeypatch)
    inputs = _columns(recipe.inputs)
    assert not inputs & set(stranger.out), words
    assert set(stranger.used) <= inputs, words
    target = next(iter(recipe.targets.values()))
    assert target.type in stranger.kinds, words
    split = recipe.to_dict().get("split", {})
    for word, value in stranger.split.items():
        # `on` is a list of columns.
        assert split.get(word) in (value, [value]), words
    if stranger.warns:
        assert any(word in words for word in stranger.warns), words


def _runs(
    stranger: Stranger, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str
) -> None:
    """It runs, unedited but for `words`; unedited it learns more than the trivial answer."""
    _init(stranger, folder, monkeypatch)
    outcome = penstock.run(
        "recipe.yaml", overrides=words, store=folder / "store", quiet=True
    )
    assert outcome.dataset is not None and outcome.bundle is not None
    counts = outcome.dataset.counts
    assert sum(counts[k] for k in counts if k != "in") == counts["in"], counts
    if stranger.rows:
        assert counts["in"] == stranger.rows, counts
    report = outcome.report
    assert report is not None
    if words:
        return
    (target,) = report["metrics"]["test"]
    reached = report["metrics"]["test"][target]
    trivial = report["baseline"][target]
    metric, _ = JUDGED_BY[outcome.bundle.encoding.targets[target].type]
    if better(metric) == "higher":
        assert reached[metric] > trivial[metric]
    else:
        assert reached[metric] < trivial[metric]


@pytest.mark.parametrize("name", STRANGERS)
def test_init_proposes_what_is_right(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _is_right(STRANGERS[name], tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLIC)
def test_init_proposes_what_is_right_for_the_shapes_of_public_data(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _is_right(PUBLIC[name], tmp_path, monkeypatch)


LENGTHY = ("genes", "phrases")
"""What takes minutes to learn."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name in LENGTHY else [])
        for name in STRANGERS
    ],
)
def test_what_init_proposes_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _runs(STRANGERS[name], tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", LENGTHY)
def test_what_takes_minutes_to_learn_runs_for_a_few_steps(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _runs(STRANGERS[name], tmp_path, monkeypatch, "train.epochs=1", "train.max_steps=20")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", PUBLIC)
def test_what_init_proposes_for_the_shapes_of_public_data_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _runs(PUBLIC[name], tmp_path, monkeypatch)
