"""`init` on files that belong together: pictures that a table names, labels in names, texts side by side."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import penstock
from penstock.cli import main
from penstock.core.errors import SourceError
from penstock.recipe.schema import load_recipe


def picture(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), shade, np.uint8)).save(path)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """A table that names a picture and a mask a row, with the count that is in it."""
    lines = ["image,mask,cells"]
    for i in range(40):
        picture(tmp_path / f"data/images/{i}.png", 4 * i)
        picture(tmp_path / f"data/masks/{i}.png", i)
        lines.append(f"images/{i}.png,masks/{i}.png,{i * i % 37}")
    (tmp_path / "data/cells.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize("source", ["data", "data/cells.csv"])
def test_pictures_that_a_table_names_are_loaded(
    cells: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cells)
    assert main(["init", source, "-o", "recipes/r.yaml"]) == 0
    recipe = load_recipe(cells / "recipes/r.yaml")
    assert {name: f.type for name, f in recipe.inputs.items()} == {"image": "image"}
    assert list(recipe.targets) == ["cells"]
    text = (cells / "recipes/r.yaml").read_text()
    assert "are masks" in text
    penstock.check(cells / "recipes/r.yaml")


def test_pictures_in_a_folder_beside_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["name,kind"]
    for i in range(40):
        picture(tmp_path / f"photos/{i}.jpg", 4 * i)
        lines.append(f"{i}.jpg,{'light' if i > 20 else 'dark'}")
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    assert main(["init", "x.csv", "--target", "kind", "-o", "r.yaml"]) == 0
    recipe = load_recipe(tmp_path / "r.yaml")
    assert {name: f.type for name, f in recipe.inputs.items()} == {"name": "image"}
    assert recipe.source.to_dict()["load"]["name"]["root"] == "photos"


def test_a_label_in_names_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(60):
        pet = ("cat", "dog")[i % 2]
        picture(tmp_path / f"pets/all/{pet}.{i}.png", 40 + 150 * (i % 2))
    monkeypatch.chdir(tmp_path)
    assert main(["init", "pets", "-o", "r.yaml"]) == 0
    recipe = load_recipe(tmp_path / "r.yaml")
    assert list(recipe.targets) == ["label"] and list(recipe.inputs) == ["content"]
    assert recipe.source.to_dict()["pattern"] == "all/{label}.*.png"
    text = (tmp_path / "r.yaml").read_text()
    assert "read out of the files' names" in text


def side_by_side(folder: Path) -> None:
    folder.mkdir()
    for split, count in (("train", 60), ("test", 20)):
        for language, word in (("en", "house"), ("de", 'Haus "Ü"')):
            text = "".join(f"{word} {i} is here\n" for i in range(count))
            path = folder / f"{split}.{language}.gz"
            path.write_bytes(gzip.compress(text.encode()))


def test_files_that_go_together_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side_by_side(tmp_path / "my texts")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="go together line by line") as caught:
        penstock.init("my texts")
    command, then = str(caught.value).split("\n  ")[1:]
    # What is advised works as it stands.
    subprocess.run(["bash", "-c", command], check=True)
    _, _, folder, _, target = then.split()
    draft = penstock.init(folder, target=target)
    assert not draft.problems
    seen = draft.to_dict()
    assert seen["rows_in_source"] == 80
    assert seen["target"]["type"] == "text"
    assert [entry["column"] for entry in seen["inputs"]] == ["en"]
    assert draft.recipe().split.by == "files"


def test_other_texts_are_not_joined(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.en").write_text("x\ny\n")
    (tmp_path / "data/a.de").write_text("x\n")
    draft = penstock.init(tmp_path / "data")
    assert draft.to_dict()["rows"] == 2


def test_lists_end_no_search_for_a_target(tmp_path: Path) -> None:
    path = tmp_path / "books.jsonl"
    path.write_text(
        "".join(
            f'{{"kind": "{"xy"[i % 2]}", "marks": [{i}.5, 2.5], "by": ["a{i}"]}}\n'
            for i in range(60)
        )
    )
    assert penstock.init(path).to_dict()["target"]["column"] == "kind"


def test_settings_in_json_beside_tables_are_no_rows(tmp_path: Path) -> None:
    for i in range(6):
        rows = "".join(f"{j},{j % 7}\n" for j in range(50))
        path = tmp_path / f"data/part/{i}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a,label\n" + rows)
    (tmp_path / "data/info.json").write_text('{\n "a": {"b": 1}\n}\n')
    draft = penstock.init(tmp_path / "data")
    assert draft.to_dict()["rows_in_source"] == 300
