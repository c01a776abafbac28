"""Datasets, feeds, runs, bundles and programs that somebody else wrote: every checksum right, and what they
say is anything.

Each is damaged by a seeded mutator, sealed again, and asked all that is asked of one. It is answered, or
there is a sentence.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import penstock
from penstock import api
from penstock.bundle.bundle import Bundle
from penstock.cli import main
from penstock.contracts.data import Feature
from penstock.contracts.learn import Runtime
from penstock.core.errors import BundleError, PenstockError
from penstock.core.store import MANIFEST, Store, seal
from penstock.encode.feed import Feed
from penstock.encode.reuse_fitted import reuse_fitted
from penstock.nn.weights import read_tensors
from penstock.prepare.dataset import Dataset
from penstock.run import Run
from penstock.terminal.store_screens import show_screen
from penstock.train.warm_start import weights_of
from tests.safety.mutate import mutate
from tests.safety.test_hostile import edit, reseal

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "store-1"
NAMES = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
QUICK = {"datasets": 12, "feeds": 12, "runs": 12, "bundles": 8, "reports": 8}
MANY = {"datasets": 300, "feeds": 300, "runs": 300, "bundles": 300, "reports": 100}
RESUMED = 16
"""Each packs anew, and many train, which takes seconds."""


@pytest.fixture(autouse=True)
def private(tmp_path, monkeypatch):
    monkeypatch.setenv("PENSTOCK_STATE", str(tmp_path / "state"))


def of_dataset(store: Store) -> Iterator[Callable[[], object]]:
    dataset = Dataset.open(store, reference=NAMES["dataset"])
    yield lambda: (dataset.counts, dataset.facts, dataset.schema, dataset.reference)
    yield lambda: [dataset.table(split).to_pylist() for split in ("train", "test")]
    yield lambda: show_screen(api.show(NAMES["dataset"], store=store))
    yield lambda: api.list_artefacts("datasets", store=store)


def of_feed(store: Store) -> Iterator[Callable[[], object]]:
    feed = Feed.open(store, id=NAMES["feed"])
    yield lambda: (feed.encoding, feed.sizes)
    yield lambda: [
        (feed.shards(split), feed.holes(split))
        for split in ("train", "validation", "test")
    ]
    yield lambda: list(penstock.Loader(feed, batch_size=8))


def of_run(store: Store) -> Iterator[Callable[[], object]]:
    run = Run.open(store, reference=NAMES["run"])
    yield lambda: (
        run.facts,
        run.status,
        run.summary,
        run.key,
        run.created,
        run.world(),
        run.recipe(),
    )
    yield lambda: read_tensors(weights_of(NAMES["run"], store))
    yield lambda: show_screen(api.show(NAMES["run"], store=store))
    yield lambda: [(one.id, one.status) for one in Run.all(store)]
    yield lambda: api.list_artefacts("runs", store=store)


def of_resumed(store: Store) -> Iterator[Callable[[], object]]:
    """Packed and evaluated anew, and where it was unfinished, trained on from its checkpoint."""
    yield lambda: api.resume(NAMES["run"], store=store)


def of_report(store: Store) -> Iterator[Callable[[], object]]:
    (path,) = (store.folder / "reports").iterdir()
    yield lambda: show_screen(api.show(path.name, store=store))
    yield lambda: api.list_artefacts("reports", store=store)
    yield lambda: api.evaluate(NAMES["bundle"], store=store)


def of_bundle(store: Store) -> Iterator[Callable[[], object]]:
    """Trusted, and with code of its own; its weights and features are taken over as well."""
    (path,) = (store.folder / "bundles").iterdir()
    reference = f"bundle-{path.name}"
    yield lambda: Bundle.open(path, trust=True).predict([{"age": 40}])
    yield lambda: read_tensors(weights_of(reference, store))
    for name, kind in (("age", "number"), ("city", "category"), ("seen", "timestamp")):
        yield lambda n=name, k=kind: reuse_fitted(
            {n: Feature.load({"type": k, "fitted_from": reference})},
            "inputs",
            store,
            where="x",
        )  # type: ignore[misc]


def damaged(file: Path, chance: random.Random) -> str:
    """Change a file; returns what was done."""
    if file.suffix == ".json" and chance.random() < 0.85:
        data = json.loads(file.read_text("utf-8"))
        what = edit(data, chance)
        file.write_text(json.dumps(data))
        return what
    if file.suffix == ".jsonl" and chance.random() < 0.7:
        lines = file.read_text("utf-8").splitlines()
        place = chance.randrange(len(lines))
        data = json.loads(lines[place])
        what = edit(data, chance)
        file.write_text(
            "\n".join([*lines[:place], json.dumps(data), *lines[place + 1 :]]) + "\n",
            "utf-8",
        )
        return what
    seed = chance.randrange(10**9)
    file.write_bytes(mutate(file.read_bytes(), seed))
    return f"bytes, seed {seed}"


SHELVES = {
    "datasets": of_dataset,
    "feeds": of_feed,
    "runs": of_run,
    "bundles": of_bundle,
    "reports": of_report,
}


def sealed(shelf: str, root: Path, file: Path) -> None:
    """Every checksum is right again."""
    if shelf == "bundles":
        reseal(next(root.iterdir()))
        return
    for manifest in sorted(root.rglob(MANIFEST), key=lambda path: -len(path.parts)):
        if manifest.parent in file.parents and manifest != file:
            rest = json.loads(manifest.read_text("utf-8"))
            seal(
                manifest.parent,
                {
                    word: value
                    for word, value in rest.items()
                    if word not in ("format", "files")
                },
            )


def unfinished(run: Path) -> None:
    """As if its process had been stopped before its end."""
    (run / MANIFEST).unlink()
    facts = json.loads((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(json.dumps({**facts, "status": "interrupted"}), "utf-8")


def tried(
    shelf: str,
    count: int,
    seed: int,
    tmp_path: Path,
    asked: Callable[[Store], Iterator[Callable[[], object]]] | None = None,
) -> int:
    """How many questions of `count` damaged artefacts were refused."""
    chance, refused = random.Random(seed), 0
    for number in range(count):
        store = Store(shutil.copytree(GOLDEN, tmp_path / str(number) / "store"))
        root = store.folder / shelf
        if shelf == "bundles":
            own(next(root.iterdir()), f"own_of_artefacts_{seed}_{number}")
        if shelf == "runs" and number % 2:
            unfinished(next(root.iterdir()))
        files = [
            file
            for file in sorted(root.rglob("*"))
            if file.is_file()
            and not (
                (shelf == "bundles" and file.name == MANIFEST) or file.suffix == ".py"
            )
        ]
        file = chance.choice(
            [each for each in files if each.suffix in (".json", ".jsonl", ".yaml")] * 2
            + files
        )
        what = f"{file.relative_to(root)}: {damaged(file, chance)}"
        try:
            if file.name != MANIFEST and chance.random() < 0.9:
                sealed(shelf, root, file)
            asks = list((asked or SHELVES[shelf])(store))
        except PenstockError:
            refused += 1
            continue
        except Exception as error:
            raise AssertionError(what) from error
        for ask in asks:
            refused += is_refused(ask, what)
        shutil.rmtree(store.folder)
    return refused


def own(bundle: Path, module: str) -> None:
    """Give a bundle code of its own, which is trusted."""
    (bundle / "source").mkdir()
    (bundle / "source" / f"{module}.py").write_text("x = 1\n")
    facts = json.loads((bundle / "bundle.json").read_text("utf-8"))
    (bundle / "bundle.json").write_text(
        json.dumps({**facts, "source": {module: f"source/{module}.py"}})
    )


def is_refused(ask: Callable[[], object], what: str) -> bool:
    try:
        ask()
    except PenstockError as error:
        told = error
    except Exception as error:
        raise AssertionError(what) from error
    else:
        return False
    assert told.exit_code in (2, 3) and len(str(told)) < 3_500, what
    return True


@pytest.mark.parametrize("shelf", SHELVES)
def test_an_artefact_of_somebody_else_s_making_is_told(shelf, tmp_path):
    assert tried(shelf, QUICK[shelf], 2, tmp_path) > 0


@pytest.mark.slow
@pytest.mark.parametrize("shelf", SHELVES)
def test_hundreds_of_them_are(shelf, tmp_path):
    assert tried(shelf, MANY[shelf], 7, tmp_path) > MANY[shelf] // 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_of_somebody_else_s_making_is_resumed_or_told(seed, tmp_path):
    assert tried("runs", RESUMED, seed, tmp_path, of_resumed) > 0


def test_an_error_of_a_bundle_s_own_code_keeps_its_traceback(tmp_path):
    bundle = Path(
        shutil.copytree(
            GOLDEN / "bundles" / NAMES["bundle"].removeprefix("bundle-"),
            tmp_path / "bundle",
        )
    )
    own(bundle, "own_of_artefacts")
    (bundle / "source" / "own_of_artefacts.py").write_text("raise ValueError('mine')\n")
    bundle = reseal(bundle)
    for _ in range(2):  # half a module is not left behind
        with pytest.raises(ValueError, match=r"^mine$"):
            Bundle.open(bundle, trust=True)


# -- programs ------------------------------------------------------------------------------------------------


def program(folder: Path, **words: Any) -> dict[str, Any]:
    """A program that adds `w`, which may lie elsewhere."""
    folder.mkdir(exist_ok=True)
    there = words.get("location")
    w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1])
    if there is None:
        w.raw_data = np.ones(1, np.float32).tobytes()
    else:
        w.data_location = TensorProto.EXTERNAL
        for key, value in (("location", there), ("offset", "0"), ("length", "4")):
            w.external_data.add(key=key, value=value)
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")
    ]
    inner = (
        []
        if not words.get("nested")
        else [helper.make_node("Constant", [], ["w"], value=w)]
    )
    node = helper.make_node("Add", ["x", "w"], ["y"], domain=words.get("domain", ""))
    graph = helper.make_graph(
        [*inner, node], "g", values[:1], values[1:], [] if inner else [w]
    )
    sets = [
        helper.make_opsetid("", 17),
        *([helper.make_opsetid(words["domain"], 1)] if "domain" in words else []),
    ]
    (folder / "main.onnx").write_bytes(
        helper.make_model(graph, opset_imports=sets, ir_version=8).SerializeToString()
    )
    entries: list[dict[str, Any]] = [
        {"name": name, "dtype": "float32", "shape": []} for name in "xy"
    ]
    return {"file": "main.onnx", "inputs": entries[:1], "outputs": entries[1:]}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    "location",
    [
        "beside.bin",
        "../secret.bin",
        "/etc/hostname",
        "link.bin",
        "/dev/zero",
        "*/_ORT_MEM_ADDR_/*",
        "",
    ],
)
def test_a_program_reads_no_other_file(location, nested, tmp_path):
    """Not even one beside it: nobody has compared it with the manifest."""
    for name in ("secret.bin", "in/beside.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(np.ones(1, np.float32).tobytes())
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "secret.bin")
    made = program(tmp_path / "in", location=location, nested=nested)
    with pytest.raises(BundleError, match="values in files beside it"):
        Runtime.load("onnx").open(tmp_path / "in", made, threads=1)


def test_a_program_brings_no_operator(tmp_path, capfd):
    made = program(tmp_path / "in", domain="evil.\x1b[31m")
    with pytest.raises(BundleError) as refused:
        Runtime.load("onnx").open(tmp_path / "in", made, threads=1)
    assert "\x1b" not in str(refused.value) + "".join(capfd.readouterr())


def test_a_whole_program_runs(tmp_path):
    for nested in (False, True):
        run = Runtime.load("onnx").open(
            tmp_path / "in", program(tmp_path / "in", nested=nested), threads=1
        )
        assert run({"x": np.ones(1, np.float32)})["y"].tolist() == [2.0]


def test_damaged_programs_are_told(tmp_path):
    made = program(tmp_path / "in", nested=True)
    whole = (tmp_path / "in" / "main.onnx").read_bytes()
    for seed in range(60):
        (tmp_path / "in" / "main.onnx").write_bytes(mutate(whole, seed))
        is_refused(
            lambda: Runtime.load("onnx").open(tmp_path / "in", made, threads=1),
            f"seed {seed}",
        )


DEEP = b"[" * 5_000


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("runs/0123456789abcdef/run.json", DEEP),
        ("runs/0123456789abcdef/manifest.json", DEEP),
        ("bundles/0123456789abcdef/manifest.json", DEEP),
        ("reports/0123456789abcdef/manifest.json", b'{"format": 1, "files": {}}'),
        ("feeds/0123456789abcdef/manifest.json", b'{"format": 1, "files": {}}'),
        ("datasets/x/0123456789abcdef/manifest.json", b'{"format": 1, "files": {}}'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_lies_in_a_store_is_listed_and_shown_or_told(
    place, content, tmp_path, capsys
):
    """Records that nest too deep, and artefacts whose manifest lacks what they are made of."""
    store = shutil.copytree(GOLDEN, tmp_path / "store")
    file = store / place
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    shelf, name = place.split("/")[0], place.split("/")[-2]
    for words in (
        ["list", shelf],
        ["show", name],
        ["show", f"bundle-{name}"],
        ["show", f"run-{name}"],
    ):
        assert main([*words, "--store", str(store)]) in (0, 2), words
    assert "defect" not in capsys.readouterr().err
