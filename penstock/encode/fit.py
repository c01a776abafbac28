"""The first pass over a dataset: summaries of the training split, and what they teach each feature.

Summaries are free of order and can be merged, so that batches may be summarised by threads or elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa

from penstock.contracts.data import ROW_ID, Executors, Feature, Fitted
from penstock.contracts.summary import Summary, sample_keys
from penstock.core.errors import ContractError
from penstock.core.events import Events
from penstock.core.ordered_map import ordered_map
from penstock.encode.encoding import Accepted, Encoding
from penstock.encode.recipe_encoding import row_encoding, sample_encoding
from penstock.encode.spans import SPAN_ROWS, Summarised, Tally, kept_ids, spans
from penstock.prepare.dataset import Dataset
from penstock.recipe.schema import Recipe


def fit_encoding(recipe: Recipe, table: pa.Table) -> Encoding:
    """The recipe's features fitted to a few rows at hand, to size a model before there is a dataset.

    Raises:
        ContractError: they cannot be fitted to these rows, or the rows lack a column (a derived or joined
            one).
    """
    if waiting := [
        name
        for name, feature in {**recipe.inputs, **recipe.targets}.items()
        if feature.fitted_from
    ]:
        raise ContractError(
            f"{', '.join(waiting)} use what a bundle has fitted, which is known once the"
            " store is open"
        )
    encoding = row_encoding(recipe)
    absent = [
        column
        for column in encoding.columns(targets=True)
        if column not in table.column_names
    ]
    if absent:
        raise ContractError(
            f"the sample does not have {', '.join(map(repr, absent))}; such columns come with preparing"
        )
    # Summaries draw samples by row id, and rows at hand have none yet.
    if ROW_ID not in table.column_names:
        table = table.append_column(
            ROW_ID,
            pa.array(
                [
                    hashlib.md5(str(i).encode(), usedforsecurity=False).hexdigest()
                    for i in range(len(table))
                ],
                pa.string(),
            ),
        )
    # Nobody hears these events: the fit serves an estimate alone.
    _fit(encoding, iter([table]), Events())
    # Facts are by feature, so they fit the feature of a whole sample as they fit that
    # of a step.
    whole = sample_encoding(recipe)
    whole.fitted = encoding.fitted
    return whole


def fit_here(
    encoding: Encoding,
    dataset: Dataset,
    rows_at_once: int,
    events: Events,
    *,
    threads: int,
) -> None:
    """Fill `encoding.fitted` from the training split, by threads of this process.

    Raises:
        ContractError: a column cannot be learnt from; names them all.
    """
    _fit(
        encoding,
        _train_batches(encoding, dataset, rows_at_once, events),
        events,
        threads=threads,
    )


def fit_distributed(
    encoding: Encoding,
    dataset: Dataset,
    executors: Executors,
    rows_at_once: int,
    events: Events,
) -> None:
    """Fill `encoding.fitted` from the training split by executors, whose summaries are merged in order.

    Raises:
        ContractError: a column cannot be learnt from; names them all.
    """
    features = _unfitted(encoding)
    summaries = {name: feature.summary() for name, feature in features.items()}
    tally = Tally()
    files = dataset.files("train")
    # Four spans for each item at work, so that executors of different speed end
    # together.
    size = max(-(-dataset.counts["train"] // (4 * executors.at_once)), SPAN_ROWS)
    for span_summaries, span_tally in executors.each(
        Summarised(encoding, tuple(features), rows_at_once), spans(files, size)
    ):
        # In the order of spans, though the summaries give the same in any order.
        for name, summary in span_summaries.items():
            summaries[name].merge(summary)
        tally.merge(span_tally)
    events.progress("fit", tally.rows, dataset.counts["train"], "rows")
    _learn(encoding, features, summaries, tally, events)


def _train_batches(
    encoding: Encoding, dataset: Dataset, rows_at_once: int, events: Events
) -> Iterator[pa.Table]:
    """The training split, with progress told after each batch."""
    done = 0
    # Coded: texts keep their dictionaries, so each word is read once a batch.
    for batch in dataset.batches(
        "train", columns=encoding.columns(targets=True), rows=rows_at_once, coded=True
    ):
        yield pa.Table.from_batches([batch])
        done += batch.num_rows
        events.progress("fit", done, dataset.counts["train"], "rows")


def _fit(
    encoding: Encoding, tables: Iterable[pa.Table], events: Events, *, threads: int = 1
) -> None:
    """Fill `encoding.fitted` from the training split.

    Every column that cannot be learnt from is named at once.

    Summaries are free of order, so batches are taken in as they come, each summary by one thread at a time.
    """
    features = _unfitted(encoding)
    summaries = {name: feature.summary() for name, feature in features.items()}
    # A summary is not safe for threads: it takes in one batch at a time.
    locks = {name: threading.Lock() for name in summaries}
    tally = Tally()

    def take(numbered: tuple[int, pa.Table]) -> tuple[Accepted, int, float]:
        number, table = numbered
        # Outside the locks, where most of the time goes.
        accepted = encoding.accept(table, targets=True)
        rows_kept = accepted.usable()
        keys = pa.array(
            sample_keys(kept_ids(table, accepted))
        )  # once, not once a feature
        names = list(summaries)
        # threads begin at different summaries, so that they seldom wait for each other
        turn = number * 7 % max(len(names), 1)
        for name in names[turn:] + names[:turn]:
            with locks[name]:
                summaries[name].update(rows_kept.columns[name], keys)
        return (
            accepted,
            rows_kept.rows,
            float(rows_kept.weight.max())
            if rows_kept.weight is not None and rows_kept.rows
            else 0.0,
        )

    workers = threads if threads > 1 else 0  # with one, the caller's own
    for accepted, rows, weight in ordered_map(take, enumerate(tables), threads=workers):
        tally.count(accepted, rows, weight)
    _learn(encoding, features, summaries, tally, events)


def _unfitted(encoding: Encoding) -> dict[str, Feature]:
    """The features that no earlier bundle or feed has fitted."""
    return {
        name: feature
        for name, feature in {**encoding.inputs, **encoding.targets}.items()
        if name not in encoding.fitted
    }


def _learn(
    encoding: Encoding,
    features: Mapping[str, Feature],
    summaries: Mapping[str, Summary],
    tally: Tally,
    events: Events,
) -> None:
    """Fit each feature to its summary of the whole training split; complaints are raised together."""
    _check_rows_left(encoding, tally)
    complaints: list[str] = []
    for name, feature in features.items():
        side = "targets" if name in encoding.targets else "inputs"
        try:
            fitted: Fitted = feature.fit(
                summaries[name].result(), target=side == "targets"
            )
        except ContractError as error:
            # All columns are told at once, so the loop goes on.
            complaints.append(f"{side}.{name} {error.message}")
            continue
        encoding.fitted[name] = json.loads(
            json.dumps(fitted)
        )  # as it will be read back: lists for tuples
        for text in fitted.get("said", ()):
            events.say(f"{side}.{name} {text}", feature=name)
    if complaints:
        head = (
            "a column cannot be learnt from"
            if len(complaints) == 1
            else f"{len(complaints)} columns cannot be learnt from"
        )
        raise ContractError(
            "\n".join([f"{head}:", *(f"  - {text}" for text in complaints)])
        )


def _check_rows_left(encoding: Encoding, tally: Tally) -> None:
    """Raise ContractError unless there are rows to learn from and, if weighted, one weighs more than 0."""
    if not tally.rows:
        raise ContractError(
            "the training split has no rows: there is nothing to learn from. Check `where`, `expect` and"
            " `split`"
        )
    if not tally.used:
        listed = "\n".join(
            f"  - {reason} ({count} rows)"
            for reason, count in tally.reasons.most_common(10)
        )
        raise ContractError(
            f"nothing is left to learn from: every one of the {tally.rows} rows of the training split is"
            f" refused, for\n{listed}"
        )
    # Weights are never negative, so the heaviest being 0 means that all are.
    if encoding.weight and not tally.heaviest:
        raise ContractError(
            f"the weight {encoding.weight!r} is 0 in every row of the training split, so"
            " there is nothing to learn from"
        )
