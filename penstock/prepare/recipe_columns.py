"""Do the columns exist that the recipe names, and do its expressions hold on them?

Names are judged by themselves, so that `check` may ask with the schema of a sample; every mistake is found at
once. Types are judged on a table, by the engine that would compute them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from penstock.contracts.data import ROW_FILE, ROW_ID, ROW_NUMBER, EngineSession
from penstock.contracts.sql import bind
from penstock.core.errors import Problem, RecipeError
from penstock.core.near import Hints, listed
from penstock.recipe.names import name_problems
from penstock.recipe.schema import Join, Recipe

if TYPE_CHECKING:
    import ibis.expr.types as ir

OWN = (ROW_ID, ROW_FILE, ROW_NUMBER)


def column_problems(
    recipe: Recipe, columns: Sequence[str], joined: Sequence[Sequence[str]] = ()
) -> list[Problem]:
    """Find every column that the recipe names and the sources lack, and every expression that is
    not valid.

    Args:
        columns: of the source.
        joined: of each joined source, in order.
    """
    judge = _Names(list(columns))
    for i, name in enumerate(recipe.key):
        judge.miss(("key", i), name)
    # `check` may have looked at none of the joined sources, and then nothing is said of
    # them.
    for i, (join, theirs) in enumerate(zip(recipe.join, joined, strict=False)):
        judge.join(i, join, theirs)
    if recipe.where is not None:
        judge.express(("where",), recipe.where)
    governance = recipe.governance
    if governance.consent is not None:
        judge.miss(("governance", "consent", "column"), governance.consent.column)
    if governance.retention is not None:
        judge.miss(("governance", "retention", "column"), governance.retention.column)
    for name, text in recipe.derive.items():
        judge.derive(name, text)
    judge.expect(recipe)
    for name in recipe.private:
        judge.miss(("private", name), name)
    if governance.anonymity is not None:
        asked = governance.anonymity
        for name in (*asked.columns, *([asked.sensitive] if asked.sensitive else [])):
            judge.miss(("governance", "anonymity"), name)
    for i, cleaner in enumerate(recipe.clean):
        for name in cleaner.needs():
            judge.miss(("clean", i), name)
        for word, text in cleaner.expressions().items():
            judge.express(("clean", i, word), text)
    for name in recipe.split.on or ():
        judge.miss(("split", "on"), name)
    if recipe.split.stratify:
        judge.miss(("split", "stratify"), recipe.split.stratify)
    if recipe.cluster_by:
        judge.miss(("cluster_by",), recipe.cluster_by)
    # Judged with the columns that are there after the last step.
    return judge.problems + learning_problems(recipe, judge.here)


class _Names:
    """The columns known after each step of a preparation, and the problems found so far."""

    def __init__(self, here: list[str]) -> None:
        self.here = here
        self.problems: list[Problem] = []
        # By the identity of a list of columns: wide tables are costly to compare.
        self._hints: dict[int, Hints] = {}

    def miss(
        self, path: tuple[str | int, ...], name: str, known: Sequence[str] | None = None
    ) -> None:
        """Note a problem if the column `name` is not in `known`: by default, the columns known at
        this step.
        """
        known = self.here if known is None else known
        if name not in known:
            # By identity, since comparing long lists costs more than the hint.
            hint = self._hints.setdefault(id(known), Hints(known))
            self.problems.append(
                Problem(
                    path,
                    f"there is no column {name!r}.{hint(name)} Columns: {listed(known)}.",
                )
            )

    def express(self, path: tuple[str | int, ...], text: str) -> None:
        try:
            bind(text, self.here)
        except RecipeError as error:
            self.problems.append(Problem(path, error.message))

    def derive(self, name: str, text: str) -> None:
        # DuckDB tells columns apart without regard to case.
        if name.lower() in {each.lower() for each in (*self.here, *OWN)}:
            self.problems.append(
                Problem(
                    ("derive", name), "already exists; give the new column another name"
                )
            )
        self.express(("derive", name), text)
        # Also where it does not hold: those that use it should not be called wrong as
        # well.
        self.here.append(name)

    def expect(self, recipe: Recipe) -> None:
        """Check the columns that rules of the contract name."""
        for name, promise in recipe.expect.items():
            self.miss(("expect", name), name)
            for path, rule in promise.rules():
                for i, by in enumerate(rule.monotonic.by if rule.monotonic else ()):
                    self.miss(("expect", name, *path, "monotonic", "by", i), by)
        rules = recipe.expect_table.rules if recipe.expect_table else {}
        for name, table_rule in rules.items():
            path = ("expect_table", "rules", name)
            if table_rule.sql is not None:
                self.express((*path, "sql"), table_rule.sql)
            for i, column in enumerate(table_rule.unique):
                self.miss((*path, "unique", i), column)

    def join(self, i: int, join: Join, theirs: Sequence[str]) -> None:
        """Check the columns that a join needs, and add those that it brings."""
        pairs = join.on if isinstance(join.on, dict) else {name: name for name in join.on}
        for ours, other in pairs.items():
            self.miss(("join", i, "on"), ours)
            self.miss(("join", i, "on"), other, theirs)
        for name in join.columns or ():
            self.miss(("join", i, "columns"), name, theirs)
        # Keys are here already, under our names.
        wanted = join.columns or [name for name in theirs if name not in pairs.values()]
        brought = [join.prefix + name for name in wanted if name in theirs]
        # A second column of the same name would hide the first.
        twice = [name for name in brought if name in self.here]
        if twice:
            self.problems.append(
                Problem(
                    ("join", i, "prefix"),
                    f"would add {', '.join(map(repr, twice))}, which already exists. Set"
                    " `prefix`, or list the `columns` to add",
                )
            )
        # A name that comes twice is a problem already; it is listed once.
        self.here += [name for name in brought if name not in self.here]


def learning_problems(recipe: Recipe, columns: Sequence[str]) -> list[Problem]:
    """Find every column that is named for the stages after preparing and is missing. They are no
    part of a dataset's identity, so an existing dataset must be checked as well.

    Args:
        columns: of the prepared rows.
    """
    problems: list[Problem] = []
    known, hint, some = set(columns), Hints(columns), listed(columns)

    def miss(path: tuple[str | int, ...], name: str) -> None:
        if name not in known:
            problems.append(
                Problem(
                    path, f"there is no column {name!r}.{hint(name)} Columns: {some}."
                )
            )

    for side, features in (("inputs", recipe.inputs), ("targets", recipe.targets)):
        # A column named by the feature's own name is the feature's mistake; another one
        # is its `column`'s.
        for name, feature in features.items():
            for column in feature.columns(name):
                miss((side, name) if column == name else (side, name, "column"), column)
    if recipe.weight:
        miss(("weight",), recipe.weight)
    order = recipe.train.order
    if order.weights:
        miss(("train", "order", "weights"), order.weights)
    if order.mix:
        miss(("train", "order", "mix", "by"), order.mix.by)
    for name in recipe.keep:
        miss(("keep",), name)
    for name in recipe.evaluate.slices:
        miss(("evaluate", "slices"), name)
    return problems + name_problems(recipe)


def typed_problems(
    session: EngineSession,
    table: ir.Table,
    expressions: Iterable[tuple[tuple[str | int, ...], str]],
    *,
    condition: bool,
) -> list[Problem]:
    """Expressions whose names are right but whose types do not fit; a condition must be true or false."""
    problems: list[Problem] = []
    for path, text in expressions:
        try:
            value = session.sql(table, text)
            if condition and not value.type().is_boolean():
                problems.append(
                    Problem(
                        path,
                        f"a condition must be true or false; this is {value.type()}: {text!r}",
                    )
                )
        except RecipeError as error:
            problems.append(Problem(path, error.message))
    return problems
