"""What `init` makes of real tables, and of steps in time."""

from __future__ import annotations

import pyarrow as pa
import pytest

from penstock.inspect import look, write_recipe
from penstock.recipe.read import parse_yaml
from penstock.recipe.schema import load_recipe
from tests.inspect.inspected import recipe_of


def sampled(source, base, rows=20_000):
    recipe = load_recipe({"source": source})
    return recipe.source.sample(recipe.source.snapshot(base), rows).plain()


def test_adult(shared_data):
    names = [
        "age",
        "workclass",
        "fnlwgt",
        "education",
        "education-num",
        "marital-status",
        "occupation",
        "relationship",
        "race",
        "sex",
        "capital-gain",
        "capital-loss",
        "hours-per-week",
        "native-country",
        "income",
    ]
    findings = look(
        sampled(
            {
                "type": "files",
                "path": str(shared_data / "adult" / "adult.data"),
                "header": False,
                "names": names,
            },
            shared_data,
        ),
        target="income",
    )
    found = {f.column: f for f in findings.columns}
    assert findings.target.type == "binary" and findings.target.options == {
        "positive": ">50K"
    }
    assert (
        found["education"].role == "duplicate" and found["education-num"].type == "number"
    )
    assert (
        found["workclass"].options == {"na": ["?"]}
        and found["native-country"].type == "category"
        and found["sex"].type == "binary"
    )
    assert [f.column for f in findings.left_out] == ["education"]
    assert recipe_of(findings)[0].split.stratify == "income"


def test_restaurants(shared_data):
    table = sampled(
        {"type": "files", "path": str(shared_data / "nested_json" / "restaurant.json")},
        shared_data,
    )
    findings = look(table, target="rating")
    found = {f.column: f for f in findings.columns}
    assert findings.target.type == "number" and findings.target.options == {
        "na": ["Not yet rated"]
    }
    assert (
        found["URL"].role == found["_id.$oid"].role == "identifier"
        and found["type_of_food"].type == "category"
    )
    recipe_of(findings)
    assert look(table, target="type_of_food").target.type == "category"


def test_grades(shared_data):
    findings = look(
        sampled(
            {"type": "files", "path": str(shared_data / "nested_json" / "grades.json")},
            shared_data,
        ),
        target="class_id",
    )
    found = {f.column: f for f in findings.columns}
    assert findings.target.type == "category" and "say number" in findings.target.why
    assert (
        found["scores.score"].options == {"unit": "numbers"}
        and "list_avg" in found["scores.score"].hint
    )
    assert (
        found["student_id"].type == "category"
        and "{on: student_id}" in recipe_of(findings)[1]
    )


@pytest.mark.parametrize(
    ("name", "kind", "left_out"),
    [
        ("iris", "category", 0),
        ("wine", "category", 0),
        ("diabetes", "number", 0),
        ("breast_cancer", "binary", 0),
    ],
)
def test_tables_of_scikit_learn(name, kind, left_out):
    import sklearn.datasets

    table = pa.Table.from_pandas(
        getattr(sklearn.datasets, f"load_{name}")(as_frame=True).frame
    )
    findings = look(table, target="target")
    assert findings.target.type == kind and len(findings.left_out) == left_out
    assert len(recipe_of(findings)[0].inputs) == table.num_columns - 1


def test_steps_in_time_are_told_as_a_series(tmp_path):
    import datetime as dt

    def rows(irregular: bool) -> pa.Table:
        return pa.table(
            {
                "at": [
                    dt.datetime(2024, 1, 1)
                    + dt.timedelta(minutes=15 * i + (i * i % 97 if irregular else 0))
                    for i in range(150)
                ],
                "load": [float(i % 11) + i / 100 for i in range(150)],
                "who": [f"p{i % 7}" for i in range(150)],
            }
        )

    # Without a number that is asked for it is a remark, not a choice.
    unasked = look(rows(irregular=False))
    assert any(
        "15 minutes apart" in note
        and "columns: [load]" in note
        and "samples: {time: at}" in note
        for note in unasked.notes
    )
    text = write_recipe(
        unasked, source_declaration={"type": "files", "path": "x"}, name="n"
    )
    assert load_recipe(parse_yaml(text, where="x")).samples is None
    asked = look(rows(irregular=False), target="load")
    text = write_recipe(
        asked, source_declaration={"type": "files", "path": "x"}, name="n"
    )
    samples = load_recipe(parse_yaml(text, where="x")).samples
    assert samples is not None and samples.time == "at"
    assert not any(
        "apart" in note for note in look(rows(irregular=True), target="load").notes
    )
