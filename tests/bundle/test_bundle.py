"""Opening a bundle: every byte verified, foreign code refused, golden rows replayed; and answering with
it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from penstock.bundle.bundle import Bundle
from penstock.core.errors import BundleError, RecipeError, RequestError
from tests.bundle import made

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(bundle, tmp_path) -> Path:
    """A copy of the bundle's folder, to be ill-treated."""
    return Path(shutil.copytree(bundle.path, tmp_path / "bundle"))


def reseal(folder: Path, name: str, text: str) -> None:
    """Change a file, its checksum and the bundle's id, as who repacks by hand would."""
    (folder / name).write_text(text, "utf-8")
    made.reseal(folder)


# -- what is in it -------------------------------------------------------------------------------------------


def test_the_folder_is_whole(bundle):
    assert {
        p.relative_to(bundle.path).as_posix()
        for p in bundle.path.rglob("*")
        if p.is_file()
    } == {
        "bundle.json",
        "card.md",
        "decision.json",
        "fitted.json",
        "golden.arrow",
        "manifest.json",
        "programs/main.onnx",
        "recipe.yaml",
        "weights.safetensors",
    }
    assert (
        bundle.reference == f"bundle-{bundle.id}"
        and bundle.name == "people"
        and bundle.dataset == "people@0123456789abcdef"
    )
    assert list(bundle.columns) == [
        "age",
        "income",
        "city",
        "code",
        "member",
        "joined",
        "place",
    ]
    assert bundle.decision == {"pay": {"threshold": 0.5}, "kind": {}, "score": {}}
    assert bundle.facts()["measured"]["difference"] <= 1e-5
    assert json.loads(json.dumps(bundle.facts()))["targets"] == {
        "pay": "binary",
        "kind": "category",
        "score": "number",
    }
    assert "roc_auc" in bundle.card and "Intended use" in bundle.card
    assert bundle.recipe().to_dict()["inputs"].keys() == made.DECLARED["inputs"].keys()


def test_golden_rows_hold_missing_values_and_their_answers(bundle):
    rows, answers = bundle.golden()
    assert rows.num_rows == 64 and sum(column.null_count for column in rows.columns) > 0
    assert set(answers) == {"pay.probability", "kind.probabilities", "score.value"}
    assert answers["kind.probabilities"].shape == (64, 3)
    assert bundle.replay() <= 1e-5


def test_nothing_names_this_machine(bundle):
    for path in bundle.path.rglob("*"):
        if path.is_file() and path.name != "recipe.yaml":
            assert str(ROOT).encode() not in path.read_bytes(), path


# -- finding it ----------------------------------------------------------------------------------------------


def test_references(packed):
    bundle, store = packed
    for reference in (
        bundle.reference,
        bundle.id,
        bundle.reference[:12],
        bundle.path,
        str(bundle.path),
    ):
        assert Bundle.open(reference, store=store).id == bundle.id
    assert Bundle.open(bundle.reference, store=store.url, replay=False).id == bundle.id


def test_a_folder_of_a_reference_s_name_does_not_hide_it(packed, tmp_path, monkeypatch):
    bundle, store = packed
    (tmp_path / bundle.reference).mkdir()
    monkeypatch.chdir(tmp_path)
    assert Bundle.open(bundle.reference, store=store).id == bundle.id


def test_an_unknown_reference_names_the_known(packed):
    bundle, store = packed
    with pytest.raises(
        BundleError,
        match=f"there is no bundle 'bundle-0000000000000000'.*{bundle.reference}",
    ):
        Bundle.open("bundle-0000000000000000", store=store)
    with pytest.raises(BundleError, match="say in which store"):
        Bundle.open("bundle-0000000000000000")
    with pytest.raises(BundleError, match="there is no folder"):
        Bundle.open("./nowhere/at/all", store=store)


def test_a_beginning_that_several_have_is_not_guessed(bundle, tmp_path):
    other = f"{'a' if bundle.id[0] != 'a' else 'b'}000000000000000"
    for name in (bundle.id, f"{bundle.id[:2]}11111111111111", other):
        shutil.copytree(bundle.path, tmp_path / "bundles" / name)
    with pytest.raises(
        BundleError, match=f"'{bundle.id[:2]}' is the beginning of 2 bundles"
    ):
        Bundle.open(bundle.id[:2], store=tmp_path)
    assert Bundle.open(bundle.reference[:14], store=tmp_path).name == "people"
    with pytest.raises(BundleError, match=f"is in the place of bundle-{other}"):
        Bundle.open(f"bundle-{other[:8]}", store=tmp_path)


def test_another_artefact_is_no_bundle(copy):
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    (copy / "manifest.json").write_text(json.dumps({**manifest, "type": "run"}))
    with pytest.raises(BundleError, match="is a run of Penstock, not a bundle"):
        Bundle.open(copy)


# -- refusing it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "bundle.json",
        "fitted.json",
        "decision.json",
        "golden.arrow",
        "programs/main.onnx",
        "weights.safetensors",
        "card.md",
        "recipe.yaml",
    ],
)
def test_one_changed_byte_is_found(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}.*was changed"):
        Bundle.open(copy)


def test_a_missing_file_is_found(copy):
    (copy / "golden.arrow").unlink()
    with pytest.raises(BundleError, match=r"lacks golden\.arrow"):
        Bundle.open(copy)


def test_a_newer_format_is_refused(copy):
    facts = json.loads((copy / "bundle.json").read_text("utf-8"))
    reseal(copy, "bundle.json", json.dumps({**facts, "format": 99}))
    with pytest.raises(
        BundleError, match=r"format 99; this Penstock reads formats up to 1\. Upgrade"
    ):
        Bundle.open(copy)


def test_other_answers_than_when_packed_are_refused(copy):
    fitted = json.loads((copy / "fitted.json").read_text("utf-8"))
    fitted["age"]["mean"] += 3
    reseal(copy, "fitted.json", json.dumps(fitted))
    with pytest.raises(
        BundleError, match=r"golden row .* differently than when it was packed"
    ):
        Bundle.open(copy)
    assert Bundle.open(copy, replay=False).name == "people"


@pytest.mark.parametrize("where", ["encoding", "steps", "runtime"])
def test_foreign_code_is_not_imported(copy, where, tmp_path, monkeypatch):
    (tmp_path / "evil_thing.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    facts = json.loads((copy / "bundle.json").read_text("utf-8"))
    if where == "encoding":
        facts["encoding"]["inputs"]["age"] = {"type": "evil_thing.x"}
    elif where == "steps":
        facts["steps"]["clean"] = [{"cleaner": {"type": "evil_thing.x"}, "facts": {}}]
    else:
        facts["runtime"] = {"type": "evil_thing.x"}
    reseal(copy, "bundle.json", json.dumps(facts))
    with pytest.raises(BundleError):
        Bundle.open(copy)
    assert "evil_thing" not in sys.modules


def test_a_program_outside_the_bundle_is_not_read(copy, tmp_path):
    shutil.copy(copy / "programs" / "main.onnx", tmp_path / "other.onnx")
    facts = json.loads((copy / "bundle.json").read_text("utf-8"))
    facts["programs"]["main"]["file"] = "../other.onnx"
    reseal(copy, "bundle.json", json.dumps(facts))
    with pytest.raises(BundleError, match="in its manifest"):
        Bundle.open(copy)


def test_a_foreign_recipe_needs_trust_but_answering_does_not(copy):
    recipe = json.loads((copy / "recipe.yaml").read_text("utf-8"))
    recipe["model"]["encoders"] = {"age": {"type": "acme.encoder"}}
    reseal(copy, "recipe.yaml", json.dumps(recipe))
    opened = Bundle.open(copy)
    with pytest.raises(RecipeError, match="--trust"):
        opened.recipe()


# -- without torch -------------------------------------------------------------------------------------------


def test_it_opens_and_answers_without_the_training_packages(bundle, tmp_path):
    rows = made.people(20, seed=4)
    expected = bundle.predict(rows.to_pylist())
    (tmp_path / "rows.json").write_text(json.dumps(rows.to_pylist()))
    code = """
import importlib.abc, json, sys
BLOCKED = "torch sklearn ray pyspark lightgbm safetensors onnx onnxscript tensorboard".split()
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"blocked {name}", name=name)
sys.meta_path.insert(0, Block())
from penstock.bundle.bundle import Bundle
import penstock.serve.server
bundle = Bundle.open(sys.argv[1])
print(json.dumps(bundle.predict(json.load(open(sys.argv[2])))))
"""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::DeprecationWarning:penstock",
            "-c",
            code,
            str(bundle.path),
            str(tmp_path / "rows.json"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert made.apart(json.loads(done.stdout), expected) <= 1e-6


# -- answering -----------------------------------------------------------------------------------------------


def test_the_same_kind_comes_out(bundle):
    table = made.people(50, seed=2)
    expected = bundle.predict(table)
    assert isinstance(expected, pa.Table)
    assert expected.column_names == [
        "id",
        "pay",
        "pay_probabilities",
        "kind",
        "kind_probabilities",
        "score",
    ]
    # or pandas makes doubles of the 64-bit codes, and loses digits
    frame = table.to_pandas(integer_object_nulls=True)
    frame.index = [f"row {i}" for i in range(50)]
    found = bundle.predict(frame)
    assert isinstance(found, pd.DataFrame) and list(found.index) == list(frame.index)
    assert found["pay"].tolist() == expected["pay"].to_pylist()
    polars = bundle.predict(pl.from_arrow(table))
    assert (
        isinstance(polars, pl.DataFrame)
        and polars["kind"].to_list() == expected["kind"].to_pylist()
    )
    batch = bundle.predict(table.to_batches()[0])
    assert isinstance(batch, pa.RecordBatch) and batch.num_rows == 50
    assert made.apart(bundle.predict(table.to_pylist()), expected.to_pylist()) <= 1e-6
    columns = bundle.predict(table.to_pydict())
    assert (
        isinstance(columns, dict)
        and made.apart(columns["score"], expected["score"].to_pylist()) <= 1e-6
    )


def test_one_row_alone_is_answered_as_in_a_batch(bundle):
    records = made.rough(200, seed=3)
    together = bundle.predict(records)
    alone = [bundle.predict([record])[0] for record in records]
    assert made.apart(alone, together) <= 1e-5


def test_answers_follow_from_what_the_program_says(bundle):
    table = made.people(30, seed=7)
    answers = bundle.predictor().answers(table)
    predicted = bundle.predict(table)
    high = np.array([p["high"] for p in predicted["pay_probabilities"].to_pylist()])
    assert np.allclose(high, answers["pay.probability"], atol=1e-6)
    assert [p == "high" for p in predicted["pay"].to_pylist()] == (
        answers["pay.probability"] >= 0.5
    ).tolist()
    assert np.allclose(predicted["score"], answers["score.value"])


def test_no_rows_are_answered_by_no_rows(bundle):
    empty = made.people(3).slice(0, 0)
    assert bundle.predict(empty).schema == bundle.predict(made.people(3)).schema
    assert bundle.predict([]) == []
    assert bundle.predictor().answers(empty)["kind.probabilities"].shape == (0, 3)
    assert list(bundle.predictor().predict_stream([empty])) == []


def test_keep(bundle):
    table = made.people(5).append_column("note", pa.array(list("abcde")))
    assert bundle.predict(table, keep=["note"]).column_names[:2] == ["id", "note"]
    assert bundle.predict(table.drop_columns("id")).column_names[0] == "pay"
    with pytest.raises(RequestError, match="Did you mean 'note'"):
        bundle.predict(table, keep=["notes"])
    mixed = [
        {**row, "id": {"odd": i} if i % 2 else i}
        for i, row in enumerate(table.to_pylist())
    ]
    assert [row["id"] for row in bundle.predict(mixed)] == [
        "0",
        "{'odd': 1}",
        "2",
        "{'odd': 3}",
        "4",
    ]


def test_refused_rows_are_named_all_at_once(bundle):
    records = made.people(6, seed=2).to_pylist()
    records[1]["age"] = "very old"
    records[4]["place"] = [1.0]
    del records[5]["city"]
    with pytest.raises(RequestError) as caught:
        bundle.predict(records)
    assert [(p.path) for p in caught.value.problems] == [
        (1, "age"),
        (4, "place"),
        (5, "city"),
    ]
    assert "3 of 6 rows" in str(caught.value) and "very old" in str(caught.value)


def test_a_stream_loses_no_row(bundle):
    table = pa.table(
        {
            "age": ["41", "very old", None],
            "income": [1.0, 2.0, 3.0],
            "city": ["Oslo", "Oslo", None],
            "code": [7, 7, 7],
            "member": [True, True, True],
            "joined": ["2020-01-01"] * 3,
            "place": [[0.0, 1.0]] * 3,
            "id": [1, 2, 3],
        }
    )
    found = pa.concat_tables(
        bundle.predictor().predict_stream(table.to_batches(max_chunksize=2))
    )
    assert found["id"].to_pylist() == [1, 2, 3] and found.column_names[-1] == "refused"
    assert [v is None for v in found["pay"].to_pylist()] == [False, True, False]
    assert (
        found["refused"].to_pylist()[0] is None
        and "age" in found["refused"].to_pylist()[1]
    )
    with pytest.raises(RequestError, match="row 1"):
        list(bundle.predictor().predict_stream([table], on_refused="raise"))
    clean = next(
        iter(bundle.predictor().predict_stream([table.slice(0, 1)], on_refused="raise"))
    )
    assert "refused" not in clean.column_names


def test_a_stream_is_answered_in_pieces_of_bounded_size(bundle):
    table = made.people(100)
    large = pa.concat_tables([table] * 101)
    pieces = list(bundle.predictor().predict_stream([large]))
    assert [p.num_rows for p in pieces] == [4096, 4096, 1908]
    assert pa.concat_tables(pieces)["id"].to_pylist() == large["id"].to_pylist()
    assert (
        bundle.predict(large)["pay"].to_pylist()
        == bundle.predict(table)["pay"].to_pylist() * 101
    )


def test_two_threads_answer_as_one(bundle):
    table = made.people(64)
    assert (
        made.apart(
            bundle.predictor(threads=2).predict_table(table).to_pylist(),
            bundle.predict(table).to_pylist(),
        )
        <= 1e-5
    )


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("resources", {"memory": "lots"}),
        ("resources", ["much"]),
        ("source", {"type": "files", "path": "x.csv", "delimiter": "abc"}),
        ("source", {"type": "files", "path": "x.csv", "encoding": "nope"}),
        ("source", {"type": "files", "path": "x.csv", "types": {"age": "x"}}),
        ("source", {"type": "files", "path": "x.csv", "rename": [1]}),
    ],
)
def test_what_its_recipe_says_of_reading_and_memory_is_judged_when_it_opens(
    copy, section, words
):
    recipe = json.loads((copy / "recipe.yaml").read_text("utf-8"))
    recipe[section] = words
    reseal(copy, "recipe.yaml", json.dumps(recipe))
    with pytest.raises(BundleError, match="Fetch it again, or pack its run again"):
        Bundle.open(copy)
