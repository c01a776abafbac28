"""Packing: a finished run → a bundle, proven before it is published.

The network is built from the recipe and the encoding, given the run's weights, and exported to ONNX; the
exported program must answer golden rows as torch does (within 1e-4), and the bundle's own path from raw rows
to answers must agree too. A module of the user's that ONNX cannot express is shipped as its source instead,
aloud, and opens only when trusted.

A bundle's id is the fingerprint of its content (`recipe.bundled`), not of the run: a reproduced run packs
into the same bundle. One with code of the user's is noted in this user's record (`core.mine`), so that the
same recipe finds it again.
"""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock._version import __version__
from penstock.bundle import card, export
from penstock.bundle.bundle import FORMAT, Bundle, encode_schema
from penstock.bundle.predictor import Predictor
from penstock.bundle.rows import from_table
from penstock.bundle.steps import Steps
from penstock.contracts.data import ROW_ID, Feature
from penstock.contracts.learn import Decoder, Runtime
from penstock.contracts.tensors import joined
from penstock.core.errors import BundleError
from penstock.core.events import Events
from penstock.core.identity import sha256_file
from penstock.core.mine import remember
from penstock.core.needs import need
from penstock.core.sound import sound
from penstock.core.store import Store
from penstock.data.encoding import Accepted, Encoding
from penstock.data.sampled_dataset import SampledDataset, seen
from penstock.recipe.bundled import IDENTITY, bundle_id
from penstock.recipe.read import read_recipe
from penstock.recipe.schema import OwnModel, Recipe
from penstock.recipe.secret import without_secrets

if TYPE_CHECKING:
    from penstock.data.dataset import Dataset
    from penstock.data.feed import Feed
    from penstock.run import Run

GOLDEN_ROWS = 64
FEWEST_GOLDEN = 4
GOLDEN_BYTES = 4 * 2**20
"""Golden rows are replayed whenever a bundle opens; with large pictures there are fewer of them."""
_LOOK = 8_192
"""Rows among which the golden ones are chosen."""
_DECIDED_ON = 200_000
_DECIDED_BYTES = 128 * 2**20
"""Of answers and truths, where they are wide (thousands of labels): a decision is made on as many rows as
take so much.
"""


def pack(
    run: Run, feed: Feed, dataset: Dataset, store: Store, events: Events, *, recipe: Recipe | None = None
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
    from penstock.model import Program, build_network, decoders_of

    recipe = recipe or run.recipe()
    need("safetensors.torch", extra="train", why="packing a bundle")
    from penstock.nn.weights import read_tensors, take_weights

    weights = run.verified("model.safetensors")
    encoding = feed.encoding
    network = build_network(recipe, encoding, seed=recipe.seed)
    take_weights(network, read_tensors(weights), where=f"the weights of {run.id}")
    decoders = decoders_of(recipe, encoding)
    program = Program(network, decoders, encoding)
    inputs, outputs = export.signature(program, encoding.specs("inputs"))

    rows = seen(dataset, recipe)
    schema = {f.name: f.type for f in rows.schema}
    targets = [c for name, feature in encoding.targets.items() for c in feature.columns(name)]
    facts = {int(index): found for index, found in dataset.facts.items()}
    steps, required = Steps.needed(
        encoding.columns(targets=False),
        derived=recipe.derive,
        clean=[(cleaner, facts.get(i, {})) for i, cleaner in enumerate(recipe.clean)],
        schema=schema,
        targets=targets,
    )
    columns = {name: schema[name] for name in required}
    decision = _decide(program, encoding, rows, events)
    declared = encoding.declared()
    fitted = declared.pop("fitted")  # a file of its own, for people and tools
    whole = without_secrets(recipe.declared())
    manifest: dict[str, Any] = {
        "type": "bundle",
        "name": recipe.name,
        "run": run.id,
        "dataset": dataset.reference,
    }
    events.say(f"packing {run.id}")

    def named(folder: Path) -> str:
        """The bundle's name, once all of it is there; its card, which says the name, is finished."""
        unnamed = folder / "card.md"
        files = {
            path.relative_to(folder).as_posix(): {"sha256": sha256_file(path)}
            for path in folder.rglob("*")
            if path.is_file()
        }
        manifest["id"] = bundle_id(folder, files)
        unnamed.write_text(
            unnamed.read_text("utf-8").replace("(bundle-)", f"(bundle-{manifest['id']})", 1), "utf-8"
        )
        return f"bundles/{manifest['id']}"

    with store.draft(named, manifest) as folder:
        (folder / "programs").mkdir()
        shutil.copyfile(weights, folder / "weights.safetensors")
        start = time.perf_counter()
        runtime, main, source = _program(program, recipe, encoding, decoders, folder, events)
        seconds = time.perf_counter() - start
        main |= {"inputs": inputs, "outputs": outputs}
        source |= _foreign_sources([declared, steps.declared()], folder)

        torch_alone = Predictor(
            encoding=encoding,
            program=lambda arrays: export.run_torch(program, arrays),
            outputs={o["name"]: (o["dtype"], tuple(n or 0 for n in o["shape"])) for o in outputs},
            decision=decision,
            columns=columns,
            keep=recipe.keep,
            steps=steps,
        )
        golden = _golden_rows(rows, list(columns), torch_alone)
        opened = Runtime.load(runtime).open(folder, main, threads=1)
        answers, measured = _prove(golden, torch_alone, opened, encoding)
        measured |= {"export_seconds": round(seconds, 3)}
        _write_golden(folder / "golden.arrow", golden, answers)

        bundle = {
            "format": FORMAT,
            "identity": IDENTITY,
            "name": recipe.name,
            "run": run.id,
            "dataset": dataset.reference,
            "penstock": __version__,
            "runtime": runtime,
            "programs": {"main": main},
            "encoding": declared,
            "columns": {name: str(kind) for name, kind in columns.items()},
            "schema": encode_schema(columns),
            "keep": list(recipe.keep),
            "learnt": _learnt(dataset, feed, recipe),
            "steps": steps.declared(),
            "source": source,
            "serve": whole["serve"],
            "measured": measured,
            "validation": _summary(run)["validation"],
        }
        _write_json(folder / "bundle.json", without_secrets(bundle))
        _write_json(folder / "fitted.json", fitted)
        _write_json(folder / "decision.json", decision)
        _write_recipe(folder / "recipe.yaml", recipe, run)
        with sound(f"the run {run.path}"):  # its summary is shown, whoever wrote it
            (folder / "card.md").write_text(
                card.write(
                    bundle,
                    recipe=recipe,
                    encoding=encoding,
                    decision=decision,
                    counts=dataset.counts,
                    summary=_summary(run),
                    id="",
                ),
                "utf-8",
            )
    id = manifest["id"]
    if source:
        remember("bundle", id, {"id": id})
    made = Bundle.open(f"bundle-{id}", store, trust=True)  # what was packed here: nothing else has this id
    size = sum(entry["size_bytes"] for entry in made.manifest["files"].values())
    events.say(
        f"packed {made.reference} ({size / 2**20:.1f} MiB): it answers as torch does within"
        f" {measured['difference']:.1e}; exported in {seconds:.1f} s",
        bundle=made.reference,
        **measured,
    )
    return made


def _learnt(dataset: Dataset, feed: Feed, recipe: Recipe) -> dict[str, Any]:
    """How the training data was read, so that later data is read likewise: the types of its columns, the
    distance of its steps.
    """
    return {
        "schema": encode_schema(
            {column.name: column.type for column in dataset.schema if column.name != ROW_ID}
        ),
        "distance": feed.manifest.get("distance") if recipe.samples is not None else None,
    }


# -- the decision --------------------------------------------------------------------------------------------


def _decide(
    program: Any, encoding: Encoding, dataset: Dataset | SampledDataset, events: Events
) -> dict[str, dict[str, Any]]:
    """By target, what answers are turned into words with: 0.5 as a binary's threshold, and what a feature
    itself decides on the validation split (its first 200,000 rows, or 128 MiB of answers; those of the
    training split, said aloud, if there is none).
    """
    decision: dict[str, dict[str, Any]] = {
        name: {"threshold": 0.5} if f"{name}.probability" in program.output_names else {}
        for name in encoding.targets
    }
    deciding = [
        name for name, feature in encoding.targets.items() if type(feature).decide is not Feature.decide
    ]
    if not deciding:
        return decision
    answers: list[dict[str, np.ndarray]] = []
    truths: list[dict[str, np.ndarray]] = []
    weights: list[np.ndarray] = []
    held = 0
    for split in ("validation", "train"):
        seen = 0
        for batch in dataset.batches(
            split, encoding.columns(targets=True), rows=encoding.rows_at_once(_LOOK)
        ):
            accepted = encoding.accept(pa.Table.from_batches([batch]), targets=True).kept()
            if accepted.rows:
                stored = encoding.encode(accepted)
                found = export.run_torch(program, encoding.collate(stored))
                answers.append(
                    {key: values for key, values in found.items() if key.rpartition(".")[0] in deciding}
                )
                truths.append(
                    {name: values for name, values in encoding.truth(stored).items() if name in deciding}
                )
                held += sum(values.nbytes for kept in (answers[-1], truths[-1]) for values in kept.values())
                weights += [stored["weight"]] if "weight" in stored else []
            seen += accepted.rows
            if seen >= _DECIDED_ON or held >= _DECIDED_BYTES:
                break
        if seen:
            if split == "train":
                events.warn(
                    f"there are no validation rows to decide on for {', '.join(deciding)}; the training rows"
                    " are used, which flatters the decision"
                )
            break
    if not answers:
        raise BundleError(f"{dataset.reference} has no row on which to decide for {', '.join(deciding)}.")
    weight = np.concatenate(weights) if weights else None
    for name in deciding:
        own = {
            key.rpartition(".")[2]: joined([found[key] for found in answers])
            for key in answers[0]
            if key.rpartition(".")[0] == name
        }
        decision[name] |= encoding.targets[name].decide(
            own, joined([found[name] for found in truths], fill=-1), weight, encoding.fitted[name]
        )
        events.say(
            f"decided for {name} on {sum(len(found[name]) for found in truths):,} rows:"
            f" {card.decided(decision[name])}",
            target=name,
        )
    return decision


# -- the program ---------------------------------------------------------------------------------------------


def _program(
    program: Any,
    recipe: Recipe,
    encoding: Encoding,
    decoders: Mapping[str, Decoder],
    folder: Path,
    events: Events,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Write the program: (runtime, what bundle.json says of it, sources by module)."""
    try:
        shipped, stacks = export.stacked(program)
        export.write_onnx(shipped, folder / "programs" / "main.onnx")
        return {"type": "onnx"}, {"file": "programs/main.onnx", **({"stacks": stacks} if stacks else {})}, {}
    except export.NotExportable as error:
        if not isinstance(recipe.model, OwnModel):
            raise
        events.warn(
            f"{error.message}. It is shipped as its source instead: the bundle runs on torch, and opens only"
            " with --trust."
        )
    module, _, word = recipe.model.type.partition(":")
    made = getattr(importlib.import_module(module), word)
    file = _copy_source(module, folder)
    given = [
        name
        for name in ("specs", "targets")
        if name in inspect.signature(made).parameters and name not in recipe.model.arguments
    ]
    from penstock.model import target_specs

    specs = {"specs": encoding.specs("inputs"), "targets": target_specs(recipe, encoding)}
    return (
        {"type": "torch"},
        {
            "file": file,
            "class": word,
            "arguments": recipe.model.arguments,
            "given": given,
            "weights": "weights.safetensors",
            "prefix": "module.",
            "decoders": {name: decoder.declared() for name, decoder in decoders.items()},
            **{
                side: {
                    name: {array: spec.declared() for array, spec in arrays.items()}
                    for name, arrays in found.items()
                }
                for side, found in specs.items()
            },
        },
        {module: file},
    )


def _copy_source(module: str, folder: Path) -> str:
    path = inspect.getsourcefile(importlib.import_module(module))
    if path is None:
        raise BundleError(f"the module {module!r} has no Python source that could travel in a bundle.")
    name = f"source/{module.replace('.', '/')}.py"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / name)
    return name


def _foreign_sources(declared: Any, folder: Path) -> dict[str, str]:
    """Copies of the modules behind every dotted `type` that a predictor must load."""
    found: dict[str, str] = {}

    def look(value: Any) -> None:
        if isinstance(value, Mapping):
            word = value.get("type")
            if isinstance(word, str) and "." in word and word not in found:
                found[word] = _copy_source(word, folder)
            for item in value.values():
                look(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                look(item)

    look(declared)
    return found


# -- the proof -----------------------------------------------------------------------------------------------


def _golden_rows(dataset: Dataset | SampledDataset, columns: list[str], predictor: Predictor) -> pa.Table:
    """Up to 64 rows that the bundle must answer alike for ever: some with missing values, the others spread
    out.
    """
    for split in ("test", "validation", "train"):
        batch = next(iter(dataset.batches(split, columns, rows=predictor.encoding.rows_at_once(_LOOK))), None)
        if batch is None or not batch.num_rows:
            continue
        table = pa.Table.from_batches([batch]).select(columns)
        admitted = predictor.admit(from_table(table, predictor.columns))
        table = table.take(pa.array(admitted.places))
        if not table.num_rows:
            continue
        lacking = np.zeros(table.num_rows, bool)
        for column in table.columns:
            lacking |= np.asarray(column.is_null())
        some = np.flatnonzero(lacking)[: GOLDEN_ROWS // 4]
        others = np.setdiff1d(np.arange(table.num_rows), some)
        spread = (
            others[np.unique(np.linspace(0, len(others) - 1, GOLDEN_ROWS - len(some)).astype(np.int64))]
            if len(others)
            else others
        )
        return _small(table.take(pa.array(np.sort(np.concatenate([some, spread]))))).combine_chunks()
    raise BundleError(
        f"{dataset.reference} has no row that the model accepts, so nothing can prove what it answers."
    )


def _small(golden: pa.Table) -> pa.Table:
    """Every second row again and again, until they are small (large pictures) or few."""
    while golden.get_total_buffer_size() > GOLDEN_BYTES and golden.num_rows > FEWEST_GOLDEN:
        golden = golden.take(pa.array(np.arange(0, golden.num_rows, 2)))
    return golden


def _prove(
    golden: pa.Table, torch_alone: Predictor, runtime: Any, encoding: Encoding
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The runtime's answers to the golden rows, in a batch and row by row, against torch's.

    Raises:
        BundleError: they differ by more than 1e-4.
    """
    wanted = torch_alone.answers(golden, rows="raw")
    stored = encoding.encode(
        Accepted(golden.num_rows, torch_alone.admit(from_table(golden, torch_alone.columns)).columns)
    )
    answers = runtime(encoding.collate(dict(stored)))
    apart = export.difference(answers, wanted)
    alone = [
        runtime(encoding.collate({k: v[i : i + 1] for k, v in stored.items()}))
        for i in range(golden.num_rows)
    ]
    single = export.difference({name: joined([one[name] for one in alone]) for name in answers}, wanted)
    worst = max(apart, single)
    if not worst <= export.TOLERANCE:
        raise BundleError(
            "the exported program answers otherwise than torch: the largest difference over"
            f" {golden.num_rows} golden rows is {worst:.2e}, allowed is {export.TOLERANCE:g}. The bundle was"
            " not made. Try precision: fp32 and simpler layers, and report it if the layers are Penstock's."
        )
    return answers, {"difference": worst, "difference_row_alone": single, "golden_rows": golden.num_rows}


def _write_golden(path: Path, rows: pa.Table, answers: Mapping[str, np.ndarray]) -> None:
    fields = {name: _array(values) for name, values in answers.items()}
    row = pa.StructArray.from_arrays(
        [column.combine_chunks() for column in rows.columns],
        fields=[rows.schema.field(i) for i in range(rows.num_columns)],
    )
    answer = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    table = pa.table({"row": row, "answer": answer})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _array(values: np.ndarray) -> pa.Array:
    flat = pa.array(values.reshape(-1))
    if values.ndim == 1:
        return flat
    width = int(np.prod(values.shape[1:]))
    return pa.ListArray.from_arrays(pa.array(np.arange(len(values) + 1, dtype=np.int32) * width), flat)


def _summary(run: Run) -> dict[str, Any]:
    """What training said at its end, with `validation`, an object.

    Raises:
        StoreError: the run says something else.
    """
    with sound(f"the run {run.path}"):
        summary = dict(run.summary or {})
        return {**summary, "validation": dict(summary.get("validation") or {})}


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), "utf-8")


def _write_recipe(path: Path, recipe: Recipe, run: Run) -> None:
    """The recipe as the run has it, if it is the same; otherwise as JSON, which is YAML that no reader
    mistakes.
    """
    own = run.path / "recipe.yaml"
    declared = without_secrets(recipe.declared())
    if read_recipe(own) == json.loads(json.dumps(declared)):
        shutil.copyfile(own, path)
    else:
        path.write_text(json.dumps(declared, indent=1, ensure_ascii=False), "utf-8")


__all__ = ["GOLDEN_ROWS", "pack"]
