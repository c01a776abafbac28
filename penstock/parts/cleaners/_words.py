"""What several cleaners share: names of columns as a recipe gives them, the columns a table really has, and
texts that are changed value by value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
from pydantic import BeforeValidator

from penstock.core.errors import ContractError

if TYPE_CHECKING:
    import ibis.expr.types as ir


def one_or_many(value: Any) -> Any:
    """A list, also where a recipe has one name."""
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(one_or_many)]
"""One column or a list of columns."""


def present(table: ir.Table, columns: Sequence[str]) -> list[str]:
    """Those of `columns` that the table has: a request need not carry every column that training had."""
    return [name for name in columns if name in table.columns]


def replaced(table: ir.Table, values: Mapping[str, ir.Value]) -> ir.Table:
    """The table with `values` in the place of its columns of these names.

    They are no keyword arguments, since a column may be called `self`.
    """
    return (
        # One call for all columns: each `mutate` is another layer of the query.
        table.mutate([value.name(name) for name, value in values.items()])
        if values
        else table
    )


def refuse_type(cleaner: str, table: ir.Table, column: str, wanted: str) -> ContractError:
    return ContractError(
        f"{cleaner}: the column {column!r} holds {table[column].type()}; expected {wanted}. Leave it out, or"
        " derive one that fits."
    )


def each_text(column: pa.Array, change: Callable[[str], str | None]) -> pa.Array:
    """A column of texts with every value changed by a pure function; each different value is changed once."""
    if not len(column):
        return column
    encoded = column.dictionary_encode()
    changed = [
        None if text is None else change(text) for text in encoded.dictionary.to_pylist()
    ]
    return pa.array(changed, column.type).take(encoded.indices)


def texts_alone(cleaner: str, table: ir.Table, columns: Sequence[str]) -> None:
    """Refuse columns of another type.

    Raises:
        ContractError: names the first that holds no texts.
    """
    for name in columns:
        if not table[name].type().is_string():
            raise refuse_type(cleaner, table, name, "texts")
