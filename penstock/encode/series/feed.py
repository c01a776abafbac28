"""The feed of a dataset whose rows are steps: each step once, and for every split the anchors of its samples.

    steps-*.arrow     the arrays of series, a row a step, in the order of series and time; equal ones once
    singles-*.arrow   row_id, weight, and the arrays of plain features, a row a step
    train-*.arrow …   `anchor`: the steps at which the split's samples begin to forecast

Beside them it learns what only the order of the steps can tell: how far apart they are, hence the season, and
what the seasonal naive forecast errs by in the training split.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_ID
from penstock.contracts.features import SeriesFeature
from penstock.core.errors import ContractError
from penstock.core.events import Events
from penstock.encode.encoding import WEIGHT, Accepted, Encoding
from penstock.encode.quarantine import Quarantine
from penstock.encode.recipe_encoding import sample_encoding
from penstock.encode.series.chunk import Chunk
from penstock.encode.series.steps import RANK, Steps, sort_steps
from penstock.encode.series.windows import Anchors, Lagged, Reach, season_of
from penstock.encode.writer import FeedParts, FeedWriter
from penstock.prepare.dataset import SPLITS
from penstock.recipe.schema import Recipe
from penstock.shards.row_ids import row_id_halves
from penstock.shards.writer import ShardWriter


class SeriesWriter(FeedWriter):
    """Steps sorted by series and time, stored once; samples are cut out of them when they are read.

    One process does it all: where a sample begins depends on every step before it.
    """

    def write(self, folder: Path, quarantine: Quarantine) -> FeedParts:
        """See `FeedWriter.write`.

        Raises:
            ContractError: two steps of one series are at one time, a gap is an error, or there is no sample
                to learn from.
        """
        recipe, encoding = self.job.recipe, self.job.encoding
        samples = recipe.samples
        assert samples is not None
        whole = sample_encoding(recipe)
        # Shared by reference: what the order of steps teaches below is in both
        # encodings.
        whole.fitted = encoding.fitted
        reach = Reach.of(recipe.inputs.values(), recipe.targets.values())
        # Training has a stride of its own; validation and test share one.
        anchors = Anchors(
            reach, (samples.stride, samples.stride_eval, samples.stride_eval)
        )
        blocks = _blocks(encoding)
        step_counts: Counter[str] = Counter()
        sample_counts: Counter[str] = Counter()
        naive: dict[str, Lagged] = {}
        with self._sorted_steps(folder, quarantine) as (stream, writers):
            for chunk in self._with_progress(stream):
                if not naive:  # the distance of steps, hence the season, is known with the first of them
                    distance = stream.distance if stream.timed else None
                    naive = _naive(recipe, whole, distance, self.job.events)
                # Before the steps are written, while the chunk holds their values.
                _learn(naive, encoding, chunk.accepted, chunk.segment, chunk.rank)
                _write_steps(encoding, blocks, chunk, writers)
                chunk_anchors, splits = anchors.update(chunk.segment, chunk.rank)
                for rank, name in enumerate(SPLITS):
                    step_counts[name] += int((chunk.rank == rank).sum())
                    sample_counts[name] += int((splits == rank).sum())
                    writers[name].write({"anchor": chunk_anchors[splits == rank]})
        if not sample_counts["train"]:
            raise _no_samples(reach, step_counts["train"], stream.gaps)
        # Over a whole season, and across chunks, in place of the change from step to
        # step that fitting found.
        for name, lagged in naive.items():
            whole.fitted[name]["naive"] = lagged.result()
        _report(
            step_counts, sample_counts, anchors.straddling, stream.gaps, self.job.events
        )
        return FeedParts(
            {split: step_counts[split] for split in SPLITS},
            {name: writer.files for name, writer in writers.items()},
            whole,
            {
                "windows": _windows(recipe, reach, blocks),
                "samples": {split: sample_counts[split] for split in SPLITS},
                "straddling": anchors.straddling,
                "gaps": stream.gaps,
                "distance": stream.distance,
            },
        )

    @contextmanager
    def _sorted_steps(
        self, folder: Path, quarantine: Quarantine
    ) -> Iterator[tuple[Steps, dict[str, ShardWriter]]]:
        """The steps of all splits by series and time, and writers of shards for what they give."""
        recipe, dataset = self.job.recipe, self.job.dataset
        assert recipe.samples is not None
        scratch = folder / "sorting"
        with ExitStack() as stack:
            # The sorted copy lies in the draft and must not be part of the feed.
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            writers = {
                name: stack.enter_context(ShardWriter(folder, name))
                for name in ("steps", "singles", *SPLITS)
            }
            files = sort_steps(
                [dataset.files(split) for split in SPLITS],
                recipe,
                recipe.samples,
                scratch,
            )
            # Refused steps go to the quarantine, so that the rows of each split still
            # add up.
            refuse = partial(_refuse, quarantine)
            yield (
                Steps(files, recipe.samples, self.job.encoding, set_aside=refuse),
                writers,
            )

    def _with_progress(self, stream: Steps) -> Iterator[Chunk]:
        """The chunks that have steps; progress is reported after each."""
        done, total = 0, sum(self.job.dataset.counts[split] for split in SPLITS)
        for chunk in stream:
            # A chunk may have lost all its steps to the quarantine.
            if chunk.accepted.rows:
                yield chunk
                done += len(chunk.segment)
                self.job.events.progress("encode", done, total, "rows")


def _refuse(quarantine: Quarantine, table: pa.Table, accepted: Accepted) -> None:
    """Refused steps go to the quarantine under their own split; `RANK` is no column of the data."""
    ranks = np.asarray(table[RANK].to_numpy())
    for rank, split in enumerate(SPLITS):
        refused = {
            row: problems
            for row, problems in accepted.refused.items()
            if ranks[row] == rank
        }
        if refused:
            quarantine.add(
                table.drop_columns([RANK]), Accepted(accepted.rows, {}, refused), split
            )


def _write_steps(
    encoding: Encoding,
    blocks: dict[str, str],
    chunk: Chunk,
    writers: dict[str, ShardWriter],
) -> None:
    """A chunk's arrays: of series that are stored, and of what a step has once."""
    stored = encoding.encode(chunk.accepted)
    # A step's window has length 1; the axis of time comes back when samples are cut.
    series = {
        name: values[:, 0]
        for name, values in stored.items()
        if name.rpartition(".")[0] in blocks.values()
    }
    # What a step has once: its weight and plain features. A series that shares
    # another's block is in neither.
    singles = {
        name: values
        for name, values in stored.items()
        if name == WEIGHT or name.rpartition(".")[0] not in blocks
    }
    writers["steps"].write(series)
    row_ids = row_id_halves(chunk.table.column(ROW_ID).combine_chunks())
    writers["singles"].write({"row_id": row_ids, **singles})


def _no_samples(reach: Reach, steps: int, gaps: int) -> ContractError:
    return ContractError(
        f"no series of the training split has the {reach.steps} consecutive steps"
        f" that a sample needs ({reach.back} before, {reach.ahead} from the anchor"
        f" on). There are {steps:,} steps and {gaps:,} gaps. Shorten the window or the"
        " horizon, or check `samples.entity` and `samples.time`."
    )


def _report(
    steps: Mapping[str, int],
    samples: Mapping[str, int],
    straddling: int,
    gaps: int,
    events: Events,
) -> None:
    across = f"{straddling:,} more would straddle splits; " if straddling else ""
    events.say(
        f"{sum(steps.values()):,} steps give {samples['train']:,} samples to train"
        f" on, {samples['validation']:,} to validate, {samples['test']:,} to test;"
        f" {across}{gaps:,} gaps",
        samples=dict(samples),
        straddling=straddling,
        gaps=gaps,
    )


def _windows(recipe: Recipe, reach: Reach, blocks: dict[str, str]) -> dict[str, Any]:
    """How samples are cut out of stored steps, as `WindowShards` reads it: steps count from the first that a
    sample reads.
    """
    series: dict[str, Any] = {}
    for target, side in ((False, recipe.inputs), (True, recipe.targets)):
        for name, feature in side.items():
            if isinstance(feature, SeriesFeature):
                start, stop = feature.reach(target=target)
                # Counted from the first step that any feature of a sample reads.
                series[name] = {
                    "block": blocks[name],
                    "start": reach.back + start,
                    "stop": reach.back + stop,
                }
    return {
        "back": reach.back,
        "ahead": reach.ahead,
        "before": [
            name
            for name, feature in recipe.inputs.items()
            if not isinstance(feature, SeriesFeature)
        ],
        "series": series,
    }


def _blocks(encoding: Encoding) -> dict[str, str]:
    """Each series, and the one whose stored steps are its own as well: the first with an equal declaration
    and equal facts.
    """
    blocks: dict[str, str] = {}
    first: dict[str, str] = {}
    for name, feature in {**encoding.inputs, **encoding.targets}.items():
        if isinstance(feature, SeriesFeature):
            facts = encoding.fitted[name]
            # What decides the stored numbers: equal keys are stored once.
            key = repr(
                (
                    feature.type,
                    feature.columns(name),
                    feature.na,
                    facts["mean"],
                    facts["std"],
                )
            )
            blocks[name] = first.setdefault(key, name)
    return blocks


def _naive(
    recipe: Recipe, whole: Encoding, distance_us: float | None, events: Events
) -> dict[str, Lagged]:
    """For each series to forecast, a `Lagged` that measures its seasonal naive forecast; sets its season."""
    naive = {}
    for name, feature in recipe.targets.items():
        if not isinstance(feature, SeriesFeature):
            continue
        facts = whole.fitted[name]
        # A declared season stands; otherwise it follows from how far apart steps are.
        if feature.to_dict().get("season") is None:
            facts["season"] = season_of(distance_us)
            if facts["season"] > 1:
                events.say(
                    f"targets.{name}: assuming a season of {facts['season']} steps, judging by"
                    " the time between steps. Set `season` if it differs",
                    feature=name,
                )
        naive[name] = Lagged(int(facts["season"]), len(facts["mean"]))
    return naive


def _learn(
    naive: dict[str, Lagged],
    encoding: Encoding,
    accepted: Accepted,
    segment: np.ndarray,
    rank: np.ndarray,
) -> None:
    """Add a chunk to the naive forecast's error; steps outside the training split only carry it on."""
    for name, lagged in naive.items():
        stored = encoding.targets[name].encode(
            accepted.columns[name], encoding.fitted[name]
        )
        # In the user's units `[n, V]`, as the error is told.
        truth = encoding.targets[name].truth(stored, encoding.fitted[name])[:, 0]
        # Steps of other splits become NaN rather than go: a lag counts steps.
        lagged.update(np.where((rank == 0)[:, None], truth, np.nan), segment)
