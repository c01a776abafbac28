"""A `type` is a file; mistakes come all at once; strangers enter by the same door, and only when trusted."""

import pickle
import sys

import pytest
from pydantic import Field, ValidationError

from penstock.contracts.foreign import no_foreign_code
from penstock.contracts.learn import Combiner, Encoder
from penstock.contracts.part import Strict, flatten, part
from penstock.core.errors import Problem


class Holder(Strict):
    combiner: Combiner = Field(part("mlp"), validate_default=True)
    encoders: dict[str, Encoder] = {}
    many: list[Combiner] = []
    rate: float = Field(0.1, gt=0)


def problems(data) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate(data)
    return [str(p) for p in flatten(caught.value, data)]


def test_a_word_a_mapping_and_an_instance_are_the_same_part():
    by_word = Holder.model_validate({"combiner": "mlp"})
    by_mapping = Holder.model_validate({"combiner": {"type": "mlp"}})
    by_instance = Holder.model_validate({"combiner": Combiner.load("mlp")})
    assert by_word == by_mapping == by_instance
    assert by_word.combiner.type == "mlp"
    assert by_word.to_dict()["combiner"]["type"] == "mlp"
    assert Holder.model_validate(by_word.to_dict()) == by_word


def test_parts_are_frozen_hashable_and_cross_processes():
    one = Combiner.load("mlp")
    assert {one, Combiner.load("mlp")} == {one}
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(ValidationError):
        one.width = 3


def test_every_mistake_is_told_at_once_with_its_path():
    found = problems(
        {
            "combiner": {"type": "mpl"},
            "encoders": {"age": {"type": "linear", "widht": 3}, "zip": 7},
            "many": ["mlp", {"width": 3}],
            "rate": -1,
            "combinar": "mlp",
        }
    )
    text = "\n".join(found)
    assert len(found) == 6, text
    assert "combinar: is not a known option. Did you mean 'combiner'?" in text
    assert "combiner.type: no combiner is called 'mpl'. Did you mean 'mlp'?" in text
    assert "encoders.age.widht: is not a known option." in text
    assert "encoders.zip: expected an encoder" in text
    assert "many[1]: needs `type`" in text
    assert "rate: must be greater than 0; found -1" in text


def test_a_mapping_is_expected_where_a_record_stands():
    assert problems(["x"]) == [
        "expected a mapping with combiner, encoders, many, rate; found ['x']"
    ]
    assert "type: expected one word of" in problems({"combiner": {"type": 3}})[0]


@pytest.fixture
def stranger(tmp_path, monkeypatch):
    (tmp_path / "acme_parts").mkdir()
    (tmp_path / "acme_parts" / "__init__.py").write_text("")
    (tmp_path / "acme_parts" / "ghost.py").write_text(
        "from penstock.contracts.learn import Combiner\nclass Ghost(Combiner):\n    width: int = 4\n    def"
        " build(self, encoders):\n        raise AssertionError\n"
    )
    (tmp_path / "acme_parts" / "hungry.py").write_text("import nosuchpackage\n")
    (tmp_path / "acme_parts" / "empty.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [n for n in sys.modules if n.startswith("acme_parts")]:
        del sys.modules[name]


@pytest.mark.usefixtures("stranger")
def test_a_strangers_part_enters_by_the_same_door():
    one = Combiner.load({"type": "acme_parts.ghost", "width": 9})
    assert one.type == "acme_parts.ghost"
    assert one.to_dict() == {"type": "acme_parts.ghost", "width": 9}
    assert Combiner.load(one.to_dict()) == one


@pytest.mark.usefixtures("stranger")
def test_a_strangers_part_is_refused_where_code_is_not_trusted():
    with no_foreign_code():
        found = problems({"combiner": "acme_parts.ghost"})
        assert Combiner.load("mlp")
    assert "runs only with --trust" in found[0]
    assert "acme_parts.ghost" not in sys.modules


@pytest.mark.usefixtures("stranger")
def test_a_part_that_cannot_be_opened_says_why():
    assert (
        "needs the package 'nosuchpackage'"
        in problems({"combiner": "acme_parts.hungry"})[0]
    )
    assert (
        "must define exactly one combiner, found 0"
        in problems({"combiner": "acme_parts.empty"})[0]
    )
    for strange in (".", "..", "a..b", "a b", "a/b.c", "", ".mlp"):
        assert "is not the name of a combiner" in problems({"combiner": strange})[0]
    assert "Is 'acmee' importable" in problems({"combiner": "acmee.ghost"})[0]


def test_the_json_schema_names_every_type():
    schema = Holder.model_json_schema()
    text = str(schema)
    for name in Combiner.types():
        assert f"'const': '{name}'" in text


def test_problems_can_be_compared():
    assert Problem(("a",), "x") == Problem(("a",), "x")
