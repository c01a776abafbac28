"""Models of the versions without the rows: each recipe that was trained on an old version is trained on the
new one, from step 0.

Going back to a checkpoint from before the first forgotten row would give the same weights only where nothing
that the training reads had changed: what features learnt, the slots of the rows, the validation split. The
rows that go change these, and they come in the first epoch, whose checkpoints are gone by its end. So nothing
is taken over, and the result is by construction what training the new version gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.core.errors import UserError
from penstock.core.events import Events
from penstock.core.interrupts import interrupts
from penstock.core.listeners import listening
from penstock.core.store import Store
from penstock.pipeline.outcome import Outcome
from penstock.pipeline.resuming import recipe_to_resume
from penstock.pipeline.stages import Pipeline
from penstock.prepare.dataset import Dataset
from penstock.run import Run

_STAGES = ("encode", "train", "pack", "evaluate")


def retrain(
    report: Mapping[str, Any], store: Store, events: Events, *, trust: bool = False
) -> list[Outcome]:
    """Train anew what was trained on versions that are gone; pack and evaluate it where there were bundles.

    Args:
        report: of the forgetting.
        trust: the runs' recipes may bring code of their own (`penstock resume --trust`).

    Raises:
        UserError: a recipe asks for more than its user has allowed; says so before any training.
        TrainingError: training failed.
    """
    wanted: list[tuple[Run, str, bool]] = []
    for version in report["versions"]:
        keys: set[str] = set()
        # The newest of each recipe: ids sort by time.
        for reference in sorted(version["runs_that_saw_them"], reverse=True):
            run = Run.open(store, reference=reference)
            if run.key not in keys:
                keys.add(run.key)
                is_packed = bool(version["bundles_that_saw_them"])
                wanted.append((run, version["child"], is_packed))
    recipes = [recipe_to_resume(run, trust) for run, _, _ in wanted]
    outcomes = []
    for (run, child, is_packed), recipe in zip(wanted, recipes, strict=True):
        dataset = Dataset.open(store, reference=child)
        if not dataset.counts["train"]:
            raise UserError(
                f"{child} has no row left to train on, so {run.id} has no successor"
            )
        events.say(f"Training {recipe.name!r} on {child} from step 0, as {run.id} was")
        pipeline = Pipeline(recipe, store, events)
        pipeline.outcome.dataset = dataset
        with listening(events), interrupts.installed():
            # No bundle is made where there was none.
            for stage in _STAGES if is_packed else _STAGES[:2]:
                interrupts.check()
                getattr(pipeline, stage)()
        outcomes.append(pipeline.outcome)
    return outcomes
