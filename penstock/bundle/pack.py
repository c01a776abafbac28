"""Packing: a finished run → a bundle, proven before it is published.

The network is built from the recipe and the encoding, given the run's weights, and exported to ONNX; the
exported program must answer golden rows as torch does (within 1e-4), and the bundle's own path from raw rows
to answers must agree too. A module of the user's that ONNX cannot express is shipped as its source instead,
aloud, and opens only when trusted.

- `decide`: thresholds, from the validation split
- `programs`: the program's file, and the user's sources
- `golden`: the rows, and the proof

A bundle's id is the fingerprint of its content (`recipe.bundled`), not of the run: a reproduced run packs
into the same bundle. One with code of the user's is noted in this user's record (`core.mine`), so that the
same recipe finds it again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock._version import __version__
from penstock.bundle import card, export
from penstock.bundle.bundle import FORMAT, Bundle, encode_schema
from penstock.bundle.contract import RowContract
from penstock.bundle.decide import decide
from penstock.bundle.golden import GOLDEN_ROWS, choose_golden_rows, prove, write_golden
from penstock.bundle.predictor import Predictor
from penstock.bundle.programs import copy_sources_of_types, write_program
from penstock.bundle.steps import Steps
from penstock.contracts.data import ROW_ID
from penstock.contracts.learn import Decoder, Runtime
from penstock.core.events import Events
from penstock.core.identity import sha256_file
from penstock.core.mine import remember
from penstock.core.optional import require
from penstock.core.sound import sound
from penstock.core.store import Store
from penstock.encode.encoding import Encoding
from penstock.encode.series.sampled_dataset import SampledDataset, as_samples
from penstock.formats.shelf import ending
from penstock.recipe.bundled import IDENTITY, bundle_id
from penstock.recipe.read import read_recipe
from penstock.recipe.schema import Recipe
from penstock.recipe.secret import without_secrets

if TYPE_CHECKING:
    from penstock.encode.feed import Feed
    from penstock.prepare.dataset import Dataset
    from penstock.run import Run


_SPARSE = {"json", "jsonl"}
"""Formats whose rows may leave fields out."""


@dataclass(frozen=True)
class _Contents:
    """What goes into a bundle, before any of it is written."""

    run: Run
    feed: Feed
    dataset: Dataset
    rows: Dataset | SampledDataset
    """The dataset as the model sees it: where rows are steps of series, samples."""
    recipe: Recipe
    encoding: Encoding
    program: Any
    """A `penstock.model.Program`."""
    decoders: Mapping[str, Decoder]
    weights: Path
    signature: tuple[list[dict[str, Any]], list[dict[str, Any]]]
    """The program's inputs and outputs, as `bundle.json` says them."""
    steps: Steps
    contract: RowContract | None
    columns: dict[str, pa.DataType]
    """That a request must have."""
    decision: dict[str, dict[str, Any]]


def pack(
    run: Run,
    feed: Feed,
    dataset: Dataset,
    store: Store,
    events: Events,
    *,
    recipe: Recipe | None = None,
) -> Bundle:
    """Make a bundle of a finished run, and publish it.

    Args:
        run: finished, with its best weights.
        feed: what it learnt from; its encoding travels.
        dataset: the version behind the feed; golden rows come from its test split (validation, train if there
            is none).
        recipe: what to pack by, where `keep`, `derive` or `serve` changed since; the run's own unless given.

    Raises:
        BundleError: the program cannot be exported, or answers otherwise than torch.
        StoreError: the run's weights were changed, or the store cannot be written.
    """
    contents = _gather(run, feed, dataset, recipe or run.recipe(), events)
    manifest: dict[str, Any] = {
        "type": "bundle",
        "name": contents.recipe.name,
        "run": run.id,
        "dataset": dataset.reference,
    }
    events.say(f"Packing {run.id}")
    # The name follows from the content, so it is asked for once all files are written.
    with store.draft(lambda folder: _name(folder, manifest), manifest=manifest) as folder:
        facts = _write(contents, folder, events)
    id = manifest["id"]
    # Code of the user's would be refused as foreign; this user's record says that it
    # was packed here.
    if facts["source"]:
        remember("bundle", id, {"id": id})
    # Trusted, since it was packed here: nothing else has this id.
    bundle = Bundle.open(f"bundle-{id}", store=store, trust=True)
    size = sum(entry["size_bytes"] for entry in bundle.manifest["files"].values())
    measured = facts["measured"]
    events.say(
        f"Packed {bundle.reference} ({size / 2**20:.1f} MiB): its answers equal"
        f" torch's within {measured['difference']:.1e}; exported in"
        f" {measured['export_seconds']:.1f} s",
        bundle=bundle.reference,
        **measured,
    )
    return bundle


def _gather(
    run: Run, feed: Feed, dataset: Dataset, recipe: Recipe, events: Events
) -> _Contents:
    """Collect everything that a bundle is made of: program, required columns,
    decisions.
    """
    from penstock.model import Program, build_network, decoders_of

    require("safetensors.torch", extra="train", why="packing a bundle")
    from penstock.nn.weights import read_tensors, take_weights

    # The weights are compared with the run's manifest before they are used.
    weights = run.verified("model.safetensors")
    encoding = feed.encoding
    network = build_network(recipe, encoding, seed=recipe.seed)
    take_weights(network, read_tensors(weights), where=f"the weights of {run.id}")
    decoders = decoders_of(recipe, encoding)
    program = Program(network, decoders, encoding)
    signature = export.signature(program, encoding.specs("inputs"))

    # Of series, rows are samples, as requests bring them.
    rows = as_samples(dataset, recipe)
    schema = {field.name: field.type for field in rows.schema} | dataset.raw_types
    facts = {int(index): of_cleaner for index, of_cleaner in dataset.facts.items()}
    steps, required = Steps.needed(
        encoding.columns(targets=False),
        derived=recipe.derive,
        clean=[(cleaner, facts.get(i, {})) for i, cleaner in enumerate(recipe.clean)],
        private=recipe.private,
        schema=schema,
        # Columns that only targets need cannot be in a request.
        targets=[
            column
            for name, feature in encoding.targets.items()
            for column in feature.columns(name)
        ],
    )
    return _Contents(
        run,
        feed,
        dataset,
        rows,
        recipe,
        encoding,
        program,
        decoders,
        weights,
        signature,
        steps,
        RowContract.of(recipe, columns=required, steps=steps, schema=schema),
        columns={name: schema[name] for name in required},
        decision=decide(program, encoding, rows, events),
    )


def _name(folder: Path, manifest: dict[str, Any]) -> str:
    """Name the bundle by its content once its files are written; put the id into the
    manifest and the card.
    """
    files = {
        path.relative_to(folder).as_posix(): {"sha256": sha256_file(path)}
        for path in folder.rglob("*")
        if path.is_file()
    }
    # The card says the id and is no part of it, so it is finished after the id is
    # known.
    manifest["id"] = bundle_id(folder, files)
    path = folder / "card.md"
    text = path.read_text("utf-8").replace("(bundle-)", f"(bundle-{manifest['id']})", 1)
    path.write_text(text, "utf-8")
    return f"bundles/{manifest['id']}"


# -- what is written -----------------------------------------------------------------------------------------


def _write(contents: _Contents, folder: Path, events: Events) -> dict[str, Any]:
    """Write all files of a bundle, and return the content of its `bundle.json`.

    Raises:
        BundleError: the program cannot be exported, or answers otherwise than torch.
    """
    recipe, encoding = contents.recipe, contents.encoding
    (folder / "programs").mkdir()
    shutil.copyfile(contents.weights, folder / "weights.safetensors")
    start = time.perf_counter()
    shipped = write_program(
        contents.program, recipe, encoding, contents.decoders, folder, events
    )
    seconds = time.perf_counter() - start
    inputs, outputs = contents.signature
    main = shipped.facts | {"inputs": inputs, "outputs": outputs}
    declared = encoding.to_dict()
    fitted = declared.pop("fitted")  # a file of its own, for people and tools
    source = shipped.sources | copy_sources_of_types(
        [declared, contents.steps.to_dict()], folder
    )

    # The reference is torch on the same path, so that the proof covers the program and
    # nothing else.
    torch_alone = _torch_alone(contents)
    form = contents.steps.golden_rows
    columns = list(contents.columns) if form == "raw" else encoding.columns(targets=False)
    golden = choose_golden_rows(contents.rows, columns, torch_alone, rows=form)
    # Opened as users open it: from the file, by the runtime's own declaration.
    opened = Runtime.load(shipped.runtime).open(folder, main, threads=1)
    answers, measured = prove(golden, torch_alone, opened, encoding, rows=form)
    write_golden(folder / "golden.arrow", golden, answers)

    summary = _summary(contents.run)
    bundle = _bundle_json(
        contents,
        runtime=shipped.runtime,
        main=main,
        encoding=declared,
        source=source,
        measured=measured | {"export_seconds": round(seconds, 3)},
        validation=summary["validation"],
    )
    # Credentials never travel, wherever in the declaration they stand.
    _write_json(folder / "bundle.json", without_secrets(bundle))
    _write_json(folder / "fitted.json", fitted)
    _write_json(folder / "decision.json", contents.decision)
    _write_recipe(folder / "recipe.yaml", recipe, contents.run)
    with sound(f"the run {contents.run.path}"):  # its summary is shown, whoever wrote it
        text = card.write(
            bundle,
            recipe=recipe,
            encoding=encoding,
            decision=contents.decision,
            counts=contents.dataset.counts,
            summary=summary,
            id="",
        )
    (folder / "card.md").write_text(text, "utf-8")
    return bundle


def _summary(run: Run) -> dict[str, Any]:
    """Return the run's summary; its word `validation` is an object.

    Raises:
        StoreError: the run says something else.
    """
    with sound(f"the run {run.path}"):
        summary = dict(run.summary or {})
        return {**summary, "validation": dict(summary.get("validation") or {})}


def _torch_alone(contents: _Contents) -> Predictor:
    """The bundle's own path from raw rows to answers, with torch in place of the exported program."""
    return Predictor(
        encoding=contents.encoding,
        # Called with numpy arrays, as the exported program is.
        program=lambda arrays: export.run_torch(contents.program, arrays),
        outputs={
            o["name"]: (o["dtype"], tuple(n or 0 for n in o["shape"]))
            for o in contents.signature[1]
        },
        decision=contents.decision,
        columns=contents.columns,
        keep=contents.recipe.keep,
        steps=contents.steps,
    )


def _bundle_json(
    contents: _Contents,
    *,
    runtime: dict[str, Any],
    main: dict[str, Any],
    encoding: dict[str, Any],
    source: dict[str, str],
    measured: dict[str, Any],
    validation: dict[str, Any],
) -> dict[str, Any]:
    """Return the content of `bundle.json`, in the order of the file."""
    recipe, dataset = contents.recipe, contents.dataset
    return {
        "format": FORMAT,
        "identity": IDENTITY,
        "name": recipe.name,
        "run": contents.run.id,
        "dataset": dataset.reference,
        "penstock": __version__,
        "runtime": runtime,
        "programs": {"main": main},
        "encoding": encoding,
        "columns": {name: str(kind) for name, kind in contents.columns.items()},
        "schema": encode_schema(contents.columns),
        "keep": list(recipe.keep),
        "learnt": _learnt(dataset, contents.feed, recipe),
        "steps": contents.steps.to_dict(),
        # Left out where there is none, so that such a bundle is what it always was.
        **({"contract": contents.contract.to_dict()} if contents.contract else {}),
        "source": source,
        "serve": without_secrets(recipe.to_dict())["serve"],
        "measured": measured,
        "validation": validation,
    }


def _learnt(dataset: Dataset, feed: Feed, recipe: Recipe) -> dict[str, Any]:
    """Return how the training data was read, so that later data is read likewise: its
    columns' types, and the distance of its steps.
    """
    return {
        "schema": encode_schema(
            {
                # Rows of requests have no row id.
                column.name: column.type
                for column in dataset.schema
                if column.name != ROW_ID
            }
            | dataset.raw_types
        ),
        "distance": feed.manifest.get("distance") if recipe.samples is not None else None,
        **({"sparse": True} if _is_sparse(dataset) else {}),
    }


def _is_sparse(dataset: Dataset) -> bool:
    """Whether all rows came from JSON, where a field that is left out is missing."""
    with sound(f"the dataset {dataset.path}"):
        lineage = dict(dataset.manifest.get("lineage") or {})
        declared = dict(lineage.get("reading") or {}).get("format", "auto")
        files = [str(file["path"]) for file in lineage.get("source") or ()]
    own = None if declared == "auto" else str(declared)
    return bool(files) and {own or ending(path) for path in files} <= _SPARSE


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), "utf-8")


def _write_recipe(path: Path, recipe: Recipe, run: Run) -> None:
    """Write the recipe: the run's own file if it says the same, otherwise JSON, which
    every YAML reader reads alike.
    """
    own = run.path / "recipe.yaml"
    declared = without_secrets(recipe.to_dict())
    # Through JSON and back, so that tuples and lists compare alike.
    if read_recipe(own) == json.loads(json.dumps(declared)):
        shutil.copyfile(own, path)
    else:
        path.write_text(json.dumps(declared, indent=1, ensure_ascii=False), "utf-8")


__all__ = ["GOLDEN_ROWS", "pack"]
