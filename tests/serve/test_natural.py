"""A column of numbers with `?` among them is text where it was read; it is described as the numbers it is."""

from __future__ import annotations

import pyarrow as pa
import pytest

from penstock.bundle.bundle import Bundle
from penstock.recipe.schema import Serve
from penstock.serve.datatypes import describe
from penstock.serve.describe import openapi_of
from penstock.serve.natural import example_of, natural_columns, number_of
from tests.bundle import made


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    rows = made.people(120)
    ages = [None if v is None else str(v) for v in rows["age"].to_pylist()]
    shares = [None if v is None else f"{v:.2f}" for v in rows["income"].to_pylist()]
    table = rows.set_column(1, "age", pa.array(["?", *ages[1:]]))
    table = table.set_column(2, "income", pa.array(shares))
    declared = {
        **made.DECLARED,
        "inputs": {
            "age": {"type": "number", "na": ["?"]},
            "income": "number",
            "city": "category",
        },
    }
    return made.make(tmp_path_factory.mktemp("natural"), declared, table)[0]


def test_the_description_says_numbers(bundle):
    columns = natural_columns(bundle)
    assert [str(columns[name]) for name in ("age", "income", "city")] == [
        "int64",
        "double",
        "string",
    ]
    api = openapi_of(bundle, Serve())
    record = api["components"]["schemas"]["Record"]["properties"]
    assert record["age"]["type"] == ["integer", "null"]
    assert record["income"]["type"] == ["number", "null"]
    example = api["paths"]["/predict"]["post"]["requestBody"]["content"]
    (row,) = example["application/json"]["example"]["records"]
    assert row["age"] is None or isinstance(row["age"], int)
    inputs, _ = describe(columns, bundle.predictor().answer_schema)
    assert inputs[0] == {"name": "age", "datatype": "INT64", "shape": [-1]}


def test_numbers_and_their_texts_are_answered_alike(bundle):
    row = {"age": 41, "income": 20_000.5, "city": "Oslo"}
    as_texts = {"age": "41", "income": "20000.5", "city": "Oslo"}
    assert bundle.predict(row) == bundle.predict(as_texts)


@pytest.mark.parametrize(
    ("text", "number"),
    [("41", 41), (" -3 ", -3), ("1.5", 1.5), ("?", None), ("nan", None), (None, None)],
)
def test_what_a_text_says(text, number):
    assert number_of(text) == number


def test_an_example_of_numbers_as_people_write_them_is_answered(tmp_path_factory):
    rows = made.people(120)
    incomes = [
        None if v is None else f"€{v:,.2f}".translate(str.maketrans(",.", ".,"))
        for v in rows["income"].to_pylist()
    ]
    table = rows.set_column(2, "income", pa.array(incomes))
    income = {"type": "number", "thousands": ".", "unit": "€"}
    declared = {**made.DECLARED, "inputs": {"income": income, "city": "category"}}
    bundle = made.make(tmp_path_factory.mktemp("written"), declared, table)[0]
    (row,) = [example_of(bundle)]
    written = bundle.golden()[0]["income"][0].as_py()
    assert isinstance(row["income"], float)
    assert bundle.predict(row) == bundle.predict({**row, "income": written})
