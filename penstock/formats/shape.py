"""The shape that objects of JSON had where something was learnt: which of their fields hold one value, a
list, or others.

A column is made of all the values of a field, so one object of another shape would change the columns of all
rows. With a shape that was learnt it is that object alone that is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa


class Shape:
    """What each field may be.

    Args:
        columns: the columns that were learnt; a field `b` of the field `a` is called `a.b`.
        rename: from the names in files to those.
    """

    def __init__(self, columns: pa.Schema, rename: Mapping[str, str]) -> None:
        self._kinds = {column.name: column.type for column in columns}
        self._rename = dict(rename)
        # What lies above a learnt name: `a` and `a.b` above `a.b.c`.
        steps = [name.split(".") for name in [*self._kinds, *rename]]
        self._above = {
            ".".join(parts[:i]) for parts in steps for i in range(1, len(parts))
        }

    def problem(self, value: Mapping[str, Any], above: str = "") -> str | None:
        """Why an object does not fit, or None."""
        for key, field in value.items():
            # A missing value is of any shape.
            if field is None:
                continue
            name = f"{above}{key}"
            kind = self._kinds.get(self._rename.get(name, name))
            reason = (
                self._value(name, kind, field)
                if kind is not None
                else self._field(name, field)
            )
            if reason is not None:
                return reason
        return None

    def _value(self, name: str, kind: pa.DataType, field: Any) -> str | None:
        if isinstance(field, dict):
            return f"expected one value in {name!r}, found an object"
        if not pa.types.is_list(kind):
            return (
                f"expected one value in {name!r}, found a list"
                if isinstance(field, list)
                else None
            )
        if not isinstance(field, list):
            return f"expected a list in {name!r}, found one value"
        return (
            None
            if _fits(field, kind)
            else f"expected a list of {kind.value_type} in {name!r}, found something else in it"
        )

    def _field(self, name: str, field: Any) -> str | None:
        """A field that was not learnt itself; others may lie below it."""
        # Nothing that was learnt is in this field, so its shape makes no difference.
        if name not in self._above:
            return None
        if isinstance(field, dict):
            return self.problem(field, f"{name}.")
        if isinstance(field, list) and all(
            isinstance(entry, dict) or entry is None for entry in field
        ):
            return None
        return f"expected an object in {name!r}, found one value"


def _fits(values: list[Any], kind: pa.DataType) -> bool:
    """Whether all elements of a list are such that the list's type holds them."""
    inner, t = kind.value_type, pa.types
    for value in values:
        if value is None:
            continue
        if t.is_list(inner):
            good = isinstance(value, list) and _fits(value, inner)
        elif t.is_integer(inner) or t.is_floating(inner):
            # To Python a bool is an int.
            good = isinstance(value, (int, float)) and not isinstance(value, bool)
        elif t.is_boolean(inner):
            good = isinstance(value, bool)
        else:
            good = not isinstance(value, (list, dict))
        if not good:
            return False
    return True
