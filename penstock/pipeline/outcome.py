"""The outcome of a pipeline: its artefacts, its report, its rows, and what was there
already.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from penstock.bundle.bundle import Bundle
from penstock.contracts.foreign import was_given
from penstock.core.errors import PenstockError, TrainingError
from penstock.core.jsons import parsed
from penstock.core.page import facts_page
from penstock.core.store import Store
from penstock.core.wording import duration
from penstock.encode.feed import Feed
from penstock.evaluate.sentences import story
from penstock.prepare.dataset import Dataset
from penstock.prepare.versions import open_version
from penstock.recipe.code import source_digest
from penstock.run import Run


class _Named(BaseModel):
    """What one process says of an outcome to another."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dataset: str | None
    feed: str | None
    run: str | None
    bundle: str | None
    report: dict[str, Any] | None
    training: dict[str, Any] | None
    seconds: dict[str, float]
    skipped: dict[str, bool]
    peak_memory_bytes: int
    is_trusted: bool


@dataclass(repr=False)
class Outcome:
    """The artefacts that a pipeline made or found."""

    dataset: Dataset | None = None
    feed: Feed | None = None
    run: Run | None = None
    bundle: Bundle | None = None
    report: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, bool] = field(default_factory=dict)
    peak_memory_bytes: int = 0

    def __repr__(self) -> str:
        artefacts = [
            each
            for each in (self.dataset, self.feed, self.run, self.bundle)
            if each is not None
        ]
        return f"Outcome({', '.join(map(repr, artefacts))})"

    def _repr_html_(self) -> str:
        report = self.report or {}
        sentences = story(report).lead if report else []
        facts = {
            "dataset": self.dataset.reference if self.dataset else None,
            "rows": self.rows() or None,
            "run": self.run.id if self.run else None,
            "bundle": self.bundle.reference if self.bundle else None,
            "report": report.get("path"),
            "time": duration(sum(self.seconds.values())),
        }
        return facts_page("Outcome", facts, sentences=sentences)

    def named(self) -> dict[str, Any]:
        """Return what another process needs to open the same outcome: references and
        plain data.
        """
        return {
            "dataset": self.dataset.reference if self.dataset else None,
            "feed": self.feed.id if self.feed else None,
            "run": self.run.id if self.run else None,
            "bundle": self.bundle.reference if self.bundle else None,
            "report": self.report,
            "training": self.training,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "peak_memory_bytes": self.peak_memory_bytes,
            "is_trusted": self.bundle is not None and self.bundle.trusted,
        }

    @classmethod
    def opened(cls, named: dict[str, Any], store: Store) -> Outcome:
        """Open the outcome that another process of this command has `named`, from the
        store that both see.

        Raises:
            TrainingError: what that process has said makes no sense.
        """
        try:
            references = _Named.model_validate(named).model_dump()
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise TrainingError(
                f"rank 0 says that it ended, and its {where or 'outcome'} makes no sense. Is the same"
                " version of Penstock installed on every machine?"
            ) from None
        # The other process has judged the bundle. But its word brings no code: only modules that this
        # process was given itself are run.
        trust = references.pop("is_trusted") and _has_given_code(named["bundle"], store)
        return cls(
            **{
                **references,
                "dataset": open_version(store, named["dataset"])
                if named["dataset"]
                else None,
                "feed": Feed.open(store, id=named["feed"]) if named["feed"] else None,
                "run": Run.open(store, reference=named["run"]) if named["run"] else None,
                "bundle": Bundle.open(named["bundle"], store=store, trust=trust)
                if named["bundle"]
                else None,
            }
        )

    def rows(self) -> dict[str, int]:
        """in = train + validation + test + quarantined + duplicates + filtered."""
        if self.dataset is None:
            return {}
        counts = dict(self.dataset.counts)
        # Features refuse rows after the dataset has counted them.
        if self.feed is not None:
            for split in ("train", "validation", "test"):
                counts[split] = self.feed.rows.get(split, 0)
            counts["quarantined"] += self.feed.quarantined
        total = sum(n for word, n in counts.items() if word != "in")
        if total != counts["in"]:
            raise PenstockError(
                f"rows do not add up: {counts['in']} came in, {total} are accounted for ({counts}). This is a"
                " defect of Penstock; please report it."
            )
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        report = self.report or {}
        return {
            "dataset": self.dataset.reference if self.dataset else None,
            "run": self.run.id if self.run else None,
            "bundle": self.bundle.reference if self.bundle else None,
            "rows": self.rows(),
            "samples": self.feed.samples if self.feed else None,
            "metrics": report.get("metrics", {}),
            "intervals": report.get("intervals", {}),
            "baseline": report.get("baseline", {}),
            "classical": report.get("classical", {}),
            "slices": report.get("slices", []),
            "verdict": report.get("verdict"),
            "training": self.training,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def _has_given_code(reference: str | None, store: Store) -> bool:
    """Whether all code in a bundle is what this process's own user has given it, as it was imported here."""
    if reference is None:
        return False
    name = f"bundles/{reference.removeprefix('bundle-')}"
    try:
        facts = parsed(store.read(name, file="bundle.json") or b"{}")
    except ValueError:
        return False  # the bundle is refused for it when it is opened
    sources = facts.get("source") if isinstance(facts, dict) else None
    if not isinstance(sources, dict) or not all(map(was_given, sources)):
        return False
    # Compared by content: under one name a bundle may bring other code than the user gave.
    return all(
        hashlib.sha256(store.read(name, file=str(file)) or b"").hexdigest()
        == source_digest(module, ".")
        for module, file in sources.items()
    )
