"""The laws of cleaners.

`check(Cleaner.load({"type": "acme.mend", …}))` judges a declared cleaner by all of them, over `TABLE`
(columns `number`, `whole`, `flag`, `text`, `moment`); give `table` for a cleaner that needs others.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.contracts.data import ROW_ID, Cleaner, Engine, EngineSession
from penstock.contracts.judge import COLUMN, GIVEN, REASON, Judge
from penstock.prepare.clean import applied

Law = Callable[[Cleaner, pa.Table], None]


def rows(count: int = 60) -> pa.Table:
    """Rows with missing values, NaN, extremes, odd spaces, and some that are equal."""
    texts = ["a", " a", "b  c ", "", None, "Ünïcode\t", "O'Brien", "a"]
    records = [
        {
            "number": [1.5, -2.0, None, float("nan"), 1e9, 0.0, 3.25][i % 7],
            "whole": [3, 2**53 + 1, None, -7][i % 4],
            "flag": [True, False, None][i % 3],
            "text": texts[i % 8],
            "moment": None
            if i % 5 == 0
            else 1_700_000_000_000_000 + 86_400_000_000 * (i % 11),
        }
        for i in range(count)
    ]
    records += records[:7]
    schema = pa.schema(
        [
            ("number", pa.float64()),
            ("whole", pa.int64()),
            ("flag", pa.bool_()),
            ("text", pa.string()),
            ("moment", pa.timestamp("us")),
        ]
    )
    return pa.Table.from_pylist(records, schema=schema).add_column(
        0,
        ROW_ID,
        pa.array([hashlib.md5(str(i).encode()).hexdigest() for i in range(len(records))]),
    )


TABLE = rows()


@contextmanager
def engine() -> Iterator[EngineSession]:
    """The embedded engine with little memory."""
    with (
        tempfile.TemporaryDirectory(prefix="penstock-laws-") as scratch,
        Engine.load("embedded").open(
            Path(scratch), memory_bytes=2**29, threads=2
        ) as session,
    ):
        yield session


def _all(
    cleaner: Cleaner, table: pa.Table, session: EngineSession, facts: dict[str, Any]
) -> pa.Table:
    cleaned = cleaner.mend(session.table(table), facts, session)
    return pa.Table.from_batches(
        session.batches(cleaned.order_by(ROW_ID).select(*table.column_names)),
        schema=table.schema,
    )


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by(ROW_ID)


def _same(one: pa.Table, other: pa.Table) -> bool:
    # Compared as text, because NaN equals nothing.
    return [str(row) for row in one.to_pylist()] == [
        str(row) for row in other.select(one.column_names).to_pylist()
    ]


def declared_and_back(cleaner: Cleaner, table: pa.Table) -> None:
    """Declared → loaded → declared is the identity, and is JSON."""
    again = Cleaner.load(json.loads(json.dumps(cleaner.to_dict())))
    assert again == cleaner and again.to_dict() == cleaner.to_dict(), (
        "declared_and_back: the loaded cleaner is another"
    )


def facts_are_plain(cleaner: Cleaner, table: pa.Table) -> None:
    """What `fit` learns is JSON, and does not depend on the order of rows; a cleaner that learns nothing has
    no facts.
    """
    with engine() as session:
        facts = cleaner.fit(session.table(table), session)
        assert json.loads(json.dumps(facts)) == facts, (
            f"facts_are_plain: facts must be plain data; found {facts!r}"
        )
        other = cleaner.fit(
            session.table(table.take(pa.array(range(len(table) - 1, -1, -1)))), session
        )
        assert other == facts, (
            "facts_are_plain: another order of rows taught something else"
        )
        assert bool(facts) <= cleaner.is_fitted(), (
            "facts_are_plain: `fit` learns, but the cleaner says it does not"
        )


def keeps_columns_and_rows(cleaner: Cleaner, table: pa.Table) -> None:
    """Columns and types stay; `row_id` is untouched; an `expression`, a `batch` and one that carries
    values keep every row, another `global` cleaner adds none and mends none it keeps.
    """
    with engine() as session:
        facts = cleaner.fit(session.table(table), session)
        before = session.table(table)
        after = cleaner.mend(before, facts, session)
        assert set(after.columns) == set(before.columns), (
            f"keeps_columns_and_rows: columns {set(after.columns) ^ set(before.columns)} came or went"
        )
        for name in before.columns:
            assert after[name].type() == before[name].type(), (
                f"keeps_columns_and_rows: {name} was {before[name].type()} and is {after[name].type()}"
            )
        cleaned = _all(cleaner, table, session, facts)
        ids, given = cleaned[ROW_ID].to_pylist(), table[ROW_ID].to_pylist()
        assert len(set(ids)) == len(ids) and set(ids) <= set(given), (
            "keeps_columns_and_rows: a row id came, or came twice"
        )
        if cleaner.form != "global" or cleaner.carries:
            assert sorted(ids) == sorted(given), (
                "keeps_columns_and_rows: this form must keep every row"
            )
        else:
            expected = _sorted(
                table.filter(pa.compute.is_in(table[ROW_ID], value_set=pa.array(ids)))
            )
            assert _same(expected, cleaned), (
                "keeps_columns_and_rows: a global cleaner changed a value"
            )


def order_free(cleaner: Cleaner, table: pa.Table) -> None:
    """Rows in another order are mended alike, and the same ones are dropped."""
    with engine() as session:
        facts = cleaner.fit(session.table(table), session)
        turned = table.take(pa.array(range(len(table) - 1, -1, -1)))
        assert _same(
            _all(cleaner, table, session, facts), _all(cleaner, turned, session, facts)
        ), "order_free: another order of rows was mended otherwise"


def twice_is_once(cleaner: Cleaner, table: pa.Table) -> None:
    """A global cleaner, run again on what it left, drops nothing more; one after the split may learn
    otherwise from what it left.
    """
    if cleaner.form != "global" or cleaner.runs_after_split():
        return
    with engine() as session:
        facts = cleaner.fit(session.table(table), session)
        once = _all(cleaner, table, session, facts)
        assert len(_all(cleaner, once, session, facts)) == len(once), (
            "twice_is_once: it drops more when run again"
        )


def alone_as_in_a_batch(cleaner: Cleaner, table: pa.Table) -> None:
    """At serving a row alone is mended as at preparing, among all."""
    if cleaner.form == "global" or cleaner.at_serving != "apply":
        return
    with engine() as session:
        facts = cleaner.fit(session.table(table), session)
        prepared = _all(cleaner, table, session, facts)
        served = applied([(cleaner, facts)], table.schema, session)
        assert _same(prepared, _sorted(served(table))), (
            "alone_as_in_a_batch: serving mends a batch otherwise than preparing"
        )
        alone = pa.concat_tables(
            [served(table.slice(i, 1)) for i in range(0, len(table), 5)]
        )
        some = prepared.filter(
            pa.compute.is_in(prepared[ROW_ID], value_set=alone[ROW_ID].combine_chunks())
        )
        assert _same(some, _sorted(alone)), (
            "alone_as_in_a_batch: a row alone is mended otherwise"
        )


def does_without(cleaner: Cleaner, table: pa.Table) -> None:
    """Where a request lacks a column that training had, the others are mended all the same."""
    if (
        cleaner.form == "global"
        or cleaner.at_serving != "apply"
        or cleaner.together
        or len(cleaner.needs()) < 2
    ):
        return
    with engine() as session:
        facts = cleaner.fit(session.table(table), session)
        whole = _all(cleaner, table, session, facts)
        less = table.drop_columns([cleaner.needs()[0]])
        assert _same(_all(cleaner, less, session, facts), whole), (
            "does_without: without one column the others are mended otherwise"
        )


def reasons_are_given(cleaner: Cleaner, table: pa.Table) -> None:
    """A judge finds a row once at most, gives each a reason, and gives the same in another order of rows."""
    if not isinstance(cleaner, Judge):
        return
    turned = table.take(pa.array(range(len(table) - 1, -1, -1)))
    with engine() as session:
        facts = cleaner.fit(session.table(table), session)
        one, other = (
            session.rows(
                cleaner.violations(_placed(session.table(rows)), facts, session)
                .select(ROW_ID, COLUMN, REASON)
                .order_by(ROW_ID)
            )
            for rows in (table, turned)
        )
    ids = [row[ROW_ID] for row in one]
    assert len(set(ids)) == len(ids) and set(ids) <= set(table[ROW_ID].to_pylist()), (
        "reasons_are_given: a row was found twice, or is none of the table"
    )
    assert all(row[REASON] for row in one), (
        "reasons_are_given: a row was found without a reason"
    )
    assert all(row[COLUMN] in (None, *table.column_names) for row in one), (
        "reasons_are_given: a column was named that is none"
    )
    assert one == other, "reasons_are_given: another order of rows gave other reasons"


def _placed(table: Any) -> Any:
    """As a preparation gives it to a judge."""
    import ibis

    return table.mutate(**{GIVEN: ibis.literal(False)})


LAWS: tuple[Law, ...] = (
    declared_and_back,
    facts_are_plain,
    keeps_columns_and_rows,
    order_free,
    twice_is_once,
    alone_as_in_a_batch,
    does_without,
    reasons_are_given,
)


def check(cleaner: Cleaner, table: pa.Table = TABLE) -> None:
    """Judge a cleaner by every law.

    Raises:
        AssertionError: names the law and the difference.
    """
    for law in LAWS:
        law(cleaner, table)
