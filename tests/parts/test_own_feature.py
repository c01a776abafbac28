"""docs/extending.md, "A feature of your own": what it shows runs as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.contracts import features as contracts
from penstock.contracts.data import Feature
from penstock.core.errors import PenstockError, RecipeError
from penstock.encode.encoding import Encoding

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def blocks() -> list[str]:
    """The Python that the section shows, in order: the feature, and the test of its laws."""
    section = (
        PAGE.read_text("utf-8").split("## A feature of your own\n")[1].split("\n## ")[0]
    )
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page's module, importable as its author would have it."""
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "duration.py").write_text(blocks()[0], "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "acme"]:
        del sys.modules[name]


def test_the_page_s_feature_keeps_the_laws(acme: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(blocks()[1], str(PAGE), "exec"), names)
    names["test_duration_keeps_the_laws"]()


def test_the_page_s_feature_is_an_input_and_a_target(acme: Path) -> None:
    feature = Feature.load({"type": "acme.duration"})
    encoding = Encoding({"lap": feature}, {"total": feature})
    table = pa.table({"lap": ["1:00", "2:00"], "total": ["3:00", "x"]})
    accepted = encoding.accept(table, targets=True)
    assert [str(problem) for problem in accepted.refused[1]] == [
        "total: 'x' is no time such as 3:25"
    ]
    assert accepted.columns["lap"].to_pylist() == [60.0, 120.0]


def test_the_page_names_every_contract() -> None:
    section = (
        PAGE.read_text("utf-8").split("## A feature of your own\n")[1].split("\n## ")[0]
    )
    families = {
        name
        for name, value in vars(contracts).items()
        if isinstance(value, type) and issubclass(value, Feature)
    }
    assert families == set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def test_a_method_of_a_contract_that_is_not_taken_is_refused() -> None:
    number: Any = type(Feature.load("number"))
    with pytest.raises(
        RecipeError, match=r"'collate'.*CollatedFeature only\. Derive the class from"
    ):
        type(
            "Jitter",
            (number,),
            {"collate": lambda self, stored, fitted, keys=None: stored},
        )


def test_what_is_no_target_feature_is_no_target() -> None:
    with pytest.raises(PenstockError, match=r"'vector' cannot be a target.*for 'signal'"):
        Encoding({}, {"signal": Feature.load({"type": "vector", "length": 2})})


def test_a_key_is_drawn_for_features_that_augment_alone() -> None:
    padded = Encoding({"text": Feature.load("text")}, {}, {"text": {}})
    plain = Encoding({"age": Feature.load("number")}, {}, {"age": {}})
    assert not padded.augments and not padded.plain
    assert not plain.augments and plain.plain
    assert np.array_equal(
        plain.collate({"age.value": np.zeros(2)})["age.value"], np.zeros(2)
    )
