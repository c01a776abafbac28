"""What is done to raw rows before they are encoded equals what was done to the training data."""

from __future__ import annotations

import pyarrow as pa
import pytest

from penstock.bundle.steps import Steps, cast
from penstock.contracts.data import ROW_ID, Cleaner, Engine
from penstock.contracts.privacy import Anonymiser
from penstock.core.errors import BundleError
from penstock.prepare.clean import derive

RAW = pa.table(
    {
        "a": pa.array([1, 2, None, 1000], pa.int64()),
        "b": pa.array([2.0, 0.5, 3.0, None]),
        "when": pa.array(["2020-01-05", "2021-12-31", None, "2020-06-01"]),
        "word": pa.array([" x ", "y", None, "z "]),
        "unused": pa.array([1, 1, 1, 1], pa.int64()),
        "answer": pa.array([1.0, 2.0, 3.0, 4.0]),
    }
)
SCHEMA = {f.name: f.type for f in RAW.schema}
DERIVED = {
    "twice": "a * 2",
    "more": "twice + b",
    "year": 'year(CAST("when" AS DATE))',
    "idle": "unused + 1",
}
LIMITS = {"a": {"low": 0.0, "high": 100.0}, "answer": {"low": 0.0, "high": 3.0}}


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    """The columns after deriving, with types, as a dataset has them."""
    with Engine.load("embedded").open(
        tmp_path_factory.mktemp("scratch"), memory_bytes=1 << 30, threads=1
    ) as session:
        made = derive(session.table(RAW), DERIVED, session)
        table = pa.Table.from_batches(list(session.batches(made)))
    return {f.name: f.type for f in table.schema}


def steps(schema, wanted, *clean, targets=("answer",)):
    return Steps.needed(
        wanted, derived=DERIVED, clean=clean, schema=schema, targets=targets
    )


def test_only_what_the_inputs_depend_on_is_kept(schema):
    made, required = steps(schema, ["more"])
    assert list(made.derive) == ["twice", "more"] and required == ["a", "b"]
    made, required = steps(
        schema,
        ["word"],
        (Cleaner.load({"type": "clip_outliers", "columns": "a"}), LIMITS),
    )
    assert not made and required == ["word"]
    assert steps(schema, ["a", "word"])[1] == ["a", "word"]


def test_derived_columns_one_after_another(schema):
    made, _ = steps(schema, ["more", "year"])
    table, _, refused = made.apply(RAW)
    assert refused == {}
    assert table["more"].to_pylist() == [4.0, 4.5, None, None] and table[
        "year"
    ].to_pylist() == [
        2020,
        2021,
        None,
        2020,
    ]


def test_cleaners_run_in_the_order_of_preparing_and_after_deriving(schema):
    clip = (Cleaner.load({"type": "clip_outliers", "columns": ["a", "answer"]}), LIMITS)
    fill = (Cleaner.load({"type": "fill", "values": {"a": 500}}), {})
    made, required = steps(
        schema,
        ["a", "word"],
        clip,
        fill,
        (Cleaner.load("trim"), {}),
        (Cleaner.load("deduplicate"), {}),
    )
    assert [c.type for c, _ in made.clean] == ["fill", "trim", "clip_outliers"]
    assert made.blank == ("answer",) and "answer" not in required
    table, _, _ = made.apply(RAW.drop_columns("answer"))
    assert table["a"].to_pylist() == [1, 2, 100, 100] and table["word"].to_pylist() == [
        "x",
        "y",
        None,
        "z",
    ]
    assert "answer" not in table.column_names and ROW_ID not in table.column_names


def test_one_row_is_mended_as_among_many(schema):
    made, _ = steps(schema, ["more", "word"], (Cleaner.load("trim"), {}))
    together = made.apply(RAW)[0].to_pylist()
    assert [made.apply(RAW.slice(i, 1))[0].to_pylist()[0] for i in range(4)] == together


def test_a_value_that_does_not_fit_refuses_its_own_row(schema):
    made, _ = steps(schema, ["more"])
    table, _, refused = made.apply(
        pa.table({"a": ["1", "many", "3"], "b": [1.0, 1.0, 1.0]})
    )
    assert table["more"].to_pylist() == [3.0, 7.0]
    assert {row: str(p[0]) for row, p in refused.items()} == {
        1: "a: expected int64; found 'many'"
    }


def test_a_row_that_breaks_an_expression_refuses_itself_alone(schema):
    made, _ = steps(schema, ["year"])
    table, _, refused = made.apply(
        pa.table({"when": ["2020-01-01", "no date", "2021-01-01", "neither"]})
    )
    assert table["year"].to_pylist() == [2020, 2021] and sorted(refused) == [1, 3]
    assert "no date" in str(refused[1][0])


def test_a_column_of_several_types_is_made_one(schema):
    from penstock.bundle.rows import from_records

    made, _ = steps(schema, ["more", "word"])
    intake = from_records(
        [
            {"a": 1, "b": 1.0, "word": 5},
            {"a": "x", "b": 1, "word": "w"},
            {"a": "2", "b": 1.0, "word": "v"},
        ],
        {"a": pa.int64(), "b": pa.float64(), "word": pa.string()},
    )
    assert sorted(intake.mixed) == ["a", "word"]
    table, mixed, refused = made.apply(intake.table, intake.mixed)
    assert table["more"].to_pylist() == [3.0, 5.0] and sorted(refused) == [1]
    assert mixed["word"].joined(
        lambda p: pa.array([str(v) for v in p.to_pylist()])
    ).to_pylist() == ["5", "v"]


def test_as_data_and_back(schema):
    made, _ = steps(
        schema,
        ["a", "more", "word"],
        (Cleaner.load({"type": "clip_outliers", "columns": ["a", "answer"]}), LIMITS),
        (Cleaner.load("trim"), {}),
    )
    again = Steps.load(made.to_dict())
    assert again.to_dict() == made.to_dict() and again.apply(RAW)[0].equals(
        made.apply(RAW)[0]
    )
    assert not Steps.load(Steps().to_dict())


def test_a_cleaner_that_needs_all_rows_cannot_be_packed(schema):
    class Refuses(Cleaner):
        at_serving = "refuse"

        def needs(self):
            return ("a",)

        def mend(self, table, facts, session):
            return table

    with pytest.raises(BundleError, match="cannot be applied to a single request"):
        steps(schema, ["a"], (Refuses(), {}))
    assert steps(schema, ["word"], (Refuses(), {}))[1] == ["word"]


def test_cast_value_by_value():
    found, wrong = cast(pa.array(["1", "x", None, "3"]), pa.int64())
    assert found.to_pylist() == [1, None, None, 3] and wrong == {
        1: "expected int64; found 'x'"
    }
    assert cast(pa.array([1.0, 2.5]), pa.int64())[1] == {1: "expected int64; found '2.5'"}


def test_functions_of_batches_run_between_expressions(schema):
    chain = (
        (Cleaner.load({"type": "html", "columns": "word"}), {}),
        (Cleaner.load({"type": "trim", "columns": "word", "case": "upper"}), {}),
        (
            Cleaner.load({"type": "spelling", "columns": "word"}),
            {"word": {"Y": "yes", "y": "wrong: before trim"}},
        ),
        (Cleaner.load({"type": "fill", "values": {"word": "none"}}), {}),
    )
    made, required = steps(schema, ["word"], *chain)
    assert required == ["word"]
    given = pa.table({"word": ["<b>x</b> ", "y", None, "z &amp; y"]})
    # What learns comes after what does not, as in preparing.
    wanted = ["X", "yes", "none", "Z & Y"]
    for each in (made, Steps.load(made.to_dict())):
        table, _, refused = each.apply(given)
        assert refused == {} and table["word"].to_pylist() == wanted
        alone = [each.apply(given.slice(i, 1))[0]["word"][0].as_py() for i in range(4)]
        assert alone == wanted


def test_private_columns_are_hidden_between_the_cleaners(schema, monkeypatch):
    monkeypatch.setenv("PENSTOCK_KEY", "a key of the tests, long enough")
    private = {
        "a": Anonymiser.load({"type": "generalise", "width": 10}),
        "word": Anonymiser.load("pseudonym"),
        "when": Anonymiser.load("drop"),
        "b": Anonymiser.load({"type": "noise", "amount": 1}),
    }
    clip = Cleaner.load({"type": "clip_outliers", "columns": "a"})
    trim = Cleaner.load({"type": "trim", "columns": "word"})
    made, required = Steps.needed(
        ["a", "b", "word", "year"],
        derived=DERIVED,
        clean=[(clip, LIMITS), (trim, {})],
        private=private,
        schema=schema,
        targets=("answer",),
    )
    # A dropped column is hidden from the model, and a request must bring what is derived of it.
    assert required == ["a", "b", "when", "word"] and list(made.private) == ["a", "word"]
    assert made.golden_rows == "prepared"
    again = Steps.load(made.to_dict())
    assert again.to_dict() == made.to_dict()
    table, _, refused = again.apply(RAW.select(required))
    assert not refused
    # 1000 is clipped to 100 after it became a band; noise is not for requests.
    assert table["a"].to_pylist() == [0, 0, None, 100]
    assert table["b"].to_pylist() == RAW["b"].to_pylist()
    one, two = table["word"].to_pylist()[:2]
    assert len(one) == 32 and one != two
    # Trimmed first: the pseudonym is of `x`.
    alone, _, _ = again.apply(RAW.select(required).slice(0, 1))
    assert alone["word"].to_pylist() == [one]


def test_without_private_columns_steps_are_written_as_before(schema):
    made, _ = steps(schema, ["more"])
    assert "private" not in made.to_dict() and made.golden_rows == "raw"
