"""Classes of the training split brought to like weight: fewer rows of the common ones, or weights.

`under` leaves out rows of the common classes, drawn by row id and seed: the same rows on every engine. A
training that sees the rare classes more often needs no copies of rows: `train.order: {balance: …}` draws them
so. Only the training split is touched, so validation and test stay as the world is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from penstock.contracts.data import ROW_ID, EngineSession
from penstock.contracts.digest import md5
from penstock.contracts.judge import COLUMN, FACTOR, REASON, VIOLATIONS, Judge
from penstock.contracts.part import mistakes
from penstock.core.errors import ContractError, Problem
from penstock.parts.cleaners._words import Names

if TYPE_CHECKING:
    import ibis.expr.types as ir

_MOST_CLASSES = 10_000


class Balance(Judge):
    """Balances the classes of the training split, by leaving rows out or by weights."""

    judges: ClassVar[str] = "train"
    specimens: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"by": "flag"},
        {"by": ["flag", "text"], "ratio": 2.0, "seed": 3},
        {"by": "flag", "method": "weights"},
    )

    by: Names = Field(min_length=1)
    """The columns whose values make a class."""
    method: Literal["under", "weights"] = "under"
    """`under` leaves out rows of classes that are too common (dropped unless `on_violation` says otherwise);
    `weights` multiplies the recipe's `weight` so that every class weighs the same and a row 1 on average.
    """
    ratio: float = Field(1.0, ge=1, allow_inf_nan=False)
    """Of `under`: a class keeps at most so many times the rows of the rarest one."""
    seed: int = 0
    """Of `under`: which rows of a class stay."""

    @model_validator(mode="before")
    @classmethod
    def _way(cls, data: Any) -> Any:
        # What a method does is known from it; the other ways are said.
        if not isinstance(data, Mapping) or "on_violation" in data:
            return data
        way = "weight" if data.get("method") == "weights" else "drop"
        return {**data, "on_violation": way}

    @model_validator(mode="after")
    def _one_method(self) -> Balance:
        problems = []
        if self.method == "weights":
            if self.on_violation != "weight":
                text = f"is `{self.on_violation}`, and `method: weights` sends no row away; leave it out"
                problems.append(Problem(("on_violation",), text))
            problems += [
                Problem((word,), "is for `method: under`")
                for word, is_given in (("ratio", self.ratio != 1), ("seed", self.seed))
                if is_given
            ]
            if self.factor is not None:
                text = "is worked out by `method: weights`; leave it out"
                problems.append(Problem(("factor",), text))
        if problems:
            raise mistakes(*problems)
        return self

    def needs(self) -> tuple[str, ...]:
        return self.by

    def runs_after_split(self) -> bool:
        return True

    def violations(
        self, table: ir.Table, facts: Mapping[str, Any], session: EngineSession
    ) -> ir.Table:
        import ibis

        names = [f"__p_by_{i}" for i in range(len(self.by))]
        rows = table.select(
            ROW_ID, *(table[c].name(n) for c, n in zip(self.by, names, strict=True))
        )
        # A row without a value in any of them is of no class.
        for name in names:
            rows = rows.filter(rows[name].notnull())
        classes = rows.group_by(names).aggregate(n=rows.count())
        measured = session.measure(
            classes,
            {
                "least": classes["n"].min(),
                "rows": classes["n"].sum(),
                "k": classes.count(),
            },
        )
        if not measured["k"]:
            return session.table(VIOLATIONS.empty_table())
        if measured["k"] > _MOST_CLASSES:
            raise ContractError(
                f"balance: {', '.join(self.by)} has {measured['k']:,} classes in the training split; at most"
                f" {_MOST_CLASSES:,} can be balanced. Choose a column of categories."
            )
        column = ibis.literal(self.by[0] if len(self.by) == 1 else None, "string")
        of_class = ibis.window(group_by=[rows[name] for name in names])
        if self.method == "weights":
            usual = float(measured["rows"]) / float(measured["k"])
            return rows.select(
                rows[ROW_ID],
                column.name(COLUMN),
                ibis.literal("has the weight of its class").name(REASON),
                (usual / rows.count().over(of_class)).cast("float64").name(FACTOR),
            )
        most = int(self.ratio * int(measured["least"]))
        # A text of its own, so that staying says nothing of any other draw.
        drawn = rows.mutate(__p_chance=md5(rows[ROW_ID] + f"|balance:{self.seed}"))
        ranked = drawn.mutate(
            __p_rank=ibis.row_number().over(
                ibis.window(
                    group_by=[drawn[name] for name in names],
                    order_by=[drawn["__p_chance"], drawn[ROW_ID]],
                )
            )
        )
        over = ranked.filter(ranked["__p_rank"] >= most)
        reason = f"is beyond the {most:,} rows that its class keeps"
        return over.select(
            over[ROW_ID], column.name(COLUMN), ibis.literal(reason).name(REASON)
        )
