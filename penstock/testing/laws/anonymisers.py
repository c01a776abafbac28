"""The laws of anonymisers.

`check(Anonymiser.load({"type": "acme.hide", …}))` judges a declared anonymiser by all of them, over each
column of `TABLE` that it can hide. A key that it needs must be in the environment.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta

import pyarrow as pa

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.contracts.privacy import Anonymiser
from penstock.core.errors import ContractError
from penstock.testing.laws.cleaners import engine

Law = Callable[[Anonymiser, str, pa.Table], None]


def rows(count: int = 40) -> pa.Table:
    """Rows with missing values, and every other value twice."""
    texts = ["a", "Ünïcode", "", None, "Secret", "to a@b.example", "1234567890123"]
    numbers = [1.5, -2.25, None, 0.0, 1e9]
    whole = [37, -3, None, 0, 2**53 + 1]
    day, moment = date(2024, 2, 29), datetime(2024, 2, 29, 13, 45, 59)
    ids = [hashlib.md5(str(i).encode()).hexdigest() for i in range(count)]
    return pa.table(
        {
            ROW_ID: ids,
            "text": pa.array([texts[i // 2 % 7] for i in range(count)], pa.string()),
            "number": pa.array([numbers[i // 2 % 5] for i in range(count)], pa.float64()),
            "whole": pa.array([whole[i // 2 % 5] for i in range(count)], pa.int64()),
            "day": [
                day + timedelta(30 * (i // 2)) if i % 7 else None for i in range(count)
            ],
            "moment": pa.array(
                [moment + timedelta(0, 5_000 * (i // 2)) for i in range(count)],
                pa.timestamp("us"),
            ),
        }
    )


TABLE = rows()


def hidden(
    how: Anonymiser, column: str, table: pa.Table, session: EngineSession
) -> pa.Table:
    """The ids of the rows, sorted, and what an engine makes of a column (`hidden`)."""
    given = session.table(table)
    value = how.protect(given[column], given[ROW_ID])
    results = given.select(ROW_ID, __p_hidden=value).order_by(ROW_ID)
    return pa.Table.from_batches(
        session.batches(results), schema=results.schema().to_pyarrow()
    ).rename_columns([ROW_ID, "hidden"])


def can_hide(how: Anonymiser, column: str, table: pa.Table) -> bool:
    """Whether the anonymiser takes values of the column's type; it refuses others with a ContractError."""
    with engine() as session:
        given = session.table(table)
        try:
            how.protect(given[column], given[ROW_ID])
        except ContractError:
            return False
    return True


def declared_and_back(how: Anonymiser, column: str, table: pa.Table) -> None:
    """Declared → loaded → declared is the identity, and is JSON."""
    again = Anonymiser.load(json.loads(json.dumps(how.to_dict())))
    assert again == how and again.to_dict() == how.to_dict(), (
        "declared_and_back: the loaded anonymiser is another"
    )


def missing_stays_missing(how: Anonymiser, column: str, table: pa.Table) -> None:
    """A missing value tells of nobody, and stays missing."""
    with engine() as session:
        results = hidden(how, column, table, session)["hidden"].to_pylist()
    given = table.sort_by(ROW_ID)[column].to_pylist()
    assert all(h is None for g, h in zip(given, results, strict=True) if g is None), (
        "missing_stays_missing: a missing value was given a value"
    )


def equal_values_alike(how: Anonymiser, column: str, table: pa.Table) -> None:
    """Equal values are hidden alike, unless they are moved by the row's own chance."""
    if how.at_serving == "skip":
        return
    with engine() as session:
        results = hidden(how, column, table, session)["hidden"].to_pylist()
    given = table.sort_by(ROW_ID)[column].to_pylist()
    by_value: dict[object, object] = {}
    for before, after in zip(given, results, strict=True):
        assert by_value.setdefault(before, after) == after, (
            "equal_values_alike: one value was hidden in two ways"
        )


def order_free(how: Anonymiser, column: str, table: pa.Table) -> None:
    """Rows in another order are hidden alike."""
    turned = table.take(pa.array(range(len(table) - 1, -1, -1)))
    with engine() as session:
        assert hidden(how, column, table, session).equals(
            hidden(how, column, turned, session)
        ), "order_free: another order of rows was hidden otherwise"


def alone_as_in_a_batch(how: Anonymiser, column: str, table: pa.Table) -> None:
    """At serving a row alone is hidden as at preparing, among all."""
    if how.at_serving != "apply":
        return
    narrow = table.select([ROW_ID, column])
    with engine() as session:
        whole = hidden(how, column, narrow, session)
        served = session.compiled(
            narrow.schema,
            lambda t: t.mutate(__p_hidden=how.protect(t[column], t[ROW_ID])),
        )
        alone = pa.concat_tables([served(narrow.slice(i, 1)) for i in range(len(narrow))])
    assert (
        alone.sort_by(ROW_ID)["__p_hidden"].to_pylist() == whole["hidden"].to_pylist()
    ), "alone_as_in_a_batch: a row alone is hidden otherwise"


LAWS: tuple[Law, ...] = (
    declared_and_back,
    missing_stays_missing,
    equal_values_alike,
    order_free,
    alone_as_in_a_batch,
)


def check(how: Anonymiser, table: pa.Table = TABLE) -> None:
    """Judge an anonymiser by every law, on every column that it can hide.

    Raises:
        AssertionError: names the law and the difference, or says that it can hide no column.
    """
    columns = [
        name
        for name in table.column_names
        if name != ROW_ID and can_hide(how, name, table)
    ]
    assert columns, "it can hide no column of the table"
    for column in columns:
        for law in LAWS:
            law(how, column, table)
