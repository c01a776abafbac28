"""The page of all words is the schema's own, and complete."""

from pathlib import Path

from penstock.recipe.describe import describe
from penstock.recipe.schema import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text("utf-8").strip() == describe().strip(), (
        "run: .venv/bin/python -m penstock.recipe.describe > docs/recipe.md"
    )


def test_every_section_is_on_it():
    text = describe()
    for word in Recipe.field_names():
        assert f"| `{word}` |" in text
