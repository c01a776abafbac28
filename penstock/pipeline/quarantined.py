"""The quarantine of a dataset: looked at, counted, exported to be mended, and put through again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.contracts.data import Source
from penstock.core import audit
from penstock.core.errors import PenstockError, UserError
from penstock.core.events import Events
from penstock.core.store import Store
from penstock.formats.write import TableWriter
from penstock.prepare.dataset import Dataset
from penstock.prepare.prepare import prepare
from penstock.prepare.repairs import FILE, LINE, RAW, STAGE, WHY
from penstock.prepare.successors import current_survey
from penstock.recipe.schema import Recipe, load_recipe
from penstock.recipe.sources import declared

_BATCH = 1_024
_OWN = (FILE, LINE, STAGE, WHY, RAW)


@dataclass(frozen=True)
class Filter:
    """Which rows of a quarantine are asked for."""

    reason: str | None = None
    """Text in a reason or in the name of a rule, in any case."""
    column: str | None = None
    """A column that a broken rule is on."""

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is asked for."""
        rules = row["rules"]
        if self.column is not None and all(r["column"] != self.column for r in rules):
            return False
        if self.reason is None:
            return True
        texts = [row["reason"] or "", *(rule["rule"] for rule in rules)]
        return any(self.reason.lower() in text.lower() for text in texts)


def quarantined(dataset: Dataset, wanted: Filter) -> Iterator[dict[str, Any]]:
    """The rows of a quarantine that are asked for, streamed."""
    with dataset._sound():
        names = sorted(
            name
            for name in dataset.manifest["files"]
            if name.startswith("quarantine/") and name.endswith(".parquet")
        )
    for name in names:
        with pq.ParquetFile(dataset.file(name)) as file:
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    # Datasets from before have the first rule alone.
                    rules = row.get("rules") or [
                        {"column": row["column"], "rule": row["stage"], "expected": None}
                    ]
                    if wanted.takes(row | {"rules": rules}):
                        yield row | {"rules": rules}


def statistics(dataset: Dataset) -> dict[str, Any]:
    """How many rows there are by rule, by column and by file; a row counts for every rule that it breaks."""
    rules: Counter[tuple[str, str, str]] = Counter()
    columns: Counter[str] = Counter()
    files: Counter[str] = Counter()
    rows = 0
    for row in quarantined(dataset, Filter()):
        rows += 1
        files[row["file"] or ""] += 1
        rules.update(
            (row["stage"], rule["column"] or "", rule["rule"]) for rule in row["rules"]
        )
        columns.update({rule["column"] or "" for rule in row["rules"]})
    return {
        "dataset": dataset.reference,
        "rows": rows,
        "rules": [
            {"stage": stage, "column": column, "rule": rule, "rows": count}
            for (stage, column, rule), count in _ranked(rules)
        ],
        "columns": [{"column": name, "rows": count} for name, count in _ranked(columns)],
        "files": [{"file": name, "rows": count} for name, count in _ranked(files)],
    }


def _ranked(counts: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def export(dataset: Dataset, wanted: Filter, output: str) -> int:
    """Write rows of a quarantine to a file, one column each, to be mended; returns how many.

    Every value is text as the quarantine has it. A row that could not be read has no values: its own text is
    in `quarantine_row`.

    Raises:
        UserError: the ending of the file says nothing, or it cannot be written.
        StoreError: the disk is full.
    """
    columns: dict[str, None] = {}
    for row in quarantined(dataset, wanted):
        columns |= dict.fromkeys(_values(row))
    # Private columns were withheld: without them a mended row keeps the source's own values.
    hidden = dataset.manifest.get("private", {}).get("columns", ())
    names = [*_OWN, *(name for name in columns if name not in (*_OWN, *hidden))]
    kinds = {LINE: pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    with TableWriter(output, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in quarantined(dataset, wanted):
            batch.append(
                {**_values(row), **_own(row)}
            )  # names beyond the schema are left out
            if len(batch) == _BATCH:
                writer.write(pa.RecordBatch.from_pylist(batch, schema))
                batch.clear()
        if batch:
            writer.write(pa.RecordBatch.from_pylist(batch, schema))
    audit.note(dataset.store, "exported", dataset.reference, quarantined=writer.rows)
    return writer.rows


def _own(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        FILE: row["file"],
        LINE: row["line"],
        STAGE: row["stage"],
        WHY: row["reason"],
        RAW: row["row"] if row["stage"] == "read" else None,
    }


def _values(row: Mapping[str, Any]) -> dict[str, str | None]:
    """The values of a row that was read, as texts."""
    if row["stage"] == "read":
        return {}
    values: dict[str, Any] = json.loads(row["row"])
    return {
        name: value
        if value is None or isinstance(value, str)
        else json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
    }


def replay(
    dataset: Dataset, fixed: Path, store: Store, events: Events, *, base: Path
) -> Dataset:
    """Put mended rows through the preparation of a dataset again: a new version, whose parent it is.

    It is the version that the dataset's recipe declares with `repairs: FILE`.

    Args:
        fixed: the mended rows, as `export` writes them.
        base: a folder that the paths of the dataset's recipe may start from.

    Raises:
        UserError: the dataset cannot be made again from what it says of itself.
        SourceError: the mended rows cannot be read, or mend no row of the quarantine.
    """
    if "repairs" in dataset.manifest["lineage"]["declared"]:
        raise UserError(
            f"{dataset.reference} has repairs already; add these to their file, and replay its parent,"
            f" {dataset.manifest['lineage'].get('parent', '')}"
        )
    recipe = _recipe_of(dataset, store, base)
    words = declared({"path": str(fixed.resolve())}, recipe.base)
    mended = recipe.model_copy(update={"repairs": Source.load(words)})
    child = prepare(mended, store, events)
    audit.note(store, "prepared", child.reference, parent=dataset.reference)
    return child


def _recipe_of(dataset: Dataset, store: Store, base: Path) -> Recipe:
    """The recipe that makes a dataset again, found by its id.

    A manifest does not say which folder the recipe's paths start from; the right one gives the very same id.
    """
    lineage = dataset.manifest["lineage"]
    words = dict(lineage["declared"])
    # Rows in their order need `samples`, whose features a dataset does not know.
    is_ordered = words.pop("row_order", False)
    split_seed = words.pop("split_seed")
    seed = words.pop("sample_seed", split_seed)
    # It says that a key is the same one, and not which.
    words.pop("private_keys", None)
    words |= {"name": dataset.name, "seed": seed, "source": lineage["reading"]}
    words |= {"engine": lineage["engine"], "store": store.url}
    beside = [
        folder
        for file in lineage["source"][:1]
        for folder in Path(file["url"].removeprefix("file://")).parents
    ]
    for folder in [] if is_ordered else [base, *beside]:
        try:
            recipe = load_recipe(words, base=folder)
            if current_survey(recipe, store).id == dataset.id:
                return recipe
        except PenstockError:
            continue
    raise UserError(
        f"{dataset.reference} cannot be made again from what it says of itself: its files moved or changed,"
        " or its recipe says more than a dataset records. Add `repairs: FILE` to the recipe, and prepare it"
    )
