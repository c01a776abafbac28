"""`check` finds what only the data can tell, all of it at once, before anything long runs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import api
from penstock.cli import main
from penstock.core.errors import RecipeError, UserError
from penstock.core.events import Event, Events
from penstock.prepare import preparation


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 1,200 people; one in a hundred says yes."""
    chance = random.Random(1)
    path = tmp_path_factory.mktemp("people") / "people.csv"
    lines = ["age,city,kind,answer"]
    for i in range(1_200):
        age, city = chance.randint(18, 80), chance.choice(["Oslo", "Bergen"])
        lines.append(f"{age},{city},{'abcd'[i % 4]},{'yes' if i % 100 == 7 else 'no'}")
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _recipe(people: Path, **words: Any) -> dict[str, Any]:
    return {
        "name": "people",
        "source": {"type": "files", "path": str(people)},
        "inputs": {"age": "number", "city": "category"},
        "targets": {"answer": {"type": "binary", "positive": "yes"}},
        **words,
    }


def _problems(recipe: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        penstock.check(recipe)
    return {".".join(map(str, p.path)): p.text for p in caught.value.problems}


def test_a_recipe_that_holds_passes_and_rare_values_are_said(people: Path) -> None:
    heard: list[Event] = []
    assert penstock.check(_recipe(people), events=Events(heard.append)).name == "people"
    texts = [event.fields["text"] for event in heard if event.name == "warned"]
    assert any("the test split has" in text and "'yes'" in text for text in texts)


def test_a_positive_that_no_row_has(people: Path) -> None:
    wrong = _recipe(people, targets={"answer": {"type": "binary", "positive": "maybe"}})
    assert "'maybe'" in _problems(wrong)["targets.answer"]


def test_every_feature_that_fits_nothing_is_named_at_once(people: Path) -> None:
    wrong = _recipe(
        people,
        inputs={"city": "number", "age": "timestamp"},
        targets={"kind": "binary"},
    )
    problems = _problems(wrong)
    assert set(problems) == {"inputs.city", "inputs.age", "targets.kind"}
    assert "is not a number" in problems["inputs.city"]
    assert "4 values" in problems["targets.kind"]


def test_a_contract_that_no_row_keeps(people: Path) -> None:
    wrong = _recipe(people, expect={"age": {"max": 10}})
    assert "expected at most 10" in _problems(wrong)[""]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A table of 40,000 rows, more than `check` draws: one in 2,000 is of the kind that `where` keeps."""
    lines = ["age,city,kind,answer"]
    for i in range(40_000):
        kind = "rare" if i % 2_000 == 7 else "usual"
        answer = "yes" if i % 20_000 in (7, 8) else "no"
        lines.append(f"{i % 63},{'Oslo' if i % 2 else 'Bergen'},{kind},{answer}")
    path = tmp_path / "many.csv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.mark.parametrize("rows", ["kind = 'rare'", "kind = 'none'", "kind = 'usual'"])
def test_what_a_sample_lacks_is_a_warning_where_there_are_more_rows(
    many: Path, rows: str
) -> None:
    heard: list[Event] = []
    penstock.check(_recipe(many, where=rows), events=Events(heard.append))
    texts = [event.fields["text"] for event in heard if event.name == "warned"]
    assert any("rows looked at" in text for text in texts)


def test_what_many_rows_of_a_sample_say_is_a_mistake(many: Path) -> None:
    wrong = _recipe(many, inputs={"city": "number"}, targets={"answer": "category"})
    assert "is not a number" in _problems(wrong)["inputs.city"]
    fails = {"age": {"max": 10, "on_violation": "fail"}}
    assert "expected at most 10" in _problems(_recipe(many, expect=fails))[""]


def test_a_rehearsal_makes_no_profile(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a profile that nobody reads")

    monkeypatch.setattr(preparation, "profile", refuse)
    penstock.check(_recipe(people))


def test_files_that_declare_their_split_keep_it(people: Path, tmp_path: Path) -> None:
    test = tmp_path / "test.csv"
    test.write_text("age,city,kind,answer\n30,Oslo,a,no\n" * 20, "utf-8")
    source = {"type": "files", "train": str(people), "test": str(test)}
    heard: list[Event] = []
    penstock.check(
        _recipe(people, source=source, split={"by": "files", "validation": 0.1}),
        events=Events(heard.append),
    )
    texts = [event.fields["text"] for event in heard if event.name == "warned"]
    # The test file's header comes again and again: 19 of its lines are no rows of people.
    assert any("the test split has 0 of its" in text for text in texts)


def test_nothing_is_left_behind(people: Path, tmp_path: Path) -> None:
    penstock.check(_recipe(people, store=str(tmp_path / "store")))
    assert not (tmp_path / "store").exists()


def test_a_draft_is_a_recipe_and_tells_what_was_seen(people: Path) -> None:
    draft = penstock.init(people, target="answer")
    assert draft.startswith("# Written by `penstock init`")
    assert not draft.problems
    assert penstock.check(draft).targets["answer"].type == "binary"
    facts = draft.to_dict()
    assert facts["rows"] == facts["rows_in_source"] == 1_200
    assert {entry["column"] for entry in facts["inputs"]} == {"age", "city", "kind"}


def test_init_never_overwrites_unless_told(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "recipe.yaml"
    words = ["init", str(people), "--target", "answer", "-o", str(output)]
    assert main(words) == 0
    screen = capsys.readouterr().out
    for head in ("looked at", "predicts", "learns from", "split", "next"):
        assert head in screen
    output.write_text("edited: by hand\n", "utf-8")
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert output.read_text("utf-8") == "edited: by hand\n"
    assert main([*words, "--force"]) == 0
    assert "targets:" in output.read_text("utf-8")


def test_without_a_file_the_recipe_goes_to_standard_output_alone(
    people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(people), "--target", "answer"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("# Written by") and "learns from" not in printed.out
    assert "looked at" in printed.err


def _rents(folder: Path) -> Path:
    chance = random.Random(3)
    lines = ["offered;size;fee;let"]
    for i in range(400):
        size, let = chance.uniform(20, 140), "yes" if chance.random() < 0.4 else "no"
        day = f"{1 + i % 28:02}.{1 + i % 12:02}.2023"
        fee = f"{chance.randint(100, 900)}" if let == "yes" else ""
        lines.append(f"{day};{size:.1f} m²;{fee};{let}")
    path = folder / "rents.csv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_mistakes_of_the_recipe_and_of_its_data_are_told_together_with_their_cure(
    tmp_path: Path,
) -> None:
    recipe = {
        "name": "rents",
        "source": {"type": "files", "path": str(_rents(tmp_path)), "delimiter": ";"},
        "inputs": {
            "offered": {"type": "timestamp", "format": "%m-%d-%y"},
            "size": "number",
            "sise": "number",
        },
        "targets": {"let": {"type": "binary", "positive": "yes"}},
    }
    problems = _problems(recipe)
    assert set(problems) == {"inputs.offered", "inputs.size", "inputs.sise"}
    assert 'format: "%d.%m.%Y"' in problems["inputs.offered"]
    assert "as in '12-31-24'" in problems["inputs.offered"]
    assert "unit:" in problems["inputs.size"]
    # A word that does not exist hides nothing of the data.
    problems = _problems({**recipe, "train": {"epoch": 3}})
    assert {"train.epoch", "inputs.size"} <= set(problems)
    wrong = {**recipe, "source": {**recipe["source"], "delimiter": ","}}
    with pytest.raises(UserError, match='`delimiter: ";"` under `source`'):
        penstock.check(wrong)


def test_a_leak_that_was_put_back_is_told_before_training(tmp_path: Path) -> None:
    recipe = {
        "name": "rents",
        "source": {"type": "files", "path": str(_rents(tmp_path)), "delimiter": ";"},
        "inputs": {"fee": "number", "size": {"type": "number", "unit": "m²"}},
        "targets": {"let": {"type": "binary", "positive": "yes"}},
    }
    for ask in (api.check, api.check_contract):
        heard: list[Event] = []
        ask(recipe, events=Events(heard.append))
        texts = [event.fields["text"] for event in heard if event.name == "warned"]
        (leak,) = [text for text in texts if "gives the target" in text]
        assert leak.startswith("inputs.fee gives the target 'let' away: its being filled")
