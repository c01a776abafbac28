"""Small files in a recipe, by content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.contracts.foreign import no_foreign_code
from penstock.core.errors import RecipeError
from penstock.recipe.schema import load_recipe


def recipe(names: Any) -> dict[str, Any]:
    return {
        "source": {"type": "files", "path": "x.csv"},
        "inputs": {"text": "text"},
        "targets": {"labels": {"type": "set", "names": names}},
    }


def test_lines_and_content_are_declared_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(" joy \n\nänger\n", "utf-8")
    (tmp_path / "r.json").write_text(
        json.dumps(recipe({"lines_of": "labels.txt"})), "utf-8"
    )
    found = load_recipe(tmp_path / "r.json")
    assert found.targets["labels"].to_dict()["names"] == ["joy", "änger"]
    # what is declared needs no file
    assert load_recipe(found.to_dict(), base=Path("/nowhere")).targets == found.targets
    with pytest.raises(RecipeError, match="given: the given tokenizer is not one"):
        load_recipe(
            recipe(["a"])
            | {
                "inputs": {
                    "text": {"type": "text", "given": {"content_of": "labels.txt"}}
                }
            },
            base=tmp_path,
        )


def test_a_file_that_cannot_be_included_is_told(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(
        RecipeError, match=r"lines_of: .*nope.txt cannot be read .*relative to the recipe"
    ):
        load_recipe(recipe({"lines_of": "nope.txt"}), base=tmp_path)
    with pytest.raises(RecipeError, match="not UTF-8 text"):
        load_recipe(recipe({"lines_of": "bytes"}), base=tmp_path)


def test_a_recipe_from_elsewhere_reads_no_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("joy\n", "utf-8")
    with no_foreign_code(), pytest.raises(RecipeError, match="targets"):
        load_recipe(recipe({"lines_of": "labels.txt"}), base=tmp_path)


def test_what_a_sequence_labels_must_be_an_input() -> None:
    with pytest.raises(
        RecipeError,
        match=r"targets.tags.over: 'wrods' is not an input. Did you mean 'words'\?",
    ):
        load_recipe(
            {
                "source": {"type": "files", "path": "x"},
                "inputs": {"words": "sequence"},
                "targets": {"tags": {"type": "sequence", "over": "wrods"}},
            }
        )
    with pytest.raises(RecipeError, match="name it in `over`"):
        load_recipe(
            {
                "source": {"type": "files", "path": "x"},
                "inputs": {"words": "sequence"},
                "targets": {"tags": "sequence"},
            }
        )
