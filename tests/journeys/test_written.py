"""A file with decimal commas, euros and dates such as 25-Sep-21: from `init` to an answered request, each row
read alike on every way in.
"""

from __future__ import annotations

import json
import urllib.request
from datetime import date, timedelta

import numpy as np
import pytest

import penstock
from penstock.core.events import Events
from penstock.recipe.schema import Serve
from penstock.serve.server import Serving
from tests.bundle.made import apart

ROWS = 400
SMALL = [
    "train.epochs=2",
    "evaluate.baselines=false",
    "model.combiner={type: mlp, width: 8, depth: 1}",
]


def german(value):
    return f"{value:,.2f}".translate(str.maketrans(",.", ".,"))


def rows():
    chance = np.random.default_rng(5)
    for _ in range(ROWS):
        price = float(chance.gamma(2, 900))
        bought = date(2021, 1, 1) + timedelta(days=int(chance.integers(0, 500)))
        weight = float(chance.gamma(3, 4))
        yield {
            "price": f"{german(price)} €",
            "weight": f"{weight:.1f} kg".replace(".", ","),
            "bought": bought.strftime("%d-%b-%y"),
            "share": f"{chance.integers(0, 100)} %",
            "dear": "ja" if price + 40 * weight > 2_200 else "nein",
            "paid": f"{german(price * 1.19 + 90 * weight + chance.normal() * 200)} €",
        }


def post(server, path, body):
    request = urllib.request.Request(
        f"{server.url}{path}", data=json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@pytest.fixture
def shop(tmp_path):
    table = list(rows())
    lines = [";".join(table[0]), *(";".join(row.values()) for row in table)]
    (tmp_path / "shop.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path, table


@pytest.mark.slow
def test_from_init_to_an_answer(shop, monkeypatch):
    folder, table = shop
    monkeypatch.chdir(folder)
    (folder / "recipe.yaml").write_text(penstock.init("shop.csv", target="paid"), "utf-8")
    recipe = penstock.check("recipe.yaml")
    kinds = {name: feature.type for name, feature in recipe.inputs.items()}
    assert kinds == {
        "price": "number",
        "weight": "number",
        "bought": "timestamp",
        "share": "number",
        "dear": "binary",
    }
    assert recipe.targets["paid"].type == "number"
    outcome = penstock.run("recipe.yaml", overrides=SMALL)
    counts = outcome.dataset.counts
    assert counts["in"] == ROWS and not counts["quarantined"]
    bundle = outcome.bundle
    asked = [{k: v for k, v in row.items() if k != "paid"} for row in table[:40]]
    expected = bundle.predict(asked)
    # Numbers and moments as such are what the texts say.
    plain = [
        {
            **row,
            "price": float(row["price"][:-2].replace(".", "").replace(",", ".")),
            "share": int(row["share"][:-2]),
        }
        for row in asked
    ]
    assert apart(bundle.predict(plain), expected) <= 1e-5
    with Serving(bundle, Serve(port=0), Events()) as server:
        assert (
            apart(post(server, "/predict", {"records": asked})["predictions"], expected)
            <= 1e-5
        )
        tensors = [
            {
                "name": name,
                "datatype": "BYTES",
                "shape": [len(asked)],
                "data": [row[name] for row in asked],
            }
            for name in asked[0]
        ]
        answer = post(server, f"/v2/models/{bundle.name}/infer", {"inputs": tensors})
        paid = next(o["data"] for o in answer["outputs"] if o["name"] == "paid")
        assert paid == pytest.approx([row["paid"] for row in expected], rel=1e-4)
    # The file itself, whole, and a row that is not written so.
    (folder / "later.csv").write_text(
        "price;weight;bought;share;dear\n1.000 €;2,5 kg;25-Sep-21;45 %;ja\n12 lb;1 kg;25-Sep-21;4 %;ja\n",
        "utf-8",
    )
    made = penstock.predict(
        bundle, source="later.csv", output="answers.jsonl", keep=["price"]
    )
    answers = [
        json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()
    ]
    alone = bundle.predict(
        [
            {
                "price": "1.000 €",
                "weight": "2,5 kg",
                "bought": "25-Sep-21",
                "share": "45 %",
                "dear": "ja",
            }
        ]
    )
    assert answers[0]["paid"] == pytest.approx(alone[0]["paid"], rel=1e-4)
    assert "12 lb" in json.dumps(answers) and made


@pytest.mark.slow
def test_what_the_source_reads_can_split_by_time_and_be_counted_with(shop):
    folder, table = shop
    recipe = {
        "source": {
            "type": "files",
            "path": str(folder / "shop.csv"),
            "trim_end": {"price": " €"},
            "decimal": {"price": ","},
            "thousands": {"price": "."},
            "date_format": {"bought": "%d-%b-%y"},
        },
        "expect": {"price": {"type": "number", "min": 0}},
        "derive": {"double": "2 * price"},
        "split": {"by": "time", "on": "bought"},
        "inputs": {
            "double": "number",
            "bought": {"type": "timestamp", "format": "%d-%b-%y"},
        },
        "targets": {"dear": "binary"},
    }
    outcome = penstock.run(recipe, overrides=SMALL, store=folder / "store")
    assert outcome.dataset.counts["in"] == ROWS
    assert not outcome.dataset.counts["quarantined"]
    kinds = {field.name: str(field.type) for field in outcome.dataset.schema}
    assert kinds["price"] == "double" and kinds["bought"] == "timestamp[us]"
    bundle = outcome.bundle
    # The same texts, without the unit's ending that only files have.
    texts = [{"price": row["price"][:-2], "bought": row["bought"]} for row in table[:20]]
    numbers = [
        {**row, "price": float(row["price"].replace(".", "").replace(",", "."))}
        for row in texts
    ]
    assert apart(bundle.predict(texts), bundle.predict(numbers)) <= 1e-6
