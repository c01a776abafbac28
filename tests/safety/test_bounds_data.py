"""Bounds of data: wide tables, long texts and unknown labels cost what they are, and stay below a small
ceiling.

Each case runs in a child process that a watch ends, so that a regression cannot take the machine's memory.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from penstock.core.memory import Ceiling, held_bytes

CEILING_BYTES = 1 << 30
HANG_SECONDS = 600
"""Generous: only a hang lasts so long."""


def penstock(
    folder: Path, *words: str, most_bytes: int = CEILING_BYTES
) -> subprocess.CompletedProcess[str]:
    """Run a command in a child; fail where its tree holds more than `most_bytes`, or hangs."""
    with open(folder / "said.txt", "w+", encoding="utf-8") as said:
        child = subprocess.Popen(
            [sys.executable, "-m", "penstock", *words],
            cwd=folder,
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + HANG_SECONDS
        try:
            while child.poll() is None:
                held = held_bytes(child.pid)
                assert held <= most_bytes, f"{words[0]} held {held >> 20} MiB"
                assert time.monotonic() < deadline, f"{words[0]} hangs"
                time.sleep(0.02)
        finally:
            child.kill()
            child.wait()
        said.seek(0)
        return subprocess.CompletedProcess(words, child.returncode, said.read())


def wide(folder: Path, columns: int, rows: int = 400) -> None:
    chance = np.random.default_rng(0)
    values = chance.normal(size=(rows, columns)).round(6)
    table = {f"c{i}": values[:, i] for i in range(columns)}
    table["y"] = np.where(values[:, 0] > 0, "yes", "no")
    pyarrow.csv.write_csv(pa.table(table), folder / "wide.csv")
    (folder / "recipe.yaml").write_text(
        "name: wide\nsource: {type: files, path: wide.csv}\nresources: {memory: 1GiB}\nclean:"
        f" [deduplicate]\nexpect: {{c1: {{max: 2.5}}, c{columns - 1}: {{max: 2.5}}}}\nsplit: {{stratify:"
        " y}\n",
        "utf-8",
    )


@pytest.mark.parametrize("columns", [700, pytest.param(5_000, marks=pytest.mark.slow)])
def test_a_wide_table_is_prepared_below_a_small_ceiling(tmp_path, columns):
    wide(tmp_path, columns)
    done = penstock(tmp_path, "prepare", "recipe.yaml")
    assert done.returncode == 0, done.stdout
    lines = (tmp_path / "wide.csv").read_text("utf-8").splitlines()[1:]
    broken = sum(
        float(line.split(",")[1]) > 2.5 or float(line.split(",")[columns - 1]) > 2.5
        for line in lines
    )
    assert f"{broken} quarantined + 0 duplicates" in done.stdout


def test_duplicates_of_a_wide_table_are_found(tmp_path):
    wide(tmp_path, 700, rows=40)
    lines = (tmp_path / "wide.csv").read_text("utf-8").splitlines()
    (tmp_path / "wide.csv").write_text("\n".join([*lines, *lines[1:6]]) + "\n", "utf-8")
    (tmp_path / "recipe.yaml").write_text(
        "name: wide\nsource: {type: files, path: wide.csv}\nresources: {memory: 1GiB}\nclean:"
        " [deduplicate]\n",
        "utf-8",
    )
    done = penstock(tmp_path, "prepare", "recipe.yaml")
    assert done.returncode == 0 and "5 duplicates" in done.stdout, done.stdout


def test_an_unknown_label_is_compared_with_no_other(monkeypatch):
    import difflib

    from penstock.contracts.data import Feature

    def refused(*words: object, **more: object) -> None:
        raise AssertionError("difflib was asked for a row")

    monkeypatch.setattr(difflib, "get_close_matches", refused)
    feature = Feature.load({"type": "set"})
    fitted = {"values": [f"Label {i}" for i in range(1_000)], "target": True}
    column = pa.array([["label-7"], ["nowhere"], ["Label 3"]], feature.canonical)
    reasons = feature.unknown(column, fitted).reasons
    assert (
        len(reasons) == 2
        and "Did you mean 'Label 7'?" in reasons[0]
        and "Did you mean" not in reasons[1]
    )


def test_memory_that_is_refused_ends_in_the_stages_sentence():
    with (
        pytest.raises(Exception, match=r"prepare used .* MiB of memory"),
        Ceiling(1 << 50, stage="prepare", advice="Raise it."),
    ):
        raise MemoryError


@pytest.fixture
def compared(monkeypatch) -> list[int]:
    """How many names each call of difflib was given."""
    import difflib

    sizes: list[int] = []

    def counted(
        word: str, possibilities: list[str], n: int = 3, cutoff: float = 0.6
    ) -> list[str]:
        sizes.append(len(possibilities))
        return []

    monkeypatch.setattr(difflib, "get_close_matches", counted)
    return sizes


def test_hints_of_many_words_are_bounded(compared):
    from penstock.core.near import MOST_HINTS, MOST_NAMES, Hints

    hint = Hints([f"column {i}" for i in range(50_000)])
    assert {hint(f"colum {i}") for i in range(50_000)} == {""}
    assert len(compared) == MOST_HINTS and max(compared) == MOST_NAMES


def test_a_hint_among_thousands_of_names_is_right():
    from penstock.core.near import did_you_mean, nearest

    names = [f"column {i}" for i in range(5_000)]
    assert did_you_mean("colunm 4321", names) == " Did you mean 'column 4321'?"
    assert nearest("Column 77", names) == ["column 77"]
    assert (
        did_you_mean("column 1" * 1_000, names) == ""
        and nearest("x", ["x" * 10_000_000]) == []
    )


def test_thousands_of_unknown_words_of_a_recipe_are_compared_with_few(compared):
    from penstock.core.errors import RecipeError
    from penstock.recipe.schema import Recipe

    words = {f"wrod{i}": 1 for i in range(5_000)}
    with pytest.raises(RecipeError):
        Recipe.load({"name": "many", **words})
    features = {f"c{i}": {"type": "number"} for i in range(300)}
    with pytest.raises(RecipeError):
        Recipe.load(
            {
                "inputs": features,
                "targets": {"y": {"type": "number"}},
                "train": {"freeze": [f"d{i}" for i in range(5_000)]},
            }
        )
    assert len(compared) <= 60 and max(compared) <= 200


def test_rows_that_lack_thousands_of_fields_are_compared_with_few(compared):
    from penstock.bundle.rows import absent_columns, from_records

    required = {f"c{i}": pa.float64() for i in range(2_000)}
    intake = from_records([{f"d{i}": 1.0 for i in range(100)}] * 30, required)
    assert len(intake.refused) == 30
    assert "c0" in str(absent_columns(list(required), [f"d{i}" for i in range(2_000)]))
    assert len(compared) <= 21 * 30 and max(compared) <= 200


def wide_program(columns: int):
    """A program of so many number and category inputs, and its encoding's inputs."""
    from types import SimpleNamespace

    from penstock.contracts.data import Feature
    from penstock.model import Program, build_network, decoders_of
    from penstock.recipe.schema import Model, Recipe, Train
    from penstock.testing.laws._learning import inputs, targets

    standard = {
        name: arrays for group in inputs().values() for name, arrays in group.items()
    }
    features = {
        f"{of}{i}": Feature.load(kind)
        for i in range(columns)
        for of, kind in (("n", "number"), ("c", "category"))
    }
    specs = {
        name: standard["age" if name.startswith("n") else "job"] for name in features
    }
    answers = {"left": Feature.load("binary")}
    recipe = Recipe.model_construct(
        name="r",
        inputs=features,
        targets=answers,
        model=Model.model_validate({}),
        train=Train.model_validate({}),
    )
    sides = {"inputs": specs, "targets": {"left": targets()["binary"]}}
    encoding = SimpleNamespace(inputs=features, targets=answers, specs=sides.__getitem__)
    return Program(
        build_network(recipe, encoding, seed=3), decoders_of(recipe, encoding), encoding
    ), specs


def test_the_graph_of_a_wide_model_does_not_grow_with_its_columns(tmp_path):
    import onnx

    from penstock.bundle import export
    from penstock.contracts.learn import Runtime
    from penstock.model import fake_batch

    sizes = []
    for columns in (40, 160):
        program, specs = wide_program(columns)
        shipped, stacks = export.stacked(program)
        export.write_onnx(shipped, tmp_path / "main.onnx")
        graph = onnx.load(tmp_path / "main.onnx").graph
        sizes.append((len(graph.input), len(graph.node)))
        facts = {
            "file": "main.onnx",
            "stacks": stacks,
            "inputs": [{"name": name} for name in program.input_names],
            "outputs": [{"name": name} for name in program.output_names],
        }
        run = Runtime.load("onnx").open(tmp_path, facts, threads=1)
        for rows in (1, 7):
            arrays = {
                name: array.numpy() for name, array in fake_batch(specs, rows).items()
            }
            assert (
                export.difference(run(arrays), export.run_torch(program, arrays)) <= 1e-5
            )
    assert sizes[0] == sizes[1] and sizes[0][0] == 3, sizes


def test_stacks_that_are_none_of_the_programs_inputs_are_refused(tmp_path):
    from penstock.contracts.learn import Runtime
    from penstock.core.errors import BundleError

    runtime = Runtime.load("onnx")
    facts = runtime.specimen(tmp_path)
    for stacks in (
        [],
        {"s": "a.value"},
        {"s": []},
        {"s": ["z.value"]},
        {"s": ["a.value", "a.value"]},
        {"a.value": ["b.value"]},
        {"s": [["a.value"]]},
    ):
        with pytest.raises(BundleError, match="stacks"):
            runtime.open(tmp_path, {**facts, "stacks": stacks}, threads=1)


def test_packing_decides_on_as_many_rows_as_it_may_hold(monkeypatch):
    """Answers of ten thousand labels are not kept for 200,000 rows."""
    from types import SimpleNamespace

    from penstock.bundle import decide
    from penstock.contracts.data import Feature
    from penstock.encode.encoding import Encoding

    labels = [f"label {i}" for i in range(10_000)]
    feature = Feature.load({"type": "set"})
    fitted = {
        "values": labels,
        "counts": [1] * len(labels),
        "rows": 1,
        "count": 1,
        "missing": 0,
        "distinct": len(labels),
        "target": True,
    }
    encoding = Encoding({}, {"tags": feature}, {"tags": fitted})
    rows = []

    def batches(split, columns, rows):
        for number in range(1_000):
            yield pa.record_batch(
                {"tags": pa.array([[labels[number], labels[j]] for j in range(rows)])}
            )

    def answered(program, arrays):
        rows.append(len(arrays["tags.labels"]))
        return {"tags.probabilities": np.full((rows[-1], len(labels)), 0.5, np.float32)}

    monkeypatch.setattr(decide.export, "run_torch", answered)
    monkeypatch.setattr(decide, "DECIDED_BYTES", 50 * 2**20)
    monkeypatch.setattr(type(feature), "decide", lambda *given: {"thresholds": {}})
    said = SimpleNamespace(say=lambda *words, **more: None, warn=lambda *words: None)
    decide.decide(
        SimpleNamespace(output_names=["tags.probabilities"]),
        encoding,
        SimpleNamespace(batches=batches, reference="dataset-x"),
        said,
    )
    assert (
        max(rows) * 40_000 <= 32 * 2**20
        and sum(rows) * 50_000 <= 50 * 2**20 + max(rows) * 50_000
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "columns", [400, pytest.param(1_000, marks=pytest.mark.long)], ids=str
)
def test_a_wide_table_is_packed_judged_and_answered_below_a_small_ceiling(
    tmp_path, columns
):
    wide(tmp_path, columns)
    made = penstock(tmp_path, "init", "wide.csv", "--target", "y", "-o", "drafted.yaml")
    assert made.returncode == 0, made.stdout
    sets = [
        word
        for given in ("train.epochs=1", "evaluate.bootstrap=10", "resources.memory=1GiB")
        for word in ("--set", given)
    ]
    done = penstock(tmp_path, "run", "drafted.yaml", *sets)
    assert done.returncode == 0, done.stdout
    (bundle,) = (tmp_path / "store" / "bundles").iterdir()
    answered = penstock(
        tmp_path, "predict", f"bundle-{bundle.name}", "wide.csv", "-o", "answers.csv"
    )
    assert answered.returncode == 0, answered.stdout
    assert len((tmp_path / "answers.csv").read_text("utf-8").splitlines()) == 401
