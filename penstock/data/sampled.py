"""The feed of a dataset whose rows are steps: each step once, and for every split the anchors of its samples.

    steps-*.arrow     the arrays of series, a row a step, in the order of series and time; equal ones once
    singles-*.arrow   row_id, weight, and the arrays of plain features, a row a step
    train-*.arrow …   `anchor`: the steps at which the split's samples begin to forecast

Beside them it learns what only the order of the steps can tell: how far apart they are, hence the season, and
what the seasonal naive forecast errs by in the training split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.contracts.data import ROW_ID
from penstock.core.errors import ContractError
from penstock.core.events import Events
from penstock.data.encoding import WEIGHT, Accepted, Encoding
from penstock.data.shards import ShardWriter, row_id_halves
from penstock.data.steps import RANK, SPLITS, Steps, sort_steps
from penstock.data.windows import Anchors, Lagged, Reach, season_of
from penstock.recipe.schema import Recipe

if TYPE_CHECKING:
    from penstock.data.dataset import Dataset


def write_samples(
    recipe: Recipe,
    dataset: Dataset,
    encoding: Encoding,
    whole: Encoding,
    folder: Path,
    set_aside: Callable[[pa.Table, Accepted, str], None],
    events: Events,
) -> tuple[dict[str, int], dict[str, list[str]], dict[str, Any]]:
    """Write the shards of steps and samples.

    Args:
        encoding: of a step, fitted.
        whole: of a sample; it is given what the step's learnt, and what the order teaches.
        folder: where shards go.
        set_aside: told of refused rows: a table, what was accepted of it, the split they are of.

    Returns:
        Steps kept by split, files by what they hold, and what the manifest says of samples.

    Raises:
        ContractError: two steps of one series are at one time, a gap is an error, or there is no sample to
            learn from.
    """
    import shutil

    samples = recipe.samples
    assert samples is not None
    whole.fitted = encoding.fitted
    reach = Reach.of(recipe.inputs.values(), recipe.targets.values())
    anchors = Anchors(reach, (samples.stride, samples.stride_eval, samples.stride_eval))
    blocks = _blocks(encoding)
    scratch = folder / "sorting"
    kept: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    naive: dict[str, Lagged] = {}

    def put_aside(table: pa.Table, accepted: Accepted) -> None:
        ranks = np.asarray(table[RANK].to_numpy())
        for rank, split in enumerate(SPLITS):
            some = {row: problems for row, problems in accepted.refused.items() if ranks[row] == rank}
            if some:
                set_aside(table.drop_columns([RANK]), Accepted(accepted.rows, {}, some), split)

    with ExitStack() as stack:
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        writers = {
            name: stack.enter_context(ShardWriter(folder, name)) for name in ("steps", "singles", *SPLITS)
        }
        files = sort_steps([dataset.files(split) for split in SPLITS], recipe, samples, scratch)
        stream = Steps(files, samples, encoding, set_aside=put_aside)
        done, total = 0, sum(dataset.counts[split] for split in SPLITS)
        for chunk in stream:
            if not chunk.accepted.rows:
                continue
            if not naive:
                naive = _naive(recipe, whole, stream.distance if stream.timed else None, events)
            _learn(naive, encoding, chunk.accepted, chunk.segment, chunk.rank)
            stored = encoding.encode(chunk.accepted)
            series = {
                name: values[:, 0]
                for name, values in stored.items()
                if name.rpartition(".")[0] in blocks.values()
            }
            plain = {
                name: values
                for name, values in stored.items()
                if name == WEIGHT or name.rpartition(".")[0] not in blocks
            }
            writers["steps"].write(series)
            writers["singles"].write(
                {"row_id": row_id_halves(chunk.table.column(ROW_ID).combine_chunks()), **plain}
            )
            found, split = anchors.update(chunk.segment, chunk.rank)
            for rank, name in enumerate(SPLITS):
                kept[name] += int((chunk.rank == rank).sum())
                counts[name] += int((split == rank).sum())
                writers[name].write({"anchor": found[split == rank]})
            done += len(chunk.segment)
            events.progress("encode", done, total, "rows")
    if not counts["train"]:
        raise ContractError(
            f"no series of the training split has the {reach.steps} steps in a row that a sample takes"
            f" ({reach.back} before, {reach.ahead} from the anchor on): {kept['train']:,} steps,"
            f" {stream.gaps:,} gaps. Shorten the window or the horizon, or see whether `samples.entity` and"
            " `samples.time` are right."
        )
    for name, lagged in naive.items():
        whole.fitted[name]["naive"] = lagged.result()
    said = f"{anchors.straddling:,} more would straddle splits; " if anchors.straddling else ""
    events.say(
        f"{sum(kept.values()):,} steps make {counts['train']:,} samples to train on, {counts['validation']:,}"
        f" to validate, {counts['test']:,} to test; {said}{stream.gaps:,} gaps",
        samples=dict(counts),
        straddling=anchors.straddling,
        gaps=stream.gaps,
    )
    layout = {
        "back": reach.back,
        "ahead": reach.ahead,
        "before": [name for name, feature in recipe.inputs.items() if not feature.spans],
        "series": {
            name: {"block": blocks[name], "start": reach.back + start, "stop": reach.back + stop}
            for target, side in ((False, recipe.inputs), (True, recipe.targets))
            for name, feature in side.items()
            if feature.spans
            for start, stop in [feature.reach(target=target)]
        },
    }
    more = {
        "windows": layout,
        "samples": {split: counts[split] for split in SPLITS},
        "straddling": anchors.straddling,
        "gaps": stream.gaps,
        "distance": stream.distance,
    }
    return (
        {split: kept[split] for split in SPLITS},
        {name: writer.files for name, writer in writers.items()},
        more,
    )


def _blocks(encoding: Encoding) -> dict[str, str]:
    """Each series, and the one whose stored steps are its own as well: the first with an equal declaration
    and equal facts.
    """
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for name, feature in {**encoding.inputs, **encoding.targets}.items():
        if feature.spans:
            facts = encoding.fitted[name]
            key = repr((feature.type, feature.columns(name), feature.na, facts["mean"], facts["std"]))
            found[name] = first.setdefault(key, name)
    return found


def _naive(recipe: Recipe, whole: Encoding, distance_us: float | None, events: Events) -> dict[str, Lagged]:
    """For each series to forecast, what will know the error of its seasonal naive forecast; settles its
    season.
    """
    found = {}
    for name, feature in recipe.targets.items():
        if not feature.spans:
            continue
        facts = whole.fitted[name]
        if feature.declared().get("season") is None:
            facts["season"] = season_of(distance_us)
            if facts["season"] > 1:
                events.say(
                    f"targets.{name} is taken to repeat itself after {facts['season']} steps, as its steps"
                    " are so far apart; `season` says otherwise",
                    feature=name,
                )
        found[name] = Lagged(int(facts["season"]), len(facts["mean"]))
    return found


def _learn(
    naive: dict[str, Lagged], encoding: Encoding, accepted: Accepted, segment: np.ndarray, rank: np.ndarray
) -> None:
    for name, lagged in naive.items():
        stored = encoding.targets[name].encode(accepted.columns[name], encoding.fitted[name])
        truth = encoding.targets[name].truth(stored, encoding.fitted[name])[:, 0]
        lagged.update(np.where((rank == 0)[:, None], truth, np.nan), segment)


__all__ = ["write_samples"]
