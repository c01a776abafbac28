"""One record, everywhere the same: as its source has it, in Python, over HTTP and in batches, and again later
with its truth.
"""

from __future__ import annotations

import csv
import json
import random
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import penstock
from penstock.cli import main
from penstock.core.errors import RequestError, UserError
from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve.server import Serving

RECIPE = """
name: orders
seed: 1
source: {type: files, path: orders.jsonl}
key: id
expect:
  customer.age: {type: integer, min: 0, max: 100}
  months: {min: 0}
  paid: {allowed: ["yes", "no", "never"]}
where: id >= 0
derive: {months: '"customer.age" * 12 - 12'}
inputs:
  customer.age: number
  customer.city: category
  basket.price: {type: set}
  member: binary
  months: number
targets: {paid: category}
split: {train: 0.6, validation: 0.2, test: 0.2}
train: {epochs: 2, batch_size: 32}
model: {combiner: {type: mlp, width: 8, depth: 1}}
evaluate: {bootstrap: 20}
launcher: {type: local, processes: 1, threads: 1}
"""


def order(number: int, *, chance: random.Random) -> dict:
    """An order as its source has it; now and then a field is left out."""
    age = chance.randint(18, 80)
    found = {
        "id": number,
        "customer": {"age": age, "city": chance.choice(["Oslo", "Bergen"])},
        "basket": [{"price": chance.choice([1, 2, 5]), "name": "x"} for _ in range(2)],
        "member": chance.choice(["yes", "no"]),
        "paid": "yes" if age + chance.gauss(0, 10) > 50 else "no",
    }
    if number % 7 == 0:
        del found["customer"]["city"]
    if number % 11 == 0:
        del found["member"]
    return found


def lines(records: list[dict]) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


@pytest.fixture(scope="module")
def orders():
    chance = random.Random(5)
    return [order(number, chance=chance) for number in range(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, orders):
    folder = tmp_path_factory.mktemp("orders")
    (folder / "orders.jsonl").write_text(lines(orders), "utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    return folder


@pytest.fixture(scope="module")
def bundle(folder):
    outcome = penstock.run(folder / "recipe.yaml", store=folder / "store")
    assert outcome.bundle is not None
    return outcome.bundle


@pytest.fixture(scope="module")
def server(bundle):
    with Serving(bundle, Serve(port=0), Events()) as running:
        yield running


def post(url: str, path: str, body: object) -> tuple[int, dict]:
    request = urllib.request.Request(url + path, data=json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def csv_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


def flat(record: dict) -> dict:
    """The same order with dotted names."""
    return {
        "customer.age": record["customer"]["age"],
        "customer.city": record["customer"].get("city"),
        "basket.price": [item["price"] for item in record["basket"]],
        "member": record.get("member"),
    }


def test_the_records_of_the_source_are_answered_as_their_flat_ones(bundle, orders):
    nested = bundle.predict(orders[:30])
    assert nested == bundle.predict([flat(record) for record in orders[:30]])
    # One record in, one answer out.
    assert bundle.predict(orders[0]) == nested[0]
    columns = {name: [record.get(name) for record in orders[:30]] for name in orders[1]}
    assert bundle.predict(columns)["paid"] == [row["paid"] for row in nested]


def test_rows_of_frames_are_records_too(bundle, orders):
    pandas = pytest.importorskip("pandas")
    nested = bundle.predict(orders[:20])
    frame = pandas.DataFrame(orders[:20])
    assert bundle.predict(frame)["paid"].tolist() == [row["paid"] for row in nested]
    one = bundle.predict(frame.iloc[3])
    assert one["paid"] == nested[3]["paid"] and one.name == 3
    wide = pandas.DataFrame([flat(record) for record in orders[:20]])
    assert bundle.predict([row for _, row in wide.iterrows()]) == nested


def test_polars_and_arrow_structs(bundle, orders):
    polars = pytest.importorskip("polars")
    nested = [row["paid"] for row in bundle.predict(orders[:20])]
    frame = polars.DataFrame(orders[:20])
    assert bundle.predict(frame)["paid"].to_list() == nested
    assert bundle.predict(frame.to_arrow())["paid"].to_pylist() == nested
    assert bundle.predict(frame.row(2, named=True))["paid"] == nested[2]


def test_values_and_lists_together_are_neither(bundle):
    with pytest.raises(RequestError, match=r"one record.*or columns"):
        bundle.predict({"customer.age": 39, "customer.city": ["Oslo"]})


def test_a_misspelt_field_is_no_missing_one(bundle, orders):
    record = {**orders[1], "customer": {"age": 40, "citty": "Oslo"}}
    with pytest.raises(RequestError, match=r"There is 'customer\.citty' instead"):
        bundle.predict([record])
    with pytest.raises(RequestError, match="required but missing"):
        bundle.predict([{"nothing": 1}])


def test_over_http_nested_records_and_instances(server, bundle, orders):
    expected = bundle.predict(orders[:5])
    for body in (
        {"records": orders[:5]},
        {"instances": orders[:5]},
        orders[:5],
        [flat(record) for record in orders[:5]],
    ):
        status, answer = post(server.url, "/predict", body)
        assert status == 200, answer
        assert [row["paid"] for row in answer["predictions"]] == [
            row["paid"] for row in expected
        ]
    status, answer = post(server.url, "/predict", orders[0])
    assert status == 200 and len(answer["predictions"]) == 1
    status, answer = post(server.url, "/predict", {"data": orders[:2]})
    assert status == 400 and "`records`" in answer["error"]
    both = {"records": orders[:1], "instances": orders[:1]}
    assert post(server.url, "/predict", both)[0] == 400


def test_objects_in_tensors_are_json_texts(server, bundle, orders):
    columns = {
        "customer": [json.dumps(record["customer"]) for record in orders[:3]],
        "basket": [json.dumps(record["basket"]) for record in orders[:3]],
        "member": [record.get("member") for record in orders[:3]],
    }
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [3], "data": values}
        for name, values in columns.items()
    ]
    status, answer = post(server.url, "/v2/models/orders/infer", {"inputs": inputs})
    assert status == 200, answer
    answers = {each["name"]: each["data"] for each in answer["outputs"]}
    assert answers["paid"] == [row["paid"] for row in bundle.predict(orders[:3])]


def test_a_third_value_of_a_binary_is_refused_everywhere(server, bundle, orders):
    for odd in ("maybe", 2):
        record = {**orders[1], "member": odd}
        with pytest.raises(RequestError, match=r"is neither 'no' nor 'yes', the two"):
            bundle.predict([record])
        status, answer = post(server.url, "/predict", {"records": [record]})
        assert status == 422
        assert answer["problems"][0]["field"] == "member"
    assert bundle.predict([{**orders[1], "member": True}])


def test_the_contract_holds_at_serving(server, bundle, orders):
    record = {**orders[1], "customer": {"age": 150, "city": "Oslo"}}
    with pytest.raises(RequestError, match=r"breaks the rule `max: 100`: found 150"):
        bundle.predict(record)
    status, answer = post(server.url, "/predict", {"records": [orders[2], record]})
    assert status == 422
    assert answer["problems"] == [
        {
            "row": 1,
            "field": "customer.age",
            "reason": "breaks the rule `max: 100`: found 150, expected at most 100",
        }
    ]
    record["customer"]["age"] = True
    for rows in ([record], [orders[2], record]):
        with pytest.raises(RequestError, match=r"`type: integer`: found True"):
            bundle.predict(rows)
    # A rule on a derived column, and none on the target, which no request has.
    young = {**orders[1], "customer": {"age": 0, "city": "Oslo"}}
    with pytest.raises(RequestError, match=r"months'?: breaks the rule `min: 0`"):
        bundle.predict(young)
    with Serving(bundle, Serve(port=0, expect="ignore"), Events()) as ignoring:
        status, answer = post(ignoring.url, "/predict", record)
    assert status == 200 and answer["predictions"][0]["paid"] in ("yes", "no")


def test_a_batch_counts_what_breaks_a_rule(folder, bundle, orders, tmp_path):
    some = [*orders[:4], {**orders[1], "customer": {"age": 150, "city": "Oslo"}}]
    (tmp_path / "new.jsonl").write_text(lines(some), "utf-8")
    found = penstock.predict(
        bundle, source=tmp_path / "new.jsonl", output=tmp_path / "answers.csv"
    )
    assert (found.rows, found.predicted, found.refused) == (5, 4, 1)
    rows = csv_rows(tmp_path / "answers.csv")
    assert "max: 100" in rows[4]["refused"]
    # One column a class, and the key that names the row.
    assert list(rows[0]) == [
        "id",
        "paid",
        "paid_probabilities.no",
        "paid_probabilities.yes",
        "refused",
    ]
    assert rows[2]["id"] == "2"
    assert 0 <= float(rows[0]["paid_probabilities.yes"]) <= 1


def test_without_an_output_the_first_rows_are_shown(folder, bundle, orders, capsys):
    argv = ["predict", bundle.reference, str(folder / "orders.jsonl")]
    assert main([*argv, "--store", str(folder / "store")]) == 0
    out = capsys.readouterr().out
    assert "paid_probabilities.yes" in out
    assert "… and 290 more rows" in out and "-o answers.csv" in out
    assert main([*argv, "--store", str(folder / "store"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 300 and len(found["first"]) == 10
    assert not list(folder.glob("answers*"))


def test_absent_columns_are_told_beside_those_of_the_file_alone(bundle, tmp_path):
    (tmp_path / "new.csv").write_text("mmember\nyes\n", "utf-8")
    with pytest.raises(RequestError, match=r"Columns found: mmember\.$"):
        penstock.predict(bundle, source=tmp_path / "new.csv")


def test_all_columns_are_kept_and_formulas_are_made_harmless(bundle, tmp_path):
    record = {
        "id": 7,
        "customer": {"age": 30, "city": "=1+1"},
        "basket": [],
        "member": "yes",
        "note": "@SUM(A1)",
    }
    (tmp_path / "new.jsonl").write_text(lines([record]), "utf-8")
    penstock.predict(
        bundle,
        source=tmp_path / "new.jsonl",
        output=tmp_path / "answers.csv",
        keep=["all"],
        spreadsheet=True,
    )
    (row,) = csv_rows(tmp_path / "answers.csv")
    assert row["customer.city"] == "'=1+1" and row["note"] == "'@SUM(A1)"
    assert row["customer.age"] == "30"
    with pytest.raises(UserError, match="spreadsheet"):
        penstock.predict(
            bundle,
            source=tmp_path / "new.jsonl",
            output=tmp_path / "answers.parquet",
            spreadsheet=True,
        )


def test_rows_that_came_later_are_measured_and_counted(
    folder, bundle, orders, tmp_path, capsys
):
    chance = random.Random(9)
    later = [order(1000 + i, chance=chance) for i in range(60)]
    later[0]["paid"] = "never"
    later[1]["paid"] = None
    later[2]["customer"]["age"] = 150
    later[3]["member"] = "perhaps"
    (tmp_path / "later.jsonl").write_text(lines(later) + "torn\n", "utf-8")
    store = folder / "store"
    report = penstock.evaluate(bundle, source=tmp_path / "later.jsonl", store=store)
    came = report["later"]
    assert came["in"] == 61
    assert (came["without_truth"], came["broken"], came["unreadable"]) == (1, 1, 1)
    assert came["in"] == sum(rows for word, rows in came.items() if word != "in")
    # A class that was never seen, and a third value of a binary, are refused rows.
    assert (report["rows"], report["refused"]) == (56, 2)
    assert any("never" in reason for reason in report["refused_reasons"])
    assert report["baseline"]["paid"]["accuracy"] is not None
    assert report["at_training"]["split"] == "test"
    assert any("at training" in note for note in report["notes"])
    argv = ["evaluate", bundle.reference, str(tmp_path / "later.jsonl")]
    assert main([*argv, "--store", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == report.path
    assert main([*argv, "--store", str(store)]) == 0
    assert "rows in 61" in capsys.readouterr().out


def test_later_rows_are_judged_as_prepare_judges_them(folder, bundle, orders, tmp_path):
    chance = random.Random(9)
    later = [order(1000 + i, chance=chance) for i in range(60)]
    # A rule on the truth, which serving has not.
    for number in range(5):
        later[number]["paid"] = f"perhaps {number}"
    # `where` drops a row before any rule sees it.
    later[9] |= {"id": -1, "customer": {"age": 150}}
    later[10]["customer"]["age"] = 150
    later[11]["member"] = "perhaps"
    (tmp_path / "later.jsonl").write_text(lines(later), "utf-8")
    report = penstock.evaluate(
        bundle, source=tmp_path / "later.jsonl", store=folder / "store"
    )
    came = report["later"]
    assert (came["in"], came["test"], came["broken"], came["filtered"]) == (60, 53, 6, 1)
    notes = [note for note in report["notes"] if "rule" in note and "rows in" not in note]
    assert len(notes) == 2
    assert notes[0].startswith(
        "5 rows break a rule, such as: paid: breaks the rule `allowed`: found 'perhaps 0'"
    )
    assert notes[1].startswith("1 row breaks a rule: customer.age")
    assert "1 row of the later data could not be answered" in str(report["notes"])
    assert not any("flatter" in note for note in report["notes"])


def test_the_file_that_a_bundle_learnt_from_is_no_later_data(folder, bundle, tmp_path):
    copy = tmp_path / "later.jsonl"
    copy.write_bytes((folder / "orders.jsonl").read_bytes())
    report = penstock.evaluate(bundle, source=copy, store=folder / "store")
    (note,) = [note for note in report["notes"] if "flatter" in note]
    assert "(later.jsonl)" in note and "learnt" in note


def test_without_the_training_rows_the_bundle_itself_says_what_is_trivial(
    bundle, orders, tmp_path
):
    (tmp_path / "later.jsonl").write_text(lines(orders[:40]), "utf-8")
    report = penstock.evaluate(
        bundle, source=tmp_path / "later.jsonl", store=tmp_path / "empty"
    )
    assert report["rows"] == 40
    assert report["baseline"]["paid"]["accuracy"] is not None
    assert report["at_training"]["split"] == "validation"
    assert any("has no dataset" in note for note in report["notes"])


def test_a_file_without_its_truth_is_told_what_to_do(folder, bundle, orders, tmp_path):
    some = [{k: v for k, v in record.items() if k != "paid"} for record in orders[:3]]
    (tmp_path / "new.jsonl").write_text(lines(some), "utf-8")
    with pytest.raises(RequestError, match=r"no column 'paid'.*penstock predict"):
        penstock.evaluate(bundle, source=tmp_path / "new.jsonl", store=folder / "store")
    with pytest.raises(UserError, match="one of them"):
        penstock.evaluate(
            bundle, source="x.csv", dataset="orders@0", store=folder / "store"
        )
