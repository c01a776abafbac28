"""Packing: the exported program answers as torch does, and what cannot be exported travels as source,
aloud.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from penstock.bundle import export
from penstock.bundle.bundle import Bundle
from penstock.core.errors import BundleError
from penstock.recipe.schema import load_recipe
from tests.bundle import made

OWN = {
    "name": "own",
    "seed": 5,
    "source": {"type": "files", "path": "lake"},
    "inputs": {"age": "number"},
    "targets": {"pay": {"type": "binary", "positive": "high"}, "kind": "category"},
}


def own(word: str) -> dict:
    return {
        **OWN,
        "model": {
            "type": f"tests.bundle.net_of_test_pack:{word}",
            "arguments": {"width": 3},
        },
    }


def test_a_module_of_the_users_is_exported(tmp_path):
    bundle, store, _ = made.make(tmp_path, own("Plain"))
    assert bundle.facts()["runtime"] == "onnx" and not (bundle.path / "source").exists()
    opened = Bundle.open(
        bundle.reference, store=store
    )  # untrusted: nothing foreign is left in it
    assert opened.predict([{"age": 30}])[0].keys() == {
        "pay",
        "pay_probabilities",
        "kind",
        "kind_probabilities",
    }


def test_a_module_that_cannot_be_exported_travels_as_source(tmp_path):
    bundle, store, heard = made.make(tmp_path, own("Stubborn"))
    assert any(
        e.name == "warned" and "opens only with --trust" in e.fields["text"]
        for e in heard
    )
    assert bundle.facts()["runtime"] == "torch"
    assert (bundle.path / "source" / "tests" / "bundle" / "net_of_test_pack.py").is_file()
    with pytest.raises(BundleError, match="only if you trust where it came from"):
        Bundle.open(bundle.reference, store=store)
    opened = Bundle.open(bundle.reference, store=store, trust=True)
    rows = made.people(40)
    assert (
        made.apart(
            [opened.predict([r])[0] for r in rows.select(["age"]).to_pylist()],
            opened.predict(rows).to_pylist(),
        )
        <= 1e-5
    )


@pytest.fixture
def exported(bundle, monkeypatch):
    """Spare the seconds of an export: the program is the shared bundle's, which is what would come out."""
    monkeypatch.setattr(
        export,
        "write_onnx",
        lambda program, path: shutil.copy(bundle.path / "programs" / "main.onnx", path),
    )


def test_equal_content_is_the_same_bundle(bundle, exported, tmp_path):
    again, store, _ = made.make(tmp_path)
    assert again.id == bundle.id
    different, _, _ = made.make(tmp_path, {**made.DECLARED, "keep": []})
    assert different.id != bundle.id and len(store.names("bundles")) == 2
    moved, _, _ = made.make(
        tmp_path, {**made.DECLARED, "store": "./elsewhere", "trackers": []}
    )
    assert moved.id == bundle.id


def test_derived_columns_and_cleaners_travel(tmp_path):
    from penstock.contracts.data import Engine
    from penstock.prepare.clean import derive

    declared = {
        **OWN,
        "name": "derived",
        "derive": {"decade": "CAST(age / 10 AS INTEGER)", "rich": "income > 20000"},
        "clean": ["trim", {"type": "fill", "values": {"income": 100.0}}],
        "inputs": {"decade": "category", "rich": "binary", "city": "category"},
        "model": {"combiner": {"type": "mlp", "width": 8, "depth": 1}},
    }
    raw = made.people(200)
    raw = raw.set_column(
        raw.column_names.index("city"),
        "city",
        pa.array([None if c is None else f" {c} " for c in raw["city"].to_pylist()]),
    )
    recipe = load_recipe(declared)
    with Engine.load("embedded").open(
        tmp_path / "scratch", memory_bytes=1 << 30, threads=1
    ) as session:
        table = derive(
            session.table(
                raw.append_column("row_id", pa.array([str(i) for i in range(200)]))
            ),
            recipe.derive,
            session,
        )
        for cleaner in recipe.clean:
            table = cleaner.mend(table, {}, session)
        prepared = pa.Table.from_batches(list(session.batches(table.order_by("id"))))
    bundle, store, _ = made.make(tmp_path, declared, prepared)
    assert sorted(bundle.columns) == ["age", "city", "income"]
    assert [c.type for c, _ in bundle.steps.clean] == [
        "trim"
    ]  # income is read before it is filled
    ours = Bundle.open(bundle.reference, store=store).predict(raw)
    prepared = bundle.predictor().predict_table(prepared, rows="prepared")
    assert made.apart(ours.to_pylist(), prepared.to_pylist()) <= 1e-5
    answer = bundle.predict(
        [
            {"age": 30, "city": "Oslo", "income": 1.0},
            {"age": 30, "city": " Oslo", "income": "1"},
        ]
    )
    assert answer[0] == answer[1]


def test_a_feature_of_the_users_travels_and_decides(tmp_path):
    declared = {
        **own("Plain"),
        "targets": {
            "pay": {"type": "tests.bundle.feature_of_test_pack", "positive": "high"},
            "kind": "category",
        },
    }
    bundle, store, _ = made.make(tmp_path, declared)
    assert bundle.decision == {"pay": {"threshold": 0.9, "rows": 300}, "kind": {}}
    assert {p["pay"] for p in bundle.predict([{"age": 30}])} == {"low"}
    with pytest.raises(BundleError, match="--trust"):
        Bundle.open(bundle.reference, store=store)
    code = (
        "import sys; from penstock.bundle.bundle import Bundle; print(Bundle.open(sys.argv[1],"
        " trust=True).predict([{'age': 30}])[0]['pay'])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(bundle.path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    # the feature's module is nowhere but in the bundle
    assert done.returncode == 0 and done.stdout == "low\n", done.stderr


def test_an_exported_program_that_differs_is_refused(exported, tmp_path, monkeypatch):
    true = export.run_torch
    monkeypatch.setattr(
        export,
        "run_torch",
        lambda program, arrays: {
            name: values + np.float32(0.01)
            for name, values in true(program, arrays).items()
        },
    )
    with pytest.raises(BundleError, match="gives other answers than torch"):
        made.make(tmp_path)
    assert not list((tmp_path / "store").glob("bundles/*"))


def test_difference():
    one = {"a": np.array([1.0, np.nan, 1e6])}
    assert export.difference(one, one) == 0.0
    assert export.difference(one, {"a": np.array([1.0, 0.0, 1e6])}) == float("inf")
    assert export.difference(
        {"a": np.array([1e6])}, {"a": np.array([1e6 + 1])}
    ) == pytest.approx(1e-6)
    assert export.difference({"a": np.zeros((2, 1))}, {"a": np.zeros(2)}) == float("inf")


def test_attention_is_exported(tmp_path):
    bundle, _, _ = made.make(
        tmp_path,
        {
            **OWN,
            "inputs": {"age": "number", "city": "category"},
            "model": {"combiner": {"type": "attention", "width": 16, "depth": 1}},
        },
    )
    assert (
        bundle.facts()["runtime"] == "onnx"
        and bundle.facts()["measured"]["difference"] < 1e-5
    )
    records = [{"age": r["age"], "city": r["city"]} for r in made.rough(60)]
    assert (
        made.apart([bundle.predict([r])[0] for r in records], bundle.predict(records))
        <= 1e-5
    )
