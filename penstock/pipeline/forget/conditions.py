"""Which rows of which datasets a condition is true of.

A dataset has its columns as they were prepared. A column that was dropped or masked cannot be matched, and
that is said. A pseudonym can, with the key: the condition's value gets the same pseudonym.

The condition holds somebody's value. What is kept of it is its shape, and a keyed hash where there is a key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.contracts.data import ROW_ID, Engine
from penstock.contracts.privacy import FEWEST_KEY_CHARACTERS, Anonymiser, key_of
from penstock.contracts.sql import bind
from penstock.core.errors import PenstockError, RecipeError, StoreError, UserError
from penstock.core.store import Store
from penstock.prepare.dataset import SPLITS, Dataset
from penstock.prepare.subset import Subset

_MEMORY_BYTES = 1 << 28


@dataclass(frozen=True)
class Condition:
    """What says which rows are meant.

    Args:
        text: an SQL condition, as a recipe's `where`.
        key_env: the variable of the environment whose key signs; it may be unset.

    Raises:
        RecipeError: it is no condition that a recipe could have.
    """

    text: str
    key_env: str = "PENSTOCK_KEY"
    columns: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        from sqlglot import exp, parse_one
        from sqlglot.errors import SqlglotError

        try:
            tree = parse_one(self.text, dialect="duckdb")
        except SqlglotError:
            bind(self.text, [])  # says what is wrong with it
            raise
        names = [
            ".".join(part.name for part in column.parts)
            for column in tree.find_all(exp.Column)
        ]
        bound = bind(self.text, names)
        if not bound.columns:
            raise RecipeError(
                "--where: the condition names no column, so it says nothing of any row. Write a comparison,"
                " such as person_id = '7'."
            )
        object.__setattr__(self, "columns", bound.columns)

    @property
    def is_keyed(self) -> bool:
        """Whether the environment has a key to sign with."""
        return len(os.environ.get(self.key_env, "")) >= FEWEST_KEY_CHARACTERS

    def facts(self) -> dict[str, Any]:
        """What a record may have of it: no value."""
        from sqlglot import exp, parse_one

        tree = parse_one(self.text, dialect="duckdb")
        shape = tree.transform(
            lambda node: (
                exp.Literal.string("…") if isinstance(node, exp.Literal) else node
            )
        )
        facts: dict[str, Any] = {"redacted": shape.sql(dialect="duckdb")}
        if self.is_keyed:
            key = key_of(self.key_env, "forget condition").encode()
            facts["hmac"] = hmac.new(key, self.text.encode(), hashlib.sha256).hexdigest()
        return facts

    def values(self) -> list[str]:
        """The texts and numbers in it."""
        from sqlglot import exp, parse_one

        tree = parse_one(self.text, dialect="duckdb")
        return [str(literal.this) for literal in tree.find_all(exp.Literal)]


@dataclass
class Matched:
    """A dataset that has the condition's columns, and its rows that are meant."""

    dataset: Dataset
    where: str
    """The condition in its own terms: pseudonyms in the places of values."""
    row_ids: dict[str, pa.Array]
    """By split."""
    quarantined: int = 0

    @property
    def rows(self) -> dict[str, int]:
        """Rows by split."""
        return {split: len(ids) for split, ids in self.row_ids.items()}

    @property
    def count(self) -> int:
        """Rows of all splits."""
        return sum(self.rows.values())

    def subset(self) -> Subset:
        """The rows that are meant."""
        return Subset(self.dataset, where=self.where)


@dataclass(frozen=True)
class Unmatched:
    """A dataset that the condition cannot be asked of."""

    reference: str
    why: str
    is_hidden: bool
    """A column is there, or was, and its values are not: rows of the person may be in it."""


def datasets_of(store: Store) -> Iterator[Dataset | Unmatched]:
    """Every version of every dataset, by name; of one that cannot be read, why."""
    for folder in store.folders("datasets"):
        for name in store.names(folder):
            try:
                dataset = Dataset.at(store, name=name)
                _ = dataset.schema
            except StoreError as error:
                reference = "@".join(name.split("/")[1:])
                yield Unmatched(
                    reference, f"it cannot be read: {error.message}", is_hidden=True
                )
            else:
                yield dataset


def match(dataset: Dataset, condition: Condition) -> Matched | Unmatched:
    """The rows of a dataset that a condition is true of; why they cannot be known otherwise."""
    hidden: Mapping[str, str] = dataset.manifest.get("private", {}).get("columns", {})
    columns = [name for name in dataset.schema.names if name != ROW_ID]
    by_fold = {name.casefold(): name for name in (*hidden, *columns)}
    pseudonyms: dict[str, str] = {}
    for column in condition.columns:
        own = by_fold.get(column.casefold(), "")
        if own in hidden and hidden[own] == "pseudonym":
            pseudonyms[column] = own
        elif own in hidden:
            why = f"{own} was hidden ({hidden[own]}) when it was prepared, so its values are not there"
            return Unmatched(dataset.reference, why, is_hidden=True)
    lacks = [name for name in condition.columns if name.casefold() not in by_fold]
    if lacks and not any(name.partition(".")[0].casefold() in by_fold for name in lacks):
        return Unmatched(
            dataset.reference, f"it has no column {lacks[0]}", is_hidden=False
        )
    try:
        where = condition.text
        if pseudonyms:
            where = _with_pseudonyms(dataset, where, pseudonyms)
        return Matched(dataset, where, _row_ids(Subset(dataset, where=where)))
    except Unnamed as error:
        return Unmatched(dataset.reference, error.message, is_hidden=True)
    except StoreError:
        raise
    except PenstockError:
        # The error has the condition in it, and a record must not.
        why = f"the condition does not fit its columns {', '.join(condition.columns)}: other types, or names"
        return Unmatched(dataset.reference, why, is_hidden=True)


class Unnamed(UserError):
    """A pseudonym cannot be had; its message has no value."""


def _row_ids(chosen: Subset) -> dict[str, pa.Array]:
    row_ids = {}
    for split in SPLITS:
        ids = [batch[ROW_ID] for batch in chosen.batches(split, columns=[])]
        row_ids[split] = (
            pa.concat_arrays([chunk.cast(pa.string()) for chunk in ids])
            if ids
            else pa.array([], pa.string())
        )
    return row_ids


def _with_pseudonyms(dataset: Dataset, text: str, columns: Mapping[str, str]) -> str:
    """The condition with pseudonyms in the places of the values that these columns are compared with.

    Raises:
        Unnamed: a column is used in another way than `= value` or `IN (values)`, or the key is not in the
            environment.
    """
    from sqlglot import exp, parse_one

    tree = parse_one(text, dialect="duckdb")
    by_fold = {name.casefold(): own for name, own in columns.items()}
    for node in list(tree.find_all(exp.Column)):
        own = by_fold.get(".".join(part.name for part in node.parts).casefold())
        if own is None:
            continue
        literals = _compared(node)
        names = _pseudonyms(dataset, own, [str(each.this) for each in literals])
        for literal, name in zip(literals, names, strict=True):
            literal.replace(exp.Literal.string(name))
    return tree.sql(dialect="duckdb")


def _compared(column: Any) -> list[Any]:
    from sqlglot import exp

    parent = column.parent
    others: list[Any] = []
    if isinstance(parent, exp.EQ):
        others = [parent.right if parent.left is column else parent.left]
    elif isinstance(parent, exp.In) and parent.this is column:
        others = list(parent.expressions)
    if not others or not all(isinstance(each, exp.Literal) for each in others):
        raise Unnamed(
            f"{column.name} is a pseudonym there, which can be matched with = or IN and plain values alone"
        )
    return others


def _pseudonyms(dataset: Dataset, column: str, values: list[str]) -> list[str]:
    """The pseudonyms of values, as the preparation made them.

    Raises:
        Unnamed: the key is not there, or another than the one that the dataset was prepared with, or the
            column's type has no such value.
    """
    declared = dataset.manifest["lineage"]["declared"]
    how = Anonymiser.load(declared["private"][column])
    try:
        check = how.key_check()
    except UserError as error:
        raise Unnamed(error.message) from None
    if check != declared.get("private_keys", {}).get(column):
        raise Unnamed(
            f"{column} is a pseudonym there, made with another key than that of {how.key_name()}"
        )
    kind = dataset.raw_types.get(column, pa.string())
    try:
        raw = pa.array(values, pa.string()).cast(kind)
    except pa.ArrowInvalid:
        raise Unnamed(f"{column} holds {kind}, and the condition no such value") from None
    with (
        tempfile.TemporaryDirectory(prefix="penstock-forget-") as scratch,
        Engine.load("embedded").open(
            Path(scratch), memory_bytes=_MEMORY_BYTES, threads=1
        ) as session,
    ):
        rows = pa.table({"at": list(range(len(raw))), "value": raw, ROW_ID: values})
        table = session.table(rows)
        hidden = table.mutate(hidden=how.protect(table["value"], table[ROW_ID]))
        by_place = {row["at"]: row["hidden"] for row in session.rows(hidden)}
    return [str(by_place[place]) for place in range(len(values))]
