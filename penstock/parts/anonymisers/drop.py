"""The column is gone: what is not there cannot leak."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from penstock.contracts.privacy import Anonymiser

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Drop(Anonymiser):
    """Takes the column away, once `derive`, `expect` and `clean` have read it."""

    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    is_dropped: ClassVar[bool] = True

    def protect(self, value: ir.Value, row_id: ir.StringValue) -> ir.Value:
        import ibis

        return ibis.null(value.type())
