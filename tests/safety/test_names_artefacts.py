"""Names within feeds, datasets, runs and bundles from elsewhere never lead out of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest

from penstock import api
from penstock.bundle.bundle import Bundle
from penstock.contracts.learn import Runtime
from penstock.core.errors import (
    BundleError,
    PenstockError,
    StoreError,
)
from penstock.core.store import MANIFEST, Store
from penstock.encode.feed import Feed
from penstock.prepare.dataset import Dataset
from penstock.recipe.schema import load_recipe
from penstock.run import Run
from penstock.train.checkpoint import Checkpoints
from penstock.train.warm_start import weights_of
from tests.safety.bad_names import BAD, ids

pytestmark = pytest.mark.usefixtures("nothing_outside")


GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "store-1"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(shutil.copytree(GOLDEN, tmp_path_factory.mktemp("golden") / "store"))


@pytest.mark.parametrize(
    "name",
    [
        *BAD,
        "reference://",
        "reference://x",
        "file:///etc/passwd",
        "*",
        "[a-z]*",
        "golden@*",
        "%2e%2e/x",
    ],
    ids=ids,
)
def test_a_reference(name, store):
    for ask in (
        lambda: api.show(name, store=store),
        lambda: api.show(f"run-{name}", store=store),
        lambda: api.show(f"bundle-{name}", store=store),
        lambda: api.show(f"{name}@0123456789abcdef", store=store),
        lambda: api.show(f"golden@{name}x", store=store),
        lambda: Bundle.open(f"bundle-{name}", store=store),
        lambda: Dataset.open(store, reference=f"{name}@{name}"),
        lambda: Run.open(store, reference=f"run-{name}"),
        lambda: Feed.open(store, id=f"{name}/x"),
        lambda: weights_of(f"bundle-{name}", store),
        lambda: weights_of(f"run-{name}", store),
        lambda: api.resume(f"run-{name}", store=store),
        lambda: api.evaluate(f"bundle-{name}", store=store),
    ):
        with pytest.raises(PenstockError) as refused:
            ask()
        assert refused.value.exit_code == 2


@pytest.fixture
def elsewhere(nothing_outside) -> tuple[Store, dict]:
    shutil.copytree(GOLDEN, nothing_outside / "store")
    return Store(nothing_outside / "store"), json.loads(
        (GOLDEN / "expected.json").read_text("utf-8")
    )


def change(folder: Path, **words: object) -> None:
    """Change the manifest, as who repacks by hand would."""
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    (folder / MANIFEST).write_text(json.dumps({**manifest, **words}))


@pytest.mark.parametrize(
    "name",
    ["../../../../secret.txt", "/etc/passwd", "fitted.json/../../x", "not-there.arrow"],
)
def test_a_feed_s_shards(name, elsewhere):
    store, expected = elsewhere
    change(store.folder / "feeds" / expected["feed"], shards={"train": [name]})
    with pytest.raises(StoreError, match="in its manifest"):
        Feed.open(store, id=expected["feed"]).shards("train")


def test_rows_beside_a_dataset_are_not_read(elsewhere, tmp_path):
    store, expected = elsewhere
    dataset = Dataset.open(store, reference=expected["dataset"])
    rows = dataset.path / "rows" / "split=train"
    shutil.copyfile(rows / "part-0.parquet", rows / "part-1.parquet")
    (rows / "part-2.parquet").symlink_to(tmp_path / "secret.txt")
    assert (
        Dataset.open(store, reference=expected["dataset"]).table("train").num_rows
        == expected["rows"]["train"]
    )


@pytest.mark.parametrize(
    "name",
    [
        "events.jsonl",
        "checkpoints",
        "run.json",
        "world.json",
        "recipe.yaml",
        "model.safetensors",
    ],
)
def test_a_run_with_links(name, elsewhere, tmp_path):
    store, expected = elsewhere
    folder = store.folder / "runs" / expected["run"]
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "secret.txt" if "." in name else tmp_path)

    def read() -> list[Path]:
        run = Run.open(store, reference=expected["run"])
        run.recipe()
        run.world()
        return [run.events_path, run.checkpoints, run.weights]

    with pytest.raises(StoreError, match="a link leads it out"):
        read()


def test_a_run_that_says_it_is_another(elsewhere):
    store, expected = elsewhere
    file = store.folder / "runs" / expected["run"] / "run.json"
    facts = json.loads(file.read_text("utf-8"))
    for wrong in (
        {"id": "run-../../x"},
        {"id": None},
        {"feed": ["x"]},
        {"base": 3},
        {"key": None},
    ):
        file.write_text(json.dumps({**facts, **wrong}))
        with pytest.raises(StoreError, match="is not the record of"):
            Run.open(store, reference=expected["run"])
    file.write_text(json.dumps({**facts, "feed": "../../../x", "dataset": "../../x@y"}))
    run = Run.open(store, reference=expected["run"])
    for ask in (
        lambda: Feed.open(store, id=run.feed),
        lambda: Dataset.open(store, reference=run.dataset),
    ):
        with pytest.raises(StoreError, match="leads out of its folder"):
            ask()


def test_checkpoints_are_named_by_their_step(elsewhere, tmp_path):
    store, expected = elsewhere
    run = Run.open(store, reference=expected["run"])
    checkpoints = Checkpoints(run.checkpoints, 1)
    (whole,) = checkpoints.all()
    (run.checkpoints / "step-0000000009").symlink_to(tmp_path)
    (run.checkpoints / "step-x").mkdir()
    assert checkpoints.all() == [whole]
    with pytest.raises(StoreError, match="a link leads it out"):
        checkpoints.whole(9)


def test_a_value_that_names_a_link_out_of_its_root(tmp_path, nothing_outside):
    (nothing_outside / "texts").mkdir()
    (nothing_outside / "texts" / "a.txt").write_text("fine")
    (nothing_outside / "texts" / "b.txt").symlink_to(tmp_path / "secret.txt")
    (nothing_outside / "texts" / "c").symlink_to(tmp_path)
    (nothing_outside / "t.csv").write_text(
        "file,y\na.txt,1\nb.txt,2\nc/secret.txt,3\n../../secret.txt,4\n/etc/passwd,5\na.txt/../../../secret.txt,6\n"
    )
    recipe = load_recipe(
        {
            "name": "x",
            "source": {
                "type": "files",
                "path": "t.csv",
                "load": {"file": {"root": "texts", "text": True}},
            },
            "split": {"train": 1.0, "validation": 0, "test": 0},
        },
        base=nothing_outside,
    )
    dataset = api.prepare(recipe, store=nothing_outside / "store")
    assert dataset.table("train")["file"].to_pylist() == ["fine"]
    assert dataset.counts["quarantined"] == 5


@pytest.mark.parametrize("name", ["../secret.bin", "{outside}/secret.bin", "link.bin"])
def test_a_program_s_own_files_lie_beside_it(name, tmp_path, nothing_outside):
    """An ONNX program that keeps values in files beside it is refused: no manifest vouches for them."""
    (nothing_outside / "secret.bin").write_bytes(b"\0\0\xe0@")
    folder = nothing_outside / "programs"
    folder.mkdir()
    (folder / "link.bin").symlink_to(nothing_outside / "secret.bin")
    weight = onnx.TensorProto(
        name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL
    )
    weight.external_data.add(key="location", value=name.format(outside=nothing_outside))
    given, answer = (
        onnx.helper.make_tensor_value_info(word, 1, ["r"]) for word in ("a", "y")
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["a", "w"], ["y"])],
        "g",
        [given],
        [answer],
        [weight],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    (folder / "main.onnx").write_bytes(model.SerializeToString())
    entries = [{"name": word, "dtype": "float32", "shape": []} for word in ("a", "y")]
    with pytest.raises(BundleError, match="has values in files beside it"):
        Runtime.load("onnx").open(
            folder,
            {"file": "main.onnx", "inputs": entries[:1], "outputs": entries[1:]},
            threads=1,
        )
