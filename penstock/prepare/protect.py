"""Whose data it is: consent, retention, hidden columns, and how many people a row is alike.

The order, in a preparation: consent and retention come first, so that no later step counts or quarantines a
row that must not be here; columns are hidden after `expect` and the cleaners that learn nothing, since those
need the values; anonymity is judged on what is hidden, before the split.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.contracts.privacy import Anonymiser
from penstock.contracts.sql import bind
from penstock.core.errors import ContractError, Problem, RecipeError
from penstock.recipe.governance import Anonymity, Consent, Governance, Retention

if TYPE_CHECKING:
    import ibis.expr.types as ir


def private_names(
    private: Mapping[str, Anonymiser], derived: Mapping[str, str], columns: Sequence[str]
) -> frozenset[str]:
    """The columns whose values nobody may see before they are hidden: the private ones, and what is derived
    of them.

    Args:
        columns: of the rows, derived ones included.
    """
    names = set(private)
    for name, text in derived.items():
        if names & set(bind(text, columns).columns):
            names.add(name)
    return frozenset(names)


def raw_schema(table: ir.Table, names: Iterable[str]) -> str:
    """The types that columns have before they are hidden, as text (Arrow's IPC in base64): a request brings
    them.
    """
    raw = table.select(*names).schema().to_pyarrow()
    return base64.b64encode(raw.serialize().to_pybytes()).decode()


def has_consent(table: ir.Table, consent: Consent) -> ir.BooleanValue:
    """True for the rows with consent; never null.

    Raises:
        RecipeError: a value that means yes is none that the column can hold.
    """
    import ibis

    column = table[consent.column]
    kind = column.type()
    given = column.cast("string").lower() if kind.is_boolean() else column
    yes: list[Any] = []
    for value in consent.values:
        if kind.is_boolean() or kind.is_string():
            yes.append(str(value).lower() if isinstance(value, bool) else str(value))
        elif kind.is_numeric() and not isinstance(value, str):
            yes.append(value)
        else:
            text = f"{value!r} is no value of the column {consent.column!r}, which holds {kind}"
            raise RecipeError.of(
                [Problem(("governance", "consent", "values"), text)], where="the recipe"
            )
    return given.isin(yes).fill_null(ibis.literal(False))


def is_retained(table: ir.Table, retention: Retention) -> ir.BooleanValue:
    """True for the rows that are young enough; never null.

    Raises:
        RecipeError: the column holds no dates or times.
    """
    import ibis

    column = table[retention.column]
    if not (column.type().is_date() or column.type().is_timestamp()):
        text = (
            f"the column {retention.column!r} holds {column.type()}; expected dates or times. Declare its"
            " type in `source.types`, or `derive` it"
        )
        raise RecipeError.of(
            [Problem(("governance", "retention", "column"), text)], where="the recipe"
        )
    oldest = _oldest(retention)
    bound: Any = ibis.literal(oldest)
    if column.type().is_timestamp():
        moment = datetime.datetime.combine(oldest, datetime.time(), datetime.UTC)
        zone = column.type().timezone
        bound = ibis.literal(
            moment if zone else moment.replace(tzinfo=None), type=column.type()
        )
    return (column > bound).fill_null(ibis.literal(False))


def admitted(governance: Governance, schema: Mapping[str, pa.DataType]) -> list[str]:
    """The conditions of consent and retention as SQL, for rows that are judged one by one; null is no.

    Args:
        schema: the types of raw columns, as they were when the dataset was prepared.
    """
    conditions = []
    if consent := governance.consent:
        column = _quoted(consent.column)
        kind = schema.get(consent.column, pa.string())
        if pa.types.is_boolean(kind):
            column = f"lower(cast({column} as varchar))"
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        yes = [
            str(value)
            if is_number
            else _text(str(value).lower() if isinstance(value, bool) else str(value))
            for value in consent.values
        ]
        conditions.append(f"{column} in ({', '.join(yes)})")
    if retention := governance.retention:
        oldest = _oldest(retention)
        kind = schema.get(retention.column, pa.date32())
        written = f"date '{oldest}'"
        if pa.types.is_timestamp(kind):
            written = f"timestamp '{oldest} 00:00:00'"
            if kind.tz:
                written = f"timestamptz '{oldest} 00:00:00+00'"
        conditions.append(f"{_quoted(retention.column)} > {written}")
    return conditions


def _oldest(retention: Retention) -> datetime.date:
    """The day that a row must be younger than."""
    assert isinstance(retention.as_of, datetime.date)
    return retention.as_of - datetime.timedelta(days=retention.days)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def protect(table: ir.Table, private: Mapping[str, Anonymiser]) -> ir.Table:
    """The table with its private columns hidden; those that are dropped are gone.

    Raises:
        ContractError: a column's values cannot be hidden so; names all of them.
    """
    problems: list[str] = []
    hidden: list[ir.Value] = []
    for name, how in private.items():
        if how.is_dropped or name not in table.columns:
            continue
        try:
            hidden.append(how.protect(table[name], table[ROW_ID]).name(name))
        except ContractError as error:
            problems.append(f"private.{name}: {error.message}")
    if problems:
        raise ContractError("\n".join(problems))
    if hidden:
        # No keyword arguments: a column may be called `self`.
        table = table.mutate(hidden)
    gone = [
        name for name, how in private.items() if how.is_dropped and name in table.columns
    ]
    return table.drop(*gone) if gone else table


@dataclass(frozen=True)
class Protection:
    """`protect` in the shape of a cleaner, for a bundle at serving."""

    private: Mapping[str, Anonymiser]

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        """The table with its private columns hidden."""
        return protect(table, self.private)


def anonymous(
    table: ir.Table, anonymity: Anonymity, session: EngineSession
) -> tuple[ir.Table, dict[str, Any]]:
    """The rows whose group is large and diverse enough, and what was measured.

    Returns:
        The table, and what was asked (`columns`, `k`, `sensitive`, `l`); `rows`, `groups`, `smallest_group`
        and `least_diverse` (distinct values of `sensitive`) `before` and `after`; and `suppressed` (rows).
    """
    names = list(anonymity.columns)
    narrow = table.select(*names, *([anonymity.sensitive] if anonymity.sensitive else []))
    keys = {f"__p_k{i}": narrow[name] for i, name in enumerate(names)}
    measures = {"__p_rows": narrow.count()}
    if anonymity.sensitive:
        measures["__p_values"] = narrow[anonymity.sensitive].nunique()
    groups = session.keep(
        narrow.group_by(**keys).aggregate(**measures)  # a group of nulls is a group
    )
    good = groups["__p_rows"] >= anonymity.k
    if anonymity.sensitive:
        good = good & (groups["__p_values"] >= anonymity.l)
    before = _measured(session, groups, anonymity)
    small = session.keep(groups.filter(~good).select(*keys))
    facts: dict[str, Any] = {
        "columns": names,
        "k": anonymity.k,
        **(
            {"sensitive": anonymity.sensitive, "l": anonymity.l}
            if anonymity.sensitive
            else {}
        ),
        "before": before,
        "after": _measured(session, groups.filter(good), anonymity),
    }
    facts["suppressed"] = before["rows"] - facts["after"]["rows"]
    if not facts["suppressed"]:
        return table, facts
    same = [table[name].identical_to(small[f"__p_k{i}"]) for i, name in enumerate(names)]
    return table.anti_join(small, same), facts


def _measured(
    session: EngineSession, groups: ir.Table, anonymity: Anonymity
) -> dict[str, int]:
    values = {
        "rows": groups["__p_rows"].sum(),
        "groups": groups.count(),
        "smallest_group": groups["__p_rows"].min(),
    }
    if anonymity.sensitive:
        values["least_diverse"] = groups["__p_values"].min()
    row = session.rows(groups.aggregate(**values))[0]
    # Without rows a sum is null.
    return {name: int(value or 0) for name, value in row.items()}
