"""Fusion against its parts: the fashion recipe with all it has, with the picture alone, and with the name
alone, over several seeds (each splits anew). Fused must be within 0.01 of the better part, on both targets:
what gating and modality dropout are for.

    python -m benchmarks.fashion            # five seeds
    python -m benchmarks.fashion 7 8        # these
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Cannot, say
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.pipeline.stages import Pipeline
from penstock.recipe.read import read_recipe
from penstock.recipe.schema import load_recipe

RECIPE = Path(__file__).parent.parent / "recipes" / "fashion.yaml"
SEEDS = (7, 8, 9, 10, 11)
PARTS = {"fused": None, "name": ("name",), "picture": ("picture",)}
TARGETS = {"masterCategory": 0.98, "articleType": 0.89}
"""What the fused model must reach, in the median of the seeds."""


def bench(seeds: Sequence[int] = SEEDS) -> None:
    if not (RECIPE.parent.parent.parent / "shared" / "data" / "fashion").is_dir():
        raise Cannot("the fashion data set is not here")
    found: dict[str, dict[str, list[float]]] = {
        part: {target: [] for target in TARGETS} for part in PARTS
    }
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for part, inputs in PARTS.items():
                metrics = accuracy(seed, inputs, Store(folder))
                for target in TARGETS:
                    found[part][target].append(metrics[target])
                    say(
                        name=f"fashion: {target}, {part}",
                        value=metrics[target],
                        unit="accuracy",
                        seed=seed,
                    )
    for target, reach in TARGETS.items():
        medians = {part: statistics.median(found[part][target]) for part in PARTS}
        best = max(medians["name"], medians["picture"])
        say(
            name=f"fashion: {target}, median of {len(seeds)} seeds",
            value=medians["fused"],
            unit="accuracy",
            other="the better of name and picture alone",
            ratio=medians["fused"] / best,
            goal=f">= {reach} and >= the better - 0.01",
            holds=medians["fused"] >= max(reach, best - 0.01),
            picture=medians["picture"],
            by_name=medians["name"],
        )


def accuracy(seed: int, inputs: Sequence[str] | None, store: Store) -> dict[str, float]:
    """Test accuracy by target, with these inputs alone (all unless given)."""
    declared: dict[str, Any] = read_recipe(RECIPE)
    declared |= {
        "seed": seed,
        "evaluate": {"baselines": False, "bootstrap": 0},
        "trackers": [],
        "launcher": {"type": "local", "processes": 1, "threads": 1},
    }
    if inputs is not None:
        declared["inputs"] = {
            name: feature
            for name, feature in declared["inputs"].items()
            if name in inputs
        }
        declared["model"] = {
            **declared["model"],
            "encoders": {
                name: encoder
                for name, encoder in declared["model"]["encoders"].items()
                if name in inputs
            },
        }
    outcome = Pipeline(
        load_recipe(declared, base=RECIPE.parent, name="fashion"), store, Events()
    ).until("evaluate")
    assert outcome.report is not None
    return {
        target: float(outcome.report["metrics"]["test"][target]["accuracy"])
        for target in TARGETS
    }


if __name__ == "__main__":
    bench([int(seed) for seed in sys.argv[1:]] or SEEDS)
