"""Errors cross processes and carry the exit codes the command line promises."""

import pickle

import pytest

from penstock.core import errors
from penstock.core.errors import PenstockError, Problem, RecipeError, dotted


def every_error(root: type = PenstockError) -> list[type[PenstockError]]:
    return [root, *(e for child in root.__subclasses__() for e in every_error(child))]


@pytest.mark.parametrize("kind", every_error(), ids=lambda k: k.__name__)
def test_an_error_survives_pickling(kind):
    error = kind("what happened, and what to do")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert copy.message == error.message == str(copy)
    assert copy.exit_code == error.exit_code


def test_a_recipe_error_keeps_its_problems_through_pickling():
    error = RecipeError.of(
        [Problem(("train", "lr"), "must be greater than 0")], where="recipe.yaml"
    )
    copy = pickle.loads(pickle.dumps(error))
    assert copy.problems == error.problems
    assert "train.lr: must be greater than 0" in str(copy)


def test_the_tree_in_the_docstring_is_the_tree():
    for kind in every_error():
        if (
            kind.__module__ == errors.__name__
        ):  # a room may have a narrower one of its own
            assert kind.__name__ in errors.__doc__, (
                f"{kind.__name__} is not in the drawing"
            )


def test_paths_are_written_as_users_write_them():
    assert dotted(("clean", 1, "columns", 0)) == "clean[1].columns[0]"
