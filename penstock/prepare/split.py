"""Who goes to train, validation and test, as one Ibis expression a rule.

`hash`: a row's side depends on its id (or its group) and the seed alone, so it keeps its side when the data
grows; the shares are met in expectation. `stratify`: rows are ranked by that same hash within each value, so
the shares are met to one row a value, at the price that a row may change sides when the data grows. `time`:
the earliest to train, rows of one moment never parted. `order`: the first rows of the first files to
train, the last ones to test. `column`, `files`: as given; where train and test are
given but no validation, it is carved out of train by hash, and the given test is left as it is.

A row that no rule can place is quarantined, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from penstock.contracts.data import ROW_FILE, ROW_ID, ROW_NUMBER, EngineSession
from penstock.contracts.digest import below, key_text, md5
from penstock.contracts.judge import COLUMN, REASON, SPLIT
from penstock.core.errors import Problem, RecipeError
from penstock.core.events import Events
from penstock.recipe.schema import Split

if TYPE_CHECKING:
    import ibis.expr.types as ir

NAMES = ("train", "validation", "test")


def assign(
    table: ir.Table,
    split: Split,
    *,
    seed: int,
    files: Sequence[str | None],
    session: EngineSession,
    events: Events | None = None,
) -> ir.Table:
    """The table with `SPLIT`, and `COLUMN` and `REASON` for rows that cannot be placed.

    Args:
        table: has `ROW_ID` and `ROW_FILE`.
        seed: of the split.
        files: the split that each source file belongs to, by `ROW_FILE`.
        session: asked for the number of rows, where a rule needs it.
        events: told of a validation split carved out of a given train.
    """
    if split.by == "files":
        return _placed(table, by_files(table, split, seed=seed, files=files))
    if split.by == "column":
        return _by_column(table, split, seed, session, events)
    if split.by == "time":
        return _by_time(table, split, session)
    if split.by == "order":
        return _by_order(table, split, session)
    if split.stratify:
        return _stratified(table, split, seed)
    return _placed(
        table,
        # The second limit counts from nothing: both shares are cuts of the same digest.
        _by_share(
            _chance(table, split.on, seed), split.train, split.train + split.validation
        ),
    )


def by_files(
    table: ir.Table, split: Split, *, seed: int, files: Sequence[str | None]
) -> ir.StringValue:
    """The split that each row's file belongs to; a share of train becomes validation where no file
    is given for it.
    """
    import ibis

    # Files that are listed for no other split are training data.
    given: ir.StringValue = ibis.literal("train")
    for name in ("validation", "test"):
        indices = [i for i, own_split in enumerate(files) if own_split == name]
        if indices:
            given = table[ROW_FILE].isin(indices).ifelse(ibis.literal(name), given)
    # Given, or not wanted.
    if "validation" in files or not split.validation:
        return given
    # By each row's own digest, so a row keeps its side when other files are added.
    carved = below(_chance(table, split.on, seed), split.validation)
    return ((given == "train") & carved).ifelse(ibis.literal("validation"), given)


def _chance(table: ir.Table, on: Sequence[str] | None, seed: int) -> ir.StringValue:
    """A digest for each row, or for each group; a row with no group is a group of its own."""
    import ibis

    # Without a group: by its id, so that missing values are not one large group.
    who = key_text(table, on).fill_null(table[ROW_ID]) if on else table[ROW_ID]
    # The seed is a part of the text, so another one deals all rows anew.
    return md5(ibis.literal(f"split:{seed}:") + who)


def _by_share(chance: ir.StringValue, train: float, before_test: float) -> ir.StringValue:
    import ibis

    # The first condition that holds decides, so the second limit takes only what the
    # first has left.
    return ibis.cases(
        (below(chance, train), "train"),
        (below(chance, before_test), "validation"),
        else_="test",
    )


def _placed(table: ir.Table, placed: ir.StringValue) -> ir.Table:
    import ibis

    nothing = ibis.null("string")
    return table.mutate(**{SPLIT: placed, COLUMN: nothing, REASON: nothing})


def _unplaced(
    table: ir.Table, placed: ir.StringValue, column: str, reason: ir.StringValue
) -> ir.Table:
    import ibis

    # A column first, so that both texts ask what was placed, and the rule is written
    # once.
    table = table.mutate(**{SPLIT: placed})
    lost = table[SPLIT].isnull()
    nothing = ibis.null("string")
    return table.mutate(
        **{
            COLUMN: lost.ifelse(ibis.literal(column), nothing),
            REASON: lost.ifelse(reason, nothing),
        }
    )


def _by_column(
    table: ir.Table,
    split: Split,
    seed: int,
    session: EngineSession,
    events: Events | None,
) -> ir.Table:
    import ibis

    column = str((split.on or ("",))[0])
    # Other types are compared by their texts.
    text = table[column].cast("string")
    reason = (
        # A missing value makes the whole text null, and then the other sentence stands.
        ibis.literal("found '") + text + "', expected train, validation or test"
    ).fill_null("is missing, so the row has no split")
    placed = text.isin(NAMES).ifelse(text, ibis.null("string"))
    if split.validation:
        # All three answers in one pass, and only where a validation split may be
        # missing.
        given = session.rows(
            table.aggregate(**{name: (text == name).any() for name in NAMES})
        )[0]
        # Only where train and test are given is validation what is missing.
        if given["train"] and given["test"] and not given["validation"]:
            placed = (
                (text == "train") & below(_chance(table, None, seed), split.validation)
            ).ifelse(ibis.literal("validation"), placed)
            if events is not None:
                events.say(
                    f"{column!r} marks no row as validation. {split.validation:.0%} of its train"
                    " rows are used for it, chosen by hash; its test rows are unchanged (set"
                    " `split.validation` for another share)"
                )
    return _unplaced(table, placed, column, reason)


def _by_time(table: ir.Table, split: Split, session: EngineSession) -> ir.Table:
    import ibis

    column = str((split.on or ("",))[0])
    time = table[column]
    if time.type().is_floating():
        # NaN sorts after every number and would count as the latest moment.
        time = time.isnan().ifelse(ibis.null(time.type()), time)
    elif time.type().is_string():
        time = _as_time(table, column, session)
    timed = table.select(__p_time=time).filter(lambda t: t["__p_time"].notnull())
    # By moment, so that rows of one moment are never parted.
    moments = timed.group_by("__p_time").aggregate(__p_rows=timed.count())
    # Rows before each moment: a moment goes where its first row goes.
    ranked = moments.mutate(
        __p_until=moments["__p_rows"]
        .sum()
        .over(ibis.cumulative_window(order_by=moments["__p_time"]))
    )
    ranked = ranked.mutate(__p_before=ranked["__p_until"] - ranked["__p_rows"])
    count = session.count(timed)
    # Cuts of the cumulated shares, so that rounding loses no row between two splits.
    train, before_test = (
        round(split.train * count),
        round((split.train + split.validation) * count),
    )
    ends = ranked.aggregate(
        # The last moment whose first row is still within the share.
        __p_train=ranked["__p_time"].max(where=ranked["__p_before"] < train),
        __p_seen=ranked["__p_time"].max(where=ranked["__p_before"] < before_test),
    )
    # One row, so the join adds none. The ends stay in the engine, exact in whatever
    # type a time has.
    joined = table.mutate(__p_time=time).cross_join(ends)
    moment = joined["__p_time"]
    placed = ibis.cases(
        (moment.isnull(), ibis.null("string")),
        (moment <= joined["__p_train"], "train"),
        (moment <= joined["__p_seen"], "validation"),
        else_="test",
    )
    finding = (
        # Null where the text is missing; `fill_null` tells such rows apart.
        ibis.literal("found '")
        + joined[column].cast("string")
        + "', which is no time; expected one such as 2024-01-31 12:00"
    )
    reason = (
        finding.fill_null("is missing, so the row has no place in time")
        if joined[column].type().is_string()
        else ibis.literal("is missing, so the row has no place in time")
    )
    return _unplaced(joined, placed, column, reason).drop(
        "__p_time", "__p_train", "__p_seen"
    )


def _by_order(table: ir.Table, split: Split, session: EngineSession) -> ir.Table:
    """By file and row number; only two rows are looked up, so that nothing is sorted as a whole."""
    import ibis

    grouped = table.group_by(ROW_FILE).aggregate(__p_rows=table.count())
    by_file = {row[ROW_FILE]: int(row["__p_rows"]) for row in session.rows(grouped)}
    count = sum(by_file.values())
    # Cuts of the cumulated shares, so that rounding loses no row between two splits.
    train, before_test = (
        round(split.train * count),
        round((split.train + split.validation) * count),
    )
    file, number = table[ROW_FILE], table[ROW_NUMBER]

    def among_first(rows: int) -> ir.BooleanValue:
        for index in sorted(by_file):
            if rows < by_file[index]:
                mine = table.filter(file == index).select(ROW_NUMBER)
                first_out = session.rows(mine.order_by(ROW_NUMBER).limit(1, offset=rows))
                cut = int(first_out[0][ROW_NUMBER])
                return (file < index) | ((file == index) & (number < cut))
            rows -= by_file[index]
        everything: ir.BooleanValue = ibis.literal(True)
        return everything

    placed = ibis.cases(
        (among_first(train), "train"),
        (among_first(before_test), "validation"),
        else_="test",
    )
    return _placed(table, placed)


def _as_time(table: ir.Table, column: str, session: EngineSession) -> ir.Value:
    """A column of texts cast to timestamps; as texts they would be ordered by their letters.

    Raises:
        RecipeError: most of them name none.
    """
    # `try_cast` gives null instead of failing at the first odd text.
    time = table[column].strip().try_cast("timestamp")
    strange = table.filter(table[column].notnull() & time.isnull())
    counts = session.rows(
        table.aggregate(there=table[column].count(), times=time.count())
    )[0]
    # A few odd texts are quarantined row by row; if they are most, the column is not
    # what was meant.
    if 2 * counts["times"] < counts["there"]:
        example = session.rows(strange.select(found=table[column]).limit(1))[0]["found"]
        raise RecipeError.of(
            [
                Problem(
                    ("split", "on"),
                    f"{column!r} has texts such as {example!r}, which are not ISO 8601 times, so"
                    " their order is not the order of time. Derive a time and split by it, such"
                    f" as  derive: {{when: \"strptime({column}, '%d/%m/%Y')\"}}  split: {{by: time,"
                    " on: when}",
                )
            ],
            where="the recipe",
        )
    return time


def _stratified(table: ir.Table, split: Split, seed: int) -> ir.Table:
    import ibis

    value = str(split.stratify)
    chanced = table.mutate(__p_chance=_chance(table, None, seed))
    # Ranked by digest within each value; ids break a tie, so every engine ranks alike.
    window = ibis.window(
        group_by=chanced[value], order_by=[chanced["__p_chance"], chanced[ROW_ID]]
    )
    ranked = chanced.mutate(
        __p_rank=ibis.row_number().over(window),
        __p_rows=chanced.count().over(ibis.window(group_by=chanced[value])),
    )
    rows = ranked["__p_rows"].cast("float64")
    # A half goes up by this sum on every engine, while their `round` differs.
    train, before_test = (
        (rows * split.train + 0.5).floor(),
        (rows * (split.train + split.validation) + 0.5).floor(),
    )
    placed = ibis.cases(
        (ranked["__p_rank"] < train, "train"),
        (ranked["__p_rank"] < before_test, "validation"),
        else_="test",
    )
    return _placed(ranked, placed).drop("__p_chance", "__p_rank", "__p_rows")
