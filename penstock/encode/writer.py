"""What every writer of a feed keeps to: fit the features, then write the shards.

    local         rows, by the threads of this process
    distributed   rows, by the engine's executors
    series/feed   steps of series and the anchors of their samples, by this process

Which of them is taken depends on the recipe and its engine alone; a feed of rows has the same rows in the
same order whichever wrote it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.core.events import Events
from penstock.encode.encoding import Encoding
from penstock.encode.fit import fit_here
from penstock.encode.quarantine import Quarantine
from penstock.prepare.dataset import Dataset
from penstock.recipe.schema import Recipe


@dataclass(frozen=True)
class FeedJob:
    """All that a writer needs to make a feed."""

    recipe: Recipe
    dataset: Dataset
    encoding: Encoding
    """Of one row of the dataset; features that were fitted elsewhere are in it already."""
    rows_at_once: int
    """Rows of a batch, so that memory suffices."""
    threads: int
    events: Events


@dataclass(frozen=True)
class FeedParts:
    """What a writer made of a feed: rows, files, encoding and facts."""

    rows: dict[str, int]
    """Encoded rows by split; with the quarantined ones they are all rows of the dataset."""
    shards: dict[str, list[str]]
    """Names of files by what they hold, in order."""
    encoding: Encoding
    """As requests know it, fitted."""
    manifest: dict[str, Any] = field(default_factory=dict)
    """What the feed's manifest says beside."""


class FeedWriter(ABC):
    """Fits the features of a job, and writes its feed."""

    def __init__(self, job: FeedJob) -> None:
        self.job = job

    def fit(self) -> None:
        """Fit to the training split every feature that is not fitted yet.

        Raises:
            ContractError: a column cannot be learnt from; names them all.
        """
        job = self.job
        fit_here(
            job.encoding, job.dataset, job.rows_at_once, job.events, threads=job.threads
        )

    @abstractmethod
    def write(self, folder: Path, quarantine: Quarantine) -> FeedParts:
        """Encode every split into shards below `folder`; rows that are refused go to `quarantine`.

        Raises:
            ContractError: nothing is left to learn from.
            StoreError: the folder cannot be written.
        """
