"""A sample of the rows: some or a share, of all or of each group; the others are counted as filtered.

A row is drawn by the digest of its id and a seed, so the same rows are drawn on every engine and however
they are ordered, and a row that stays in a later version of the data is drawn again. Unlike the recipe's
`sample` it sees what was derived and mended above it. A request is never left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from penstock.contracts.data import ROW_ID, Cleaner, EngineSession
from penstock.contracts.digest import md5
from penstock.contracts.part import mistakes
from penstock.core.errors import Problem
from penstock.parts.cleaners._words import Names

if TYPE_CHECKING:
    import ibis.expr.types as ir

_DIGITS = 8
"""Hexadecimal digits of the digest that a share is compared with."""


class Sample(Cleaner):
    """Keeps a sample of the rows."""

    form: ClassVar[str] = "global"
    at_serving: ClassVar[str] = "skip"
    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"share": 0.5, "seed": 3},
        {"rows": 10},
        {"rows": 2, "by": ["flag", "text"]},
    )

    rows: int | None = Field(None, ge=1)
    """So many rows, exactly, where there are as many; with `by` so many of each group."""
    share: float | None = Field(None, gt=0, lt=1)
    """Instead of `rows`: each row is drawn with this chance; with `by` this share of each group, exactly."""
    by: Names = ()
    """The columns whose values make a group: a stratified sample."""
    seed: int = 0

    @model_validator(mode="after")
    def _one_size(self) -> Sample:
        if (self.rows is None) == (self.share is None):
            raise mistakes(Problem(("rows",), "give either `rows` or `share`"))
        return self

    def needs(self) -> tuple[str, ...]:
        return self.by

    def mend(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        import ibis

        # A text of its own, so that being drawn says nothing of the split that a row goes to.
        chance = md5(table[ROW_ID] + f"|clean-sample:{self.seed}")
        if self.share is not None and not self.by:
            limit = f"{int(self.share * 16**_DIGITS):0{_DIGITS}x}"
            return table.filter(chance.substr(0, _DIGITS) < limit)
        # Only ids, groups and digests are ordered, not rows.
        drawn = table.select(
            table[ROW_ID].name("__p_id"),
            chance.name("__p_chance"),
            *(table[name].name(f"__p_by_{i}") for i, name in enumerate(self.by)),
        )
        window = ibis.window(
            group_by=[drawn[f"__p_by_{i}"] for i in range(len(self.by))],
            order_by=[drawn["__p_chance"], drawn["__p_id"]],
        )
        ranked = drawn.mutate(__p_rank=ibis.row_number().over(window))
        most: Any = self.rows
        if self.share is not None:
            group = ibis.window(
                group_by=[ranked[f"__p_by_{i}"] for i in range(len(self.by))]
            )
            # A half goes up by this sum on every engine, while their `round` differs.
            ranked = ranked.mutate(
                __p_most=(ranked.count().over(group) * self.share + 0.5).floor()
            )
            most = ranked["__p_most"]
        chosen = session.keep(ranked.filter(ranked["__p_rank"] < most).select("__p_id"))
        return table.semi_join(chosen, table[ROW_ID] == chosen["__p_id"])
