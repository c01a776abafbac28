"""All that is known of one artefact, found by its reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.bundle.bundle import Bundle
from penstock.core.errors import UserError
from penstock.core.sound import object_in, sound
from penstock.core.store import Store
from penstock.pipeline.describe import described_run
from penstock.prepare.dataset import Dataset
from penstock.prepare.subset import open_subset
from penstock.prepare.tags import tags_of
from penstock.prepare.version_profile import profile_of
from penstock.run import Run


def facts_of(reference: str, where: Store) -> dict[str, Any]:
    """What `penstock show` shows of a dataset, subset, run, bundle, report or feed.

    Raises:
        UserError: there is none of that reference.
        StoreError: it cannot be read.
    """
    # The prefix says the kind, so no shelf is searched.
    if reference.startswith("run-"):
        return described_run(Run.open(where, reference=reference), where)
    if reference.startswith("bundle-"):
        # Without the replay of golden rows, and without its code: showing must be cheap
        # and safe.
        bundle = Bundle.open(reference, store=where, trust=False, replay=False)
        return {
            "reference": bundle.reference,
            "path": str(bundle.path),
            "card": bundle.card,
            **bundle.facts(),
        }
    if "@" in reference:
        return _facts_of_version(reference, where)
    for shelf in ("reports", "feeds"):
        # An id is one step of a path.
        if "/" not in reference and reference and where.has(f"{shelf}/{reference}"):
            artefact = where.open(f"{shelf}/{reference}")
            with sound(
                f"the report {artefact.path}", advice="Delete it, and it is made again"
            ):
                report = (
                    {"report": object_in(artefact.path / "report.json")}
                    if shelf == "reports"
                    else {}
                )
            return {
                "reference": reference,
                "path": str(artefact.path),
                "manifest": {k: v for k, v in artefact.manifest.items() if k != "files"},
                **report,
            }
    if (
        Path(reference).suffix in (".yaml", ".yml", ".toml", ".json")
        and Path(reference).is_file()
    ):
        raise UserError(
            f"{reference} is a file, and `show` takes what is in the store {where.url}: give the recipe's"
            " name, or a reference. `penstock list` shows what is there."
        )
    raise UserError(
        f"There is nothing called {reference!r} in the store {where.url}. References look like"
        " name@0123456789abcdef, run-…, bundle-0123456789abcdef; `penstock list` shows what is there."
    )


def _facts_of_version(reference: str, where: Store) -> dict[str, Any]:
    if "?" in reference:
        subset = open_subset(where, reference)
        return {
            "reference": subset.reference,
            "id": subset.id,
            "dataset": subset.whole.reference,
            "counts": subset.counts,
        }
    dataset = Dataset.open(where, reference=reference)
    with sound(f"the dataset {dataset.path}"):
        profile = profile_of(dataset)
        # Datasets of before have no such file, nor has one without cleaners.
        changes = (
            object_in(dataset.file("changes.json"))
            if "changes" in dataset.manifest
            else {}
        )
    tags = [
        each.tag
        for each in tags_of(where, dataset.name)
        if each.dataset == dataset.reference
    ]
    return {
        "reference": dataset.reference,
        "path": str(dataset.path),
        **({"tags": tags} if tags else {}),
        "manifest": {k: v for k, v in dataset.manifest.items() if k != "files"},
        **({"changes": changes.get("clean", [])} if changes else {}),
        "profile": profile,
    }
