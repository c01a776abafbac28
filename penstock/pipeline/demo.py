"""The demonstration: real data that ships inside a dependency, written as a small lake,
and the whole job on it.

The data: breast cancer in Wisconsin (Wolberg, Street and Mangasarian 1993; UCI, CC BY 4.0), as scikit-learn
carries it: 569 tumours, 30 measurements, malignant or benign.
"""

from __future__ import annotations

import csv
import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.core.events import Events
from penstock.core.optional import require
from penstock.core.store import Store, atomic_write
from penstock.inspect import look, write_recipe
from penstock.pipeline.outcome import Outcome
from penstock.pipeline.stages import Pipeline
from penstock.recipe.schema import Serve, load_recipe

FILES = 4


@dataclass
class Shown:
    """The result of the demonstration."""

    folder: Path
    outcome: Outcome
    url: str
    question: dict[str, Any]
    answer: dict[str, Any]
    truth: str


def write_lake(folder: Path) -> Path:
    """Write the lake: a few CSV files with one torn line among them, as lakes have."""
    sklearn_data = require("sklearn.datasets", extra="train", why="the demonstration")
    cancer = sklearn_data.load_breast_cancer()
    names = [str(n).replace(" ", "_") for n in cancer.feature_names]
    lake = folder / "lake"
    lake.mkdir(parents=True, exist_ok=True)
    rows = len(cancer.data)
    for part in range(FILES):
        # The csv module writes its own line ends.
        with open(
            lake / f"tumours-{part}.csv", "w", newline="", encoding="utf-8"
        ) as file:
            writer = csv.writer(file)
            writer.writerow([*names, "diagnosis"])
            for i in range(part * rows // FILES, (part + 1) * rows // FILES):
                writer.writerow(
                    [
                        # The shortest text that reads back as the same double.
                        *(repr(float(v)) for v in cancer.data[i]),
                        str(cancer.target_names[cancer.target[i]]),
                    ]
                )
            if part == 1:
                file.write("13.05,19.31,82.61\r\n")  # torn: three cells of thirty-one
    return lake


def demo(folder: Path, events: Events) -> Shown:
    """Run the whole job: lake → recipe → dataset → model → bundle → a served answer."""
    from penstock.serve.server import Serving

    folder = folder.resolve()
    lake = write_lake(folder)
    events.say(f"Wrote {FILES} files of data to {lake}")
    recipe_path = folder / "recipe.yaml"
    # The probe reads by an absolute path; the recipe names the lake relative to itself.
    probe = load_recipe({"source": {"type": "files", "path": str(lake)}}, name="tumours")
    sample = probe.source.sample(probe.source.snapshot(folder), 20_000)
    text = write_recipe(
        look(sample, target="diagnosis"),
        source_declaration={"type": "files", "path": "lake"},
        name="tumours",
    )
    atomic_write(recipe_path, text)
    events.say(f"Looked at the data and wrote {recipe_path}")
    recipe = load_recipe(recipe_path)
    outcome = Pipeline(recipe, Store(folder / "store"), events).until("evaluate")
    bundle, dataset = outcome.bundle, outcome.dataset
    assert bundle is not None and dataset is not None
    row = dataset.table("test").slice(0, 1).to_pylist()[0]
    question = {name: row[name] for name in bundle.encoding.columns(targets=False)}
    with Serving(bundle, Serve(port=0), events) as server:
        body = json.dumps({"records": [question]}).encode()
        request = urllib.request.Request(
            f"{server.url}/predict",
            data=body,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)["predictions"][0]
        url = server.url
    return Shown(folder, outcome, url, question, answer, str(row["diagnosis"]))
